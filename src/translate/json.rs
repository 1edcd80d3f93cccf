//! Reading and building JSON without panics: absent and wrongly typed fields read as empty.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The string at a JSON pointer, or "".
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The array at a JSON pointer, or an empty one.
pub fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether there is anything but null at a JSON pointer.
pub fn has(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).is_some_and(|v| !v.is_null())
}

/// `true` only for a JSON true.
pub fn is_true(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool) == Some(true)
}

/// The string map at a JSON pointer; entries that are no strings are left out.
pub fn strings(value: &Value, pointer: &str) -> BTreeMap<String, String> {
    value
        .pointer(pointer)
        .and_then(Value::as_object)
        .map(|map| map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect())
        .unwrap_or_default()
}

/// Name, namespace and uid of an object.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// Namespace, "" when cluster-scoped.
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// uid.
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// Whether a deletion has begun.
pub fn is_deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// The chosen fields of an object that are not null.
pub fn pick(value: &Value, fields: &[&str]) -> Map<String, Value> {
    fields
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), value.get(field).filter(|v| !v.is_null())?.clone())))
        .collect()
}

/// The object at `key` of `map`, made when it is absent or something else.
pub fn object<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let slot = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(inner) => inner,
        // Made an object two lines above.
        _ => unreachable!("just made an object"),
    }
}

/// Calls `change` with every object in the array at `key`.
pub fn each(map: &mut Map<String, Value>, key: &str, mut change: impl FnMut(&mut Map<String, Value>)) {
    if let Some(Value::Array(items)) = map.get_mut(key) {
        items.iter_mut().filter_map(Value::as_object_mut).for_each(&mut change);
    }
}

/// Calls `change` with the object at `key` when there is one.
pub fn within(map: &mut Map<String, Value>, key: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    if let Some(inner) = map.get_mut(key).and_then(Value::as_object_mut) {
        change(inner);
    }
}

/// Replaces the string at `key` when there is one that is not empty.
pub fn rename(map: &mut Map<String, Value>, key: &str, to: impl FnOnce(&str) -> String) {
    if let Some(Value::String(value)) = map.get_mut(key)
        && !value.is_empty()
    {
        *value = to(value);
    }
}

/// Seconds since 1970 of an RFC 3339 time.
pub fn unix(time: &str) -> Option<i64> {
    time.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}
