//! The DNS plane as a whole: a registry with two tenants, each with a fake API server, asked over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/support.rs"]
mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use parking_lot::Mutex;
use portico::config::DnsConfig;
use portico::dns;
use portico::error::Side;
use portico::names::TenantId;
use portico::runtime::clock::Clock;
use portico::runtime::drain;
use portico::runtime::task::Task;
use portico::runtime::telemetry::Metrics;
use portico::runtime::watched::Watched;
use portico::tenant::{Registry, Tenant};
use portico::tls::{ClientTrust, ServerTls};
use portico::upstream::Pool;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;

use support::fake::{Answer, FakeApi, Seen, parameters};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Far longer than anything here takes; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

fn service(name: &str, address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "spec": {"clusterIP": address, "clusterIPs": [address]},
        "metadata": {"name": name, "namespace": "default", "resourceVersion": "5"}})
}

fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
}

/// Senders of the watches on Services that are open.
type Watches = Arc<Mutex<Vec<mpsc::Sender<Bytes>>>>;

/// An API server with one Service; it may know streaming lists or only the old way.
async fn api(found: Value, streaming: bool) -> (FakeApi, Watches) {
    api_with(found, Vec::new(), streaming).await
}

/// The same, with EndpointSlices.
async fn api_with(found: Value, slices: Vec<Value>, streaming: bool) -> (FakeApi, Watches) {
    let watches = Watches::default();
    let opened = Arc::clone(&watches);
    let api = FakeApi::start(move |seen: Seen| {
        let (found, slices, opened) = (found.clone(), slices.clone(), Arc::clone(&opened));
        async move {
            let has = |name: &str| parameters(&seen.query).iter().any(|(key, _)| key == name);
            let services = seen.path == "/api/v1/services";
            let items = if services { vec![found] } else { slices };
            if has("sendInitialEvents") && !streaming {
                return Answer::status(422, "Invalid", "sendInitialEvents is forbidden");
            }
            if !has("watch") {
                return Answer::json(200, &json!({"metadata": {"resourceVersion": "7"}, "items": items}));
            }
            let (answer, sender) = Answer::stream();
            if has("sendInitialEvents") {
                for item in &items {
                    sender.send(line("ADDED", item)).await.expect("room");
                }
                let metadata = json!({"resourceVersion": "7", "annotations": {"k8s.io/initial-events-end": "true"}});
                sender.send(line("BOOKMARK", &json!({"metadata": metadata}))).await.expect("room");
            }
            // Slices too: a dropped sender would end the watch.
            let at = if services { 0 } else { opened.lock().len() };
            opened.lock().insert(at, sender);
            answer
        }
    })
    .await;
    (api, watches)
}

fn tenant(name: &str, api: &FakeApi, generation: u64, port: u16) -> Arc<Tenant> {
    let pool = Arc::new(Pool::new(api.target(Side::Backend), Clock::system()));
    let serving = api.pki.server(&["tenant.test"]);
    Arc::new(Tenant {
        uid: name.to_owned(),
        generation,
        port,
        server_ca_pem: api.pki.ca_pem().to_owned(),
        api_service_ip: Ipv4Addr::new(10, 96, 0, 1).into(),
        dns_service_ip: Ipv4Addr::new(10, 96, 0, 2).into(),
        fingerprint: format!("{name}-{generation}"),
        ..support::tenant::tenant(
            TenantId::parse("team", name).expect("id"),
            pool,
            ServerTls::from_pem(serving.certificate.as_bytes(), serving.key.as_bytes()).expect("serving"),
            ClientTrust::from_pem(api.pki.ca_pem().as_bytes()).expect("trust"),
        )
    })
}

async fn start(registry: &Arc<Registry>) -> (drain::DrainTrigger, Task) {
    start_with_metrics(registry, &Metrics::default()).await
}

async fn start_with_metrics(registry: &Arc<Registry>, metrics: &Metrics) -> (drain::DrainTrigger, Task) {
    let (trigger, drain) = drain::channel();
    // An upstream that nobody listens on: what is forwarded fails.
    let upstream = vec!["127.0.0.1:9".to_owned()];
    // Whoever waits for an answer asks as fast as it can.
    let config = DnsConfig { upstream, max_questions_per_second_per_tenant: 1_000_000, ..DnsConfig::default() };
    let (registry, clock) = (Arc::clone(registry), Clock::system());
    let watched = Watched::new(clock.clone());
    let parts = dns::Parts { config, registry, metrics: metrics.clone(), clock, address: LOCAL, watched };
    (trigger, dns::run(parts, &drain).await.expect("a configuration that can be used"))
}

/// One question; `None` when nobody listens there.
async fn ask(port: u16, name: &str) -> Option<Message> {
    let socket = UdpSocket::bind((LOCAL, 0)).await.expect("socket");
    socket.connect(SocketAddr::new(LOCAL, port + 1)).await.expect("connected");
    let mut query = Message::new(77, MessageType::Query, OpCode::Query);
    query.queries = vec![Query::query(Name::from_ascii(name).expect("name"), RecordType::A)];
    socket.send(&query.to_vec().expect("bytes")).await.ok()?;
    let mut buffer = vec![0; 2048];
    let length = socket.recv(&mut buffer).await.ok()?;
    Some(Message::from_vec(&buffer[..length]).expect("reply"))
}

