//! The proxies under test, each a process of its own, on a core of its own.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use portico::archive;
use portico::config::{AuditConfig, GatewayConfig, LogConfig, TracingConfig};
use portico::error::Side;
use portico::gateway;
use portico::kubernetes::Kubelets;
use portico::names::TenantId;
use portico::runtime::clock::Clock;
use portico::runtime::drain;
use portico::runtime::telemetry::{self, Metrics};
use portico::runtime::traces::{Sending, Traces};
use portico::runtime::watched::Watched;
use portico::tenant::{Registry, Tenant};
use portico::tls::{ClientTrust, ServerTls, client_config};
use portico::upstream::{Credential, Pool, Reach, Target};
use portico::usage::Usage;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::pki::{Pair, Pki};

/// The proxy's; load and backend have another.
const CORE: &str = "0";

/// Name in the serving certificates.
pub(crate) const SERVER: &str = "bench.portico.local";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// HTTP/2 on both sides.
    H2,
    /// HTTP/1.1 on both sides.
    H1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proxy {
    Haproxy,
    Portico,
}

/// A started proxy; dropped, it is killed.
pub(crate) struct Running {
    child: Child,
    pub(crate) pid: u32,
    pub(crate) port: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Case {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::H2 => "h2 to h2, 32 x 8",
            Self::H1 => "h1 to h1, 32",
        }
    }

    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::H2 => b"h2",
            Self::H1 => b"http/1.1",
        }
    }
}

impl Proxy {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Portico => "portico",
        }
    }
}

pub(crate) fn require_haproxy() {
    let known = Command::new("haproxy").arg("-v").stdout(Stdio::null()).status();
    assert!(known.is_ok_and(|s| s.success()), "haproxy is missing: apt-get install haproxy (benches/run does it)");
}

/// One CA for all sides; what matters is that both proxies verify the same chains.
pub(crate) fn write_certificates(folder: &Path) {
    let pki = Pki::new("bench CA");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
    let pair = |name: &str, pair: &Pair| {
        write(&format!("{name}.crt"), &pair.certificate);
        write(&format!("{name}.key"), &pair.key);
        // haproxy wants both in one file.
        write(&format!("{name}.pem"), &format!("{}{}", pair.certificate, pair.key));
    };
    write("ca.crt", pki.ca_pem());
    pair("server", &pki.server(&[SERVER, "127.0.0.1"]));
    pair("client", &pki.client("alice", &["developers"]));
    pair("proxy", &pki.client("front-proxy", &[]));
}

/// `with` is told to Portico: what it is measured with.
pub(crate) async fn start(proxy: Proxy, case: Case, folder: &Path, backend: u16, with: &[&str]) -> Running {
    let port = free_port();
    let mut command = Command::new("taskset");
    command.args(["-c", CORE]);
    match proxy {
        Proxy::Haproxy => {
            let file = folder.join("haproxy.cfg");
            std::fs::write(&file, haproxy(case, folder, port, backend)).expect("written");
            command.arg("haproxy").arg("-db").arg("-f").arg(file);
        }
        Proxy::Portico => {
            let own = std::env::current_exe().expect("own path");
            command.arg(own).arg("gateway").arg(folder).arg(port.to_string()).arg(backend.to_string()).args(with);
        }
    }
    let log = |name: &str| std::fs::File::create(folder.join(format!("{}.{name}", proxy.title()))).expect("log");
    // `taskset` becomes the proxy: the pid is the proxy's.
    let child = command.stdout(log("access.log")).stderr(log("err.log")).spawn().expect("started");
    let running = Running { pid: child.id(), child, port };
    let reached = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(20), reached).await;
    assert!(seen.is_ok(), "{} does not listen; see {}", proxy.title(), folder.display());
    running
}

