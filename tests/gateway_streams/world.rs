//! A gateway, a host and tenants A and B whose backends know who may what.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use portico::config::{GatewayConfig, HostConfig};
use portico::consumption::Consumption;
use portico::error::Side;
use portico::gateway::{self, Bound, HostCluster, Parts, SharedCertificate};
use portico::kubernetes::{ApiClient, Kubelets};
use portico::names::{self, Limit, TenantId, VirtualName, VirtualNamespace};
use portico::runtime::clock::Clock;
use portico::runtime::drain::{self, DrainTrigger};
use portico::runtime::telemetry::Metrics;
use portico::runtime::traces::Traces;
use portico::runtime::watched::Watched;
use portico::tenant::{Registry, Tenant};
use portico::tls::{ClientTrust, ServerTls, client_config};
use portico::trail::Trail;
use portico::upstream::Pool;
use portico::usage::Usage;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::rules::{ADMISSION, Rules};
use crate::support::fake::{Answer, FakeApi, Objects, Seen};
use crate::support::pki::{Pair, Pki};
use crate::support::port;
use crate::support::tenant::tenant;

/// Fails a test that waits for something that does not come.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Host namespace of both tenants.
pub const HOST_NAMESPACE: &str = "team";

/// One tenant.
pub struct Cluster {
    pub name: &'static str,
    pub api: FakeApi,
    pub objects: Objects,
    pub rules: Rules,
    server_ca: Pki,
    client_ca: Pki,
    port: u16,
}

pub struct World {
    pub a: Cluster,
    pub b: Cluster,
    pub host: FakeApi,
    pub host_objects: Objects,
    pub registry: Arc<Registry>,
    pub metrics: Metrics,
    pub consumption: Arc<Consumption>,
    pub usage: Arc<Usage>,
    pub drain: Option<DrainTrigger>,
    address: SocketAddr,
    _bound: Bound,
}

/// A caller's connection, HTTP/1.1 byte for byte.
pub struct Wire(TlsStream<TcpStream>);

/// A response head and what came behind it.
#[derive(Debug)]
pub struct Head {
    pub code: u16,
    pub text: String,
}

