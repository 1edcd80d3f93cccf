use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::listener::{Known, Limits};
use super::metrics::Scrapes;
use super::probes::Probes;
use super::*;
use crate::runtime::clock::Clock;
use crate::runtime::task;
use crate::runtime::telemetry::{Families, Source};

const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
const PATIENCE: Duration = Duration::from_secs(30);
const PROBE: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

fn probes() -> (DrainTrigger, Probes) {
    let (trigger, drain) = drain::channel();
    (trigger, Probes { readiness: Readiness::default(), phase: drain.watch() })
}

async fn get(probes: &Probes, target: &str) -> (u16, String) {
    let request = Request::get(target).body(()).expect("request");
    let response = probes.answer(&request);
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    (code, String::from_utf8(bytes.to_vec()).expect("text"))
}

/// The real listener, as the process has it.
async fn listening() -> (DrainTrigger, Bound) {
    let (trigger, drain) = drain::channel();
    let parts = Parts {
        probes: LOOPBACK.into(),
        metrics_listen: LOOPBACK.into(),
        access: Access::Open,
        readiness: Readiness::default(),
        metrics: Metrics::default(),
        watched: Watched::new(Clock::system()),
    };
    (trigger, run(parts, &drain).await.expect("bound"))
}

/// What comes back for these bytes until the connection ends.
async fn exchange(at: SocketAddr, sent: &str) -> String {
    let mut stream = TcpStream::connect(at).await.expect("connected");
    // The server may have answered and closed before it has read everything.
    let _ = stream.write_all(sent.as_bytes()).await;
    all(&mut stream).await
}

async fn all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    String::from_utf8(answer).expect("text")
}

#[tokio::test(start_paused = true)]
async fn readiness_names_what_is_awaited() {
    let (trigger, probes) = probes();
    let tenants = probes.readiness.await_for("tenants", "the first list is not complete");
    probes.readiness.check("host", || None);
    let (code, report) = get(&probes, "/readyz").await;
    assert_eq!(code, 503);
    assert!(report.contains("[-]tenants the first list is not complete") && report.contains("[+]host ok"), "{report}");
    assert_eq!(get(&probes, "/livez").await.0, 200);
    drop(tenants);
    assert_eq!(get(&probes, "/readyz").await, (200, "ok\n".to_owned()));
    assert!(get(&probes, "/readyz?verbose").await.1.contains("[+]tenants ok"));
    let _leaving = trigger.leave(Duration::from_secs(1));
    let (code, report) = get(&probes, "/readyz").await;
    assert!(code == 503 && report.contains("[-]shutdown"), "{report}");
    assert_eq!(get(&probes, "/metrics").await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_probes_asks_the_checks_now_and_then_and_says_no_endless_things() {
    let (_trigger, probes) = probes();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    probes.readiness.check("host", move || {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        None
    });
    probes.readiness.note(|| vec!["x".repeat(1000); 1000]);
    for _ in 0..1000 {
        let (code, report) = get(&probes, "/readyz?verbose").await;
        assert!(code == 200 && report.len() < 20_000);
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    get(&probes, "/readyz").await;
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_hangs_holds_up_no_other_probe() {
    let (_trigger, probes) = probes();
    let (entered, is_entered) = std::sync::mpsc::sync_channel(1);
    let (release, released) = std::sync::mpsc::sync_channel::<()>(0);
    let released = parking_lot::Mutex::new(released);
    probes.readiness.check("host", move || {
        let _ = entered.send(());
        let _ = released.lock().recv();
        None
    });
    let hanging = probes.clone();
    let hangs = tokio::task::spawn_blocking(move || hanging.readiness.report());
    is_entered.recv().expect("the check is being asked");
    let (code, report) = get(&probes, "/readyz").await;
    assert!(code == 503 && report.contains("[-]checks"), "{report}");
    assert_eq!(get(&probes, "/livez").await.0, 200);
    drop(release);
    assert!(hangs.await.expect("ended").is_ready);
    assert_eq!(get(&probes, "/readyz").await.0, 200);
}

#[tokio::test]
async fn silent_connections_of_one_address_keep_no_probe_out() {
    let (_trigger, bound) = listening().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(bound.probes).await.expect("connected"));
    }
    for path in ["/livez", "/readyz", "/healthz"] {
        let answer = exchange(bound.probes, &PROBE.replace("/livez", path)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer:?}");
    }
    // And those on the port of metrics are no affair of the probes.
    for _ in 0..300 {
        silent.push(TcpStream::connect(bound.metrics).await.expect("connected"));
    }
    assert!(exchange(bound.probes, PROBE).await.starts_with("HTTP/1.1 200"));
    assert!(exchange(bound.metrics, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn silent_and_slow_heads_go_and_a_connection_is_for_one_request() {
    let (_trigger, bound) = listening().await;
    let mut silent = TcpStream::connect(bound.probes).await.expect("connected");
    let mut slow = TcpStream::connect(bound.probes).await.expect("connected");
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.expect("sent");
    assert_eq!(all(&mut silent).await, "");
    let told = all(&mut slow).await;
    assert!(!told.contains("200"), "{told}");
    let twice = exchange(bound.probes, &PROBE.repeat(2)).await;
    assert_eq!(twice.matches("HTTP/1.1 200").count(), 1, "{twice}");
}

#[tokio::test]
async fn huge_heads_are_refused() {
    let (_trigger, bound) = listening().await;
    for head in [format!("X-Huge: {}\r\n", "x".repeat(1 << 20)), "X-Many: x\r\n".repeat(10_000)] {
        let answer = exchange(bound.probes, &PROBE.replace("Host: x\r\n", &head)).await;
        assert!(!answer.contains("200 OK"), "{answer:.100}");
    }
    assert!(exchange(bound.probes, PROBE).await.starts_with("HTTP/1.1 200"));
}

/// Far more than what fits into the sockets' buffers.
struct Long;

impl Source for Long {
    fn collect(&self, families: &mut Families) {
        let value = "x".repeat(1 << 20);
        for _ in 0..64 {
            families.gauge("portico_long", "Help.", &[("long", &value)], 1.0);
        }
    }
}

#[tokio::test]
async fn who_reads_nothing_is_cut() {
    let metrics = Metrics::default();
    metrics.register(Arc::new(Long));
    let limits = Limits { head: PATIENCE, whole: Duration::from_millis(1500), ..metrics::LIMITS };
    let (listener, at) = listener::bind(LOOPBACK.into(), "a test").await.expect("bound");
    let scrapes = Arc::new(Scrapes::new(metrics, None));
    let request = Request::get("/metrics").body(()).expect("request");
    let peer = std::net::IpAddr::from(LOOPBACK.0);
    let whole =
        scrapes.answer(&request, &Known::default(), peer).await.into_body().collect().await.expect("page").to_bytes();
    let _serving = task::spawn("test metrics", metrics::serve(Arc::new(listener), scrapes, limits));
    let mut stream = TcpStream::connect(at).await.expect("connected");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    stream.readable().await.expect("an answer has begun");
    tokio::time::sleep(limits.whole * 2).await;
    let got = all(&mut stream).await;
    assert!(got.starts_with("HTTP/1.1 200") && got.len() < whole.len(), "{} of {}", got.len(), whole.len());
}
