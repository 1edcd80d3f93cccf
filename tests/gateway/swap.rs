//! Tenants that change, end and are made again while they are used: nothing that was begun is dropped, and nobody else
//! notices. The registry is filled by the source itself, from VirtualClusters and Secrets of a simulated host.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use bytes::Bytes;
use portico::config::Config;
use portico::error::{Result, Side};
use portico::kubernetes::Reaches;
use portico::names::reserved::Reserved;
use portico::runtime::drain::{self, DrainTrigger};
use portico::runtime::task::{self, Task};
use portico::tenant::source;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::api_server::{Faults, Server};
use crate::leaving::target;
use crate::load::{Load, Stage};
use crate::support::fake::{Answer, FakeApi};
use crate::support::pki::Pki;
use crate::upgrades::{echoed, rest, upgraded};
use crate::world::{Client, Cluster, PATIENCE, World, piece, status, text};

const WATCH: &str = "/api/v1/pods?watch=1";
const EVENT: &str = "{\"type\":\"BOOKMARK\"}\n";

/// What a VirtualCluster and its Secret say.
struct Wish<'a> {
    cluster: &'a Cluster,
    uid: &'a str,
    backend: &'a FakeApi,
    client_ca: &'a Pki,
    /// Of the backend; its own when there is none.
    server_ca: Option<&'a Pki>,
    anonymous: bool,
}

impl<'a> Wish<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            uid: "u",
            backend: &cluster.api,
            client_ca: &cluster.client_ca,
            server_ca: None,
            anonymous: false,
        }
    }

    fn object(&self) -> Value {
        let name = self.cluster.name;
        json!({"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster",
            "metadata": {"namespace": "team", "name": name, "uid": self.uid,
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"expose": {"hosts": [self.cluster.host]}, "auth": {"anonymous": self.anonymous}},
            "status": {"port": self.cluster.port, "pkiSecret": name, "apiServiceIP": "10.96.0.2",
                "dnsServiceIP": "10.96.0.3",
                "backend": {"address": self.backend.address.to_string(), "serverName": "localhost"}}})
    }

    /// With another serving certificate each time.
    fn secret(&self) -> Value {
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let serving = self.cluster.server_ca.server(&[&self.cluster.host, "127.0.0.1"]);
        let proxy = self.backend.pki.client("front-proxy", &[]);
        let server_ca = self.server_ca.unwrap_or(&self.backend.pki);
        json!({"metadata": {"namespace": "team", "name": self.cluster.name},
            "data": {"server-ca.crt": encode(server_ca.ca_pem()), "client-ca.crt": encode(self.client_ca.ca_pem()),
            "gateway.crt": encode(&serving.certificate), "gateway.key": encode(&serving.key),
            "front-proxy.crt": encode(&proxy.certificate), "front-proxy.key": encode(&proxy.key)}})
    }
}

/// A host and the source that follows it.
struct Following {
    host: Server,
    _source: Task<Result<()>>,
    _trigger: DrainTrigger,
}

impl Following {
    /// Both tenants of the world come from the source from now on.
    async fn start(world: &World) -> Self {
        Self::start_with(world, Config::default()).await
    }

    async fn start_with(world: &World, mut config: Config) -> Self {
        // The world's own are of generation 1.
        world.registry.next_generation();
        let host = Server::new("host", Side::Host, Faults::none());
        for cluster in [&world.a, &world.b] {
            let wish = Wish::of(cluster);
            host.put("secrets", wish.secret());
            host.put("virtualclusters", wish.object());
        }
        config.gateway.public_url = "https://portico.example.com".to_owned();
        let parts = source::Parts {
            host: Arc::new(host.clone()),
            registry: Arc::clone(&world.registry),
            policies: Arc::default(),
            reserved: Arc::new(Reserved::new(&config)),
            reaches: Arc::new(Reaches::new(&config, "")),
            jwt: Arc::default(),
            clock: world.clock.clone(),
        };
        let (trigger, drain) = drain::channel();
        let source = task::spawn("source", async move { source::run(&parts, drain, || {}).await });
        for cluster in [&world.a, &world.b] {
            served(world, cluster, 1).await;
        }
        Self { host, _source: source, _trigger: trigger }
    }

    /// Says so on the host and waits for the generation that is made of it.
    async fn apply(&self, world: &World, wish: &Wish<'_>) {
        let snapshot = world.registry.load();
        let before = snapshot.by_id(&wish.cluster.id()).map_or(0, |tenant| tenant.generation);
        self.host.put("secrets", wish.secret());
        self.host.put("virtualclusters", wish.object());
        served(world, wish.cluster, before).await;
    }

    /// Deletes it; where that is `heard`, waits until it is gone.
    async fn delete(&self, world: &World, wish: &Wish<'_>, heard: bool) {
        self.host.lose_events(usize::from(!heard));
        self.host.delete_gracefully("virtualclusters", "team", wish.cluster.name, None);
        if !heard {
            return;
        }
        let mut changes = world.registry.subscribe();
        while world.registry.load().by_id(&wish.cluster.id()).is_some() {
            tokio::time::timeout(PATIENCE, changes.changed()).await.expect("in time").expect("lives");
        }
    }
}