impl World {
    /// A world whose host answers streams by `streams`; reads of pods are answered from `host_objects`.
    pub async fn start(streams: impl Fn(Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(Clock::system(), streams).await
    }

    pub async fn with(clock: Clock, streams: impl Fn(Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::configured(&HostConfig::default(), clock, streams).await
    }

    /// With kubelets that may be asked.
    pub async fn configured(
        config: &HostConfig,
        clock: Clock,
        streams: impl Fn(Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::whole(config, clock, Traces::off(), streams).await
    }

    /// With traces.
    pub async fn whole(
        config: &HostConfig,
        clock: Clock,
        traces: Traces,
        streams: impl Fn(Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::built(config, clock, (traces, None), streams).await
    }

    /// With an audit log.
    pub async fn audited(audit: &Arc<Trail>, streams: impl Fn(Seen) -> Answer + Send + Sync + 'static) -> Self {
        let audit = Some(Arc::clone(audit));
        Self::built(&HostConfig::default(), Clock::system(), (Traces::off(), audit), streams).await
    }

    async fn built(
        config: &HostConfig,
        clock: Clock,
        (traces, audit): (Traces, Option<Arc<Trail>>),
        streams: impl Fn(Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let (a, b) = (Cluster::new("alpha").await, Cluster::new("beta").await);
        let host_objects = Objects::default();
        let objects = host_objects.clone();
        let streams = Arc::new(streams);
        let host = FakeApi::start(move |seen| {
            let is_pod = seen.path.split('/').count() == 7 && seen.path.contains("/pods/");
            let answer = if is_pod { objects.answer(&seen.path) } else { streams(seen) };
            async move { answer }
        })
        .await;
        let registry = Arc::new(Registry::default());
        for cluster in [&a, &b] {
            assert!(registry.put(&Arc::new(cluster.tenant(1, &clock))).is_empty());
        }
        let (trigger, drain) = drain::channel();
        let pool = Arc::new(Pool::new(host.target(Side::Host), clock.clone()));
        let (metrics, consumption) = (Metrics::default(), Arc::<Consumption>::default());
        let client = ApiClient::new(pool, HeaderMap::new());
        let kubelets = Kubelets::new(config, &BTreeMap::new(), &client).expect("kubelets");
        let usage = Arc::new(Usage::new(client.clone(), Arc::new(kubelets), clock.clone()));
        let parts = Parts {
            config: GatewayConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..GatewayConfig::default() },
            registry: Arc::clone(&registry),
            shared: SharedCertificate::default(),
            host: Some(HostCluster { api: client, usage: Arc::clone(&usage), figures: Arc::clone(&usage) as Arc<_> }),
            audit,
            closed: Default::default(),
            consumption: Arc::clone(&consumption),
            metrics: metrics.clone(),
            watched: Watched::new(clock.clone()),
            traces,
            clock,
        };
        let bound = gateway::run(parts, &drain).await.expect("gateway");
        let drain = Some(trigger);
        let address = bound.address;
        Self { address, a, b, host, host_objects, registry, metrics, consumption, usage, drain, _bound: bound }
    }

    /// A running pod of a tenant, on both sides.
    pub fn pod(&self, cluster: &Cluster, name: &str) {
        cluster.pod(name, "node-1");
        self.host_pod(cluster, name, &format!("uid-{name}"), cluster.name);
    }

    /// The host pod under the name that `cluster`'s pod has, recorded as `uid` of `owner`'s.
    pub fn host_pod(&self, cluster: &Cluster, name: &str, uid: &str, owner: &str) {
        let host_name = cluster.host_name(name);
        self.host_objects.put(
            &format!("/api/v1/namespaces/{HOST_NAMESPACE}/pods/{host_name}"),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
                "name": host_name, "namespace": HOST_NAMESPACE, "uid": "host-uid",
                "labels": {"portico.dev/cluster": owner},
                "annotations": {"portico.dev/object-name": name, "portico.dev/object-namespace": "default",
                    "portico.dev/object-uid": uid, "portico.dev/object-kind": "Pod"},
            }, "spec": {"nodeName": "node-1"}}),
        );
    }

    /// Requests that reached the host beyond reads of pods.
    pub fn streams(&self) -> Vec<Seen> {
        self.host.seen().into_iter().filter(|seen| seen.path.split('/').count() > 7).collect()
    }

    pub async fn connect(&self, cluster: &Cluster, user: Option<&str>) -> Wire {
        let pair = user.map(|user| cluster.client_ca.client(user, &["devs"]));
        self.connect_with(cluster, pair.as_ref()).await
    }

    async fn connect_with(&self, cluster: &Cluster, pair: Option<&Pair>) -> Wire {
        let identity = pair.map(|p| (p.certificate.as_bytes(), p.key.as_bytes()));
        let config = client_config(cluster.server_ca.ca_pem().as_bytes(), identity).expect("tls");
        let stream = TcpStream::connect(self.address).await.expect("connect");
        let name = rustls::pki_types::ServerName::try_from(cluster.domain()).expect("name");
        let handshake = tokio_rustls::TlsConnector::from(config).connect(name, stream);
        Wire(tokio::time::timeout(PATIENCE, handshake).await.expect("handshake in time").expect("handshake"))
    }

    /// Connects, sends one request, reads its head.
    pub async fn ask(&self, cluster: &Cluster, user: &str, request: &str) -> (Wire, Head) {
        let mut wire = self.connect(cluster, Some(user)).await;
        wire.send(request, cluster).await;
        let head = wire.head().await;
        (wire, head)
    }

    /// The same with a certificate that is valid longer than others are.
    pub async fn ask_lasting(&self, cluster: &Cluster, user: &str, request: &str) -> (Wire, Head) {
        let pair = cluster.client_ca.lasting_client(user, &["devs"]);
        let mut wire = self.connect_with(cluster, Some(&pair)).await;
        wire.send(request, cluster).await;
        let head = wire.head().await;
        (wire, head)
    }

    /// Waits until an exec is answered so: what happens in a backend is known here a moment later.
    pub async fn until(&self, cluster: &Cluster, what: &str, is_so: impl Fn(u16, &str) -> bool) {
        let asked = async {
            loop {
                let (mut wire, head) = self.ask(cluster, "jane", &websocket("web")).await;
                let body = if head.code == 101 { Vec::new() } else { wire.rest().await };
                if is_so(head.code, &String::from_utf8_lossy(&body)) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("never {what}"));
    }

    /// Waits until this judge refuses exec.
    pub async fn judged_by(&self, cluster: &Cluster, judge: &str) {
        let is_so = |code, body: &str| code == 403 && body.contains("CONNECT") && body.contains(judge);
        self.until(cluster, judge, is_so).await;
    }

    /// Waits until nobody refuses exec.
    pub async fn passes(&self, cluster: &Cluster) {
        self.until(cluster, "passes", |code, _| code == 101).await;
    }

    /// Waits until the rules of so many tenants are followed.
    pub async fn followed(&self, count: usize) {
        let line = format!("portico_gateway_admission_followed {count}\n");
        let reached = async {
            while !self.metrics.render().expect("metrics").contains(&line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("never {line}"));
    }

    /// The code and message of a refusal.
    pub async fn refusal(&self, cluster: &Cluster, user: &str, request: &str) -> (u16, String) {
        let (mut wire, head) = self.ask(cluster, user, request).await;
        let body = wire.rest().await;
        // Relayed answers come in chunks.
        let from = body.iter().position(|b| *b == b'{').unwrap_or_default();
        let to = body.iter().rposition(|b| *b == b'}').map_or(from, |at| at + 1);
        let status: Value = serde_json::from_slice(&body[from..to]).unwrap_or_else(|_| panic!("no Status: {head:?}"));
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["code"], head.code);
        (head.code, status["message"].as_str().unwrap_or_default().to_owned())
    }
}

impl Cluster {
    async fn new(name: &'static str) -> Self {
        let (objects, rules) = (Objects::default(), Rules::default());
        let (known, admission) = (objects.clone(), rules.clone());
        let api = FakeApi::start(move |seen| {
            let answer = backend(&known, &admission, &seen);
            async move { answer }
        })
        .await;
        let port = port::free([127, 0, 0, 1]);
        Self { name, api, objects, rules, server_ca: Pki::new("server CA"), client_ca: Pki::new("client CA"), port }
    }

    fn domain(&self) -> String {
        format!("{}.example.com", self.name)
    }

    pub fn id(&self) -> TenantId {
        TenantId::parse(HOST_NAMESPACE, self.name).expect("id")
    }

    pub fn host_name(&self, pod: &str) -> String {
        let name = VirtualName::parse(pod).expect("name");
        let namespace = VirtualNamespace::parse("default").expect("namespace");
        names::host_name(&name, &namespace, self.id().name(), Limit::Subdomain).to_string()
    }

    /// A pod with containers `main` and `side`.
    pub fn pod(&self, name: &str, node: &str) {
        self.objects.put(
            &format!("/api/v1/namespaces/default/pods/{name}"),
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
                "spec": {"nodeName": node, "containers": [{"name": "main"}, {"name": "side"}]}}),
        );
    }

