//! The host as far as tenants come from it, simulated: for tests of whoever follows VirtualClusters.

use std::sync::Arc;

use serde_json::Value;

use crate::error::Side;
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::testing::{Faults, Server};
use crate::names::TenantId;

const CLUSTERS: &str = "virtualclusters";

/// VirtualClusters, each with the same PKI in a Secret of its own. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FakeHost {
    pub(crate) server: Server,
    faults: Arc<Faults>,
    secret: Value,
}

impl FakeHost {
    /// `secret` is every tenant's PKI. All goes well until there is trouble.
    pub(crate) fn new(seed: u64, secret: Value) -> Self {
        let faults = Faults::new(seed);
        faults.stop();
        Self { server: Server::new("host", Side::Host, Arc::clone(&faults)), faults, secret }
    }

    pub(crate) fn cluster(&self) -> SharedCluster {
        Arc::new(self.server.clone())
    }

    pub(crate) fn apply(&self, object: Value) {
        let id = TenantId::of(&object).expect("id");
        let mut secret = self.secret.clone();
        if !secret.is_null() {
            let name = format!("{}-pki", id.name());
            secret["metadata"] = serde_json::json!({"namespace": id.namespace().as_str(), "name": name});
            self.server.put("secrets", secret);
        }
        self.server.put(CLUSTERS, object);
    }

    pub(crate) fn edit(&self, id: &TenantId, change: impl FnOnce(&mut Value)) {
        self.server.change(CLUSTERS, id.namespace().as_str(), id.name().as_str(), change);
    }

    pub(crate) fn delete(&self, id: &TenantId) {
        self.server.delete_gracefully(CLUSTERS, id.namespace().as_str(), id.name().as_str(), None);
    }

    pub(crate) fn all(&self) -> Vec<Value> {
        self.server.objects(CLUSTERS)
    }

    /// Whether calls fail, hang, panic or come late, and events get lost or come twice, by chance.
    pub(crate) fn trouble(&self, on: bool) {
        self.faults.go_on(on);
        self.faults.panics(on);
    }
}
