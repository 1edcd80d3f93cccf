//! What comes from outside reaches pods behind Services that are meant for it, at their ports, and nothing else.

mod hostile;

use super::super::following::{pass, start};
use super::*;
use crate::kubernetes::resources::INGRESSES;
use crate::operator::networks::expose::{self, Stepped};

/// A Service as the syncer makes it on the host.
pub(super) fn service(world: &World, namespace: &str, cluster: &str, name: &str, spec: Value) {
    put(world, &SERVICES, namespace, cluster, name, spec);
}

fn put(world: &World, resource: &crate::kubernetes::Resource, namespace: &str, cluster: &str, name: &str, spec: Value) {
    let owner = world.host.find(&VIRTUAL_CLUSTERS, namespace, cluster).expect("there");
    let mut spec = spec;
    if spec["selector"].is_object() {
        // As translation does.
        spec["selector"]["portico.dev/cluster"] = json!(cluster);
        spec["selector"]["portico.dev/namespace"] = json!("default");
    }
    let metadata = json!({
        "name": host_name(name, cluster),
        "labels": {"portico.dev/cluster": cluster, "portico.dev/namespace": "default"},
        "ownerReferences": [{"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster", "name": cluster,
            "uid": owner["metadata"]["uid"], "controller": true}],
    });
    world.host.put(resource, namespace, json!({"metadata": metadata, "spec": spec}));
}

fn host_name(name: &str, cluster: &str) -> String {
    format!("{name}-x-default-x-{cluster}")
}

/// One step on what the host has now.
pub(super) async fn expose(world: &World, namespace: &str, name: &str) -> Stepped {
    let cluster = world.cluster(namespace, name);
    let exposure = &world.context.exposure;
    exposure.keep(&world.context.host, &world.context.clock, &[].into());
    if world.context.config.networks.enabled {
        exposure.keep(&world.context.host, &world.context.clock, &[namespace].into());
        while exposure.of(&cluster).is_none() && !exposure.is_refused(&cluster) {
            exposure.news().await;
        }
    }
    expose::step(&world.context, &cluster, 0).await
}

fn ports(ports: &[(u16, Value)]) -> Value {
    ports.iter().map(|(port, target)| json!({"port": port, "targetPort": target, "protocol": "TCP"})).collect()
}

fn node_port(app: &str, target: u16) -> Value {
    json!({"type": "NodePort", "selector": {"app": app}, "ports": ports(&[(80, json!(target))])})
}

fn ingress_to(cluster: &str, service: &str, port: u16) -> Value {
    let backend = json!({"service": {"name": host_name(service, cluster), "port": {"number": port}}});
    json!({"rules": [{"host": "a.example.com", "http": {"paths": [{"path": "/", "backend": backend}]}}]})
}

/// A pod of a tenant with this label.
fn labeled(namespace: &'static str, cluster: &str, app: &str) -> End {
    let labels = json!({"portico.dev/cluster": cluster, "portico.dev/namespace": "default", "app": app});
    pod(namespace, labels, "10.244.0.9")
}

