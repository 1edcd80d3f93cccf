//! Clients under load while a server goes: some open a connection for each request, some keep theirs as long as they may,
//! and what became of each request.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use portico::runtime::task::{self, Task};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;

type Body = Empty<Bytes>;

/// No answer takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the requests go.
pub struct Target {
    pub address: SocketAddr,
    pub name: ServerName<'static>,
    pub host: String,
    pub path: String,
    /// Without ALPN.
    pub tls: Arc<rustls::ClientConfig>,
    /// Between two requests of one client.
    pub pause: Duration,
}

/// What became of the requests.
#[derive(Default)]
pub struct Tally {
    pub done: AtomicUsize,
    pub opened: AtomicUsize,
    /// Connections that did not come about.
    pub refused: Mutex<Vec<String>>,
    /// Requests that were sent and not answered with 200 to their end.
    pub cut: Mutex<Vec<String>>,
}

/// How far the end of the server has come, for its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Every connection comes about.
    Serving,
    /// New ones need not.
    Closing,
    /// Clients stop.
    Over,
}

/// Running clients.
pub struct Load {
    pub tally: Arc<Tally>,
    stage: watch::Sender<Stage>,
    clients: Vec<Task>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// One connection; dropped, it is closed.
struct Connection {
    sender: Sender,
    _driver: Task,
}

enum Outcome {
    /// Answered; `true`: and the connection takes no other request.
    Answered(bool),
    /// The connection had ended before the request was sent.
    Unsent,
    Cut(String),
}

impl Tally {
    /// Nothing was refused and nothing cut.
    #[track_caller]
    pub fn is_clean(&self) {
        let (refused, cut) = (self.refused.lock(), self.cut.lock());
        let (opened, done) = (self.opened.load(Ordering::SeqCst), self.done.load(Ordering::SeqCst));
        assert!(
            refused.is_empty() && cut.is_empty(),
            "of {opened} connections and {done} requests: {} refused {:?}, {} cut {:?}",
            refused.len(),
            refused.first(),
            cut.len(),
            cut.first()
        );
    }
}

impl Load {
    /// Starts `each` clients of each form and protocol.
    pub fn start(target: Target, each: usize) -> Self {
        let (target, tally) = (Arc::new(target), Arc::<Tally>::default());
        let (stage, watched) = watch::channel(Stage::Serving);
        let mut clients = Vec::new();
        for _ in 0..each {
            for is_http2 in [false, true] {
                let parts = || (Arc::clone(&target), Arc::clone(&tally), watched.clone());
                let (of, to, until) = parts();
                clients.push(task::spawn("newcomer", async move { newcomer(&of, is_http2, &to, &until).await }));
                let (of, to, until) = parts();
                clients.push(task::spawn("regular", async move { regular(&of, is_http2, &to, &until).await }));
            }
        }
        Self { tally, stage, clients }
    }

