//! What plans may look up beside their own object: the caches of one tenant, read only.
//!
//! Promises: one object is parsed for one question; whatever asks for many gets keys or summaries, and parses nothing.

use std::sync::Arc;

use serde_json::Value;

use crate::kubernetes::Resource;
use crate::kubernetes::rights::Access;
use crate::syncer::cache::Entry;
use crate::syncer::catalog::Catalog;
use crate::syncer::kind::{HostScope, Lookup, ObjectKey};
use crate::syncer::queue::Item;
use crate::syncer::tenant::{TenantState, identify};
use crate::translate::summary::{Exposure, NamespaceSummary, ServiceSummary, Summary};

/// One tenant's caches. Bodies of kinds that are fetched on demand are not in them.
pub struct Caches<'a> {
    /// The kinds that are synced, by index.
    pub catalog: &'a Catalog,
    /// The tenant whose objects are looked up.
    pub tenant: &'a TenantState,
    /// What may be done on the host.
    pub access: &'a Access,
    /// Seconds since 1970.
    pub now_unix: i64,
}

impl Caches<'_> {
    /// Something of each entry of a kind in a namespace (cluster-scoped kinds: in ""), without a parse.
    fn in_namespace<T>(&self, kind: &str, namespace: &str, pick: impl Fn(&ObjectKey, &Entry) -> Option<T>) -> Vec<T> {
        let Some(kind) = self.catalog.index(kind) else { return Vec::new() };
        let objects = self.tenant.kind(kind).objects.read();
        let first = ObjectKey { namespace: namespace.to_owned(), name: String::new() };
        let range = objects.range_from(first).take_while(|(key, _)| key.namespace == namespace);
        range.filter_map(|(key, entry)| pick(key, entry)).collect()
    }
}

fn service(entry: &Entry) -> Option<Arc<ServiceSummary>> {
    match entry.summary()? {
        Summary::Service(service) => Some(Arc::clone(service)),
        Summary::Namespace(_) => None,
    }
}

impl Lookup for Caches<'_> {
    fn virtual_object(&self, kind: &str, key: &ObjectKey) -> Option<Value> {
        let kind = self.tenant.kind(self.catalog.index(kind)?);
        kind.objects.read().get(key).filter(|entry| !entry.is_cut()).map(Entry::object)
    }

    fn virtual_keys(&self, kind: &str, namespace: &str) -> Vec<ObjectKey> {
        self.in_namespace(kind, namespace, |key, _| Some(key.clone()))
    }

    fn namespaces(&self) -> Vec<Arc<NamespaceSummary>> {
        self.in_namespace("Namespace", "", |_, entry| match entry.summary()? {
            Summary::Namespace(namespace) => Some(Arc::clone(namespace)),
            Summary::Service(_) => None,
        })
    }

    fn services(&self, namespace: &str) -> Vec<Arc<ServiceSummary>> {
        self.in_namespace("Service", namespace, |_, entry| service(entry))
    }

    fn service(&self, key: &ObjectKey) -> Option<Arc<ServiceSummary>> {
        self.tenant.kind(self.catalog.index("Service")?).objects.read().get(key).and_then(service)
    }

    fn exposed(&self, except: &ObjectKey) -> Exposure {
        let own = self.catalog.index("Service").and_then(|kind| self.tenant.host_name(kind, except));
        self.tenant.exposed.but(own.as_deref())
    }

    fn copies(&self, kind: &str) -> usize {
        self.catalog.index(kind).map_or(0, |kind| self.tenant.copy_count(kind))
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

    fn is_referenced(&self, kind: &str, key: &ObjectKey) -> bool {
        self.catalog.index(kind).is_some_and(|kind| self.tenant.is_referenced(&Item { kind, key: key.clone() }))
    }

    fn referrers(&self, kind: &str, key: &ObjectKey, by: &str, most: usize) -> Vec<ObjectKey> {
        let (Some(kind), Some(by)) = (self.catalog.index(kind), self.catalog.index(by)) else { return Vec::new() };
        let found = self.tenant.referrers_of(&Item { kind, key: key.clone() }, by, most);
        found.into_iter().map(|item| item.key).collect()
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

#[cfg(test)]
mod tests;
