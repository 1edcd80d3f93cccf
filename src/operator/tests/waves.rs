//! Waves: never more than a few control planes away because of Portico, none after one that did not come back, and all
//! reached in the end; what the owners do is not held.

mod model;

use std::collections::BTreeSet;

use super::*;
use crate::config::RolloutConfig;
use crate::crd::{RolloutPhase, VirtualClusterStatus};
use crate::operator::halt::Halt;
use crate::operator::rollout::{self, Change};
use crate::operator::waves::{Allowance, allowance};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const NEW: &str = "example.com/control-plane:new";

impl World {
    /// Four ready clusters.
    async fn with_ready_ones() -> Self {
        let world = Self::new();
        for name in NAMES {
            world.add("team-a", name, json!({"storage": {"volumeClaim": {}}}));
            world.round("team-a", name).await;
            world.pod_is_ready("team-a", name);
            let (_, status) = world.round("team-a", name).await;
            assert_eq!(status["phase"], "Ready", "{status}");
            assert_eq!(Self::condition(&status, condition::UP_TO_DATE), is("True", "Current"));
        }
        world
    }

    /// Another operator, some seconds later, with another configuration.
    fn succeed(&mut self, seconds: i64, change: impl Fn(&mut Config)) {
        let image = self.context.config.operator.control_plane_image.clone();
        self.now += jiff::SignedDuration::from_secs(seconds);
        self.context = Self::context(&self.host, self.now);
        let config = Arc::make_mut(&mut self.context.config);
        config.operator.control_plane_image = image;
        change(config);
        for name in NAMES {
            if self.host.find(&VIRTUAL_CLUSTERS, "team-a", name).is_some() {
                self.cluster("team-a", name);
            }
        }
    }

    fn has_new_image(&self, name: &str) -> bool {
        let set = self.host.find(&STATEFUL_SETS, "team-a", name).expect("a StatefulSet");
        set["spec"]["template"]["spec"]["containers"][0]["image"] == NEW
    }

    /// The StatefulSet's pod is gone and not back.
    fn pod_is_away(&self, name: &str) {
        self.host.edit(&STATEFUL_SETS, "team-a", name, |set| set["status"]["readyReplicas"] = 0.into());
    }

    async fn rounds(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for name in NAMES {
            all.push(self.round("team-a", name).await.1);
        }
        all
    }

    fn updated(&self) -> Vec<&'static str> {
        NAMES.into_iter().filter(|name| self.has_new_image(name)).collect()
    }

    fn annotate(&self, name: &str, value: &str) {
        self.host.edit(&VIRTUAL_CLUSTERS, "team-a", name, |object| {
            object["metadata"]["annotations"] = json!({"portico.dev/rollout": value});
        });
    }
}

fn is(value: &str, reason: &str) -> (String, String) {
    (value.to_owned(), reason.to_owned())
}

fn new_image(config: &mut Config) {
    config.operator.control_plane_image = NEW.to_owned();
}

fn up_to_date(status: &Value) -> (String, String) {
    World::condition(status, condition::UP_TO_DATE)
}

/// A restart is a loss there: whoever owns the data says when.
#[tokio::test]
async fn one_with_its_data_in_its_pod_is_never_restarted_unasked() {
    let mut world = World::new();
    world.add("team-a", "a", json!({"storage": {"ephemeral": true}}));
    world.round("team-a", "a").await;
    world.pod_is_ready("team-a", "a");
    world.round("team-a", "a").await;
    world.succeed(60, new_image);
    for _ in 0..3 {
        let (_, status) = world.round("team-a", "a").await;
        assert_eq!(up_to_date(&status), is("False", "WouldLoseData"));
        assert_eq!(status["phase"], "Ready", "it runs on as it is");
    }
    assert!(!world.has_new_image("a"));
    world.annotate("a", "now");
    world.cluster("team-a", "a");
    world.round("team-a", "a").await;
    assert!(world.has_new_image("a"), "its owner said so");
}

#[tokio::test]
async fn a_new_image_reaches_one_after_the_other_and_those_that_wait_stay_ready() {
    let mut world = World::with_ready_ones().await;
    world.succeed(60, new_image);
    for at in 0..NAMES.len() {
        let statuses = world.rounds().await;
        assert_eq!(world.updated(), NAMES[..=at]);
        for (name, status) in NAMES.iter().zip(&statuses).skip(at + 1) {
            assert_eq!(up_to_date(status), is("False", "WaitingForRollout"), "{name}");
            assert_eq!(status["phase"], "Ready", "{name} runs on as it is");
        }
        assert_eq!(up_to_date(&statuses[at]), is("False", "RollingOut"));
        // Neither another round nor another operator gives a place that is taken.
        world.succeed(1, |_| {});
        world.rounds().await;
        assert_eq!(world.updated(), NAMES[..=at]);
        world.pod_is_ready("team-a", NAMES[at]);
        let (_, status) = world.round("team-a", NAMES[at]).await;
        assert_eq!((up_to_date(&status), &status["rollout"]), (is("True", "Current"), &Value::Null));
        // The next is looked at without waiting for its turn in the drift walk.
        let next = world.context.waves.next(&world.context.config.operator.rollout);
        let expected = NAMES.get(at + 1).map(|name| TenantId::parse("team-a", name).expect("id"));
        assert_eq!(next, Vec::from_iter(expected));
    }
    let before = world.host.writes();
    world.rounds().await;
    assert_eq!(world.host.writes(), before);
}