/// Names of the policies that open something, of all namespaces.
fn opening(world: &World) -> Vec<String> {
    let all = world.host.all(&NETWORK_POLICIES);
    let own = all.iter().filter(|policy| !policy["metadata"]["labels"]["portico.dev/exposes"].is_null());
    let mut names: Vec<String> = own.map(|p| p["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect();
    names.sort();
    names
}

/// Two clusters in one namespace, whose Services have the same names and labels, and one elsewhere; the first of them hostile.
async fn exposing(world: &World) -> Vec<Value> {
    for (namespace, cluster) in [("team-a", "one"), ("team-a", "two"), ("team-b", "one")] {
        world.add(namespace, cluster, json!({}));
        let inside = json!({"type": "ClusterIP", "selector": {"app": "db"}, "ports": ports(&[(5432, json!(5432))])});
        service(world, namespace, cluster, "db", inside);
    }
    service(world, "team-a", "one", "web", node_port("web", 8080));
    // Whoever it selects by, in its own words.
    let mut greedy = node_port("db", 5432);
    greedy["selector"] = json!({"app": "db", "portico.dev/control-plane": "two"});
    service(world, "team-a", "two", "web", greedy);
    let both = json!([{"port": 80, "targetPort": "http"}, {"port": 9000, "targetPort": 9000}]);
    service(world, "team-b", "one", "site", json!({"type": "ClusterIP", "selector": {"app": "site"}, "ports": both}));
    put(world, &INGRESSES, "team-b", "one", "site", ingress_to("one", "site", 80));
    for (namespace, cluster) in [("team-a", "one"), ("team-a", "two"), ("team-b", "one")] {
        expose(world, namespace, cluster).await;
        world.round(namespace, cluster).await;
    }
    world.host.all(&NETWORK_POLICIES)
}

#[tokio::test]
async fn only_pods_behind_services_for_the_outside_are_reached_at_their_ports() {
    let mut world = host_with_networks();
    set(&mut world, |config| {
        config.networks =
            networks("{reachableFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress}}}]}");
    });
    let policies = exposing(&world).await;
    let controller = pod("ingress", json!({}), "10.244.0.70");
    for from in [outside("198.51.100.7"), outside("192.0.2.11"), outside("2001:db8::1"), controller] {
        let reaches = |to: &End, port| connects(&policies, &from, to, port);
        assert!(reaches(&labeled("team-a", "one", "web"), WEB), "{from:?}");
        assert!(!reaches(&labeled("team-a", "one", "web"), (8081, "TCP")), "another port of the same pod");
        assert!(!reaches(&labeled("team-a", "one", "web"), (8080, "UDP")), "another protocol");
        assert!(!reaches(&labeled("team-a", "one", "web"), (80, "TCP")), "the Service's own number is no port of it");
        assert!(!reaches(&labeled("team-a", "one", "db"), (5432, "TCP")), "behind a Service for the inside");
        assert!(!reaches(&labeled("team-a", "one", "other"), WEB), "behind none");
        assert!(!reaches(&labeled("team-a", "two", "web"), WEB), "another tenant's pod with the same labels");
        assert!(!reaches(&labeled("team-b", "one", "web"), WEB), "and one of the same name elsewhere");
        assert!(!reaches(&labeled("team-a", "two", "db"), (5432, "TCP")), "no pod carries such a label");
        assert!(!reaches(&control_plane_of("team-a", "two", "10.244.1.9"), (5432, "TCP")), "nor are those its pods");
        let site = End { ports: &[("http", (3000, "TCP"))], ..labeled("team-b", "one", "site") };
        assert!(reaches(&site, (3000, "TCP")), "the port that the Ingress names, by the pod's name for it");
        assert!(!reaches(&site, (9000, "TCP")), "the same Service's other port");
    }
    for closed in [outside("10.244.1.77"), outside("fd00:1::77"), pod("team-c", json!({}), "10.244.1.78")] {
        assert!(!connects(&policies, &closed, &labeled("team-a", "one", "web"), WEB), "{closed:?}");
    }
    let near = of("team-a", "one", "10.244.0.8");
    assert!(connects(&policies, &near, &labeled("team-a", "one", "db"), (5432, "TCP")), "its own pods reach all");
}

/// While policies are switched on or off, after the way back to an earlier version, and where somebody has the name.
#[tokio::test]
async fn without_the_pods_own_policy_they_are_still_reached_by_who_belongs_to_them() {
    let world = host_with_networks();
    exposing(&world).await;
    let (web, all) = (labeled("team-a", "one", "web"), world.host.all(&NETWORK_POLICIES));
    let is_alone = |policy: &&Value| !policy["metadata"]["labels"]["portico.dev/exposes"].is_null();
    let alone: Vec<Value> = all.iter().filter(is_alone).cloned().collect();
    assert_eq!(alone.len(), 3);
    let planes = |cluster| control_plane_of("team-a", cluster, "10.244.1.9");
    for own in [of("team-a", "one", "10.244.0.8"), planes("one"), portico("portico"), portico("portico-control")] {
        assert!(connects(&alone, &own, &web, WEB) && connects(&alone, &own, &web, (8081, "TCP")), "{own:?}");
    }
    let impostor = pod("team-c", json!({"portico.dev/component": "portico"}), "10.244.0.50");
    for other in [of("team-a", "two", "10.244.0.8"), of("team-b", "one", "10.244.0.7"), planes("two"), impostor] {
        assert!(!connects(&alone, &other, &web, WEB), "{other:?}");
    }
    assert!(!connects(&alone, &outside("198.51.100.7"), &web, (8081, "TCP")), "a port that no Service has");
}

#[tokio::test]
async fn nothing_is_opened_to_nobody() {
    let mut world = host_with_networks();
    set(&mut world, |config| config.networks = networks("{externalIngress: [], reachableFrom: []}"));
    exposing(&world).await;
    assert!(opening(&world).is_empty(), "a rule without peers means everybody");
}

#[tokio::test(start_paused = true)]
async fn policies_follow_services_within_moments() {
    let world = host_with_networks();
    world.add("team-a", "one", json!({}));
    world.add("team-a", "two", json!({}));
    let (_context, running, _trigger) = start(&world);
    pass(90).await;
    let web = labeled("team-a", "one", "web");
    let reached = |port| connects(&world.host.all(&NETWORK_POLICIES), &outside("198.51.100.7"), &web, (port, "TCP"));
    assert!(!reached(8080));
    let steps: [(&str, Option<Value>, bool, bool); 7] = [
        ("made", Some(node_port("web", 8080)), true, false),
        ("another port", Some(node_port("web", 8081)), false, true),
        ("another selector", Some(node_port("other", 8081)), false, false),
        ("back", Some(node_port("web", 8080)), true, false),
        (
            "another type",
            Some(json!({"type": "ClusterIP", "selector": {"app": "web"}, "ports": ports(&[(80, json!(8080))])})),
            false,
            false,
        ),
        (
            "balanced",
            Some(json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports(&[(80, json!(8080))])})),
            true,
            false,
        ),
        ("gone", None, false, false),
    ];
    for (what, spec, first, second) in steps {
        match spec {
            Some(spec) => service(&world, "team-a", "one", "web", spec),
            None => world.host.remove(&SERVICES, "team-a", &host_name("web", "one")),
        }
        pass(3).await;
        assert_eq!((reached(8080), reached(8081)), (first, second), "{what}");
    }
    service(
        &world,
        "team-a",
        "one",
        "web",
        json!({"type": "ClusterIP", "selector": {"app": "web"}, "ports": ports(&[(80, json!(8080))])}),
    );
    put(&world, &INGRESSES, "team-a", "one", "web", ingress_to("one", "web", 80));
    pass(3).await;
    assert!(reached(8080), "an Ingress names it");
    world.host.remove(&INGRESSES, "team-a", &host_name("web", "one"));
    pass(3).await;
    assert!(!reached(8080) && opening(&world).is_empty());
    assert!(!running.is_finished());
}

