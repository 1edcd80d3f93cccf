//! Fields that nobody knows, anywhere in what was written.

use serde_json::Value;

/// The path of the first field of `written` that `known`, which was read from it and written again, has not; fields that are
/// left out there because they are empty do not count.
pub(super) fn field(written: &Value, known: &Value) -> Option<String> {
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => {
            written.iter().find_map(|(name, value)| match known.get(name) {
                None if is_empty(value) => None,
                None => Some(name.clone()),
                Some(inner) => field(value, inner).map(|rest| match rest.starts_with('[') {
                    true => format!("{name}{rest}"),
                    false => format!("{name}.{rest}"),
                }),
            })
        }
        (Value::Array(written), Value::Array(known)) => written
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(at, (a, b))| field(a, b).map(|rest| format!("[{at}].{rest}"))),
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
