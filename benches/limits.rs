//! What budgets hold at their bounds: one hostile tenant takes each as far as it goes, and the memory of the one process that
//! serves it is read meanwhile; a neighbour asks all the time. Streams, names and objects are taken in a number, since what
//! bounds them is the tenant's pods and its store before any budget of Portico's.
//!
//! `benches/run limits` prepares the tenants, leaves one replica, and sets the variables. `BENCH_HOLD` seconds that each is
//! held (10), `BENCH_REST` between them (20: the allocator gives back within ten), `BENCH_KINDS` (words of [`KINDS`]).
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../tests/support/environment.rs"]
mod environment;
#[path = "../tests/support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use environment::{number, variable};
use futures::StreamExt as _;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Method, Request};
use portico::runtime::task::{self, Task};
use portico::tls::client_config;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longer than an answer that is not refused takes to begin.
const PATIENCE: Duration = Duration::from_secs(20);
const SAMPLE: Duration = Duration::from_millis(50);
/// Streams of one connection; the gateway takes 250.
const STREAMS: usize = 100;
/// More than any bound.
const CONNECTIONS: usize = 6000;
const ANSWERS: usize = 600;
const WATCHES: usize = 4500;
const BODIES: usize = 100;
/// One byte less than what is announced.
const BODY: usize = 3 << 20;
/// Each is a process in a pod.
const EXECS: usize = 300;
/// Services without an address, each a name in the tenant's zone.
const NAMES: usize = 10_000;
/// Objects of [`LARGE`] bytes each.
const OBJECTS: usize = 500;
const LARGE: usize = 200 << 10;
/// Writes at a time.
const WRITERS: usize = 8;
const KINDS: [&str; 7] = ["connections", "answers", "watches", "bodies", "execs", "names", "objects"];

/// A user of a tenant, as its kubeconfig says.
struct User {
    connector: TlsConnector,
    /// Without h2.
    upgrades: TlsConnector,
    address: SocketAddr,
    name: ServerName<'static>,
    authority: String,
}

/// A connection that is open as long as this lives.
struct Connection {
    sender: SendRequest<Bytes>,
    _task: Task,
}

/// What is held of one request.
enum Held {
    Unread(#[expect(dead_code, reason = "held")] RecvStream),
    Unsent(
        #[expect(dead_code, reason = "held")] SendStream<Bytes>,
        #[expect(dead_code, reason = "held")] ResponseFuture,
    ),
    Stream(#[expect(dead_code, reason = "held")] Box<TlsStream<TcpStream>>),
    /// Something that was made in the tenant.
    Made,
}

/// What became of all requests of one kind.
#[derive(Default)]
struct Asked {
    connections: Vec<Connection>,
    held: Vec<Held>,
    /// By status, or why there was none.
    refused: BTreeMap<String, usize>,
}

/// Resident memory of the process in KiB.
struct Memory {
    pid: u32,
    peak: Arc<AtomicU64>,
    _task: Task,
}

#[derive(Default)]
struct Neighbour {
    asked: AtomicU64,
    failed: AtomicU64,
    over: AtomicBool,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    runtime.block_on(all());
}

async fn all() {
    let hostile = User::read(&variable("BENCH_A"));
    let neighbour = Arc::new(User::read(&variable("BENCH_B")));
    let memory = Memory::of(variable("BENCH_PID").parse().expect("a pid"));
    let (hold, rest) = (number("BENCH_HOLD", 10), number("BENCH_REST", 20));
    let (hold, rest) = (Duration::from_secs(hold), Duration::from_secs(rest));
    println!(
        "\n| taken by one user of one tenant | held | refused | resident before | at most | after | neighbour failed |"
    );
    println!("|---|---|---|---|---|---|---|");
    let wanted = std::env::var("BENCH_KINDS").unwrap_or_else(|_| KINDS.join(" "));
    for kind in wanted.split_whitespace() {
        let before = memory.now();
        memory.peak.store(before, Ordering::SeqCst);
        let served = Arc::new(Neighbour::default());
        let asks = task::spawn("neighbour", ask(Arc::clone(&neighbour), Arc::clone(&served)));
        let asked = match kind {
            "connections" => hostile.connections(CONNECTIONS).await,
            "answers" => hostile.unread("/api/v1/configmaps", ANSWERS).await,
            "watches" => hostile.unread("/api/v1/configmaps?watch=1&resourceVersion=0", WATCHES).await,
            "bodies" => hostile.unsent(BODIES).await,
            "execs" => hostile.execs(EXECS).await,
            "names" => hostile.make("services", NAMES, service).await,
            "objects" => hostile.make("configmaps", OBJECTS, large).await,
            other => panic!("BENCH_KINDS: {other} is none of {KINDS:?}"),
        };
        tokio::time::sleep(hold).await;
        let held = if kind == "connections" { asked.connections.len() } else { asked.held.len() };
        let refused: Vec<_> = asked.refused.iter().map(|(why, count)| format!("{count} x {why:.60}")).collect();
        served.over.store(true, Ordering::SeqCst);
        asks.join().await;
        drop(asked);
        match kind {
            "names" => hostile.unmake("services").await,
            "objects" => hostile.unmake("configmaps").await,
            _ => {}
        }
        tokio::time::sleep(rest).await;
        let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
        let (asked, failed) = (served.asked.load(Ordering::SeqCst), served.failed.load(Ordering::SeqCst));
        println!(
            "| {kind} | {held} | {} | {} | {} | {} | {failed} of {asked} |",
            refused.join(", "),
            mib(before),
            mib(memory.peak.load(Ordering::SeqCst)),
            mib(memory.now()),
        );
    }
}

/// A small read after another, each on a connection of its own.
async fn ask(user: Arc<User>, served: Arc<Neighbour>) {
    while !served.over.load(Ordering::SeqCst) {
        let answer = async {
            let mut connection = user.connect().await?;
            connection.get(&user, "/api/v1/namespaces/default").await.map(|(status, _)| status)
        };
        served.asked.fetch_add(1, Ordering::SeqCst);
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(200)) => {}
            other => {
                eprintln!("  the neighbour got {other:?}");
                served.failed.fetch_add(1, Ordering::SeqCst);
            }
        }
        tokio::time::sleep(SAMPLE).await;
    }
}

