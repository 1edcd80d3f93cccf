//! Tests of `endpoints`.

use super::super::service::ServiceKind;
use super::super::testing::{World, hostile_plans};
use super::*;
use crate::config::PolicyBounds;
use crate::crd::policy::{GrantedPolicy, Policy};
use serde_json::json;

fn slice() -> Value {
    json!({
        "metadata": {"name": "ext-1", "namespace": "default", "uid": "u1", "labels": {"kubernetes.io/service-name": "ext"}},
        "addressType": "IPv4", "ports": [{"port": 5432}],
        "endpoints": [{"addresses": ["192.0.2.7"], "targetRef": {"kind": "Pod", "name": "p"}}, {"addresses": ["169.254.169.254"]}],
    })
}

fn world(selector: &Value) -> World {
    let mut world = World::open();
    world.put_virtual(
        "Service",
        json!({"metadata": {"name": "ext", "namespace": "default"}, "spec": {"selector": selector}}),
    );
    world.put_virtual("EndpointSlice", slice());
    world
}

#[test]
fn slices_of_bare_services_cross_with_their_service_and_ports() {
    let kind = EndpointsKind::slices();
    let mut world = world(&Value::Null);
    world.settle(&kind, "default", "ext-1");
    let host = world.host("EndpointSlice", "ext-1-x-default-x-vc1").expect("made");
    assert_eq!(host["metadata"]["labels"]["kubernetes.io/service-name"], "ext-x-default-x-vc1");
    assert_eq!(host["endpoints"], json!([{"addresses": ["192.0.2.7"]}]));
    assert!(world.explained.iter().any(|(_, m)| m.contains("169.254.169.254")));
    world.change_virtual("EndpointSlice", "default", "ext-1", |s| s["ports"] = json!([{"port": 5433}]));
    world.settle(&kind, "default", "ext-1");
    assert_eq!(world.host("EndpointSlice", "ext-1-x-default-x-vc1").expect("kept")["ports"], json!([{"port": 5433}]));
    world.change_virtual("Service", "default", "ext", |s| s["spec"]["selector"] = json!({"a": "b"}));
    world.settle(&kind, "default", "ext-1");
    assert!(world.host("EndpointSlice", "ext-1-x-default-x-vc1").is_none());
}

