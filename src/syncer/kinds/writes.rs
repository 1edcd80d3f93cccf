//! The writes that the kinds have in common, each conditional on the uid of what was seen: deletions, patches, warnings, and
//! the way down of what is applied whole.

use serde_json::{Value, json};

use super::super::kind::{Action, Involved};
use super::identity::{is_for, key_of};
use crate::kubernetes::{PatchKind, Resource};
use crate::translate::{identity, json};

/// The way down of kinds that are applied whole: the host object is made as the (stamped) intent says, and deleted when
/// there is no virtual object, it is being deleted, it is another one of the same name, or `intent` wants none.
/// `compare` is what the projection makes of an object.
pub(super) fn apply_down(
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

/// Deletion of a host object, unless it has begun.
pub(super) fn delete_host(resource: Resource, host: &Value, grace: Option<u64>) -> Vec<Action> {
    if json::is_deleting(host) {
        return Vec::new();
    }
    vec![Action::DeleteHost { resource, name: json::name(host).to_owned(), uid: json::uid(host).to_owned(), grace }]
}

/// Deletion of a virtual object, unless it has begun.
pub(super) fn delete_virtual(resource: Resource, object: &Value, grace: Option<u64>) -> Vec<Action> {
    if json::is_deleting(object) {
        return Vec::new();
    }
    vec![Action::DeleteVirtual { resource, key: key_of(object), uid: json::uid(object).to_owned(), grace }]
}

/// Merge patch on a virtual object, conditional on its uid.
pub(super) fn patch_virtual(
    resource: Resource,
    object: &Value,
    subresource: &'static str,
    fields: (&str, Value),
) -> Action {
    let mut patch = json!({"metadata": {"uid": json::uid(object)}});
    if let Value::Object(map) = &mut patch {
        map.insert(fields.0.to_owned(), fields.1);
    }
    Action::PatchVirtual { resource, key: key_of(object), subresource, kind: PatchKind::Merge, patch }
}

/// A warning on a virtual object.
pub(super) fn explain(resource: &Resource, object: &Value, reason: &'static str, message: String) -> Action {
    let involved = Involved {
        api_version: resource.api_version(),
        kind: resource.kind.to_owned(),
        key: key_of(object),
        uid: json::uid(object).to_owned(),
    };
    Action::Explain { involved, reason, message, warning: true }
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
