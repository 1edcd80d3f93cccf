//! One scrape of the whole fleet, beside the bare fetch of the same pages.
//!
//! A thousand API servers (one process on loopback, each with a connection of its own) show what a quiet control plane shows;
//! Portico asks them all, adds up, and writes one page, which another process reads. `BENCH_TENANTS`, `BENCH_ROUNDS` change
//! the size. CPU and memory are those of the process that runs Portico, in which the bare fetch runs as well, in turns.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../tests/support/environment.rs"]
mod environment;
#[path = "scrape/others.rs"]
mod others;
#[path = "../tests/support/pki.rs"]
#[allow(dead_code, unreachable_pub)]
mod pki;
#[path = "../tests/support/process.rs"]
mod process;
#[path = "../tests/support/tenant.rs"]
mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use environment::number;
use futures::StreamExt as _;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use portico::config::{GatewayConfig, ScrapeConfig, Span};
use portico::error::Side;
use portico::gateway::{self, HostCluster, Parts, SharedCertificate};
use portico::kubernetes::{ApiClient, Kubelets};
use portico::names::TenantId;
use portico::runtime::clock::Clock;
use portico::runtime::drain;
use portico::runtime::task;
use portico::runtime::telemetry::Metrics;
use portico::runtime::traces::Traces;
use portico::runtime::watched::Watched;
use portico::tenant::{Registry, Tenant};
use portico::tls::{ClientTrust, ServerTls, client_config};
use portico::upstream::{Body, Class, Credential, Pool, Reach, Target};
use portico::usage::Usage;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const AT_ONCE: usize = 64;
const DEADLINE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// What one round took of this process.
struct Took {
    seconds: f64,
    cpu: f64,
    peak_mib: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["backends", folder] => others::backends(Path::new(folder)),
        ["scraper", folder, address] => others::scraper(Path::new(folder), address),
        _ => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
            runtime.block_on(all());
        }
    }
}

async fn all() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench/scrape");
    std::fs::create_dir_all(&folder).expect("folder");
    let pki = pki::Pki::new("bench CA");
    let (server, client) = (pki.server(&["127.0.0.1"]), pki.client("portico", &["system:masters"]));
    for (name, text) in [
        ("ca.crt", pki.ca_pem()),
        ("server.crt", &server.certificate),
        ("server.key", &server.key),
        ("client.crt", &client.certificate),
        ("client.key", &client.key),
    ] {
        std::fs::write(folder.join(name), text).expect("written");
    }
    let tenants: usize = number("BENCH_TENANTS", 1000);
    let rounds: usize = number("BENCH_ROUNDS", 3);
    let backends = others::Backends::start(&folder);
    let registry = Arc::new(Registry::default());
    for n in 0..tenants {
        registry.put(&Arc::new(tenant(&folder, n, backends.port)));
    }
    let (_trigger, drain) = drain::channel();
    let scrape = ScrapeConfig { fresh: Span(Duration::ZERO), deadline: Span(DEADLINE), ..ScrapeConfig::default() };
    let config =
        GatewayConfig { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), scrape, ..GatewayConfig::default() };
    let shared = SharedCertificate::default();
    shared.set(ServerTls::from_pem(server.certificate.as_bytes(), server.key.as_bytes()).expect("tls"));
    let host = Arc::new(Pool::new(target(&folder, backends.port, Side::Host), Clock::system()));
    let host = ApiClient::new(host, HeaderMap::new());
    let usage = Arc::new(Usage::new(host.clone(), Arc::new(Kubelets::off()), Clock::system()));
    let parts = Parts {
        config,
        registry: Arc::clone(&registry),
        shared,
        host: Some(HostCluster { api: host, usage: Arc::clone(&usage), figures: usage }),
        audit: None,
        closed: Default::default(),
        consumption: Arc::default(),
        metrics: Metrics::default(),
        clock: Clock::system(),
        watched: Watched::new(Clock::system()),
        traces: Traces::off(),
    };
    let bound = gateway::run(parts, &drain).await.expect("gateway");
    let address = bound.address.to_string();
    let bare: Vec<Arc<Pool>> = (0..tenants)
        .map(|_| Arc::new(Pool::new(target(&folder, backends.port, Side::Backend), Clock::system())))
        .collect();
    println!("{tenants} API servers, {:.2} MiB each", backends.body_bytes as f64 / f64::from(1 << 20));
    println!(
        "| round | what | seconds | CPU s | resident at most MiB | page MiB | series | up |\n|---|---|---|---|---|---|---|---|"
    );
    let (mut of_pages, mut of_bare) = (0.0, 0.0);
    for round in 0..=rounds {
        // The first one connects.
        let name = if round == 0 { "connecting".to_owned() } else { round.to_string() };
        let (took, read) = measured(others::scrape(&folder, &address)).await;
        println!(
            "| {name} | the fleet's page | {:.2} | {:.2} | {:.0} | {:.1} | {} | {} |",
            took.seconds,
            took.cpu,
            took.peak_mib,
            read.bytes as f64 / f64::from(1 << 20),
            read.series,
            read.up
        );
        assert_eq!(read.up, tenants, "every one must be up, or it measures something else");
        let (fetched, bytes) = measured(fetch(&bare)).await;
        assert_eq!(bytes, tenants * backends.body_bytes);
        println!(
            "| {name} | the bare fetch | {:.2} | {:.2} | {:.0} | | | |",
            fetched.seconds, fetched.cpu, fetched.peak_mib
        );
        if round > 0 {
            (of_pages, of_bare) = (of_pages + took.cpu, of_bare + fetched.cpu);
        }
    }
    println!("CPU of the page beside the bare fetch: {:.2} times", of_pages / of_bare);
}

