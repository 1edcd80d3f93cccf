//! Services on their way down. Shared by the syncer and by the gateway, which makes the host Service first on a POST.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::bounds::{self, Excess};
use super::{View, identity, json, policy, selector};
use crate::names::Limit;

/// Value of the kind annotation.
pub const KIND: &str = "Service";
/// Annotation on the host: the tenant's [`addresses`] that the host refused.
pub const REFUSED: &str = "portico.dev/refused-addresses";

/// Where charts look for the cluster's DNS.
pub const DNS_NAMESPACE: &str = "kube-system";
/// The same: its name.
pub const DNS_NAME: &str = "kube-dns";

/// Fields of `spec` that cross unchanged. `externalIPs` never does: it would take traffic of others (CVE-2020-8554).
pub(in crate::translate) const FIELDS: &[&str] = &[
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

/// Whether a Service is the one by which a tenant finds Portico's DNS: Portico makes it inside and never syncs it, since its
/// address is that of Portico's own Service on the host. One of that name with a selector or another address is a user's.
pub fn is_dns_service(service: &Value, view: &View) -> bool {
    let is_ours = || identity::is_from_host(service) && !has_selector(service);
    let is_there = || json::text(service, "/spec/clusterIP").parse() == Ok(view.dns_service_ip);
    json::namespace(service) == DNS_NAMESPACE && json::name(service) == DNS_NAME && (is_ours() || is_there())
}

/// Where a tenant's API server finds Portico's metrics API.
pub const METRICS_NAMESPACE: &str = "kube-system";
/// The same: its name.
pub const METRICS_NAME: &str = "portico-metrics";

/// Whether a Service is the one by which a tenant's API server finds Portico's metrics API: Portico makes it inside and never
/// syncs it. One of that name without Portico's label, or with a selector, is a user's.
pub fn is_metrics_service(service: &Value) -> bool {
    let is_named = json::namespace(service) == METRICS_NAMESPACE && json::name(service) == METRICS_NAME;
    is_named && identity::is_from_host(service) && !has_selector(service)
}

/// Whether a Service is one that Portico makes inside for itself and never syncs.
pub fn is_porticos(service: &Value, view: &View) -> bool {
    is_dns_service(service, view) || is_metrics_service(service)
}

/// Whether it may be one, as far as its name tells.
pub fn is_named_as_porticos(namespace: &str, name: &str) -> bool {
    [(DNS_NAMESPACE, DNS_NAME), (METRICS_NAMESPACE, METRICS_NAME)].contains(&(namespace, name))
}

/// Whether host controllers make its endpoints: it has a selector.
pub fn has_selector(service: &Value) -> bool {
    service.pointer("/spec/selector").and_then(Value::as_object).is_some_and(|map| !map.is_empty())
}

/// What of a Service is more than crosses to the host.
pub fn excess(service: &Value) -> Option<Excess> {
    let ports = (json::items(service, "/spec/ports").len(), bounds::PORTS);
    Excess::beyond("spec.ports", "ports", ports, "spread them over several Services")
}

/// Why no host Service stands for it.
pub fn refusal(service: &Value, view: &View) -> Option<String> {
    if let Some(excess) = excess(service) {
        return Some(excess.message());
    }
    let kind = json::text(service, "/spec/type");
    (!view.policy.service_type(kind)).then(|| match kind {
        "ExternalName" => format!(
            "the cluster's own pods find it by DNS all the same, Ingresses do not ({})",
            policy::decides("serviceTypes")
        ),
        _ => format!("spec.type {kind:?} is not allowed ({})", policy::decides("serviceTypes")),
    })
}

/// The host Service that stands for a virtual one, addresses and node ports as the virtual one has them: on a POST these
/// are absent (or what the user asks for) and the host chooses. None when the name is not valid.
pub fn to_host(virtual_service: &Value, view: &View) -> Option<Value> {
    let mut metadata = identity::metadata(KIND, virtual_service, view, Limit::Label)?;
    identity::record_keys(&mut metadata);
    let source = virtual_service.get("spec").unwrap_or(&Value::Null);
    let mut spec = json::pick(source, FIELDS);
    spec.retain(|_, value| value.as_str() != Some(""));
    if !view.policy.load_balancer_addresses() {
        spec.remove("loadBalancerIP");
    }
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

/// One entry of `ports`, as it crosses in either direction.
pub(in crate::translate) fn port(port: &Value) -> Value {
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
    // The first of several equal ones counts.
    let chosen: HashMap<PortKey<'_>, &Value> = json::items(from, "/ports")
        .iter()
        .rev()
        .map(|port| (port_key(port.get("port"), port.get("protocol")), port))
        .collect();
    json::each(spec, "ports", |port| {
        let chosen = chosen.get(&port_key(port.get("port"), port.get("protocol"))).and_then(|p| p.get("nodePort"));
        match chosen {
            Some(node_port) => port.insert("nodePort".to_owned(), node_port.clone()),
            None => port.remove("nodePort"),
        };
    });
    out
}

/// What tells two entries of `ports` apart: number and protocol.
type PortKey<'a> = (Option<&'a Value>, &'a str);

fn port_key<'a>(number: Option<&'a Value>, protocol: Option<&'a Value>) -> PortKey<'a> {
    (number, protocol.and_then(Value::as_str).unwrap_or("TCP"))
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

    #[test]
    fn the_dns_service_is_told_from_one_that_a_user_brings() {
        let named = |label: bool, ip: &str, selector: &Value| {
            let labels = if label { json!({"portico.dev/from-host": "true"}) } else { json!({"k8s-app": "kube-dns"}) };
            json!({"metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
                "spec": {"clusterIP": ip, "selector": selector}})
        };
        let (ours, none, own) = (view().dns_service_ip.to_string(), json!(null), json!({"k8s-app": "kube-dns"}));
        for (service, is_ours) in [
            (named(true, &ours, &none), true),
            (named(true, "None", &none), true),
            (named(true, "10.96.7.7", &none), true),
            (named(false, &ours, &own), true),
            (named(false, "10.96.7.7", &own), false),
            (named(true, "10.96.7.7", &own), false),
            (named(false, "None", &none), false),
        ] {
            assert_eq!(is_dns_service(&service, &view()), is_ours, "{service}");
        }
        let mut elsewhere = named(true, &ours, &none);
        elsewhere["metadata"]["namespace"] = json!("default");
        assert!(!is_dns_service(&elsewhere, &view()));
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
