//! What may change in a pod that runs.
//!
//! The host pod records a fingerprint of what was last written, so only changes of the tenant are written: a host
//! webhook that rewrites images is not fought. Tolerations can only be added: API servers allow no removal.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::super::legacy::{ADOPTED, keep_current};
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

/// Strategic patch of the host pod for what changed in the tenant; None when nothing did.
pub fn patch(pod: &Value, host: &Value, view: &View) -> Option<Value> {
    let mut wanted = recorded_metadata(pod, host, view)?;
    let changed = |key: &str| {
        wanted.get("annotations").and_then(|a| a.get(key)).and_then(Value::as_str).unwrap_or_default()
            != identity::annotation(host, key)
    };
    let spec_changed = changed(identity::APPLIED);
    if changed(RESOURCES) {
        // Written after the resize has succeeded, by `resize`.
        json::object(&mut wanted, "annotations")
            .insert(RESOURCES.to_owned(), json!(identity::annotation(host, RESOURCES)));
    }
    let mut metadata = identity::metadata_patch(host, &wanted);
    if let Some((owners, former)) = identity::owners_moved(host, &wanted) {
        let gone = former.into_iter().map(|uid| json!({"$patch": "delete", "uid": uid}));
        let owners: Vec<Value> = owners.into_iter().chain(gone).collect();
        if let Value::Object(map) = metadata.get_or_insert_with(|| json!({})) {
            map.insert("ownerReferences".to_owned(), Value::Array(owners));
        }
    }
    let spec = if spec_changed { spec_patch(pod, host, view) } else { Map::new() };
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
    spec_patch(pod, host, view).is_empty()
}

fn spec_patch(pod: &Value, host: &Value, view: &View) -> Map<String, Value> {
    let mut spec = Map::new();
    for list in LISTS {
        let pointer = format!("/spec/{list}");
        let running: HashMap<&str, &Value> =
            json::items(host, &pointer).iter().rev().map(|c| (json::text(c, "/name"), c)).collect();
        let changed: Vec<Value> = json::items(pod, &pointer)
            .iter()
            .filter_map(|container| {
                let (name, wanted) = (json::text(container, "/name"), image(json::text(container, "/image"), view));
                let found = *running.get(name)?;
                (json::text(found, "/image") != wanted).then(|| json!({"name": name, "image": wanted}))
            })
            .collect();
        if !changed.is_empty() {
            spec.insert((*list).to_owned(), Value::Array(changed));
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
    spec
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