/// The same pages, read and thrown away: what any scraper of a thousand targets has to do at least.
async fn fetch(pools: &[Arc<Pool>]) -> usize {
    let flights = pools.iter().map(|pool| async move {
        let request = Request::get("/metrics").body(Body::Empty).expect("request");
        let mut body = pool.send(Class::Unary, request, DEADLINE).await.expect("an answer").into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame.expect("whole").into_data().map_or(0, |data| data.len());
        }
        bytes
    });
    futures::stream::iter(flights).buffer_unordered(AT_ONCE).fold(0, |sum, bytes| async move { sum + bytes }).await
}

async fn measured<T>(work: impl Future<Output = T>) -> (Took, T) {
    let own = std::process::id();
    let (peak, seen) = tokio::sync::watch::channel(0.0_f64);
    let looks = task::spawn("memory", async move {
        loop {
            peak.send_modify(|most| *most = most.max(process::resident_mib(own)));
            tokio::time::sleep(LOOK).await;
        }
    });
    let (began, before) = (Instant::now(), process::cpu(own));
    let done = work.await;
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), (process::cpu(own) - before).as_secs_f64());
    drop(looks);
    let peak_mib = *seen.borrow();
    (Took { seconds, cpu, peak_mib }, done)
}

fn target(folder: &Path, port: u16, side: Side) -> Target {
    let read = |name: &str| std::fs::read(folder.join(name)).expect("certificate");
    let (ca, certificate, key) = (read("ca.crt"), read("client.crt"), read("client.key"));
    Target {
        side,
        host: "127.0.0.1".to_owned(),
        port,
        server_name: IpAddr::from(Ipv4Addr::LOCALHOST).into(),
        tls: client_config(&ca, Some((&certificate, &key))).expect("client"),
        tls_without_identity: client_config(&ca, None).expect("client"),
        credential: Credential::Certificate,
        path_prefix: String::new(),
        reach: Reach::default(),
    }
}

fn tenant(folder: &Path, n: usize, port: u16) -> Tenant {
    let read = |name: &str| std::fs::read(folder.join(name)).expect("certificate");
    let pool = Arc::new(Pool::new(target(folder, port, Side::Backend), Clock::system()));
    Tenant {
        uid: n.to_string(),
        ..support::tenant(
            TenantId::parse("bench", &format!("t{n}")).expect("id"),
            pool,
            ServerTls::from_pem(&read("server.crt"), &read("server.key")).expect("serving"),
            ClientTrust::from_pem(&read("ca.crt")).expect("trust"),
        )
    }
}
