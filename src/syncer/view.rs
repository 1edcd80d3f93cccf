//! What plans may look up beside their own object: the caches of one tenant, read only.

use serde_json::Value;

use crate::rights::Access;
use crate::syncer::cache::Entry;
use crate::syncer::catalog::Catalog;
use crate::syncer::kind::{HostScope, Lookup, ObjectKey};
use crate::syncer::queue::Item;
use crate::syncer::tenant::{TenantState, identify};
use crate::upstream::Resource;

/// One tenant's caches. Bodies of kinds that are fetched on demand are not in them.
pub struct Caches<'a> {
    /// Kinds.
    pub catalog: &'a Catalog,
    /// Whose.
    pub tenant: &'a TenantState,
    /// What may be done on the host.
    pub access: &'a Access,
    /// Seconds since 1970.
    pub now_unix: i64,
}

impl Lookup for Caches<'_> {
    fn virtual_object(&self, kind: &str, key: &ObjectKey) -> Option<Value> {
        let kind = self.tenant.kind(self.catalog.index(kind)?);
        kind.objects.read().get(key).map(Entry::object)
    }

    fn virtual_objects(&self, kind: &str, namespace: &str) -> Vec<Value> {
        let Some(kind) = self.catalog.index(kind) else { return Vec::new() };
        let objects = self.tenant.kind(kind).objects.read();
        if namespace.is_empty() {
            return objects.iter().map(|(_, entry)| entry.object()).collect();
        }
        let first = ObjectKey { namespace: namespace.to_owned(), name: String::new() };
        let range = objects.range_from(first).take_while(|(key, _)| key.namespace == namespace);
        range.map(|(_, entry)| entry.object()).collect()
    }

    fn host_object(&self, kind: &str, key: &ObjectKey) -> Option<Value> {
        self.tenant.host_object(self.catalog.index(kind)?, key)
    }

    fn host_cluster_object(&self, kind: &str, name: &str) -> Option<Value> {
        let index = self.catalog.index(kind)?;
        if self.catalog.kind(index).host_scope() != HostScope::Cluster {
            return None;
        }
        let host = self.tenant.kind(index).host.as_ref()?;
        host.objects.read().get(&name.to_owned()).map(Entry::object)
    }

    fn referrers(&self, kind: &str, key: &ObjectKey) -> Vec<(&'static str, ObjectKey)> {
        let Some(kind) = self.catalog.index(kind) else { return Vec::new() };
        let referrers = self.tenant.referrers(&Item { kind, key: key.clone() });
        referrers.into_iter().map(|item| (self.catalog.kind(item.kind).resource().kind, item.key)).collect()
    }

    fn host_object_named(&self, kind: &str, name: &str) -> Option<Value> {
        let index = self.catalog.index(kind)?;
        let syncer = self.catalog.kind(index);
        let host = self.tenant.kind(index).host.as_ref()?;
        let object = host.objects.read().get(&name.to_owned()).map(Entry::object)?;
        identify(syncer, &object, &self.tenant.bound().view).map(|_| object)
    }

    fn may(&self, verb: &str, resource: &Resource, subresource: &str) -> bool {
        self.access.allow(verb, resource, subresource)
    }

    fn now_unix(&self) -> i64 {
        self.now_unix
    }
}
