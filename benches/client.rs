//! What `kube::Client` and the tower layers cost the planes of low rate: CPU of one call and memory of one client, through
//! them beside the pool itself, on the same server in the same run. `BENCH_CALLS` changes the length.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../tests/support/environment.rs"]
mod environment;
#[path = "../tests/support/support.rs"]
mod support;

use std::sync::Arc;

use http::HeaderMap;
use portico::error::Side;
use portico::kubernetes::resources::{CONFIG_MAPS, VIRTUAL_CLUSTERS};
use portico::kubernetes::{ApiClient, ListOptions};
use portico::runtime::clock::Clock;
use portico::upstream::{Pool, Target};
use serde_json::{Value, json};
use support::fake::{Answer, FakeApi, Seen};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: usize = 5;
const CLIENTS: usize = 1000;

fn main() {
    let calls = environment::number("BENCH_CALLS", 10_000_usize);
    let (sender, receiver) = std::sync::mpsc::channel();
    // The server's processor time is another thread's.
    std::thread::spawn(move || runtime().block_on(serve(&sender)));
    let target = receiver.recv().expect("a server");
    runtime().block_on(compare(target, calls));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

async fn serve(ready: &std::sync::mpsc::Sender<Target>) {
    let spec = json!({"expose": {"hosts": ["app.example.com"]}, "storage": {"volumeClaim": {"size": "5Gi"}}});
    let cluster = |n: usize| {
        json!({"metadata": {"name": format!("cluster-{n}"), "namespace": "team", "uid": n.to_string(),
        "annotations": {"text": "x".repeat(1000)}}, "spec": spec, "status": {"port": 20_000 + n}})
    };
    let list = json!({"metadata": {"resourceVersion": "1"}, "items": (0..500).map(cluster).collect::<Vec<Value>>()});
    let one =
        json!({"metadata": {"name": "a", "namespace": "team", "resourceVersion": "1"}, "data": {"a": "x".repeat(800)}});
    let api = FakeApi::start(move |seen: Seen| {
        let body = if seen.path.ends_with("virtualclusters") { list.clone() } else { one.clone() };
        async move { Answer::json(200, &body) }
    })
    .await;
    ready.send(api.target(Side::Host)).expect("asked for");
    std::future::pending::<()>().await;
}

async fn compare(target: Target, calls: usize) {
    let direct = ApiClient::new(Arc::new(Pool::new(target, Clock::system())), HeaderMap::new());
    let layered = direct.layered();
    let lists = (calls / 100).max(1);
    println!("| call | pool itself, us | kube and tower, us | ratio |\n|---|---|---|---|");
    let (mut gets, mut pages) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for _ in 0..ROUNDS {
        gets.0.push(get(&direct, calls).await);
        gets.1.push(get(&layered, calls).await);
        pages.0.push(list(&direct, lists).await);
        pages.1.push(list(&layered, lists).await);
    }
    for (what, (direct, layered)) in [("get", gets), ("list of 500", pages)] {
        let (direct, layered) = (median(direct), median(layered));
        println!("| {what} | {direct:.1} | {layered:.1} | {:.2} |", layered / direct);
    }
    let resident = || support::process::resident(std::process::id()) as f64;
    let before = resident();
    let clients: Vec<ApiClient> = (0..CLIENTS).map(|_| direct.layered()).collect();
    tokio::task::yield_now().await;
    println!("\nOne more client of a plane: {:.1} KiB.", (resident() - before) / CLIENTS as f64);
    drop(clients);
}

async fn get(client: &ApiClient, calls: usize) -> f64 {
    let before = processor();
    for _ in 0..calls {
        client.get(&CONFIG_MAPS, Some("team"), "a").await.expect("an answer").expect("there");
    }
    (processor() - before) / calls as f64
}

async fn list(client: &ApiClient, calls: usize) -> f64 {
    let before = processor();
    for _ in 0..calls {
        let (items, _) = client.list(&VIRTUAL_CLUSTERS, None, &ListOptions::default()).await.expect("an answer");
        assert_eq!(items.len(), 500);
    }
    (processor() - before) / calls as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Microseconds that this thread has run.
fn processor() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds") / 1000.0
}
