//! Every socket on which the whole process listens, by the kernel's own list, and what each of them says to somebody without
//! credentials: what docs/security.md ("Ports of Portico's pods") says, and nothing more (CVE-2026-39429 and its kin).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use portico::tls::client_config;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use crate::support::fake::{Answer, FakeApi, Objects, Seen};
use crate::support::pki::Pki;
use crate::support::port;
use crate::{LOCAL, PATIENCE};

const CLUSTERS: &str = "/apis/portico.dev/v1alpha1/virtualclusters";

/// `portico serve` with all its roles, and one virtual cluster. Dropped, it is killed.
struct Process {
    child: Child,
    folder: tempfile::TempDir,
    ports: Ports,
    shared_ca: Pki,
    tenant_ca: Pki,
    backend: FakeApi,
    _host: FakeApi,
}

#[derive(Clone, Copy)]
struct Ports {
    gateway: u16,
    health: u16,
    metrics: u16,
    /// DNS is on the next one.
    tenant: u16,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn encoded(pairs: &[(&str, &str)]) -> Value {
    pairs
        .iter()
        .map(|(key, text)| ((*key).to_owned(), json!(STANDARD.encode(text))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Lists, and watches on which nothing is said; everything else is there or 404.
fn answer(objects: &Objects, seen: &Seen) -> Answer {
    if seen.query.contains("sendInitialEvents") {
        return Answer::status(422, "Invalid", "sendInitialEvents is forbidden");
    }
    if seen.query.contains("watch=") {
        return Answer::Hang;
    }
    objects.answer(&seen.path)
}

impl Process {
    async fn start() -> Self {
        let new = || port::free(LOCAL);
        let ports = Ports { gateway: new(), health: new(), metrics: new(), tenant: new() };
        let (shared_ca, tenant_ca) = (Pki::new("shared CA"), Pki::new("server CA"));
        let (of_backend, of_host) = (Objects::default(), Objects::default());
        let empty = || json!({"metadata": {"resourceVersion": "7"}, "items": []});
        for path in ["/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"] {
            of_backend.put(path, empty());
        }
        let known = of_backend.clone();
        let backend = FakeApi::start(move |seen| std::future::ready(answer(&known, &seen))).await;
        plant(&of_host, ports, &backend, (&shared_ca, &tenant_ca));
        let known = of_host.clone();
        let host = FakeApi::start(move |seen| std::future::ready(answer(&known, &seen))).await;
        let folder = tempfile::tempdir().expect("a folder");
        let config = write(folder.path(), ports, &host);
        let child = Command::new(env!("CARGO_BIN_EXE_portico"))
            .arg("serve")
            .arg("--config")
            .arg(config)
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        Self { child, folder, ports, shared_ca, tenant_ca, backend, _host: host }
    }

    fn at(port: u16) -> SocketAddr {
        (LOCAL, port).into()
    }

    /// What listens now: protocol and port.
    fn listening(&self) -> BTreeSet<(&'static str, u16)> {
        const TCP_LISTEN: &str = "0A";
        let process = Path::new("/proc").join(self.child.id().to_string());
        let files = std::fs::read_dir(process.join("fd")).expect("it runs");
        let own: BTreeSet<String> = files
            .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok()?.to_str().map(str::to_owned))
            .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        let mut found = BTreeSet::new();
        for protocol in ["tcp", "tcp6", "udp", "udp6"] {
            let table = std::fs::read_to_string(process.join("net").join(protocol)).unwrap_or_default();
            for line in table.lines().skip(1) {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let (address, state, inode) = (fields[1], fields[3], fields[9]);
                let listens = state == TCP_LISTEN || protocol.starts_with("udp");
                if listens && own.contains(inode) {
                    let port = address.rsplit(':').next().and_then(|hex| u16::from_str_radix(hex, 16).ok());
                    found.insert((protocol, port.expect("a port")));
                }
            }
        }
        found
    }

    /// Everything listens, and the shared certificate is there.
    async fn ready(&self) {
        let serves = async {
            while self.listening().len() < 6 || self.tls(self.ports.gateway, &self.shared_ca).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, serves).await;
        assert!(in_time.is_ok(), "{:?} listen ({})", self.listening(), self.folder.path().display());
    }

    async fn tls(&self, port: u16, ca: &Pki) -> std::io::Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let config = client_config(ca.ca_pem().as_bytes(), None).expect("roots");
        let mut config = rustls::ClientConfig::clone(&config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(Self::at(port)).await?;
        let name = ServerName::from(Self::at(port).ip());
        tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await
    }

    async fn over_tls(&self, port: u16, ca: &Pki, method: &str, path: &str) -> String {
        let stream = self.tls(port, ca).await.expect("handshake");
        exchange(stream, &request(method, path)).await
    }

    async fn plain(&self, port: u16, text: &str) -> String {
        exchange(TcpStream::connect(Self::at(port)).await.expect("connected"), text).await
    }
}

/// The virtual cluster with its keys, and the shared certificate.
fn plant(host: &Objects, ports: Ports, backend: &FakeApi, (shared_ca, tenant_ca): (&Pki, &Pki)) {
    let cluster = json!({"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster",
        "metadata": {"namespace": "team", "name": "alpha", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {},
        "status": {"port": ports.tenant, "pkiSecret": "alpha-pki", "apiServiceIP": "10.96.0.2", "dnsServiceIP": "10.96.0.3",
            "backend": {"address": backend.address.to_string(), "serverName": "localhost"}}});
    host.put(CLUSTERS, json!({"metadata": {"resourceVersion": "7"}, "items": [cluster]}));
    let (serving, proxy) = (tenant_ca.server(&["127.0.0.1"]), backend.pki.client("front-proxy", &[]));
    let data = encoded(&[
        ("server-ca.crt", backend.pki.ca_pem()),
        ("client-ca.crt", Pki::new("client CA").ca_pem()),
        ("gateway.crt", &serving.certificate),
        ("gateway.key", &serving.key),
        ("front-proxy.crt", &proxy.certificate),
        ("front-proxy.key", &proxy.key),
    ]);
    let secret = |name: &str, data: Value| json!({"metadata": {"name": name, "resourceVersion": "7"}, "data": data});
    host.put("/api/v1/namespaces/team/secrets/alpha-pki", secret("alpha-pki", data));
    let shared = shared_ca.server(&["127.0.0.1"]);
    let data = encoded(&[("tls.crt", &shared.certificate), ("tls.key", &shared.key)]);
    let name = "portico-gateway-tls";
    host.put(&format!("/api/v1/namespaces/portico-system/secrets/{name}"), secret(name, data));
}

/// The configuration's file, with the host's kubeconfig beside it.
fn write(folder: &Path, ports: Ports, host: &FakeApi) -> std::path::PathBuf {
    let identity = host.pki.client("portico", &[]);
    let [ca, certificate, key] =
        [host.pki.ca_pem(), &identity.certificate, &identity.key].map(|pem| STANDARD.encode(pem));
    let kubeconfig = json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": format!("https://{}", host.address), "certificate-authority-data": ca}}],
        "users": [{"name": "u", "user": {"client-certificate-data": certificate, "client-key-data": key}}]});
    let (at, place) = (|port| format!("127.0.0.1:{port}"), folder.join("kubeconfig"));
    let config = json!({"gateway": {"listen": at(ports.gateway)},
        "admin": {"listen": at(ports.health), "metricsListen": at(ports.metrics)},
        "host": {"kubeconfig": place, "systemNamespace": "portico-system"}, "dns": {"upstream": ["127.0.0.1:9"]}});
    std::fs::write(&place, kubeconfig.to_string()).expect("written");
    let path = folder.join("portico.yaml");
    std::fs::write(&path, config.to_string()).expect("written");
    path
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) -> String {
    let _ = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

/// 0: nothing that is HTTP.
fn code(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_default()
}

/// What programs of this kind serve somewhere, and what API servers tell everybody.
const PATHS: [&str; 27] = [
    "/",
    "/api",
    "/apis",
    "/version",
    "/openapi/v3",
    "/livez",
    "/readyz",
    "/readyz?verbose",
    "/healthz",
    "/metrics",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
    "/api/v1/namespaces/kube-public/configmaps/cluster-info",
    "/api/v1/namespaces/default/services/x/proxy/",
    "/debug/pprof/",
    "/debug/vars",
    "/configz",
    "/flagz",
    "/statusz",
    "/logs/",
    "/cacerts",
    "/v1-k3s/token",
    "/static/x",
    "/clusters",
    "/index.html",
    "/favicon.ico",
    "/robots.txt",
];

/// Every path is read, and some are tried with every other method.
fn tried(methods: &[&'static str]) -> Vec<(&'static str, &'static str)> {
    let others = methods.iter().flat_map(|method| PATHS.iter().step_by(9).map(|path| (*method, *path)));
    PATHS.iter().map(|path| ("GET", *path)).chain(others).collect()
}

async fn the_gateway_knows_nobody(process: &Process) {
    for (method, path) in tried(&["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]) {
        for (port, ca, prefix) in [
            (process.ports.gateway, &process.shared_ca, "/clusters/team/alpha"),
            (process.ports.gateway, &process.shared_ca, "/clusters/team/nobody"),
            (process.ports.gateway, &process.shared_ca, ""),
            (process.ports.tenant, &process.tenant_ca, ""),
        ] {
            let answer = process.over_tls(port, ca, method, &format!("{prefix}{path}")).await;
            let is_known = prefix.ends_with("/alpha") || port == process.ports.tenant;
            let expected: &[u16] = if is_known { &[401, 404] } else { &[404] };
            assert!(expected.contains(&code(&answer)), "{method} {prefix}{path} at {port}: {answer}");
        }
    }
    let asked: Vec<String> = process.backend.seen().into_iter().map(|seen| seen.path).collect();
    let of_dns = |path: &&String| {
        path.ends_with("/services") || path.ends_with("/endpointslices") || path.ends_with("/kube-system")
    };
    assert!(asked.iter().all(|path| of_dns(&path)), "{asked:?}");
}

async fn health_says_so_and_no_more(process: &Process) {
    for (method, path) in tried(&["HEAD", "POST", "DELETE", "OPTIONS"]) {
        let answer = process.plain(process.ports.health, &request(method, path)).await;
        let is_probe = ["/livez", "/healthz", "/readyz", "/readyz?verbose"].contains(&path);
        let expected: &[u16] = match (method, is_probe) {
            ("GET" | "HEAD", true) => &[200, 503],
            ("GET" | "HEAD", false) => &[404],
            _ => &[405],
        };
        assert!(expected.contains(&code(&answer)), "{method} {path}: {answer}");
        assert!(!answer.contains("alpha") && !answer.contains("portico_"), "{method} {path} names somebody: {answer}");
    }
}

async fn metrics_want_a_token(process: &Process) {
    for (method, path) in tried(&["HEAD", "POST", "OPTIONS"]) {
        let answer = process.over_tls(process.ports.metrics, &process.shared_ca, method, path).await;
        assert_eq!(code(&answer), 401, "{method} {path}: {answer}");
    }
    for port in [process.ports.gateway, process.ports.metrics, process.ports.tenant] {
        assert_eq!(code(&process.plain(port, &request("GET", "/metrics")).await), 0, "plain HTTP at {port}");
    }
}

async fn resolved(process: &Process, name: &str, kind: RecordType, class: DNSClass) -> ResponseCode {
    let socket = UdpSocket::bind(Process::at(0)).await.expect("socket");
    socket.connect(Process::at(process.ports.tenant + 1)).await.expect("connected");
    let mut question = Query::query(Name::from_ascii(name).expect("name"), kind);
    question.set_query_class(class);
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.queries = vec![question];
    socket.send(&query.to_vec().expect("bytes")).await.expect("sent");
    let mut buffer = vec![0; 2048];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("in time").expect("a reply");
    Message::from_vec(&buffer[..length]).expect("a message").metadata.response_code
}

async fn dns_tells_names(process: &Process) {
    let own = "kubernetes.default.svc.cluster.local.";
    let answers = async {
        while resolved(process, own, RecordType::A, DNSClass::IN).await == ResponseCode::ServFail {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answers).await.expect("its names are known in time");
    for (name, kind, class) in [
        ("cluster.local.", RecordType::AXFR, DNSClass::IN),
        ("cluster.local.", RecordType::IXFR, DNSClass::IN),
        ("version.bind.", RecordType::TXT, DNSClass::CH),
        ("id.server.", RecordType::TXT, DNSClass::CH),
        ("hostname.bind.", RecordType::ANY, DNSClass::ANY),
    ] {
        assert_eq!(resolved(process, name, kind, class).await, ResponseCode::Refused, "{name} {kind} {class}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_listener_is_known_and_says_what_is_documented() {
    let process = Process::start().await;
    process.ready().await;
    let Ports { gateway, health, metrics, tenant } = process.ports;
    let documented = [
        ("tcp", gateway),
        ("tcp", health),
        ("tcp", metrics),
        ("tcp", tenant),
        ("tcp", tenant + 1),
        ("udp", tenant + 1),
    ];
    assert_eq!(process.listening(), BTreeSet::from(documented));
    health_says_so_and_no_more(&process).await;
    metrics_want_a_token(&process).await;
    the_gateway_knows_nobody(&process).await;
    dns_tells_names(&process).await;
    assert_eq!(process.listening(), BTreeSet::from(documented), "nor did anything begin meanwhile");
}
