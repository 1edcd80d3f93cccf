//! Who takes part: tenants come and go, and with them their sources, the places on the host that they need, and their tasks.
//!
//! Promises: nothing of a removed tenant runs on; nothing is planned for a tenant before all its lists are there.
//! What becomes known is [`world`](super::world)'s; planning is `worker`'s, writing `apply`'s.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::config::SyncerConfig;
use crate::kubernetes::ListOptions;
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::rights::Access;
use crate::kubernetes::seats::Seats;
use crate::names::{TenantId, keys};
use crate::runtime::clock::Clock;
use crate::runtime::task::{self, Task};
use crate::runtime::traces::Traces;
use crate::syncer::budget::Budget;
use crate::syncer::catalog::Catalog;
use crate::syncer::feeds::{HostFeed, VirtualFeed};
use crate::syncer::host::{HostStore, Place};
use crate::syncer::kind::HostScope;
use crate::syncer::queue::{Queue, TenantNumber};
use crate::syncer::routes::{HostRoutes, Witness};
use crate::syncer::source::{Feed, Source, StandIn};
use crate::syncer::stats::{Live, Stats};
use crate::syncer::synthetic::{OwnPlace, Synthetic};
use crate::syncer::tenant::{Member, TenantState};
use crate::syncer::world::World;
use crate::syncer::{adopt, dns_service, drift, kubernetes_service, loss, mass_deletion, metrics_api, recover, worker};
use crate::tenant::memory::Memory;

/// What a run is made of.
pub struct Settings {
    /// Limits and intervals.
    pub config: SyncerConfig,
    /// The kinds that are synced, by index.
    pub catalog: Catalog,
    /// The host.
    pub host: SharedCluster,
    /// The clock of the process; tests bring their own.
    pub clock: Clock,
    /// Counters.
    pub stats: Arc<Stats>,
    /// What may be done on the host.
    pub access: Access,
    /// Where this process runs, for what is made up when the host may not be read.
    pub own_place: OwnPlace,
    /// Of pods.
    pub traces: Traces,
}

/// A running engine; dropped, it stops at once.
pub struct Running {
    world: Arc<World>,
    own_place: OwnPlace,
    /// For what is kept of virtual objects.
    budget: Arc<Budget>,
    memory: Memory,
    /// What stands in for places that may not be read.
    synthetic: Mutex<BTreeMap<Place, Arc<Synthetic>>>,
    next_number: AtomicU64,
    /// The host's client is never swapped; sources want a receiver all the same.
    host_swapped: watch::Sender<u64>,
    /// Until it is stopped.
    work: Option<Task>,
    _drift: Task,
    _rights: Task,
}

/// First pause after a panic.
const AGAIN: Duration = Duration::from_secs(1);
/// A lost event is repaired by a fresh list; every so many drift intervals.
const RELIST_INTERVALS: u32 = 6;

impl Running {
    /// Starts; there are no tenants yet.
    pub fn start(settings: Settings) -> Self {
        let Settings { config, catalog, host, clock, stats, access, own_place, traces } = settings;
        let queue = Queue::new(clock.clone(), config.workers_per_tenant);
        let host = Arc::new(Seats::new(host, config.workers)) as SharedCluster;
        let budget = Budget::new(&config);
        let (tenants, places) = (RwLock::default(), RwLock::default());
        let world = Arc::new(World { config, catalog, host, clock, stats, access, queue, traces, tenants, places });
        world.stats.attach(Arc::downgrade(&world) as Weak<dyn Live>);
        let work = begun_anew("sync-work", &world, worker::run);
        let drift = begun_anew("sync-drift", &world, drift::run);
        let rights = begun_anew("sync-rights", &world, follow_rights);
        Self {
            world,
            own_place,
            budget,
            memory: Memory::default(),
            synthetic: Mutex::default(),
            next_number: AtomicU64::new(1),
            host_swapped: watch::Sender::new(0),
            work: Some(work),
            _drift: drift,
            _rights: rights,
        }
    }

    /// Tells what is kept of tenants that come from now on.
    #[must_use]
    pub fn accounted(mut self, memory: &Memory) -> Self {
        self.memory = memory.clone();
        self
    }

    /// What it knows, as long as it runs.
    pub fn world(&self) -> Weak<World> {
        Arc::downgrade(&self.world)
    }

