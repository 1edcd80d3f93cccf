//! What one run of the syncer knows and works with: both sides' objects, the queue, the tenants of now.
//!
//! Promises: whatever becomes known, from a watch or from an answer, becomes work for whom it concerns, and only for them.
//! Who comes and goes, `engine` decides; nothing here begins or ends a task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;
use serde_json::Value;

use crate::config::SyncerConfig;
use crate::kubernetes::Resource;
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::resources::SERVICES;
use crate::kubernetes::rights::Access;
use crate::runtime::clock::Clock;
use crate::runtime::traces::Traces;
use crate::syncer::cache::SourceState;
use crate::syncer::catalog::Catalog;
use crate::syncer::host::Place;
use crate::syncer::incoming::{Origin, pack_host, pack_virtual};
use crate::syncer::kind::ObjectKey;
use crate::syncer::queue::{Item, Queue, TenantNumber, Urgency};
use crate::syncer::routes::{Affected, HostRoutes};
use crate::syncer::stats::{Kept, Live, Snapshot, Stats};
use crate::syncer::tenant::{TenantState, Touched};
use crate::translate::service;

/// One run's state.
pub struct World {
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
    /// What is to be looked at.
    pub queue: Arc<Queue>,
    /// Of pods.
    pub traces: Traces,
    /// By their number in this process.
    pub(super) tenants: RwLock<BTreeMap<TenantNumber, Arc<TenantState>>>,
    /// Places on the host that are watched.
    pub(super) places: RwLock<BTreeMap<Place, Arc<HostRoutes>>>,
}

impl World {
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

    /// A tenant's API server did what it was asked: it has its whole share again.
    pub fn answered(&self, tenant: &TenantState) {
        if tenant.count_success() {
            self.queue.narrow_tenant(tenant.number, false);
        }
    }

    /// Who sees the host objects of a kind where this tenant's are.
    fn routes_of(&self, tenant: &TenantState, kind: u16) -> Option<Arc<HostRoutes>> {
        let host = tenant.kind(kind).host.as_ref()?;
        self.places.read().get(&host.place).cloned()
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
            match (item.key.namespace.as_str(), item.key.name.as_str()) {
                ("default", "kubernetes") => tenant.service_changed.notify_one(),
                (service::DNS_NAMESPACE, service::DNS_NAME) => tenant.dns_service_changed.notify_one(),
                (service::METRICS_NAMESPACE, service::METRICS_NAME) => tenant.metrics_service_changed.notify_one(),
                _ => {}
            }
        }
        self.push(tenant, item);
    }

    /// What a change on the host leads to.
    pub fn affected(&self, affected: Affected) {
        for (tenant, item) in affected {
            self.push(&tenant, item);
        }
    }

    /// An answer of the host to us is the newest state that we know of. Quiet: the object is as we just made it.
    pub fn learn_host(&self, tenant: &TenantState, resource: &Resource, object: Value, quiet: bool) {
        let Some(kind) = self.catalog.index_of(resource) else { return };
        let Some(routes) = self.routes_of(tenant, kind) else { return };
        let incoming = pack_host(self.catalog.kind(kind), object);
        let affected = routes.applied(&self.catalog, incoming, Origin::Answer);
        if !quiet {
            self.affected(affected);
        }
    }

    /// The host says that an object is gone; `known` is the version that we knew before asking.
    pub fn learn_host_gone(&self, tenant: &TenantState, kind: u16, name: &str, known: u64) {
        if let Some(routes) = self.routes_of(tenant, kind) {
            let affected = routes.gone(&self.catalog, name, known);
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
        let incoming = pack_virtual(&self.catalog, kind, object);
        let item = Item { kind, key: incoming.key.clone() };
        let touched = tenant.absorb(kind, incoming, Origin::Answer);
        self.touched(tenant, item, touched);
    }

    /// The tenant says that an object is gone.
    pub fn learn_virtual_gone(&self, tenant: &TenantState, kind: u16, key: &ObjectKey, known: u64) {
        let touched = tenant.release_unchanged(kind, key, known);
        self.touched(tenant, Item { kind, key: key.clone() }, touched);
    }

    /// A source of this kind has its list, or lost the right to it.
    pub fn source_changed(&self, tenant: &TenantState, kind: u16) {
        let was_ready = tenant.announce_ready();
        match was_ready {
            None => {}
            Some(false) => {
                tenant.cached.is_read();
                self.push_all(tenant);
            }
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
}

impl Live for World {
    fn describe(&self, snapshot: &mut Snapshot) {
        snapshot.running = !self.queue.is_closed();
        snapshot.queue = self.queue.depth();
        let tenants = self.tenants();
        snapshot.tenants = tenants.len();
        let kept = |t: &Arc<TenantState>| Kept {
            id: t.id.clone(),
            bytes: t.cached.held(),
            cut: t.cut_objects(),
            unsaid: t.unsaid.load(Ordering::Relaxed),
            objects: t.counted(&self.catalog),
        };
        snapshot.kept = tenants.iter().map(kept).collect();
        snapshot.starting = tenants.iter().filter(|t| !t.is_ready()).map(|t| t.id.to_string()).collect();
        for (place, routes) in self.places.read().iter() {
            if routes.store.state.get() == SourceState::Off {
                let namespace = place.namespace.as_ref().map(ToString::to_string).unwrap_or_default();
                snapshot.off.push((self.catalog.kind(place.kind).resource().kind, namespace));
            }
        }
    }
}
