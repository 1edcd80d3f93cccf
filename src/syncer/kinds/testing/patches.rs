//! Merge and strategic merge patches as an API server applies them, as far as plans use them.

use serde_json::{Value, json};

use crate::kubernetes::PatchKind;

pub(super) fn apply_patch(object: &mut Value, patch: &Value, kind: PatchKind) {
    match kind {
        PatchKind::Merge => merge(object, patch),
        PatchKind::Strategic => strategic(object, patch, ""),
        PatchKind::Json => panic!("no kind uses JSON patches"),
    }
}

pub(crate) fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    let map = object.as_object_mut().expect("object");
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Strategic merge for the lists that plans use: merged by key, `$patch` directives, others replaced.
fn strategic(object: &mut Value, patch: &Value, field: &str) {
    let merge_key = match field {
        "conditions" => Some("type"),
        "podIPs" | "hostIPs" => Some("ip"),
        "containers" | "initContainers" | "ephemeralContainers" => Some("name"),
        _ => None,
    };
    match (patch, merge_key) {
        (Value::Object(patch), _) => {
            if !object.is_object() {
                *object = json!({});
            }
            let map = object.as_object_mut().expect("object");
            for (key, value) in patch {
                if value.is_null() {
                    map.remove(key);
                } else {
                    strategic(map.entry(key).or_insert(Value::Null), value, key);
                }
            }
        }
        (Value::Array(patch), Some(merge_key)) => strategic_list(object, patch, merge_key),
        (other, _) => *object = other.clone(),
    }
}

fn strategic_list(object: &mut Value, patch: &[Value], merge_key: &str) {
    if !object.is_array() {
        *object = json!([]);
    }
    let list = object.as_array_mut().expect("array");
    if patch.iter().any(|item| item["$patch"] == "replace") {
        list.clear();
    }
    for item in patch {
        match item["$patch"].as_str() {
            Some("replace") => {}
            Some("delete") => list.retain(|old| old[merge_key] != item[merge_key]),
            _ => match list.iter_mut().find(|old| old[merge_key] == item[merge_key]) {
                Some(old) => strategic(old, item, ""),
                None => list.push(item.clone()),
            },
        }
    }
}
