//! All that the syncer holds of one tenant: its objects, what their host copies are called, who references whom.
//!
//! Promises: dropping it frees everything; store and reference index change together. Does no IO.

mod objects;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::crd::{Limits, OnLoss};
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::resources::SERVICES;
use crate::names::TenantId;
use crate::runtime::pace::Pace;
use crate::runtime::task::Task;
use crate::syncer::budget::Share;
use crate::syncer::cache::{Entry, SourceState, Store};
use crate::syncer::catalog::Catalog;
use crate::syncer::deletions::Deletions;
use crate::syncer::explain::Explained;
use crate::syncer::exposed::Exposed;
use crate::syncer::guard;
use crate::syncer::host::HostStore;
use crate::syncer::journeys::Journeys;
use crate::syncer::kind::{HostScope, ObjectKey, ResourceSyncer, TenantView};
use crate::syncer::kind_state::KindState;
use crate::syncer::queue::{Item, TenantNumber};
use crate::syncer::references::References;
use crate::syncer::store::StoreGuard;

/// A tenant as the engine is told of it.
#[derive(Clone)]
pub struct Member {
    /// What plans may know.
    pub view: TenantView,
    /// Its API server.
    pub api: SharedCluster,
    /// Equal means nothing changed.
    pub fingerprint: String,
    /// Host objects that vcluster made for it are taken over before anything is planned.
    pub adopts: bool,
    /// What becomes of its copies when its store is lost.
    pub on_loss: OnLoss,
    /// What it asks to be limited to.
    pub limits: Limits,
    /// Its API server finds its metrics at the gateway itself, which knows it as aggregator (k3s). Others have a relay for it, or
    /// nothing.
    pub metrics_at_gateway: bool,
}

/// One tenant.
pub struct TenantState {
    /// In this process.
    pub number: TenantNumber,
    /// Host namespace and name of the virtual cluster.
    pub id: TenantId,
    bound: RwLock<Arc<Member>>,
    /// Wakes sources when the client was swapped.
    pub swapped: watch::Sender<u64>,
    /// By index of the catalog.
    pub kinds: Vec<KindState>,
    references: Mutex<References>,
    /// Whether what its API server says is believed.
    pub store: Arc<StoreGuard>,
    /// What is kept of its objects.
    pub cached: Share,
    /// What its host Services take of nodes and load balancers.
    pub exposed: Exposed,
    /// Whether its owner was told that objects of it are not kept; None: by an earlier process, if at all.
    pub told: Mutex<Option<bool>>,
    /// Deletions that nobody asked for.
    pub deletions: Deletions,
    /// Ends all its work.
    pub closed: CancellationToken,
    /// What its users were told already.
    pub explained: Explained,
    /// Its pods whose way is traced.
    pub journeys: Journeys,
    /// How often they are told something.
    pub events: Pace,
    /// What they were not told, since it would have been too often.
    pub unsaid: AtomicU64,
    /// Its `kubernetes` Service may not be right any more.
    pub service_changed: Notify,
    /// Held while one of its objects that take much memory is worked on.
    pub heavy: Semaphore,
    /// The same of its `kube-dns` Service.
    pub dns_service_changed: Notify,
    /// And of the one that leads to its metrics.
    pub metrics_service_changed: Notify,
    tasks: Mutex<Vec<Task>>,
    has_sources: AtomicBool,
    ready: AtomicBool,
    announced: AtomicBool,
    failures: AtomicU32,
}

/// What a state of a virtual object led to.
#[derive(Debug, Default)]
pub struct Touched {
    /// Plans may see a difference.
    pub differs: bool,
    /// Began or ceased to be referenced by it.
    pub references: Vec<Item>,
}

