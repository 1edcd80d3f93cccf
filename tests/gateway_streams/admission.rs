//! The backends' admission rules, followed: what it costs them, and when it is no answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use portico::runtime::clock::Clock;
use serde_json::json;

use crate::rules::{self, ADMISSION, Watching};
use crate::world::{Cluster, World, echoing, websocket};

const VALIDATING: &str = "validatingwebhookconfigurations";
const KINDS: usize = 6;

/// Lists and watches of admission rules that the backend saw, by path.
fn asked(cluster: &Cluster, watches: bool) -> BTreeMap<String, usize> {
    let mut asked = BTreeMap::new();
    for seen in cluster.api.seen() {
        if seen.path.starts_with(ADMISSION) && seen.query.contains("watch=true") == watches {
            *asked.entry(seen.path).or_default() += 1;
        }
    }
    asked
}

async fn world() -> World {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    world.pod(&world.b, "web");
    world
}

async fn passes_now(world: &World, cluster: &Cluster) {
    let (_, head) = world.ask(cluster, "jane", &websocket("web")).await;
    assert_eq!(head.code, 101, "{head:?}");
}

#[tokio::test]
async fn ten_execs_cost_one_list_of_each_kind() {
    let world = world().await;
    futures::future::join_all((0..5).map(|_| passes_now(&world, &world.a))).await;
    for _ in 0..5 {
        passes_now(&world, &world.a).await;
    }
    let lists = asked(&world.a, false);
    assert!(lists.len() == KINDS && lists.values().all(|count| *count == 1), "{lists:?}");
    let watches = asked(&world.a, true);
    assert!(watches.values().all(|count| *count == 1), "{watches:?}");
    assert!(asked(&world.b, false).is_empty() && asked(&world.b, true).is_empty(), "nobody uses streams there");
    world.followed(1).await;
}

#[tokio::test]
async fn a_rule_counts_when_the_watch_has_brought_it_and_until_it_has_taken_it_away() {
    let world = world().await;
    passes_now(&world, &world.a).await;
    for (plural, object, judge) in [
        (VALIDATING, rules::webhook("w", "no.example.com", "pods/exec"), "no.example.com"),
        ("mutatingwebhookconfigurations", rules::webhook("w", "nor.example.com", "*/*"), "nor.example.com"),
    ] {
        world.a.rules.put(plural, &object);
        world.judged_by(&world.a, judge).await;
        passes_now(&world, &world.b).await;
        world.a.rules.remove(plural, &object);
        world.passes(&world.a).await;
    }
    let (policy, binding) = (rules::policy("p", "pods/exec"), rules::binding("b", "p"));
    world.a.rules.put("mutatingadmissionpolicybindings", &binding);
    world.a.rules.put("mutatingadmissionpolicies", &policy);
    world.judged_by(&world.a, "MutatingAdmissionPolicy").await;
    world.a.rules.put("mutatingadmissionpolicies", &rules::policy("p", "pods/attach"));
    world.passes(&world.a).await;
    world.a.rules.put("mutatingadmissionpolicies", &policy);
    world.judged_by(&world.a, "MutatingAdmissionPolicy").await;
    world.a.rules.remove("mutatingadmissionpolicybindings", &binding);
    world.passes(&world.a).await;
    let lists = asked(&world.a, false);
    assert!(lists.values().all(|count| *count == 1), "it came by watches: {lists:?}");
}

/// Whatever the tenant's API server does with watches, a rule that it has is found, and a neighbour notices nothing.
#[tokio::test]
async fn without_watches_no_rule_is_passed() {
    let every = [Watching::Refused, Watching::Silent, Watching::Garbage, Watching::Expired, Watching::Short];
    futures::future::join_all(every.map(|watching| async move {
        let world = world().await;
        passes_now(&world, &world.b).await;
        world.a.rules.watching(watching);
        passes_now(&world, &world.a).await;
        world.a.rules.put(VALIDATING, &rules::webhook("w", "no.example.com", "pods/exec"));
        world.judged_by(&world.a, "no.example.com").await;
        if watching == Watching::Silent {
            let watches = asked(&world.a, true);
            assert!(watches.values().all(|count| *count == 1), "they are still waited for: {watches:?}");
        }
        passes_now(&world, &world.b).await;
    }))
    .await;
}

#[tokio::test]
async fn after_a_watch_that_ended_the_rules_are_listed() {
    for is_orderly in [true, false] {
        let world = world().await;
        passes_now(&world, &world.a).await;
        while asked(&world.a, true).len() < KINDS {
            world.a.api.wait_seen(world.a.api.seen().len() + 1).await;
        }
        world.a.rules.cut(is_orderly);
        world.a.rules.put(VALIDATING, &rules::webhook("w", "no.example.com", "pods/exec"));
        world.judged_by(&world.a, "no.example.com").await;
        assert!(asked(&world.a, false)[&format!("{ADMISSION}v1/{VALIDATING}")] > 1, "orderly: {is_orderly}");
    }
}

/// More than is kept, and lists that never end.
#[tokio::test]
async fn rules_without_end_are_refused_and_the_neighbour_goes_on() {
    let world = world().await;
    world.a.rules.endless("validatingadmissionpolicybindings", rules::binding("o", &"p".repeat(2000)));
    let (code, message) = world.refusal(&world.a, "jane", &websocket("web")).await;
    assert_eq!(code, 403);
    assert!(message.contains("more admission rules"), "{message}");
    assert!(asked(&world.a, false).values().all(|pages| *pages < 10), "{:?}", asked(&world.a, false));
    passes_now(&world, &world.b).await;
    let world = self::world().await;
    world.a.rules.endless(VALIDATING, json!({"metadata": {}, "webhooks": []}));
    let refused = async {
        let (code, _) = world.refusal(&world.a, "jane", &websocket("web")).await;
        assert_eq!(code, 504, "never a stream");
    };
    let neighbour = async {
        for _ in 0..10 {
            passes_now(&world, &world.b).await;
        }
    };
    futures::join!(refused, neighbour);
}

/// Nothing is left of a tenant that has gone, and another generation, which may be elsewhere, begins anew.
#[tokio::test]
async fn following_ends_with_the_tenant_and_begins_anew_with_its_generation() {
    let world = world().await;
    passes_now(&world, &world.b).await;
    world.followed(1).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    passes_now(&world, &world.a).await;
    world.followed(2).await;
    let renewed = world.a.tenant(2, &Clock::system());
    world.registry.put(&Arc::new(renewed));
    world.followed(1).await;
    passes_now(&world, &world.a).await;
    world.followed(2).await;
    let lists = asked(&world.a, false);
    assert!(lists.len() == KINDS && lists.values().all(|count| *count == 2), "{lists:?}");
    let with_both = tasks();
    world.registry.remove(&world.a.id());
    world.followed(1).await;
    assert!(tasks() < with_both);
    world.a.rules.put(VALIDATING, &rules::webhook("w", "no.example.com", "pods/exec"));
    passes_now(&world, &world.b).await;
}
