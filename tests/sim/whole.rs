//! Two replicas with registry, operator, syncer and their elections, on one simulated host: VirtualClusters come, go and come
//! again, ask for each other's names, and their pods run; events get lost or come twice, watches break, Secrets are slow,
//! calls fail, replicas are killed. In the end both replicas serve the same, every cluster is ready and has what it wants,
//! and nothing is left of those that are gone.
//!
//! Time goes on with the simulation, so that who came first is who was made first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::HeaderMap;
use parking_lot::Mutex;
use portico::config::{Config, Span};
use portico::error::{Result, Side};
use portico::kubernetes::api::SharedCluster;
use portico::kubernetes::election::{self, Candidate, Lock, Timing};
use portico::kubernetes::rights::Access;
use portico::names::reserved::Reserved;
use portico::names::{TenantId, keys};
use portico::operator;
use portico::runtime::clock::Clock;
use portico::runtime::drain::{self, Drain, DrainTrigger};
use portico::runtime::task::{self, Task};
use portico::syncer::kind::ObjectKey;
use portico::syncer::{self, Catalog, OwnPlace, Stats};
use portico::tenant::{Registry, source};
use portico::translate::identity;
use portico::upstream::Target;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::kinds::{self, host_name};
use super::server::{Faults, Server};
use super::{run_paused, run_seeds, text, wrong_service};

const CLUSTERS: [(&str, &str); 4] = [("team-a", "one"), ("team-a", "two"), ("team-b", "one"), ("team-c", "three")];
const HOSTS: [&str; 3] = ["app.example.com", "APP.example.com.", "web.example.com"];
const SYSTEM: &str = "portico-system";
const STEPS: u32 = 70;
const DRIFT: Duration = Duration::from_secs(20);
const VIRTUAL_CLUSTERS: &str = "virtualclusters";

/// The API servers of the tenants, by uid of their VirtualCluster.
#[derive(Clone)]
pub struct Backends {
    servers: Arc<Mutex<HashMap<String, Server>>>,
    faults: Arc<Faults>,
}

impl Backends {
    pub fn of(&self, uid: &str) -> Server {
        let mut servers = self.servers.lock();
        let new = || {
            let server = Server::new(&format!("of-{uid}"), Side::Backend, Arc::clone(&self.faults));
            wrong_service(&server);
            server
        };
        servers.entry(uid.to_owned()).or_insert_with(new).clone()
    }
}

/// Control planes that answer.
struct Answers;

impl operator::Backends for Answers {
    fn version<'a>(&'a self, _: Target, _: HeaderMap) -> BoxFuture<'a, Result<String>> {
        Box::pin(async { Ok("v1.34.4".to_owned()) })
    }

    fn fill<'a>(&'a self, _: Target, _: HeaderMap) -> BoxFuture<'a, Result<Option<operator::Fill>>> {
        Box::pin(async { Ok(None) })
    }

    fn greets(&self, _: std::net::SocketAddr) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }
}

/// One process. Dropped, it is killed.
struct Replica {
    registry: Arc<Registry>,
    _tasks: Vec<Task<Result<()>>>,
    _trigger: DrainTrigger,
}

impl Replica {
    fn start(host: &Server, backends: &Backends, clock: &Clock, catalog: fn() -> Catalog) -> Self {
        let (trigger, drain) = drain::channel();
        let registry: Arc<Registry> = Arc::default();
        let name = format!("replica-{}", clock.random_below(1 << 32));
        let tasks = vec![
            fill(host, &registry, clock, drain.clone()),
            operate(host, &name, clock, drain.clone()),
            sync(host, (backends, catalog), &registry, (&name, clock), drain),
        ];
        Self { registry, _tasks: tasks, _trigger: trigger }
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.host.system_namespace = SYSTEM.to_owned();
    config.gateway.public_url = "https://portico.example.com".to_owned();
    config.syncer.drift_interval = Span(DRIFT);
    config
}

fn fill(host: &Server, registry: &Arc<Registry>, clock: &Clock, drain: Drain) -> Task<Result<()>> {
    let parts = source::Parts {
        host: Arc::new(host.clone()),
        registry: Arc::clone(registry),
        policies: Arc::default(),
        reserved: Arc::new(Reserved::new(&config())),
        clock: clock.clone(),
    };
    task::spawn("registry", async move { source::run(&parts, drain, || {}).await })
}

fn stand<F, Fut>(host: &Server, lease: &str, (name, clock): (&str, &Clock), drain: Drain, work: F) -> Task<Result<()>>
where
    F: Fn(Drain) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let candidate = Candidate {
        lease: lease.to_owned(),
        namespace: SYSTEM.to_owned(),
        identity: name.to_owned(),
        once: String::new(),
        timing: Timing::default(),
    };
    let lock = Lock::lease(Arc::new(host.clone()));
    task::spawn("election", election::run(lock, candidate, clock.clone(), drain, work))
}

