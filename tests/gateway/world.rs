//! A gateway with tenants A and B, and clients that say exactly what a test wants.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use portico::config::GatewayConfig;
use portico::consumption::Consumption;
use portico::crd::pki::AGGREGATOR_NAME;
use portico::error::Side;
use portico::gateway::{self, Bound, HostCluster, Parts, SharedCertificate};
use portico::kubernetes::{ApiClient, Kubelets};
use portico::names::TenantId;
use portico::runtime::clock::Clock;
use portico::runtime::drain::{self, DrainTrigger};
use portico::runtime::task::{self, Task};
use portico::runtime::telemetry::Metrics;
use portico::runtime::traces::Traces;
use portico::runtime::watched::Watched;
use portico::tenant::{Aggregator, Registry, Tenant};
use portico::tls::{ClientTrust, ServerTls, client_config};
use portico::trail::Trail;
use portico::upstream::Pool;
use portico::usage::Usage;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::support::fake::{Answer, FakeApi, Seen, Setup};
use crate::support::figures::FakeFigures;
use crate::support::pki::{Pair, Pki};
use crate::support::port;
use crate::support::tenant::tenant;

/// Fails a test that waits for something that does not come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What no backend accepts.
pub const INVENTED: &str = "Bearer x";

/// One tenant with its backend.
pub struct Cluster {
    pub name: &'static str,
    pub host: String,
    pub port: u16,
    pub api: FakeApi,
    pub server_ca: Pki,
    pub client_ca: Pki,
    pub front_proxy_ca: Pki,
    pub answers: Arc<Mutex<VecDeque<Answer>>>,
    pub metrics: Arc<Mutex<Metered>>,
}

/// How a backend answers requests for its metrics, and reviews of who may read Portico's.
pub type Metered = Option<Arc<dyn Fn(&Seen) -> Option<Answer> + Send + Sync>>;

/// The whole.
pub struct World {
    pub address: SocketAddr,
    pub registry: Arc<Registry>,
    pub metrics: Metrics,
    pub consumption: Arc<Consumption>,
    pub shared_ca: Pki,
    pub figures: Arc<FakeFigures>,
    pub a: Cluster,
    pub b: Cluster,
    pub drain: Option<DrainTrigger>,
    pub clock: Clock,
    pub bound: Bound,
}

impl Cluster {
    async fn new(name: &'static str) -> Self {
        let answers: Arc<Mutex<VecDeque<Answer>>> = Arc::default();
        let metrics: Arc<Mutex<Metered>> = Arc::default();
        let (queue, metered) = (Arc::clone(&answers), Arc::clone(&metrics));
        let setup = Setup::default().refuses(|headers| headers.get("authorization").is_some_and(|v| v == INVENTED));
        let api = setup
            .start(move |seen| {
                let own = metered.lock().as_ref().and_then(|metered| metered(&seen));
                let next = || queue.lock().pop_front().unwrap_or_else(|| Answer::text(200, name));
                let answer = own.unwrap_or_else(next);
                async move { answer }
            })
            .await;
        Self {
            name,
            host: format!("{name}.example.com"),
            port: port::free([127, 0, 0, 1]),
            api,
            server_ca: Pki::new("server CA"),
            client_ca: Pki::new("client CA"),
            front_proxy_ca: Pki::new("front-proxy CA"),
            answers,
            metrics,
        }
    }

    /// What the backend answers next; without any, 200 and its name.
    pub fn answer(&self, answer: Answer) {
        self.answers.lock().push_back(answer);
    }

    pub fn id(&self) -> TenantId {
        TenantId::parse("team", self.name).expect("id")
    }

    /// The tenant in a generation, vouching for the clients of `trust`.
    pub fn tenant(&self, generation: u64, trust: &Pki, clock: &Clock) -> Tenant {
        let serving = self.server_ca.server(&[&self.host, "127.0.0.1", "kubernetes.default.svc"]);
        let pool = Arc::new(Pool::new(self.api.target(Side::Backend), clock.clone()));
        Tenant {
            generation,
            hosts: vec![self.host.clone()],
            port: self.port,
            aggregator: Some(Aggregator {
                trust: ClientTrust::from_pem(self.front_proxy_ca.ca_pem().as_bytes()).expect("trust"),
                name: AGGREGATOR_NAME,
                asks_gateway: false,
            }),
            server_ca_pem: self.server_ca.ca_pem().to_owned(),
            ..tenant(
                self.id(),
                pool,
                ServerTls::from_pem(serving.certificate.as_bytes(), serving.key.as_bytes()).expect("tls"),
                ClientTrust::from_pem(trust.ca_pem().as_bytes()).expect("trust"),
            )
        }
    }

    /// A user whom this tenant's CA signed.
    pub fn user(&self, name: &str) -> Pair {
        self.client_ca.client(name, &["devs"])
    }

    /// What this tenant's API server shows as aggregator.
    pub fn aggregator(&self) -> Pair {
        self.front_proxy_ca.client(AGGREGATOR_NAME, &[])
    }

    /// The one request that reached the backend last.
    pub fn last_seen(&self) -> Seen {
        self.api.seen().pop().expect("a request reached the backend")
    }
}