#[tokio::test(start_paused = true)]
async fn what_changed_while_nobody_looked_is_made_good() {
    let world = host_with_networks();
    world.add("team-a", "one", json!({}));
    service(&world, "team-a", "one", "stays", node_port("stays", 8080));
    service(&world, "team-a", "one", "goes", node_port("goes", 8080));
    let (_context, running, _trigger) = start(&world);
    pass(10).await;
    assert_eq!(opening(&world), ["goes-x-default-x-one.exposed", "stays-x-default-x-one.exposed"]);
    world.host.0.down(true);
    world.host.remove(&SERVICES, "team-a", &host_name("goes", "one"));
    service(&world, "team-a", "one", "comes", node_port("comes", 8080));
    pass(60).await;
    world.host.0.down(false);
    pass(60).await;
    assert_eq!(opening(&world), ["comes-x-default-x-one.exposed", "stays-x-default-x-one.exposed"]);
    drop(running);
    world.host.remove(&SERVICES, "team-a", &host_name("comes", "one"));
    let (_context, running, _trigger) = start(&world);
    pass(10).await;
    assert_eq!(opening(&world), ["stays-x-default-x-one.exposed"], "the next process finds what was left");
    drop(running);
}

/// The policy as an earlier version made it, which opened all ports to the outside.
fn as_before(world: &World) {
    world.host.edit(&NETWORK_POLICIES, "team-a", "one-pods", |policy| {
        policy["spec"]["ingress"][0]["from"]
            .as_array_mut()
            .expect("peers")
            .push(json!({"ipBlock": {"cidr": "0.0.0.0/0"}}));
    });
}

