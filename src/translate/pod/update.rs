//! What may change in a pod that runs.
//!
//! The host pod records a fingerprint of what was last written, so only changes of the tenant are written: a host
//! webhook that rewrites images is not fought. Tolerations can only be added: API servers allow no removal. An image that may
//! not run is not written, and keeps nothing else from it; it is tried again until the tenant or the policy says otherwise.
//! Meanwhile the record stays, so all the rest is compared at each pass: a host webhook that rewrites another image of that pod
//! costs a write each time, which it undoes.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::super::legacy::{ADOPTED, keep_current};
use super::super::policy::{self, Violation};
use super::super::{View, identity, json};
use super::allowed::tolerations;
use super::images::image;
use super::marks::RESOURCES;
use super::metadata::{metadata, resources};

const LISTS: &[&str] = &["containers", "initContainers"];

/// Whole metadata that the host pod shall have, with the record of which keys are the tenant's.
pub fn recorded_metadata(pod: &Value, host: &Value, view: &View) -> Option<Map<String, Value>> {
    let mut wanted = metadata(pod, view)?;
    if !identity::annotation(host, ADOPTED).is_empty() {
        keep_current(&mut wanted, pod, host, view);
    }
    identity::record_keys(&mut wanted);
    Some(wanted)
}

/// What becomes of a host pod for what changed in the tenant.
#[derive(Debug, Default, PartialEq)]
pub struct Update {
    /// Strategic patch; None when there is nothing to write.
    pub patch: Option<Value>,
    /// Why an image of it is not the tenant's.
    pub refused: Option<Violation>,
}

/// Compares both.
pub fn update(pod: &Value, host: &Value, view: &View) -> Update {
    let Some(mut wanted) = recorded_metadata(pod, host, view) else { return Update::default() };
    let changed = |key: &str| {
        wanted.get("annotations").and_then(|a| a.get(key)).and_then(Value::as_str).unwrap_or_default()
            != identity::annotation(host, key)
    };
    let (spec_changed, resources_changed) = (changed(identity::APPLIED), changed(RESOURCES));
    let (spec, refused) = if spec_changed { spec_patch(pod, host, view) } else { (Map::new(), None) };
    if resources_changed {
        // Written after the resize has succeeded, by `resize`.
        keep(&mut wanted, host, RESOURCES);
    }
    if refused.is_some() {
        // Not all of it is applied.
        keep(&mut wanted, host, identity::APPLIED);
    }
    Update { patch: patch_to(&wanted, spec, host), refused }
}

/// The record on the host stays as it is.
fn keep(wanted: &mut Map<String, Value>, host: &Value, key: &str) {
    let (annotations, recorded) = (json::object(wanted, "annotations"), identity::annotation(host, key));
    if recorded.is_empty() {
        annotations.remove(key);
    } else {
        annotations.insert(key.to_owned(), json!(recorded));
    }
}

fn patch_to(wanted: &Map<String, Value>, spec: Map<String, Value>, host: &Value) -> Option<Value> {
    let mut metadata = identity::metadata_patch(host, wanted);
    if let Some((owners, former)) = identity::owners_moved(host, wanted) {
        let gone = former.into_iter().map(|uid| json!({"$patch": "delete", "uid": uid}));
        let owners: Vec<Value> = owners.into_iter().chain(gone).collect();
        if let Value::Object(map) = metadata.get_or_insert_with(|| json!({})) {
            map.insert("ownerReferences".to_owned(), Value::Array(owners));
        }
    }
    if metadata.is_none() && spec.is_empty() {
        return None;
    }
    let mut patch = Map::new();
    if let Some(metadata) = metadata {
        patch.insert("metadata".to_owned(), metadata);
    }
    if !spec.is_empty() {
        patch.insert("spec".to_owned(), Value::Object(spec));
    }
    Some(Value::Object(patch))
}

/// Whether the host pod is as it would have been written last.
pub fn is_current(pod: &Value, host: &Value, view: &View) -> bool {
    let (spec, refused) = spec_patch(pod, host, view);
    spec.is_empty() && refused.is_none()
}

/// Patches of the containers of a list that run another image than the tenant wants, and why the first is not exchanged that
/// may not be.
fn images(pod: &Value, host: &Value, list: &str, view: &View) -> (Vec<Value>, Option<Violation>) {
    let pointer = format!("/spec/{list}");
    let running: HashMap<&str, &Value> =
        json::items(host, &pointer).iter().rev().map(|c| (json::text(c, "/name"), c)).collect();
    let (mut exchanged, mut refused) = (Vec::new(), None);
    for (index, container) in json::items(pod, &pointer).iter().enumerate() {
        let (name, wanted) = (json::text(container, "/name"), image(json::text(container, "/image"), view));
        if running.get(name).is_none_or(|found| json::text(found, "/image") == wanted) {
            continue;
        }
        match policy::check_image(pod, list, index, &view.policy) {
            None => exchanged.push(json!({"name": name, "image": wanted})),
            Some(violation) => _ = refused.get_or_insert(violation),
        }
    }
    (exchanged, refused)
}

/// Of the spec what differs, and why an image of it stays as it is.
fn spec_patch(pod: &Value, host: &Value, view: &View) -> (Map<String, Value>, Option<Violation>) {
    let (mut spec, mut refused) = (Map::new(), None);
    for list in LISTS {
        let (exchanged, violation) = images(pod, host, list, view);
        refused = refused.or(violation);
        if !exchanged.is_empty() {
            spec.insert((*list).to_owned(), Value::Array(exchanged));
        }
    }
    let deadline = pod.pointer("/spec/activeDeadlineSeconds").filter(|d| !d.is_null());
    if let Some(deadline) = deadline.filter(|d| host.pointer("/spec/activeDeadlineSeconds") != Some(d)) {
        spec.insert("activeDeadlineSeconds".to_owned(), deadline.clone());
    }
    let found = json::items(host, "/spec/tolerations");
    let known: HashSet<&Value> = found.iter().collect();
    let missing: Vec<Value> = tolerations(pod, view).into_iter().filter(|t| !known.contains(t)).collect();
    if !missing.is_empty() {
        spec.insert("tolerations".to_owned(), found.iter().cloned().chain(missing).collect());
    }
    let wanted: HashSet<&Value> = json::items(pod, "/spec/schedulingGates").iter().collect();
    let gates: Vec<Value> = json::items(host, "/spec/schedulingGates")
        .iter()
        .filter(|gate| !wanted.contains(gate))
        .map(|gate| json!({"$patch": "delete", "name": json::text(gate, "/name")}))
        .collect();
    if !gates.is_empty() {
        spec.insert("schedulingGates".to_owned(), Value::Array(gates));
    }
    (spec, refused)
}

/// Strategic patches for a change of resources: of the `resize` subresource, then of the record on the pod.
pub fn resize(pod: &Value, host: &Value, view: &View) -> Option<(Value, Value)> {
    let wanted = metadata(pod, view)?;
    let fingerprint = wanted.get("annotations").and_then(|a| a.get(RESOURCES))?;
    if fingerprint.as_str() == Some(identity::annotation(host, RESOURCES)) {
        return None;
    }
    let mut spec = resources(pod);
    if let Some(map) = spec.as_object_mut() {
        map.retain(|_, list| list.as_array().is_some_and(|l| !l.is_empty()));
    }
    Some((json!({"spec": spec}), json!({"metadata": {"annotations": {RESOURCES: fingerprint}}})))
}
