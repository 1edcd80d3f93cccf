//! CPU of the gateway for each request by how its caller is known, beside a client certificate in the same run.
//!
//! The work, the load and the backend are the gateway bench's, HTTP/2 on both sides. `BENCH_SECONDS` and `BENCH_ROUNDS` change
//! the length; the first argument `gateway` makes this binary the Portico under test.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../tests/support/environment.rs"]
mod environment;
#[path = "../tests/support/figures.rs"]
#[allow(dead_code, unreachable_pub)]
mod figures;
#[path = "gateway/load.rs"]
mod load;
#[path = "../tests/support/pki.rs"]
#[allow(dead_code, unreachable_pub)]
mod pki;
#[path = "../tests/support/process.rs"]
mod process;
#[path = "gateway/proxies.rs"]
#[allow(dead_code)]
mod proxies;
#[path = "../tests/support/tenant.rs"]
mod tenant;
#[path = "../tests/support/tokens.rs"]
mod tokens;

use std::path::Path;
use std::time::Duration;

use environment::number;
use jiff::Timestamp;
use load::{Answers, Caller, Load, Measured};
use proxies::{Case, Proxy};
use tokens::Key;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How a caller is known; the first is what the others are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Certificate,
    /// By the token of a ServiceAccount, which is passed on.
    Account,
    /// By a token that nobody here can judge.
    Opaque,
}

impl Known {
    const ALL: [Self; 3] = [Self::Certificate, Self::Account, Self::Opaque];

    fn title(self) -> &'static str {
        match self {
            Self::Certificate => "client certificate",
            Self::Account => "ServiceAccount token",
            Self::Opaque => "opaque token",
        }
    }
}

/// What they show, and what the backend says of it; for the life of the process.
struct Shown {
    account: &'static str,
    answers: Answers,
}

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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/callers");
    std::fs::create_dir_all(&folder).expect("folder");
    proxies::write_certificates(&folder);
    load::pin_self();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let length = Duration::from_secs(number("BENCH_SECONDS", 8));
    let shown = shown();
    let mut results = Known::ALL.map(|known| (known, Vec::<Measured>::new()));
    for _ in 0..number("BENCH_ROUNDS", 3) {
        for (known, measured) in &mut results {
            measured.push(runtime.block_on(one(*known, &shown, &folder, length)));
        }
    }
    println!("| caller | CPU us/request | beside a certificate | requests/s | p50 ms | p99 ms |");
    println!("|---|---|---|---|---|---|");
    let certificate = load::median(&results[0].1).cpu_micros;
    for (known, measured) in &results {
        let m = load::median(measured);
        println!(
            "| {} | {:.1} | {:.2} | {:.0} | {:.2} | {:.2} |",
            known.title(),
            m.cpu_micros,
            m.cpu_micros / certificate,
            m.per_second,
            m.p50.as_secs_f64() * 1e3,
            m.p99.as_secs_f64() * 1e3,
        );
    }
}

async fn one(known: Known, shown: &Shown, folder: &Path, length: Duration) -> Measured {
    let caller = match known {
        Known::Certificate => Caller::Certificate,
        Known::Account => Caller::Token(shown.account),
        Known::Opaque => Caller::Token("Bearer nothing-that-is-signed"),
    };
    let backend = load::backend(folder, Case::H2, shown.answers).await;
    let running = proxies::start(Proxy::Portico, Case::H2, folder, backend.port, &[]).await;
    Load::connect(folder, Case::H2, running.port, caller).await.measured(&running, length).await
}

fn shown() -> Shown {
    let key = Key::ec();
    let token = key.of(&tokens::claims("web", Timestamp::now().as_second()));
    let [configuration, keys] = tokens::documents(&[&key]);
    let answers = vec![(tokens::CONFIGURATION, configuration.to_string()), (tokens::SET, keys.to_string())];
    Shown { account: format!("Bearer {token}").leak(), answers: answers.leak() }
}
