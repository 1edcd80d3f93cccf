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
use std::sync::Arc;
use std::time::Duration;

use environment::number;
use jiff::Timestamp;
use load::{Answers, Caller, Load, Measured};
use portico::config::{JwtBounds, TracingConfig};
use portico::issuers::Issuers;
use proxies::{Beside, Case, Proxy};
use serde_json::json;
use tokens::Key;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ISSUER: &str = "https://issuer.example.com";

/// How a caller is known, or what else is on; the first is what the others are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Certificate,
    /// By the token of a ServiceAccount, which is passed on.
    Account,
    /// By a token that nobody here can judge.
    Opaque,
    /// By a token of an issuer of `spec.auth.jwt`.
    Issuer,
    /// Each request leaves an event of the audit log, in a file.
    Audited,
    /// Each request is traced, and sent to a collector.
    Traced,
    /// By an issuer's token, audited, and one request of a hundred traced.
    Everything,
}

impl Known {
    const ALL: [Self; 7] =
        [Self::Certificate, Self::Account, Self::Opaque, Self::Issuer, Self::Audited, Self::Traced, Self::Everything];

    fn title(self) -> &'static str {
        match self {
            Self::Certificate => "client certificate",
            Self::Account => "ServiceAccount token",
            Self::Opaque => "opaque token",
            Self::Issuer => "issuer's token (JWT)",
            Self::Audited => "certificate, audit of everything",
            Self::Traced => "certificate, every request traced",
            Self::Everything => "JWT, audit, 1 % traced",
        }
    }
}

/// What they show, and what the backend and the issuer say of it; for the life of the process.
struct Shown {
    account: &'static str,
    issued: &'static str,
    answers: Answers,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["gateway", folder, port, backend, with @ ..] => {
            let (port, backend) = (port.parse().expect("port"), backend.parse().expect("port"));
            gateway(Path::new(folder), port, backend, with);
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

/// The backend is the issuer, too.
fn gateway(folder: &Path, port: u16, backend: u16, with: &[&str]) {
    let has = |what: &str| with.contains(&what);
    let mut tenant = proxies::tenant(folder, port, backend);
    if has("jwt") {
        let authority = std::fs::read_to_string(folder.join("ca.crt")).expect("certificate");
        let entry = json!({
            "issuer": {"url": ISSUER, "discoveryURL": format!("https://127.0.0.1:{backend}/issuer"), "audiences": ["bench"],
                "certificateAuthority": authority},
            "claimMappings": {"username": {"claim": "sub"}},
        });
        let own = "127.0.0.1/32".parse().expect("a network");
        let bounds = JwtBounds {
            allowed_issuers: vec!["*".to_owned()],
            allowed_addresses: vec![own],
            allow_system_names: false,
        };
        let entry = serde_json::from_value(entry).expect("an entry");
        tenant.issuers = Arc::new(Issuers::new(&[entry], &bounds, &Issuers::default()));
        assert!(tenant.issuers.faults().is_empty(), "{:?}", tenant.issuers.faults());
    }
    let rule = json!({"enabled": true, "policy": {"rules": [{"level": "Metadata"}]}, "maxEventsPerSecondPerTenant": 100_000,
        "file": {"path": folder.join("audit.log")}});
    let audit = has("audit").then(|| serde_json::from_value(rule).expect("a policy"));
    let said = |name: &str| with.iter().find_map(|with| with.strip_prefix(name));
    let traces = said("traces=").zip(said("collector=")).map(|(share, collector)| TracingConfig {
        endpoint: format!("http://127.0.0.1:{collector}/v1/traces"),
        sampling_rate_per_million: share.parse().expect("a share"),
        max_traces_per_second: 10_000,
        max_traces_per_second_per_tenant: 10_000,
        ..TracingConfig::default()
    });
    proxies::serve(tenant, Beside { audit, traces });
}

async fn one(known: Known, shown: &Shown, folder: &Path, length: Duration) -> Measured {
    let (caller, with): (Caller, &[&str]) = match known {
        Known::Certificate => (Caller::Certificate, &[]),
        Known::Account => (Caller::Token(shown.account), &[]),
        Known::Opaque => (Caller::Token("Bearer nothing-that-is-signed"), &[]),
        Known::Issuer => (Caller::Token(shown.issued), &["jwt"]),
        Known::Audited => (Caller::Certificate, &["audit"]),
        Known::Traced => (Caller::Certificate, &["traces=1000000"]),
        Known::Everything => (Caller::Token(shown.issued), &["jwt", "audit", "traces=10000"]),
    };
    let backend = load::backend(folder, Case::H2, shown.answers).await;
    let collector = load::collector().await;
    let collects = format!("collector={}", collector.port);
    let with: Vec<&str> = with.iter().copied().chain([collects.as_str()]).collect();
    let running = proxies::start(Proxy::Portico, Case::H2, folder, backend.port, &with).await;
    Load::connect(folder, Case::H2, running.port, caller).await.measured(&running, length).await
}

fn shown() -> Shown {
    let (key, issuers) = (Key::ec(), Key::ec());
    let now = Timestamp::now().as_second();
    let account = key.of(&tokens::claims("web", now));
    let issued = issuers.of(&json!({"iss": ISSUER, "sub": "jane", "aud": "bench", "exp": now + 3600}));
    let [configuration, keys] = tokens::documents(&[&key]);
    let discovery = json!({"issuer": ISSUER, "jwks_uri": "https://127.0.0.1:PORT/keys"});
    let answers = vec![
        (tokens::CONFIGURATION, configuration.to_string()),
        (tokens::SET, keys.to_string()),
        ("/issuer", discovery.to_string()),
        ("/keys", json!({"keys": [issuers.published()]}).to_string()),
    ];
    Shown {
        account: format!("Bearer {account}").leak(),
        issued: format!("Bearer {issued}").leak(),
        answers: answers.leak(),
    }
}