/// Waits for a later generation than `before`.
async fn served(world: &World, cluster: &Cluster, before: u64) {
    let mut changes = world.registry.subscribe();
    let later = || world.registry.load().by_id(&cluster.id()).is_some_and(|tenant| tenant.generation > before);
    while !later() {
        tokio::time::timeout(PATIENCE, changes.changed()).await.expect("in time").expect("lives");
    }
}

/// Everything that takes long, begun on one tenant.
struct Long {
    watches: Vec<(http::Response<hyper::body::Incoming>, mpsc::Sender<Bytes>)>,
    lists: Vec<(http::Response<hyper::body::Incoming>, mpsc::Sender<Bytes>)>,
    tunnel: tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
    clients: Vec<Client>,
}

impl Long {
    async fn begin(world: &World, cluster: &Cluster) -> Self {
        let (mut watches, mut lists, mut clients) = (Vec::new(), Vec::new(), Vec::new());
        for is_http2 in [false, true] {
            for (path, begun) in [(WATCH, &mut watches), ("/api/v1/pods", &mut lists)] {
                let (answer, rest) = Answer::stream();
                cluster.answer(answer);
                let mut client = world.by_name(cluster).user(cluster.user("jane")).http(is_http2).await;
                begun.push((client.get(path).await, rest));
                clients.push(client);
            }
        }
        let tunnel = upgraded(world, cluster).await;
        Self { watches, lists, tunnel, clients }
    }

    async fn goes_on(&mut self) {
        for (watch, events) in &mut self.watches {
            events.send(Bytes::from_static(EVENT.as_bytes())).await.expect("the backend's side is open");
            assert_eq!(piece(watch).await.as_deref(), Some(EVENT));
        }
        assert!(echoed(&mut self.tunnel, b"still here").await);
    }

    /// Watches and streams end in good order, without the backend.
    async fn ends(&mut self) {
        for (watch, _) in &mut self.watches {
            assert_eq!(piece(watch).await, None);
        }
        assert!(rest(&mut self.tunnel).await.is_empty());
    }