    /// The tenants from now on. Those that are gone stop at once; those that changed go on with what they hold.
    pub fn set_members(&self, members: Vec<Member>) {
        let mut wanted: BTreeMap<TenantId, Member> = members.into_iter().map(|m| (m.view.id.clone(), m)).collect();
        for tenant in self.world.tenants() {
            let bound = tenant.bound();
            match wanted.remove(&tenant.id) {
                Some(member) if member.view.uid == bound.view.uid => {
                    if member.fingerprint != bound.fingerprint {
                        self.rebind(&tenant, member);
                    }
                }
                Some(member) => {
                    self.remove(&tenant);
                    self.add(member);
                }
                None => self.remove(&tenant),
            }
        }
        for member in wanted.into_values() {
            self.add(member);
        }
    }

    /// Finishes the writes that run, begins no other, and stops.
    pub async fn stop(mut self) {
        self.world.queue.close();
        if let Some(work) = self.work.take() {
            work.join().await;
        }
    }

    fn add(&self, member: Member) {
        let number: TenantNumber = self.next_number.fetch_add(1, Ordering::Relaxed);
        let world = &self.world;
        let places = world.catalog.iter().map(|(kind, syncer)| {
            let namespace = match syncer.host_scope() {
                HostScope::None => return None,
                HostScope::Cluster => None,
                HostScope::Tenant | HostScope::Namespace => Some(member.view.namespace().clone()),
            };
            Some(self.place(Place { kind, namespace }))
        });
        let places: Vec<Option<Arc<HostRoutes>>> = places.collect();
        tracing::info!(tenant = %member.view.id, "syncing");
        let hosts = places.iter().map(|place| place.as_ref().map(|routes| Arc::clone(&routes.store))).collect();
        let cached = self.budget.share(self.memory.account(&member.view.id, &member.view.uid));
        let tenant = Arc::new(TenantState::new(number, member, &world.catalog, hosts, cached));
        world.queue.add_tenant(number);
        world.tenants.write().insert(number, Arc::clone(&tenant));
        for routes in places.iter().flatten() {
            routes.attach(&world.catalog, &tenant);
        }
        self.show_to_synthetic(&places);
        let owned = Arc::clone(&tenant);
        tenant.own(begun_anew("sync-tenant", world, move |world| keep(world, Arc::clone(&owned))));
    }

    fn remove(&self, tenant: &Arc<TenantState>) {
        tracing::info!(tenant = %tenant.id, "no longer syncing");
        tenant.close();
        self.world.queue.remove_tenant(tenant.number);
        self.world.tenants.write().remove(&tenant.number);
        for host in tenant.kinds.iter().filter_map(|k| k.host.as_ref()) {
            let Some(routes) = self.routes(&host.place) else { continue };
            if routes.detach(tenant) {
                self.world.places.write().remove(&host.place);
                self.synthetic.lock().remove(&host.place);
                routes.close();
            }
        }
    }

    fn rebind(&self, tenant: &Arc<TenantState>, member: Member) {
        tenant.store.doubt();
        tenant.rebind(member);
        for host in tenant.kinds.iter().filter_map(|k| k.host.as_ref()) {
            if let Some(routes) = self.routes(&host.place) {
                routes.reindex(&self.world.catalog, tenant);
            }
        }
        self.world.push_all(tenant);
        tenant.service_changed.notify_one();
        tenant.dns_service_changed.notify_one();
        tenant.metrics_service_changed.notify_one();
    }

    fn routes(&self, place: &Place) -> Option<Arc<HostRoutes>> {
        self.world.places.read().get(place).cloned()
    }