impl User {
    fn read(path: &str) -> Self {
        let kubeconfig: Value = serde_json::from_slice(&std::fs::read(path).expect("a kubeconfig")).expect("JSON");
        let (cluster, user) = (&kubeconfig["clusters"][0]["cluster"], &kubeconfig["users"][0]["user"]);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let decode = |value: &Value| {
            let text = value.as_str().expect("credentials inside");
            base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
        };
        let (certificate, key) = (decode(&user["client-certificate-data"]), decode(&user["client-key-data"]));
        let base = client_config(&decode(&cluster["certificate-authority-data"]), Some((&certificate, &key)));
        let mut config = rustls::ClientConfig::clone(&base.expect("TLS"));
        let mut plain = config.clone();
        plain.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.alpn_protocols = vec![b"h2".to_vec()];
        let server: http::Uri = text(&cluster["server"]).expect("a server").parse().expect("an address");
        let host = server.host().expect("a host").to_owned();
        let name = text(&cluster["tls-server-name"]).unwrap_or_else(|| host.clone());
        Self {
            connector: TlsConnector::from(Arc::new(config)),
            upgrades: TlsConnector::from(Arc::new(plain)),
            address: format!("{host}:{}", server.port_u16().unwrap_or(443)).parse().expect("an IP address"),
            name: ServerName::try_from(name).expect("a name"),
            authority: host,
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let stream = TcpStream::connect(self.address).await.map_err(|error| text(&error))?;
        let tls = self.connector.connect(self.name.clone(), stream).await.map_err(|error| text(&error))?;
        // What is not read stays with the gateway, stream by stream.
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(16 << 10).initial_connection_window_size(16 << 20);
        let (sender, connection) = builder.handshake(tls).await.map_err(|error| text(&error))?;
        Ok(Connection { sender, _task: task::spawn("connection", async move { drop(connection.await) }) })
    }

    fn request(&self, method: Method, path: &str) -> Request<()> {
        let request = Request::builder().method(method).uri(format!("https://{}{path}", self.authority));
        request
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(())
            .expect("a request")
    }

    /// Each with one answer, so that its user is known.
    async fn connections(&self, count: usize) -> Asked {
        let mut asked = Asked::default();
        for _ in 0..count {
            let answer = async {
                let mut connection = self.connect().await?;
                let (status, _) = connection.get(self, "/livez").await?;
                Ok((connection, status))
            };
            match tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err("no answer".to_owned())) {
                Ok((connection, 200)) => asked.connections.push(connection),
                Ok((_, status)) => asked.refuse(&status.to_string()),
                Err(why) => asked.refuse(&why),
            }
            // What is over it is the same again and again.
            if asked.refused.values().sum::<usize>() >= 50 {
                break;
            }
        }
        asked
    }

