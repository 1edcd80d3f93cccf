//! What is rendered for a control plane, and what the distributions have in common. Pure.

use serde_json::{Value, json};

use crate::crd::StorageStatus;
use crate::operator::cluster::Cluster;
use crate::operator::control_plane::datastore::Datastore;

/// Port of the API.
pub(super) const PORT: u16 = 6443;

/// What is rendered.
pub(super) struct Plan<'a> {
    pub cluster: &'a Cluster,
    pub image: &'a str,
    pub service_cidr: &'a str,
    /// ClusterIP of the Service in front of the backend.
    pub service_ip: &'a str,
    pub pki_digest: &'a str,
    pub datastore: Option<Datastore>,
    /// Where the data is.
    pub storage: &'a StorageStatus,
}

/// What a distribution puts into the pod.
pub(super) struct Parts {
    pub init_containers: Vec<Value>,
    pub container: Value,
    pub volumes: Vec<Value>,
}

/// What no container of ours needs is taken from it.
pub(super) fn confined() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    })
}

pub(super) fn probe(path: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": PORT, "scheme": "HTTPS"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    })
}

/// The user's resources, or the default where the user says nothing; a limit below a default request is the user's to
/// solve by naming a request.
pub(super) fn resources(plan: &Plan<'_>, defaults: &[(&str, &str)]) -> Value {
    let given = &plan.cluster.spec.resources;
    let mut requests = json!(given.requests);
    for (resource, quantity) in defaults {
        if !given.requests.contains_key(*resource) {
            requests[*resource] = (*quantity).into();
        }
    }
    let mut all = json!({"requests": requests});
    if !given.limits.is_empty() {
        all["limits"] = json!(given.limits);
    }
    all
}
