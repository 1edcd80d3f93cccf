//! Makes host objects what they should be, writes only differences, and never takes over what is not ours.

use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};
use crate::kubernetes::Resource;
use crate::operator::host::{Host, name_of, uid_of};
use crate::translate::diff::{covers, fingerprint};

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
    let desired = stamped(desired);
    if let Some(existing) = existing {
        check_ours(resource, &existing, mark)?;
        if covers(&existing, &desired) {
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

fn stamped(mut desired: Value) -> Value {
    let digest = fingerprint(&desired);
    let annotations = &mut desired["metadata"]["annotations"];
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations[APPLIED] = Value::String(digest);
    desired
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_defaults_are_no_difference_but_changes_are() {
        let desired = json!({"spec": {"ports": [{"port": 443}], "type": "ClusterIP", "hostNetwork": false}});
        let actual = json!({"spec": {"ports": [{"port": 443, "protocol": "TCP"}], "type": "ClusterIP", "x": 1}});
        assert!(covers(&actual, &desired));
        let changed = json!({"spec": {"ports": [{"port": 444}], "type": "ClusterIP"}});
        assert!(!covers(&changed, &desired));
        let longer = json!({"spec": {"ports": [{"port": 443}, {"port": 1}], "type": "ClusterIP"}});
        assert!(!covers(&longer, &desired));
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
