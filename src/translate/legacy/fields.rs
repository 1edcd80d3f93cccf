//! Two readings of an old host object: which of its labels its own containers read, and which fields its former writer
//! owns.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::json;
use super::labels::MANAGED_BY;
use crate::names::keys;

/// Keys of the labels that a pod reads through its downward API, in environment or volumes.
pub(super) fn labels_read(pod: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    if let Some(spec) = pod.get("spec") {
        collect(spec, &mut found);
    }
    found
}

fn collect(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            let path = map.get("fieldPath").and_then(Value::as_str).unwrap_or_default();
            let key = path.strip_prefix("metadata.labels['").and_then(|rest| rest.strip_suffix("']"));
            found.extend(key.map(str::to_owned));
            map.values().for_each(|inner| collect(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| collect(inner, found)),
        _ => {}
    }
}

/// `managedFields` in which Portico's applies own what the former writer did, so that an apply can take it away again:
/// what only another manager owns stays for ever. None when nobody wrote the marker, or nothing is recorded.
///
/// Metadata and data pass to Portico. Of everything else the former writer is forgotten: the first apply takes what it
/// sets, and must not remove what it does not (a claim's volume cannot change).
pub(super) fn taken_over(host: &Value, api_version: &str) -> Option<Vec<Value>> {
    let entries = json::items(host, "/metadata/managedFields");
    let former: BTreeSet<&str> = entries.iter().filter(|e| is_update(e) && wrote_the_marker(e)).map(manager).collect();
    if former.is_empty() {
        return None;
    }
    let (theirs, mut kept): (Vec<&Value>, Vec<&Value>) =
        entries.iter().partition(|e| is_update(e) && former.contains(manager(e)));
    let own = kept.iter().position(|e| json::text(e, "/operation") == "Apply" && manager(e) == keys::FIELD_MANAGER);
    let mut fields = match own.map(|at| kept.remove(at)).and_then(|e| e.get("fieldsV1")?.as_object()) {
        Some(fields) => fields.clone(),
        None => Map::new(),
    };
    for entry in theirs {
        for part in ["f:metadata", "f:data", "f:binaryData"] {
            if let Some(set) = entry.get("fieldsV1").and_then(|f| f.get(part)) {
                unite(fields.entry(part).or_insert(Value::Null), set);
            }
        }
    }
    let own = json!({
        "manager": keys::FIELD_MANAGER,
        "operation": "Apply",
        "apiVersion": api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    });
    Some(kept.into_iter().cloned().chain([own]).collect())
}

fn is_update(entry: &Value) -> bool {
    json::text(entry, "/operation") == "Update" && json::text(entry, "/subresource").is_empty()
}

fn wrote_the_marker(entry: &Value) -> bool {
    let labels = entry.pointer("/fieldsV1/f:metadata/f:labels");
    labels.is_some_and(|labels| labels.get(format!("f:{MANAGED_BY}")).is_some())
}

fn manager(entry: &Value) -> &str {
    json::text(entry, "/manager")
}

/// Sets of fields are written as nested objects.
fn unite(into: &mut Value, from: &Value) {
    let Value::Object(from) = from else { return };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    if let Value::Object(into) = into {
        for (field, inner) in from {
            unite(into.entry(field.clone()).or_insert_with(|| json!({})), inner);
        }
    }
}
