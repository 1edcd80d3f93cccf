//! NetworkPolicies: who reaches whom with several clusters on one host, and what becomes of policies that somebody changed,
//! that are not wanted, or that Portico may not make.

mod exposed;
mod families;
mod model;

use super::*;
use crate::kubernetes::resources::{ENDPOINT_SLICES, NETWORK_POLICIES, NODES};
use model::{End, connects};

const API: model::Port = (6443, "TCP");
const WEB: model::Port = (8080, "TCP");

fn host_with_networks() -> World {
    let world = World::new();
    for (name, networks) in [("n1", json!(["10.244.0.0/24", "fd00:1::/64"])), ("n2", json!(["10.244.1.0/24"]))] {
        world.host.put(&NODES, "", json!({"metadata": {"name": name}, "spec": {"podCIDRs": networks}}));
    }
    let endpoints = json!([{"addresses": ["192.0.2.10"]}]);
    world.host.put(&ENDPOINT_SLICES, "default", json!({"metadata": {"name": "kubernetes"}, "endpoints": endpoints}));
    world
}

fn set(world: &mut World, change: impl Fn(&mut Config)) {
    world.context = World::context(&world.host, world.now);
    change(Arc::make_mut(&mut world.context.config));
}

fn networks(text: &str) -> crate::config::NetworksConfig {
    Config::parse(&format!("networks: {text}")).expect("valid").networks
}

fn pod(namespace: &'static str, labels: Value, address: &'static str) -> End {
    End { pod: Some((namespace, labels)), address, ports: &[] }
}

/// A pod of a tenant, as the syncer labels it; the tenant added what it likes.
fn of(namespace: &'static str, cluster: &str, address: &'static str) -> End {
    let labels = json!({"portico.dev/cluster": cluster, "portico.dev/namespace": "default", "app": "web"});
    pod(namespace, labels, address)
}

fn control_plane_of(namespace: &'static str, cluster: &str, address: &'static str) -> End {
    pod(namespace, json!({"portico.dev/control-plane": cluster}), address)
}

fn portico(component: &str) -> End {
    pod(SYSTEM, json!({"portico.dev/component": component}), "10.244.0.99")
}

fn outside(address: &'static str) -> End {
    End { pod: None, address, ports: &[] }
}

/// `(namespace, cluster)` of three clusters, two of them in one namespace, each with a pod and a control plane.
async fn three(world: &World) -> Vec<(End, End)> {
    let names = [("team-a", "one"), ("team-a", "two"), ("team-b", "one")];
    let addresses = [("10.244.0.1", "10.244.1.1"), ("10.244.0.2", "10.244.1.2"), ("10.244.0.3", "10.244.1.3")];
    let mut all = Vec::new();
    for ((namespace, name), (of_pod, of_plane)) in names.into_iter().zip(addresses) {
        world.add(namespace, name, json!({}));
        world.round(namespace, name).await;
        all.push((of(namespace, name, of_pod), control_plane_of(namespace, name, of_plane)));
    }
    all
}