fn operate(host: &Server, name: &str, clock: &Clock, drain: Drain) -> Task<Result<()>> {
    let parts = operator::Parts {
        config: Arc::new(config()),
        host: Arc::new(host.clone()),
        backends: Arc::new(Answers),
        clock: clock.clone(),
    };
    stand(host, "operator", (name, clock), drain, move |drain| operator::run(parts.clone(), drain))
}

fn sync(
    host: &Server,
    (backends, catalog): (&Backends, fn() -> Catalog),
    registry: &Arc<Registry>,
    (name, own_clock): (&str, &Clock),
    drain: Drain,
) -> Task<Result<()>> {
    let (host_of, backends, registry, clock) =
        (host.clone(), backends.clone(), Arc::clone(registry), own_clock.clone());
    let work = move |drain| {
        let catalog = catalog();
        let backends = backends.clone();
        let parts = syncer::Parts {
            config: config().syncer,
            stats: Arc::new(Stats::new(&catalog)),
            catalog,
            registry: Arc::clone(&registry),
            host: Arc::new(host_of.clone()),
            backends: Arc::new(move |tenant| Arc::new(backends.of(&tenant.uid)) as SharedCluster),
            clock: clock.clone(),
            access: Access::granted(),
            own_place: OwnPlace::default(),
            adopts: false,
        };
        async move {
            syncer::run(parts, drain).await;
            Ok(())
        }
    };
    stand(host, "syncer", (name, own_clock), drain, work)
}

