//! Holds it all together: tenants come and go, sources feed stores, changes become work.
//!
//! Promises: nothing of a removed tenant runs on; nothing is planned for a tenant before all its lists are there.
//! Planning is `worker`'s, writing `apply`'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::watch;

use crate::config::SyncerConfig;
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::resources::SERVICES;
use crate::kubernetes::rights::Access;
use crate::kubernetes::{ListOptions, Resource};
use crate::names::{TenantId, keys};
use crate::runtime::clock::Clock;
use crate::runtime::task::{self, Task};
use crate::syncer::cache::SourceState;
use crate::syncer::catalog::Catalog;
use crate::syncer::host::{Affected, HostStore, Place, Witness, pack_host};
use crate::syncer::kind::{HostScope, ObjectKey};
use crate::syncer::queue::{Item, Queue, TenantNumber, Urgency};
use crate::syncer::source::{Feed, Incoming, Source, StandIn};
use crate::syncer::stats::{Snapshot, Stats};
use crate::syncer::synthetic::{OwnPlace, Synthetic};
use crate::syncer::tenant::{Member, Origin, TenantState, Touched, pack_virtual};
use crate::syncer::{adopt, deletions, dns_service, drift, kubernetes_service, recover, store, worker};
use crate::translate::service;

/// What an engine is made of.
pub struct Settings {
    /// Limits and intervals.
    pub config: SyncerConfig,
    /// Kinds.
    pub catalog: Catalog,
    /// The host.
    pub host: SharedCluster,
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub stats: Arc<Stats>,
    /// What may be done on the host.
    pub access: Access,
    /// Where this process runs, for what is made up when the host may not be read.
    pub own_place: OwnPlace,
}

/// One run of the syncer.
pub struct Engine {
    /// Limits and intervals.
    pub config: SyncerConfig,
    /// Kinds.
    pub catalog: Catalog,
    /// The host.
    pub host: SharedCluster,
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub stats: Arc<Stats>,
    /// What may be done on the host.
    pub access: Access,
    own_place: OwnPlace,
    /// What is to be looked at.
    pub queue: Arc<Queue>,
    tenants: RwLock<BTreeMap<TenantNumber, Arc<TenantState>>>,
    places: Mutex<BTreeMap<Place, Watched>>,
    numbers: AtomicU64,
    /// The host's client is never swapped; sources want a receiver all the same.
    host_swapped: watch::Sender<u64>,
}

/// A place on the host that is watched.
struct Watched {
    store: Arc<HostStore>,
    /// What stands in for it while it may not be read.
    synthetic: Option<Arc<Synthetic>>,
}

/// A running engine; dropped, it stops at once.
pub struct Running {
    /// The engine.
    pub engine: Arc<Engine>,
    workers: Vec<Task>,
    _drift: Task,
    _rights: Task,
}

/// First pause after a panic.
const AGAIN: Duration = Duration::from_secs(1);
/// A lost event is repaired by a fresh list; every so many drift intervals.
const RELIST_INTERVALS: u32 = 6;

impl Running {
    /// Starts workers; there are no tenants yet.
    pub fn start(settings: Settings) -> Self {
        let Settings { config, catalog, host, clock, stats, access, own_place } = settings;
        let queue = Queue::new(clock.clone(), config.workers_per_tenant);
        let engine = Arc::new(Engine {
            config,
            catalog,
            host,
            clock,
            stats,
            access,
            own_place,
            queue,
            tenants: RwLock::default(),
            places: Mutex::default(),
            numbers: AtomicU64::new(1),
            host_swapped: watch::Sender::new(0),
        });
        engine.stats.attach(Arc::downgrade(&engine));
        let workers =
            (0..engine.config.workers.max(1)).map(|_| begun_anew("sync-worker", &engine, worker::run)).collect();
        let drift = begun_anew("sync-drift", &engine, drift::run);
        let rights = begun_anew("sync-rights", &engine, follow_rights);
        Self { engine, workers, _drift: drift, _rights: rights }
    }

