//! One API server as the burst sees it: many writers, one watch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::HeaderMap;
use portico::error::Side;
use portico::kubernetes::kubeconfig::target_from_kubeconfig;
use portico::kubernetes::resources::PODS;
use portico::kubernetes::{ApiClient, ListOptions, PatchKind, WatchEvent, WatchStream};
use portico::names::keys;
use portico::runtime::clock::Clock;
use portico::upstream::{Pool, Reach};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Marks the status that the burst writes.
pub(crate) const MESSAGE: &str = "written by the bench";

/// Clients of one namespace, each with connections of its own.
pub(crate) struct Cluster {
    clients: Vec<ApiClient>,
    namespace: String,
}

/// What a watch event says that matters here.
pub(crate) struct Event {
    pub(crate) deleted: bool,
    pub(crate) message: String,
}

/// An open watch that has skipped what was there before.
pub(crate) struct Watched(WatchStream);

impl Cluster {
    pub(crate) fn new(kubeconfig: &str, namespace: &str, clients: usize) -> Self {
        let yaml = std::fs::read_to_string(kubeconfig).expect("kubeconfig");
        let client = |_| {
            let target = target_from_kubeconfig(&yaml, Side::Host, Reach::default()).expect("kubeconfig");
            ApiClient::new(Arc::new(Pool::new(target, Clock::system())), HeaderMap::new())
        };
        Self { clients: (0..clients).map(client).collect(), namespace: namespace.to_owned() }
    }

    /// A watch from now on.
    pub(crate) async fn watch(&self, selector: &str) -> Watched {
        let options = options(selector);
        let client = &self.clients[0];
        let (_, version) = client.list(&PODS, Some(&self.namespace), &options).await.expect("list");
        Watched(client.watch(&PODS, Some(&self.namespace), &options, &version).await.expect("watch"))
    }

    /// When each was accepted.
    pub(crate) async fn create_all(&self, names: &[String]) -> HashMap<String, Instant> {
        self.each(names, |client, name| async move {
            client.create(&PODS, Some(&self.namespace), &pod(&name)).await.expect("created");
            (name, Instant::now())
        })
        .await
    }

    pub(crate) async fn delete_all(&self, names: &[String]) -> HashMap<String, Instant> {
        self.each(names, |client, name| async move {
            client.delete(&PODS, Some(&self.namespace), &name, None, Some(0)).await.expect("deleted");
            (name, Instant::now())
        })
        .await
    }

    /// When each (virtual name, name here) was patched.
    pub(crate) async fn patch_all(&self, targets: &[(String, String)]) -> HashMap<String, Instant> {
        let by_virtual: HashMap<&String, &String> = targets.iter().map(|(v, h)| (v, h)).collect();
        let names: Vec<String> = targets.iter().map(|(v, _)| v.clone()).collect();
        let patch = &json!({"status": {"message": MESSAGE}});
        self.each(&names, |client, name| {
            let here = by_virtual[&name].clone();
            async move {
                let patched = client.patch(&PODS, Some(&self.namespace), &here, "status", PatchKind::Merge, patch);
                patched.await.expect("patched");
                (name, Instant::now())
            }
        })
        .await
    }

    pub(crate) async fn names_by_virtual(&self, selector: &str) -> HashMap<String, String> {
        let (items, _) = self.clients[0].list(&PODS, Some(&self.namespace), &options(selector)).await.expect("list");
        items.iter().map(|pod| (virtual_name(pod), own_name(pod))).collect()
    }

    /// Work dealt out to the clients; each does its part one after another, as 16 people would.
    async fn each<F, Fut>(&self, names: &[String], work: F) -> HashMap<String, Instant>
    where
        F: Fn(ApiClient, String) -> Fut,
        Fut: Future<Output = (String, Instant)>,
    {
        let parts = self.clients.iter().enumerate().map(|(at, client)| {
            let (mine, work) = (names.iter().skip(at).step_by(self.clients.len()), &work);
            async move {
                let mut done = Vec::new();
                for name in mine {
                    done.push(work(client.clone(), name.clone()).await);
                }
                done
            }
        });
        join_all(parts).await.into_iter().flatten().collect()
    }
}

impl Watched {
    /// When each virtual name had an event as wanted.
    pub(crate) async fn until(
        mut self,
        names: Vec<String>,
        wanted: impl Fn(&Event) -> bool,
        patience: Duration,
    ) -> HashMap<String, Instant> {
        let mut missing: HashSet<String> = names.into_iter().collect();
        let mut seen = HashMap::new();
        let all = async {
            while !missing.is_empty() {
                let (json, deleted) = match self.0.next().await.expect("watch").expect("the watch ended early") {
                    WatchEvent::Applied(json) => (json, false),
                    WatchEvent::Deleted(json) => (json, true),
                    WatchEvent::Bookmark { .. } => continue,
                };
                let pod: Value = serde_json::from_slice(&json).expect("pod");
                let message = pod.pointer("/status/message").and_then(Value::as_str).unwrap_or_default().to_owned();
                let name = virtual_name(&pod);
                if wanted(&Event { deleted, message }) && missing.remove(&name) {
                    seen.insert(name, Instant::now());
                }
            }
        };
        let done = tokio::time::timeout(patience, all).await;
        assert!(done.is_ok(), "{} pods never came, such as {:?}", missing.len(), missing.iter().next());
        seen
    }
}

/// The name inside the tenant, or its own where it has no other.
fn virtual_name(pod: &Value) -> String {
    let recorded = pod.pointer("/metadata/annotations").and_then(|a| a.get(keys::OBJECT_NAME)).and_then(Value::as_str);
    recorded.map_or_else(|| own_name(pod), str::to_owned)
}

fn own_name(pod: &Value) -> String {
    pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn options(selector: &str) -> ListOptions {
    ListOptions { label_selector: selector.to_owned(), ..ListOptions::default() }
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {"nodeSelector": {"bench.example/node": "none"}, "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": "bench.example/none:1",
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}]}})
}

/// CPU of all `portico serve` processes of this machine: the local cluster runs them beside us.
pub(crate) fn portico_cpu() -> Duration {
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = command.split(|b| *b == 0);
        let is_portico = words.next().is_some_and(|w| w.ends_with(b"portico")) && words.any(|w| w == b"serve");
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if is_portico {
            let fields: Vec<&str> = stat.rsplit(')').next().expect("stat").split_whitespace().collect();
            ticks += fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
        }
    }
    // USER_HZ is 100 on every Linux that this runs on.
    Duration::from_millis(ticks * 10)
}
