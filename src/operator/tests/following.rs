//! The operator over broken watches: what it knew stays known, and what went meanwhile is noticed.

use super::*;
use crate::runtime::drain::{self, DrainTrigger};
use crate::runtime::task::{self, Task};
use crate::runtime::telemetry::{Metrics, Source};

/// A running operator.
pub(super) fn start(world: &World) -> (Arc<Context>, Task<Result<()>>, DrainTrigger) {
    let context = Arc::new(World::context(&world.host, world.now));
    let mut operator = Operator::new(Arc::clone(&context));
    let (trigger, drain) = drain::channel();
    let operating = context.shown.begin();
    let running = task::spawn("operator under test", async move {
        let _operating = operating;
        operator.run(drain).await
    });
    (context, running, trigger)
}

fn add(world: &World, name: &str, created: &str, hosts: &[&str]) {
    world.add("team-a", name, json!({"expose": {"hosts": hosts}}));
    world.host.edit(&VIRTUAL_CLUSTERS, "team-a", name, |object| {
        object["metadata"]["creationTimestamp"] = json!(created);
    });
}

pub(super) async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// What metrics say of the condition about names.
fn shown(context: &Context, name: &str) -> Option<char> {
    let metrics = Metrics::default();
    metrics.register(Arc::clone(&context.shown) as Arc<dyn Source>);
    let (page, about) =
        (metrics.render().expect("renders"), format!("cluster=\"{name}\",condition=\"HostsAccepted\"}} "));
    page.lines().find(|line| line.contains(&about)).and_then(|line| line.chars().last())
}

fn accepted(world: &World, name: &str) -> (String, String) {
    let object = world.host.find(&VIRTUAL_CLUSTERS, "team-a", name).expect("there");
    World::condition(&object["status"], condition::HOSTS)
}

#[tokio::test(start_paused = true)]
async fn a_name_comes_to_the_next_when_its_holder_went_unnoticed() {
    let world = World::new();
    add(&world, "old", "2026-01-01T00:00:00Z", &["app.example.com"]);
    add(&world, "young", "2026-01-02T00:00:00Z", &["app.example.com"]);
    let (context, running, _trigger) = start(&world);
    pass(5).await;
    assert_eq!(accepted(&world, "old").0, "True");
    assert_eq!(accepted(&world, "young"), ("False".to_owned(), "Taken".to_owned()));
    assert_eq!(["old", "young"].map(|name| shown(&context, name)), [Some('1'), Some('0')]);
    world.host.0.down(true);
    world.host.remove(&VIRTUAL_CLUSTERS, "team-a", "old");
    pass(60).await;
    assert!(!running.is_finished(), "a server that does not answer ends nothing");
    world.host.0.down(false);
    pass(30).await;
    assert_eq!(accepted(&world, "young"), ("True".to_owned(), "Accepted".to_owned()));
    assert_eq!(["old", "young"].map(|name| shown(&context, name)), [None, Some('1')]);
    let owners = Arc::clone(&context.owners.lock());
    assert!(owners.host("old.team-a.portico.local").is_none());
    let services = world.host.all(&SERVICES);
    let of_old = services.iter().filter(|s| s["metadata"]["labels"]["portico.dev/cluster"] == "old");
    assert_eq!(of_old.filter(|s| s["metadata"]["namespace"] == SYSTEM).count(), 0, "its Services are collected");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_watches_at_once_is_not_asked_without_end() {
    let world = World::new();
    world.host.0.short_watches(true);
    let (_context, running, _trigger) = start(&world);
    pass(300).await;
    assert!(!running.is_finished());
    let lists = world.host.0.lists().into_iter().filter(|(plural, _)| plural == "virtualclusters").count();
    assert!((2..40).contains(&lists), "{lists} lists in five minutes");
}

#[tokio::test(start_paused = true)]
async fn a_panic_over_one_cluster_is_noticed_by_no_other() {
    let world = World::new();
    add(&world, "broken", "2026-01-01T00:00:00Z", &[]);
    world.add("team-b", "well", json!({}));
    world.host.0.panic_over("team-a");
    let (_context, running, _trigger) = start(&world);
    pass(60).await;
    assert!(!running.is_finished(), "nor by the operator");
    let well = world.host.find(&VIRTUAL_CLUSTERS, "team-b", "well").expect("there");
    assert!(well["status"]["port"].is_number(), "{well}");
    world.host.0.heal("team-a");
    pass(30).await;
    let broken = world.host.find(&VIRTUAL_CLUSTERS, "team-a", "broken").expect("there");
    assert!(broken["status"]["port"].is_number(), "{broken}");
}

#[tokio::test]
async fn one_that_is_gone_or_leaves_takes_no_worker() {
    let world = World::new();
    let mut operator = Operator::new(Arc::new(World::context(&world.host, world.now)));
    let now = operator.context.clock.instant();
    let mut rounds = FuturesUnordered::new();
    for number in 0..WORKERS {
        let name = format!("leaves-{number}");
        world.add("team-a", &name, json!({}));
        let leaving = Cluster { is_leaving: true, ..world.cluster("team-a", &name) };
        operator.schedule.now(&leaving.id, now);
        operator.living.insert(leaving.id.clone(), leaving);
        operator.schedule.now(&TenantId::parse("team-a", &format!("gone-{number}")).expect("id"), now);
    }
    operator.start_due(&mut rounds);
    assert!(rounds.is_empty());
    for number in 0..WORKERS {
        let name = format!("stays-{number}");
        world.add("team-a", &name, json!({}));
        let cluster = world.cluster("team-a", &name);
        operator.schedule.now(&cluster.id, now);
        operator.living.insert(cluster.id.clone(), cluster);
    }
    operator.start_due(&mut rounds);
    assert_eq!(rounds.len(), WORKERS);
}
