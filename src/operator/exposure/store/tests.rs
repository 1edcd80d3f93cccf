//! Two virtual clusters in one namespace, one of which makes more than it may.

use super::super::project::{self, Backend};
use super::*;
use crate::config::Protocol;
use serde_json::{Value, json};

fn store() -> (Store, Arc<News>) {
    let news = Arc::new(News::default());
    (Store::new("team-a", &news), news)
}

fn listed(store: &Store) {
    let (services, ingresses) = (store.begin::<Service>(), store.begin::<Backends>());
    store.end::<Service>(services);
    store.end::<Backends>(ingresses);
}

fn metadata(name: &str, cluster: &str) -> Value {
    json!({"name": name, "labels": {"portico.dev/cluster": cluster}, "ownerReferences": [
        {"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster", "name": cluster, "uid": format!("uid-{cluster}")}]})
}

fn service(name: &str, cluster: &str, kind: &str, ports: &[u16]) -> Read<Service> {
    let ports: Vec<Value> = ports.iter().map(|port| json!({"port": port, "targetPort": port + 1000})).collect();
    let spec = json!({"type": kind, "selector": {"app": name}, "ports": ports});
    project::service(json!({"metadata": metadata(name, cluster), "spec": spec}).to_string().as_bytes()).expect("reads")
}

fn ingress(name: &str, cluster: &str, service: &str, port: u16) -> Read<Backends> {
    let backend = Backend { service: service.into(), port: Target::Number(port) };
    let owner = Owner { cluster: cluster.into(), uid: format!("uid-{cluster}").into() };
    Read { name: name.into(), version: String::new(), owner: Some(owner), value: Some(Backends::from([backend])) }
}

fn names(store: &Store, cluster: &str) -> Vec<String> {
    let openings = store.openings(&format!("uid-{cluster}")).expect("known");
    openings.all.into_iter().map(|opening| opening.service).collect()
}

fn told(news: &News) -> BTreeSet<(String, Option<String>)> {
    std::mem::take(&mut *news.changed.lock())
}

#[test]
fn nothing_is_said_before_both_lists_are_whole() {
    let (store, news) = store();
    let listing = store.begin::<Service>();
    store.put(listing, service("web", "one", "NodePort", &[80]));
    store.end::<Service>(listing);
    assert_eq!(store.openings("uid-one"), None);
    let listing = store.begin::<Backends>();
    store.end::<Backends>(listing);
    assert_eq!(names(&store, "one"), ["web"]);
    assert!(names(&store, "two").is_empty(), "and a cluster without any has none");
    assert!(told(&news).contains(&("team-a".to_owned(), None)), "all of the namespace are looked at");
}

#[test]
fn a_refusal_is_over_with_the_next_whole_list() {
    let (store, news) = store();
    let again = || {
        listed(&store);
        told(&news).contains(&("team-a".to_owned(), None))
    };
    let refused = || {
        store.refused::<Service>();
        (store.is_refused(), told(&news).contains(&("team-a".to_owned(), None)))
    };
    for when in ["before the first list", "after it"] {
        assert_eq!(refused(), (true, true), "{when}");
        assert_eq!(refused(), (true, false), "{when}: that is no news");
        assert!(again(), "{when}: all of the namespace are looked at");
        assert!(!store.is_refused(), "{when}");
        assert!(!again(), "{when}: nothing has changed");
    }
}

#[test]
fn types_open_all_ports_and_ingresses_those_that_they_name() {
    let (store, _) = store();
    listed(&store);
    store.put(1, service("inside", "one", "ClusterIP", &[80, 81]));
    store.put(1, service("node", "one", "NodePort", &[80, 81]));
    store.put(1, service("balanced", "one", "LoadBalancer", &[80]));
    store.put(1, service("theirs", "two", "ClusterIP", &[80]));
    assert_eq!(names(&store, "one"), ["balanced", "node"]);
    store.put(1, ingress("i", "one", "inside", 81));
    store.put(1, ingress("j", "one", "theirs", 80));
    assert_eq!(names(&store, "one"), ["balanced", "node", "inside"]);
    assert!(names(&store, "two").is_empty(), "no Ingress opens what is another cluster's");
    let all = store.openings("uid-one").expect("known").all;
    let ports = |at: usize| all[at].ports.iter().map(|port| port.target.clone()).collect::<Vec<_>>();
    assert_eq!(ports(2), [Target::Number(1081)], "only the port that the Ingress names");
    assert_eq!(ports(1), [Target::Number(1080), Target::Number(1081)]);
    assert!(all[1].ports.iter().all(|port| port.protocol == Protocol::Tcp));
    store.remove::<Backends>("i");
    assert_eq!(names(&store, "one"), ["balanced", "node"]);
}