    /// As many answers that began, and of which nothing more is taken.
    async fn unread(&self, path: &str, count: usize) -> Asked {
        let mut asked = Asked::default();
        for n in 0..count {
            if n % STREAMS == 0 {
                asked.connections.push(self.connect().await.expect("a connection"));
            }
            let connection = asked.connections.last_mut().expect("one is open");
            let answer = tokio::time::timeout(PATIENCE, connection.get(self, path)).await;
            match answer.unwrap_or_else(|_| Err("no answer".to_owned())) {
                Ok((200, body)) => asked.held.push(Held::Unread(body)),
                Ok((status, body)) => {
                    if !asked.refused.contains_key(&status.to_string()) {
                        eprintln!("  number {n} got {status}: {}", said(body).await);
                    }
                    asked.refuse(&status.to_string());
                }
                Err(why) => asked.refuse(&why),
            }
        }
        asked
    }

    /// Services of three MiB, but for the last byte: the gateway reads them as a whole.
    async fn unsent(&self, count: usize) -> Asked {
        let mut asked = Asked::default();
        for n in 0..count {
            // Each on its own: the gateway's window for a connection is not what is measured.
            if n % 2 == 0 {
                asked.connections.push(self.connect().await.expect("a connection"));
            }
            let connection = asked.connections.last_mut().expect("one is open");
            match connection.half(self.request(Method::POST, "/api/v1/namespaces/default/services")).await {
                Ok(held) => asked.held.push(held),
                Err(why) => asked.refuse(&why),
            }
        }
        asked
    }

    /// exec of what never stops writing, of which nothing is read after the answer's head.
    async fn execs(&self, count: usize) -> Asked {
        let mut asked = Asked::default();
        for _ in 0..count {
            let answer = tokio::time::timeout(PATIENCE, self.exec()).await;
            match answer.unwrap_or_else(|_| Err("no answer".to_owned())) {
                Ok(stream) => asked.held.push(Held::Stream(stream)),
                Err(why) => asked.refuse(&why),
            }
        }
        asked
    }

    async fn exec(&self) -> Result<Box<TlsStream<TcpStream>>, String> {
        let text = |error: std::io::Error| error.to_string();
        let stream = TcpStream::connect(self.address).await.map_err(text)?;
        let mut tls = self.upgrades.connect(self.name.clone(), stream).await.map_err(text)?;
        let head = format!(
            "GET /api/v1/namespaces/default/pods/box/exec?command=yes&stdout=true HTTP/1.1\r\nHost: {}\r\nConnection: \
             Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
            self.authority
        );
        tls.write_all(head.as_bytes()).await.map_err(text)?;
        let mut answer = [0; 12];
        tls.read_exact(&mut answer).await.map_err(text)?;
        match &answer {
            b"HTTP/1.1 101" => Ok(Box::new(tls)),
            other => Err(String::from_utf8_lossy(other).into_owned()),
        }
    }

    /// Makes objects in the namespace `default`, several at a time over one connection.
    async fn make(&self, resource: &str, count: usize, object: impl Fn(usize) -> Value) -> Asked {
        let mut asked = Asked::default();
        asked.connections.push(self.connect().await.expect("a connection"));
        let connection = &asked.connections[0];
        let path = format!("/api/v1/namespaces/default/{resource}");
        let answers: Vec<_> = futures::stream::iter((0..count).map(|n| connection.post(self, &path, object(n))))
            .buffer_unordered(WRITERS)
            .collect()
            .await;
        for answer in answers {
            match answer {
                Ok(201) => asked.held.push(Held::Made),
                Ok(status) => asked.refuse(&status.to_string()),
                Err(why) => asked.refuse(&why),
            }
        }
        asked
    }

