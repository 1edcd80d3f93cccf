//! What the host shows of itself inside every tenant: nodes and classes, as copies that carry
//! [`identity::FROM_HOST`]. Nothing of them goes down.

use serde_json::{Map, Value, json};

use super::super::kind::{Action, Direction, HostScope, Lookup, ObjectKey, Plan, ResourceSyncer, TenantView};
use super::identity::key_of;
use super::projection::{strip_last_applied, strip_metadata};
use super::writes::delete_virtual;
use crate::kubernetes::resources::{INGRESS_CLASSES, NODES, PRIORITY_CLASSES, RUNTIME_CLASSES, STORAGE_CLASSES};
use crate::kubernetes::{PatchKind, Resource};
use crate::names::keys;
use crate::translate::{diff, identity, json, legacy};

/// Nodes.
#[derive(Debug)]
pub struct NodeKind;

/// One kind of class.
#[derive(Debug)]
pub struct ClassKind {
    resource: Resource,
    /// Fields that are shown; `group/field` paths are not needed, classes are flat.
    fields: &'static [&'static str],
    /// Fields that cannot change: a class that differs in one is made again.
    fixed: &'static [&'static str],
}

/// Parts of `status.nodeInfo` that say what runs, not which machine it is.
const NODE_INFO: &[&str] = &[
    "architecture",
    "containerRuntimeVersion",
    "kernelVersion",
    "kubeProxyVersion",
    "kubeletVersion",
    "operatingSystem",
    "osImage",
];
const DEFAULT_CLASS: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "ingressclass.kubernetes.io/is-default-class"];

/// Whether a host node is one of the tenant's.
pub(super) fn is_shown(node: &Value, view: &TenantView) -> bool {
    let labels = json::strings(node, "/metadata/labels");
    view.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl ResourceSyncer for NodeKind {
    fn resource(&self) -> Resource {
        NODES
    }

    fn host_scope(&self) -> HostScope {
        HostScope::Cluster
    }

    /// Heartbeats, images and volumes are dropped: a host node that only lives on is no change.
    fn project(&self, object: Value, side: Direction) -> Value {
        let part = |from: &str, fields: &[&str]| json::pick(object.get(from).unwrap_or(&Value::Null), fields);
        let mut metadata = part("metadata", &["name", "uid", "resourceVersion", "deletionTimestamp", "labels"]);
        if side == Direction::Down {
            let applied = identity::annotation(&object, identity::APPLIED);
            metadata.insert("annotations".to_owned(), json!({identity::APPLIED: applied}));
        }
        let mut status = part("status", &["capacity", "allocatable", "daemonEndpoints"]);
        let conditions: Vec<Value> = json::items(&object, "/status/conditions").iter().map(still).collect();
        status.insert("conditions".to_owned(), Value::Array(conditions));
        let addresses = json::items(&object, "/status/addresses").iter();
        let shown = |address: &&Value| matches!(json::text(address, "/type"), "InternalIP" | "Hostname");
        status.insert("addresses".to_owned(), addresses.filter(shown).cloned().collect());
        let info = object.pointer("/status/nodeInfo").unwrap_or(&Value::Null);
        status.insert("nodeInfo".to_owned(), Value::Object(json::pick(info, NODE_INFO)));
        json!({"metadata": metadata, "spec": part("spec", &["taints", "unschedulable"]), "status": status})
    }

    fn virtual_key(&self, host: &Value, _view: &TenantView) -> Option<ObjectKey> {
        Some(key_of(host))
    }

    fn host_name(&self, key: &ObjectKey, _view: &TenantView) -> Option<String> {
        Some(key.name.clone())
    }

    fn plan(
        &self,
        key: &ObjectKey,
        virtual_object: Option<&Value>,
        host: Option<&Value>,
        view: &TenantView,
        _lookup: &dyn Lookup,
    ) -> Plan {
        let Some(host) = host.filter(|host| is_shown(host, view)) else { return withdrawn(NODES, virtual_object) };
        let mut labels = json::strings(host, "/metadata/labels");
        labels.retain(|key, _| !keys::is_reserved(key));
        labels.insert(identity::FROM_HOST.to_owned(), "true".to_owned());
        let mut intent = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": key.name, "labels": labels},
            "spec": scheduling(host),
        });
        identity::stamp(&mut intent);
        let mut actions = Vec::new();
        if !virtual_object.is_some_and(|object| identity::is_applied(object, &intent)) {
            actions.push(Action::ApplyVirtual { resource: NODES, namespace: String::new(), object: intent });
        }
        actions.extend(node_status(key, virtual_object, host));
        Plan { actions, ..Plan::default() }
    }
}

/// What keeps pods off a node, always said whole: admission gives every new Node the taint `not-ready`, which nothing in the
/// tenant takes away, and an apply that is silent about a field leaves what others wrote. Taints and cordons set inside go
/// the same way: only the host's scheduler places pods, and it does not see them.
fn scheduling(host: &Value) -> Value {
    let unschedulable = host.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    json!({"taints": json::items(host, "/spec/taints"), "unschedulable": unschedulable})
}

/// A condition whose heartbeat stands still.
fn still(condition: &Value) -> Value {
    let mut out = json::pick(condition, &["type", "status", "reason", "message", "lastTransitionTime"]);
    if let Some(time) = out.get("lastTransitionTime").cloned() {
        out.insert("lastHeartbeatTime".to_owned(), time);
    }
    Value::Object(out)
}