#[tokio::test]
async fn tenants_are_apart_in_two_namespaces_and_in_one() {
    let world = host_with_networks();
    let all = three(&world).await;
    let policies = world.host.all(&NETWORK_POLICIES);
    assert_eq!(policies.len(), 6);
    let reaches = |from: &End, to: &End, port| connects(&policies, from, to, port);
    for (at, (own, plane)) in all.iter().enumerate() {
        for (other_at, (other, other_plane)) in all.iter().enumerate() {
            let same = at == other_at;
            assert_eq!(reaches(own, other, WEB), same, "pods {at} to {other_at}");
            assert_eq!(reaches(plane, other, WEB), same, "control plane {at} to pods {other_at}");
            assert_eq!(reaches(plane, other_plane, API), same, "control planes {at} to {other_at}");
            assert!(!reaches(own, other_plane, API), "pods reach no control plane but through Portico");
            assert!(!reaches(plane, other_plane, WEB), "a control plane serves its API only");
        }
        let (gateway, control) = (portico("portico"), portico("portico-control"));
        for own_ports in [(8443, "TCP"), (20_000, "TCP"), (23_999, "UDP")] {
            assert!(reaches(own, &gateway, own_ports) && reaches(plane, &gateway, own_ports), "{own_ports:?}");
        }
        for others in [(9090, "TCP"), (9091, "TCP"), (8443, "UDP"), (24_000, "TCP")] {
            assert!(!reaches(own, &gateway, others) && !reaches(plane, &gateway, others), "{others:?}");
        }
        assert!(!reaches(own, &control, (8443, "TCP")), "it serves no tenant");
        for from in [&gateway, &control] {
            assert!(reaches(from, plane, API) && reaches(from, own, WEB) && !reaches(from, plane, (2379, "TCP")));
            assert!(reaches(from, plane, (6441, "TCP")) && !reaches(from, plane, (6442, "TCP")), "what is probed");
        }
        let impostor = pod("team-c", json!({"portico.dev/component": "portico"}), "10.244.0.50");
        assert!(!reaches(&impostor, own, WEB) && !reaches(&impostor, plane, API), "another namespace");
        let unlabeled = pod("team-a", json!({"app": "web"}), "10.244.0.51");
        assert!(!reaches(&unlabeled, own, WEB) && !reaches(own, &unlabeled, WEB), "an admin's pod in the namespace");
    }
}

#[tokio::test]
async fn the_outside_is_open_but_for_what_is_closed() {
    let world = host_with_networks();
    let all = three(&world).await;
    let policies = world.host.all(&NETWORK_POLICIES);
    for (own, plane) in &all {
        for open in ["198.51.100.7", "10.0.0.5", "2001:db8::1", "192.0.2.11"] {
            assert!(connects(&policies, own, &outside(open), WEB), "{open}");
            assert!(connects(&policies, plane, &outside(open), WEB), "a database or a webhook: {open}");
            assert!(!connects(&policies, &outside(open), own, WEB), "no Service of theirs says so: {open}");
            assert!(!connects(&policies, &outside(open), plane, API), "{open}");
        }
        for closed in ["169.254.169.254", "fe80::1", "fd00:ec2::254", "192.0.2.10", "10.244.1.77", "fd00:1::77"] {
            assert!(!connects(&policies, own, &outside(closed), WEB), "{closed}");
            assert!(!connects(&policies, plane, &outside(closed), WEB), "{closed}");
        }
        let dns = pod("kube-system", json!({"k8s-app": "kube-dns"}), "10.244.0.60");
        assert!(connects(&policies, plane, &dns, (53, "UDP")), "it finds its database by name");
        assert!(!connects(&policies, own, &dns, (53, "UDP")), "tenants' DNS is Portico");
    }
}

#[tokio::test]
async fn an_admin_opens_and_closes() {
    let mut world = host_with_networks();
    set(&mut world, |config| {
        config.networks = networks(
            "{reachableFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress}}}], \
              externalIngress: [198.51.100.0/24], closed: [203.0.113.0/24], podNetworks: [10.9.0.0/16], \
              reaches: [{to: [{ipBlock: {cidr: 192.0.2.10/32}}], ports: [{port: 443}]}], \
              controlPlaneReaches: [{to: [{ipBlock: {cidr: 203.0.113.5/32}}], ports: [{port: 5432}]}]}",
        );
    });
    let all = three(&world).await;
    let policies = world.host.all(&NETWORK_POLICIES);
    let (own, plane) = &all[0];
    let reaches = |from: &End, to: &End, port| connects(&policies, from, to, port);
    assert!(!reaches(&pod("ingress", json!({}), "10.9.0.1"), own, WEB), "behind no Service for the outside");
    assert!(!reaches(&pod("ingress", json!({}), "10.9.0.1"), plane, API), "control planes are Portico's alone");
    assert!(reaches(own, &outside("192.0.2.10"), (443, "TCP")) && !reaches(own, &outside("192.0.2.10"), WEB));
    assert!(reaches(plane, &outside("203.0.113.5"), (5432, "TCP")));
    assert!(!reaches(own, &outside("203.0.113.5"), (5432, "TCP")), "its control plane's database");
    assert!(!reaches(own, &outside("10.9.3.3"), WEB), "the configuration's pods");
    assert!(reaches(own, &outside("169.254.169.254"), WEB), "a list replaces its default");
}