impl TenantState {
    /// A tenant that knows nothing yet. `hosts` are its host stores by kind.
    pub fn new(
        number: TenantNumber,
        member: Member,
        catalog: &Catalog,
        hosts: Vec<Option<Arc<HostStore>>>,
        cached: Share,
    ) -> Self {
        let kinds = catalog.iter().zip(hosts).map(|((_, kind), host)| KindState::new(kind, host)).collect();
        Self {
            number,
            id: member.view.id.clone(),
            bound: RwLock::new(Arc::new(member)),
            swapped: watch::Sender::new(0),
            kinds,
            references: Mutex::default(),
            store: Arc::default(),
            cached,
            exposed: Exposed::default(),
            told: Mutex::default(),
            deletions: Deletions::new(catalog.len()),
            closed: CancellationToken::new(),
            explained: Explained::default(),
            journeys: Journeys::default(),
            events: Pace::default(),
            unsaid: AtomicU64::new(0),
            service_changed: Notify::new(),
            heavy: Semaphore::new(1),
            dns_service_changed: Notify::new(),
            metrics_service_changed: Notify::new(),
            tasks: Mutex::default(),
            has_sources: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            announced: AtomicBool::new(false),
            failures: AtomicU32::new(0),
        }
    }

    /// View and client of now.
    pub fn bound(&self) -> Arc<Member> {
        Arc::clone(&self.bound.read())
    }

    /// Swaps view and client.
    pub fn rebind(&self, mut member: Member) {
        let mut bound = self.bound.write();
        member.view.placement.aliases = Arc::clone(&bound.view.placement.aliases);
        *bound = Arc::new(member);
        drop(bound);
        self.swapped.send_modify(|n| *n += 1);
    }

    /// One kind's state.
    pub fn kind(&self, kind: u16) -> &KindState {
        &self.kinds[usize::from(kind)]
    }

    /// Keeps a task until the tenant goes; a closed tenant takes none.
    pub fn own(&self, task: Task) {
        let mut tasks = self.tasks.lock();
        if !self.closed.is_cancelled() {
            tasks.push(task);
        }
    }

    /// Whether the caller is the first who begins its sources.
    pub fn begins_sources(&self) -> bool {
        !self.has_sources.swap(true, Ordering::AcqRel)
    }

    /// Ends everything of it.
    pub fn close(&self) {
        self.closed.cancel();
        self.tasks.lock().clear();
    }

    /// Forgets what another store said: nothing is planned before the lists of the new one are there.
    pub fn begin_anew(&self, catalog: &Catalog) {
        self.ready.store(false, Ordering::Release);
        self.announced.store(false, Ordering::Release);
        for (kind, _) in catalog.iter().filter(|(_, syncer)| syncer.watches_virtual()) {
            let state = self.kind(kind);
            state.state.set(SourceState::Starting);
            let mut objects = state.objects.write();
            self.cached.moved(objects.bytes(), 0);
            *objects = Store::default();
            state.ended.lock().clear();
        }
        *self.references.lock() = References::default();
    }

    /// Whether every source has its list (or is off): before that nothing is planned, since plans look at other kinds.
    pub fn is_ready(&self) -> bool {
        if self.ready.load(Ordering::Acquire) {
            return true;
        }
        let ready = self.kinds.iter().all(|kind| {
            let host = kind.host.as_ref().map_or(SourceState::Synced, |host| host.state.get());
            kind.state.get() != SourceState::Starting && host != SourceState::Starting
        });
        if ready {
            self.ready.store(true, Ordering::Release);
        }
        ready
    }

    /// After a source changed: None while lists are missing, whether it was ready before otherwise.
    pub fn announce_ready(&self) -> Option<bool> {
        self.is_ready().then(|| self.announced.swap(true, Ordering::AcqRel))
    }

