//! The `VirtualCluster` custom resource: types, schema, defaults. `config/crd/virtualcluster.yaml` is generated from here.
//!
//! Pure data; what becomes of it is the operator's and the registry's business.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// API group of all Portico resources.
pub const GROUP: &str = "portico.dev";

/// A virtual cluster: a real API server in this namespace, its pods on the host's nodes.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "portico.dev",
    version = "v1alpha1",
    kind = "VirtualCluster",
    plural = "virtualclusters",
    shortname = "vc",
    namespaced,
    status = "VirtualClusterStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Distro","type":"string","jsonPath":".spec.distro"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.version"}"#,
    printcolumn = r#"{"name":"Endpoint","type":"string","jsonPath":".status.endpoints[0]"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualClusterSpec {
    /// Which control plane runs: `k8s` (kube-apiserver, controller manager and kine in one pod) or `external` (an API
    /// server that already runs, reached with `backend.kubeconfigSecret`).
    pub distro: Distro,
    /// Image of the control plane; empty means the operator's default.
    pub image: String,
    /// Where the control plane keeps its data.
    pub storage: Storage,
    /// Cluster network of the tenant.
    pub network: Network,
    /// How the gateway exposes the API server.
    pub expose: Expose,
    /// Who may call.
    pub auth: Auth,
    /// What the tenant may make run on the host.
    pub policy: Policy,
    /// Only for `distro: external`.
    pub backend: Option<ExternalBackend>,
    /// CPU and memory of the control plane.
    pub resources: Resources,
}

/// Kind of control plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Distro {
    /// Portico's control-plane image.
    #[default]
    K8s,
    /// Any running API server.
    External,
}

/// Data of the control plane. With neither field set it is lost when the pod is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Storage {
    /// Keep it in a PersistentVolumeClaim; absent means an emptyDir.
    pub volume_claim: Option<VolumeClaim>,
}

/// A claim for the control plane's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeClaim {
    /// Kubernetes quantity.
    pub size: String,
    /// StorageClass; empty means the default class.
    pub class: String,
}

impl Default for VolumeClaim {
    fn default() -> Self {
        Self { size: "5Gi".to_owned(), class: String::new() }
    }
}

/// Cluster network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// Must equal the host's, since ClusterIPs are shared; empty means: find out.
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: String,
    /// DNS domain of the tenant's Services.
    pub cluster_domain: String,
}

impl Default for Network {
    fn default() -> Self {
        Self { service_cidr: String::new(), cluster_domain: "cluster.local".to_owned() }
    }
}

/// Names under which the gateway serves the tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Expose {
    /// SNI names, exact. Beside them every tenant has `{name}.{namespace}.{baseDomain}`.
    pub hosts: Vec<String>,
    /// Further names and IPs in the serving certificate.
    #[serde(rename = "extraSANs")]
    pub extra_sans: Vec<String>,
}

/// Authentication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Auth {
    /// Whether callers without credentials reach the backend as `system:anonymous`.
    pub anonymous: bool,
}

/// Policy for what reaches the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// Pod Security Standard that synced pods must meet.
    pub pod_security: PodSecurity,
}

/// Pod Security Standards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PodSecurity {
    /// No known privilege escalation (default).
    #[default]
    Baseline,
    /// Hardened.
    Restricted,
    /// Everything is allowed: for tenants who may have root on the nodes.
    Privileged,
}

/// A running API server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalBackend {
    /// Secret in the same namespace with a kubeconfig of cluster-admin rights.
    pub kubeconfig_secret: SecretKey,
}

/// One key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretKey {
    /// Secret name.
    pub name: String,
    /// Key in it.
    pub key: String,
}

impl Default for SecretKey {
    fn default() -> Self {
        Self { name: String::new(), key: "config".to_owned() }
    }
}

/// Requests and limits, as Kubernetes quantities by resource name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What the scheduler reserves.
    pub requests: std::collections::BTreeMap<String, String>,
    /// What the kubelet enforces.
    pub limits: std::collections::BTreeMap<String, String>,
}

/// What Portico has made of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualClusterStatus {
    /// `Pending`, `Provisioning`, `Ready` or `Failed`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// What is being waited for, in one sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Standard conditions: `CertificatesReady`, `ServicesReady`, `ControlPlaneReady`, `Ready`.
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

/// Keys of the PKI Secret (`{name}-pki` in the host namespace), all PEM.
pub mod pki {
    /// CA of the tenant's serving certificates; pods and kubeconfigs trust it.
    pub const SERVER_CA: &str = "server-ca.crt";
    /// Its key.
    pub const SERVER_CA_KEY: &str = "server-ca.key";
    /// CA of the tenant's client certificates.
    pub const CLIENT_CA: &str = "client-ca.crt";
    /// Its key (the controller manager signs CSRs with it).
    pub const CLIENT_CA_KEY: &str = "client-ca.key";
    /// CA of front proxies.
    pub const FRONT_PROXY_CA: &str = "front-proxy-ca.crt";
    /// Its key.
    pub const FRONT_PROXY_CA_KEY: &str = "front-proxy-ca.key";
    /// Service-account signing key (ECDSA P-256).
    pub const SERVICE_ACCOUNT_KEY: &str = "sa.key";
    /// Its public half.
    pub const SERVICE_ACCOUNT_PUBLIC: &str = "sa.pub";
    /// Backend's serving certificate.
    pub const API_SERVER: &str = "apiserver.crt";
    /// Its key.
    pub const API_SERVER_KEY: &str = "apiserver.key";
    /// Controller manager's client certificate.
    pub const CONTROLLER_MANAGER: &str = "kcm.crt";
    /// Its key.
    pub const CONTROLLER_MANAGER_KEY: &str = "kcm.key";
    /// The gateway's serving certificate for this tenant (all SNI names, `kubernetes.default.svc…`, the API Service IP).
    pub const GATEWAY: &str = "gateway.crt";
    /// Its key.
    pub const GATEWAY_KEY: &str = "gateway.key";
    /// The gateway's client certificate towards the backend, CN [`FRONT_PROXY_NAME`].
    pub const FRONT_PROXY: &str = "front-proxy.crt";
    /// Its key.
    pub const FRONT_PROXY_KEY: &str = "front-proxy.key";
    /// Common name that backends allow as front proxy.
    pub const FRONT_PROXY_NAME: &str = "portico-gateway";
}
