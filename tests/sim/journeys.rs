//! The way of a pod as a trace.

use std::time::Duration;

use portico::names::TenantId;
use portico::syncer::attempt::Pair;
use portico::syncer::journeys::Journeys;
use portico::syncer::kind::ObjectKey;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::collector::{Collector, says};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn pod(uid: &str, said: Option<&str>) -> Value {
    json!({"metadata": {"name": "web", "uid": uid, "annotations": {"portico.dev/traceparent": said}}})
}

fn copy(conditions: &[&str], phase: &str) -> Value {
    let conditions: Vec<_> = conditions.iter().map(|one| json!({"type": one, "status": "True"})).collect();
    json!({"metadata": {"name": "web-x-default-x-dev"}, "spec": {"nodeName": "node-1"},
        "status": {"phase": phase, "conditions": conditions}})
}

fn key(name: &str) -> ObjectKey {
    ObjectKey { namespace: "default".to_owned(), name: name.to_owned() }
}

/// One look at it and what follows; whether it is traced.
fn look(
    journeys: &Journeys,
    collector: &Collector,
    name: &str,
    (pod, host): (Option<Value>, Option<Value>),
    now: Instant,
) -> bool {
    let (id, key) = (TenantId::parse("team", "dev").expect("id"), key(name));
    let pair = Pair { virtual_object: pod, host };
    let look = journeys.look(&collector.traces, (&id, &key), &pair, (now - Duration::from_millis(5), now));
    if let Some(look) = &look {
        drop((look.part("plan"), look.part("write on the host")));
        journeys.looked((&id, &key), &pair, now);
    }
    look.is_some()
}

#[tokio::test]
async fn a_pod_is_one_trace_from_the_queue_to_its_being_ready() {
    let collector = Collector::start(|config| config.sampling_rate_per_million = 0).await;
    let (journeys, began) = (Journeys::default(), Instant::now());
    let said = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let seen = |host: Option<Value>, after: u64| {
        let now = began + Duration::from_millis(after);
        look(&journeys, &collector, "web", (Some(pod("u", Some(&said))), host), now)
    };
    assert!(seen(None, 10));
    assert!(seen(Some(copy(&[], "Pending")), 20));
    // Its containers come up one by one.
    for after in 21..40 {
        assert!(seen(Some(copy(&["Initialized"], "Pending")), after));
    }
    assert!(seen(Some(copy(&["PodScheduled"], "Pending")), 50));
    assert!(seen(Some(copy(&["PodScheduled", "Ready"], "Running")), 90));
    assert!(!seen(Some(copy(&["PodScheduled", "Ready"], "Running")), 100), "it is over");
    let (root, parts) = collector.trace("pod").await;
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    for stage in ["queue", "plan", "schedule", "start"] {
        assert!(names.contains(&stage), "{stage} of {names:?}");
    }
    assert_eq!(data_encoding::HEXLOWER.encode(&root.trace_id), TRACE, "a part of what the pod names");
    let told = ["portico.outcome", "portico.cluster", "portico.host_pod", "k8s.pod.uid"].map(|name| says(&root, name));
    assert_eq!(told, [Some("ready"), Some("team/dev"), Some("web-x-default-x-dev"), Some("u")]);
}

/// Others of its name, those that nobody wants, those that never come up, and too many.
#[tokio::test]
async fn what_is_followed_is_bounded_and_ends() {
    let collector = Collector::start(|_| {}).await;
    let (journeys, now) = (Journeys::default(), Instant::now());
    let unsampled = format!("00-{TRACE}-00f067aa0ba902b7-00");
    assert!(!look(&journeys, &collector, "quiet", (Some(pod("q", Some(&unsampled))), None), now), "as it says");
    assert!(!look(&journeys, &collector, "old", (Some(pod("o", None)), Some(copy(&[], "Running"))), now), "has a copy");
    assert!(look(&journeys, &collector, "again", (Some(pod("first", None)), None), now));
    assert!(look(&journeys, &collector, "again", (Some(pod("second", None)), None), now), "another one of its name");
    let (root, _) = collector.trace("pod").await;
    assert_eq!((says(&root, "portico.outcome"), says(&root, "k8s.pod.uid")), (Some("gone"), Some("first")));
    let begun = (0..100).filter(|n| look(&journeys, &collector, &format!("p{n}"), (Some(pod("u", None)), None), now));
    assert_eq!(begun.count(), 31);
    let late = now + Duration::from_secs(601);
    assert!(look(&journeys, &collector, "later", (Some(pod("u", None)), None), late), "there is room again");
    let outcomes = |spans: &[opentelemetry_proto::tonic::trace::v1::Span]| {
        spans.iter().filter(|span| says(span, "portico.outcome") == Some("late")).count()
    };
    assert_eq!(outcomes(&collector.close().await), 32);
}

/// However many tenants bring pods that never come up.
#[tokio::test]
async fn all_tenants_together_are_bounded_too() {
    let collector = Collector::start(|config| config.max_traces_per_second = 10_000).await;
    let (tenants, now): (Vec<Journeys>, _) = ((0..33).map(|_| Journeys::default()).collect(), Instant::now());
    let begun = |n: &usize| look(&tenants[n / 32], &collector, &format!("p{n}"), (Some(pod("u", None)), None), now);
    assert_eq!((0..33 * 32).filter(begun).count(), 1024);
    let late = now + Duration::from_secs(601);
    assert!(look(&tenants[0], &collector, "later", (Some(pod("u", None)), None), late), "there is room again");
}
