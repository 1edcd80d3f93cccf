//! The kinds that are synced, one file each, and what they share.
//!
//! All of it is pure: the engine hands in both sides and does what the plan says. Translation itself is in
//! [`crate::translate`]; here is which side wins, when a write is due and in which order.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::kind::{Action, Involved, ObjectKey, ResourceSyncer, TenantView};
use crate::kubernetes::{PatchKind, Resource};
use crate::names::Limit;
use crate::translate::{identity, json};

pub mod claim;
pub mod cluster;
pub mod config;
pub mod endpoints;
pub mod event;
pub mod ingress;
pub mod namespace;
pub mod pod;
pub mod service;

#[cfg(test)]
mod adoption_tests;
#[cfg(test)]
mod restore_tests;
#[cfg(test)]
mod testing;

/// Which kinds are synced; all by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switches {
    /// Kinds (`Ingress`, `PersistentVolume`, …) that are not synced. `Namespace` cannot be switched off: selectors need it.
    pub disabled: BTreeSet<String>,
}

/// Every kind that is switched on, in the order in which a new tenant's caches are best filled.
pub fn all(switches: &Switches) -> Vec<Arc<dyn ResourceSyncer>> {
    let kinds: Vec<Arc<dyn ResourceSyncer>> = vec![
        Arc::new(namespace::NamespaceKind),
        Arc::new(service::ServiceKind),
        Arc::new(pod::PodKind),
        Arc::new(config::ConfigKind::config_maps()),
        Arc::new(config::ConfigKind::secrets()),
        Arc::new(endpoints::EndpointsKind::endpoints()),
        Arc::new(endpoints::EndpointsKind::slices()),
        Arc::new(claim::ClaimKind),
        Arc::new(claim::VolumeKind),
        Arc::new(cluster::NodeKind),
        Arc::new(cluster::ClassKind::storage()),
        Arc::new(cluster::ClassKind::priority()),
        Arc::new(cluster::ClassKind::runtime()),
        Arc::new(cluster::ClassKind::ingress()),
        Arc::new(ingress::IngressKind),
        Arc::new(event::EventKind),
    ];
    kinds
        .into_iter()
        .filter(|kind| {
            let name = kind.resource().kind;
            name == "Namespace" || !switches.disabled.contains(name)
        })
        .collect()
}

/// Key of an object by its own metadata.
fn key_of(object: &Value) -> ObjectKey {
    ObjectKey { namespace: json::namespace(object).to_owned(), name: json::name(object).to_owned() }
}

/// Kind annotation of a resource.
fn kind_annotation(resource: &Resource) -> String {
    identity::kind_of(resource.group, resource.kind)
}

/// [`ResourceSyncer::virtual_key`] of ordinary namespaced kinds.
fn recorded_key(resource: &Resource, host: &Value, view: &TenantView, limit: Limit) -> Option<ObjectKey> {
    let (namespace, name) = identity::virtual_key(&kind_annotation(resource), host, view, limit)?;
    Some(ObjectKey { namespace, name })
}

/// The same for a kind by its name, of those whose group is known here.
fn virtual_key_of(kind: &str, host: &Value, view: &TenantView, limit: Limit) -> Option<ObjectKey> {
    let group = match kind {
        "Ingress" => "networking.k8s.io",
        "EndpointSlice" => "discovery.k8s.io",
        _ => "",
    };
    let (namespace, name) = identity::virtual_key(&identity::kind_of(group, kind), host, view, limit)?;
    Some(ObjectKey { namespace, name })
}

/// [`ResourceSyncer::host_name`] of ordinary namespaced kinds.
fn host_name(key: &ObjectKey, view: &TenantView, limit: Limit) -> Option<String> {
    identity::host_name(&key.namespace, &key.name, view, limit).map(|name| name.to_string())
}

/// Drops what no kind looks at.
fn strip_metadata(mut object: Value, dropped: &[&str]) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        metadata.remove("selfLink");
        for field in dropped {
            metadata.remove(*field);
        }
    }
    object
}

