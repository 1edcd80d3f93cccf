//! Where figures come from: the host's `metrics.k8s.io`, its kubelets, or nowhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use portico::config::{KubeletsConfig, Span};
use portico::error::Kind;
use portico::names::{HostName, TenantId};
use serde_json::{Value, json};

use crate::kubelets::{NODE, Stage, node_of, table};
use crate::support::fake::{Answer, FakeApi, Seen};
use crate::world::{HOST_NAMESPACE, PATIENCE};

/// Of every tenant, where nothing is about it.
const UID: &str = "uid";

fn nothing(_: Seen) -> Answer {
    Answer::text(404, "nothing")
}

fn pod_metrics(name: &str) -> Value {
    json!({"metadata": {"name": name}, "timestamp": "2026-01-01T00:00:00Z", "window": "15s",
        "containers": [{"name": "main", "usage": {"cpu": "1234567n", "memory": "2Ki"}}]})
}

fn server(seen: &Seen) -> Answer {
    if seen.path.ends_with("/nodes") {
        let usage = json!({"cpu": "250m", "memory": "1Gi"});
        let node =
            json!({"metadata": {"name": NODE}, "timestamp": "2026-01-01T00:00:00Z", "window": "10s", "usage": usage});
        return Answer::json(200, &json!({"items": [node]}));
    }
    // More than was asked for: what is no pod of the tenant is not believed.
    let mut items: Vec<Value> =
        ["web-x-default-x-alpha", "web-x-default-x-beta", "forged-x-default-x-alpha", "etcd"].map(pod_metrics).into();
    items.push(pod_metrics("away-x-default-x-alpha"));
    items[4]["containers"] = json!(null);
    Answer::json(200, &json!({"items": items}))
}

#[tokio::test]
async fn a_metrics_server_is_asked_once_for_many() {
    let stage = Stage::with(|config, ca| config.ca = ca, server, nothing).await;
    let (usage, id) = (&stage.world.usage, stage.world.a.id());
    let all = futures::future::join_all((0..20).map(|_| usage.pods(&id, UID))).await;
    let pods = all.into_iter().last().expect("asked").expect("figures");
    let names: Vec<&str> = pods.keys().map(HostName::as_str).collect();
    assert_eq!(names, ["away-x-default-x-alpha", "web-x-default-x-alpha"]);
    let web = pods.values().last().expect("web");
    assert_eq!((web.node.as_str(), web.window), (NODE, Duration::from_secs(15)));
    assert_eq!((web.containers[0].cpu_nanocores, web.containers[0].memory_bytes), (1_234_567, 2048));
    let node = usage.nodes().await.expect("figures")[NODE].clone();
    assert_eq!((node.cpu_nanocores, node.memory_bytes), (250_000_000, 1 << 30));
    let asked: Vec<Seen> =
        stage.world.host.seen().into_iter().filter(|s| s.path.starts_with("/apis/metrics")).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[0].query, "labelSelector=portico.dev%2Fcluster%3Dalpha");
    assert!(stage.kubelet.seen().is_empty());
}

/// The nth, 20 s after the one before.
fn reading(n: u64) -> String {
    let (seconds, at) = (n * 5, 1_700_000_000_000 + n * 20_000);
    let of = |pod: &str| {
        format!(
            "container_cpu_usage_seconds_total{{container=\"main\",namespace=\"team\",pod=\"{pod}\"}} {seconds} {at}\n\
             container_memory_working_set_bytes{{container=\"main\",namespace=\"team\",pod=\"{pod}\"}} 4096 {at}\n"
        )
    };
    let pods = ["web-x-default-x-alpha", "web-x-default-x-beta", "forged-x-default-x-alpha"].map(of).concat();
    format!("{pods}node_cpu_usage_seconds_total {seconds} {at}\nnode_memory_working_set_bytes 8192 {at}\n")
}

#[tokio::test]
async fn without_one_the_kubelets_are_read_twice_and_shared_by_all() {
    let readings = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&readings);
    let kubelet = move |seen: Seen| {
        assert_eq!(seen.path, "/metrics/resource");
        Answer::text(200, &reading(count.fetch_add(1, Ordering::SeqCst)))
    };
    let absent = |_: &Seen| Answer::status(404, "NotFound", "the server could not find the requested resource");
    let stage = Stage::with(|config, ca| config.ca = ca, absent, kubelet).await;
    let usage = &stage.world.usage;
    let (a, b) = (stage.world.a.id(), stage.world.b.id());
    assert!(usage.pods(&a, UID).await.expect("no figures yet").is_empty(), "there is nothing to compare with");
    assert!(usage.pods(&b, UID).await.expect("no figures yet").is_empty());
    assert_eq!(readings.load(Ordering::SeqCst), 1, "one reading for both");
    pass(11).await;
    for id in [&a, &b] {
        let pods = usage.pods(id, UID).await.expect("figures");
        let web = pods.iter().next().expect("web");
        assert_eq!((pods.len(), web.0.as_str().ends_with(id.name().as_str())), (1, true));
        assert_eq!((web.1.window, web.1.containers[0].cpu_nanocores), (Duration::from_secs(20), 250_000_000));
        assert_eq!(web.1.containers[0].memory_bytes, 4096);
    }
    let node = usage.nodes().await.expect("figures")[NODE].clone();
    assert_eq!((node.cpu_nanocores, node.memory_bytes), (250_000_000, 8192));
    assert_eq!(readings.load(Ordering::SeqCst), 2);
    let asked = stage.world.host.seen().into_iter().filter(|s| s.path.starts_with("/apis/metrics")).count();
    assert_eq!(asked, 1, "a host without metrics.k8s.io is not asked again at once");
}

