//! The three objects, as Portico makes them, and how they are known. Pure.

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::kubernetes::Resource;
use crate::kubernetes::resources::{API_SERVICES, CLUSTER_ROLES, SERVICES};
use crate::translate::{View, identity, json as fields, service};

/// As `kubectl apply` keeps it: what stands here and not in what is applied, it takes away. Without it a metrics-server's manifest
/// would be refused for our CA beside its own word on TLS.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// By this name, a control plane's own loopback.
const LOOPBACK: &str = "localhost";

/// How a tenant's API server reaches the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By a relay in its own process, at this port of its loopback.
    Relay(u16),
    /// At the address of the tenant's API, as pods do.
    Gateway(IpAddr),
}

/// One of them.
pub(super) struct Object {
    pub(super) resource: &'static Resource,
    pub(super) namespace: Option<&'static str>,
    pub(super) name: &'static str,
    /// Whether Portico made what stands there, and nobody else has changed where it leads.
    pub(super) is_ours: fn(&Value) -> bool,
    /// For this way.
    pub(super) made: fn(Way, &View) -> Value,
    /// The merge patch that makes of what was found what is made now, when they differ where it may differ.
    pub(super) amended: fn(&Value, &Value) -> Option<Value>,
}

pub(super) const API_SERVICE: Object = Object {
    resource: &API_SERVICES,
    namespace: None,
    name: "v1beta1.metrics.k8s.io",
    is_ours: leads_to_us,
    made: api_service,
    amended: way,
};

/// The APIService last: what it needs is there by then.
pub(super) const OBJECTS: [Object; 3] = [
    Object {
        resource: &SERVICES,
        namespace: Some(service::METRICS_NAMESPACE),
        name: service::METRICS_NAME,
        is_ours: leads_as_ours,
        made: the_service,
        amended: name,
    },
    Object {
        resource: &CLUSTER_ROLES,
        namespace: None,
        name: "system:aggregated-metrics-reader",
        is_ours: is_unchanged_role,
        made: |_, _| role(),
        amended: |_, _| None,
    },
    API_SERVICE,
];

fn leads_to_us(found: &Value) -> bool {
    identity::is_from_host(found)
        && fields::text(found, "/spec/service/namespace") == service::METRICS_NAMESPACE
        && fields::text(found, "/spec/service/name") == service::METRICS_NAME
}

/// Ours has led to one of these; any other name somebody else has put there.
fn leads_as_ours(found: &Value) -> bool {
    let name = fields::text(found, "/spec/externalName");
    service::is_metrics_service(found) && (name == LOOPBACK || name.parse::<Ipv4Addr>().is_ok())
}

/// `kubectl apply` of a metrics-server leaves our label, and adds its own.
fn is_unchanged_role(found: &Value) -> bool {
    let made = role();
    found["metadata"]["labels"] == made["metadata"]["labels"] && found["rules"] == made["rules"]
}

fn name(found: &Value, made: &Value) -> Option<Value> {
    let name = |object: &Value| object["spec"]["externalName"].clone();
    (name(found) != name(made)).then(|| json!({"spec": {"externalName": name(made)}}))
}

fn way(found: &Value, made: &Value) -> Option<Value> {
    let of = |object: &Value| json!({"caBundle": object["spec"]["caBundle"], "service": {"port": object["spec"]["service"]["port"]}});
    let applied = json!({"annotations": made["metadata"]["annotations"]});
    (of(found) != of(made)).then(|| json!({"metadata": applied, "spec": of(made)}))
}

/// A name, for which an API server looks for no endpoints, and takes no address of the host's.
fn the_service(way: Way, _view: &View) -> Value {
    let leads_to = match way {
        Way::Relay(_) => LOOPBACK.to_owned(),
        Way::Gateway(address) => address.to_string(),
    };
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service::METRICS_NAME,
            "namespace": service::METRICS_NAMESPACE,
            "labels": {identity::FROM_HOST: "true"},
        },
        "spec": {"type": "ExternalName", "externalName": leads_to},
    })
}

/// As metrics-server's: whoever may view a namespace sees what its pods use.
fn role() -> Value {
    let aggregated = |to: &str| (format!("rbac.authorization.k8s.io/aggregate-to-{to}"), json!("true"));
    let mut labels: serde_json::Map<String, Value> = ["view", "edit", "admin"].map(aggregated).into_iter().collect();
    labels.insert(identity::FROM_HOST.to_owned(), json!("true"));
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:aggregated-metrics-reader", "labels": labels},
        "rules": [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}],
    })
}

fn api_service(way: Way, view: &View) -> Value {
    let port = match way {
        Way::Relay(port) => port,
        Way::Gateway(_) => 443,
    };
    let mut object = json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io", "labels": {identity::FROM_HOST: "true"}},
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "caBundle": base64::engine::general_purpose::STANDARD.encode(&view.api_ca),
            "service": {"namespace": service::METRICS_NAMESPACE, "name": service::METRICS_NAME, "port": port},
        },
    });
    object["metadata"]["annotations"] = json!({LAST_APPLIED: object.to_string()});
    object
}
