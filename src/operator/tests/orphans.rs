//! What VirtualClusters leave behind where the host's garbage collector misses that they go. The simulated host has none.

use std::collections::BTreeSet;

use super::following::{pass, start};
use super::*;
use crate::kubernetes::resources::PODS;
use crate::kubernetes::resources::{NETWORK_POLICIES, SERVICE_ACCOUNTS};
use crate::operator::orphans::{KINDS, Living, Swept, sweep};

const TEAM: &str = "team-a";
/// Longer than until a namespace is swept after somebody went, and than the sweep.
const AFTER: u64 = 150;

impl World {
    async fn with(names: &[&str]) -> Self {
        let world = Self::new();
        for name in names {
            world.add(TEAM, name, json!({}));
            world.round(TEAM, name).await;
        }
        world
    }

    /// How many objects the operator has in the namespace for clusters of this name.
    fn left_of(&self, name: &str) -> usize {
        let labelled = |object: &&Value| object["metadata"]["labels"]["portico.dev/control-plane"] == name;
        let own = KINDS.iter().filter(|(_, label)| *label == "portico.dev/control-plane");
        own.map(|(kind, _)| self.host.all(kind).iter().filter(labelled).count()).sum()
    }

    fn goes(&self, name: &str) {
        self.host.remove(&VIRTUAL_CLUSTERS, TEAM, name);
    }

    async fn sweep(&self) -> Result<Swept> {
        sweep(&self.context, TEAM, &KINDS, &Living::default()).await
    }

    /// A Secret as the operator makes it for a cluster of this name and uid.
    fn plant(&self, secret: &str, owner: &str, uid: &str, change: impl FnOnce(&mut Value)) {
        let owner = json!({"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster", "name": owner, "uid": uid,
                           "controller": true});
        let labels = json!({"portico.dev/control-plane": owner["name"]});
        let mut object = json!({"metadata": {"name": secret, "labels": labels, "ownerReferences": [owner]}});
        change(&mut object["metadata"]);
        self.host.put(&SECRETS, TEAM, object);
    }

    fn has(&self, secret: &str) -> bool {
        self.host.find(&SECRETS, TEAM, secret).is_some()
    }

    /// A pod as the syncer makes it.
    fn plant_pod(&self, pod: &str, owner: &str, uid: &str) {
        let owner = json!({"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster", "name": owner, "uid": uid,
                           "controller": true});
        let labels = json!({"portico.dev/cluster": owner["name"], "portico.dev/namespace": "default"});
        let metadata = json!({"name": pod, "labels": labels, "ownerReferences": [owner]});
        self.host.put(&PODS, TEAM, json!({"metadata": metadata}));
    }

    fn uid(&self, name: &str) -> String {
        let found = self.host.find(&VIRTUAL_CLUSTERS, TEAM, name).expect("there");
        found["metadata"]["uid"].as_str().expect("uid").to_owned()
    }
}

#[tokio::test]
async fn all_that_was_made_for_one_that_is_gone_goes_and_its_claim_stays() {
    let world = World::with(&["gone", "stays"]).await;
    let stays = world.left_of("stays");
    for (kind, name) in [(&SECRETS, "gone-pki"), (&STATEFUL_SETS, "gone"), (&SERVICE_ACCOUNTS, "vc-gone")] {
        assert!(world.host.find(kind, TEAM, name).is_some(), "{name}");
    }
    assert!(!world.host.all(&NETWORK_POLICIES).is_empty());
    let claim = json!({"metadata": {"name": "data-gone-0", "labels": {"portico.dev/control-plane": "gone"}}});
    world.host.put(&CLAIMS, TEAM, claim);
    world.goes("gone");
    let made = world.left_of("gone");
    assert_eq!(world.sweep().await.expect("swept").deleted, made);
    assert_eq!((world.left_of("gone"), world.left_of("stays")), (0, stays));
    assert!(world.host.find(&CLAIMS, TEAM, "data-gone-0").is_some());
}