    /// Removes them, in pages: the API server deletes one after another within its time for a request.
    async fn unmake(&self, resource: &str) {
        let path = format!("/api/v1/namespaces/default/{resource}?labelSelector=bench%3Dmade&limit=500");
        for _ in 0..NAMES {
            let Ok(connection) = self.connect().await else { continue };
            let request = self.request(Method::DELETE, &path);
            let deleted = tokio::time::timeout(PATIENCE * 3, connection.send(request, None)).await;
            let Ok(Ok((200, body))) = deleted else { continue };
            if serde_json::from_slice::<Value>(&body)
                .is_ok_and(|list| list["items"].as_array().is_none_or(Vec::is_empty))
            {
                return;
            }
        }
    }
}

/// The beginning of an answer.
async fn said(mut body: RecvStream) -> String {
    match tokio::time::timeout(PATIENCE, body.data()).await {
        Ok(Some(Ok(piece))) => String::from_utf8_lossy(&piece).into_owned(),
        other => format!("{other:?}"),
    }
}

/// An `ExternalName` needs no address of the host and is answered all the same.
fn service(n: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("name-{n}"), "labels": {"bench": "made"}},
        "spec": {"type": "ExternalName", "externalName": format!("{n}.example.test")}})
}

fn large(n: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("object-{n}"), "labels": {"bench": "made"}},
        "data": {"filler": "x".repeat(LARGE)}})
}

impl Connection {
    async fn post(&self, user: &User, path: &str, object: Value) -> Result<u16, String> {
        let body = Bytes::from(object.to_string());
        let answer = self.send(user.request(Method::POST, path), Some(body));
        let late = |_| "no answer".to_owned();
        tokio::time::timeout(PATIENCE, answer).await.map_err(late)?.map(|(status, _)| status)
    }

    /// The whole answer.
    async fn send(&self, request: Request<()>, body: Option<Bytes>) -> Result<(u16, Vec<u8>), String> {
        let text = |error: h2::Error| error.to_string();
        let mut sender = self.sender.clone().ready().await.map_err(text)?;
        let (response, mut stream) = sender.send_request(request, body.is_none()).map_err(text)?;
        if let Some(body) = body {
            stream.send_data(body, true).map_err(text)?;
        }
        let response = response.await.map_err(text)?;
        let (status, mut answer, mut whole) = (response.status().as_u16(), response.into_body(), Vec::new());
        while let Some(piece) = answer.data().await {
            let piece = piece.map_err(text)?;
            answer.flow_control().release_capacity(piece.len()).map_err(text)?;
            whole.extend_from_slice(&piece);
        }
        Ok((status, whole))
    }

    async fn get(&mut self, user: &User, path: &str) -> Result<(u16, RecvStream), String> {
        let mut sender = self.sender.clone().ready().await.map_err(|error| error.to_string())?;
        let (response, _) =
            sender.send_request(user.request(Method::GET, path), true).map_err(|error| error.to_string())?;
        let response = response.await.map_err(|error| error.to_string())?;
        Ok((response.status().as_u16(), response.into_body()))
    }

    async fn half(&mut self, request: Request<()>) -> Result<Held, String> {
        let mut sender = self.sender.clone().ready().await.map_err(|error| error.to_string())?;
        let (mut response, mut body) = sender.send_request(request, false).map_err(|error| error.to_string())?;
        let mut left = BODY - 1;
        while left > 0 {
            body.reserve_capacity(left.min(64 << 10));
            tokio::select! {
                answer = &mut response => {
                    return Err(answer.map_or_else(|error| error.to_string(), |answer| answer.status().as_u16().to_string()));
                }
                room = std::future::poll_fn(|context| body.poll_capacity(context)) => {
                    let room = room.ok_or("the stream is over")?.map_err(|error| error.to_string())?.min(left);
                    body.send_data(Bytes::from(vec![b' '; room]), false).map_err(|error| error.to_string())?;
                    left -= room;
                }
                () = tokio::time::sleep(PATIENCE) => return Err("not taken".to_owned()),
            }
        }
        Ok(Held::Unsent(body, response))
    }
}

impl Asked {
    fn refuse(&mut self, why: &str) {
        *self.refused.entry(why.to_owned()).or_default() += 1;
    }
}

impl Memory {
    fn of(pid: u32) -> Self {
        let peak = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&peak);
        let task = task::spawn("memory", async move {
            loop {
                seen.fetch_max(process::resident(pid), Ordering::SeqCst);
                tokio::time::sleep(SAMPLE).await;
            }
        });
        Self { pid, peak, _task: task }
    }

    fn now(&self) -> u64 {
        process::resident(self.pid)
    }
}