fn node_status(key: &ObjectKey, virtual_object: Option<&Value>, host: &Value) -> Option<Action> {
    let nothing = Value::Null;
    let found = virtual_object.and_then(|object| object.get("status")).unwrap_or(&nothing);
    let wanted = host.get("status").and_then(Value::as_object)?;
    let mut patch = diff::changed(found, wanted).unwrap_or_default();
    for resources in ["capacity", "allocatable"] {
        let (old, new) = (found.get(resources), wanted.get(resources).unwrap_or(&Value::Null));
        if old.unwrap_or(&Value::Null) != new {
            patch.insert(resources.to_owned(), diff::replacing(new, old));
        }
    }
    if let Some(info) = patch.get_mut("nodeInfo").and_then(Value::as_object_mut) {
        // Required by the API, and nobody's business.
        for id in ["machineID", "systemUUID", "bootID"] {
            info.insert(id.to_owned(), json!(""));
        }
    }
    let mut metadata = Map::new();
    if let Some(object) = virtual_object {
        metadata.insert("uid".to_owned(), json!(json::uid(object)));
    }
    (!patch.is_empty()).then(|| Action::PatchVirtual {
        resource: NODES,
        key: key.clone(),
        subresource: "status",
        kind: PatchKind::Merge,
        patch: json!({"metadata": metadata, "status": patch}),
    })
}

/// The host does not show it (any more): our copy goes, an object of the tenant's own stays.
fn withdrawn(resource: Resource, virtual_object: Option<&Value>) -> Plan {
    let ours = virtual_object.filter(|object| identity::is_from_host(object) || legacy::is_made_up(object));
    Plan { actions: ours.map(|o| delete_virtual(resource, o, None)).unwrap_or_default(), ..Plan::default() }
}

impl ClassKind {
    /// StorageClasses. Their parameters are the provisioner's business and may name its secrets.
    pub fn storage() -> Self {
        Self {
            resource: STORAGE_CLASSES,
            fields: &["provisioner", "reclaimPolicy", "volumeBindingMode", "allowVolumeExpansion"],
            fixed: &["provisioner", "reclaimPolicy", "volumeBindingMode"],
        }
    }

    /// PriorityClasses; never a default one in the tenant, since the host would not know.
    pub fn priority() -> Self {
        Self {
            resource: PRIORITY_CLASSES,
            fields: &["value", "preemptionPolicy", "description"],
            fixed: &["value", "preemptionPolicy"],
        }
    }

    /// RuntimeClasses.
    pub fn runtime() -> Self {
        Self { resource: RUNTIME_CLASSES, fields: &["handler", "overhead", "scheduling"], fixed: &["handler"] }
    }

    /// IngressClasses, without parameters: they name objects of the host.
    pub fn ingress() -> Self {
        Self { resource: INGRESS_CLASSES, fields: &["spec"], fixed: &["spec"] }
    }

    fn intent(&self, host: &Value) -> Value {
        let mut labels = json::strings(host, "/metadata/labels");
        labels.retain(|key, _| !keys::is_reserved(key));
        labels.insert(identity::FROM_HOST.to_owned(), "true".to_owned());
        let mut annotations = json::strings(host, "/metadata/annotations");
        annotations.retain(|key, _| DEFAULT_CLASS.contains(&key.as_str()));
        let mut out = json::pick(host, self.fields);
        json::within(&mut out, "spec", |spec| {
            spec.remove("parameters");
        });
        out.insert("apiVersion".to_owned(), json!(self.resource.api_version()));
        out.insert("kind".to_owned(), json!(self.resource.kind));
        let metadata = json!({"name": json::name(host), "labels": labels, "annotations": annotations});
        out.insert("metadata".to_owned(), metadata);
        let mut intent = Value::Object(out);
        identity::stamp(&mut intent);
        intent
    }
}

impl ResourceSyncer for ClassKind {
    fn resource(&self) -> Resource {
        self.resource
    }

    fn host_scope(&self) -> HostScope {
        HostScope::Cluster
    }

    fn project(&self, object: Value, _side: Direction) -> Value {
        strip_last_applied(strip_metadata(object, &["generation", "creationTimestamp"]))
    }

    /// Every cluster has its own `system-` classes.
    fn virtual_key(&self, host: &Value, _view: &TenantView) -> Option<ObjectKey> {
        (!json::name(host).starts_with("system-")).then(|| key_of(host))
    }

    fn host_name(&self, key: &ObjectKey, _view: &TenantView) -> Option<String> {
        Some(key.name.clone())
    }

    fn plan(
        &self,
        _key: &ObjectKey,
        virtual_object: Option<&Value>,
        host: Option<&Value>,
        _view: &TenantView,
        _lookup: &dyn Lookup,
    ) -> Plan {
        if virtual_object.is_some_and(|object| !identity::is_from_host(object)) {
            return Plan::default();
        }
        let Some(host) = host.filter(|host| !json::is_deleting(host)) else {
            return withdrawn(self.resource, virtual_object);
        };
        let intent = self.intent(host);
        match virtual_object {
            Some(object) if identity::is_applied(object, &intent) => Plan::default(),
            Some(object) if self.fixed.iter().any(|field| differs(object, &intent, field)) => {
                withdrawn(self.resource, Some(object))
            }
            _ => {
                let action = Action::ApplyVirtual { resource: self.resource, namespace: String::new(), object: intent };
                Plan { actions: vec![action], ..Plan::default() }
            }
        }
    }
}

fn differs(object: &Value, intent: &Value, field: &str) -> bool {
    let part = |value: &Value| value.get(field).cloned().unwrap_or_default();
    !diff::covers(&part(object), &part(intent))
}

#[cfg(test)]
mod tests;
