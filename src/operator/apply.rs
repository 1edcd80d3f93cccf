//! Makes host objects what they should be, writes only differences, and never takes over what is not ours.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
use crate::kubernetes::Resource;
use crate::operator::host::{Host, name_of, uid_of};

/// Annotation: digest of what was applied, so that a field which is no longer wanted is noticed too.
const APPLIED: &str = "portico.dev/applied";

/// How an object shows that it is ours to change.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark<'a> {
    /// An owner reference with this uid.
    Owner(&'a str),
    /// A label with this value.
    Label(&'a str, &'a str),
}

impl Mark<'_> {
    /// Whether an existing object carries it.
    pub(crate) fn is_on(self, object: &Value) -> bool {
        match self {
            Self::Owner(uid) => object["metadata"]["ownerReferences"]
                .as_array()
                .is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid)),
            Self::Label(key, value) => object["metadata"]["labels"][key] == value,
        }
    }
}

/// The object as it is on the host after it was made or changed to carry all that `desired` says.
pub(crate) async fn ensure(
    host: &Host,
    resource: &Resource,
    namespace: &str,
    desired: Value,
    mark: Mark<'_>,
) -> Result<Value> {
    let existing = host.get(resource, namespace, name_of(&desired)).await?;
    ensure_over(host, resource, namespace, desired, mark, existing).await
}

/// The same for a caller who has already looked.
pub(crate) async fn ensure_over(
    host: &Host,
    resource: &Resource,
    namespace: &str,
    desired: Value,
    mark: Mark<'_>,
    existing: Option<Value>,
) -> Result<Value> {
    let desired = stamped(desired)?;
    if let Some(existing) = existing {
        check_ours(resource, &existing, mark)?;
        if is_within(&desired, &existing) {
            return Ok(existing);
        }
        return host.apply(resource, namespace, &desired).await;
    }
    match host.create(resource, namespace, &desired).await {
        // Another replica was faster; the next round compares.
        Err(error) if error.kind() == Kind::AlreadyExists => Err(error.on_side(crate::error::Side::Own)),
        made => made,
    }
}

/// Refuses an object of the same name that somebody else made, or that a deleted namesake left and is still going.
pub(crate) fn check_ours(resource: &Resource, existing: &Value, mark: Mark<'_>) -> Result<()> {
    let name = name_of(existing);
    if !existing["metadata"]["deletionTimestamp"].is_null() {
        return Err(Error::own(Kind::Unavailable, format!("{} {name:?} is still being deleted", resource.kind)));
    }
    if mark.is_on(existing) {
        return Ok(());
    }
    if owned_by_a_namesake(existing) {
        let message = format!("{} {name:?} of an earlier virtual cluster is still being deleted", resource.kind);
        return Err(Error::own(Kind::Unavailable, message));
    }
    let message = format!(
        "{} {name:?} exists and was not made by Portico; rename the virtual cluster or delete it (uid {})",
        resource.kind,
        uid_of(existing)
    );
    Err(Error::own(Kind::Conflict, message))
}

fn owned_by_a_namesake(existing: &Value) -> bool {
    existing["metadata"]["ownerReferences"]
        .as_array()
        .is_some_and(|owners| owners.iter().any(|owner| owner["kind"] == "VirtualCluster"))
}

fn stamped(mut desired: Value) -> Result<Value> {
    let bytes = serde_json::to_vec(&desired)
        .map_err(|e| Error::own(Kind::Internal, "an object cannot be serialized").because(e))?;
    let digest: String = Sha256::digest(&bytes).iter().take(10).map(|b| format!("{b:02x}")).collect();
    let annotations = &mut desired["metadata"]["annotations"];
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations[APPLIED] = Value::String(digest);
    Ok(desired)
}

/// Whether everything that `desired` says is so in `actual`, which may say more (defaults of the server). Lists must
/// have the same length, element by element.
fn is_within(desired: &Value, actual: &Value) -> bool {
    match (desired, actual) {
        (Value::Object(desired), Value::Object(actual)) => desired.iter().all(|(key, value)| match actual.get(key) {
            Some(other) => is_within(value, other),
            None => is_empty(value),
        }),
        (Value::Array(desired), Value::Array(actual)) => {
            desired.len() == actual.len() && desired.iter().zip(actual).all(|(one, two)| is_within(one, two))
        }
        _ => desired == actual,
    }
}

/// Empty values are left out by the server when it writes an object.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty) && map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_defaults_are_no_difference_but_changes_are() {
        let desired = json!({"spec": {"ports": [{"port": 443}], "type": "ClusterIP", "hostNetwork": false}});
        let actual = json!({"spec": {"ports": [{"port": 443, "protocol": "TCP"}], "type": "ClusterIP", "x": 1}});
        assert!(is_within(&desired, &actual));
        let changed = json!({"spec": {"ports": [{"port": 444}], "type": "ClusterIP"}});
        assert!(!is_within(&desired, &changed));
        let longer = json!({"spec": {"ports": [{"port": 443}, {"port": 1}], "type": "ClusterIP"}});
        assert!(!is_within(&desired, &longer));
    }

    #[test]
    fn a_strangers_object_is_refused() {
        let service = Resource { group: "", version: "v1", plural: "services", kind: "Service", namespaced: true };
        let theirs = json!({"metadata": {"name": "web", "uid": "u"}});
        let refusal = check_ours(&service, &theirs, Mark::Owner("me")).expect_err("refused");
        assert_eq!(refusal.kind(), Kind::Conflict);
        let ours = json!({"metadata": {"name": "web", "ownerReferences": [{"kind": "VirtualCluster", "uid": "me"}]}});
        assert!(check_ours(&service, &ours, Mark::Owner("me")).is_ok());
        assert_eq!(check_ours(&service, &ours, Mark::Owner("you")).expect_err("waits").kind(), Kind::Unavailable);
    }
}
