//! What is read of Services and Ingresses, and what opens nothing.

use serde_json::{Value, json};

use super::*;
use crate::names::keys;

fn metadata(owner: &Value) -> Value {
    json!({"name": "web-x-default-x-one", "resourceVersion": "7", "labels": {keys::CLUSTER: "one", "app": "web"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "one", "uid": "p"}, owner]})
}

fn of_one() -> Value {
    json!({"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster", "name": "one", "uid": "u1", "controller": true})
}

fn read(spec: &Value) -> Read<Service> {
    service(json!({"metadata": metadata(&of_one()), "spec": spec}).to_string().as_bytes()).expect("reads")
}

fn tcp(target: Target) -> Port {
    Port { protocol: Protocol::Tcp, target }
}

#[test]
fn a_service_opens_where_its_ports_lead() {
    let found = read(&json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [
        {"port": 80, "targetPort": 8080, "nodePort": 30080, "protocol": "TCP"},
        {"port": 81, "name": "by-name", "targetPort": "http"},
        {"port": 53, "protocol": "UDP"},
        {"port": 9, "targetPort": ""}, {"port": 10, "targetPort": 0},
    ]}));
    assert_eq!((&*found.name, &*found.version), ("web-x-default-x-one", "7"));
    assert_eq!(found.owner, Some(Owner { cluster: "one".into(), uid: "u1".into() }));
    let value = found.value.expect("open");
    assert!(value.is_exposed);
    assert_eq!(value.selector, BTreeMap::from([("app".to_owned(), "web".to_owned())]));
    let ports: Vec<Port> = value.ports.iter().map(|port| port.port.clone()).collect();
    let udp = Port { protocol: Protocol::Udp, target: Target::Number(53) };
    let same = [9, 10].map(|port| tcp(Target::Number(port)));
    assert_eq!(ports[..3], [tcp(Target::Number(8080)), tcp(Target::Name("http".into())), udp]);
    assert_eq!(ports[3..], same, "none is the Service's own number");
    let is = |port: usize, meant: Target| value.ports[port].is_among(&BTreeSet::from([&meant]));
    assert!(is(1, Target::Number(81)) && is(1, Target::Name("by-name".into())));
    assert!(!is(1, Target::Name("http".into())), "that is the pods' name for it");
    assert!(!is(2, Target::Number(80)) && !is(0, Target::Number(8080)));
}

#[test]
fn what_has_no_selector_or_no_ports_opens_nothing() {
    let ports = |number: usize| (1..=number).map(|port| json!({"port": port})).collect::<Value>();
    let selector = json!({"app": "web"});
    assert!(read(&json!({"type": "NodePort", "selector": selector, "ports": ports(1)})).value.is_some());
    for nothing in [
        json!({"type": "NodePort", "ports": ports(1)}),
        json!({"type": "NodePort", "selector": null, "ports": ports(1)}),
        json!({"type": "NodePort", "selector": {}, "ports": ports(1)}),
        json!({"type": "NodePort", "selector": selector}),
        json!({"type": "LoadBalancer", "selector": selector, "ports": null}),
        json!({"type": "ExternalName", "selector": selector, "ports": ports(1), "externalName": "a.example.com"}),
    ] {
        assert_eq!(read(&nothing).value, None, "{nothing}");
    }
    let inside = read(&json!({"type": "ClusterIP", "selector": selector, "ports": ports(1)})).value.expect("kept");
    assert!(!inside.is_exposed);
}

#[test]
fn whose_it_is_the_owner_and_the_label_say_together() {
    let owner = |change: fn(&mut Value)| {
        let mut owner = of_one();
        change(&mut owner);
        let object = json!({"metadata": metadata(&owner), "spec": {}});
        service(object.to_string().as_bytes()).expect("reads").owner
    };
    assert!(owner(|_| {}).is_some());
    assert_eq!(owner(|owner| owner["name"] = json!("two")), None, "labeled as another's");
    assert_eq!(owner(|owner| owner["kind"] = json!("Pod")), None);
    assert_eq!(owner(|owner| owner["apiVersion"] = json!("other.example.com/v1")), None);
    assert_eq!(owner(|owner| owner["apiVersion"] = json!("v1")), None);
}

#[test]
fn an_ingress_names_services_and_their_ports() {
    let object = json!({"metadata": metadata(&of_one()), "spec": {
        "defaultBackend": {"service": {"name": "a", "port": {"name": "http"}}},
        "rules": [
            {"host": "a.example.com"},
            {"http": {"paths": [
                {"path": "/", "backend": {"service": {"name": "b", "port": {"number": 80}}}},
                {"path": "/2", "backend": {"service": {"name": "b", "port": {"number": 80}}}},
                {"path": "/3", "backend": {"service": {"name": "c"}}},
                {"path": "/4", "backend": {"resource": {"kind": "Bucket", "name": "d"}}},
            ]}},
        ],
    }});
    let found = ingress(object.to_string().as_bytes()).expect("reads").value.expect("some");
    let backend = |service: &str, port| Backend { service: service.into(), port };
    assert_eq!(
        found,
        Backends::from([backend("a", Target::Name("http".into())), backend("b", Target::Number(80))]),
        "what names no port leads nowhere"
    );
    let none = json!({"metadata": metadata(&of_one()), "spec": {"rules": null}});
    assert_eq!(ingress(none.to_string().as_bytes()).expect("reads").value, None);
}

#[test]
fn what_is_malformed_is_an_error_and_no_panic() {
    for text in ["", "[]", "{}", r#"{"metadata": {}, "spec": {}}"#, r#"{"metadata": {"name": "a"}}"#] {
        assert!(service(text.as_bytes()).is_err() && ingress(text.as_bytes()).is_err(), "{text}");
    }
    let wrong = json!({"metadata": {"name": "a"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 70_000}]}});
    assert!(service(wrong.to_string().as_bytes()).is_err());
    assert_eq!(name(wrong.to_string().as_bytes()), Some("a".into()), "so that what was known of it can be forgotten");
}
