//! A Service on both sides: repair of taken addresses, adoption of what the gateway made.

use super::super::testing::{World, hostile_plans};
use super::*;
use crate::config::PolicyBounds;
use crate::crd::policy::{GrantedPolicy, Policy};

#[test]
fn services_are_synced_and_repaired() {
    let kind = ServiceKind;
    let mut world = World::new();
    let object = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1", "labels": {"app": "web"}},
        "spec": {"type": "NodePort", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"], "selector": {"app": "web", "tier": "x"},
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]},
    });
    world.put_virtual("Service", object.clone());
    world.settle(&kind, "default", "web");
    let host = world.host("Service", "web-x-default-x-vc1").expect("made");
    assert_eq!(service::addresses(&host), service::addresses(&object));

    world.change_virtual("Service", "default", "web", |o| {
        o["spec"]["selector"] = json!({"app": "web"});
        o["spec"]["ports"] = json!([{"port": 8080, "protocol": "TCP", "nodePort": 30081}]);
        o["metadata"]["labels"] = json!({});
    });
    world.settle(&kind, "default", "web");
    let host = world.host("Service", "web-x-default-x-vc1").expect("kept");
    assert!(host["spec"]["selector"].get("tier").is_none());
    assert_eq!(host["spec"]["ports"], json!([{"port": 8080, "protocol": "TCP", "nodePort": 30081}]));
    assert!(host["metadata"]["labels"].get("app").is_none());

    // A node port that another tenant has: the host chooses, the tenant follows, the Service stays the same object.
    world.taken = vec!["30099".to_owned()];
    world.change_virtual("Service", "default", "web", |o| o["spec"]["ports"][0]["nodePort"] = json!(30099));
    world.settle(&kind, "default", "web");
    let (virtual_object, host) = (
        world.virtual_one("Service", "default", "web").expect("kept"),
        world.host("Service", "web-x-default-x-vc1").expect("kept"),
    );
    assert_eq!(service::addresses(&virtual_object), service::addresses(&host));
    assert_eq!(json::uid(&virtual_object), "u1");
    assert_eq!(identity::annotation(&host, REFUSED), "");
}

#[test]
fn a_cluster_ip_that_is_taken_makes_the_service_again_even_through_crashes() {
    let kind = ServiceKind;
    for crash_after in 0..6 {
        let mut world = World::new();
        world.taken = vec!["10.96.1.1\"".to_owned()];
        world.put_virtual(
            "Service",
            json!({"metadata": {"name": "web", "namespace": "default", "uid": "u1", "annotations": {"note": "n"}},
                "spec": {"type": "ClusterIP", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"], "ports": [{"port": 80}]}}),
        );
        world.step(&kind, "default", "web");
        let plan = world.plan(&kind, "default", "web");
        for action in plan.actions.into_iter().take(crash_after) {
            world.apply(action);
        }
        world.settle(&kind, "default", "web");
        let made = world.virtual_one("Service", "default", "web").expect("never lost");
        let host = world.host("Service", "web-x-default-x-vc1").expect("kept");
        assert_eq!(service::addresses(&made), service::addresses(&host));
        assert_eq!(made["metadata"]["annotations"]["note"], "n");
        assert_eq!(identity::recorded_uid(&host), json::uid(&made));
        assert_eq!(identity::annotation(&host, RECREATE), "");
    }
}

#[test]
fn services_that_the_gateway_is_making_are_left_alone_for_a_while() {
    let kind = ServiceKind;
    let mut world = World::new();
    let object = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}});
    let mut pending = service::to_host(&object, &world.view).expect("valid");
    pending["metadata"]["uid"] = json!("h1");
    identity::set_annotation(&mut pending, keys::PENDING, "2027-01-15T08:00:00Z".to_owned());
    world.put_host("Service", pending.clone());
    world.now = json::unix("2027-01-15T08:01:00Z").expect("valid");
    let plan = world.plan(&kind, "default", "web");
    assert!(plan.actions.is_empty() && plan.again_after == Some(60));
    let mut adopted = World::new();
    adopted.now = world.now;
    adopted.put_host("Service", pending);
    adopted.put_virtual(
        "Service",
        json!({"metadata": {"name": "web", "namespace": "default", "uid": "u1"}, "spec": {"ports": [{"port": 80}]}}),
    );
    adopted.settle(&kind, "default", "web");
    let host = adopted.host("Service", "web-x-default-x-vc1").expect("adopted");
    assert_eq!(identity::annotation(&host, keys::PENDING), "");
    assert_eq!((json::uid(&host), identity::recorded_uid(&host)), ("h1", "u1"));
    world.now += 61;
    world.settle(&kind, "default", "web");
    assert!(world.host("Service", "web-x-default-x-vc1").is_none());
}

#[test]
fn hostile_services_never_panic() {
    hostile_plans(
        &ServiceKind,
        &json!({"metadata": {"name": "web", "namespace": "default", "uid": "u1"},
            "spec": {"type": "NodePort", "clusterIP": "10.96.1.1", "selector": {"app": "web"}, "ports": [{"port": 80, "nodePort": 30080}]},
            "status": {"loadBalancer": {"ingress": []}}}),
    );
}

