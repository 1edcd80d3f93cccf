//! Status of a pod: the host's goes up, conditions of the tenant's own readiness gates go down.
//!
//! Only fields that every supported API server knows are written: one that drops a field silently would be patched
//! forever.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::super::{View, json};
use super::images::image;

const SCALARS: &[&str] = &["phase", "message", "reason", "hostIP", "podIP", "startTime", "nominatedNodeName", "resize"];
const CONDITION: &[&str] = &["type", "status", "reason", "message", "lastProbeTime", "lastTransitionTime"];
const CONTAINER: &[&str] = &[
    "name",
    "state",
    "lastState",
    "ready",
    "restartCount",
    "image",
    "imageID",
    "containerID",
    "started",
    "allocatedResources",
    "resources",
];
/// Conditions that the kubelet takes away again.
const TRANSIENT: &[&str] = &["PodResizePending", "PodResizeInProgress"];

/// Strategic patch of the virtual pod's status; None when it says what the host says.
pub fn up(pod: &Value, host: &Value, view: &View) -> Option<Value> {
    let (found, wanted) = (pod.get("status").unwrap_or(&Value::Null), host.get("status").unwrap_or(&Value::Null));
    if json::text(wanted, "/phase").is_empty() {
        return None;
    }
    let mut patch = Map::new();
    for field in SCALARS {
        let (old, new) = (present(found, field), present(wanted, field));
        if old != new {
            patch.insert((*field).to_owned(), new.cloned().unwrap_or_default());
        }
    }
    for field in ["podIPs", "hostIPs"] {
        let (old, new) = (json::items(found, &format!("/{field}")), json::items(wanted, &format!("/{field}")));
        if old != new {
            let replaced = std::iter::once(json!({"$patch": "replace"})).chain(new.iter().cloned()).collect();
            patch.insert(field.to_owned(), if new.is_empty() { Value::Null } else { Value::Array(replaced) });
        }
    }
    for (field, containers) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", "ephemeralContainers"),
    ] {
        let statuses = containers_of(pod, wanted, field, containers, view);
        if json::items(found, &format!("/{field}")) != statuses {
            patch.insert(field.to_owned(), if statuses.is_empty() { Value::Null } else { Value::Array(statuses) });
        }
    }
    let conditions = conditions_up(pod, found, wanted);
    if !conditions.is_empty() {
        patch.insert("conditions".to_owned(), Value::Array(conditions));
    }
    (!patch.is_empty()).then(|| json!({"metadata": {"uid": json::uid(pod)}, "status": patch}))
}

/// Strategic patch of the host pod's status: conditions of the tenant's readiness gates.
pub fn down(pod: &Value, host: &Value) -> Option<Value> {
    let running = by_type(json::items(host, "/status/conditions"));
    let gates = gates(pod);
    let on_host = |kind: &str| running.get(kind).copied();
    let changed: Vec<Value> = json::items(pod, "/status/conditions")
        .iter()
        .filter(|c| gates.contains(json::text(c, "/type")))
        .filter(|c| !on_host(json::text(c, "/type")).is_some_and(|on_host| is_newer(on_host, c)))
        .map(condition)
        .filter(|c| on_host(json::text(c, "/type")).map(condition).as_ref() != Some(c))
        .collect();
    (!changed.is_empty()).then(|| json!({"metadata": {"uid": json::uid(host)}, "status": {"conditions": changed}}))
}

/// Patch that reports a pod whose host pod is gone although it had run.
pub fn gone(pod: &Value) -> Value {
    json!({"metadata": {"uid": json::uid(pod)}, "status": {
        "phase": "Failed",
        "reason": "HostPodGone",
        "message": "The pod that ran for this one on the host is gone; it is not started a second time.",
    }})
}

fn present<'a>(status: &'a Value, field: &str) -> Option<&'a Value> {
    status.get(field).filter(|v| !v.is_null() && v.as_str() != Some(""))
}

fn gates(pod: &Value) -> HashSet<&str> {
    json::items(pod, "/spec/readinessGates").iter().map(|gate| json::text(gate, "/conditionType")).collect()
}

fn condition(condition: &Value) -> Value {
    Value::Object(json::pick(condition, CONDITION))
}

fn is_newer(one: &Value, other: &Value) -> bool {
    let time = |c| json::unix(json::text(c, "/lastTransitionTime"));
    time(one).zip(time(other)).is_some_and(|(one, other)| one > other)
}

/// The first of each type.
fn by_type(conditions: &[Value]) -> HashMap<&str, &Value> {
    conditions.iter().rev().map(|c| (json::text(c, "/type"), c)).collect()
}

fn conditions_up(pod: &Value, found: &Value, wanted: &Value) -> Vec<Value> {
    let (own, wanted) = (json::items(found, "/conditions"), json::items(wanted, "/conditions"));
    let (found, on_host, gates) = (by_type(own), by_type(wanted), gates(pod));
    let found = |kind: &str| found.get(kind).copied();
    // Of a readiness gate that both sides have set, the newer one counts; without times the tenant's.
    let is_tenants = |kind: &str| {
        let newer = || on_host.get(kind).zip(found(kind)).is_some_and(|(host, own)| is_newer(host, own));
        gates.contains(kind) && found(kind).is_some() && !newer()
    };
    let mut out: Vec<Value> = wanted
        .iter()
        .filter(|c| !json::text(c, "/type").is_empty() && !is_tenants(json::text(c, "/type")))
        .filter(|c| found(json::text(c, "/type")).map(condition) != Some(condition(c)))
        .map(|c| {
            let mut new = json::pick(c, CONDITION);
            // In a strategic patch an absent field keeps its old value.
            for field in CONDITION {
                new.entry((*field).to_owned()).or_insert(Value::Null);
            }
            if found(json::text(c, "/type")).is_none() {
                new.retain(|_, value| !value.is_null());
            }
            Value::Object(new)
        })
        .collect();
    for kind in TRANSIENT {
        if found(kind).is_some() && !on_host.contains_key(kind) {
            out.push(json!({"$patch": "delete", "type": kind}));
        }
    }
    out
}

/// Statuses of the containers that the tenant knows, with the tenant's image where it was replaced.
fn containers_of(pod: &Value, status: &Value, field: &str, containers: &str, view: &View) -> Vec<Value> {
    let own: HashMap<&str, &Value> =
        json::items(pod, &format!("/spec/{containers}")).iter().rev().map(|c| (json::text(c, "/name"), c)).collect();
    json::items(status, &format!("/{field}"))
        .iter()
        .filter_map(|status| {
            let container = own.get(json::text(status, "/name"))?;
            let mut status = json::pick(status, CONTAINER);
            let of_tenant = json::text(container, "/image");
            if image(of_tenant, view) != of_tenant {
                status.insert("image".to_owned(), json!(of_tenant));
            }
            Some(Value::Object(status))
        })
        .collect()
}
