//! The gateway alone: two API servers that a configuration file lists, no host cluster.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use portico::config::Config;
use portico::error::Result;
use portico::gateway::{self, Bound, SharedCertificate};
use portico::names::TenantId;
use portico::runtime::clock::Clock;
use portico::runtime::drain::{self, DrainTrigger};
use portico::runtime::task::{self, Task};
use portico::runtime::telemetry::Metrics;
use portico::runtime::traces::Traces;
use portico::runtime::watched::Watched;
use portico::tenant::Registry;
use portico::tenant::file::{FileTenants, Parts};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::support::fake::{Answer, FakeApi};
use crate::support::pki::Pki;
use crate::support::port;
use crate::world::{Dial, PATIENCE, piece, text};

const WATCH: &str = "/api/v1/pods?watch=1";
const EXEC: &str = "/api/v1/namespaces/default/pods/web/exec?command=sh&stdin=true";
const EVENT: &str = "{\"type\":\"BOOKMARK\"}\n";

/// An API server and its files.
struct Backend {
    name: &'static str,
    api: FakeApi,
    users: Pki,
    port: u16,
}

struct Alone {
    folder: TempDir,
    registry: Arc<Registry>,
    metrics: Metrics,
    tenants: Arc<FileTenants>,
    address: SocketAddr,
    wake: Arc<Notify>,
    a: Backend,
    b: Backend,
    _following: Task<Result<()>>,
    _bound: Bound,
    _trigger: DrainTrigger,
}

impl Backend {
    /// Watches have one event and stay open; execs echo; everything else is answered by its name.
    async fn start(name: &'static str) -> Self {
        let api = FakeApi::start(move |seen| {
            let answer = if seen.path.ends_with("/exec") {
                Answer::echo(&[("connection", "Upgrade"), ("upgrade", "websocket")])
            } else if seen.query.contains("watch=1") {
                let (answer, events) = Answer::stream();
                events.try_send(Bytes::from_static(EVENT.as_bytes())).expect("room");
                // Not before the test's runtime.
                std::mem::forget(events);
                answer
            } else {
                Answer::text(200, name)
            };
            async move { answer }
        })
        .await;
        Self { name, api, users: Pki::new("users"), port: port::free([127, 0, 0, 1]) }
    }

    /// Its files, each time with another credential.
    fn write(&self, folder: &Path) {
        let (name, own) = (self.name, self.api.pki.client("front-proxy", &[]));
        for (end, text) in [
            ("ca.crt", self.api.pki.ca_pem()),
            ("users.crt", self.users.ca_pem()),
            ("own.crt", &own.certificate),
            ("own.key", &own.key),
        ] {
            std::fs::write(folder.join(format!("{name}-{end}")), text).expect("written");
        }
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts:\n- name: a\n  context: {{cluster: c, user: u}}\n\
             clusters:\n- name: c\n  cluster: {{server: 'https://{}', certificate-authority: {name}-ca.crt}}\n\
             users:\n- name: u\n  user: {{client-certificate: {name}-own.crt, client-key: {name}-own.key}}\n",
            self.api.address
        );
        std::fs::write(folder.join(format!("{name}.kubeconfig")), kubeconfig).expect("written");
    }

    fn by_kubeconfig(&self, rest: &str) -> String {
        let Self { name, port, .. } = self;
        format!(
            "- name: {name}\n  namespace: team\n  clientCAFile: {name}-users.crt\n  backend: {{kubeconfigFile: {name}.kubeconfig}}\n  \
             expose: {{hosts: [{name}.example.com], port: {port}}}\n{rest}"
        )
    }

    fn as_front_proxy(&self) -> String {
        let Self { name, port, api, .. } = self;
        format!(
            "- name: {name}\n  namespace: team\n  clientCAFile: {name}-users.crt\n  backend:\n    server: https://{}\n    \
             certificateAuthorityFile: {name}-ca.crt\n    frontProxyCertificateFile: {name}-own.crt\n    \
             frontProxyKeyFile: {name}-own.key\n  expose: {{hosts: [{name}.example.com], port: {port}}}\n",
            api.address
        )
    }

    fn id(&self) -> TenantId {
        TenantId::parse("team", self.name).expect("id")
    }
}