    /// Requests that run get all of their answer.
    async fn finishes(self) -> Vec<Client> {
        for (mut list, rest) in self.lists {
            rest.send(Bytes::from_static(b"all")).await.expect("the backend's side is open");
            assert_eq!(piece(&mut list).await.as_deref(), Some("all"));
            drop(rest);
            assert_eq!(piece(&mut list).await, None);
        }
        self.clients
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_drop_nothing() {
    let world = World::start().await;
    let following = Following::start(&world).await;
    let other = FakeApi::start(|_| async { Answer::text(200, "elsewhere") }).await;
    let mut long = Long::begin(&world, &world.a).await;
    let loads = [&world.a, &world.b].map(|cluster| Load::start(target(&world, cluster), 2));
    for round in 0..12 {
        let backend = if round % 2 == 0 { &other } else { &world.a.api };
        // Settings change with it, and sometimes nothing but them.
        let backend = if round % 5 == 4 { &world.a.api } else { backend };
        following.apply(&world, &Wish { backend, anonymous: round % 3 == 0, ..Wish::of(&world.a) }).await;
        long.goes_on().await;
        let answered = loads[0].tally.done.load(Ordering::SeqCst);
        loads[0].answered(answered + 20).await;
    }
    for load in loads {
        load.stop(Stage::Over).await.is_clean();
    }
    assert!(other.seen().len() > 50, "the other backend is used");
    long.goes_on().await;
    for mut client in long.finishes().await.into_iter().skip(1).step_by(2) {
        assert_eq!(client.get("/api").await.status(), 200, "the connection is used on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_ends_and_is_made_again_beside_others() {
    let world = World::start().await;
    let following = Following::start(&world).await;
    let mut neighbour = Long::begin(&world, &world.b).await;
    let load = Load::start(target(&world, &world.b), 2);
    for (round, heard) in [true, false, true].into_iter().enumerate() {
        let (uid, fresh) = (format!("again-{round}"), Pki::new("client CA"));
        let before = if round == 0 { "u".to_owned() } else { format!("again-{}", round - 1) };
        let vouched = Wish { uid: &before, ..Wish::of(&world.a) };
        if round > 0 {
            following.apply(&world, &vouched).await;
        }
        let mut long = Long::begin(&world, &world.a).await;
        let mut by_path = world.by_path().user(world.a.user("jane")).http(true).await;
        following.delete(&world, &vouched, heard).await;
        if heard {
            assert_eq!(status(by_path.get("/clusters/team/alpha/api").await).await.0, 404);
        }
        following.apply(&world, &Wish { uid: &uid, client_ca: &fresh, ..vouched }).await;
        long.ends().await;
        for client in long.finishes().await {
            client.left().await;
        }
        assert_eq!(status(by_path.get("/clusters/team/alpha/api").await).await.0, 401, "known to the first one only");
        let mut client = world.by_name(&world.a).user(fresh.client("jane", &[])).http(true).await;
        assert_eq!(text(client.get("/api").await).await, "alpha");
        neighbour.goes_on().await;
    }
    load.stop(Stage::Over).await.is_clean();
    neighbour.finishes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_another_ca_ends_what_the_first_one_vouched_for() {
    let world = World::start().await;
    let following = Following::start(&world).await;
    let mut neighbour = Long::begin(&world, &world.b).await;
    let load = Load::start(target(&world, &world.b), 2);
    let mut long = Long::begin(&world, &world.a).await;
    let fresh = Pki::new("client CA");
    following.apply(&world, &Wish { client_ca: &fresh, ..Wish::of(&world.a) }).await;
    long.ends().await;
    for mut client in long.finishes().await.into_iter().skip(1).step_by(2) {
        assert_eq!(status(client.get("/api").await).await.0, 401);
    }
    let mut client = world.by_name(&world.a).user(fresh.client("jane", &[])).http(true).await;
    assert_eq!(text(client.get("/api").await).await, "alpha");
    load.answered(100).await;
    load.stop(Stage::Over).await.is_clean();
    neighbour.goes_on().await;
    neighbour.finishes().await;
}

/// Of `distro: external`, whose owner says in a Secret where its API server is: on this machine.
async fn external(world: &World, configuration: &str) -> Following {
    let following = Following::start_with(world, Config::parse(configuration).expect("valid")).await;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let api = &world.a.api;
    let admin = api.pki.client("admin", &["system:masters"]);
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": format!("https://{}", api.address),
            "certificate-authority-data": encode(api.pki.ca_pem())}}],
        "users": [{"name": "u", "user": {"client-certificate-data": encode(&admin.certificate),
            "client-key-data": encode(&admin.key)}}],
    });
    let theirs = json!({"metadata": {"namespace": "team", "name": "theirs"}, "data": {"config": encode(&kubeconfig.to_string())}});
    following.host.put("secrets", theirs);
    let mut object = Wish::of(&world.a).object();
    object["spec"]["distro"] = json!("external");
    object["spec"]["backend"] = json!({"kubeconfigSecret": {"name": "theirs"}});
    let before = world.registry.load().by_id(&world.a.id()).map_or(0, |tenant| tenant.generation);
    following.host.put("virtualclusters", object);
    served(world, &world.a, before).await;
    following
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_kubeconfigs_lead_to_no_closed_address_unless_the_admin_lists_it() {
    for (configuration, allowed) in [("", false), ("policies: {team: {allowedBackends: [127.0.0.1/32]}}", true)] {
        let world = World::start().await;
        let _following = external(&world, configuration).await;
        let before = world.a.api.accepted();
        let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
        let answer = client.get("/api").await;
        let tenant = world.registry.load().by_id(&world.a.id()).cloned().expect("served");
        if allowed {
            assert_eq!(text(answer).await, "alpha");
            continue;
        }
        assert_eq!(status(answer).await, (503, "ServiceUnavailable".to_owned()));
        // As syncer and DNS ask.
        let asked = tenant.api.get_path("/version", std::time::Duration::from_secs(20)).await;
        assert_eq!(asked.expect_err("refused").kind(), portico::error::Kind::Refused);
        assert_eq!(world.a.api.accepted(), before, "nobody came");
    }
}

/// A CA of a backend whose key got lost is replaced: whoever shows a certificate of it is nobody any more, also over the
/// connections that were made before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_of_the_ca_of_before_is_not_asked_again() {
    let world = World::start().await;
    let following = Following::start(&world).await;
    let mut neighbour = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    let mut clients = Vec::new();
    for is_http2 in [false, true] {
        clients.push((world.by_name(&world.a).user(world.a.user("jane")).http(is_http2).await, "/api", vec![]));
        clients.push((
            world.by_path().user(world.a.user("jane")).http(is_http2).await,
            "/clusters/team/alpha/api",
            vec![],
        ));
        let token = vec![("authorization", "Bearer t")];
        clients.push((world.by_name(&world.a).http(is_http2).await, "/api", token));
    }
    for (client, path, fields) in &mut clients {
        assert_eq!(text(client.get_with(path, fields).await).await, "alpha");
    }
    let (kept, before) = (world.a.api.open(), world.a.api.seen().len());
    assert!(kept > 0, "connections are kept");

    // The old server is where it was, and its certificate is of the old CA.
    let renewed = FakeApi::start(|_| async { Answer::text(200, "renewed") }).await;
    following.apply(&world, &Wish { server_ca: Some(&renewed.pki), ..Wish::of(&world.a) }).await;
    for (client, path, fields) in &mut clients {
        for _ in 0..3 {
            assert_eq!(client.get_with(path, fields).await.status().as_u16() / 100, 5, "{path} {fields:?}");
        }
    }
    assert_eq!(world.a.api.seen().len(), before, "it was asked all the same");
    assert_eq!(text(neighbour.get("/api").await).await, "beta");

    following.apply(&world, &Wish { backend: &renewed, ..Wish::of(&world.a) }).await;
    for (client, path, fields) in &mut clients {
        assert_eq!(text(client.get_with(path, fields).await).await, "renewed");
    }
    assert_eq!(world.a.api.seen().len(), before);
}