impl World {
    pub async fn start() -> Self {
        Self::with(GatewayConfig::default(), Clock::system()).await
    }

    pub async fn with(config: GatewayConfig, clock: Clock) -> Self {
        Self::on_host(config, clock, None).await
    }

    /// On a host of its own; without one, alpha's backend answers for it.
    pub async fn on_host(config: GatewayConfig, clock: Clock, host: Option<&FakeApi>) -> Self {
        Self::whole(config, clock, host, Traces::off()).await
    }

    /// With traces.
    pub async fn whole(config: GatewayConfig, clock: Clock, host: Option<&FakeApi>, traces: Traces) -> Self {
        Self::built(config, clock, host, (traces, None)).await
    }

    /// With an audit log.
    pub async fn audited(config: GatewayConfig, audit: &Arc<Trail>) -> Self {
        Self::built(config, Clock::system(), None, (Traces::off(), Some(Arc::clone(audit)))).await
    }

    async fn built(
        config: GatewayConfig,
        clock: Clock,
        host: Option<&FakeApi>,
        (traces, audit): (Traces, Option<Arc<Trail>>),
    ) -> Self {
        let config = GatewayConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..config };
        let (a, b) = (Cluster::new("alpha").await, Cluster::new("beta").await);
        let registry = Arc::new(Registry::default());
        for cluster in [&a, &b] {
            assert!(registry.put(&Arc::new(cluster.tenant(1, &cluster.client_ca, &clock))).is_empty());
        }
        let shared_ca = Pki::new("shared CA");
        let serving = shared_ca.server(&["127.0.0.1", "portico.example.com"]);
        let shared = SharedCertificate::default();
        shared.set(ServerTls::from_pem(serving.certificate.as_bytes(), serving.key.as_bytes()).expect("tls"));
        let (trigger, drain) = drain::channel();
        let metrics = Metrics::default();
        let pool = Arc::new(Pool::new(host.unwrap_or(&a.api).target(Side::Host), clock.clone()));
        let host = ApiClient::new(pool, HeaderMap::new());
        let (figures, consumption): (Arc<FakeFigures>, Arc<Consumption>) = Default::default();
        let parts = Parts {
            config,
            registry: Arc::clone(&registry),
            shared,
            host: Some(HostCluster {
                usage: Arc::new(Usage::new(host.clone(), Arc::new(Kubelets::off()), clock.clone())),
                figures: Arc::clone(&figures) as Arc<_>,
                api: host,
            }),
            audit,
            closed: Default::default(),
            consumption: Arc::clone(&consumption),
            metrics: metrics.clone(),
            clock: clock.clone(),
            watched: Watched::new(clock.clone()),
            traces,
        };
        let bound = gateway::run(parts, &drain).await.expect("gateway");
        let mut ports = bound.ports();
        let both = ports.wait_for(|open| open.contains(&a.port) && open.contains(&b.port));
        tokio::time::timeout(PATIENCE, both).await.expect("tenant ports in time").expect("tenant ports");
        let address = bound.address;
        Self { address, registry, metrics, consumption, shared_ca, figures, a, b, drain: Some(trigger), clock, bound }
    }

    /// A client of the shared listener by a tenant's name.
    pub fn by_name(&self, cluster: &Cluster) -> Dial {
        Dial::to(self.address, &cluster.server_ca).sni(&cluster.host)
    }

    /// A client of the shared listener by path; its paths need the prefix.
    pub fn by_path(&self) -> Dial {
        Dial::to(self.address, &self.shared_ca)
    }

    /// The sum of a metric's samples for a tenant, 0 without any.
    pub fn metric(&self, name: &str, cluster: &Cluster) -> f64 {
        let labels = format!("{name}{{namespace=\"team\",cluster=\"{}\"", cluster.name);
        let text = self.metrics.render().expect("metrics");
        let samples = text.lines().filter(|line| line.starts_with(&labels));
        samples.map(|line| line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()).expect("a value")).sum()
    }

    /// Waits until a metric has this value: what ends here may still be ending in the gateway.
    pub async fn metric_becomes(&self, name: &str, cluster: &Cluster, value: f64) {
        let reached = async {
            while self.metric(name, cluster) != value {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.unwrap_or_else(|_| panic!("{name} of {} is {}", cluster.name, self.metric(name, cluster)));
    }

    /// A client of the tenant's own port.
    pub fn by_port(&self, cluster: &Cluster) -> Dial {
        Dial::to(SocketAddr::from(([127, 0, 0, 1], cluster.port)), &cluster.server_ca)
    }
}

/// How to connect.
pub struct Dial {
    address: SocketAddr,
    roots: String,
    name: ServerName<'static>,
    host: String,
    user: Option<Pair>,
    from: IpAddr,
    before: Vec<u8>,
}

impl Dial {
    pub fn to(address: SocketAddr, ca: &Pki) -> Self {
        Self::trusting(address, ca.ca_pem().to_owned())
    }

    /// By the CA's PEM.
    pub fn trusting(address: SocketAddr, roots: String) -> Self {
        let name = ServerName::from(address.ip());
        let from = IpAddr::from([127, 0, 0, 1]);
        Self { address, roots, name, host: address.to_string(), user: None, from, before: Vec::new() }
    }

    /// Sets SNI, verified name and Host.
    pub fn sni(mut self, name: &str) -> Self {
        self.name = ServerName::try_from(name.to_owned()).expect("name");
        self.host = name.to_owned();
        self
    }

    pub fn user(mut self, user: Pair) -> Self {
        self.user = Some(user);
        self
    }

    /// The address to come from, of 127.0.0.0/8.
    pub fn from(mut self, address: [u8; 4]) -> Self {
        self.from = address.into();
        self
    }

    /// What is sent before the handshake.
    pub fn begin_with(mut self, bytes: Vec<u8>) -> Self {
        self.before = bytes;
        self
    }

    pub async fn tls(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        tokio::time::timeout(PATIENCE, self.try_tls(protocol)).await.expect("handshake in time").expect("handshake")
    }

    pub async fn try_tls(&self, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let identity = self.user.as_ref().map(|u| (u.certificate.as_bytes(), u.key.as_bytes()));
        let config = client_config(self.roots.as_bytes(), identity).expect("client configuration");
        let mut config = rustls::ClientConfig::clone(&config);
        config.alpn_protocols = vec![protocol.to_vec()];
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.from, 0))?;
        let mut stream = socket.connect(self.address).await?;
        stream.write_all(&self.before).await?;
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(self.name.clone(), stream).await
    }

    pub async fn http(&self, is_http2: bool) -> Client {
        let (host, sender, driver) = if is_http2 {
            let io = TokioIo::new(self.tls(b"h2").await);
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.expect("h2");
            let driver = task::spawn("client", async move {
                let _ = connection.await;
            });
            (self.host.clone(), Sender::Http2(sender), driver)
        } else {
            let io = TokioIo::new(self.tls(b"http/1.1").await);
            let (sender, connection) = http1::handshake(io).await.expect("h1");
            let driver = task::spawn("client", async move {
                let _ = connection.await;
            });
            (self.host.clone(), Sender::Http1(sender), driver)
        };
        Client { host, sender, driver }
    }
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// One connection.
pub struct Client {
    pub host: String,
    sender: Sender,
    driver: Task,
}