    /// Waits until so many requests were answered.
    pub async fn answered(&self, count: usize) {
        let enough = async {
            while self.tally.done.load(Ordering::SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("the load runs");
    }

    /// From now on connections need not come about: newcomers stay away, and regulars leave at their first refusal.
    pub fn closing(&self) {
        self.stage.send_replace(Stage::Closing);
    }

    /// Stops all clients, or waits for those that must have left; yields what became of the requests.
    pub async fn stop(mut self, stage: Stage) -> Arc<Tally> {
        self.stage.send_replace(stage);
        for client in self.clients.drain(..) {
            tokio::time::timeout(PATIENCE, client.join()).await.expect("the client ends");
        }
        self.tally
    }
}

/// A connection for each request.
async fn newcomer(target: &Target, is_http2: bool, tally: &Tally, stage: &watch::Receiver<Stage>) {
    while *stage.borrow() == Stage::Serving {
        let Some(mut connection) = open(target, is_http2, tally, stage).await else { continue };
        match get(&mut connection, target).await {
            Outcome::Answered(_) => _ = tally.done.fetch_add(1, Ordering::SeqCst),
            Outcome::Unsent => tally.cut.lock().push("closed before its first request".to_owned()),
            Outcome::Cut(why) => tally.cut.lock().push(format!("first request: {why}")),
        }
        tokio::time::sleep(target.pause).await;
    }
}

/// One connection for as long as the server lets it.
async fn regular(target: &Target, is_http2: bool, tally: &Tally, stage: &watch::Receiver<Stage>) {
    while *stage.borrow() < Stage::Over {
        let Some(mut connection) = open(target, is_http2, tally, stage).await else {
            if *stage.borrow() > Stage::Serving {
                return;
            }
            continue;
        };
        while *stage.borrow() < Stage::Over {
            match get(&mut connection, target).await {
                Outcome::Answered(is_last) => {
                    tally.done.fetch_add(1, Ordering::SeqCst);
                    if is_last {
                        break;
                    }
                }
                Outcome::Unsent => break,
                Outcome::Cut(why) => {
                    tally.cut.lock().push(format!("kept connection: {why}"));
                    break;
                }
            }
            tokio::time::sleep(target.pause).await;
        }
    }
}

async fn open(target: &Target, is_http2: bool, tally: &Tally, stage: &watch::Receiver<Stage>) -> Option<Connection> {
    match tokio::time::timeout(PATIENCE, dial(target, is_http2)).await {
        Ok(Ok(connection)) => {
            tally.opened.fetch_add(1, Ordering::SeqCst);
            return Some(connection);
        }
        // The listener may have closed while this one was on its way.
        _ if *stage.borrow() > Stage::Serving => {}
        Ok(Err(why)) => tally.refused.lock().push(why),
        Err(_) => tally.refused.lock().push("no answer".to_owned()),
    }
    tokio::time::sleep(target.pause).await;
    None
}

async fn dial(target: &Target, is_http2: bool) -> Result<Connection, String> {
    let mut config = rustls::ClientConfig::clone(&target.tls);
    config.alpn_protocols = vec![if is_http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let stream = TcpStream::connect(target.address).await.map_err(|e| format!("connect: {e}"))?;
    stream.set_nodelay(true).map_err(|e| format!("connect: {e}"))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(target.name.clone(), stream).await.map_err(|e| format!("handshake: {e}"))?;
    let io = TokioIo::new(stream);
    if is_http2 {
        let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await.map_err(|e| format!("h2: {e}"))?;
        let driver = task::spawn("connection", async move { _ = driver.await });
        Ok(Connection { sender: Sender::Http2(sender), _driver: driver })
    } else {
        let (sender, driver) = http1::handshake(io).await.map_err(|e| format!("h1: {e}"))?;
        let driver = task::spawn("connection", async move { _ = driver.await });
        Ok(Connection { sender: Sender::Http1(sender), _driver: driver })
    }
}

async fn get(connection: &mut Connection, target: &Target) -> Outcome {
    let sent = async {
        match &mut connection.sender {
            Sender::Http1(sender) => {
                if sender.ready().await.is_err() {
                    return Err(Outcome::Unsent);
                }
                let request = Request::get(&target.path).header(header::HOST, &target.host);
                sender.try_send_request(request.body(Body::new()).expect("request")).await.map_err(unanswered)
            }
            Sender::Http2(sender) => {
                if sender.ready().await.is_err() {
                    return Err(Outcome::Unsent);
                }
                let request = Request::get(format!("https://{}{}", target.host, target.path));
                sender.try_send_request(request.body(Body::new()).expect("request")).await.map_err(unanswered)
            }
        }
    };
    let whole = async {
        match sent.await {
            Ok(response) => read(response).await,
            Err(outcome) => outcome,
        }
    };
    tokio::time::timeout(PATIENCE, whole).await.unwrap_or_else(|_| Outcome::Cut("no answer".to_owned()))
}

fn unanswered(mut error: TrySendError<Request<Body>>) -> Outcome {
    if error.take_message().is_some() {
        return Outcome::Unsent;
    }
    // A stream beyond the last one of a GOAWAY was not processed: every client sends that request again.
    let error = error.into_error();
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    let is_farewell = |e: &h2::Error| e.is_go_away() && e.is_remote() && e.reason() == Some(h2::Reason::NO_ERROR);
    if cause.is_some_and(is_farewell) { Outcome::Unsent } else { Outcome::Cut(format!("{error:?}")) }
}

async fn read(response: Response<Incoming>) -> Outcome {
    let code = response.status();
    let closes = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
    match response.into_body().collect().await {
        Ok(_) if code == 200 => Outcome::Answered(closes),
        Ok(body) => Outcome::Cut(format!("{code}: {:.200}", String::from_utf8_lossy(&body.to_bytes()))),
        Err(error) => Outcome::Cut(format!("body: {error:?}")),
    }
}