fn write_list(folder: &Path, list: &str) {
    let text = format!(
        "host: {{enabled: false}}\nadmin: {{metricsAccess: open}}\ncertificates: {{folder: own}}\n\
         gateway: {{listen: '127.0.0.1:0', extraSANs: [portico.example.com]}}\nvirtualClusters:\n{list}"
    );
    // Whole or not there, as a careful admin does it.
    std::fs::write(folder.join("new"), text).expect("written");
    std::fs::rename(folder.join("new"), folder.join("portico.yaml")).expect("renamed");
}

impl Alone {
    async fn start() -> Self {
        let (a, b) = (Backend::start("alpha").await, Backend::start("beta").await);
        let folder = tempfile::tempdir().expect("folder");
        a.write(folder.path());
        b.write(folder.path());
        write_list(folder.path(), &format!("{}{}", a.by_kubeconfig(""), b.as_front_proxy()));
        let file = folder.path().join("portico.yaml");
        let config = Config::parse(&std::fs::read_to_string(&file).expect("read")).expect("a configuration");
        let (registry, shared, clock) = (Arc::<Registry>::default(), SharedCertificate::default(), Clock::system());
        let parts = Parts { file, registry: Arc::clone(&registry), shared: shared.clone(), clock: clock.clone() };
        let tenants = FileTenants::load(parts, config.clone()).expect("fit");
        let (trigger, drain) = drain::channel();
        let (metrics, wake) = (Metrics::default(), Arc::new(Notify::new()));
        metrics.register(Arc::clone(&tenants) as Arc<_>);
        let parts = gateway::Parts {
            config: config.gateway,
            registry: Arc::clone(&registry),
            shared,
            host: None,
            audit: None,
            closed: Default::default(),
            consumption: Arc::default(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            watched: Watched::new(clock),
            traces: Traces::off(),
        };
        let following = Arc::clone(&tenants).follow(Arc::clone(&wake), drain.clone());
        let following = task::spawn("following", following);
        let bound = gateway::run(parts, &drain).await.expect("gateway");
        let mut ports = bound.ports();
        let both = ports.wait_for(|open| open.contains(&a.port) && open.contains(&b.port));
        tokio::time::timeout(PATIENCE, both).await.expect("in time").expect("ports");
        let address = bound.address;
        Self {
            folder,
            registry,
            metrics,
            tenants,
            address,
            wake,
            a,
            b,
            _following: following,
            _bound: bound,
            _trigger: trigger,
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ca(&self) -> String {
        std::fs::read_to_string(self.path().join("own/ca.crt")).expect("the CA that it made")
    }

    fn dial(&self, name: &str) -> Dial {
        Dial::trusting(self.address, self.ca()).sni(name)
    }

    fn of(&self, backend: &Backend) -> Dial {
        self.dial(&format!("{}.example.com", backend.name)).user(backend.users.client("jane", &["devs"]))
    }

    fn generation(&self, backend: &Backend) -> u64 {
        self.registry.load().by_id(&backend.id()).expect("served").generation
    }

    /// Has the files looked at until it is so.
    async fn becomes(&self, is_so: impl Fn(&Self) -> bool) {
        let reached = async {
            while !is_so(self) {
                self.wake.notify_one();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.unwrap_or_else(|_| panic!("{:?}", self.tenants.notes()));
    }

    fn shows(&self, line: &str) -> bool {
        self.metrics.render().expect("metrics").lines().any(|shown| shown == line)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_api_servers_are_served_by_name_path_and_port() {
    let alone = Alone::start().await;
    for backend in [&alone.a, &alone.b] {
        let mut client = alone.of(backend).http(true).await;
        assert_eq!(text(client.get("/api").await).await, backend.name);
        let jane = backend.users.client("jane", &["devs"]);
        let mut client = alone.dial("portico.example.com").user(jane.clone()).http(true).await;
        let path = format!("/clusters/team/{}/api", backend.name);
        assert_eq!(text(client.get(&path).await).await, backend.name);
        let at = SocketAddr::from(([127, 0, 0, 1], backend.port));
        let mut client = Dial::trusting(at, alone.ca()).user(jane).http(false).await;
        assert_eq!(text(client.get("/api").await).await, backend.name);
        let default = format!("{}.team.portico.local", backend.name);
        let mut client = alone.dial(&default).http(true).await;
        assert_eq!(client.get("/api").await.status(), 401, "its default name, without credentials");
    }
    // Each is told who calls in its own way.
    let told = |backend: &Backend, header: &str| {
        backend.api.seen().iter().all(|seen| seen.header(header) == Some("jane") && seen.has_certificate)
    };
    assert!(told(&alone.a, "impersonate-user") && told(&alone.b, "x-remote-user"));
    // A's users are nobody at B.
    let stranger = alone.a.users.client("jane", &["system:masters"]);
    let mut client = alone.dial("beta.example.com").user(stranger).http(true).await;
    assert_eq!(client.get("/api").await.status(), 401);
    let mut client = alone.dial("portico.example.com").http(true).await;
    assert_eq!(client.get("/fleet/metrics").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_host_does_otherwise_the_api_server_does_itself() {
    let alone = Alone::start().await;
    let mut client = alone.of(&alone.a).http(true).await;
    for (method, path) in [
        ("POST", "/api/v1/namespaces/default/services"),
        ("GET", "/api/v1/nodes/node-1/proxy/metrics"),
        ("GET", "/api/v1/namespaces/default/pods/web/log"),
        ("GET", "/apis/metrics.k8s.io/v1beta1/nodes"),
    ] {
        let answer = client.send(method, "alpha.example.com", path, &[]).await;
        assert_eq!(answer.status(), 200, "{method} {path}");
        let seen = alone.a.api.seen().pop().expect("seen");
        assert_eq!((seen.method.as_str(), seen.path.as_str()), (method, path));
    }
    let mut tls = alone.of(&alone.a).tls(b"http/1.1").await;
    let request =
        format!("GET {EXEC} HTTP/1.1\r\nhost: alpha.example.com\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    tls.write_all(request.as_bytes()).await.expect("write");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(PATIENCE, tls.read_u8()).await.expect("in time").expect("a head"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    tls.write_all(b"hello").await.expect("write");
    let mut back = [0; 5];
    tokio::time::timeout(PATIENCE, tls.read_exact(&mut back)).await.expect("in time").expect("echo");
    assert_eq!(&back, b"hello");
    let seen = alone.a.api.seen().pop().expect("seen");
    assert_eq!((seen.header("impersonate-user"), seen.path.ends_with("/exec")), (Some("jane"), true));
    // It ends with the entry.
    write_list(alone.path(), &alone.b.as_front_proxy());
    alone.becomes(|alone| alone.registry.load().by_id(&alone.a.id()).is_none()).await;
    let mut rest = Vec::new();
    // A close without close_notify is an end too.
    let _ = tokio::time::timeout(PATIENCE, tls.read_to_end(&mut rest)).await.expect("it is closed");
    assert!(rest.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_drops_nothing_of_who_is_not_meant() {
    let alone = Alone::start().await;
    let (mut of_a, mut of_b) = (alone.of(&alone.a).http(true).await, alone.of(&alone.b).http(true).await);
    let (mut watch_a, mut watch_b) = (of_a.get(WATCH).await, of_b.get(WATCH).await);
    assert_eq!(
        (piece(&mut watch_a).await.as_deref(), piece(&mut watch_b).await.as_deref()),
        (Some(EVENT), Some(EVENT))
    );
    let (a, b) = (alone.generation(&alone.a), alone.generation(&alone.b));
    // Limits of A, and a third one beside them.
    let third = Backend::start("gamma").await;
    third.write(alone.path());
    let all = [alone.a.by_kubeconfig("  limits: {longRunning: 3}\n"), alone.b.as_front_proxy(), third.as_front_proxy()];
    write_list(alone.path(), &all.concat());
    alone.becomes(|alone| alone.registry.load().by_id(&third.id()).is_some()).await;
    assert!(alone.generation(&alone.a) > a, "another generation");
    assert_eq!(alone.generation(&alone.b), b, "nothing of it changed");
    assert_eq!(text(alone.of(&third).http(true).await.get("/api").await).await, "gamma");
    assert!(alone.shows("portico_configuration_changes_total{outcome=\"applied\"} 1"));
    // Credentials of A: its own files, the configuration is the same.
    let before = alone.generation(&alone.a);
    alone.a.write(alone.path());
    alone.becomes(|alone| alone.generation(&alone.a) > before).await;
    assert_eq!(text(of_a.get("/api").await).await, "alpha", "the connection is used on");
    // B's entry goes: its watch ends, A's does not.
    write_list(alone.path(), &[alone.a.by_kubeconfig(""), third.as_front_proxy()].concat());
    alone.becomes(|alone| alone.registry.load().by_id(&alone.b.id()).is_none()).await;
    assert_eq!(piece(&mut watch_b).await, None);
    let goes_on = tokio::time::timeout(std::time::Duration::from_millis(300), piece(&mut watch_a)).await;
    assert!(goes_on.is_err(), "{goes_on:?}");
    // A's leads to another cluster: what was open to the first one ends.
    let elsewhere = Backend::start("elsewhere").await;
    elsewhere.write(alone.path());
    let moved = alone.a.by_kubeconfig("").replace("alpha.kubeconfig", "elsewhere.kubeconfig");
    write_list(alone.path(), &[moved, third.as_front_proxy()].concat());
    assert_eq!(
        {
            alone.wake.notify_one();
            piece(&mut watch_a).await
        },
        None
    );
    let mut client = alone.of(&alone.a).http(true).await;
    assert_eq!(text(client.get("/api").await).await, "elsewhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_not_fit_changes_nothing() {
    let alone = Alone::start().await;
    let mut client = alone.of(&alone.a).http(true).await;
    let mut watch = client.get(WATCH).await;
    assert_eq!(piece(&mut watch).await.as_deref(), Some(EVENT));
    let (a, b) = (alone.a.by_kubeconfig(""), alone.b.as_front_proxy());
    let generations = [&alone.a, &alone.b].map(|backend| alone.generation(backend));
    let admin = alone.b.api.pki.client("admin", &["system:masters"]);
    std::fs::write(alone.path().join("admin.crt"), &admin.certificate).expect("written");
    std::fs::write(alone.path().join("admin.key"), &admin.key).expect("written");
    // With another name as well, for which a certificate is made.
    let limits = alone.a.by_kubeconfig("  limits: {longRunning: 3}\n").replace("[alpha", "[more.example.com, alpha");
    for (round, (list, word)) in [
        (format!("{limits}{}", b.replace("server:", "sever:")), "sever"),
        (format!("{limits}{}", b.replace("beta-own.key", "alpha-own.key")), "virtualClusters[1] (team/beta)"),
        (format!("{limits}{}", b.replace("beta-users.crt", "nowhere.crt")), "nowhere.crt"),
        (format!("{limits}{}", b.replace("beta-own", "admin")), "of the group \"system:masters\""),
        (format!("{limits}{}", b.replace("beta-users.crt", "portico.yaml")), "clientCAFile cannot be used"),
        (format!("{limits}{}", b.replace("beta.example.com", "alpha.example.com")), "virtualClusters[0]'s too"),
        (format!("{limits}  secret: [\n"), "see line"),
        ("  []\n".to_owned(), "must list"),
    ]
    .into_iter()
    .enumerate()
    {
        write_list(alone.path(), &list);
        alone.becomes(|alone| alone.tenants.notes().iter().any(|note| note.contains(word))).await;
        assert_eq!([&alone.a, &alone.b].map(|backend| alone.generation(backend)), generations, "{word}");
        assert!(alone.shows("portico_configuration_in_force 0"), "{word}");
        assert!(!alone.tenants.notes().concat().contains("secret"), "no line of the file is shown");
        let refused = format!("portico_configuration_changes_total{{outcome=\"refused\"}} {}", round + 1);
        assert!(alone.shows(&refused), "said once");
    }
    assert!(alone.shows("portico_configuration_changes_total{outcome=\"applied\"} 0"));
    write_list(alone.path(), &format!("{a}{b}"));
    alone.becomes(|alone| alone.shows("portico_configuration_in_force 1")).await;
    assert_eq!(alone.tenants.notes(), ["virtualClusters: 2 served"]);
    assert_eq!([&alone.a, &alone.b].map(|backend| alone.generation(backend)), generations, "and it is what it was");
    assert!(alone.shows("portico_configuration_changes_total{outcome=\"applied\"} 0"));
    // What is beside the list waits, and the list counts all the same.
    let text = std::fs::read_to_string(alone.path().join("portico.yaml")).expect("read");
    let text = text.replace("127.0.0.1:0", "127.0.0.1:1").replace(&a, &limits);
    std::fs::write(alone.path().join("portico.yaml"), text).expect("written");
    alone.becomes(|alone| alone.generation(&alone.a) > generations[0]).await;
    assert!(alone.tenants.notes().iter().any(|note| note.contains("next start")), "{:?}", alone.tenants.notes());
    assert_eq!(client.get("/api").await.status(), 200);
    let goes_on = tokio::time::timeout(std::time::Duration::from_millis(300), piece(&mut watch)).await;
    assert!(goes_on.is_err(), "{goes_on:?}");
}

/// One that its server does not know is answered with a stream, which is somebody's only as long as he has a right to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_behind_a_refused_upgrade_ends_with_the_entry() {
    let alone = Alone::start().await;
    let mut client = alone.of(&alone.a).http(false).await;
    let mut watch = client.get_with(WATCH, &[("connection", "upgrade"), ("upgrade", "x")]).await;
    assert_eq!((watch.status().as_u16(), piece(&mut watch).await.as_deref()), (200, Some(EVENT)));
    write_list(alone.path(), &alone.b.as_front_proxy());
    alone.becomes(|alone| alone.registry.load().by_id(&alone.a.id()).is_none()).await;
    assert_eq!(piece(&mut watch).await, None);
}

/// A CA that an earlier process made, and a certificate that the admin brings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_kept_and_may_be_brought() {
    use std::os::unix::fs::PermissionsExt as _;
    let alone = Alone::start().await;
    let key = alone.path().join("own/ca.pem");
    assert_eq!(std::fs::metadata(&key).expect("there").permissions().mode() & 0o777, 0o600);
    let (ca, file) = (alone.ca(), alone.path().join("portico.yaml"));
    let load = |text: &str| {
        std::fs::write(&file, text).expect("written");
        let parts = Parts {
            file: file.clone(),
            registry: Arc::default(),
            shared: SharedCertificate::default(),
            clock: Clock::system(),
        };
        FileTenants::load(parts, Config::parse(text).expect("a configuration"))
    };
    let text = std::fs::read_to_string(&file).expect("read");
    load(&text).expect("fit");
    assert_eq!(alone.ca(), ca, "the same one");
    let whole = std::fs::read_to_string(&key).expect("read");
    std::fs::write(&key, whole.replace("PRIVATE", "PUBLIC")).expect("written");
    let error = load(&text).expect_err("no key").to_string();
    assert!(error.contains("own/ca.pem") && error.contains("move it away"), "{error}");
    std::fs::write(&key, whole).expect("written");
    // Brought.
    let pki = Pki::new("the admin's");
    let pair = pki.server(&["alpha.example.com"]);
    std::fs::write(alone.path().join("brought.crt"), &pair.certificate).expect("written");
    std::fs::write(alone.path().join("brought.key"), &pair.key).expect("written");
    let brought = text.replace("{folder: own}", "{certificateFile: brought.crt, keyFile: brought.key}");
    load(&brought).expect("fit");
    let error = load(&brought.replace("brought.key", "beta-own.key")).expect_err("another key").to_string();
    assert!(error.contains("serving certificate") && error.contains("do not fit"), "{error}");
}
