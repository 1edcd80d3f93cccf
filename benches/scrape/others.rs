//! The API servers and the scraper: processes of their own, so that their time is not Portico's.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portico::runtime::task;
use portico::tls::{ServerTls, client_config};
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const BOUNDS: [&str; 24] = [
    "0.005", "0.025", "0.05", "0.1", "0.2", "0.4", "0.6", "0.8", "1", "1.25", "1.5", "2", "3", "4", "5", "6", "8",
    "10", "15", "20", "30", "45", "60", "+Inf",
];
const VERBS: [&str; 5] = ["GET", "LIST", "POST", "PUT", "PATCH"];
/// Resources that something asked for; with the verbs, as many series as a control plane has that nobody uses much.
const RESOURCES: usize = 30;

/// The API servers' process; ended when dropped.
pub(crate) struct Backends {
    pub(crate) port: u16,
    pub(crate) body_bytes: usize,
    child: Child,
}

/// What the scraper read.
pub(crate) struct Read {
    pub(crate) bytes: usize,
    pub(crate) series: usize,
    pub(crate) up: usize,
}

impl Backends {
    pub(crate) fn start(folder: &Path) -> Self {
        let own = std::env::current_exe().expect("own path");
        let mut command = Command::new(own);
        let mut child = command.arg("backends").arg(folder).stdout(Stdio::piped()).spawn().expect("started");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let mut words = line.split_whitespace();
        let mut next = || words.next().expect("port and bytes");
        Self { port: next().parse().expect("a port"), body_bytes: next().parse().expect("bytes"), child }
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Scrapes once from another process.
pub(crate) async fn scrape(folder: &Path, address: &str) -> Read {
    let own = std::env::current_exe().expect("own path");
    let mut command = tokio::process::Command::new(own);
    let said = command.arg("scraper").arg(folder).arg(address).kill_on_drop(true).output().await.expect("it runs");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{text}{}", String::from_utf8_lossy(&said.stderr));
    let numbers: Vec<usize> = text.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    Read { bytes: numbers[0], series: numbers[1], up: numbers[2] }
}

/// The scraper.
pub(crate) fn scraper(folder: &Path, address: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let ca = std::fs::read(folder.join("ca.crt")).expect("CA");
        let mut config = rustls::ClientConfig::clone(&*client_config(&ca, None).expect("client"));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await.expect("connected");
        let name = ServerName::try_from("127.0.0.1").expect("name");
        let tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("handshake");
        let io = TokioIo::new(tls);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("h2");
        let _driver = task::spawn("connection", async move { drop(connection.await) });
        let request = Request::get(format!("https://{address}/fleet/metrics"))
            .header("authorization", "Bearer prometheus")
            .header("x-prometheus-scrape-timeout-seconds", "60")
            .body(Empty::<Bytes>::new())
            .expect("request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let page = answer.into_body().collect().await.expect("whole").to_bytes();
        let text = std::str::from_utf8(&page).expect("text");
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        let is_up = |line: &&str| line.starts_with("portico_tenant_up{") && line.ends_with(" 1");
        println!("{} {series} {}", page.len(), text.lines().filter(is_up).count());
    });
}

/// All API servers, and the host's reviews. Says its port and how long a page is.
pub(crate) fn backends(folder: &Path) {
    let read = |name: &str| std::fs::read(folder.join(name)).expect("certificate");
    let tls = ServerTls::from_pem(&read("server.crt"), &read("server.key")).expect("serving");
    let mut config = rustls::ServerConfig::clone(tls.config());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (acceptor, body) = (TlsAcceptor::from(Arc::new(config)), Bytes::from(page()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        println!("{} {}", listener.local_addr().expect("address").port(), body.len());
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("nodelay");
            let (acceptor, body) = (acceptor.clone(), body.clone());
            task::spawn("bench backend", async move {
                let Ok(tls) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let answer = answer(&request, &body);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // Its client goes away as it likes.
                drop(builder.serve_connection(TokioIo::new(tls), service).await);
            })
            .ends_by_itself();
        }
    });
}

fn answer(request: &Request<Incoming>, page: &Bytes) -> Response<Full<Bytes>> {
    let is_review = request.method() == Method::POST;
    let status = json!({"status": {"authenticated": true, "user": {"username": "prometheus"}, "allowed": true}});
    let body = if is_review { Bytes::from(status.to_string()) } else { page.clone() };
    let response = Response::builder().status(if is_review { 201 } else { 200 });
    response.header("content-type", "text/plain; version=0.0.4").body(Full::new(body)).expect("response")
}

/// What an API server shows, in shape and size: mostly buckets.
fn page() -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    for family in
        ["apiserver_request_duration_seconds", "apiserver_request_sli_duration_seconds", "apiserver_other_seconds"]
    {
        let _ = writeln!(
            page,
            "# HELP {family} [STABLE] Response latency distribution in seconds.\n# TYPE {family} histogram"
        );
        for (verb, resource) in VERBS.iter().flat_map(|verb| (0..RESOURCES).map(move |n| (verb, n))) {
            let labels = format!(
                "component=\"apiserver\",dry_run=\"\",group=\"group{}.example.com\",resource=\"resource{resource}\",\
                 scope=\"resource\",subresource=\"\",verb=\"{verb}\",version=\"v1\"",
                resource % 7
            );
            for (at, bound) in BOUNDS.iter().enumerate() {
                let _ = writeln!(page, "{family}_bucket{{{labels},le=\"{bound}\"}} {}", 1000 + at);
            }
            let _ = writeln!(page, "{family}_sum{{{labels}}} 12.345678\n{family}_count{{{labels}}} 1023");
        }
    }
    let _ = writeln!(page, "# TYPE apiserver_request_total counter");
    for (verb, resource) in VERBS.iter().flat_map(|verb| (0..RESOURCES).map(move |n| (verb, n))) {
        for code in ["200", "404"] {
            let _ = writeln!(
                page,
                "apiserver_request_total{{code=\"{code}\",component=\"apiserver\",group=\"\",resource=\"resource{resource}\",\
                 scope=\"resource\",verb=\"{verb}\",version=\"v1\"}} 511"
            );
        }
    }
    for n in 0..60 {
        let _ = writeln!(page, "apiserver_storage_objects{{resource=\"resource{n}.example.com\"}} {n}");
        let _ = writeln!(page, "workqueue_depth{{name=\"queue{n}\"}} 0\nworkqueue_adds_total{{name=\"queue{n}\"}} {n}");
    }
    let _ = writeln!(page, "process_cpu_seconds_total 1.5e3\nprocess_resident_memory_bytes 2.5e+08");
    page
}