impl Client {
    pub async fn get(&mut self, path: &str) -> Response<Incoming> {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&mut self, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
        let host = self.host.clone();
        self.get_at(&host, path, headers).await
    }

    /// A GET that names any host.
    pub async fn get_at(&mut self, host: &str, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
        self.send("GET", host, path, headers).await
    }

    /// Any request without a body.
    pub async fn send(&mut self, method: &str, host: &str, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(match &self.sender {
            Sender::Http1(_) => path.to_owned(),
            Sender::Http2(_) => format!("https://{host}{path}"),
        });
        if matches!(self.sender, Sender::Http1(_)) {
            request = request.header("host", host);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new()).expect("request");
        let answer = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await.expect("open");
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => sender.send_request(request).await,
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.expect("in time").expect("answer")
    }

    /// A CONNECT; yields its code.
    pub async fn connect(&mut self, authority: &str) -> u16 {
        let mut request = Request::connect(authority);
        if matches!(self.sender, Sender::Http1(_)) {
            request = request.header("host", authority);
        }
        let request = request.body(Empty::new()).expect("request");
        let answer = async {
            match &mut self.sender {
                Sender::Http1(sender) => sender.send_request(request).await,
                Sender::Http2(sender) => sender.send_request(request).await,
            }
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("in time");
        answer.expect("answer").status().as_u16()
    }

    /// Waits until the server ends the connection while the client would keep it.
    pub async fn left(self) {
        tokio::time::timeout(PATIENCE, self.driver.join()).await.expect("ended by the server");
        drop(self.sender);
    }

    /// Waits until the server closes the connection.
    pub async fn closed(self) {
        drop(self.sender);
        tokio::time::timeout(PATIENCE, self.driver.join()).await.expect("closed");
    }
}

pub async fn text(response: Response<Incoming>) -> String {
    let body = tokio::time::timeout(PATIENCE, response.into_body().collect()).await.expect("in time");
    String::from_utf8(body.expect("body").to_bytes().to_vec()).expect("text")
}

/// The next piece of a stream, `None` at its end (which h2 may say by an empty frame).
pub async fn piece(response: &mut Response<Incoming>) -> Option<String> {
    loop {
        let frame = tokio::time::timeout(PATIENCE, response.body_mut().frame()).await.expect("in time")?;
        let data = frame.expect("frame").into_data().expect("data");
        if !data.is_empty() {
            return Some(String::from_utf8_lossy(&data).into_owned());
        }
    }
}

/// Code and reason of a `metav1.Status`.
pub async fn status(response: Response<Incoming>) -> (u16, String) {
    let code = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    let status: portico::error::status::Status = serde_json::from_str(&text(response).await).expect("a Status");
    assert_eq!((status.code, status.kind.as_str()), (code, "Status"));
    (code, status.reason)
}