#[tokio::test]
async fn where_nobody_knows_the_pods_addresses_private_ones_are_closed_and_it_is_said() {
    let world = World::new();
    let all = three(&world).await;
    let policies = world.host.all(&NETWORK_POLICIES);
    assert!(!connects(&policies, &all[0].0, &outside("10.1.2.3"), WEB));
    assert!(connects(&policies, &all[0].0, &outside("198.51.100.7"), WEB));
    let (_, status) = world.round("team-a", "one").await;
    assert_eq!(applied(&status), ("True".to_owned(), "PodNetworksUnknown".to_owned()));
}

#[tokio::test]
async fn what_somebody_changed_is_mended_and_what_is_right_is_not_written() {
    let world = host_with_networks();
    three(&world).await;
    exposed::expose(&world, "team-a", "one").await;
    let (_, status) = world.round("team-a", "one").await;
    assert_eq!(applied(&status), ("True".to_owned(), "Applied".to_owned()));
    let before = world.host.find(&NETWORK_POLICIES, "team-a", "one-pods").expect("there");
    let owner = &before["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["name"]), (&json!("VirtualCluster"), &json!("one")));
    let writes = world.host.writes();
    world.round("team-a", "one").await;
    assert_eq!(world.host.writes(), writes, "nothing to mend");
    world.host.edit(&NETWORK_POLICIES, "team-a", "one-pods", |policy| {
        policy["spec"]["ingress"][0]["from"].as_array_mut().expect("peers").push(json!({"namespaceSelector": {}}));
    });
    world.host.remove(&NETWORK_POLICIES, "team-a", "one-control-plane");
    world.round("team-a", "one").await;
    let after = world.host.find(&NETWORK_POLICIES, "team-a", "one-pods").expect("there");
    assert_eq!(after["spec"], before["spec"]);
    assert!(world.host.find(&NETWORK_POLICIES, "team-a", "one-control-plane").is_some());
    for (name, change) in WIDER {
        let before = world.host.find(&NETWORK_POLICIES, "team-a", name).expect("there");
        world.host.edit(&NETWORK_POLICIES, "team-a", name, change);
        world.round("team-a", "one").await;
        assert_eq!(world.host.find(&NETWORK_POLICIES, "team-a", name).expect("there")["spec"], before["spec"]);
    }
}

type Change = fn(&mut Value);

/// What adds to a policy and takes nothing from it.
const WIDER: [(&str, Change); 3] = [
    ("one-control-plane", |policy| policy["spec"]["ingress"][0]["ports"][0]["endPort"] = json!(65_535)),
    ("one-pods", |policy| policy["spec"]["ingress"][0]["from"][0]["namespaceSelector"] = json!({})),
    ("one-pods", |policy| policy["spec"]["egress"][1]["to"][0]["podSelector"] = json!({})),
];

#[tokio::test]
async fn disabled_policies_go_and_those_of_others_stay() {
    let mut world = host_with_networks();
    three(&world).await;
    world.host.put(&NETWORK_POLICIES, "team-a", json!({"metadata": {"name": "theirs"}, "spec": {"podSelector": {}}}));
    set(&mut world, |config| config.networks.enabled = false);
    for (namespace, name) in [("team-a", "one"), ("team-b", "one")] {
        let (_, status) = world.round(namespace, name).await;
        assert_eq!(applied(&status), ("False".to_owned(), "Disabled".to_owned()));
    }
    let mut left: Vec<_> = world.host.all(&NETWORK_POLICIES).iter().map(|p| p["metadata"]["name"].clone()).collect();
    left.sort_by_key(Value::to_string);
    assert_eq!(left, ["theirs", "two-control-plane", "two-pods"], "a cluster without a round keeps its own");
}

#[tokio::test]
async fn without_the_right_the_cluster_is_made_all_the_same_and_a_condition_says_it() {
    let world = host_with_networks();
    world.host.forbid_kind("networkpolicies");
    world.add("team-a", "dev", json!({}));
    world.round("team-a", "dev").await;
    world.pod_is_ready("team-a", "dev");
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(status["phase"], "Ready", "{status}");
    assert_eq!(applied(&status), ("False".to_owned(), "NoRights".to_owned()));
}

#[tokio::test]
async fn a_policy_of_that_name_that_is_somebody_elses_stays_and_is_said() {
    let world = host_with_networks();
    world.host.put(&NETWORK_POLICIES, "team-a", json!({"metadata": {"name": "dev-pods"}, "spec": {"podSelector": {}}}));
    world.add("team-a", "dev", json!({}));
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(applied(&status), ("False".to_owned(), "NameTaken".to_owned()));
    let theirs = world.host.find(&NETWORK_POLICIES, "team-a", "dev-pods").expect("there");
    assert_eq!(theirs["spec"], json!({"podSelector": {}}));
}

#[tokio::test]
async fn an_unreadable_api_server_address_is_said() {
    let world = host_with_networks();
    world.host.forbid_kind("endpointslices");
    world.add("team-a", "dev", json!({}));
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(applied(&status), ("True".to_owned(), "ApiServerUnknown".to_owned()));
}

/// A cluster that is ready, a while after its policies were made, with a control plane whose pod is ready.
async fn probed(open: &[u16]) -> (World, Arc<Answers>, Value) {
    let mut world = host_with_networks();
    world.add("team-a", "dev", json!({}));
    world.round("team-a", "dev").await;
    world.pod_is_ready("team-a", "dev");
    let labels = json!({"portico.dev/control-plane": "dev"});
    let ready = json!({"podIP": "10.244.0.7", "conditions": [{"type": "Ready", "status": "True"}]});
    world.host.put(&PODS, "team-a", json!({"metadata": {"name": "dev-0", "labels": labels}, "status": ready}));
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(status["phase"], "Ready", "{status}");
    assert_eq!(enforced(&status), ("Unknown".to_owned(), "NotYet".to_owned()), "plugins need a moment");
    world.now += jiff::SignedDuration::from_secs(60);
    let answers = Arc::new(Answers::default());
    *answers.open.lock() = open.to_vec();
    set(&mut world, |_| {});
    world.context.backends = Arc::clone(&answers) as Arc<dyn backends::Backends>;
    let (_, status) = world.round("team-a", "dev").await;
    (world, answers, status)
}

#[tokio::test]
async fn whether_policies_hold_is_tried_and_said() {
    for (open, value, reason) in [
        (&[6441_u16][..], "True", "Probed"),
        (&[6441, 6442], "False", "NotEnforced"),
        (&[], "Unknown", "NotProbed"),
        (&[6442], "Unknown", "NotProbed"),
    ] {
        let (world, answers, status) = probed(open).await;
        assert_eq!(enforced(&status), (value.to_owned(), reason.to_owned()), "{open:?}");
        assert_eq!(status["phase"], "Ready", "{status}");
        let tried = answers.tried.lock().len();
        world.round("team-a", "dev").await;
        assert_eq!(answers.tried.lock().len(), tried, "a verdict is good for a while");
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_the_namespaces_and_grows_old() {
    let (world, answers, _) = probed(&[6441, 6442]).await;
    world.add("team-a", "other", json!({"distro": "k3s"}));
    world.round("team-a", "other").await;
    world.pod_is_ready("team-a", "other");
    world.round("team-a", "other").await;
    assert_eq!(answers.tried.lock().len(), 2);
    *answers.open.lock() = vec![6441];
    tokio::time::advance(Duration::from_secs(601)).await;
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(enforced(&status), ("True".to_owned(), "Probed".to_owned()), "somebody installed a plugin");
}

#[tokio::test]
async fn what_is_not_there_is_not_tried() {
    let (mut world, answers, _) = probed(&[6441]).await;
    set(&mut world, |config| config.networks.enabled = false);
    world.context.backends = Arc::clone(&answers) as Arc<dyn backends::Backends>;
    let tried = answers.tried.lock().len();
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(enforced(&status), ("Unknown".to_owned(), "NoPolicies".to_owned()));
    assert_eq!(answers.tried.lock().len(), tried);
}

fn enforced(status: &Value) -> (String, String) {
    World::condition(status, condition::POLICIES_ENFORCED)
}

fn applied(status: &Value) -> (String, String) {
    World::condition(status, condition::NETWORK_POLICIES)
}
