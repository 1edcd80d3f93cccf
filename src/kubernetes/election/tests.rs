use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::error::Side;
use crate::kubernetes::testing::{Faults, Link, Server};

/// A server, and through it the Lease.
fn host() -> Server {
    Server::new("host", Side::Host, Faults::none())
}

fn lease(host: &Server) -> Value {
    host.read("leases", "portico", "operator").expect("a Lease")["spec"].take()
}

fn candidate(name: &str) -> Candidate {
    Candidate {
        lease: "operator".to_owned(),
        namespace: "portico".to_owned(),
        identity: name.to_owned(),
        once: String::new(),
        timing: Timing::default(),
    }
}

/// How many replicas work now, and the most there ever were.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
    starts: AtomicUsize,
}

/// Counts as working until dropped.
struct Working(Arc<Gauge>);

impl Working {
    fn begin(gauge: &Arc<Gauge>) -> Self {
        let now = gauge.now.fetch_add(1, Ordering::SeqCst) + 1;
        gauge.most.fetch_max(now, Ordering::SeqCst);
        gauge.starts.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(gauge))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

fn stand(
    host: &Server,
    name: &str,
    seed: u64,
    drain: Drain,
    gauge: &Arc<Gauge>,
) -> crate::runtime::task::Task<Result<()>> {
    let now = "2026-01-01T00:00:00Z".parse().expect("time");
    let (lock, candidate, gauge) = (Lock::lease(Arc::new(host.clone())), candidate(name), Arc::clone(gauge));
    let clock = Clock::going(now, seed);
    crate::runtime::task::spawn("candidate", async move {
        run(lock, candidate, clock, drain, |mut drain| {
            let working = Working::begin(&gauge);
            async move {
                drain.signaled().await;
                drop(working);
                Ok(())
            }
        })
        .await
    })
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_who_leaves_hands_over_at_once() {
    let host = host();
    let gauge = Arc::new(Gauge::default());
    let (first_trigger, first_drain) = drain::channel();
    let (second_trigger, second_drain) = drain::channel();
    let first = stand(&host, "one", 1, first_drain, &gauge);
    pass(1).await;
    let second = stand(&host.over_another_link(), "two", 2, second_drain, &gauge);
    pass(60).await;
    assert_eq!(gauge.starts.load(Ordering::SeqCst), 1);
    assert_eq!(lease(&host)["holderIdentity"], "one");
    let leaving = first_trigger.leave(Duration::from_secs(600));
    first.join().await.expect("joined").expect("ended well");
    pass(4).await;
    assert_eq!(lease(&host)["holderIdentity"], "two");
    assert_eq!(gauge.most.load(Ordering::SeqCst), 1);
    assert!(leaving.drain(Duration::from_secs(20)).await);
    assert!(second_trigger.drain(Duration::from_secs(20)).await);
    second.join().await.expect("joined").expect("ended well");
    assert_eq!(lease(&host)["holderIdentity"], "");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_ends_its_work_before_another_begins() {
    for (silent, seed) in [(false, 3), (true, 4), (false, 5), (true, 6)] {
        let host = host();
        let gauge = Arc::new(Gauge::default());
        let (_first_trigger, first_drain) = drain::channel();
        let (_second_trigger, second_drain) = drain::channel();
        let broken = host.over_another_link();
        let _first = stand(&broken, "one", seed, first_drain, &gauge);
        pass(1).await;
        let _second = stand(&host, "two", seed + 10, second_drain, &gauge);
        pass(30).await;
        broken.link(if silent { Link::Silent } else { Link::Refused });
        pass(40).await;
        assert_eq!(lease(&host)["holderIdentity"], "two");
        assert_eq!(gauge.starts.load(Ordering::SeqCst), 2);
        assert_eq!(gauge.most.load(Ordering::SeqCst), 1, "never two at once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_process_takes_its_own_lease_back_without_waiting() {
    let host = host();
    host.put(
        "leases",
        json!({"metadata": {"namespace": "portico", "name": "operator"},
        "spec": {"holderIdentity": "one", "renewTime": "x"}}),
    );
    let gauge = Arc::new(Gauge::default());
    let (_trigger, drain) = drain::channel();
    let _task = stand(&host, "one", 7, drain, &gauge);
    pass(1).await;
    assert_eq!(gauge.starts.load(Ordering::SeqCst), 1);
    assert_eq!(lease(&host)["leaseTransitions"], 0);
}

#[test]
fn only_an_earlier_process_of_the_same_pod_is_succeeded_at_once() {
    let mut candidate = Candidate {
        lease: "l".to_owned(),
        namespace: "n".to_owned(),
        identity: "dev-cluster-0-11".to_owned(),
        once: "dev-cluster-0".to_owned(),
        timing: Timing::default(),
    };
    for (holder, former) in [
        ("dev-cluster-0", true),
        ("dev-cluster-0-22", true),
        ("dev-cluster-0_uuid", true),
        ("dev-cluster-01-22", false),
    ] {
        assert_eq!(candidate.is_former_self(holder), former, "{holder}");
    }
    candidate.once = String::new();
    assert!(!candidate.is_former_self("dev-cluster-0-22"));
}

#[tokio::test(start_paused = true)]
async fn work_that_panics_is_led_again() {
    let (trigger, drain) = drain::channel();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let clock = Clock::going("2026-01-01T00:00:00Z".parse().expect("time"), 1);
    let lock = Lock::lease(Arc::new(host()));
    let standing = crate::runtime::task::spawn("candidate", async move {
        run(lock, candidate("a"), clock, drain, |mut drain| {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(run > 0, "as the test wants it");
                drain.signaled().await;
                Ok(())
            }
        })
        .await
    });
    pass(30).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    trigger.start(Duration::from_secs(1));
    assert!(standing.join().await.is_some_and(|outcome| outcome.is_ok()));
}
