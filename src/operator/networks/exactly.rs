//! Makes one policy on the host exactly what it should be: of everything else that Portico makes, more than was asked for is
//! somebody's addition, of a policy it is a door.

use serde_json::{Map, Value};

use crate::error::{Kind, Result, Side};
use crate::kubernetes::resources::NETWORK_POLICIES;
use crate::operator::apply::{self, Mark};
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::host::name_of;
use crate::translate::diff::covers;

/// Writes a policy where the host has it otherwise or not at all, and never over one that is somebody else's.
pub(super) async fn ensure(
    context: &Context,
    cluster: &Cluster,
    desired: &Value,
    existing: Option<&Value>,
) -> Result<()> {
    let (host, namespace) = (&context.host, cluster.namespace());
    let Some(existing) = existing else {
        return match host.create(&NETWORK_POLICIES, namespace, desired).await {
            // Another replica was faster; the next time compares.
            Err(error) if error.kind() == Kind::AlreadyExists => Err(error.on_side(Side::Own)),
            made => made.map(drop),
        };
    };
    apply::check_ours(&NETWORK_POLICIES, existing, Mark::Owner(&cluster.uid))?;
    if is_same(existing, desired) {
        return Ok(());
    }
    host.apply(&NETWORK_POLICIES, namespace, desired).await.map(drop)
}

/// The same for a caller who has not looked whether there is one.
pub(super) async fn ensure_unseen(context: &Context, cluster: &Cluster, desired: &Value) -> Result<()> {
    let existing = context.host.get(&NETWORK_POLICIES, cluster.namespace(), name_of(desired)).await?;
    ensure(context, cluster, desired, existing.as_ref()).await
}

/// Whether it selects, lets in and lets out what it should, and nothing beside.
pub(super) fn is_same(existing: &Value, desired: &Value) -> bool {
    covers(&existing["metadata"], &desired["metadata"]) && plain(&existing["spec"]) == plain(&desired["spec"])
}

/// Without what an API server leaves out: what is null, empty lists, and labels of which there are none. An empty selector
/// stays, since it means all, and one that is absent something else.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(key, field)| !is_absent(key, field));
            Value::Object(kept.map(|(key, field)| (key.clone(), plain(field))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        other => other.clone(),
    }
}

fn is_absent(key: &str, field: &Value) -> bool {
    match field {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(labels) => key == "matchLabels" && labels.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(spec: &Value) -> Value {
        json!({"metadata": {"name": "web", "labels": {"a": "b"}}, "spec": spec})
    }

    #[test]
    fn what_an_api_server_leaves_out_is_no_difference() {
        let desired = policy(&json!({"podSelector": {"matchLabels": {}}, "egress": [], "ingress": [{"from": [
            {"namespaceSelector": {}}, {"ipBlock": {"cidr": "0.0.0.0/0", "except": []}}]}]}));
        let mut existing = policy(&json!({"podSelector": {}, "ingress": [{"from": [
            {"namespaceSelector": {}}, {"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}));
        existing["metadata"]["uid"] = json!("u");
        assert!(is_same(&existing, &desired) && is_same(&desired, &desired));
        existing["metadata"]["labels"] = json!({});
        assert!(!is_same(&existing, &desired), "by these it is found");
    }

    #[test]
    fn whatever_opens_more_is_one() {
        let peer = json!({"podSelector": {"matchLabels": {"a": "b"}}});
        let desired = policy(&json!({"ingress": [{"from": [peer], "ports": [{"port": 80, "protocol": "TCP"}]}]}));
        let changes: [fn(&mut Value); 6] = [
            // All namespaces instead of its own.
            |rule| rule["from"][0]["namespaceSelector"] = json!({}),
            |rule| rule["from"] = json!([]),
            |rule| rule["from"].as_array_mut().expect("peers").push(json!({"namespaceSelector": {}})),
            |rule| rule["ports"] = json!(null),
            |rule| rule["ports"][0]["endPort"] = json!(90),
            |rule| rule["ports"].as_array_mut().expect("ports").push(json!({"protocol": "UDP"})),
        ];
        for change in changes {
            let mut existing = desired.clone();
            change(&mut existing["spec"]["ingress"][0]);
            assert!(!is_same(&existing, &desired), "{existing}");
        }
        let mut outward = desired.clone();
        outward["spec"]["egress"] = json!([{}]);
        assert!(!is_same(&outward, &desired));
    }
}