pub struct World {
    seed: u64,
    random: StdRng,
    faults: Arc<Faults>,
    pub host: Server,
    pub backends: Backends,
    clock: Clock,
    catalog: fn() -> Catalog,
    replicas: Vec<Option<Replica>>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self::with(seed, Faults::new(seed), kinds::catalog)
    }

    pub fn with(seed: u64, faults: Arc<Faults>, catalog: fn() -> Catalog) -> Self {
        let host = Server::new("host", Side::Host, Arc::clone(&faults));
        host.allocates_addresses();
        host.put("servicecidrs", json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}));
        for node in ["n1", "n2"] {
            host.put("nodes", json!({"metadata": {"name": node}, "capacity": 4}));
        }
        let backends = Backends { servers: Arc::default(), faults: Arc::clone(&faults) };
        let clock = Clock::going("2026-01-01T00:00:00Z".parse().unwrap(), seed);
        let replicas = vec![None, None];
        let random = StdRng::seed_from_u64(seed);
        let mut world = Self { seed, random, faults, host, backends, clock, catalog, replicas };
        world.restart(0);
        world.restart(1);
        world
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    /// Killed if it runs, and begun.
    pub fn restart(&mut self, at: usize) {
        self.replicas[at] = None;
        let clock = Clock::going(self.clock.now(), self.random.random());
        self.replicas[at] = Some(Replica::start(&self.host, &self.backends, &clock, self.catalog));
    }

    pub fn uid(&self, (namespace, name): (&str, &str)) -> Option<String> {
        Some(text(&self.host.read(VIRTUAL_CLUSTERS, namespace, name)?, "uid"))
    }

    fn hosts(&mut self) -> Vec<&'static str> {
        let count = self.below(3);
        (0..count).map(|_| HOSTS[self.below(HOSTS.len())]).collect()
    }

    /// One thing that a user, a tenant or fate does.
    fn step(&mut self) {
        let cluster = CLUSTERS[self.below(CLUSTERS.len())];
        match self.below(100) {
            0..=19 => self.create(cluster),
            20..=25 => self.host.delete_gracefully(VIRTUAL_CLUSTERS, cluster.0, cluster.1, None),
            26..=28 => {
                // Made again while nobody looks.
                self.host.delete_gracefully(VIRTUAL_CLUSTERS, cluster.0, cluster.1, None);
                self.create(cluster);
            }
            29..=34 => {
                let hosts = self.hosts();
                self.host.change(VIRTUAL_CLUSTERS, cluster.0, cluster.1, |object| {
                    object["spec"]["expose"]["hosts"] = json!(hosts);
                });
            }
            35..=64 => self.tenant(cluster),
            65..=68 => self.host.lose_events(1 + self.seed as usize % 2),
            69..=70 => self.host.repeat_events(true),
            71..=73 => self.host.compact(),
            74..=76 => self.host.cut_watches(self.seed.is_multiple_of(2)),
            77 => self.host.down(true),
            78..=82 => self.host.down(false),
            83..=84 => self.host.hang(cluster.0),
            85..=88 => self.host.heal(cluster.0),
            89..=93 => {
                let at = self.below(2);
                self.restart(at);
            }
            94 => self.replicas = vec![None, None],
            95..=97 => (0..2)
                .filter(|at| self.replicas[*at].is_none())
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|at| self.restart(at)),
            _ => {}
        }
        if self.below(2) == 0 {
            self.host_controllers();
        }
    }

    fn create(&mut self, (namespace, name): (&str, &str)) {
        if self.host.read(VIRTUAL_CLUSTERS, namespace, name).is_some() {
            return;
        }
        let hosts = self.hosts();
        // Whole seconds, as an API server writes them: two may be of one age.
        let created = self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        self.host.put(
            VIRTUAL_CLUSTERS,
            json!({"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster",
                "metadata": {"namespace": namespace, "name": name, "creationTimestamp": created},
                "spec": {"expose": {"hosts": hosts}}}),
        );
    }

    /// What its users do.
    fn tenant(&mut self, cluster: (&str, &str)) {
        let Some(uid) = self.uid(cluster) else { return };
        let server = self.backends.of(&uid);
        let name = ["a", "b", "c"][self.below(3)];
        match self.below(10) {
            0..=4 if server.read("pods", "ns", name).is_some() => {}
            0..=4 => {
                let metadata = json!({"name": name, "namespace": "ns"});
                server.put("pods", json!({"metadata": metadata, "spec": {"config": "c1"}}));
            }
            5..=7 => server.put(
                "configmaps",
                json!({"metadata": {"name": "c1", "namespace": "ns"}, "data": {"n": self.below(100)}}),
            ),
            _ => server.delete_gracefully("pods", "ns", name, None),
        }
    }

    /// StatefulSets get ready, pods are scheduled, run and end, and what nobody owns is collected.
    pub fn host_controllers(&mut self) {
        for set in self.host.objects("statefulsets") {
            let ready = json!({"observedGeneration": set["metadata"]["generation"], "readyReplicas": 1});
            if set["status"] != ready {
                self.host
                    .change("statefulsets", &text(&set, "namespace"), &text(&set, "name"), |s| s["status"] = ready);
            }
        }
        for pod in self.host.objects("pods") {
            let (namespace, name) = (text(&pod, "namespace"), text(&pod, "name"));
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                self.host.delete_gracefully("pods", &namespace, &name, Some(0));
            } else if pod["spec"]["nodeName"].is_null() {
                let node = ["n1", "n2"][self.below(2)];
                self.host.change("pods", &namespace, &name, |pod| pod["spec"]["nodeName"] = json!(node));
            } else if pod["status"].is_null() {
                self.host.change("pods", &namespace, &name, |pod| pod["status"] = json!({"phase": "Running"}));
            }
        }
        self.collect_garbage();
    }

    fn collect_garbage(&self) {
        let everything = self.host.everything();
        let living: BTreeSet<String> = everything.iter().map(|(_, object)| text(object, "uid")).collect();
        for (plural, object) in everything {
            let owner = object["metadata"]["ownerReferences"][0]["uid"].as_str();
            if owner.is_some_and(|owner| !living.contains(owner)) {
                let (namespace, name) = (text(&object, "namespace"), text(&object, "name"));
                self.host.delete_gracefully(plural, &namespace, &name, Some(0));
            }
        }
    }

    async fn run(mut self) {
        for _ in 0..STEPS {
            self.step();
            let millis = [0, 1, 50, 700, 5000, 30_000][self.below(6)];
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        self.faults.stop();
        self.host.down(false);
        self.host.repeat_events(false);
        self.host.lose_events(0);
        for at in 0..2 {
            if self.replicas[at].is_none() {
                self.restart(at);
            }
        }
        for (namespace, _) in CLUSTERS {
            self.host.heal(namespace);
        }
        for _ in 0..90 {
            self.host_controllers();
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        self.check();
        let before = self.host.writes();
        tokio::time::sleep(DRIFT * 4).await;
        assert_eq!(before, self.host.writes(), "seed {}: an idle host is written to", self.seed);
    }

    fn check(&self) {
        let seed = self.seed;
        let living = self.host.objects(VIRTUAL_CLUSTERS);
        let mut ports = BTreeSet::new();
        for object in &living {
            assert_eq!(object["status"]["phase"], "Ready", "seed {seed}: {}", object["status"]);
            let port = object["status"]["port"].as_u64().expect("port");
            assert!(ports.insert(port), "seed {seed}: port {port} is given twice");
        }
        for replica in self.replicas.iter().flatten() {
            self.check_registry(&living, &replica.registry);
        }
        let registry = &self.replicas[0].as_ref().expect("runs").registry;
        for object in &living {
            self.check_objects(registry, object);
        }
        self.check_nothing_is_left(&living);
    }

    /// Who is served and who has which name, found by another way than the code's.
    fn check_registry(&self, living: &[Value], registry: &Registry) {
        let (seed, snapshot) = (self.seed, registry.load());
        let served: BTreeMap<TenantId, String> = snapshot.tenants().map(|t| (t.id.clone(), t.uid.clone())).collect();
        let there = living.iter().map(|o| (TenantId::of(o).expect("id"), text(o, "uid"))).collect();
        assert_eq!(served, there, "seed {seed}");
        let mut by_age: Vec<&Value> = living.iter().collect();
        by_age
            .sort_by_key(|o| (text(o, "creationTimestamp").parse::<jiff::Timestamp>().expect("time"), text(o, "uid")));
        for host in ["app.example.com", "web.example.com"] {
            let asks = |object: &&&Value| {
                let hosts = object["spec"]["expose"]["hosts"].as_array().expect("hosts");
                hosts.iter().any(|h| h.as_str().is_some_and(|h| h.to_lowercase().trim_end_matches('.') == host))
            };
            let first = by_age.iter().find(asks).map(|object| TenantId::of(object).expect("id"));
            assert_eq!(snapshot.by_host(host).map(|tenant| tenant.id.clone()), first, "seed {seed}: {host}");
        }
        for tenant in snapshot.tenants() {
            assert_eq!(snapshot.by_port(tenant.port).map(|t| &t.id), Some(&tenant.id), "seed {seed}");
        }
    }

    fn check_objects(&self, registry: &Registry, object: &Value) {
        let id = TenantId::of(object).expect("id");
        let view = registry.load().by_id(&id).expect("served").view();
        let (server, who) = (self.backends.of(&text(object, "uid")), format!("seed {}, {id}", self.seed));
        let mine = |object: &&Value| kinds::belongs_to(object, &view);
        let pods = server.objects("pods");
        for pod in &pods {
            let key = ObjectKey { namespace: text(pod, "namespace"), name: text(pod, "name") };
            let host = self.host.read("pods", view.namespace().as_str(), &host_name(&key, &view));
            let host = host.unwrap_or_else(|| panic!("{who}: {key:?} is not on the host"));
            assert_eq!(identity::recorded_uid(&host), text(pod, "uid"), "{who}: {key:?}");
            assert_eq!(pod["status"]["phase"], "Running", "{who}: {key:?}");
        }
        assert_eq!(self.host.objects("pods").iter().filter(mine).count(), pods.len(), "{who}: pods");
        let service = server.read("services", "default", "kubernetes").expect("the kubernetes Service");
        assert_eq!(service["spec"]["clusterIP"], object["status"]["apiServiceIP"], "{who}");
    }

    fn check_nothing_is_left(&self, living: &[Value]) {
        let clusters: BTreeSet<(String, String)> =
            living.iter().map(|object| (text(object, "namespace"), text(object, "name"))).collect();
        for (plural, object) in self.host.everything() {
            let label = |key: &str| object["metadata"]["labels"][key].as_str().map(str::to_owned);
            let Some(cluster) = label(keys::CLUSTER) else { continue };
            let namespace = label("portico.dev/host-namespace").unwrap_or_else(|| text(&object, "namespace"));
            let of = (namespace, cluster);
            assert!(clusters.contains(&of), "seed {}: {plural} {} is left of {of:?}", self.seed, text(&object, "name"));
        }
    }
}

#[test]
fn two_replicas_agree_whatever_happens() {
    run_seeds("two_replicas", 12, |seed| run_paused(async { Box::pin(World::new(seed).run()).await }));
}