    /// Finishes the writes that run, begins no other, and stops.
    pub async fn stop(mut self) {
        self.engine.queue.close();
        for worker in self.workers.drain(..) {
            worker.join().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.engine.queue.close();
        self.engine.set_members(Vec::new());
    }
}

impl Engine {
    /// The tenants from now on. Those that are gone stop at once; those that changed go on with what they hold.
    pub fn set_members(self: &Arc<Self>, members: Vec<Member>) {
        let mut wanted: BTreeMap<TenantId, Member> = members.into_iter().map(|m| (m.view.id.clone(), m)).collect();
        let present: Vec<Arc<TenantState>> = self.tenants.read().values().cloned().collect();
        for tenant in present {
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

    /// A tenant by its number; None when it is gone.
    pub fn tenant(&self, number: TenantNumber) -> Option<Arc<TenantState>> {
        self.tenants.read().get(&number).cloned()
    }

    /// All tenants.
    pub fn tenants(&self) -> Vec<Arc<TenantState>> {
        self.tenants.read().values().cloned().collect()
    }

    /// Wants an object looked at.
    pub fn push(&self, tenant: &TenantState, item: Item) {
        self.queue.push(tenant.number, item, Urgency::Fresh);
    }

    fn add(self: &Arc<Self>, member: Member) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let hosts: Vec<Option<Arc<HostStore>>> = self
            .catalog
            .iter()
            .map(|(kind, syncer)| {
                let namespace = match syncer.host_scope() {
                    HostScope::None => return None,
                    HostScope::Cluster => None,
                    HostScope::Tenant | HostScope::Namespace => Some(member.view.namespace().clone()),
                };
                Some(self.place(Place { kind, namespace }))
            })
            .collect();
        tracing::info!(tenant = %member.view.id, "syncing");
        let tenant = Arc::new(TenantState::new(number, member, &self.catalog, hosts));
        self.queue.add_tenant(number);
        self.tenants.write().insert(number, Arc::clone(&tenant));
        for host in tenant.kinds.iter().filter_map(|k| k.host.as_ref()) {
            host.attach(&self.catalog, &tenant);
        }
        self.show_to_synthetic(&tenant);
        let owned = Arc::clone(&tenant);
        tenant.own(begun_anew("sync-tenant", self, move |engine| keep(engine, Arc::clone(&owned))));
    }

    fn remove(&self, tenant: &Arc<TenantState>) {
        tracing::info!(tenant = %tenant.id, "no longer syncing");
        tenant.close();
        self.queue.remove_tenant(tenant.number);
        self.tenants.write().remove(&tenant.number);
        let mut places = self.places.lock();
        for host in tenant.kinds.iter().filter_map(|k| k.host.as_ref()) {
            if host.detach(tenant) && places.remove(&host.place).is_some() {
                host.close();
            }
        }
    }

    fn rebind(&self, tenant: &Arc<TenantState>, member: Member) {
        tenant.store.doubt();
        tenant.rebind(member);
        for host in tenant.kinds.iter().filter_map(|k| k.host.as_ref()) {
            host.reindex(&self.catalog, tenant);
        }
        self.push_all(tenant);
        tenant.service_changed.notify_one();
        tenant.dns_service_changed.notify_one();
    }

    fn place(self: &Arc<Self>, place: Place) -> Arc<HostStore> {
        let mut places = self.places.lock();
        if let Some(watched) = places.get(&place) {
            return Arc::clone(&watched.store);
        }
        let store = Arc::new(HostStore::new(place.clone()));
        let syncer = self.catalog.kind(place.kind);
        let mut options = ListOptions::default();
        if syncer.host_scope() == HostScope::Tenant {
            keys::CLUSTER.clone_into(&mut options.label_selector);
        }
        let owner = place.namespace.as_ref().map_or_else(|| "host".to_owned(), |n| format!("host namespace {n}"));
        let host = Arc::clone(&self.host);
        let feed: Arc<dyn Feed> = Arc::new(HostFeed { engine: Arc::clone(self), store: Arc::clone(&store) });
        // Where rights may be missing, kinds of the host's own scope can be made up.
        let synthetic = self.access.is_limited().then(|| Synthetic::new(&syncer.resource(), &feed, &self.own_place));
        let synthetic = synthetic.flatten().map(Arc::new);
        places.insert(place.clone(), Watched { store: Arc::clone(&store), synthetic: synthetic.clone() });
        drop(places);
        let source = Source {
            resource: syncer.resource(),
            namespace: place.namespace.map(|n| n.to_string()),
            options,
            feed,
            cluster: Box::new(move || Arc::clone(&host)),
            swapped: self.host_swapped.subscribe(),
            access: self.access.clone(),
            stand_in: synthetic.map(|synthetic| synthetic as Arc<dyn StandIn>),
            store: None,
            clock: self.clock.clone(),
            relist_after: self.config.drift_interval.0 * RELIST_INTERVALS,
            owner,
        };
        store.own(task::spawn("sync-host-source", source.run()));
        store
    }

    fn show_to_synthetic(&self, tenant: &TenantState) {
        let synthetic: Vec<Arc<Synthetic>> = self.places.lock().values().filter_map(|w| w.synthetic.clone()).collect();
        for synthetic in synthetic {
            let from = self.catalog.index(synthetic.made_from()).and_then(|kind| tenant.kind(kind).host.as_ref());
            if let Some(store) = from {
                store.show_to(&(synthetic as Arc<dyn Witness>));
            }
        }
    }

    fn start_sources(self: &Arc<Self>, tenant: &Arc<TenantState>) {
        if !tenant.begins_sources() {
            return;
        }
        for (kind, syncer) in self.catalog.iter().filter(|(_, syncer)| syncer.watches_virtual()) {
            let bound = Arc::clone(tenant);
            let source = Source {
                resource: syncer.resource(),
                namespace: None,
                options: ListOptions::default(),
                feed: Arc::new(VirtualFeed { engine: Arc::clone(self), tenant: Arc::clone(tenant), kind }),
                cluster: Box::new(move || Arc::clone(&bound.bound().api)),
                swapped: tenant.swapped.subscribe(),
                access: Access::granted(),
                stand_in: None,
                store: Some(Arc::clone(&tenant.store)),
                clock: self.clock.clone(),
                relist_after: self.config.drift_interval.0 * RELIST_INTERVALS,
                owner: tenant.id.to_string(),
            };
            tenant.own(task::spawn("sync-virtual-source", source.run()));
        }
    }

    /// A virtual object changed, or what it references did.
    pub fn touched(&self, tenant: &TenantState, item: Item, touched: Touched) {
        for reference in touched.references {
            self.push(tenant, reference);
        }
        if !touched.differs {
            return;
        }
        // Users of a ConfigMap or Secret do not look at its body; users of anything else may.
        if !self.catalog.kind(item.kind).fetch_body_on_demand() {
            for referrer in tenant.referrers(&item) {
                self.push(tenant, referrer);
            }
        }
        if self.catalog.kind(item.kind).resource() == SERVICES {
            match item.key.name.as_str() {
                "kubernetes" if item.key.namespace == "default" => tenant.service_changed.notify_one(),
                service::DNS_NAME => tenant.dns_service_changed.notify_one(),
                _ => {}
            }
        }
        self.push(tenant, item);
    }

    fn affected(&self, affected: Affected) {
        for (tenant, item) in affected {
            self.push(&tenant, item);
        }
    }

    /// An answer of the host to us is the newest state that we know of. Quiet: the object is as we just made it.
    pub fn learn_host(&self, tenant: &TenantState, resource: &Resource, object: Value, quiet: bool) {
        let Some(kind) = self.catalog.index_of(resource) else { return };
        let Some(host) = tenant.kind(kind).host.as_ref() else { return };
        let incoming = pack_host(self.catalog.kind(kind), object);
        let affected = host.applied(&self.catalog, incoming, Origin::Answer);
        if !quiet {
            self.affected(affected);
        }
    }

    /// The host says that an object is gone; `known` is the version that we knew before asking.
    pub fn learn_host_gone(&self, tenant: &TenantState, kind: u16, name: &str, known: u64) {
        if let Some(host) = tenant.kind(kind).host.as_ref() {
            let affected = host.gone(&self.catalog, name, known);
            self.affected(affected);
        }
    }

    /// An answer of the tenant to us is the newest state that we know of.
    pub fn learn_virtual(&self, tenant: &TenantState, resource: &Resource, object: Value) {
        let Some(kind) = self.catalog.index_of(resource) else { return };
        let syncer = self.catalog.kind(kind);
        if !syncer.watches_virtual() {
            return;
        }
        let incoming = pack_virtual(syncer, object);
        let item = Item { kind, key: incoming.key.clone() };
        let touched = tenant.absorb(&self.catalog, kind, incoming, Origin::Answer);
        self.touched(tenant, item, touched);
    }

    /// The tenant says that an object is gone.
    pub fn learn_virtual_gone(&self, tenant: &TenantState, kind: u16, key: &ObjectKey, known: u64) {
        let touched = tenant.release_unchanged(kind, key, known);
        self.touched(tenant, Item { kind, key: key.clone() }, touched);
    }

    /// A source of this kind has its list, or lost the right to it.
    fn source_changed(&self, tenant: &TenantState, kind: u16) {
        let was_ready = tenant.announce_ready();
        match was_ready {
            None => {}
            Some(false) => self.push_all(tenant),
            Some(true) => self.push_kind(tenant, kind),
        }
    }

    /// Wants everything of a tenant looked at.
    pub fn push_all(&self, tenant: &TenantState) {
        for (kind, _) in self.catalog.iter() {
            self.push_kind(tenant, kind);
        }
    }

    /// Wants every object of a kind looked at.
    pub fn push_kind(&self, tenant: &TenantState, kind: u16) {
        for key in tenant.keys(kind) {
            self.push(tenant, Item { kind, key });
        }
    }

    /// Fills in what the engine knows.
    pub fn describe(&self, snapshot: &mut Snapshot) {
        snapshot.running = !self.queue.is_closed();
        snapshot.queue = self.queue.depth();
        let tenants = self.tenants();
        snapshot.tenants = tenants.len();
        snapshot.starting = tenants.iter().filter(|t| !t.is_ready()).map(|t| t.id.to_string()).collect();
        for (place, Watched { store, .. }) in self.places.lock().iter() {
            if store.state.get() == SourceState::Off {
                let namespace = place.namespace.as_ref().map(ToString::to_string).unwrap_or_default();
                snapshot.off.push((self.catalog.kind(place.kind).resource().kind, namespace));
            }
        }
    }
}

/// All that is done for a tenant beside its objects, until dropped.
async fn keep(engine: Arc<Engine>, tenant: Arc<TenantState>) {
    store::settle(&engine, &tenant).await;
    kubernetes_service::settle(&engine, &tenant).await;
    let later = adopt::settle(&engine, &tenant).await;
    engine.start_sources(&tenant);
    tokio::join!(
        store::follow(&engine, &tenant),
        deletions::follow(&engine, &tenant),
        recover::collect_abandoned(&engine, &tenant),
        kubernetes_service::guard(&engine, &tenant),
        dns_service::guard(&engine, &tenant),
        adopt::follow(&engine, &tenant, later),
    );
}

/// A task that ends when its work does, or is dropped; should it panic, the work is begun again.
fn begun_anew<F, Fut>(name: &'static str, engine: &Arc<Engine>, work: F) -> Task
where
    F: Fn(Arc<Engine>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let engine = Arc::clone(engine);
    task::spawn(name, async move {
        task::repeat(name, &engine.clock, AGAIN, || work(Arc::clone(&engine)).map(Ok)).await;
    })
}

/// What was left undone for want of a right is planned again when rights change.
async fn follow_rights(engine: Arc<Engine>) {
    let mut access = engine.access.clone();
    loop {
        access.changed().await;
        for tenant in engine.tenants() {
            engine.push_all(&tenant);
        }
    }
}

struct VirtualFeed {
    engine: Arc<Engine>,
    tenant: Arc<TenantState>,
    kind: u16,
}

impl Feed for VirtualFeed {
    fn pack(&self, object: Value) -> Incoming {
        pack_virtual(self.engine.catalog.kind(self.kind), object)
    }

    fn applied(&self, incoming: Incoming) {
        let item = Item { kind: self.kind, key: incoming.key.clone() };
        let touched = self.tenant.absorb(&self.engine.catalog, self.kind, incoming, Origin::Watch);
        self.engine.touched(&self.tenant, item, touched);
    }

    fn deleted(&self, incoming: Incoming) {
        let Incoming { key, entry, .. } = incoming;
        let touched = self.tenant.release(self.kind, &key, &entry.uid, entry.version);
        self.engine.touched(&self.tenant, Item { kind: self.kind, key }, touched);
    }

    fn delivered(&self, version: u64) {
        self.tenant.kind(self.kind).objects.write().delivered(version);
    }

    fn known(&self, key: &ObjectKey) -> Option<Incoming> {
        let entry = self.tenant.kind(self.kind).objects.read().get(key)?.clone();
        let value = entry.object();
        Some(Incoming { key: key.clone(), entry, value })
    }

    fn replaced(&self, list: Vec<Incoming>, version: u64) {
        let (changed, references) = self.tenant.replace(&self.engine.catalog, self.kind, list, version);
        for reference in references {
            self.engine.push(&self.tenant, reference);
        }
        for key in changed {
            let touched = Touched { differs: true, references: Vec::new() };
            self.engine.touched(&self.tenant, Item { kind: self.kind, key }, touched);
        }
    }

    fn state(&self, state: SourceState) {
        if self.tenant.kind(self.kind).state.set(state) {
            self.engine.source_changed(&self.tenant, self.kind);
        }
    }
}

struct HostFeed {
    engine: Arc<Engine>,
    store: Arc<HostStore>,
}

impl Feed for HostFeed {
    fn pack(&self, object: Value) -> Incoming {
        pack_host(self.engine.catalog.kind(self.store.place.kind), object)
    }

    fn applied(&self, incoming: Incoming) {
        let affected = self.store.applied(&self.engine.catalog, incoming, Origin::Watch);
        self.engine.affected(affected);
    }

    fn deleted(&self, incoming: Incoming) {
        let affected = self.store.deleted(&self.engine.catalog, &incoming);
        self.engine.affected(affected);
    }

    fn delivered(&self, version: u64) {
        self.store.objects.write().delivered(version);
    }

    fn known(&self, key: &ObjectKey) -> Option<Incoming> {
        let entry = self.store.objects.read().get(&key.name)?.clone();
        let value = entry.object();
        Some(Incoming { key: key.clone(), entry, value })
    }

    fn replaced(&self, list: Vec<Incoming>, version: u64) {
        let affected = self.store.replaced(&self.engine.catalog, list, version);
        self.engine.affected(affected);
    }

    fn state(&self, state: SourceState) {
        if self.store.state.set(state) {
            for tenant in self.store.members() {
                self.engine.source_changed(&tenant, self.store.place.kind);
            }
        }
    }
}