#[tokio::test]
async fn an_upgrade_opens_services_before_it_closes_the_rest() {
    let world = host_with_networks();
    world.add("team-a", "one", json!({}));
    world.round("team-a", "one").await;
    as_before(&world);
    service(&world, "team-a", "one", "web", node_port("web", 8080));
    let reached = |app: &str, port| {
        let policies = world.host.all(&NETWORK_POLICIES);
        connects(&policies, &outside("198.51.100.7"), &labeled("team-a", "one", app), (port, "TCP"))
    };
    let (_, status) = world.round("team-a", "one").await;
    assert!(reached("web", 8080), "still open: what is to stay so is not made yet");
    assert_eq!(applied(&status), ("True".to_owned(), "ServicesUnknown".to_owned()), "and that is no secret");
    let stepped = expose(&world, "team-a", "one").await;
    assert!(stepped.is_news, "a round is due");
    assert!(reached("web", 8080) && reached("other", 1));
    world.round("team-a", "one").await;
    assert!(reached("web", 8080) && !reached("web", 8081) && !reached("other", 1));
    let stepped = expose(&world, "team-a", "one").await;
    assert!(!stepped.is_news);
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_operator_closes_by_itself() {
    let world = host_with_networks();
    world.add("team-a", "one", json!({}));
    world.round("team-a", "one").await;
    as_before(&world);
    let (_context, _running, _trigger) = start(&world);
    pass(10).await;
    let policies = world.host.all(&NETWORK_POLICIES);
    assert!(!connects(&policies, &outside("198.51.100.7"), &labeled("team-a", "one", "web"), WEB));
}

#[tokio::test]
async fn what_somebody_opened_further_is_mended_and_what_is_right_is_not_written() {
    let world = host_with_networks();
    exposing(&world).await;
    let name = "web-x-default-x-one.exposed";
    let before = world.host.find(&NETWORK_POLICIES, "team-a", name).expect("there");
    let owner = world.host.find(&VIRTUAL_CLUSTERS, "team-a", "one").expect("there");
    assert_eq!(before["metadata"]["ownerReferences"][0]["uid"], owner["metadata"]["uid"], "it goes with its cluster");
    let writes = world.host.writes();
    expose(&world, "team-a", "one").await;
    assert_eq!(world.host.writes(), writes, "nothing to mend");
    let changes: [fn(&mut Value); 5] = [
        |policy| policy["spec"]["ingress"][0]["ports"][0]["endPort"] = json!(65_535),
        |policy| policy["spec"]["ingress"][0]["ports"] = json!([]),
        |policy| policy["spec"]["podSelector"]["matchLabels"]["more"] = json!("x"),
        |policy| policy["spec"]["ingress"].as_array_mut().expect("rules").push(json!({})),
        |policy| {
            policy["spec"]["policyTypes"] = json!(["Ingress", "Egress"]);
            policy["spec"]["egress"] = json!([{}]);
        },
    ];
    for change in changes {
        world.host.edit(&NETWORK_POLICIES, "team-a", name, change);
        expose(&world, "team-a", "one").await;
        assert_eq!(world.host.find(&NETWORK_POLICIES, "team-a", name).expect("there")["spec"], before["spec"]);
    }
}

#[tokio::test]
async fn where_services_may_not_be_read_that_is_said() {
    let world = host_with_networks();
    world.add("team-a", "one", json!({}));
    world.host.forbid_kind("ingresses");
    expose(&world, "team-a", "one").await;
    let (_, status) = world.round("team-a", "one").await;
    assert_eq!(applied(&status), ("False".to_owned(), "NoRights".to_owned()));
    let policies = world.host.all(&NETWORK_POLICIES);
    assert!(!connects(&policies, &outside("198.51.100.7"), &of("team-a", "one", "10.244.0.1"), WEB));
}