/// Portico's own address inside a tenant; one that a user brings is like any other.
#[test]
fn the_dns_service_and_its_endpoints_stay_inside() {
    let labels = json!({"portico.dev/from-host": "true"});
    let metadata = json!({"name": "kube-dns", "namespace": "kube-system", "uid": "u1", "labels": labels});
    let service = |ip: &str| json!({"metadata": metadata, "spec": {"clusterIP": ip, "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}});
    let name = "kube-dns-x-kube-system-x-vc1";
    let own = World::new().view.dns_service_ip.to_string();
    for address in ["None", &own] {
        let mut world = World::new();
        world.put_virtual("Service", service(address));
        let subsets = json!([{"addresses": [{"ip": own}], "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}]);
        world.put_virtual("Endpoints", json!({"metadata": metadata, "subsets": subsets}));
        world.settle(&ServiceKind, "kube-system", "kube-dns");
        world.settle(&EndpointsKind::endpoints(), "kube-system", "kube-dns");
        assert!(world.host("Service", name).is_none() && world.host("Endpoints", name).is_none());
        world.change_virtual("Service", "kube-system", "kube-dns", |s| {
            s["metadata"]["labels"] = json!({"k8s-app": "kube-dns"});
            s["spec"]["clusterIP"] = json!("10.96.7.7");
        });
        world.settle(&ServiceKind, "kube-system", "kube-dns");
        world.settle(&EndpointsKind::endpoints(), "kube-system", "kube-dns");
        assert!(world.host("Service", name).is_some() && world.host("Endpoints", name).is_some());
    }
}

#[test]
fn a_slice_cannot_join_a_service_with_a_selector() {
    let kind = EndpointsKind::slices();
    let mut world = world(&json!({"app": "web"}));
    world.settle(&kind, "default", "ext-1");
    assert!(world.host("EndpointSlice", "ext-1-x-default-x-vc1").is_none());
}

#[test]
fn endpoints_take_the_services_name_and_no_node_addresses() {
    let kind = EndpointsKind::endpoints();
    let mut world = world(&Value::Null);
    world.put_virtual("Endpoints", json!({"metadata": {"name": "ext", "namespace": "default", "uid": "u2"},
        "subsets": [{"addresses": [{"ip": "127.0.0.1"}, {"ip": "::ffff:127.0.0.1"}, {"ip": "192.0.2.1"}], "ports": [{"port": 1}]}]}));
    world.settle(&kind, "default", "ext");
    let host = world.host("Endpoints", "ext-x-default-x-vc1").expect("made");
    assert_eq!(host["subsets"], json!([{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 1}]}]));
}

/// Finding S10 (CVE-2021-25740): whoever connects to an endpoint for others must only ever reach the tenant.
#[test]
fn only_own_pods_and_listed_networks_stand_behind_a_service() {
    let kind = EndpointsKind::endpoints();
    let mut world = world(&Value::Null);
    let bounds = PolicyBounds { endpoints: vec!["192.0.2.0/24".to_owned()], ..PolicyBounds::default() };
    world.view.policy = GrantedPolicy::of(bounds, Policy::default());
    let mut pod = json!({"metadata": {"name": "db-0", "namespace": "default", "uid": "p"}});
    let metadata = identity::metadata("Pod", &pod, &world.view, Limit::Subdomain).expect("valid");
    pod["metadata"] = Value::Object(metadata);
    pod["status"] = json!({"podIP": "10.9.0.1", "podIPs": [{"ip": "10.9.0.1"}]});
    let host_pod = json::name(&pod).to_owned();
    world.put_host("Pod", pod);
    let of = |ip: &str, pod: &str| json!({"ip": ip, "targetRef": {"kind": "Pod", "name": pod}});
    let addresses = json!([of("10.9.0.1", "db-0"), of("10.9.0.2", "db-0"), of("10.9.0.1", "other"), {"ip": "10.9.0.1"},
        {"ip": "192.0.2.9"}, {"ip": "198.51.100.1"}, {"ip": "169.254.169.254"}]);
    world.put_virtual(
        "Endpoints",
        json!({"metadata": {"name": "ext", "namespace": "default", "uid": "u2"},
        "subsets": [{"addresses": addresses, "ports": [{"port": 1}]}]}),
    );
    let plan = world.plan(&kind, "default", "ext");
    assert_eq!(plan.again_after, Some(POD_RECHECK));
    world.settle(&kind, "default", "ext");
    let crossing = |world: &World| {
        let host = world.host("Endpoints", "ext-x-default-x-vc1").expect("made");
        json::items(&host, "/subsets/0/addresses").iter().map(|a| json::text(a, "/ip").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(crossing(&world), ["10.9.0.1", "192.0.2.9"]);
    assert!(world.explained.iter().any(|(_, m)| m.contains("198.51.100.1") && m.contains("`endpoints`")));
    world.change_host("Pod", &host_pod, |pod| pod["status"]["podIPs"] = json!([]));
    world.change_host("Pod", &host_pod, |pod| pod["status"]["podIP"] = json!("10.9.0.3"));
    world.settle(&kind, "default", "ext");
    assert_eq!(crossing(&world), ["192.0.2.9"], "somebody else may have that address by now");
}

#[test]
fn hostile_input_never_panics() {
    hostile_plans(&EndpointsKind::slices(), &slice());
    hostile_plans(&EndpointsKind::endpoints(), &slice());
}

/// Each is held against a whole pod, again and again: one past the bound does not cross.
#[test]
fn addresses_of_pods_are_bounded() {
    let kind = EndpointsKind::endpoints();
    let mut world = world(&Value::Null);
    world.view.policy = GrantedPolicy::default();
    let mut pod = json!({"metadata": {"name": "db-0", "namespace": "default", "uid": "p"}});
    let metadata = identity::metadata("Pod", &pod, &world.view, Limit::Subdomain).expect("valid");
    pod["metadata"] = Value::Object(metadata);
    let ip = |n: usize| format!("10.9.0.{n}");
    let ips: Value = (0..=bounds::POD_ADDRESSES).map(|n| json!({"ip": ip(n)})).collect();
    pod["status"] = json!({"podIP": ip(0), "podIPs": ips});
    world.put_host("Pod", pod);
    let of = |n: usize| json!({"ip": ip(n), "targetRef": {"kind": "Pod", "name": "db-0"}});
    let addresses: Value = (0..=bounds::POD_ADDRESSES).map(of).collect();
    world.put_virtual(
        "Endpoints",
        json!({"metadata": {"name": "ext", "namespace": "default", "uid": "u2"},
            "subsets": [{"addresses": addresses, "ports": [{"port": 1}]}]}),
    );
    let plan = world.plan(&kind, "default", "ext");
    assert_eq!(plan.again_after, Some(13 * POD_RECHECK), "a hundred are looked at more rarely than eight");
    world.settle(&kind, "default", "ext");
    let host = world.host("Endpoints", "ext-x-default-x-vc1").expect("made");
    assert_eq!(json::items(&host, "/subsets/0/addresses").len(), bounds::POD_ADDRESSES);
    let last = ip(bounds::POD_ADDRESSES);
    assert!(world.explained.iter().any(|(_, m)| m.contains(&last)), "{:?}", world.explained);
}
