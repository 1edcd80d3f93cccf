//! The rules of a simulated API server, followed.

use serde_json::{Value, json};

use super::*;
use crate::error::Side;
use crate::gateway::buffer::Budget;
use crate::kubernetes::testing::{Faults, Link, Server};
use crate::runtime::task::{self, Task};

const VALIDATING: &str = "validatingwebhookconfigurations";
const MOMENT: Duration = Duration::from_secs(1);

struct World {
    server: Server,
    known: watch::Receiver<Known>,
    _task: Task,
}

fn rule() -> Value {
    json!({"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]})
}

fn webhook(name: &str) -> Value {
    json!({"metadata": {"name": name}, "webhooks": [{"name": name, "rules": [rule()]}]})
}

fn judged_by(name: &str) -> Verdict {
    Verdict::Judge(format!("the admission webhook \"{name}\""))
}

impl World {
    fn new() -> Self {
        Self::of(Server::new("tenant", Side::Backend, Faults::none()), 128 << 20)
    }

    fn of(server: Server, budget: usize) -> Self {
        let buffers = Share::of(Arc::new(Budget::new(budget)), Arc::default());
        let clock = Clock::seeded("2026-01-01T00:00:00Z".parse().expect("time"), 1);
        let (following, known) =
            Following::new(Arc::new(server.clone()), "team/t".to_owned(), Arc::default(), buffers, clock);
        Self { server, known, _task: task::spawn("test", following.run()) }
    }

    /// After some time.
    async fn after(&self, time: Duration) -> Verdict {
        tokio::time::sleep(time).await;
        self.known.borrow().verdict("exec", tokio::time::Instant::now())
    }
}

#[tokio::test(start_paused = true)]
async fn each_kind_is_listed_once_and_what_changes_is_told() {
    let world = World::new();
    assert_eq!(world.known.borrow().verdict("exec", tokio::time::Instant::now()), Verdict::Later);
    assert_eq!(world.after(MOMENT).await, Verdict::Nobody);
    world.server.put(VALIDATING, webhook("w"));
    assert_eq!(world.after(MOMENT).await, judged_by("w"));
    world.server.put(VALIDATING, json!({"metadata": {"name": "w"}, "webhooks": []}));
    assert_eq!(world.after(MOMENT).await, Verdict::Nobody);
    world.server.put(VALIDATING, webhook("w"));
    world.server.put("mutatingwebhookconfigurations", webhook("v"));
    world.server.delete_gracefully(VALIDATING, "", "w", None);
    assert_eq!(world.after(MOMENT).await, judged_by("v"));
    // Bookmarks keep it good.
    assert_eq!(world.after(Duration::from_secs(200)).await, judged_by("v"));
    let counts = world.server.counts();
    assert_eq!((counts.lists, counts.watches), (6, 6));
    // An event that is lost is made up for.
    world.server.lose_events(1);
    world.server.put(VALIDATING, webhook("w"));
    assert_eq!(world.after(MOMENT).await, judged_by("v"));
    assert_eq!(world.after(Duration::from_secs(361)).await, judged_by("w"));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_silent_is_no_answer_for_long() {
    let world = World::new();
    assert_eq!(world.after(MOMENT).await, Verdict::Nobody);
    world.server.link(Link::Silent);
    world.server.put(VALIDATING, webhook("w"));
    assert_eq!(world.after(MOMENT).await, Verdict::Nobody, "nobody knows");
    assert_eq!(world.after(known::SILENCE).await, Verdict::Unknown);
    world.server.link(Link::Up);
    assert_eq!(world.after(MOMENT).await, Verdict::Unknown, "the others said nothing yet");
    assert_eq!(world.after(Duration::from_secs(61)).await, judged_by("w"));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_or_ends_is_no_answer_for_more_than_a_moment() {
    let world = World::new();
    assert_eq!(world.after(MOMENT).await, Verdict::Nobody);
    world.server.down(true);
    assert_eq!(world.after(MOMENT).await, Verdict::Nobody);
    assert_eq!(world.after(known::GAP).await, Verdict::Unknown);
    assert_eq!(world.after(Duration::from_secs(60)).await, Verdict::Unknown);
    world.server.put(VALIDATING, webhook("w"));
    world.server.down(false);
    assert_eq!(world.after(Duration::from_secs(30)).await, judged_by("w"));
    // Ended in good order, and so at once again: as long as no watch lives there is no answer but of lists.
    world.server.short_watches(true);
    world.server.cut_watches(true);
    world.server.put("mutatingwebhookconfigurations", webhook("v"));
    world.server.delete_gracefully(VALIDATING, "", "w", None);
    let mut seen = Vec::new();
    for _ in 0..60 {
        seen.push(world.after(MOMENT).await);
    }
    let unknown = seen.iter().filter(|verdict| **verdict == Verdict::Unknown).count();
    assert!(unknown > 30 && !seen[4..].contains(&judged_by("w")), "{seen:?}");
    world.server.short_watches(false);
    assert_eq!(world.after(Duration::from_secs(30)).await, judged_by("v"));
}

/// The API server is back with an older store, under the same versions.
#[tokio::test(start_paused = true)]
async fn another_store_is_listed() {
    let world = World::new();
    world.server.put(VALIDATING, webhook("w"));
    assert_eq!(world.after(MOMENT).await, judged_by("w"));
    let backup = world.server.backup();
    world.server.delete_gracefully(VALIDATING, "", "w", None);
    assert_eq!(world.after(MOMENT).await, Verdict::Nobody);
    world.server.restore(&backup);
    assert_eq!(world.after(MOMENT).await, judged_by("w"));
}

#[tokio::test(start_paused = true)]
async fn kinds_that_are_not_served_are_asked_for_again() {
    let server = Server::new("tenant", Side::Backend, Faults::none());
    let versions = ["v1", "v1beta1", "v1alpha1"];
    let plurals = ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"];
    let serve = |server: &Server, only: Option<&str>| {
        for (version, plural) in versions.iter().flat_map(|version| plurals.map(|plural| (*version, plural))) {
            server.serves(version, plural, only == Some(version));
        }
    };
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [rule()]}}});
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p"}});
    serve(&server, None);
    let world = World::of(server, 128 << 20);
    assert_eq!(world.after(MOMENT).await, Verdict::Nobody);
    world.server.put(plurals[0], policy);
    world.server.put(plurals[1], binding);
    let judged = Verdict::Judge("the MutatingAdmissionPolicy \"p\"".to_owned());
    for version in ["v1beta1", "v1alpha1", "v1"] {
        serve(&world.server, Some(version));
        assert_eq!(world.after(Duration::from_secs(61)).await, judged, "{version}");
        // A restart is noticed at once.
        serve(&world.server, None);
        world.server.cut_watches(false);
        assert_eq!(world.after(MOMENT).await, Verdict::Nobody, "{version}");
        serve(&world.server, Some(version));
        world.server.cut_watches(false);
        assert_eq!(world.after(MOMENT).await, judged, "{version}");
        serve(&world.server, None);
        world.server.cut_watches(false);
        assert_eq!(world.after(MOMENT).await, Verdict::Nobody, "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_or_is_too_much_is_never_a_no() {
    let broken = json!({"metadata": {"name": "w"}, "webhooks": [{"rules": [{"operations": 7}]}]});
    for (at_first, nameless) in [(true, false), (false, false), (false, true)] {
        let server = Server::new("tenant", Side::Backend, Faults::none());
        let object = if nameless { json!({"metadata": {"name": ""}, "webhooks": []}) } else { broken.clone() };
        if at_first {
            server.put(VALIDATING, object.clone());
        }
        let world = World::of(server, 128 << 20);
        let expected = if at_first { Verdict::Unknown } else { Verdict::Nobody };
        assert_eq!(world.after(MOMENT).await, expected);
        world.server.put(VALIDATING, object);
        assert_eq!(world.after(known::GAP + MOMENT).await, Verdict::Unknown);
        world.server.delete_gracefully(VALIDATING, "", if nameless { "" } else { "w" }, None);
        assert_eq!(world.after(Duration::from_secs(60)).await, Verdict::Nobody);
    }
    // No budget for a page.
    let small = World::of(Server::new("tenant", Side::Backend, Faults::none()), 4 << 20);
    assert_eq!(small.after(MOMENT).await, Verdict::Unknown);
}

#[tokio::test(start_paused = true)]
async fn more_than_is_kept_refuses_until_it_fits() {
    let bindings = "validatingadmissionpolicybindings";
    let world = World::new();
    assert_eq!(world.after(MOMENT).await, Verdict::Nobody);
    for n in 0..600 {
        let name = format!("b{n}");
        world.server.put(bindings, json!({"metadata": {"name": name}, "spec": {"policyName": "x".repeat(1000)}}));
    }
    assert_eq!(world.after(MOMENT).await, Verdict::TooMuch);
    assert_eq!(world.after(Duration::from_secs(600)).await, Verdict::TooMuch);
    for n in 0..300 {
        world.server.delete_gracefully(bindings, "", &format!("b{n}"), None);
    }
    // By then each kind had another bookmark.
    assert_eq!(world.after(Duration::from_secs(130)).await, Verdict::Nobody);
}

#[tokio::test(start_paused = true)]
async fn a_list_without_end_is_given_up() {
    let server = Server::new("tenant", Side::Backend, Faults::none());
    for n in 0..10_001 {
        server.put(VALIDATING, json!({"metadata": {"name": format!("c{n}")}}));
    }
    let world = World::of(server, 128 << 20);
    assert_eq!(world.after(MOMENT).await, Verdict::Unknown);
    world.server.delete_gracefully(VALIDATING, "", "c0", None);
    assert_eq!(world.after(Duration::from_secs(60)).await, Verdict::Nobody);
    // One that stands still ends too, and with it the turn of the others.
    let server = Server::new("tenant", Side::Backend, Faults::none());
    server.link(Link::Silent);
    let world = World::of(server, 128 << 20);
    assert_eq!(world.after(MOMENT).await, Verdict::Later);
    assert_eq!(world.after(Duration::from_secs(10)).await, Verdict::Unknown);
}
