//! API servers that a tenant brings (`distro: external`) and that lie: over real TLS and HTTP, beside a neighbour whose pods
//! go on, and of whose objects on the host nothing changes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use portico::config::SyncerConfig;
use portico::error::Side;
use portico::kubernetes::ApiClient;
use portico::names::keys;
use portico::runtime::clock::Clock;
use portico::runtime::task;
use portico::syncer::Member;
use portico::upstream::Pool;
use serde_json::{Value, json};

use super::hostile::{Tenant, copies, member, pod, start};
use super::server::{Faults, Server};
use super::support::fake::{Answer, FakeApi, Seen};
use super::{text, wrong_service};

const PATIENCE: Duration = Duration::from_secs(30);
/// Requests of pods that an attack gets to see before the neighbour is asked.
const SEEN: usize = 2;

/// What such a server says when its pods are listed and watched.
type Lie = fn(&Seen, &Known) -> Answer;

/// What the hostile tenant found out about its neighbour.
#[derive(Clone)]
struct Known {
    virtual_uid: String,
    host_name: String,
    host_uid: String,
}

fn list(items: &Value, version: &str, next: &str) -> Answer {
    let metadata = json!({"resourceVersion": version, "continue": next});
    Answer::json(200, &json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}))
}

/// These pieces in turn, for as long as somebody reads.
fn endless(first: &'static str, piece: String) -> Answer {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    task::spawn("endless", async move {
        let mut next = Bytes::from_static(first.as_bytes());
        let piece = Bytes::from(piece);
        while sender.send(next).await.is_ok() {
            next = piece.clone();
        }
    })
    .ends_by_itself();
    Answer::Stream(Response::builder().header("content-type", "application/json").body(()).unwrap(), receiver)
}

fn is_watch(seen: &Seen) -> bool {
    seen.query.contains("watch=")
}

fn silent_watch() -> Answer {
    let (answer, sender) = Answer::stream();
    task::spawn("silent", async move { sender.closed().await }).ends_by_itself();
    answer
}

fn events(events: &[Value]) -> Answer {
    let (answer, sender) = Answer::stream();
    for event in events {
        sender.try_send(Bytes::from(format!("{event}\n"))).unwrap();
    }
    task::spawn("events", async move { sender.closed().await }).ends_by_itself();
    answer
}

fn endless_list(seen: &Seen, _: &Known) -> Answer {
    let from = seen.query.len();
    let items: Value = (0..500).map(|n| pod(&format!("p-{from}-{n}"), json!({}))).collect();
    list(&items, "1", &format!("again-{}", "x".repeat(from % 100)))
}

fn huge_page(_: &Seen, _: &Known) -> Answer {
    endless("{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[{}", ",{\"a\":[1]}".repeat(5000))
}

fn deep_page(_: &Seen, _: &Known) -> Answer {
    Answer::text(200, &format!("{{\"metadata\":{{\"resourceVersion\":\"1\"}},\"items\":{}", "[".repeat(200_000)))
}

fn malformed(seen: &Seen, _: &Known) -> Answer {
    match seen.headers.len() % 2 {
        0 => Answer::text(200, "{\"kind\":\"PodList\",\"items\":[{\"metadata\""),
        _ => Answer::text(200, "<html>\u{0}</html>"),
    }
}

fn endless_event(seen: &Seen, _: &Known) -> Answer {
    if is_watch(seen) {
        endless("{\"type\":\"ADDED\",\"object\":{\"a\":\"", "x".repeat(1 << 16))
    } else {
        list(&json!([]), "1", "")
    }
}

fn silence(seen: &Seen, _: &Known) -> Answer {
    if is_watch(seen) { silent_watch() } else { list(&json!([]), "1", "") }
}

fn nothing_at_all(_: &Seen, _: &Known) -> Answer {
    Answer::Hang
}

