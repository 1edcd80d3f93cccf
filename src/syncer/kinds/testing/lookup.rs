//! What plans may look up in the tiny world.

use std::sync::Arc;

use serde_json::Value;

use super::World;
use crate::syncer::kind::{Lookup, ObjectKey};
use crate::translate::identity;
use crate::translate::summary::{Exposure, NamespaceSummary, ServiceSummary};

impl Lookup for World {
    fn virtual_object(&self, kind: &str, key: &ObjectKey) -> Option<Value> {
        self.virtual_objects.get(&(kind.to_owned(), key.clone())).cloned()
    }

    fn virtual_keys(&self, kind: &str, namespace: &str) -> Vec<ObjectKey> {
        self.virtual_objects(kind, namespace).iter().map(super::super::identity::key_of).collect()
    }

    fn namespaces(&self) -> Vec<Arc<NamespaceSummary>> {
        self.virtual_objects("Namespace", "").iter().map(|o| Arc::new(NamespaceSummary::of(o))).collect()
    }

    fn services(&self, namespace: &str) -> Vec<Arc<ServiceSummary>> {
        self.virtual_objects("Service", namespace).iter().map(|o| Arc::new(ServiceSummary::of(o))).collect()
    }

    fn service(&self, key: &ObjectKey) -> Option<Arc<ServiceSummary>> {
        self.virtual_object("Service", key).map(|o| Arc::new(ServiceSummary::of(&o)))
    }

    fn exposed(&self, except: &ObjectKey) -> Exposure {
        let own = self.host_object("Service", except);
        let all = self.host_objects.iter().filter(|((kind, _), _)| kind == "Service").map(|(_, service)| service);
        let others = all.filter(|service| Some(*service) != own.as_ref());
        others.map(Exposure::of).fold(Exposure::default(), Exposure::and)
    }

    fn copies(&self, kind: &str) -> usize {
        self.host_objects.keys().filter(|(of, _)| of == kind).count()
    }

    fn host_object(&self, kind: &str, key: &ObjectKey) -> Option<Value> {
        let recorded = |o: &Value| {
            identity::annotation(o, "portico.dev/object-name") == key.name
                && identity::annotation(o, "portico.dev/object-namespace") == key.namespace
        };
        self.host_objects.iter().find(|((k, _), o)| k == kind && recorded(o)).map(|(_, o)| o.clone())
    }

    fn host_cluster_object(&self, kind: &str, name: &str) -> Option<Value> {
        self.host(kind, name)
    }

    fn is_referenced(&self, kind: &str, key: &ObjectKey) -> bool {
        self.referrers.contains_key(&(kind.to_owned(), key.clone()))
    }

    fn referrers(&self, kind: &str, key: &ObjectKey, by: &str, most: usize) -> Vec<ObjectKey> {
        let found = self.referrers.get(&(kind.to_owned(), key.clone())).into_iter().flatten();
        found.filter(|(kind, _)| *kind == by).map(|(_, key)| key.clone()).take(most).collect()
    }

    fn host_object_named(&self, kind: &str, name: &str) -> Option<Value> {
        self.host(kind, name)
    }

    fn now_unix(&self) -> i64 {
        self.now
    }
}
