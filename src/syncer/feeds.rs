//! Where the sources' objects go: into the stores of a tenant or of a place on the host, and on as work.

use std::sync::Arc;

use serde_json::Value;

use crate::syncer::cache::SourceState;
use crate::syncer::incoming::{Incoming, Origin, pack_host, pack_virtual};
use crate::syncer::kind::ObjectKey;
use crate::syncer::queue::Item;
use crate::syncer::references;
use crate::syncer::routes::HostRoutes;
use crate::syncer::source::Feed;
use crate::syncer::tenant::{TenantState, Touched};
use crate::syncer::world::World;

/// Of one kind of a tenant.
pub struct VirtualFeed {
    /// Where it becomes work.
    pub world: Arc<World>,
    /// The tenant whose objects come.
    pub tenant: Arc<TenantState>,
    /// Index of the kind.
    pub kind: u16,
}

impl Feed for VirtualFeed {
    fn pack(&self, object: Value) -> Incoming {
        pack_virtual(&self.world.catalog, self.kind, object)
    }

    fn applied(&self, incoming: Incoming) {
        let item = Item { kind: self.kind, key: incoming.key.clone() };
        let touched = self.tenant.absorb(self.kind, incoming, Origin::Watch);
        self.world.touched(&self.tenant, item, touched);
    }

    fn deleted(&self, incoming: Incoming) {
        let Incoming { key, entry, .. } = incoming;
        let touched = self.tenant.release(self.kind, &key, &entry.uid, entry.version);
        self.world.touched(&self.tenant, Item { kind: self.kind, key }, touched);
    }

    fn delivered(&self, version: u64) {
        self.tenant.kind(self.kind).objects.write().delivered(version);
    }

    fn known(&self, key: &ObjectKey) -> Option<Incoming> {
        let entry = self.tenant.kind(self.kind).objects.read().get(key)?.clone();
        let references = references::found_in(&self.world.catalog, self.kind, &entry.object());
        Some(Incoming { key: key.clone(), entry, value: Value::Null, references })
    }

    fn list(&self, key: &ObjectKey, bytes: usize) -> Option<usize> {
        self.tenant.list(self.kind, key, bytes)
    }

    fn unlist(&self, bytes: usize) {
        self.tenant.cached.moved(bytes, 0);
    }

    fn replaced(&self, list: Vec<Incoming>, version: u64) {
        let (changed, references) = self.tenant.replace(self.kind, list, version);
        for reference in references {
            self.world.push(&self.tenant, reference);
        }
        for key in changed {
            let touched = Touched { differs: true, references: Vec::new() };
            self.world.touched(&self.tenant, Item { kind: self.kind, key }, touched);
        }
    }

    fn state(&self, state: SourceState) {
        if self.tenant.kind(self.kind).state.set(state) {
            self.world.source_changed(&self.tenant, self.kind);
        }
    }
}

/// Of one place on the host.
pub struct HostFeed {
    /// Where it becomes work.
    pub world: Arc<World>,
    /// The place, and who sees it.
    pub routes: Arc<HostRoutes>,
}

impl Feed for HostFeed {
    fn pack(&self, object: Value) -> Incoming {
        pack_host(self.world.catalog.kind(self.routes.store.place.kind), object)
    }

    fn applied(&self, incoming: Incoming) {
        let affected = self.routes.applied(&self.world.catalog, incoming, Origin::Watch);
        self.world.affected(affected);
    }

    fn deleted(&self, incoming: Incoming) {
        let affected = self.routes.deleted(&self.world.catalog, &incoming);
        self.world.affected(affected);
    }

    fn delivered(&self, version: u64) {
        self.routes.store.objects.write().delivered(version);
    }

    fn known(&self, key: &ObjectKey) -> Option<Incoming> {
        let entry = self.routes.store.objects.read().get(&key.name)?.clone();
        Some(Incoming { key: key.clone(), entry, value: Value::Null, references: None })
    }

    fn list(&self, _key: &ObjectKey, _bytes: usize) -> Option<usize> {
        Some(0)
    }

    fn unlist(&self, _bytes: usize) {}

    fn replaced(&self, list: Vec<Incoming>, version: u64) {
        let affected = self.routes.replaced(&self.world.catalog, list, version);
        self.world.affected(affected);
    }

    fn state(&self, state: SourceState) {
        if self.routes.store.state.set(state) {
            for tenant in self.routes.members() {
                self.world.source_changed(&tenant, self.routes.store.place.kind);
            }
        }
    }
}