    pub fn tenant(&self, generation: u64, clock: &Clock) -> Tenant {
        let serving = self.server_ca.server(&[&self.domain()]);
        let pool = Arc::new(Pool::new(self.api.target(Side::Backend), clock.clone()));
        Tenant {
            uid: format!("uid-{}", self.name),
            owner: Some(portico::translate::Owner::virtual_cluster(self.name, &format!("uid-{}", self.name))),
            generation,
            hosts: vec![self.domain()],
            port: self.port,
            server_ca_pem: self.server_ca.ca_pem().to_owned(),
            ..tenant(
                self.id(),
                pool,
                ServerTls::from_pem(serving.certificate.as_bytes(), serving.key.as_bytes()).expect("tls"),
                ClientTrust::from_pem(self.client_ca.ca_pem().as_bytes()).expect("trust"),
            )
        }
    }
}

/// `jane` may all, `reader` may only get, `admin` may also impersonate; everybody else may nothing.
fn backend(objects: &Objects, rules: &Rules, seen: &Seen) -> Answer {
    let user = match (seen.header("x-remote-user"), seen.header("authorization")) {
        (Some(user), None) => user.to_owned(),
        (None, Some("Bearer jane-token")) => "jane".to_owned(),
        (None, Some("Bearer eve-token")) => "eve".to_owned(),
        // Of others the test says whose they are.
        (None, Some(token)) => match objects.get(token).as_ref().and_then(Value::as_str) {
            Some(user) => user.to_owned(),
            None => return Answer::status(401, "Unauthorized", "Unauthorized"),
        },
        // The gateway itself, by its certificate.
        _ => "system:portico".to_owned(),
    };
    let subject = match seen.header("impersonate-user") {
        None => user,
        Some(other) if user == "admin" => other.to_owned(),
        Some(other) => {
            let message =
                format!("users \"{other}\" is forbidden: User \"{user}\" cannot impersonate resource \"users\"");
            return Answer::status(403, "Forbidden", &message);
        }
    };
    if seen.path.ends_with("/selfsubjectreviews") {
        return Answer::json(201, &json!({"status": {"userInfo": {"username": subject}}}));
    }
    if seen.path.ends_with("/selfsubjectaccessreviews") {
        let attributes = seen.json()["spec"]["resourceAttributes"].clone();
        let allowed = match subject.as_str() {
            "jane" | "admin" => true,
            "reader" => attributes["verb"] == "get",
            _ => false,
        };
        return Answer::json(201, &json!({"status": {"allowed": allowed}}));
    }
    if seen.method == "POST" && seen.path.ends_with("/services") {
        return services(objects, seen);
    }
    let page = format!("{}?{}", seen.path, seen.query);
    if objects.get(&page).is_some() {
        return objects.answer(&page);
    }
    if seen.path.starts_with(ADMISSION) { rules.answer(seen) } else { objects.answer(&seen.path) }
}

