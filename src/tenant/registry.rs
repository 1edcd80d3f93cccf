//! All tenants at one moment, and the one place where that changes.
//!
//! Promises: a snapshot is swapped whole, one writer at a time; whoever follows one tenant's life is woken by that tenant
//! only, after the snapshot that shows the change. Must not know how tenants are made.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::generation::Tenant;
use super::life::Teller;
use super::memory::Memory;
use crate::names::TenantId;
use crate::names::claims::Owners;
use crate::names::reserved::normal;

/// All tenants at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    by_id: HashMap<TenantId, Arc<Tenant>>,
    /// `None` where no VirtualClusters are: the sidecar form.
    owners: Option<Arc<Owners>>,
    by_host: HashMap<String, TenantId>,
    by_port: HashMap<u16, TenantId>,
}

impl Snapshot {
    /// A tenant by its identity.
    pub fn by_id(&self, id: &TenantId) -> Option<&Arc<Tenant>> {
        self.by_id.get(id)
    }

    /// A tenant by SNI or authority name; compared without case and trailing dot.
    pub fn by_host(&self, host: &str) -> Option<&Arc<Tenant>> {
        self.by_id.get(self.by_host.get(&normal(host)?)?)
    }

    /// A tenant by its own listener port.
    pub fn by_port(&self, port: u16) -> Option<&Arc<Tenant>> {
        self.by_id.get(self.by_port.get(&port)?)
    }

    /// Whether a tenant that is not here is there all the same: it is not built yet, or nothing was heard of any.
    pub fn awaits(&self, id: &TenantId) -> bool {
        match &self.owners {
            Some(owners) => owners.has(id) && !self.by_id.contains_key(id),
            None => self.by_id.is_empty(),
        }
    }

    /// The same of whoever has the name; before anything was heard, somebody may.
    pub fn awaits_host(&self, host: &str) -> bool {
        match &self.owners {
            Some(owners) => owners.host(host).is_some_and(|id| self.awaits(id)),
            None => self.by_id.is_empty(),
        }
    }

    /// All of them, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.by_id.values()
    }
}

/// Holder of the current snapshot.
#[derive(Debug)]
pub struct Registry {
    current: ArcSwap<Snapshot>,
    changed: watch::Sender<u64>,
    generations: AtomicU64,
    /// Of those in the snapshot, each with its uid. Held by whoever changes it, so that lives are told in its order.
    lives: Mutex<HashMap<TenantId, (String, Teller)>>,
    memory: Memory,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            current: ArcSwap::default(),
            changed: watch::Sender::new(0),
            generations: AtomicU64::new(0),
            lives: Mutex::default(),
            memory: Memory::default(),
        }
    }
}

impl Registry {
    /// The snapshot of now; load once per request and keep it.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Wakes after every swap; the value only grows.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A generation that no tenant of this process ever had, whoever fills the registry and however often it began anew.
    pub fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What the tenants take of the process' memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Says who has which names and ports from now on. Where this was never called, tenants have what they ask for; what
    /// several ask for is the first one's by id.
    pub fn own(&self, owners: Owners) {
        let _writing = self.lives.lock();
        let old = self.load();
        self.swap(old.by_id.clone(), Some(Arc::new(owners)));
    }

    /// Puts in or replaces one tenant. Yields the names among its own that do not lead to it.
    pub fn put(&self, tenant: &Arc<Tenant>) -> Vec<String> {
        let mut lives = self.lives.lock();
        let before = lives.remove(&tenant.id);
        let (same, predecessor) = match before {
            Some((uid, teller)) if uid == tenant.uid => (Some(teller), None),
            other => (None, other),
        };
        let teller = same.unwrap_or_else(|| Teller::new(tenant.generation));
        teller.adopt(&tenant.life);
        let old = self.load();
        let mut by_id = old.by_id.clone();
        by_id.insert(tenant.id.clone(), Arc::clone(tenant));
        let snapshot = self.swap(by_id, old.owners.clone());
        teller.newest(tenant.generation);
        lives.insert(tenant.id.clone(), (tenant.uid.clone(), teller));
        drop(predecessor);
        drop(lives);
        let leads_here = |host: &&String| snapshot.by_host(host).is_some_and(|holder| holder.id == tenant.id);
        tenant.hosts.iter().filter(|host| !leads_here(host)).cloned().collect()
    }

    /// Serves exactly these from now on, all at once: nobody sees some of them beside what was before. Those that are served already
    /// stay as they are.
    pub fn replace(&self, tenants: &[Arc<Tenant>]) {
        let mut lives = self.lives.lock();
        let old = self.load();
        let (mut before, mut ended) = (std::mem::take(&mut *lives), Vec::new());
        for tenant in tenants {
            let is_served = old.by_id(&tenant.id).is_some_and(|old| Arc::ptr_eq(old, tenant));
            let same = match before.remove(&tenant.id) {
                Some((uid, teller)) if uid == tenant.uid => Some(teller),
                predecessor => {
                    ended.extend(predecessor);
                    None
                }
            };
            let teller = same.unwrap_or_else(|| Teller::new(tenant.generation));
            if !is_served {
                teller.adopt(&tenant.life);
            }
            lives.insert(tenant.id.clone(), (tenant.uid.clone(), teller));
        }
        let by_id = tenants.iter().map(|tenant| (tenant.id.clone(), Arc::clone(tenant))).collect();
        self.swap(by_id, old.owners.clone());
        for tenant in tenants {
            if let Some((_, teller)) = lives.get(&tenant.id) {
                teller.newest(tenant.generation);
            }
        }
        // Whose end it is learns of it when the others are served.
        drop((before, ended));
    }

    /// Takes one out.
    pub fn remove(&self, id: &TenantId) {
        let mut lives = self.lives.lock();
        let old = self.load();
        let mut by_id = old.by_id.clone();
        by_id.remove(id);
        self.swap(by_id, old.owners.clone());
        lives.remove(id);
    }

    /// Only under the lock of `lives`.
    fn swap(&self, by_id: HashMap<TenantId, Arc<Tenant>>, owners: Option<Arc<Owners>>) -> Arc<Snapshot> {
        let snapshot = Arc::new(Snapshot::index(by_id, owners));
        self.current.store(Arc::clone(&snapshot));
        self.changed.send_modify(|n| *n += 1);
        snapshot
    }
}

impl Snapshot {
    /// A name or port leads to the tenant that has it, if it asks for it, or nowhere: never to somebody else because its
    /// holder is not built yet.
    fn index(by_id: HashMap<TenantId, Arc<Tenant>>, owners: Option<Arc<Owners>>) -> Self {
        let mut by_host: HashMap<String, TenantId> = HashMap::new();
        let mut by_port: HashMap<u16, TenantId> = HashMap::new();
        let mut order: Vec<&Arc<Tenant>> = by_id.values().collect();
        order.sort_by(|a, b| a.id.cmp(&b.id));
        for tenant in order {
            for host in tenant.hosts.iter().filter_map(|host| normal(host)) {
                if owners.as_ref().is_none_or(|owners| owners.host(&host) == Some(&tenant.id)) {
                    by_host.entry(host).or_insert_with(|| tenant.id.clone());
                }
            }
            if owners.as_ref().is_none_or(|owners| owners.port(tenant.port) == Some(&tenant.id)) {
                by_port.entry(tenant.port).or_insert_with(|| tenant.id.clone());
            }
        }
        Self { by_id, owners, by_host, by_port }
    }
}
