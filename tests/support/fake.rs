//! A fake API server: real TLS on a port of its own, HTTP/1.1 and HTTP/2, answers by a closure. It can send GOAWAY,
//! hang, break off, answer anything, upgrade.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use portico::error::Side;
use portico::runtime::task::{self, Task};
use portico::tls::{ServerTls, client_config};
use portico::upstream::{Credential, Reach, Target};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::pki::{Pair, Pki};

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub version: Version,
    pub body: Bytes,
    pub trailers: HeaderMap,
    /// Number of the connection, from 0 in the order of accepting.
    pub connection: usize,
    /// Whether the client presented a certificate.
    pub has_certificate: bool,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

type Tunnel = Box<dyn FnOnce(TokioIo<Upgraded>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What to answer.
pub enum Answer {
    /// A whole response.
    Full(Response<Bytes>),
    /// A head, then what comes over the channel; its end ends the body.
    Stream(Response<()>, mpsc::Receiver<Bytes>),
    /// Never a head; the stream or connection stays open.
    Hang,
    /// 101 with these headers, then the tunnel.
    Upgrade(HeaderMap, Tunnel),
}

impl Answer {
    pub fn json(code: u16, value: &Value) -> Self {
        let response = Response::builder().status(code).header("content-type", "application/json");
        Self::Full(response.body(Bytes::from(value.to_string())).expect("response"))
    }

    /// A `metav1.Status` failure.
    pub fn status(code: u16, reason: &str, message: &str) -> Self {
        Self::json(
            code,
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "reason": reason, "message": message, "code": code}),
        )
    }

    pub fn text(code: u16, text: &str) -> Self {
        let response = Response::builder().status(code).header("content-type", "text/plain");
        Self::Full(response.body(Bytes::copy_from_slice(text.as_bytes())).expect("response"))
    }

    /// A streamed 200 and its sender.
    pub fn stream() -> (Self, mpsc::Sender<Bytes>) {
        let (sender, receiver) = mpsc::channel(64);
        (Self::Stream(Response::new(()), receiver), sender)
    }

    /// 101 that echoes every byte until the client half-closes.
    pub fn echo(headers: &[(&str, &str)]) -> Self {
        Self::tunnel(headers, |mut io| async move {
            let (mut read, mut write) = tokio::io::split(&mut io);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
        })
    }

    /// 101 and a tunnel of the test's own.
    pub fn tunnel<F, Fut>(headers: &[(&str, &str)], tunnel: F) -> Self
    where
        F: FnOnce(TokioIo<Upgraded>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().expect("name"), HeaderValue::from_str(value).expect("value"));
        }
        Self::Upgrade(map, Box::new(move |io| Box::pin(tunnel(io))))
    }
}

type Handler = Arc<dyn Fn(Seen) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// How to start a server.
pub struct Setup {
    protocols: Vec<Vec<u8>>,
    max_streams: u32,
    refuses: fn(&HeaderMap) -> bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { protocols: vec![b"h2".to_vec(), b"http/1.1".to_vec()], max_streams: 100, refuses: |_| false }
    }
}

impl Setup {
    /// Speaks only HTTP/1.1.
    pub fn http1() -> Self {
        Self { protocols: vec![b"http/1.1".to_vec()], ..Self::default() }
    }

    /// Streams that one connection may carry.
    pub fn max_streams(mut self, count: u32) -> Self {
        self.max_streams = count;
        self
    }

    /// Requests that are 401 before a byte of their body is read, as in a real one.
    pub fn refuses(mut self, these: fn(&HeaderMap) -> bool) -> Self {
        self.refuses = these;
        self
    }

    pub async fn start<F, Fut>(self, handler: F) -> FakeApi
    where
        F: Fn(Seen) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        FakeApi::start_with(self, Arc::new(move |seen| Box::pin(handler(seen)))).await
    }
}

/// The running server; dropped, it and all its connections are gone.
pub struct FakeApi {
    pub address: SocketAddr,
    pub pki: Pki,
    client: Pair,
    shared: Arc<Shared>,
    goaway: watch::Sender<usize>,
    _acceptor: Task,
}

struct Shared {
    handler: Handler,
    seen: Mutex<Vec<Seen>>,
    arrivals: watch::Sender<usize>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    max_streams: u32,
    refuses: fn(&HeaderMap) -> bool,
    /// Owners of connections and tunnels, so that all end with the server.
    tasks: Mutex<Vec<Task>>,
}

impl FakeApi {
    /// HTTP/2 and HTTP/1.1, answers by `handler`.
    pub async fn start<F, Fut>(handler: F) -> Self
    where
        F: Fn(Seen) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        Setup::default().start(handler).await
    }

    async fn start_with(setup: Setup, handler: Handler) -> Self {
        let pki = Pki::new("fake API server CA");
        let serving = pki.server(&["127.0.0.1", "localhost"]);
        let tls = ServerTls::from_pem(serving.certificate.as_bytes(), serving.key.as_bytes()).expect("serving");
        let mut config = rustls::ServerConfig::clone(tls.config());
        config.alpn_protocols = setup.protocols;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let address = listener.local_addr().expect("address");
        let shared = Arc::new(Shared {
            handler,
            seen: Mutex::default(),
            arrivals: watch::Sender::new(0),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            max_streams: setup.max_streams,
            refuses: setup.refuses,
            tasks: Mutex::default(),
        });
        let goaway = watch::Sender::new(0);
        let (accepting, leaving) = (Arc::clone(&shared), goaway.clone());
        let task = task::spawn("fake API server", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = accepting.accepted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_nodelay(true);
                let serving = serve(Arc::clone(&accepting), acceptor.clone(), stream, number, leaving.subscribe());
                accepting.tasks.lock().push(task::spawn("fake connection", serving));
            }
        });
        let client = pki.client("portico", &["system:masters"]);
        Self { address, pki, client, shared, goaway, _acceptor: task }
    }

    /// The way to this server, with a client certificate.
    pub fn target(&self, side: Side) -> Target {
        target(side, self.address, &self.pki, &self.client)
    }

    /// What arrived so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    /// Waits until at least `count` requests arrived.
    pub async fn wait_seen(&self, count: usize) -> Vec<Seen> {
        let mut arrivals = self.shared.arrivals.subscribe();
        arrivals.wait_for(|n| *n >= count).await.expect("server runs");
        self.seen()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// GOAWAY (or `Connection: close`) on every open connection; running requests finish.
    pub fn goaway(&self) {
        self.goaway.send_modify(|n| *n += 1);
    }
}