/// One question over TCP; the answer as it came.
async fn ask_tcp(port: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut stream = TcpStream::connect((LOCAL, port + 1)).await.expect("connected");
    let mut query = Message::new(77, MessageType::Query, OpCode::Query);
    query.queries = vec![Query::query(Name::from_ascii(name).expect("name"), kind)];
    let bytes = query.to_vec().expect("bytes");
    stream.write_u16(bytes.len() as u16).await.expect("sent");
    stream.write_all(&bytes).await.expect("sent");
    let mut reply = vec![0; usize::from(stream.read_u16().await.expect("length"))];
    stream.read_exact(&mut reply).await.expect("reply");
    reply
}

fn address(reply: &Message) -> Option<Ipv4Addr> {
    reply.answers.iter().find_map(|r| match &r.data {
        RData::A(a) => Some(a.0),
        _ => None,
    })
}

/// Asks again until the answer is as wanted.
async fn until(port: u16, name: &str, wanted: impl Fn(Option<&Message>) -> bool) {
    let asking = async {
        while !wanted(ask(port, name).await.as_ref()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{name} never became as wanted"));
}

#[tokio::test]
async fn tenants_come_change_and_go_each_with_its_own_names() {
    let (ours, our_watches) = api(service("ours", "10.96.1.1"), true).await;
    let (theirs, _their_watches) = api(service("theirs", "10.96.2.2"), false).await;
    let (our_port, their_port) = (support::port::free(LOCAL), support::port::free(LOCAL));
    let registry = Arc::new(Registry::default());
    let (trigger, running) = start(&registry).await;
    registry.put(&tenant("ours", &ours, 1, our_port));
    registry.put(&tenant("theirs", &theirs, 2, their_port));

    let found = |ip: [u8; 4]| move |reply: Option<&Message>| reply.and_then(address) == Some(ip.into());
    until(our_port, "ours.default.svc.cluster.local.", found([10, 96, 1, 1])).await;
    until(their_port, "theirs.default.svc.cluster.local.", found([10, 96, 2, 2])).await;
    for (port, hidden) in [(our_port, "theirs"), (their_port, "ours")] {
        let reply = ask(port, &format!("{hidden}.default.svc.cluster.local.")).await.expect("reply");
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    }

    // A new Service is seen as it comes, and a removed one goes.
    let events = our_watches.lock()[0].clone();
    events.send(line("ADDED", &service("new", "10.96.1.9"))).await.expect("watched");
    until(our_port, "new.default.svc.cluster.local.", found([10, 96, 1, 9])).await;
    events.send(line("DELETED", &service("ours", "10.96.1.1"))).await.expect("watched");
    let gone = |reply: Option<&Message>| reply.is_some_and(|r| r.metadata.response_code == ResponseCode::NXDomain);
    until(our_port, "ours.default.svc.cluster.local.", gone).await;

    // A new generation keeps the names while it connects: never an answer without data in between.
    registry.put(&tenant("ours", &ours, 3, our_port));
    let reply = ask(our_port, "new.default.svc.cluster.local.").await.expect("reply");
    assert_ne!(reply.metadata.response_code, ResponseCode::ServFail);

    // A tenant that goes takes its listener along and nobody else's.
    registry.remove(&TenantId::parse("team", "theirs").expect("id"));
    until(their_port, "theirs.default.svc.cluster.local.", |reply| reply.is_none()).await;
    assert!(ask(our_port, "kubernetes.default.svc.cluster.local.").await.is_some());

    assert!(trigger.drain(PATIENCE).await);
    running.join().await.expect("no panic");
    assert!(ask(our_port, "kubernetes.default.svc.cluster.local.").await.is_none());
}

/// Limits follow the tenant's generations, what it has asked stays counted, and its series end with it.
#[tokio::test]
async fn limits_change_with_a_generation_and_counts_stay() {
    let (api, _watches) = api(service("web", "10.96.1.1"), true).await;
    let port = support::port::free(LOCAL);
    let (registry, metrics) = (Arc::new(Registry::default()), Metrics::default());
    let (_trigger, _running) = start_with_metrics(&registry, &metrics).await;
    let put = |generation, questions| {
        let mut tenant = Arc::into_inner(tenant("dev", &api, generation, port)).expect("the only one");
        tenant.limits.dns_questions_per_second = questions;
        registry.put(&Arc::new(tenant));
    };
    let count = |family: &str| -> Option<f64> {
        let text = metrics.render().expect("renders");
        let line = text.lines().find(|line| line.starts_with(&format!("{family}{{")))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    let name = "web.default.svc.cluster.local.";
    let found = |reply: Option<&Message>| reply.and_then(address).is_some();
    put(1, None);
    until(port, name, found).await;
    let before = count("portico_dns_questions_total").expect("shown");
    assert!(before >= 1.0);
    put(2, Some(10));
    until(port, name, |reply| reply.is_some_and(|r| r.metadata.response_code == ResponseCode::ServFail)).await;
    assert!(count("portico_dns_questions_total").expect("shown") > before);
    assert!(count("portico_dns_limited_total").expect("shown") >= 1.0);
    put(3, None);
    until(port, name, found).await;
    registry.remove(&TenantId::parse("team", "dev").expect("id"));
    until(port, name, |reply| reply.is_none()).await;
    assert_eq!(count("portico_dns_questions_total"), None);
}

#[tokio::test]
async fn a_backend_that_does_not_answer_delays_nobody_else() {
    let (alive, _watches) = api(service("web", "10.96.1.1"), true).await;
    let hanging = FakeApi::start(|_| async { Answer::Hang }).await;
    let (alive_port, hanging_port) = (support::port::free(LOCAL), support::port::free(LOCAL));
    let registry = Arc::new(Registry::default());
    let (_trigger, _running) = start(&registry).await;
    registry.put(&tenant("hanging", &hanging, 1, hanging_port));
    registry.put(&tenant("alive", &alive, 2, alive_port));
    hanging.wait_seen(1).await;
    until(alive_port, "web.default.svc.cluster.local.", |r| r.and_then(address).is_some()).await;
    let reply = ask(hanging_port, "web.default.svc.cluster.local.").await.expect("reply");
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

/// What killed the process: 305 KB that one question multiplied to five million records.
#[tokio::test]
async fn one_tenants_slice_of_many_endpoints_and_ports_costs_no_more_than_an_answer() {
    let mut headless = service("many", "None");
    headless["spec"]["clusterIPs"] = json!(["None"]);
    let endpoints: Vec<_> =
        (0..1000).map(|i| json!({"addresses": [format!("10.9.{}.{}", i / 250, i % 250)]})).collect();
    let ports: Vec<_> = (1..=5000).map(|i| json!({"name": format!("p{i}"), "port": i, "protocol": "TCP"})).collect();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "many-1", "namespace": "default", "resourceVersion": "6",
            "labels": {"kubernetes.io/service-name": "many"}}, "endpoints": endpoints, "ports": ports});
    let (hostile, _hostile_watches) = api_with(headless, vec![slice], true).await;
    let (other, _other_watches) = api(service("web", "10.96.1.1"), true).await;
    let (hostile_port, other_port) = (support::port::free(LOCAL), support::port::free(LOCAL));
    let registry = Arc::new(Registry::default());
    let (_trigger, _running) = start(&registry).await;
    registry.put(&tenant("hostile", &hostile, 1, hostile_port));
    registry.put(&tenant("other", &other, 2, other_port));

    let many = "many.default.svc.cluster.local.";
    until(hostile_port, many, |r| r.and_then(address).is_some()).await;
    until(other_port, "web.default.svc.cluster.local.", |r| r.and_then(address).is_some()).await;
    for kind in [RecordType::SRV, RecordType::ANY, RecordType::A] {
        let reply = ask_tcp(hostile_port, many, kind).await;
        let records = Message::from_vec(&reply).expect("reply").answers.len();
        assert!(records >= 1000, "{kind}: {records} records");
        assert!(ask(other_port, "web.default.svc.cluster.local.").await.as_ref().and_then(address).is_some());
    }
    let cut = ask(hostile_port, many).await.expect("reply");
    assert!(cut.metadata.truncation && !cut.answers.is_empty());
}

/// An API server that cannot stream a list and whose objects are large: page by page, in smaller pages after one that is
/// too large, to the end.
#[tokio::test]
async fn a_list_is_read_page_by_page() {
    const LAST: usize = 23;
    let api = FakeApi::start(|seen: Seen| async move {
        let parameters = parameters(&seen.query);
        let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_string());
        if get("sendInitialEvents").is_some() {
            return Answer::status(422, "Invalid", "sendInitialEvents is forbidden");
        }
        if get("watch").is_some() {
            return Answer::Hang;
        }
        let limit: usize = get("limit").and_then(|limit| limit.parse().ok()).expect("every list is paged");
        if seen.path != "/api/v1/services" {
            return Answer::json(200, &json!({"metadata": {"resourceVersion": "7"}, "items": []}));
        }
        let from: usize = get("continue").map_or(0, |token| token.trim_end_matches("==&x").parse().expect("our token"));
        let to = (from + limit).min(LAST);
        let mut items: Vec<_> = (from..to).map(|i| service(&format!("s{i}"), "10.96.1.1")).collect();
        if limit == 100 {
            items[0]["metadata"]["annotations"] = json!({"large": "x".repeat(17 << 20)});
        }
        let token = if to < LAST { format!("{to}==&x") } else { String::new() };
        Answer::json(200, &json!({"metadata": {"resourceVersion": "7", "continue": token}, "items": items}))
    })
    .await;
    let port = support::port::free(LOCAL);
    let registry = Arc::new(Registry::default());
    let (_trigger, _running) = start(&registry).await;
    registry.put(&tenant("paged", &api, 1, port));
    for i in [0, 5, LAST - 1] {
        until(port, &format!("s{i}.default.svc.cluster.local."), |r| r.and_then(address).is_some()).await;
    }
}
