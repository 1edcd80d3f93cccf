//! Services on their way down. Shared by the syncer and by the gateway, which makes the host Service first on a POST.

use serde_json::{Map, Value, json};

use super::{View, identity, json, selector};
use crate::names::Limit;

/// Value of the kind annotation.
pub const KIND: &str = "Service";
/// Annotation on the host: the tenant's [`addresses`] that the host refused.
pub const REFUSED: &str = "portico.dev/refused-addresses";

/// Fields of `spec` that cross unchanged. `externalIPs` never does: it would take traffic of others (CVE-2020-8554).
const FIELDS: &[&str] = &[
    "type",
    "clusterIP",
    "clusterIPs",
    "ipFamilies",
    "ipFamilyPolicy",
    "sessionAffinity",
    "sessionAffinityConfig",
    "externalTrafficPolicy",
    "internalTrafficPolicy",
    "publishNotReadyAddresses",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "loadBalancerClass",
    "allocateLoadBalancerNodePorts",
    "healthCheckNodePort",
    "externalName",
    "trafficDistribution",
];

/// Whether a Service is one that Portico never syncs: the tenant's own API server.
pub fn is_api_service(namespace: &str, name: &str) -> bool {
    namespace == "default" && name == "kubernetes"
}

/// Whether host controllers make its endpoints: it has a selector.
pub fn has_selector(service: &Value) -> bool {
    service.pointer("/spec/selector").and_then(Value::as_object).is_some_and(|map| !map.is_empty())
}

/// The host Service that stands for a virtual one, addresses and node ports as the virtual one has them: on a POST these
/// are absent (or what the user asks for) and the host chooses. None when the name is not valid.
pub fn to_host(virtual_service: &Value, view: &View) -> Option<Value> {
    let mut metadata = identity::metadata(KIND, virtual_service, view, Limit::Label)?;
    identity::record_keys(&mut metadata);
    let source = virtual_service.get("spec").unwrap_or(&Value::Null);
    let mut spec = json::pick(source, FIELDS);
    spec.retain(|_, value| value.as_str() != Some(""));
    if let Some(Value::Array(ports)) = source.get("ports") {
        spec.insert("ports".to_owned(), Value::Array(ports.iter().map(port).collect()));
    }
    if has_selector(virtual_service) {
        let terms = json::strings(virtual_service, "/spec/selector");
        spec.insert(
            "selector".to_owned(),
            json!(selector::map_to_host(&terms, json::namespace(virtual_service), view)),
        );
    }
    Some(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}))
}

fn port(port: &Value) -> Value {
    let mut out = json::pick(port, &["name", "protocol", "appProtocol", "port", "targetPort", "nodePort"]);
    if out.get("nodePort").and_then(Value::as_i64) == Some(0) {
        out.remove("nodePort");
    }
    Value::Object(out)
}

/// Takes every address and node port out of a Service, so that the API server chooses: the fallback when it refuses ours.
/// `clusterIP: None` stays, it is no address.
pub fn without_addresses(service: &Value) -> Value {
    let mut out = service.clone();
    let Some(spec) = out.get_mut("spec").and_then(Value::as_object_mut) else { return out };
    if spec.get("clusterIP").and_then(Value::as_str) != Some("None") {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    spec.remove("healthCheckNodePort");
    json::each(spec, "ports", |port| {
        port.remove("nodePort");
    });
    out
}

/// Copies the addresses and node ports that the host chose into a virtual Service (or the body of its POST). Ports meet
/// by port number and protocol.
pub fn adopt_addresses(virtual_service: &Value, host: &Value) -> Value {
    let mut out = virtual_service.clone();
    let Value::Object(map) = &mut out else { return out };
    let spec = json::object(map, "spec");
    let from = host.get("spec").unwrap_or(&Value::Null);
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"] {
        match from.get(field) {
            Some(value) if !value.is_null() => spec.insert(field.to_owned(), value.clone()),
            _ => spec.remove(field),
        };
    }
    json::each(spec, "ports", |port| {
        let chosen =
            json::items(from, "/ports").iter().find(|other| same_port(other, port)).and_then(|p| p.get("nodePort"));
        match chosen {
            Some(node_port) => port.insert("nodePort".to_owned(), node_port.clone()),
            None => port.remove("nodePort"),
        };
    });
    out
}

/// Whether two entries of `ports` are the same port.
pub fn same_port(one: &Value, other: &Map<String, Value>) -> bool {
    let protocol = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("TCP").to_owned();
    one.get("port") == other.get("port") && protocol(one.get("protocol")) == protocol(other.get("protocol"))
}

/// The addresses and node ports of a Service as one text: equal texts mean both sides agree.
pub fn addresses(service: &Value) -> String {
    let ports: Vec<String> = json::items(service, "/spec/ports")
        .iter()
        .map(|port| {
            let number = |key: &str| port.get(key).and_then(Value::as_i64).unwrap_or_default();
            let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
            format!("{}/{protocol}={}", number("port"), number("nodePort"))
        })
        .collect();
    format!("{} {}", json::text(service, "/spec/clusterIP"), ports.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{hostile, view};
    use super::*;
    use proptest::prelude::*;

    fn service() -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u1", "labels": {"app": "web"}},
            "spec": {
                "type": "NodePort", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"], "externalIPs": ["1.2.3.4"],
                "selector": {"app": "web"},
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "nodePort": 30080}],
            },
        })
    }

    #[test]
    fn selector_is_confined_and_external_ips_do_not_cross() {
        let host = to_host(&service(), &view()).expect("valid");
        assert_eq!(
            host["spec"],
            json!({
                "type": "NodePort", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"],
                "selector": {"app": "web", "portico.dev/cluster": "vc1", "portico.dev/namespace": "default"},
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "nodePort": 30080}],
            })
        );
        assert_eq!(host["metadata"]["name"], "web-x-default-x-vc1");
    }

    #[test]
    fn a_service_without_selector_gets_none() {
        let mut bare = service();
        bare["spec"]["selector"] = json!({});
        assert!(to_host(&bare, &view()).expect("valid")["spec"].get("selector").is_none());
    }

    #[test]
    fn addresses_are_dropped_and_adopted() {
        let bare = without_addresses(&service());
        assert_eq!(addresses(&bare), " 80/TCP=0");
        let host = json!({"spec": {"clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9"], "ports": [{"port": 80, "nodePort": 31000}]}});
        let adopted = adopt_addresses(&service(), &host);
        assert_eq!(addresses(&adopted), addresses(&host));
        let headless = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
        assert_eq!(without_addresses(&headless), headless);
    }

    proptest! {
        #[test]
        fn never_panics_and_never_selects_foreign_pods(spec in hostile(), host in hostile()) {
            let object = json!({"metadata": {"name": "web", "namespace": "default", "uid": "u"}, "spec": spec});
            let made = to_host(&object, &view()).expect("valid name");
            if let Some(terms) = made.pointer("/spec/selector") {
                prop_assert_eq!(&terms["portico.dev/cluster"], "vc1");
                prop_assert_eq!(&terms["portico.dev/namespace"], "default");
            }
            prop_assert!(made.pointer("/spec/externalIPs").is_none());
            let _ = (without_addresses(&object), adopt_addresses(&object, &host), addresses(&host));
        }
    }
}