/// The same work as Portico's: certificate checked, identity headers replaced, one log line, one connection pool.
fn haproxy(case: Case, folder: &Path, port: u16, backend: u16) -> String {
    let alpn = String::from_utf8_lossy(case.alpn()).into_owned();
    let at = folder.display();
    let mut text = String::from("global\n  nbthread 1\n  maxconn 4000\n  log stdout format raw local0\n");
    let _ = write!(
        text,
        "defaults\n  mode http\n  log global\n  option httplog\n  timeout connect 5s\n  timeout client 60s\n  \
         timeout server 60s\n  http-reuse always\n\
         frontend in\n  bind 127.0.0.1:{port} ssl crt {at}/server.pem ca-file {at}/ca.crt verify optional alpn {alpn}\n  \
         http-request del-header X-Remote- -m beg\n  http-request del-header Impersonate- -m beg\n  \
         http-request deny unless {{ ssl_c_used }}\n  http-request deny unless {{ path_beg /api/ /apis/ }}\n  \
         http-request set-header X-Remote-User %[ssl_c_s_dn(cn)]\n  \
         http-request set-header X-Remote-Group %[ssl_c_s_dn(o)]\n  default_backend out\n\
         backend out\n  server one 127.0.0.1:{backend} ssl crt {at}/proxy.pem ca-file {at}/ca.crt verify required alpn {alpn}\n"
    );
    text
}

/// Portico's gateway with one tenant, as `portico serve` runs it, on one worker.
pub(crate) fn portico(folder: &Path, port: u16, backend: u16) {
    serve(tenant(folder, port, backend), Beside::default());
}

/// What else is on.
#[derive(Default)]
pub(crate) struct Beside {
    pub(crate) audit: Option<AuditConfig>,
    pub(crate) traces: Option<TracingConfig>,
}

pub(crate) fn serve(tenant: Tenant, beside: Beside) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    runtime.block_on(async {
        telemetry::init(&LogConfig::default()).expect("log");
        let registry = Arc::new(Registry::default());
        let host = tenant.api.clone();
        registry.put(&Arc::new(tenant));
        let (_trigger, drain) = drain::channel();
        let config = GatewayConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            max_requests_per_tenant: 4_000,
            max_requests_per_second_per_tenant: 1_000_000,
            max_request_burst_per_tenant: 1_000_000,
            ..GatewayConfig::default()
        };
        let archive = beside.audit.map(|config| archive::start(&config, &Clock::system()).expect("an archive"));
        let traces = beside.traces.map(|config| Traces::new(&config, Clock::system()).expect("traces"));
        let (traces, sending) = traces.unwrap_or_default();
        let _sender = sending.map(Sending::start);
        let parts = gateway::Parts {
            config,
            registry,
            shared: gateway::SharedCertificate::default(),
            host: Some(gateway::HostCluster {
                usage: Arc::new(Usage::new(host.clone(), Arc::new(Kubelets::off()), Clock::system())),
                api: host,
                figures: Arc::<crate::figures::FakeFigures>::default(),
            }),
            audit: archive.as_ref().map(|archive| Arc::clone(archive.trail())),
            closed: Default::default(),
            consumption: Arc::default(),
            metrics: Metrics::default(),
            clock: Clock::system(),
            watched: Watched::new(Clock::system()),
            traces,
        };
        let bound = gateway::run(parts, &drain).await.expect("gateway");
        for listener in bound.listeners() {
            listener.join().await;
        }
    });
}

pub(crate) fn tenant(folder: &Path, port: u16, backend: u16) -> Tenant {
    let read = |name: &str| std::fs::read(folder.join(name)).expect("certificate");
    let ca = read("ca.crt");
    let (certificate, key) = (read("proxy.crt"), read("proxy.key"));
    let target = Target {
        side: Side::Backend,
        host: "127.0.0.1".to_owned(),
        port: backend,
        server_name: ServerName::try_from(SERVER).expect("name"),
        tls: client_config(&ca, Some((&certificate, &key))).expect("client"),
        tls_without_identity: client_config(&ca, None).expect("client"),
        credential: Credential::Certificate,
        path_prefix: String::new(),
        reach: Reach::default(),
    };
    let pool = Arc::new(Pool::new(target, Clock::system()));
    Tenant {
        hosts: vec![SERVER.to_owned()],
        port,
        server_ca_pem: String::from_utf8(ca.clone()).expect("pem"),
        ..crate::tenant::tenant(
            TenantId::parse("bench", "bench").expect("id"),
            pool,
            ServerTls::from_pem(&read("server.crt"), &read("server.key")).expect("serving"),
            ClientTrust::from_pem(&ca).expect("trust"),
        )
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
    listener.local_addr().expect("address").port()
}