/// Drops the copy that `kubectl apply` keeps.
fn strip_last_applied(mut object: Value) -> Value {
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    object
}

/// Deletion of a host object, unless it has begun.
fn delete_host(resource: Resource, host: &Value, grace: Option<u64>) -> Vec<Action> {
    if json::is_deleting(host) {
        return Vec::new();
    }
    vec![Action::DeleteHost { resource, name: json::name(host).to_owned(), uid: json::uid(host).to_owned(), grace }]
}

/// Deletion of a virtual object, unless it has begun.
fn delete_virtual(resource: Resource, object: &Value, grace: Option<u64>) -> Vec<Action> {
    if json::is_deleting(object) {
        return Vec::new();
    }
    vec![Action::DeleteVirtual { resource, key: key_of(object), uid: json::uid(object).to_owned(), grace }]
}

/// Merge patch on a virtual object, conditional on its uid.
fn patch_virtual(resource: Resource, object: &Value, subresource: &'static str, fields: (&str, Value)) -> Action {
    let mut patch = json!({"metadata": {"uid": json::uid(object)}});
    if let Value::Object(map) = &mut patch {
        map.insert(fields.0.to_owned(), fields.1);
    }
    Action::PatchVirtual { resource, key: key_of(object), subresource, kind: PatchKind::Merge, patch }
}

/// Whether the host object was written for exactly this virtual object, not for a namesake that is gone.
fn is_for(host: &Value, virtual_object: &Value) -> bool {
    identity::recorded_uid(host) == json::uid(virtual_object)
}

/// A warning on a virtual object.
fn explain(resource: &Resource, object: &Value, reason: &'static str, message: String) -> Action {
    let involved = Involved {
        api_version: resource.api_version(),
        kind: resource.kind.to_owned(),
        key: key_of(object),
        uid: json::uid(object).to_owned(),
    };
    Action::Explain { involved, reason, message, warning: true }
}

/// The way down of kinds that are applied whole: the host object is made as the (stamped) intent says, and deleted when
/// there is no virtual object, it is being deleted, it is another one of the same name, or `intent` wants none.
/// `compare` is what the projection makes of an object.
fn apply_down(
    resource: Resource,
    virtual_object: Option<&Value>,
    host: Option<&Value>,
    intent: impl FnOnce(&Value) -> Option<Value>,
    compare: impl Fn(Value) -> Value,
) -> Vec<Action> {
    let wanted = virtual_object.filter(|v| !json::is_deleting(v));
    let intent = wanted.and_then(intent).map(|mut intent| {
        identity::stamp(&mut intent);
        intent
    });
    match (wanted, intent, host) {
        (Some(wanted), Some(intent), Some(host)) if is_for(host, wanted) => {
            if json::is_deleting(host) {
                return Vec::new();
            }
            let mut actions: Vec<Action> = move_owners(resource, host, &intent).into_iter().collect();
            if !identity::is_applied(&compare(host.clone()), &compare(intent.clone())) {
                actions.push(Action::ApplyHost { resource, object: intent });
            }
            actions
        }
        (_, Some(object), None) => vec![Action::ApplyHost { resource, object }],
        (_, _, Some(host)) => delete_host(resource, host, None),
        (_, None, None) => Vec::new(),
    }
}

/// An apply cannot take away what another manager wrote: owners of an earlier form of Portico go by a patch.
fn move_owners(resource: Resource, host: &Value, intent: &Value) -> Option<Action> {
    let metadata = intent.get("metadata")?.as_object()?;
    let (owners, former) = identity::owners_moved(host, metadata)?;
    (!former.is_empty()).then(|| Action::PatchHost {
        resource,
        name: json::name(host).to_owned(),
        subresource: "",
        kind: PatchKind::Merge,
        patch: json!({"metadata": {"uid": json::uid(host), "ownerReferences": owners}}),
    })
}
