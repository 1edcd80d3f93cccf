//! What is said of a store that is full.

use super::*;
use crate::error::{Error, Kind, Side};
use crate::operator::backends::Fill;

/// A cluster that is ready, and its backend.
async fn ready(spec: Value) -> (World, Arc<Answers>) {
    let mut world = World::new();
    let answers = Arc::new(Answers::default());
    world.context.backends = Arc::clone(&answers) as Arc<dyn backends::Backends>;
    world.add("team-a", "dev", spec);
    world.round("team-a", "dev").await;
    world.pod_is_ready("team-a", "dev");
    world.round("team-a", "dev").await;
    (world, answers)
}

fn fill(mebibytes: u64) -> Fill {
    Fill { bytes: mebibytes << 20, bound: 100 << 20, full: mebibytes >= 100 }
}

fn message(status: &Value) -> &str {
    let conditions = status["conditions"].as_array().expect("conditions");
    let found = conditions.iter().find(|c| c["type"] == condition::STORE_FULL);
    found.and_then(|c| c["message"].as_str()).unwrap_or_default()
}

#[tokio::test]
async fn a_full_store_is_said_with_figures_until_there_is_room() {
    let (world, answers) = ready(json!({"storage": {"ephemeral": true}})).await;
    let before = world.host.writes();
    *answers.fill.lock() = Some(Ok(fill(50)));
    let (_, status) = world.round("team-a", "dev").await;
    assert!(!status.to_string().contains(condition::STORE_FULL), "no word of what never was: {status}");
    assert_eq!(world.host.writes(), before);

    *answers.fill.lock() = Some(Ok(fill(103)));
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(World::condition(&status, condition::STORE_FULL), ("True".into(), "InsufficientStorage".into()));
    assert!(message(&status).contains("103 MiB of at most 100 MiB") && message(&status).contains("ephemeral-storage"));
    assert_eq!(status["phase"], "Ready", "what is there is served");

    for silent in [None, Some(Err(Error::new(Side::Backend, Kind::Timeout, "slow")))] {
        *answers.fill.lock() = silent;
        let (_, status) = world.round("team-a", "dev").await;
        assert_eq!(World::condition(&status, condition::STORE_FULL).0, "True", "what was said last stands");
        assert_eq!(status["phase"], "Ready");
    }

    *answers.fill.lock() = Some(Ok(fill(10)));
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(World::condition(&status, condition::STORE_FULL), ("False".into(), "Room".into()));
}

#[tokio::test]
async fn only_what_has_a_bound_is_asked() {
    let claim = json!({"storage": {"volumeClaim": {"size": "1Gi"}}});
    let (_, answers) = ready(claim.clone()).await;
    assert_eq!(answers.asked.load(std::sync::atomic::Ordering::Relaxed), 1);
    let k3s = json!({"distro": "k3s", "storage": claim["storage"]});
    let (_, answers) = ready(k3s).await;
    assert_eq!(answers.asked.load(std::sync::atomic::Ordering::Relaxed), 0);
}

/// Whoever has grown the volume has raised the bound.
#[tokio::test]
async fn a_grown_claim_raises_the_bound() {
    let (world, _) = ready(json!({"storage": {"volumeClaim": {"size": "1Gi"}}})).await;
    let bound = || {
        let set = world.host.find(&STATEFUL_SETS, "team-a", "dev").expect("a StatefulSet");
        let variables = set["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("env").clone();
        let found = variables.iter().find(|e| e["name"] == "PORTICO_MAX_STORE_BYTES").expect("a bound");
        found["value"].as_str().expect("text").to_owned()
    };
    let before = bound();
    for (size, wanted) in [("512Mi", before.clone()), ("2Gi", (2_u64 * 1024 * 1024 * 1024 / 100 * 40).to_string())] {
        let spec = json!({"resources": {"requests": {"storage": size}}});
        world.host.put(&CLAIMS, "team-a", json!({"metadata": {"name": "data-dev-0"}, "spec": spec}));
        world.round("team-a", "dev").await;
        assert_eq!(bound(), wanted, "{size}");
    }
}
