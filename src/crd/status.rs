//! What Portico says of a virtual cluster: the types below `status`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kubeconfigs::KubeconfigStatus;
use super::limits::GrantedLimits;
use crate::config::PodSecurity;

/// What Portico has made of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualClusterStatus {
    /// `Pending`, `Provisioning`, `Ready`, `Held` (nothing, or not everything, is synced: see `hold`) or `Failed`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// What is being waited for, in one sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Standard conditions: `CertificatesReady`, `ServicesReady`, `ControlPlaneReady`, `Ready`; beside them `Durable`
    /// (whether the data outlives the control plane's pod), `UpToDate` (whether it runs with the newest image and flags
    /// that Portico has for it), `HostsAccepted` (which names those of `spec.expose.hosts` that do not lead here, and who
    /// has them), `StoreFull` (since it first was: whether the control plane refuses what adds to its store),
    /// `ObjectsSynced` (since they first were not: whether there is room for all its objects), `KubeconfigsReady` (where
    /// `spec.kubeconfigs` names some: which are missing, and why), and `StoreReplaced` or `MassDeletion` while a person is
    /// waited for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Generation of the spec that this status describes.
    pub observed_generation: i64,
    /// Kubernetes version of the backend.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// URLs under which the gateway serves this cluster, best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// The tenant's port on every gateway replica; its DNS port is the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// ClusterIP of the tenant's API Service in Portico's namespace: the tenant's own `kubernetes` Service.
    #[serde(rename = "apiServiceIP", skip_serializing_if = "String::is_empty")]
    pub api_service_ip: String,
    /// ClusterIP of the tenant's DNS Service in Portico's namespace.
    #[serde(rename = "dnsServiceIP", skip_serializing_if = "String::is_empty")]
    pub dns_service_ip: String,
    /// Service CIDR in force.
    #[serde(rename = "serviceCIDR", skip_serializing_if = "String::is_empty")]
    pub service_cidr: String,
    /// Where the backend is reached from inside the host cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendStatus>,
    /// Secret with the PKI.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pki_secret: String,
    /// Secret with a cluster-admin kubeconfig of the tenant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kubeconfig_secret: String,
    /// Where the control plane's data is. Decided once, before there is any, and never changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,
    /// How far the control plane's update to a new image or flag of Portico's has come; absent when it has the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Which store the tenant has. Nothing is synced before this is known, and nothing of another store is believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreStatus>,
    /// What of its objects is not synced for want of room, in a sentence; absent while all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsynced: Option<String>,
    /// The Pod Security Standard in force: `spec.policy.podSecurity`, within what the configuration allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_security: Option<PodSecurity>,
    /// What it may use of the gateway, of DNS and of the syncer: `spec.limits`, within what the configuration allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<GrantedLimits>,
    /// What was made of `spec.kubeconfigs`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubeconfigs: Vec<KubeconfigStatus>,
    /// Why nothing is synced, while that is so. Written by the syncer alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldStatus>,
}

/// Where a control plane is in a wave of updates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutStatus {
    /// `Waiting`, `Updating`, `Repairing` or `Failed`.
    pub phase: RolloutPhase,
    /// Since when, RFC 3339.
    pub since: String,
}

/// Phases of one control plane's update.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    /// It is not its turn.
    #[default]
    Waiting,
    /// It was ready, was given the new rendering, and is not back yet.
    Updating,
    /// It was away already when it was given the new rendering, and still is.
    Repairing,
    /// It was ready, was given the new rendering, and has not come back in time: nobody else is updated.
    Failed,
}

/// Where a control plane's data is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageStatus {
    /// `Volume`, `Database`, `External` (an API server that already runs) or `Pod` (lost with the pod).
    pub kind: StorageKind,
    /// Size of the volume, as a Kubernetes quantity.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub size: String,
    /// StorageClass of the volume; empty means the one that was the default when the claim was made.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// Why it is in the pod: `Ephemeral` (asked for), `NoDefaultStorageClass`, or `BeforeDurableDefault` (the cluster is
    /// older than the rule that a volume is the default).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Kinds of places for a control plane's data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StorageKind {
    /// An emptyDir.
    #[default]
    Pod,
    /// A PersistentVolumeClaim.
    Volume,
    /// A database outside of the pod.
    Database,
    /// Wherever the external API server has it.
    External,
}

/// The identity of a tenant's store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StoreStatus {
    /// uid of the Namespace `kube-system`, which lives as long as the store.
    pub uid: String,
    /// Since when, RFC 3339.
    pub since: String,
}

/// Why a tenant is not synced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HoldStatus {
    /// `StoreReplaced` or `MassDeletion`.
    pub reason: String,
    /// What stands on the host and what to do.
    pub message: String,
    /// uid of the store that was found instead.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub found: String,
    /// RFC 3339.
    pub since: String,
}

impl HoldStatus {
    /// What `message` begins with when a decision about it could not be carried out.
    pub const FAILED: &str = "recovery failed: ";
}

/// The backend's address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendStatus {
    /// `host:port` or `ip:port`.
    pub address: String,
    /// Name that its certificate must carry.
    pub server_name: String,
}

/// `metav1.Condition`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Which.
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// RFC 3339.
    pub last_transition_time: String,
    /// Generation it was computed for.
    pub observed_generation: i64,
}