#[test]
fn what_a_list_does_not_show_is_gone_and_whom_it_concerns_is_told() {
    let (store, news) = store();
    listed(&store);
    store.put(1, service("web", "one", "NodePort", &[80]));
    store.put(1, service("other", "two", "NodePort", &[80]));
    told(&news);
    let listing = store.begin::<Service>();
    store.put(listing, service("other", "two", "NodePort", &[80]));
    assert_eq!(names(&store, "one"), ["web"], "a list that is not whole takes nothing");
    store.end::<Service>(listing);
    assert!(names(&store, "one").is_empty());
    assert_eq!(names(&store, "two"), ["other"]);
    assert_eq!(told(&news), BTreeSet::from([("team-a".to_owned(), Some("one".to_owned()))]), "nobody else");
    store.put(listing, service("other", "one", "NodePort", &[80]));
    assert_eq!(told(&news).len(), 2, "one gained what the other lost");
    let mut bare = service("other", "one", "NodePort", &[80]);
    bare.value = None;
    store.put(listing, bare);
    assert!(names(&store, "one").is_empty(), "it lost its selector");
}

#[test]
fn one_that_makes_too_much_takes_nothing_from_the_other() {
    let (store, _) = store();
    listed(&store);
    store.put(1, service("theirs", "two", "NodePort", &[80]));
    let many: Vec<u16> = (1..=100).collect();
    for number in 0..800 {
        store.put(1, service(&format!("big-{number}"), "one", "ClusterIP", &many));
    }
    assert!(store.state.lock().weights.values().all(|weight| *weight <= MOST_BYTES));
    assert!(store.has_cut::<Service>());
    assert!(store.openings("uid-one").expect("known").left_out > 0);
    let theirs = store.openings("uid-two").expect("known");
    assert_eq!((theirs.all.len(), theirs.left_out), (1, 0));
    for number in 0..800 {
        store.remove::<Service>(&format!("big-{number}"));
    }
    store.remove::<Service>("theirs");
    assert!(store.state.lock().weights.is_empty(), "everything that was counted is counted off");
}

#[test]
fn services_and_ports_are_bounded_and_the_same_ones_are_left_out_whatever_came_first() {
    let (store, _) = store();
    listed(&store);
    let many: Vec<u16> = (1..=100).collect();
    let fits = MOST_PORTS / 100;
    let all: Vec<String> = (0..fits + 3).map(|number| format!("s-{number:03}")).collect();
    for name in all.iter().rev() {
        store.put(1, service(name, "one", "NodePort", &many));
    }
    let openings = store.openings("uid-one").expect("known");
    assert_eq!(openings.left_out, 3);
    let names: Vec<&String> = openings.all.iter().map(|opening| &opening.service).collect();
    assert_eq!(names, all[..fits].iter().collect::<Vec<_>>());
    store.put(1, service("s-000", "one", "NodePort", &(1..=101).collect::<Vec<u16>>()));
    assert_eq!(store.openings("uid-one").expect("known").left_out, 3, "too many of its own: there is room for another");
    store.put(1, service("s-000", "one", "ClusterIP", &(1..=101).collect::<Vec<u16>>()));
    assert_eq!(store.openings("uid-one").expect("known").left_out, 2, "it is not for the outside");
    store.put(1, ingress("i", "one", "s-000", 7));
    for number in 1..=3 {
        store.remove::<Service>(&format!("s-{number:03}"));
    }
    let openings = store.openings("uid-one").expect("known");
    assert_eq!(
        (openings.left_out, openings.all.last().expect("some").ports.len()),
        (0, 1),
        "the one that an Ingress names"
    );
    for number in 0..MOST_SERVICES + 7 {
        store.remove::<Service>(&format!("s-{number:03}"));
        store.put(1, service(&format!("t-{number:03}"), "one", "NodePort", &[80]));
    }
    let openings = store.openings("uid-one").expect("known");
    assert_eq!((openings.all.len(), openings.left_out), (MOST_SERVICES, 7));
}