#[tokio::test]
async fn copies_for_a_tenant_that_is_gone_go_and_those_of_the_living_are_not_even_read() {
    let world = World::with(&["dev", "stays"]).await;
    let (before, stays) = (world.uid("dev"), world.uid("stays"));
    world.goes("dev");
    world.add(TEAM, "dev", json!({}));
    world.plant_pod("of-the-earlier", "dev", &before);
    world.plant_pod("of-the-successor", "dev", &world.uid("dev"));
    world.plant_pod("of-another", "stays", &stays);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let living = |all: &[&str]| Living { names: names(all), ..Living::default() };
    let is_there = |pod: &str| world.host.find(&PODS, TEAM, pod).is_some();
    // Where it is not known that one of the name went, its copies are not read.
    let pods = [(&PODS, "portico.dev/cluster")];
    sweep(&world.context, TEAM, &pods, &living(&["dev", "stays"])).await.expect("swept");
    assert!(is_there("of-the-earlier"));
    let swept = sweep(&world.context, TEAM, &pods, &living(&["stays"])).await.expect("swept");
    assert_eq!(swept.deleted, 1);
    assert!(!is_there("of-the-earlier") && is_there("of-the-successor") && is_there("of-another"));
    let asked = world.host.0.lists().last().cloned().expect("asked");
    assert_eq!(asked.1, "portico.dev/cluster,portico.dev/cluster!=stays");
    // More names than a selector holds: all copies are read then, and judged one by one.
    let many: Vec<String> = (0..65).map(|n| format!("lives-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (names, terms) in [(&many[..64], 64), (&many[..], 0)] {
        sweep(&world.context, TEAM, &pods, &living(names)).await.expect("swept");
        let asked = world.host.0.lists().last().cloned().expect("asked");
        assert_eq!(asked.1.matches("!=").count(), terms, "{}", names.len());
    }
    assert!(is_there("of-the-successor") && is_there("of-another"));
}

#[tokio::test(start_paused = true)]
async fn the_operator_collects_copies_of_one_whose_namesake_lives() {
    let world = World::with(&["dev"]).await;
    let before = world.uid("dev");
    let (_context, _running, _trigger) = start(&world);
    pass(5).await;
    world.plant_pod("of-the-earlier", "dev", &before);
    world.goes("dev");
    pass(5).await;
    world.add(TEAM, "dev", json!({}));
    pass(AFTER).await;
    assert!(world.host.find(&PODS, TEAM, "of-the-earlier").is_none());
}

#[tokio::test]
async fn what_is_anybody_elses_in_any_way_stays() {
    let world = World::with(&["lives"]).await;
    let uid = world.uid("lives");
    world.plant("orphan", "gone", "g", |_| {});
    world.plant("of-the-living", "lives", &uid, |_| {});
    world.plant("of-two", "gone", "g", |of| {
        let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"});
        of["ownerReferences"].as_array_mut().expect("owners").push(other);
    });
    world.plant("not-controlled", "gone", "g", |of| of["ownerReferences"][0]["controller"] = json!(false));
    world.plant("of-another-kind", "gone", "g", |of| of["ownerReferences"][0]["kind"] = json!("Deployment"));
    world.plant("of-another-group", "gone", "g", |of| {
        of["ownerReferences"][0]["apiVersion"] = json!("example.com/v1alpha1");
    });
    world.plant("of-another-name", "gone", "g", |of| of["labels"]["portico.dev/control-plane"] = json!("lives"));
    world.plant("without-label", "gone", "g", |of| of["labels"] = json!({"app": "x"}));
    world.plant("of-no-name", "../lives", "g", |_| {});
    world.plant("goes-already", "gone", "g", |of| of["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    world.plant("restored", "gone", "g", |of| of["managedFields"] = json!([{"manager": "velero-server"}]));
    let before = world.host.all(&SECRETS).len();
    assert_eq!(world.sweep().await.expect("swept").deleted, 1);
    assert!(!world.has("orphan"));
    assert_eq!(world.host.all(&SECRETS).len(), before - 1);
}

#[tokio::test]
async fn nothing_goes_unless_the_host_says_that_its_owner_does_not_exist() {
    let world = World::with(&["dev"]).await;
    let made = world.left_of("dev");
    // Whom the caller knows to live is one thing, what the host says another.
    assert_eq!(world.sweep().await.expect("swept").deleted, 0);
    world.host.0.serves("v1alpha1", "virtualclusters", false);
    assert!(world.sweep().await.is_err(), "it is 404 for who is there, too");
    assert_eq!(world.left_of("dev"), made);
    world.goes("dev");
    world.host.0.down(true);
    assert!(world.sweep().await.is_err());
    world.host.0.down(false);
    assert_eq!(world.left_of("dev"), made);
    world.host.0.serves("v1alpha1", "virtualclusters", true);
    assert_eq!(world.sweep().await.expect("swept").deleted, made);
}

#[tokio::test]
async fn what_a_namesake_left_makes_room_for_its_successor() {
    let world = World::with(&["dev"]).await;
    let made = world.left_of("dev");
    world.goes("dev");
    world.add(TEAM, "dev", json!({}));
    let (_, status) = world.round(TEAM, "dev").await;
    assert!(status["message"].as_str().is_some_and(|m| m.contains("earlier virtual cluster")), "{status}");
    assert_eq!(world.sweep().await.expect("swept").deleted, made);
    world.round(TEAM, "dev").await;
    assert_eq!(world.left_of("dev"), made, "its own");
    assert_eq!(world.sweep().await.expect("swept").deleted, 0);
}

/// Somebody with rights in a namespace fills it with what looks like the operator's, of owners who never were.
#[tokio::test]
async fn a_flood_of_made_up_owners_costs_a_bounded_number_of_questions_and_hides_nothing() {
    let world = World::with(&["gone"]).await;
    for n in 0..300 {
        world.plant(&format!("a-{n}"), &format!("made-up-{n}"), "u", |_| {});
    }
    world.goes("gone");
    let mut sweeps = 0;
    while world.left_of("gone") > 0 {
        let before = world.host.0.counts();
        let swept = world.sweep().await.expect("swept");
        let now = world.host.0.counts();
        assert!(swept.deleted > 0 && swept.deleted <= 100, "{swept:?}");
        assert!(now.gets - before.gets <= 32 && now.pages - before.pages <= 32 + 13 * 8, "{now:?} after {before:?}");
        sweeps += 1;
    }
    assert!(sweeps > 1);
}

#[tokio::test(start_paused = true)]
async fn the_operator_collects_after_one_that_went_while_the_host_was_away() {
    let world = World::with(&["gone", "stays"]).await;
    let (_context, _running, _trigger) = start(&world);
    pass(5).await;
    let stays = world.left_of("stays");
    world.host.0.down(true);
    world.goes("gone");
    pass(60).await;
    world.host.0.down(false);
    pass(30).await;
    assert!(world.left_of("gone") > 0, "the host's garbage collector comes first");
    pass(AFTER).await;
    assert_eq!((world.left_of("gone"), world.left_of("stays")), (0, stays));
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_collects_after_one_that_went_unseen_alone_in_its_namespace() {
    let world = World::with(&["gone"]).await;
    world.goes("gone");
    let (_context, _running, _trigger) = start(&world);
    pass(AFTER).await;
    assert_eq!(world.left_of("gone"), 0, "its Services in Portico's namespace tell where it was");
}

#[tokio::test(start_paused = true)]
async fn where_others_live_it_is_looked_for_now_and_then_and_that_costs_little() {
    let world = World::with(&["lives"]).await;
    world.add("team-b", "lives", json!({}));
    world.round("team-b", "lives").await;
    for namespace in [TEAM, "team-b"] {
        world.pod_is_ready(namespace, "lives");
    }
    let (_context, _running, _trigger) = start(&world);
    pass(AFTER).await;
    world.plant("orphan", "gone", "g", |_| {});
    let is_sweep = |labels: &str| labels == "portico.dev/control-plane" || labels.starts_with("portico.dev/cluster,");
    let lists = || world.host.0.lists().iter().filter(|(_, labels)| is_sweep(labels)).count();
    let before = lists();
    pass(3 * 3600).await;
    assert!(!world.has("orphan"));
    // Each of two namespaces in ten minutes, give or take; and once all kinds of one.
    let lists = lists() - before;
    assert!((13..=13 + 3 * 2 * 8).contains(&lists), "{lists} lists in three hours");
}

#[tokio::test]
async fn where_there_are_no_rights_there_is_nothing_to_do() {
    let world = World::with(&["gone"]).await;
    world.goes("gone");
    world.host.forbid(TEAM);
    let swept = world.sweep().await.expect("no reason to come again");
    assert!(swept.deleted == 0 && !swept.is_cut && world.left_of("gone") > 0, "{swept:?}");
}