    /// The answer of its API server was lost or refused: how often in a row, for the length of a pause.
    pub fn count_failure(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Its API server answered. Whether it did not the last time.
    pub fn count_success(&self) -> bool {
        self.failures.load(Ordering::Acquire) > 0 && self.failures.swap(0, Ordering::AcqRel) > 0
    }

    /// Who references a virtual object.
    pub fn referrers(&self, item: &Item) -> Vec<Item> {
        self.references.lock().referrers(item)
    }

    /// Those of one kind, at most so many.
    pub fn referrers_of(&self, item: &Item, kind: u16, most: usize) -> Vec<Item> {
        self.references.lock().referrers_of(item, kind, most)
    }

    /// Whether anybody does.
    pub fn is_referenced(&self, item: &Item) -> bool {
        self.references.lock().is_referenced(item)
    }

    /// A host object of that name is now this (None: gone). Returns the virtual keys whose host side changed; None when
    /// its kind cannot tell what it stands for: then what was known stays. Called under the host store's order lock.
    pub fn index_host(
        &self,
        syncer: &dyn ResourceSyncer,
        kind: u16,
        name: &str,
        object: Option<&Value>,
    ) -> Option<Vec<ObjectKey>> {
        let member = self.bound();
        let identified = guard::caught(
            "finding what it stands for",
            syncer.resource().kind,
            || name.to_owned(),
            || {
                let new = object.and_then(|object| identify(syncer, object, &member.view));
                let preferred = new.as_ref().and_then(|key| syncer.host_name(key, &member.view));
                (new, preferred)
            },
        );
        // Or the aliases would be copied for each new one.
        drop(member);
        let (new, preferred) = identified?;
        if syncer.resource() == SERVICES {
            self.exposed.set(name, object.filter(|_| new.is_some()));
        }
        if let Some(key) = &new
            && syncer.host_scope() == HostScope::Tenant
            && preferred.as_deref() != Some(name)
        {
            self.remember_alias(syncer.resource().kind, key, name);
        }
        let is_preferred = preferred.as_deref() == Some(name);
        let moved = self.kind(kind).index.write().set(name, new.as_ref(), is_preferred);
        if let Some(old) = moved.old.as_ref().filter(|_| moved.is_bare) {
            self.kind(kind).ended.lock().remove(old);
        }
        let old = moved.old;
        let mut touched: Vec<ObjectKey> = old.into_iter().chain(new).collect();
        touched.dedup();
        Some(touched)
    }

    /// A host object of this kind has an older name: everything that refers to it must use that one, also what is made anew.
    pub fn remember_alias(&self, kind: &str, key: &ObjectKey, name: &str) {
        let mut bound = self.bound.write();
        // In place, unless a worker still plans with the former ones.
        let aliases = Arc::make_mut(&mut Arc::make_mut(&mut bound).view.placement.aliases);
        aliases.remember(kind, &key.namespace, &key.name, name);
    }

    /// Name of the host object that stands for a virtual one.
    pub fn host_name(&self, kind: u16, key: &ObjectKey) -> Option<String> {
        self.kind(kind).index.read().name_of(key).cloned()
    }

    /// The host object that stands for a virtual one.
    pub fn host_object(&self, kind: u16, key: &ObjectKey) -> Option<Value> {
        let name = self.host_name(kind, key)?;
        self.kind(kind).host.as_ref()?.objects.read().get(&name).map(Entry::object)
    }

    /// How many host objects of a kind stand for virtual ones.
    pub fn copy_count(&self, kind: u16) -> usize {
        self.kind(kind).index.read().count()
    }

    /// Every key of one kind that exists on either side.
    pub fn keys(&self, kind: u16) -> Vec<ObjectKey> {
        let state = self.kind(kind);
        let mut keys: std::collections::BTreeSet<ObjectKey> =
            state.objects.read().iter().map(|(key, _)| key.clone()).collect();
        keys.extend(state.index.read().iter().map(|(key, _)| key.clone()));
        keys.into_iter().collect()
    }

    /// Objects of which nothing more is kept than that they are there.
    pub fn cut_objects(&self) -> usize {
        self.kinds.iter().map(|k| k.objects.read().iter().filter(|(_, e)| e.is_cut()).count()).sum()
    }
}

/// The virtual object that a host object stands for, if it belongs to this tenant.
pub fn identify(syncer: &dyn ResourceSyncer, object: &Value, view: &TenantView) -> Option<ObjectKey> {
    if syncer.host_scope() == HostScope::Tenant {
        let cluster = super::cache::mark(object, "labels", crate::names::keys::CLUSTER);
        if cluster != Some(view.cluster().as_str()) {
            return None;
        }
    }
    syncer.virtual_key(object, view)
}
