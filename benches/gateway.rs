//! CPU of the gateway for each request, beside haproxy on the same work in the same run.
//!
//! TLS in (client certificate), TLS out, 1 KiB answers, identity headers set, access log and metrics on. The proxy has
//! one core for itself, load and backend share the other. `BENCH_SECONDS`, `BENCH_ROUNDS` change the length; the first
//! argument `gateway` makes this binary the Portico under test.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../tests/support/environment.rs"]
mod environment;
#[path = "../tests/support/figures.rs"]
#[allow(dead_code, unreachable_pub)]
mod figures;
#[path = "gateway/load.rs"]
#[allow(dead_code)]
mod load;
#[path = "../tests/support/pki.rs"]
#[allow(dead_code, unreachable_pub)]
mod pki;
#[path = "../tests/support/process.rs"]
mod process;
#[path = "gateway/proxies.rs"]
mod proxies;
#[path = "../tests/support/tenant.rs"]
mod tenant;

use std::path::Path;
use std::time::Duration;

use environment::number;
use load::{Caller, Load, Measured};
use proxies::{Case, Proxy};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["gateway", folder, port, backend] => {
            let (port, backend) = (port.parse().expect("port"), backend.parse().expect("port"));
            proxies::portico(Path::new(folder), port, backend);
        }
        _ => compare(),
    }
}

fn compare() {
    proxies::require_haproxy();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/gateway");
    std::fs::create_dir_all(&folder).expect("folder");
    proxies::write_certificates(&folder);
    load::pin_self();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let length = Duration::from_secs(number("BENCH_SECONDS", 8));
    let rounds = number("BENCH_ROUNDS", 3);
    println!("| case | proxy | CPU us/request | beside haproxy | requests/s | p50 ms | p99 ms | RSS MiB |");
    println!("|---|---|---|---|---|---|---|---|");
    for case in [Case::H2, Case::H1] {
        let mut results: Vec<(Proxy, Vec<Measured>)> = vec![(Proxy::Haproxy, vec![]), (Proxy::Portico, vec![])];
        for _ in 0..rounds {
            for (proxy, measured) in &mut results {
                measured.push(runtime.block_on(one(*proxy, case, &folder, length)));
            }
        }
        let peer = load::median(&results[0].1).cpu_micros;
        for (proxy, measured) in &results {
            let m = load::median(measured);
            println!(
                "| {} | {} | {:.1} | {:.2} | {:.0} | {:.2} | {:.2} | {:.0} |",
                case.title(),
                proxy.title(),
                m.cpu_micros,
                m.cpu_micros / peer,
                m.per_second,
                m.p50.as_secs_f64() * 1e3,
                m.p99.as_secs_f64() * 1e3,
                m.rss_mib,
            );
        }
    }
}

async fn one(proxy: Proxy, case: Case, folder: &Path, length: Duration) -> Measured {
    let backend = load::backend(folder, case, &[]).await;
    let running = proxies::start(proxy, case, folder, backend.port, &[]).await;
    Load::connect(folder, case, running.port, Caller::Certificate).await.measured(&running, length).await
}