#[tokio::test]
async fn with_neither_the_admin_is_told_what_is_missing() {
    for (code, reason) in [(404, "NotFound"), (403, "Forbidden"), (503, "ServiceUnavailable")] {
        let refused = move |_: &Seen| Answer::status(code, reason, "no");
        let stage = Stage::with(|config, _| config.enabled = false, refused, nothing).await;
        for error in [
            stage.world.usage.pods(&stage.world.a.id(), UID).await.expect_err("nowhere"),
            stage.world.usage.nodes().await.expect_err("nowhere"),
        ] {
            assert_eq!((error.kind(), error.to_status().code), (Kind::Unavailable, 503));
            let message = error.message();
            assert!(message.contains("metrics.k8s.io") && message.contains("host.kubelets.enabled"), "{message}");
            assert_eq!(message.contains("nobody answers"), code == 503, "{message}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_away_for_a_moment_is_asked_again_soon_and_one_that_is_not_there_later() {
    for (code, reason, expected) in [(404, "NotFound", 1), (503, "ServiceUnavailable", 2)] {
        let refused = move |_: &Seen| Answer::status(code, reason, "no");
        let stage = Stage::with(|config, _| config.enabled = false, refused, nothing).await;
        assert!(stage.world.usage.nodes().await.is_err());
        pass(11).await;
        assert!(stage.world.usage.nodes().await.is_err());
        let asked = stage.world.host.seen().into_iter().filter(|seen| seen.path.ends_with("/nodes")).count();
        assert_eq!(asked, expected, "{code}");
    }
}

#[tokio::test]
async fn what_is_missing_is_said_as_it_is_now() {
    let asked = AtomicU64::new(0);
    let refused = move |_: &Seen| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::status(503, "ServiceUnavailable", "no"),
        _ => Answer::status(403, "Forbidden", "no"),
    };
    let stage = Stage::with(|config, _| config.enabled = false, refused, nothing).await;
    for words in ["nobody answers", "that Portico may read"] {
        let error = stage.world.usage.nodes().await.expect_err("nowhere");
        assert!(error.message().contains(words), "{error}");
        pass(11).await;
    }
}

#[tokio::test]
async fn tenants_whose_lists_hang_hold_nobody_up_and_are_not_listed_again_at_once() {
    let host = |seen: &Seen| seen.query.contains("hang-").then_some(Answer::Hang);
    let stage = Stage::beside(|config, _| config.enabled = false, host, nothing).await;
    let usage = &stage.world.usage;
    let hanging: Vec<TenantId> =
        (0..4).map(|n| TenantId::parse(HOST_NAMESPACE, &format!("hang-{n}")).expect("id")).collect();
    let lists = || stage.world.host.seen().into_iter().filter(|seen| seen.query.contains("hang-")).count();
    let all = futures::future::join_all(hanging.iter().map(|id| usage.placed(id, UID)));
    assert!(tokio::time::timeout(Duration::from_millis(1), all).await.is_err());
    let begun = async {
        while lists() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.expect("all turns are theirs");
    let id = stage.world.a.id();
    let begun = tokio::time::timeout(Duration::from_millis(1), usage.placed(&id, UID)).await;
    assert!(begun.is_err(), "it waits for a turn");
    pass(6).await;
    assert_eq!(usage.placed(&id, UID).await.expect("listed").len(), 2);
    pass(30).await;
    for id in &hanging {
        assert_eq!(usage.placed(id, UID).await.expect_err("late").kind(), Kind::Timeout);
    }
    assert_eq!(lists(), 4);
}

#[tokio::test]
async fn the_size_of_page_that_fitted_is_asked_for_again() {
    let limits: Arc<Mutex<Vec<String>>> = Arc::default();
    let asked = Arc::clone(&limits);
    let host = move |seen: &Seen| {
        let limit = seen.query.split('&').find_map(|part| part.strip_prefix("limit="))?;
        asked.lock().push(limit.to_owned());
        let padding = if limit == "500" { 13 << 20 } else { 1 << 20 };
        let mut page = table();
        page["padding"] = json!("x".repeat(padding));
        Some(Answer::json(200, &page))
    };
    let stage = Stage::beside(|config, _| config.enabled = false, host, nothing).await;
    for _ in 0..2 {
        assert_eq!(stage.world.usage.placed(&stage.world.a.id(), UID).await.expect("listed").len(), 2);
        pass(6).await;
    }
    assert_eq!(*limits.lock(), ["500", "25", "25"]);
}

#[tokio::test]
async fn many_silent_kubelets_do_not_keep_the_others_from_their_turn() {
    let silent = FakeApi::start(|_| async { Answer::Hang }).await;
    let (ca, port) = (silent.pki.ca_pem().to_owned(), silent.address.port());
    let names: Vec<String> = (10..26).map(|n| format!("a-silent-{n}")).collect();
    let own_port = Arc::new(AtomicU16::new(0));
    let of_node = Arc::clone(&own_port);
    let host = move |seen: &Seen| match seen.path.as_str() {
        "/api/v1/nodes" => {
            let own = node_of(NODE, of_node.load(Ordering::SeqCst));
            let nodes: Vec<Value> = names.iter().map(|name| node_of(name, port)).chain([own]).collect();
            Some(Answer::json(200, &json!({"metadata": {}, "items": nodes})))
        }
        path if path.starts_with("/apis/metrics.k8s.io/") => Some(Answer::status(404, "NotFound", "no such group")),
        path => path.strip_prefix("/api/v1/nodes/a-").map(|name| Answer::json(200, &node_of(name, port))),
    };
    let trusting_both = |config: &mut KubeletsConfig, own: String| {
        (config.ca, config.request_timeout) = (format!("{own}{ca}"), Span(PATIENCE));
    };
    let stage = Stage::beside(trusting_both, host, |_| Answer::text(200, &reading(0))).await;
    own_port.store(stage.kubelet.address.port(), Ordering::SeqCst);
    assert_eq!(stage.world.usage.nodes().await.expect_err("nobody answers in time").kind(), Kind::Unavailable);
    assert!(stage.kubelet.seen().is_empty(), "its turn did not come");
    pass(16).await;
    let asked = async { stage.world.usage.nodes().await };
    let seen = stage.kubelet.wait_seen(1);
    tokio::select! {
        _ = seen => {}
        nodes = asked => panic!("{nodes:?}"),
    }
}

#[tokio::test]
async fn a_cluster_that_is_made_again_has_nothing_of_its_predecessors() {
    let lists = AtomicU64::new(0);
    let host = move |seen: &Seen| {
        let is_list = seen.path.ends_with("/namespaces/team/pods");
        let is_first = is_list && lists.fetch_add(1, Ordering::SeqCst) == 0;
        is_list.then(|| Answer::json(200, &if is_first { table() } else { json!({"rows": []}) }))
    };
    let stage = Stage::beside(|config, _| config.enabled = false, host, nothing).await;
    let (usage, id) = (&stage.world.usage, stage.world.a.id());
    assert_eq!(usage.placed(&id, "first").await.expect("listed").len(), 2);
    assert_eq!(usage.placed(&id, "second").await.expect("listed").len(), 0);
}

/// So many seconds, at once.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_host_that_says_nonsense_is_an_error_and_not_the_tenants() {
    let stage = Stage::with(|config, _| config.enabled = false, |_| Answer::text(200, "[[["), nothing).await;
    let error = stage.world.usage.pods(&stage.world.a.id(), UID).await.expect_err("nonsense");
    assert_eq!((error.kind(), error.to_status().code), (Kind::Protocol, 500));
}

#[tokio::test]
async fn a_silent_kubelet_takes_its_own_pods_figures_and_is_not_waited_for_again() {
    let silent = FakeApi::start(|_| async { Answer::Hang }).await;
    let (ca, port) = (silent.pki.ca_pem().to_owned(), silent.address.port());
    let host = move |seen: &Seen| match seen.path.as_str() {
        "/api/v1/nodes/node-2" => Some(Answer::json(200, &node_of("node-2", port))),
        path if path.starts_with("/apis/metrics.k8s.io/") => Some(Answer::status(404, "NotFound", "no such group")),
        _ => None,
    };
    let readings = AtomicU64::new(0);
    let kubelet = move |_| Answer::text(200, &reading(readings.fetch_add(1, Ordering::SeqCst)));
    let trusting_both = |config: &mut KubeletsConfig, own: String| {
        (config.ca, config.request_timeout) = (format!("{own}{ca}"), Span(PATIENCE));
    };
    let stage = Stage::beside(trusting_both, host, kubelet).await;
    let (usage, id) = (&stage.world.usage, stage.world.a.id());
    let first = usage.pods(&id, UID);
    assert!(tokio::time::timeout(Duration::from_secs(1), first).await.is_err(), "who asked first has left");
    assert!(usage.pods(&id, UID).await.expect("no figures yet").is_empty());
    pass(11).await;
    let pods = usage.pods(&id, UID).await.expect("of the other node");
    assert_eq!(pods.keys().map(HostName::as_str).collect::<Vec<_>>(), ["web-x-default-x-alpha"]);
    assert_eq!((silent.seen().len(), stage.kubelet.seen().len()), (1, 2), "the silent one was not asked again");
}
