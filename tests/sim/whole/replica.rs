//! One process of Portico's: registry, operator and syncer with their elections, and the control planes that it asks.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use portico::config::{Config, Span};
use portico::error::{Result, Side};
use portico::kubernetes::Reaches;
use portico::kubernetes::api::SharedCluster;
use portico::kubernetes::election::{self, Candidate, Lock, Timing};
use portico::kubernetes::rights::Access;
use portico::names::TenantId;
use portico::names::reserved::Reserved;
use portico::operator;
use portico::runtime::clock::Clock;
use portico::runtime::drain::{self, Drain, DrainTrigger};
use portico::runtime::task::{self, Task};
use portico::syncer::{self, Catalog, OwnPlace, Stats};
use portico::tenant::{Registry, source};
use portico::upstream::Target;

use super::super::server::{Faults, Server};
use super::super::wrong_service;
use super::DRIFT;

const SYSTEM: &str = "portico-system";

/// The API servers of the tenants, by uid of their VirtualCluster.
#[derive(Clone)]
pub struct Backends {
    servers: Arc<Mutex<HashMap<String, Server>>>,
    faults: Arc<Faults>,
}

impl Backends {
    pub(super) fn new(faults: &Arc<Faults>) -> Self {
        Self { servers: Arc::default(), faults: Arc::clone(faults) }
    }

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
struct Answers(Backends);

impl operator::Backends for Answers {
    fn version<'a>(&'a self, _: Target, _: http::HeaderMap) -> BoxFuture<'a, Result<String>> {
        Box::pin(async { Ok("v1.34.4".to_owned()) })
    }

    fn fill<'a>(&'a self, _: &'a TenantId, _: &'a str) -> BoxFuture<'a, Result<Option<operator::Fill>>> {
        Box::pin(async { Ok(None) })
    }

    fn inside(&self, _: &TenantId, uid: &str) -> Result<SharedCluster> {
        Ok(Arc::new(self.0.of(uid)))
    }

    fn greets(&self, _: std::net::SocketAddr) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }
}

/// One process. Dropped, it is killed.
pub(super) struct Replica {
    pub(super) registry: Arc<Registry>,
    _tasks: Vec<Task<Result<()>>>,
    _trigger: DrainTrigger,
}

impl Replica {
    pub(super) fn start(host: &Server, backends: &Backends, clock: &Clock, catalog: fn() -> Catalog) -> Self {
        let (trigger, drain) = drain::channel();
        let registry: Arc<Registry> = Arc::default();
        let name = format!("replica-{}", clock.random_below(1 << 32));
        let tasks = vec![
            fill(host, &registry, clock, drain.clone()),
            operate((host, backends), &name, clock, drain.clone()),
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
        reaches: Arc::new(Reaches::new(&config(), "")),
        jwt: Arc::default(),
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

fn operate((host, backends): (&Server, &Backends), name: &str, clock: &Clock, drain: Drain) -> Task<Result<()>> {
    let parts = operator::Parts {
        config: Arc::new(config()),
        host: Arc::new(host.clone()),
        backends: Arc::new(Answers(backends.clone())),
        reaches: Arc::new(Reaches::new(&config(), "")),
        clock: clock.clone(),
        shown: Arc::default(),
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
            traces: portico::runtime::traces::Traces::off(),
        };
        async move {
            syncer::run(parts, drain).await;
            Ok(())
        }
    };
    stand(host, "syncer", (name, own_clock), drain, work)
}