/// A dry run names, defaults and chooses an address; the real thing is refused when the test put a refusal.
fn services(objects: &Objects, seen: &Seen) -> Answer {
    let mut object = seen.json();
    if !seen.query.contains("dryRun=All") {
        return match objects.get("refusal") {
            Some(_) => Answer::status(409, "AlreadyExists", "services \"web\" already exists"),
            None => Answer::json(201, &object),
        };
    }
    let metadata = &mut object["metadata"];
    if metadata["name"].is_null() {
        metadata["name"] = json!(format!("{}abcde", metadata["generateName"].as_str().unwrap_or_default()));
    }
    metadata["namespace"] = json!("default");
    metadata["uid"] = json!("uid-of-the-dry-run");
    object["spec"]["type"] = json!("ClusterIP");
    object["spec"]["clusterIP"] = json!("10.96.200.200");
    object["spec"]["clusterIPs"] = json!(["10.96.200.200"]);
    Answer::json(201, &object)
}

impl Wire {
    /// Sends a request written as `METHOD target\nheader: value\n…\n\nbytes`.
    pub async fn send(&mut self, request: &str, cluster: &Cluster) {
        let (head, behind) = request.split_once("\n\n").unwrap_or((request, ""));
        let mut lines = head.lines();
        let mut text = format!("{} HTTP/1.1\r\nhost: {}\r\n", lines.next().expect("request line"), cluster.domain());
        for line in lines {
            text.push_str(line.trim());
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        text.push_str(behind);
        self.write(text.as_bytes()).await;
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("write");
        self.0.flush().await.expect("flush");
    }

    pub async fn head(&mut self) -> Head {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(tokio::time::timeout(PATIENCE, self.0.read_u8()).await.expect("in time").expect("a head"));
        }
        let text = String::from_utf8(text).expect("text");
        let code = text.split(' ').nth(1).and_then(|c| c.parse().ok()).expect("code");
        Head { code, text }
    }

    pub async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        tokio::time::timeout(PATIENCE, self.0.read_exact(&mut bytes)).await.expect("in time").expect("bytes");
        bytes
    }

    /// Everything until the gateway closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A close without close_notify is an end too.
        let _ = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("the gateway closes");
        bytes
    }

    /// Sends and receives at once.
    pub async fn both(self, bytes: Vec<u8>) -> (Vec<u8>, Self) {
        let (mut read, mut write) = tokio::io::split(self.0);
        let length = bytes.len();
        let sending = async {
            write.write_all(&bytes).await.expect("write");
            write.flush().await.expect("flush");
        };
        let mut back = vec![0; length];
        let receiving = async { read.read_exact(&mut back).await.map(|_| ()).expect("read") };
        tokio::time::timeout(PATIENCE, futures::future::join(sending, receiving)).await.expect("in time");
        (back, Self(read.unsplit(write)))
    }

    pub async fn half_close(&mut self) {
        self.0.shutdown().await.expect("shutdown");
    }
}

/// An exec by WebSocket.
pub fn websocket(pod: &str) -> String {
    format!(
        "GET /api/v1/namespaces/default/pods/{pod}/exec?command=sh&command=-c&command=echo+hi&container=main&stdin=true\n\
         connection: Upgrade\nupgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: a2V5\n\
         sec-websocket-protocol: v5.channel.k8s.io"
    )
}

/// An exec by SPDY.
pub fn spdy(pod: &str) -> String {
    format!(
        "POST /api/v1/namespaces/default/pods/{pod}/exec?command=id&container=main&stdout=true\n\
         connection: Upgrade\nupgrade: SPDY/3.1\nx-stream-protocol-version: v5.channel.k8s.io\n\
         x-stream-protocol-version: v4.channel.k8s.io\ncontent-length: 0"
    )
}

/// A host that accepts every upgrade and echoes.
pub fn echoing(seen: Seen) -> Answer {
    let upgrade = seen.header("upgrade").unwrap_or("none").to_owned();
    Answer::echo(&[
        ("connection", "Upgrade"),
        ("upgrade", &upgrade),
        ("sec-websocket-accept", "accept"),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
        ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ("audit-id", "of-the-host"),
    ])
}