/// Whatever an object can say about who it is.
fn liars(known: &Known) -> Vec<Value> {
    let with = |metadata: Value| {
        let mut object = pod("x", json!({}));
        object["metadata"] = metadata;
        object
    };
    vec![
        with(json!({"name": "web", "namespace": "ns", "uid": known.virtual_uid, "resourceVersion": "5"})),
        with(json!({"name": known.host_name, "namespace": "team-a", "uid": known.host_uid, "resourceVersion": "5",
            "labels": {keys::CLUSTER: "quiet"}, "annotations": {keys::OBJECT_NAME: "web", "portico.dev/object-namespace": "ns",
            "portico.dev/object-uid": known.virtual_uid}, "ownerReferences": [{"apiVersion": "v1", "kind": "Pod",
            "name": known.host_name, "uid": known.host_uid}], "finalizers": ["a/b"]})),
        with(json!({"name": "../../team-a/pods/web", "namespace": "ns", "uid": "u1"})),
        with(json!({"name": "web", "namespace": "../kube-system", "uid": "u2"})),
        with(json!({"name": "web?dryRun=All", "namespace": "ns/../..", "uid": "u3"})),
        with(json!({"name": "a".repeat(100_000), "namespace": "ns", "uid": "u4"})),
        with(json!({"name": "", "namespace": "", "uid": ""})),
        with(json!({"name": 7, "namespace": ["ns"], "uid": {}})),
        with(Value::Null),
        json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "as-secret", "namespace": "ns", "uid": "u5"}, "data": {"a": "Yg=="}}),
        json!([]),
        json!("pod"),
        with(
            json!({"name": "deleting", "namespace": "ns", "uid": "u6", "deletionTimestamp": "yesterday", "deletionGracePeriodSeconds": -1}),
        ),
    ]
}

fn lying_list(seen: &Seen, known: &Known) -> Answer {
    if is_watch(seen) { silent_watch() } else { list(&liars(known).into(), "10", "") }
}

