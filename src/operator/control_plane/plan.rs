//! What is rendered for a control plane, and what the distributions have in common. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::config::{OperatorConfig, Quantity};
use crate::crd::{StorageKind, StorageStatus};
use crate::operator::cluster::Cluster;
use crate::operator::control_plane::datastore::Datastore;

/// Port of the API.
pub(crate) const PORT: u16 = 6443;

/// What is rendered.
pub(super) struct Plan<'a> {
    pub cluster: &'a Cluster,
    pub image: &'a str,
    pub service_cidr: &'a str,
    /// ClusterIP of the Service in front of the backend.
    pub service_ip: &'a str,
    /// ClusterIP at which the cluster's pods, and its control plane, reach the gateway.
    pub gateway_ip: &'a str,
    pub pki_digest: &'a str,
    pub datastore: Option<Datastore>,
    /// Where the data is.
    pub storage: &'a StorageStatus,
    /// Size of its volume, where somebody has grown it since.
    pub grown: Option<Quantity>,
    /// Limits.
    pub config: &'a OperatorConfig,
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

/// Go's collector keeps below this share of the memory limit: what is not its heap needs some too.
const HEAP_PERCENT: u64 = 85;

/// What the container may take of its node: what the user says, within what the configuration allows, or its default.
pub(super) fn limits(plan: &Plan<'_>) -> BTreeMap<String, Quantity> {
    let mut limits = plan.config.control_plane_limits.clone();
    for (resource, text) in &plan.cluster.spec.resources.limits {
        // What cannot be read is no way around a limit.
        let Ok(asked) = Quantity::parse(text) else { continue };
        let most = plan.config.max_control_plane_limits.get(resource).filter(|most| **most < asked);
        limits.insert(resource.clone(), most.cloned().unwrap_or(asked));
    }
    limits
}

/// The user's requests, or the default where the user says nothing, below the limits.
pub(super) fn resources(plan: &Plan<'_>, defaults: &[(&str, &str)]) -> Value {
    let limits = limits(plan);
    let mut requests: BTreeMap<&str, &str> = defaults.iter().copied().collect();
    requests.extend(plan.cluster.spec.resources.requests.iter().map(|(r, text)| (r.as_str(), text.as_str())));
    for (resource, text) in &mut requests {
        let limit = limits.get(*resource);
        if let Some(limit) = limit.filter(|limit| Quantity::parse(text).is_ok_and(|asked| asked > **limit)) {
            *text = limit.as_str();
        }
    }
    json!({"requests": requests, "limits": limits})
}

/// Tells Go's runtime of the memory limit, so that it collects instead of being killed.
pub(super) fn heap_limit(plan: &Plan<'_>) -> Option<Value> {
    let bytes = limits(plan).get("memory")?.units() / 100 * HEAP_PERCENT;
    Some(json!({"name": "GOMEMLIMIT", "value": bytes.to_string()}))
}

/// How many percent of its volume, or of what its pod may take, a store may fill. The database keeps what is deleted once
/// more until the next compaction, so a store that is deleted as a whole takes twice its room for a minute. The rest is for
/// the write-ahead log, and in the pod for what the container logs.
const PERCENT_OF_VOLUME: u64 = 40;
const PERCENT_OF_POD: u64 = 30;

/// Bytes that a SQLite may grow to; `None` where nobody has said what there is, and for a database outside.
pub(super) fn store_bound(plan: &Plan<'_>) -> Option<u64> {
    let (room, percent) = match plan.storage.kind {
        StorageKind::Volume => {
            let decided = Quantity::parse(&plan.storage.size).ok();
            (decided.into_iter().chain(plan.grown.clone()).max()?, PERCENT_OF_VOLUME)
        }
        StorageKind::Pod => (limits(plan).get("ephemeral-storage")?.clone(), PERCENT_OF_POD),
        StorageKind::Database | StorageKind::External => return None,
    };
    Some(room.units() / 100 * percent).filter(|bytes| *bytes > 0 && plan.datastore.is_none())
}

/// A folder of the pod that is no larger than what the pod may take.
pub(super) fn folder(plan: &Plan<'_>) -> Value {
    match limits(plan).get("ephemeral-storage") {
        Some(limit) => json!({"sizeLimit": limit}),
        None => json!({}),
    }
}

/// An address of a Service and the port of its API, as one.
pub(crate) fn authority(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:443") } else { format!("{ip}:443") }
}
