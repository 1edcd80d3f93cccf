//! Comparing an intent with what is there.

use data_encoding::HEXLOWER;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Whether `actual` has everything that `intent` asks for: objects may hold more, arrays must have the same length (an
/// element may hold more), null in the intent means absent.
pub fn covers(actual: &Value, intent: &Value) -> bool {
    match (actual, intent) {
        (Value::Object(actual), Value::Object(intent)) => intent.iter().all(|(key, wanted)| match actual.get(key) {
            Some(found) => covers(found, wanted),
            None => is_empty(wanted),
        }),
        (Value::Array(actual), Value::Array(intent)) => {
            actual.len() == intent.len() && actual.iter().zip(intent).all(|(a, i)| covers(a, i))
        }
        (actual, Value::Null) => actual.is_null(),
        (actual, intent) => actual == intent,
    }
}

/// Empty values and absent fields are the same to an API server that omits empty fields.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(_) => false,
    }
}

/// The fields of `intent` that `actual` does not cover, as a merge patch of whole fields; None when there are none.
pub fn changed(actual: &Value, intent: &Map<String, Value>) -> Option<Map<String, Value>> {
    let patch: Map<String, Value> = intent
        .iter()
        .filter(|(key, wanted)| {
            !actual.get(key.as_str()).map_or_else(|| is_empty(wanted), |found| covers(found, wanted))
        })
        .map(|(key, wanted)| (key.clone(), wanted.clone()))
        .collect();
    (!patch.is_empty()).then_some(patch)
}

/// A map for a merge patch that replaces `old` whole: what is no longer there is named, with null.
pub fn replacing(new: &Value, old: Option<&Value>) -> Value {
    let mut new = new.as_object().cloned().unwrap_or_default();
    for key in old.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        new.entry(key.clone()).or_insert(Value::Null);
    }
    Value::Object(new)
}

/// 80 bits of SHA-256 over the canonical text (serde_json's maps are sorted) in hex.
pub fn fingerprint(value: &Value) -> String {
    HEXLOWER.encode(&Sha256::digest(value.to_string())[..10])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arrays_are_whole_and_objects_may_hold_more() {
        assert!(covers(&json!({"a": 1, "b": 2}), &json!({"a": 1})));
        assert!(covers(&json!([{"a": 1, "b": 2}]), &json!([{"a": 1}])));
        assert!(!covers(&json!([{"a": 1}, {"a": 2}]), &json!([{"a": 1}])));
        assert!(covers(&json!({}), &json!({"a": null, "b": {}, "c": false, "d": []})));
        assert!(!covers(&json!({}), &json!({"a": 0})));
    }

    #[test]
    fn fingerprints_do_not_depend_on_order() {
        assert_eq!(fingerprint(&json!({"a": 1, "b": 2})), fingerprint(&json!({"b": 2, "a": 1})));
        assert_ne!(fingerprint(&json!({"a": 1})), fingerprint(&json!({"a": "1"})));
    }
}