#[tokio::test]
async fn one_that_does_not_come_back_stops_it_for_all_and_says_so() {
    let mut world = World::with_ready_ones().await;
    world.succeed(60, new_image);
    world.rounds().await;
    world.succeed(601, |_| {});
    let statuses = world.rounds().await;
    assert_eq!(world.updated(), ["a"]);
    assert_eq!(up_to_date(&statuses[0]), is("False", "RolloutFailed"));
    for status in &statuses[1..] {
        assert_eq!(up_to_date(status), is("False", "RolloutStopped"));
        let message = status["conditions"].to_string();
        assert!(!message.contains("team-a/a") && !message.contains("\\\"a\\\""), "a neighbour is not named: {message}");
    }
    // Also when it is given back and taken again, whoever operates.
    world.succeed(1, |_| {});
    world.rounds().await;
    assert_eq!(world.updated(), ["a"]);

    // It comes back: on it goes.
    world.pod_is_ready("team-a", "a");
    world.rounds().await;
    assert_eq!(world.updated(), ["a", "b"]);
    // Or a person takes it out.
    world.succeed(601, |_| {});
    world.rounds().await;
    world.annotate("b", "now");
    world.rounds().await;
    assert_eq!(world.updated(), ["a", "b", "c"]);
    // Or it is deleted.
    world.succeed(601, |_| {});
    world.rounds().await;
    world.host.remove(&VIRTUAL_CLUSTERS, "team-a", "c");
    world.context.waves.release(&TenantId::parse("team-a", "c").expect("id"));
    world.round("team-a", "d").await;
    assert!(world.has_new_image("d"));
}

#[tokio::test]
async fn the_earlier_image_mends_what_the_new_one_broke() {
    let mut world = World::with_ready_ones().await;
    let old = world.context.config.operator.control_plane_image.clone();
    world.succeed(60, new_image);
    world.rounds().await;
    world.succeed(601, |_| {});
    world.rounds().await;
    world.succeed(60, |config| config.operator.control_plane_image.clone_from(&old));
    let statuses = world.rounds().await;
    assert_eq!(world.updated(), Vec::<&str>::new(), "the one that failed is given it too");
    assert!(statuses[1..].iter().all(|s| up_to_date(s) == is("True", "Current")), "{statuses:?}");
    world.pod_is_ready("team-a", "a");
    assert_eq!(up_to_date(&world.round("team-a", "a").await.1), is("True", "Current"));
}

#[tokio::test]
async fn what_an_owner_changes_is_not_held() {
    let mut world = World::with_ready_ones().await;
    world.succeed(60, new_image);
    world.round("team-a", "a").await;
    world.round("team-a", "b").await;
    assert_eq!(world.updated(), ["a"]);
    // Another spec, another PKI, and a StatefulSet that is not there.
    world.host.edit(&VIRTUAL_CLUSTERS, "team-a", "b", |object| {
        object["spec"]["resources"] = json!({"requests": {"memory": "1Gi"}});
        object["metadata"]["generation"] = 2.into();
    });
    world.host.remove(&SECRETS, "team-a", "c-pki");
    world.host.remove(&STATEFUL_SETS, "team-a", "d");
    let statuses = world.rounds().await;
    assert_eq!(world.updated(), NAMES);
    assert!(statuses[1..].iter().all(|status| status["rollout"].is_null()), "no place in the wave: {statuses:?}");
}

#[tokio::test]
async fn a_person_pushes_one_on_and_stops_all() {
    let mut world = World::with_ready_ones().await;
    world.succeed(60, |config| {
        new_image(config);
        config.operator.rollout.paused = true;
    });
    let statuses = world.rounds().await;
    assert!(statuses.iter().all(|status| up_to_date(status) == is("False", "RolloutPaused")), "{statuses:?}");
    world.annotate("c", "later");
    world.rounds().await;
    assert_eq!(world.updated(), Vec::<&str>::new());
    world.annotate("c", "now");
    world.rounds().await;
    assert_eq!(world.updated(), ["c"]);
    world.succeed(3600, |config| config.operator.rollout.paused = false);
    world.rounds().await;
    assert_eq!(world.updated(), ["a", "c"], "one that was pushed holds up nobody");
}

/// An owner whose own cluster is broken cannot stop the updates of all others with it.
#[tokio::test]
async fn one_that_was_away_before_stops_nobody() {
    let mut world = World::with_ready_ones().await;
    world.pod_is_away("a");
    world.succeed(60, new_image);
    world.rounds().await;
    world.succeed(601, |_| {});
    let statuses = world.rounds().await;
    assert_eq!(statuses[0]["rollout"], Value::Null);
    world.rounds().await;
    assert_eq!(world.updated(), ["a", "b"]);
}

/// StatefulSets that an earlier Portico made say nothing of how they were rendered.
#[tokio::test]
async fn those_of_an_earlier_portico_are_held_too() {
    let mut world = World::with_ready_ones().await;
    for name in NAMES {
        world.host.edit(&STATEFUL_SETS, "team-a", name, |set| set["metadata"]["annotations"] = json!({}));
    }
    world.succeed(60, new_image);
    world.rounds().await;
    assert_eq!(world.updated(), ["a"]);
}

#[test]
fn how_many_may_be_away() {
    let limits = RolloutConfig::default();
    let of = |all: usize| allowance(std::iter::repeat_n(None, all), &limits);
    for (all, places) in [(1, 1), (9, 1), (19, 1), (20, 2), (50, 5), (10_000, 5)] {
        assert_eq!(of(all), Allowance::More(places), "of {all}");
    }
}
