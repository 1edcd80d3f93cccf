//! Whom a change on the host concerns: the tenants of a place, and what is made up of its objects.
//!
//! Promises: every member learns of each change of what is its own and of nothing else. Does no IO.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde_json::Value;

use crate::runtime::task::Task;
use crate::syncer::cache::Entry;
use crate::syncer::catalog::Catalog;
use crate::syncer::guard;
use crate::syncer::host::HostStore;
use crate::syncer::incoming::{Incoming, Origin};
use crate::syncer::queue::Item;
use crate::syncer::tenant::TenantState;
use crate::syncer::tokens;

/// One place's objects and those who see them.
pub struct HostRoutes {
    /// The objects.
    pub store: Arc<HostStore>,
    members: RwLock<Vec<Arc<TenantState>>>,
    witnesses: RwLock<Vec<Arc<dyn Witness>>>,
    /// Changes reach the members' indices in the order in which they reached the store.
    order: Mutex<()>,
    task: Mutex<Option<Task>>,
    /// Objects of which a member could not say what they stand for: it is asked again with each state that comes.
    unrouted: Mutex<BTreeSet<String>>,
}

/// Learns of every object of a place.
pub trait Witness: Send + Sync {
    /// The object of this name is now this, or gone.
    fn saw(&self, name: &str, now: Option<&Value>);
}

/// Work that a change leads to.
pub type Affected = Vec<(Arc<TenantState>, Item)>;

impl HostRoutes {
    /// To nobody yet.
    pub fn new(store: Arc<HostStore>) -> Self {
        Self {
            store,
            members: RwLock::default(),
            witnesses: RwLock::default(),
            order: Mutex::default(),
            task: Mutex::default(),
            unrouted: Mutex::default(),
        }
    }

    /// Keeps its source running.
    pub fn own(&self, task: Task) {
        *self.task.lock() = Some(task);
    }

    /// Shows what is there, and every change from now on; once to each.
    pub fn show_to(&self, witness: &Arc<dyn Witness>) {
        let _order = self.order.lock();
        let mut witnesses = self.witnesses.write();
        if witnesses.iter().any(|known| Arc::ptr_eq(known, witness)) {
            return;
        }
        for (name, entry) in self.store.objects.read().iter() {
            show(&**witness, name, Some(&entry.object()));
        }
        witnesses.push(Arc::clone(witness));
    }

    /// Ends its source.
    pub fn close(&self) {
        self.task.lock().take();
        self.witnesses.write().clear();
        self.members.write().clear();
    }

    /// Tenants that see it.
    pub fn members(&self) -> Vec<Arc<TenantState>> {
        self.members.read().clone()
    }

    /// A tenant joins and learns what is there.
    pub fn attach(&self, catalog: &Catalog, tenant: &Arc<TenantState>) {
        let _order = self.order.lock();
        self.members.write().push(Arc::clone(tenant));
        self.index_all(catalog, tenant);
    }

    /// A tenant's view changed: what belongs to it is decided again.
    pub fn reindex(&self, catalog: &Catalog, tenant: &Arc<TenantState>) {
        let _order = self.order.lock();
        self.index_all(catalog, tenant);
    }

    fn index_all(&self, catalog: &Catalog, tenant: &Arc<TenantState>) {
        let syncer = catalog.kind(self.store.place.kind);
        for (name, entry) in self.store.objects.read().iter() {
            if tenant.index_host(syncer, self.store.place.kind, name, Some(&entry.object())).is_none() {
                self.unrouted.lock().insert(name.clone());
            }
        }
    }

    /// A tenant leaves. True when nobody is left.
    pub fn detach(&self, tenant: &TenantState) -> bool {
        let mut members = self.members.write();
        members.retain(|member| member.number != tenant.number);
        members.is_empty()
    }

    /// An object is now this.
    pub fn applied(&self, catalog: &Catalog, incoming: Incoming, origin: Origin) -> Affected {
        let _order = self.order.lock();
        let Incoming { key, entry, value, .. } = incoming;
        let differs = match origin {
            Origin::Watch => self.store.objects.write().observe(key.name.clone(), entry),
            Origin::Answer => self.store.objects.write().learn(key.name.clone(), entry),
        };
        let is_new = differs || self.unrouted.lock().contains(&key.name);
        if is_new { self.route(catalog, &key.name, Some(&value), None) } else { Vec::new() }
    }

    /// An object ended.
    pub fn deleted(&self, catalog: &Catalog, incoming: &Incoming) -> Affected {
        let _order = self.order.lock();
        let name = &incoming.key.name;
        let known = self.store.objects.write().forget(name, &incoming.entry.uid, incoming.entry.version);
        if known { self.route(catalog, name, None, Some(&incoming.value)) } else { Vec::new() }
    }

    /// A read found that it is gone.
    pub fn gone(&self, catalog: &Catalog, name: &str, known: u64) -> Affected {
        let _order = self.order.lock();
        let dropped = self.store.objects.write().learn_gone(&name.to_owned(), known);
        if dropped { self.route(catalog, name, None, None) } else { Vec::new() }
    }

    /// A whole list.
    pub fn replaced(&self, catalog: &Catalog, list: Vec<Incoming>, version: u64) -> Affected {
        let _order = self.order.lock();
        let list = list.into_iter().map(|incoming| (incoming.key.name, incoming.entry)).collect();
        let mut changed: BTreeMap<String, Option<Entry>> =
            self.store.objects.write().replace(list, version).into_iter().collect();
        for name in self.unrouted.lock().iter() {
            changed.entry(name.clone()).or_default();
        }
        let mut affected = Vec::new();
        for (name, old) in changed {
            let now = self.store.objects.read().get(&name).map(Entry::object);
            affected.extend(self.route(catalog, &name, now.as_ref(), old.map(|e| e.object()).as_ref()));
        }
        affected
    }

    /// Tells every member whose object it is or was.
    fn route(&self, catalog: &Catalog, name: &str, now: Option<&Value>, last: Option<&Value>) -> Affected {
        for witness in self.witnesses.read().iter() {
            show(&**witness, name, now);
        }
        let kind = self.store.place.kind;
        let syncer = catalog.kind(kind);
        let mut affected = Vec::new();
        let mut is_routed = true;
        for tenant in self.members.read().iter() {
            let keys = tenant.index_host(syncer, kind, name, now);
            is_routed &= keys.is_some();
            for key in keys.unwrap_or_default() {
                affected.push((Arc::clone(tenant), Item { kind, key }));
            }
            let pod = now.or(last).and_then(|object| tokens::pod_of(object, tenant.id.name()));
            if let Some(item) = pod.and_then(|key| Some(Item { kind: catalog.index("Pod")?, key })) {
                affected.push((Arc::clone(tenant), item));
            }
        }
        let mut unrouted = self.unrouted.lock();
        if is_routed {
            unrouted.remove(name);
        } else {
            unrouted.insert(name.to_owned());
        }
        affected
    }
}

/// A witness is told of every tenant's objects.
fn show(witness: &dyn Witness, name: &str, now: Option<&Value>) {
    guard::caught("what is made up of it", "", || name.to_owned(), || witness.saw(name, now));
}
