//! What of an object no kind looks at; it is dropped before an object is kept or compared.

use serde_json::Value;

/// Drops what no kind looks at.
pub(super) fn strip_metadata(mut object: Value, dropped: &[&str]) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        metadata.remove("selfLink");
        for field in dropped {
            metadata.remove(*field);
        }
    }
    object
}

/// Drops the copy that `kubectl apply` keeps.
pub(super) fn strip_last_applied(mut object: Value) -> Value {
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    object
}
