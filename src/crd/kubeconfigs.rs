//! `spec.kubeconfigs` of a VirtualCluster: kubeconfigs for machines, and what `status` says of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most of one virtual cluster.
pub const MOST_KUBECONFIGS: usize = 16;
/// The shortest and the longest life, in seconds.
const SHORTEST: i64 = 3600;
const LONGEST: i64 = 10 * 365 * 24 * 3600;
const SECRET_NAME: &str = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$";
/// As the API server has it: a segment of a path, so neither `.` nor `..`.
const ROLE: &str = r"^(\.\.[^/%]+|\.?[^./%][^/%]*)$";
const ROLE_OR_NONE: &str = r"^(\.\.[^/%]+|\.?[^./%][^/%]*)?$";
const LABEL: &str = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";

/// A kubeconfig in a Secret of the host namespace, for a user or for a ServiceAccount of the virtual cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineKubeconfig {
    /// Name of the Secret, which Portico makes and renews. One of somebody else's is left alone.
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_NAME))]
    pub secret_name: String,
    /// User that it names, by a client certificate: printable ASCII, and none of Kubernetes' own (`system:`) unless the admin
    /// allows it. Either this or `serviceAccount`.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub user: String,
    /// Groups of that user, likewise.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub groups: Vec<String>,
    /// ServiceAccount whose token it holds; made where it is missing, in a namespace that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<AccountOfTenant>,
    /// ClusterRole that the user or ServiceAccount is bound to in the whole virtual cluster; empty: none.
    #[serde(default)]
    #[schemars(length(max = 253), regex(pattern = ROLE_OR_NONE))]
    pub cluster_role: String,
    /// Role that it is bound to in the Role's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleOfTenant>,
    /// How long a credential lives; no longer than the admin's `operator.credentials.longestForMachines`, and for a token than the API
    /// server grants. It is renewed at about two thirds.
    #[serde(default = "thirty_days")]
    #[schemars(range(min = SHORTEST, max = LONGEST))]
    pub expiration_seconds: i64,
}

/// A ServiceAccount of the virtual cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountOfTenant {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_NAME))]
    pub name: String,
}

/// A Role of the virtual cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleOfTenant {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = ROLE))]
    pub name: String,
}

/// What Portico has made for an entry of `spec.kubeconfigs`; also of one that is gone, until all of it is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeconfigStatus {
    /// Name of the Secret.
    pub secret_name: String,
    /// The last moment at which the credential in it is good, RFC 3339; empty while there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expiration: String,
    /// Where in the virtual cluster a binding of it is: a namespace, or `*` for a ClusterRoleBinding; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_in: Option<String>,
}

fn thirty_days() -> i64 {
    30 * 24 * 3600
}
