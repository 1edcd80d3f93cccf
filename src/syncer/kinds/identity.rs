//! Which virtual object a host object stands for, and under which name a virtual one is found on the host.
//!
//! Must not know what a difference between the two means.

use serde_json::Value;

use super::super::kind::{ObjectKey, TenantView};
use crate::kubernetes::Resource;
use crate::names::Limit;
use crate::translate::{identity, json};

pub(super) use super::super::incoming::key_of;

/// Kind annotation of a resource.
pub(super) fn kind_annotation(resource: &Resource) -> String {
    identity::kind_of(resource.group, resource.kind)
}

/// [`ResourceSyncer::virtual_key`](super::super::kind::ResourceSyncer::virtual_key) of ordinary namespaced kinds.
pub(super) fn recorded_key(resource: &Resource, host: &Value, view: &TenantView, limit: Limit) -> Option<ObjectKey> {
    let (namespace, name) = identity::virtual_key(&kind_annotation(resource), host, view, limit)?;
    Some(ObjectKey { namespace, name })
}

/// The same for a kind by its name, of those whose group is known here.
pub(super) fn virtual_key_of(kind: &str, host: &Value, view: &TenantView, limit: Limit) -> Option<ObjectKey> {
    let group = match kind {
        "Ingress" => "networking.k8s.io",
        "EndpointSlice" => "discovery.k8s.io",
        _ => "",
    };
    let (namespace, name) = identity::virtual_key(&identity::kind_of(group, kind), host, view, limit)?;
    Some(ObjectKey { namespace, name })
}

/// [`ResourceSyncer::host_name`](super::super::kind::ResourceSyncer::host_name) of ordinary namespaced kinds.
pub(super) fn host_name(resource: &Resource, key: &ObjectKey, view: &TenantView, limit: Limit) -> Option<String> {
    identity::host_name(resource.kind, &key.namespace, &key.name, view, limit).map(|name| name.to_string())
}

/// Whether the host object was written for exactly this virtual object, not for a namesake that is gone.
pub(super) fn is_for(host: &Value, virtual_object: &Value) -> bool {
    identity::recorded_uid(host) == json::uid(virtual_object)
}
