//! What is open while Portico is replaced: a watch that is taken up again where it ended, and commands in a pod, one behind
//! the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use http::Method;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::WatchEvent;
use parking_lot::Mutex;
use portico::runtime::task::{self, Task};
use serde_json::{Value, json};

use crate::harness::Space;

const NAME: &str = "clock";
/// Between two writes, and between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// Longer than a second on its way, and far shorter than a replica drains.
const COMMAND: &str = "for n in 1 2 3 4; do echo $n; sleep 1; done";

/// Numbers written one after another into a ConfigMap, and the watch that must see each of them once.
pub(super) struct Clock {
    writer: Task,
    watcher: Task,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    written: AtomicU64,
    over: AtomicBool,
    seen: Mutex<Vec<u64>>,
    /// How often the watch ended between two events.
    ended: AtomicUsize,
    /// How often it could not be opened at once.
    repeated: AtomicUsize,
    /// How it ended otherwise.
    cut: Mutex<Vec<String>>,
}

/// What came of the commands.
#[derive(Debug, Default)]
pub(super) struct Commands {
    pub(super) whole: usize,
    pub(super) broken: Vec<String>,
}

impl Clock {
    pub(super) async fn start(space: &Space) -> Self {
        let kubeconfig = Kubeconfig::read_from(&space.tenant.kubeconfig).expect("a kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.expect("usable");
        config.default_retry = false;
        let client = kube::Client::try_from(config).expect("a client");
        let list = format!("/api/v1/namespaces/{}/configmaps", space.name);
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": {"n": "0"}});
        let made = call(&client, Method::POST, &list, &object).await.expect("created");
        let version = text(&made["metadata"]["resourceVersion"]);
        let told = Arc::<Told>::default();
        let watcher = task::spawn("watcher", watch(client.clone(), list.clone(), version, Arc::clone(&told)));
        let writer = task::spawn("writer", write(client, format!("{list}/{NAME}"), Arc::clone(&told)));
        Self { writer, watcher, told }
    }

    pub(super) fn seen(&self) -> usize {
        self.told.seen.lock().len()
    }

    /// Stops writing; every number was seen, once and in its order, by a watch that ended and was never cut.
    pub(super) async fn finish(self, tenant: &str) {
        self.told.over.store(true, Ordering::SeqCst);
        self.writer.join().await.expect("the writer ends");
        let last = self.told.written.load(Ordering::SeqCst);
        let all = async {
            while self.told.seen.lock().last() != Some(&last) && !self.watcher.is_finished() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), all).await;
        let (seen, cut) = (self.told.seen.lock().clone(), self.told.cut.lock().clone());
        let (ended, repeated) = (self.told.ended.load(Ordering::SeqCst), self.told.repeated.load(Ordering::SeqCst));
        eprintln!("{tenant}: {last} events, the watch ended {ended} times, was opened in vain {repeated} times");
        assert!(in_time.is_ok(), "{tenant}: {:?} is the last of {last}; cut: {cut:?}", seen.last());
        assert_eq!(seen, (1..=last).collect::<Vec<_>>(), "{tenant}: cut: {cut:?}");
        assert!(cut.is_empty(), "{tenant}: {cut:?}");
        assert!(ended > 0, "{tenant}: no replica that the watch went through was replaced");
    }
}

/// Runs commands until it is over; each must give all of its lines and end well.
pub(super) fn commands(space: &Space, over: &AtomicBool) -> Commands {
    let mut commands = Commands::default();
    while !over.load(Ordering::SeqCst) {
        let answer = space.sh("box", COMMAND);
        if answer.code == 0 && answer.out() == "1\n2\n3\n4\n" {
            commands.whole += 1;
        } else {
            commands.broken.push(answer.to_string());
        }
    }
    commands
}

/// One number after another. A write is no load here, but the means: it is tried until it is answered.
async fn write(client: kube::Client, path: String, told: Arc<Told>) {
    while !told.over.load(Ordering::SeqCst) {
        let next = told.written.load(Ordering::SeqCst) + 1;
        let patch = json!({"data": {"n": next.to_string()}});
        while let Err(error) = call(&client, Method::PATCH, &path, &patch).await {
            eprintln!("write {next} again: {error:?}");
            tokio::time::sleep(PAUSE).await;
        }
        told.written.store(next, Ordering::SeqCst);
        tokio::time::sleep(PAUSE).await;
    }
}

/// From where it was, again and again, as clients do. Ends when there is nothing to go on from.
async fn watch(client: kube::Client, list: String, mut version: String, told: Arc<Told>) {
    loop {
        let path = format!("{list}?watch=1&fieldSelector=metadata.name%3D{NAME}&resourceVersion={version}");
        let request = http::Request::get(path).body(Vec::new()).expect("a request");
        let Ok(events) = client.request_events::<Value>(request).await else {
            told.repeated.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    version = text(&object["metadata"]["resourceVersion"]);
                    told.seen.lock().push(text(&object["data"]["n"]).parse().expect("a number"));
                }
                Ok(WatchEvent::Bookmark(_)) => {}
                Ok(WatchEvent::Deleted(_)) => return told.cut.lock().push("the object is gone".to_owned()),
                Ok(WatchEvent::Error(status)) => return told.cut.lock().push(format!("{status:?}")),
                Err(error) => told.cut.lock().push(format!("{error:?}")),
            }
        }
        told.ended.fetch_add(1, Ordering::SeqCst);
    }
}

async fn call(client: &kube::Client, method: Method, path: &str, body: &Value) -> Result<Value, kube::Error> {
    let form = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, form);
    let request = request.body(body.to_string().into_bytes()).expect("a request");
    let answer = tokio::time::timeout(Duration::from_secs(15), client.request(request)).await;
    answer.unwrap_or_else(|_| Err(kube::Error::Service("no answer".into())))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