async fn serve(
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    connection: usize,
    mut goaway: watch::Receiver<usize>,
) {
    let Ok(tls) = acceptor.accept(stream).await else { return };
    let has_certificate = tls.get_ref().1.peer_certificates().is_some();
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    shared.open.fetch_add(1, Ordering::SeqCst);
    let _open = OpenGuard(Arc::clone(&shared));
    let max_streams = shared.max_streams;
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(shared, request, connection, has_certificate).await) }
    });
    let io = TokioIo::new(tls);
    // Only what is sent after this connection began counts.
    goaway.mark_unchanged();
    if http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(max_streams);
        let mut running = std::pin::pin!(builder.serve_connection(io, service));
        loop {
            tokio::select! {
                _ = running.as_mut() => return,
                Ok(()) = goaway.changed() => running.as_mut().graceful_shutdown(),
            }
        }
    }
    let served = hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades();
    let mut running = std::pin::pin!(served);
    loop {
        tokio::select! {
            _ = running.as_mut() => return,
            Ok(()) = goaway.changed() => running.as_mut().graceful_shutdown(),
        }
    }
}

struct OpenGuard(Arc<Shared>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(
    shared: Arc<Shared>,
    mut request: Request<Incoming>,
    connection: usize,
    has_certificate: bool,
) -> Response<AnswerBody> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let is_head = parts.method == Method::HEAD;
    let refused = (shared.refuses)(&parts.headers);
    let (mut content, mut trailers) = (Bytes::new(), HeaderMap::new());
    if !refused && let Ok(whole) = body.collect().await {
        trailers = whole.trailers().cloned().unwrap_or_default();
        content = whole.to_bytes();
    }
    let seen = Seen {
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        method: parts.method,
        headers: parts.headers,
        version: parts.version,
        body: content,
        trailers,
        connection,
        has_certificate,
    };
    shared.seen.lock().push(seen.clone());
    shared.arrivals.send_modify(|n| *n += 1);
    let answer =
        if refused { Answer::status(401, "Unauthorized", "Unauthorized") } else { (shared.handler)(seen).await };
    match answer {
        Answer::Full(response) => response.map(|bytes| AnswerBody::Full(Some(bytes).filter(|_| !is_head))),
        Answer::Stream(head, receiver) => head.map(|()| AnswerBody::Stream(receiver)),
        Answer::Hang => std::future::pending().await,
        Answer::Upgrade(headers, tunnel) => {
            shared.tasks.lock().push(task::spawn("fake tunnel", async move {
                if let Ok(io) = upgrade.await {
                    tunnel(TokioIo::new(io)).await;
                }
            }));
            let mut response = Response::new(AnswerBody::Full(None));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = headers;
            response
        }
    }
}

/// Body of an answer.
pub enum AnswerBody {
    Full(Option<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b)))),
            Self::Stream(receiver) => receiver.poll_recv(context).map(|bytes| bytes.map(|b| Ok(Frame::data(b)))),
        }
    }
}

/// A handler over objects by path: GET answers one of them or 404, POST on reviews is up to the test.
#[derive(Clone, Default)]
pub struct Objects(Arc<Mutex<BTreeMap<String, Value>>>);

impl Objects {
    pub fn put(&self, path: &str, object: Value) {
        self.0.lock().insert(path.to_owned(), object);
    }

    pub fn remove(&self, path: &str) -> Option<Value> {
        self.0.lock().remove(path)
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().get(path).cloned()
    }

    /// The answer to a GET.
    pub fn answer(&self, path: &str) -> Answer {
        match self.get(path) {
            Some(object) => Answer::json(200, &object),
            None => {
                let name = path.rsplit('/').next().unwrap_or_default();
                Answer::status(404, "NotFound", &format!("\"{name}\" not found"))
            }
        }
    }
}

/// Query parameters, decoded, in order.
pub fn parameters(query: &str) -> Vec<(String, String)> {
    let decode =
        |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

/// Counts by key, for assertions on connections.
pub fn count_by<K: std::hash::Hash + Eq, I: IntoIterator<Item = K>>(keys: I) -> HashMap<K, usize> {
    let mut counts = HashMap::new();
    for key in keys {
        *counts.entry(key).or_insert(0) += 1;
    }
    counts
}

/// The way to a server of this CA, with a client certificate.
pub fn target(side: Side, address: SocketAddr, ca: &Pki, client: &Pair) -> Target {
    let roots = ca.ca_pem().as_bytes();
    let identity = (client.certificate.as_bytes(), client.key.as_bytes());
    Target {
        side,
        host: address.ip().to_string(),
        port: address.port(),
        server_name: address.ip().into(),
        tls: client_config(roots, Some(identity)).expect("identity"),
        tls_without_identity: client_config(roots, None).expect("roots"),
        credential: Credential::Certificate,
        path_prefix: String::new(),
        reach: Reach::default(),
    }
}
