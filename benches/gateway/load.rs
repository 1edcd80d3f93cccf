//! The load and the backend: both hyper, both on the core that the proxy does not have.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portico::runtime::task::{self, Task};
use portico::tls::{ServerTls, client_config};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::process;
use crate::proxies::{self, Case, Running};

const CORE: &str = "1";
const WARM_UP: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 32;
const STREAMS: usize = 8;
const PATH: &str = "/api/v1/namespaces/default/pods/web-0";
const BODY: &[u8] = &[b'x'; 1024];

/// What came out.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    requests: usize,
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) cpu_micros: f64,
    pub(crate) rss_mib: f64,
}

impl Measured {
    fn with_cpu(mut self, cpu: Duration, rss_mib: f64) -> Self {
        self.cpu_micros = cpu.as_secs_f64() * 1e6 / self.requests as f64;
        self.rss_mib = rss_mib;
        self
    }
}

/// By CPU; an even number takes the lower middle.
pub(crate) fn median(all: &[Measured]) -> Measured {
    let mut sorted = all.to_vec();
    sorted.sort_by(|a, b| a.cpu_micros.total_cmp(&b.cpu_micros));
    sorted[(sorted.len() - 1) / 2].clone()
}

/// Load and backend are on one core, and the proxy has the other.
pub(crate) fn pin_self() {
    let pid = std::process::id().to_string();
    let pinned = std::process::Command::new("taskset")
        .args(["-cp", CORE, &pid])
        .stdout(std::process::Stdio::null())
        .status()
        .expect("taskset of util-linux");
    assert!(pinned.success(), "two cores are needed");
}

/// What is said at some paths; `PORT` in it is the backend's own.
pub(crate) type Answers = &'static [(&'static str, String)];

/// How the load shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Certificate,
    /// The value of `Authorization`.
    Token(&'static str),
}

/// A running backend.
pub(crate) struct Backend {
    pub(crate) port: u16,
    _task: Task,
}

/// Answers at these paths, else with 1 KiB, in the case's protocol only.
pub(crate) async fn backend(folder: &Path, case: Case, answers: Answers) -> Backend {
    let read = |name: &str| std::fs::read(folder.join(name)).expect("certificate");
    let tls = ServerTls::from_pem(&read("server.crt"), &read("server.key")).expect("serving");
    let mut config = rustls::ServerConfig::clone(tls.config());
    config.alpn_protocols = vec![case.alpn().to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let port = listener.local_addr().expect("address").port();
    let at = |text: &String| text.replace("PORT", &port.to_string());
    let answers: Answers = answers.iter().map(|(path, text)| (*path, at(text))).collect::<Vec<_>>().leak();
    let task = task::spawn("bench backend", async move {
        let mut open = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("nodelay");
            let acceptor = acceptor.clone();
            open.spawn(async move {
                let Ok(tls) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                    let said = answers.iter().find(|(path, _)| *path == request.uri().path());
                    let body = said.map_or(BODY, |(_, text)| text.as_bytes());
                    let response = Response::builder().header("content-type", "application/json");
                    Ok::<_, Infallible>(response.body(Full::new(Bytes::from_static(body))).expect("response"))
                });
                // A proxy that goes away ends its connections as it likes.
                let _ = match case {
                    Case::H2 => {
                        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        builder.max_concurrent_streams(100);
                        builder.serve_connection(TokioIo::new(tls), service).await
                    }
                    Case::H1 => {
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await
                    }
                };
            });
        }
    });
    Backend { port, _task: task }
}

/// A collector of traces, which takes everything.
pub(crate) async fn collector() -> Backend {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let port = listener.local_addr().expect("address").port();
    let task = task::spawn("bench collector", async move {
        let mut open = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: Request<Incoming>| async {
                drop(request.into_body().collect().await);
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
            });
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            open.spawn(async move { drop(serving.await) });
        }
    });
    Backend { port, _task: task }
}

#[derive(Clone)]
enum Sender {
    H2(hyper::client::conn::http2::SendRequest<Empty<Bytes>>),
    H1(Arc<tokio::sync::Mutex<hyper::client::conn::http1::SendRequest<Empty<Bytes>>>>),
}

