//! The mark of a name that is not the tenant's, and the search for it.

use serde_json::Value;

/// Stands for a name that is not the tenant's until what holds it is left out: no object can have it.
pub(super) const UNKNOWN: &str = "portico.dev/unknown";

/// Whether something holds a name that is not the tenant's.
pub(super) fn is_unknown(value: &Value) -> bool {
    match value {
        Value::String(text) => text == UNKNOWN,
        Value::Array(items) => items.iter().any(is_unknown),
        Value::Object(map) => map.values().any(is_unknown),
        _ => false,
    }
}