    /// Watched from now on, if it is not yet.
    fn place(&self, place: Place) -> Arc<HostRoutes> {
        if let Some(routes) = self.routes(&place) {
            return routes;
        }
        let world = &self.world;
        let routes = Arc::new(HostRoutes::new(Arc::new(HostStore::new(place.clone()))));
        world.places.write().insert(place.clone(), Arc::clone(&routes));
        let syncer = world.catalog.kind(place.kind);
        let mut options = ListOptions::default();
        if syncer.host_scope() == HostScope::Tenant {
            keys::CLUSTER.clone_into(&mut options.label_selector);
        }
        let owner = place.namespace.as_ref().map_or_else(|| "host".to_owned(), |n| format!("host namespace {n}"));
        let host = Arc::clone(&world.host);
        let feed: Arc<dyn Feed> = Arc::new(HostFeed { world: Arc::clone(world), routes: Arc::clone(&routes) });
        // Where rights may be missing, kinds of the host's own scope can be made up.
        let synthetic = world.access.is_limited().then(|| Synthetic::new(&syncer.resource(), &feed, &self.own_place));
        let synthetic = synthetic.flatten().map(Arc::new);
        if let Some(synthetic) = &synthetic {
            self.synthetic.lock().insert(place.clone(), Arc::clone(synthetic));
        }
        let source = Source {
            resource: syncer.resource(),
            namespace: place.namespace.map(|n| n.to_string()),
            options,
            feed,
            cluster: Box::new(move || Arc::clone(&host)),
            swapped: self.host_swapped.subscribe(),
            access: world.access.clone(),
            stand_in: synthetic.map(|synthetic| synthetic as Arc<dyn StandIn>),
            store: None,
            clock: world.clock.clone(),
            relist_after: world.config.drift_interval.0 * RELIST_INTERVALS,
            owner,
        };
        routes.own(task::spawn("sync-host-source", source.run()));
        routes
    }

    /// What is made up knows the objects of these places from now on, as far as it is made of them.
    fn show_to_synthetic(&self, places: &[Option<Arc<HostRoutes>>]) {
        let synthetic: Vec<Arc<Synthetic>> = self.synthetic.lock().values().cloned().collect();
        for synthetic in synthetic {
            let from = self.world.catalog.index(synthetic.made_from());
            let routes = from.and_then(|kind| places.get(usize::from(kind))?.as_ref());
            if let Some(routes) = routes {
                routes.show_to(&(synthetic as Arc<dyn Witness>));
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.world.queue.close();
        self.set_members(Vec::new());
    }
}

/// All that is done for a tenant beside its objects, until dropped.
async fn keep(world: Arc<World>, tenant: Arc<TenantState>) {
    loss::settle(&world, &tenant).await;
    kubernetes_service::settle(&world, &tenant).await;
    let later = adopt::settle(&world, &tenant).await;
    start_sources(&world, &tenant);
    tokio::join!(
        loss::follow(&world, &tenant),
        mass_deletion::follow(&world, &tenant),
        recover::collect_abandoned(&world, &tenant),
        kubernetes_service::guard(&world, &tenant),
        dns_service::guard(&world, &tenant),
        metrics_api::guard(&world, &tenant),
        adopt::follow(&world, &tenant, later),
    );
}

/// Watches all kinds of a tenant; once.
fn start_sources(world: &Arc<World>, tenant: &Arc<TenantState>) {
    if !tenant.begins_sources() {
        return;
    }
    for (kind, syncer) in world.catalog.iter().filter(|(_, syncer)| syncer.watches_virtual()) {
        let bound = Arc::clone(tenant);
        let source = Source {
            resource: syncer.resource(),
            namespace: None,
            options: ListOptions::default(),
            feed: Arc::new(VirtualFeed { world: Arc::clone(world), tenant: Arc::clone(tenant), kind }),
            cluster: Box::new(move || Arc::clone(&bound.bound().api)),
            swapped: tenant.swapped.subscribe(),
            access: Access::granted(),
            stand_in: None,
            store: Some(Arc::clone(&tenant.store)),
            clock: world.clock.clone(),
            relist_after: world.config.drift_interval.0 * RELIST_INTERVALS,
            owner: tenant.id.to_string(),
        };
        tenant.own(task::spawn("sync-virtual-source", source.run()));
    }
}

/// A task that ends when its work does, or is dropped; should it panic, the work is begun again.
fn begun_anew<F, Fut>(name: &'static str, world: &Arc<World>, work: F) -> Task
where
    F: Fn(Arc<World>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let world = Arc::clone(world);
    task::spawn(name, async move {
        task::repeat(name, &world.clock, AGAIN, || work(Arc::clone(&world)).map(Ok)).await;
    })
}

/// What was left undone for want of a right is planned again when rights change.
async fn follow_rights(world: Arc<World>) {
    let mut access = world.access.clone();
    loop {
        access.changed().await;
        for tenant in world.tenants() {
            world.push_all(&tenant);
        }
    }
}
