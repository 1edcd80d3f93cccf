//! The audit webhook, with real TLS: whatever it answers, nothing is lost, and the order is kept.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use parking_lot::Mutex;
use portico::archive::{self, Archive};
use portico::config::audit::{AuditConfig, AuditSpool, AuditWebhook};
use portico::runtime::clock::Clock;
use portico::runtime::telemetry::{Metrics, Source};
use tokio::time::Instant;

use crate::support::fake::{Answer, FakeApi, Seen};
use crate::world::PATIENCE;

/// What it is sent and answers with 2xx.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<u64>>>);

impl Taken {
    fn all(&self) -> Vec<u64> {
        self.0.lock().clone()
    }

    async fn becomes(&self, expected: &[u64]) {
        let reached = async {
            while self.all() != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.unwrap_or_else(|_| panic!("{:?}", self.all()));
    }
}

fn numbers(seen: &Seen) -> Vec<u64> {
    let list = seen.json();
    assert_eq!((list["kind"].as_str(), list["apiVersion"].as_str()), (Some("EventList"), Some("audit.k8s.io/v1")));
    list["items"].as_array().expect("items").iter().map(|item| item["n"].as_u64().expect("n")).collect()
}

fn is_taken(answer: &Answer) -> bool {
    match answer {
        Answer::Full(response) => response.status().is_success(),
        Answer::Stream(response, _) => response.status().is_success(),
        Answer::Hang | Answer::Upgrade(..) => false,
    }
}

/// A webhook that answers by `answer`.
async fn sink(answer: impl Fn(&[u64]) -> Answer + Send + Sync + 'static) -> (FakeApi, Taken) {
    let taken = Taken::default();
    let noted = taken.clone();
    let api = FakeApi::start(move |seen| {
        let these = numbers(&seen);
        let answer = answer(&these);
        if is_taken(&answer) {
            noted.0.lock().extend(these);
        }
        async move { answer }
    })
    .await;
    (api, taken)
}

fn start(folder: &Path, api: &FakeApi) -> Archive {
    let (ca, token) = (folder.join("ca.crt"), folder.join("token"));
    std::fs::write(&ca, api.pki.ca_pem()).expect("written");
    std::fs::write(&token, "of-portico").expect("written");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let url = format!("https://{}/audit?of=portico", api.address);
    let config = AuditConfig {
        enabled: true,
        spool: AuditSpool { path: text(&folder.join("spool")), ..AuditSpool::default() },
        webhook: AuditWebhook { url, ca_file: text(&ca), token_file: text(&token) },
        ..AuditConfig::default()
    };
    archive::start(&config, &Clock::system()).expect("begun")
}

fn add(archive: &Archive, numbers: impl Iterator<Item = u64>) {
    let tab = Arc::default();
    for n in numbers {
        let line = format!("{{\"n\":{n},\"stageTimestamp\":\"2026-01-01T00:00:00.000000Z\"}}\n").into_bytes();
        archive.trail().add(&tab, line, None, (true, false), Instant::now());
    }
}

/// What a process could not send that is gone, in a place that is nobody's.
async fn left_behind(folder: &Path, numbers: Range<u64>) {
    let (dead, _) = sink(|_| Answer::status(503, "X", "x")).await;
    let [holder, left] = [(); 2].map(|()| start(folder, &dead));
    add(&left, numbers);
    left.close().await;
    holder.close().await;
}

fn shown(archive: &Archive) -> String {
    let metrics = Metrics::default();
    metrics.register(Arc::clone(archive.counts()) as Arc<dyn Source>);
    metrics.render().expect("metrics")
}

#[tokio::test]
async fn whatever_it_answers_nothing_is_lost_and_the_order_is_kept() {
    let (endless, _more) = Answer::stream();
    let status = |code| Answer::status(code, "X", "x");
    let script = Mutex::new(VecDeque::from([status(500), status(429), status(401), endless]));
    let (api, taken) = sink(move |these| match script.lock().pop_front() {
        Some(answer) => answer,
        None if these.len() > 150 => Answer::status(413, "RequestEntityTooLarge", "x"),
        None => Answer::text(200, "ok"),
    })
    .await;
    let folder = tempfile::tempdir().expect("folder");
    let archive = start(folder.path(), &api);
    add(&archive, 0..1000);
    let begun = api.wait_seen(1).await.remove(0);
    assert_eq!((begun.path.as_str(), begun.query.as_str()), ("/audit", "of=portico"));
    assert_eq!(begun.header("authorization"), Some("Bearer of-portico"));
    // The one without an end is only given up after its deadline: what it took comes twice, and nothing else.
    let reached = async {
        while taken.all().last() != Some(&999) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(2 * PATIENCE, reached).await.expect("all of them");
    let mut all = taken.all();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (0..1000).collect::<Vec<_>>());
    let behind: Vec<u64> = taken.all().split_off(taken.all().len() - 600);
    assert_eq!(behind, (400..1000).collect::<Vec<_>>(), "in order, once");
    let page = shown(&archive);
    assert!(page.contains("portico_audit_sink_failing{sink=\"webhook\"} 0"), "{page}");
    archive.close().await;
}

#[tokio::test]
async fn what_it_could_not_be_sent_is_sent_after_the_next_start() {
    let folder = tempfile::tempdir().expect("folder");
    let (dead, none) = sink(|_| Answer::status(503, "X", "x")).await;
    let archive = start(folder.path(), &dead);
    add(&archive, 0..500);
    dead.wait_seen(1).await;
    archive.close().await;
    drop(dead);
    assert!(none.all().is_empty());
    let (api, taken) = sink(|_| Answer::text(200, "ok")).await;
    let archive = start(folder.path(), &api);
    add(&archive, 500..510);
    taken.becomes(&(0..510).collect::<Vec<_>>()).await;
    archive.close().await;
    let archive = start(folder.path(), &api);
    add(&archive, 510..511);
    archive.close().await;
    assert_eq!(taken.all(), (0..511).collect::<Vec<_>>(), "nothing is sent again, and the end waits for what is new");
}

/// One event is one notice: nothing else wakes it when the end comes.
#[tokio::test]
async fn a_webhook_that_fails_gives_its_spool_back_at_the_end() {
    let folder = tempfile::tempdir().expect("folder");
    let (dead, _) = sink(|_| Answer::status(503, "X", "x")).await;
    let archive = start(folder.path(), &dead);
    // It has looked, and waits for a notice: that one it takes.
    tokio::time::sleep(Duration::from_millis(200)).await;
    add(&archive, 0..1);
    dead.wait_seen(2).await;
    archive.close().await;
    drop(dead);
    let (api, taken) = sink(|_| Answer::text(200, "ok")).await;
    let archive = start(folder.path(), &api);
    assert!(!folder.path().join("spool/1").exists(), "it has the same place");
    taken.becomes(&[0]).await;
    archive.close().await;
}

/// While the process has something of its own all the time.
#[tokio::test]
async fn what_another_process_left_is_sent_whatever_comes_meanwhile() {
    let folder = tempfile::tempdir().expect("folder");
    left_behind(folder.path(), 0..3).await;
    let (api, taken) = sink(|_| Answer::text(200, "ok")).await;
    let archive = start(folder.path(), &api);
    let busy = async {
        for n in 100.. {
            add(&archive, n..n + 1);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let reached = async {
        while !taken.all().contains(&2) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = busy => {}
        reached = tokio::time::timeout(PATIENCE, reached) => reached.expect("what another left"),
    }
    archive.close().await;
}

#[tokio::test]
async fn one_event_that_it_will_not_take_costs_no_other() {
    let (api, taken) = sink(|these| match these.contains(&5) {
        true => Answer::status(422, "Invalid", "x"),
        false => Answer::Full(Response::new(Bytes::new())),
    })
    .await;
    let folder = tempfile::tempdir().expect("folder");
    let archive = start(folder.path(), &api);
    add(&archive, 0..20);
    taken.becomes(&(0..20).filter(|n| *n != 5).collect::<Vec<_>>()).await;
    let page = shown(&archive);
    assert!(page.contains("portico_audit_webhook_rejected_total 1"), "{page}");
    archive.close().await;
}

/// A backlog of a process that is gone holds up nothing that is new.
#[tokio::test]
async fn what_is_new_comes_between_what_another_left() {
    let folder = tempfile::tempdir().expect("folder");
    left_behind(folder.path(), 0..4000).await;
    let (api, taken) = sink(|_| Answer::text(200, "ok")).await;
    let archive = start(folder.path(), &api);
    let reached = async {
        while !taken.all().contains(&0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        add(&archive, 9000..9001);
        while taken.all().len() < 4001 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("all of it");
    assert_ne!(taken.all().last(), Some(&9000), "it did not wait for the whole of it");
    archive.close().await;
}