/// The same one by one, with versions that go backwards, are no numbers, or are missing, and ends of what never was.
fn lying_watch(seen: &Seen, known: &Known) -> Answer {
    if !is_watch(seen) {
        return list(&json!([]), "10", "");
    }
    let kinds = ["ADDED", "DELETED", "MODIFIED", "BOOKMARK", "NONSENSE"];
    let versions =
        [json!("9"), json!("0"), json!("-1"), json!("x"), Value::Null, json!(3), json!("18446744073709551616")];
    let mut all = Vec::new();
    for (n, mut object) in liars(known).into_iter().enumerate() {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), versions[n % versions.len()].clone());
        }
        all.extend(kinds.map(|kind| json!({"type": kind, "object": object})));
    }
    events(&all[..60])
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let so = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, so).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn beside(what: &str, lie: Lie) {
    let faults = Faults::none();
    let host = Server::new("host", Side::Host, Arc::clone(&faults));
    let view = |name: &str, ip: [u8; 4]| {
        super::kinds::view("team-a", name, &super::virtual_cluster(&host, "team-a", name), ip.into())
    };
    let quiet = Tenant {
        view: view("quiet", [10, 96, 0, 10]),
        server: Server::new("quiet", Side::Backend, Arc::clone(&faults)),
    };
    wrong_service(&quiet.server);
    quiet.server.put("pods", pod("web", json!({})));
    let running = start(&host, SyncerConfig::default(), 0);
    running.set_members(vec![member(&quiet)]);
    until("the neighbour's first pod", || copies(&host, "pods", &quiet).len() == 1).await;
    let first = copies(&host, "pods", &quiet).remove(0);
    let before: Vec<String> = host.everything().iter().map(|(_, object)| text(object, "uid")).collect();
    let known = Known {
        virtual_uid: text(&quiet.server.read("pods", "ns", "web").unwrap(), "uid"),
        host_name: text(&first, "name"),
        host_uid: text(&first, "uid"),
    };
    let api = FakeApi::start(move |seen| {
        let answer = match seen.path.as_str() {
            _ if seen.method != "GET" => Answer::json(201, &seen.json()),
            _ if seen.query.contains("sendInitialEvents") => {
                Answer::status(422, "Invalid", "sendInitialEvents: Forbidden")
            }
            "/api/v1/pods" => lie(&seen, &known),
            "/api/v1/namespaces/kube-system" => {
                Answer::json(200, &json!({"metadata": {"name": "kube-system", "uid": "k"}}))
            }
            "/api/v1/namespaces/default/services/kubernetes" => Answer::json(
                200,
                &json!({"metadata": {"name": "kubernetes", "namespace": "default", "uid": "s", "resourceVersion": "1"},
                    "spec": {"clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11"]}}),
            ),
            _ if is_watch(&seen) => silent_watch(),
            path if path.split('/').count() <= 5 => list(&json!([]), "1", ""),
            _ => Answer::status(404, "NotFound", "not found"),
        };
        async move { answer }
    })
    .await;
    let pool = Arc::new(Pool::new(api.target(Side::Backend), Clock::system()));
    let hostile = view("hostile", [10, 96, 0, 11]);
    let liar = Member { view: hostile, api: Arc::new(ApiClient::new(pool, HeaderMap::new())), ..member(&quiet) };
    running.set_members(vec![member(&quiet), liar]);
    let asked = |api: &FakeApi| {
        api.seen().iter().filter(|seen| seen.path == "/api/v1/pods" && !seen.query.contains("sendInitial")).count()
    };
    let least = if what == "nothing at all" { 1 } else { SEEN };
    let paths = || api.seen().iter().map(|seen| format!("{}?{}", seen.path, seen.query)).collect::<Vec<_>>();
    let waiting = async {
        while asked(&api) < least {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let is_asked = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
    assert!(is_asked, "{what}: its pods were never asked for, but {:?}", paths());
    if what == "objects of others in lists" {
        let of_liar = |o: &Value| o["metadata"]["labels"][keys::CLUSTER] == "hostile";
        until("what it says is taken for its own", || host.objects("pods").iter().any(of_liar)).await;
    }
    for n in 0..5 {
        quiet.server.put("pods", pod(&format!("mine-{n}"), json!({})));
        until(&format!("{what}: the neighbour waits"), || copies(&host, "pods", &quiet).len() == n + 2).await;
    }
    let now = host.read("pods", "team-a", &text(&first, "name"));
    assert_eq!(now.as_ref(), Some(&first), "{what}: the neighbour's pod on the host is another one");
    for (plural, object) in host.everything().into_iter().filter(|(plural, _)| *plural != "virtualclusters") {
        let (namespace, cluster) = (text(&object, "namespace"), &object["metadata"]["labels"][keys::CLUSTER]);
        let is_one_of_theirs = namespace == "team-a" && (cluster == "quiet" || cluster == "hostile");
        assert!(is_one_of_theirs || before.contains(&text(&object, "uid")), "{what}: {plural} {object}");
        assert!(!text(&object, "name").contains(['/', '?']), "{what}: {plural} {object}");
    }
    let of_quiet: Vec<_> = copies(&host, "pods", &quiet)
        .iter()
        .map(|pod| pod["metadata"]["annotations"][keys::OBJECT_NAME].clone())
        .collect();
    assert_eq!(of_quiet.len(), 6, "{what}: {of_quiet:?}");
    running.stop().await;
}

/// All of them, one after the other.
#[test]
fn hostile_api_servers_hold_up_and_change_nothing_of_a_neighbour() {
    let lies: [(&str, Lie); 9] = [
        ("an endless list", endless_list),
        ("a huge page", huge_page),
        ("a deep page", deep_page),
        ("no JSON", malformed),
        ("an event without end", endless_event),
        ("silence", silence),
        ("nothing at all", nothing_at_all),
        ("objects of others in lists", lying_list),
        ("objects of others in watches", lying_watch),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (what, lie) in lies {
        runtime.block_on(beside(what, lie));
    }
}