#[test]
fn types_that_the_policy_does_not_list_stay_inside() {
    let kind = ServiceKind;
    let mut world = World::new();
    let service = |kind: &str| {
        json!({"metadata": {"name": "web", "namespace": "default", "uid": "u1"},
            "spec": {"type": kind, "externalName": "bank.example.com", "ports": [{"port": 80}], "loadBalancerIP": "192.0.2.1"}})
    };
    world.put_virtual("Service", service("ExternalName"));
    world.settle(&kind, "default", "web");
    assert!(world.host("Service", "web-x-default-x-vc1").is_none(), "an ingress controller would follow the name");
    assert!(world.explained.iter().any(|(_, m)| m.contains("`serviceTypes`")));
    world.put_virtual("Service", service("LoadBalancer"));
    world.settle(&kind, "default", "web");
    let host = world.host("Service", "web-x-default-x-vc1").expect("made");
    assert!(host["spec"].get("loadBalancerIP").is_none(), "addresses are not the tenant's to choose");
    world.put_virtual("Service", service("ExternalName"));
    world.settle(&kind, "default", "web");
    assert!(world.host("Service", "web-x-default-x-vc1").is_none());
    world.put_virtual("Service", service("LoadBalancer"));
    world.settle(&kind, "default", "web");
    let bounds = PolicyBounds { service_types: vec!["ClusterIP".to_owned()], ..PolicyBounds::default() };
    world.view.policy = GrantedPolicy::of(bounds, Policy::default());
    world.settle(&kind, "default", "web");
    assert!(world.host("Service", "web-x-default-x-vc1").is_none(), "what is no longer allowed goes");
}

#[test]
fn selectors_follow_the_labels_that_are_moved() {
    let mut world = World::new();
    world.put_virtual(
        "Service",
        json!({"metadata": {"name": "web", "namespace": "default", "uid": "u1"},
            "spec": {"selector": {"cnpg.io/cluster": "db", "app.kubernetes.io/name": "db"}, "ports": [{"port": 80}]}}),
    );
    world.settle(&ServiceKind, "default", "web");
    let host = world.host("Service", "web-x-default-x-vc1").expect("made");
    assert_eq!(host["spec"]["selector"]["cnpg.io.tenant.portico.dev/cluster"], "db");
    assert_eq!(host["spec"]["selector"]["app.kubernetes.io/name"], "db");
    assert!(host["spec"]["selector"].get("cnpg.io/cluster").is_none());
}

/// Node ports and load balancers are the whole host's.
#[test]
fn node_ports_and_load_balancers_are_counted() {
    let few = |nodeports: u32, balancers: u32| {
        let objects = [("services.nodeports".to_owned(), nodeports), ("services.loadbalancers".to_owned(), balancers)];
        GrantedPolicy::of(PolicyBounds::default(), Policy { objects: objects.into(), ..Policy::default() })
    };
    let service = |name: &str, kind: &str, ports: u32| {
        let ports: Value = (1..=ports).map(|port| json!({"port": port})).collect();
        json!({"metadata": {"name": name, "namespace": "default", "uid": format!("u-{name}")},
            "spec": {"type": kind, "ports": ports}})
    };
    let mut world = World::new();
    world.view.policy = few(5, 1);
    let host = |world: &World, name: &str| world.host("Service", &format!("{name}-x-default-x-vc1"));
    for (name, kind, ports, is_made) in [
        ("a", "NodePort", 3, true),
        ("b", "NodePort", 3, false),
        ("c", "LoadBalancer", 2, true),
        ("d", "LoadBalancer", 0, false),
        ("e", "ClusterIP", 9, true),
    ] {
        world.put_virtual("Service", service(name, kind, ports));
        world.settle(&ServiceKind, "default", name);
        assert_eq!(host(&world, name).is_some(), is_made, "{name}");
    }
    assert!(world.explained.iter().any(|(_, m)| m.contains("services.nodeports") && m.contains("`objects`")));
    assert!(world.explained.iter().any(|(_, m)| m.contains("services.loadbalancers")));
    // One that is there does not become one that is too many, and stays as it is.
    world.put_virtual("Service", service("e", "NodePort", 9));
    world.settle(&ServiceKind, "default", "e");
    assert_eq!(host(&world, "e").expect("kept")["spec"]["type"], "ClusterIP");
    // What the gateway has just made is taken back.
    let mut made = service::to_host(&service("f", "NodePort", 1), &world.view).expect("valid");
    identity::set_annotation(&mut made, keys::PENDING, "2026-01-01T00:00:00Z".to_owned());
    world.put_host("Service", made);
    world.put_virtual("Service", service("f", "NodePort", 1));
    world.settle(&ServiceKind, "default", "f");
    assert!(host(&world, "f").is_none());
    world.view.policy = few(50, 1);
    for name in ["b", "e", "f"] {
        world.settle(&ServiceKind, "default", name);
        assert_eq!(host(&world, name).expect("made")["spec"]["type"], "NodePort", "{name}");
    }
}

/// By its name a tenant's API server finds Portico; on the host it would be anybody's.
#[test]
fn the_metrics_service_stays_inside_and_nobody_is_told_of_it() {
    let mut world = World::new();
    let labels = json!({"portico.dev/from-host": "true"});
    let metadata = json!({"name": "portico-metrics", "namespace": "kube-system", "uid": "u1", "labels": labels});
    let spec = json!({"type": "ExternalName", "externalName": "localhost"});
    world.put_virtual("Service", json!({"metadata": metadata, "spec": spec}));
    let name = "portico-metrics-x-kube-system-x-vc1";
    world.settle(&ServiceKind, "kube-system", "portico-metrics");
    assert!(world.host("Service", name).is_none() && world.explained.is_empty(), "{:?}", world.explained);
    world.change_virtual("Service", "kube-system", "portico-metrics", |s| s["metadata"]["labels"] = json!({}));
    world.settle(&ServiceKind, "kube-system", "portico-metrics");
    assert!(
        world.explained.iter().any(|(_, m)| m.contains("serviceTypes")),
        "a user's own is a Service like any other"
    );
}