/// Open connections of one caller.
pub(crate) struct Load {
    senders: Vec<Sender>,
    caller: Caller,
    streams: usize,
    authority: String,
    _connections: Vec<Task>,
}

impl Load {
    pub(crate) async fn connect(folder: &Path, case: Case, port: u16, caller: Caller) -> Self {
        let read = |name: &str| std::fs::read(folder.join(name)).expect("certificate");
        let (certificate, key) = (read("client.crt"), read("client.key"));
        let identity = (caller == Caller::Certificate).then_some((certificate.as_slice(), key.as_slice()));
        let base = client_config(&read("ca.crt"), identity).expect("client");
        let mut config = rustls::ClientConfig::clone(&base);
        config.alpn_protocols = vec![case.alpn().to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let (mut senders, mut connections) = (Vec::new(), Vec::new());
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
            stream.set_nodelay(true).expect("nodelay");
            let tls = connector.connect(proxies::SERVER.try_into().expect("name"), stream).await.expect("TLS");
            let io = TokioIo::new(tls);
            match case {
                Case::H2 => {
                    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
                    let (sender, connection) = builder.handshake(io).await.expect("h2");
                    senders.push(Sender::H2(sender));
                    connections.push(task::spawn("bench connection", async move { drop(connection.await) }));
                }
                Case::H1 => {
                    let (sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("h1");
                    senders.push(Sender::H1(Arc::new(tokio::sync::Mutex::new(sender))));
                    connections.push(task::spawn("bench connection", async move { drop(connection.await) }));
                }
            }
        }
        let streams = if case == Case::H2 { STREAMS } else { 1 };
        Self { senders, caller, streams, authority: format!("{}:{port}", proxies::SERVER), _connections: connections }
    }

    /// What the proxy takes for it, once it is warm.
    pub(crate) async fn measured(&self, proxy: &Running, length: Duration) -> Measured {
        // One first: who is not known yet has few places.
        let first = self.senders.first().cloned().expect("connections");
        stream(first, self.authority.clone(), self.caller, Instant::now() + Duration::from_millis(50)).await;
        self.run(WARM_UP).await;
        let before = process::cpu(proxy.pid);
        let done = self.run(length).await;
        let after = process::cpu(proxy.pid);
        done.with_cpu(after - before, process::resident_mib(proxy.pid))
    }

    /// Keeps every stream busy for so long.
    async fn run(&self, length: Duration) -> Measured {
        let (begin, end) = (Instant::now(), Instant::now() + length);
        let mut tasks = JoinSet::new();
        for sender in &self.senders {
            for _ in 0..self.streams {
                tasks.spawn(stream(sender.clone(), self.authority.clone(), self.caller, end));
            }
        }
        let mut all: Vec<Duration> = Vec::new();
        while let Some(done) = tasks.join_next().await {
            all.extend(done.expect("no panic"));
        }
        let seconds = begin.elapsed().as_secs_f64();
        all.sort_unstable();
        let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
        Measured {
            requests: all.len(),
            per_second: all.len() as f64 / seconds,
            p50: at(0.5),
            p99: at(0.99),
            cpu_micros: 0.0,
            rss_mib: 0.0,
        }
    }
}

async fn stream(mut sender: Sender, authority: String, caller: Caller, end: Instant) -> Vec<Duration> {
    let mut taken = Vec::new();
    while Instant::now() < end {
        let begin = Instant::now();
        let mut request = Request::builder().header("accept", "application/json").header("user-agent", "bench");
        if let Caller::Token(authorization) = caller {
            request = request.header("authorization", authorization);
        }
        let (status, length) = match &mut sender {
            Sender::H2(sender) => {
                let request = request.uri(format!("https://{authority}{PATH}")).body(Empty::new()).expect("request");
                finish(sender.send_request(request).await.expect("response")).await
            }
            Sender::H1(sender) => {
                let request = request.uri(PATH).header("host", &authority).body(Empty::new()).expect("request");
                let mut sender = sender.lock().await;
                sender.ready().await.expect("ready");
                finish(sender.send_request(request).await.expect("response")).await
            }
        };
        assert!(status == 200 && length == BODY.len(), "status {status}, {length} bytes");
        taken.push(begin.elapsed());
    }
    taken
}

async fn finish(response: Response<Incoming>) -> (u16, usize) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("body").to_bytes();
    (status, body.len())
}
