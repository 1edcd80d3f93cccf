//! The simulated host, in the operator's tests' words, and backends that answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::BoxFuture;
use http::HeaderMap;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::error::{Result, Side};
use crate::kubernetes::Resource;
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::resources::SERVICE_CIDRS;
use crate::kubernetes::testing::{Faults, Server};
use crate::names::TenantId;
use crate::operator::backends::{Backends, Fill};
use crate::operator::host::Host;
use crate::upstream::Target;

pub(super) struct FakeHost(pub(super) Server);

/// Backends that answer.
#[derive(Default)]
pub(super) struct Answers {
    /// How full each store is; without it no backend says so.
    pub(super) fill: Mutex<Option<Result<Fill>>>,
    /// How often that was asked for.
    pub(super) asked: AtomicUsize,
    /// Ports of control planes that greet.
    pub(super) open: Mutex<Vec<u16>>,
    /// Ports that were tried.
    pub(super) tried: Mutex<Vec<u16>>,
    /// What is inside, by uid.
    tenants: Mutex<HashMap<String, Server>>,
    /// Whether those that are made from now on take time to answer.
    pub(super) slow: AtomicBool,
}

impl Answers {
    /// The API server of this cluster.
    pub(super) fn tenant(&self, id: &TenantId, uid: &str) -> Server {
        let mut tenants = self.tenants.lock();
        let new = || {
            let faults = if self.slow.load(Ordering::Relaxed) { Faults::new(0) } else { Faults::none() };
            faults.stop();
            Server::new(&format!("of-{id}"), Side::Backend, faults)
        };
        tenants.entry(uid.to_owned()).or_insert_with(new).clone()
    }
}

impl Backends for Answers {
    fn version<'a>(&'a self, _: Target, _: HeaderMap) -> BoxFuture<'a, Result<String>> {
        Box::pin(async { Ok("v1.34.4".to_owned()) })
    }

    fn fill<'a>(&'a self, _: &'a TenantId, _: &'a str) -> BoxFuture<'a, Result<Option<Fill>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { self.fill.lock().take().transpose() })
    }

    fn inside(&self, id: &TenantId, uid: &str) -> Result<SharedCluster> {
        Ok(Arc::new(self.tenant(id, uid)))
    }

    fn greets(&self, address: SocketAddr) -> BoxFuture<'_, bool> {
        self.tried.lock().push(address.port());
        Box::pin(async move { self.open.lock().contains(&address.port()) })
    }
}

impl Default for FakeHost {
    fn default() -> Self {
        Self::over(Faults::none())
    }
}

impl FakeHost {
    /// One whose answers take time, so that others come between.
    pub(super) fn slow() -> Self {
        let faults = Faults::new(1);
        faults.stop();
        Self::over(faults)
    }

    fn over(faults: Arc<Faults>) -> Self {
        let server = Server::new("host", Side::Host, faults);
        server.allocates_addresses();
        server.put("servicecidrs", json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}));
        Self(server)
    }

    pub(super) fn host(&self) -> Host {
        Host::new(Arc::new(self.0.clone()))
    }

    /// Puts an object in, as somebody else would.
    pub(super) fn put(&self, resource: &Resource, namespace: &str, mut object: Value) {
        object["metadata"]["namespace"] = namespace.into();
        self.0.put(resource.plural, object);
    }

    pub(super) fn find(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
        self.0.read(resource.plural, namespace, name)
    }

    pub(super) fn all(&self, resource: &Resource) -> Vec<Value> {
        self.0.objects(resource.plural)
    }

    pub(super) fn edit(&self, resource: &Resource, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        assert!(self.find(resource, namespace, name).is_some(), "there");
        self.0.change(resource.plural, namespace, name, change);
    }

    pub(super) fn remove(&self, resource: &Resource, namespace: &str, name: &str) {
        assert!(self.find(resource, namespace, name).is_some(), "there");
        self.0.delete_gracefully(resource.plural, namespace, name, Some(0));
    }

    /// Calls so far that would change something, whether they did or not.
    pub(super) fn writes(&self) -> usize {
        self.0.counts().writes
    }

    /// No rights in this namespace, but for VirtualClusters.
    pub(super) fn forbid(&self, namespace: &str) {
        self.0.forbid(Some(namespace), None);
    }

    /// No rights on this kind, whose plural is named.
    pub(super) fn forbid_kind(&self, plural: &'static str) {
        self.0.forbid(None, Some(plural));
    }

    /// An API server before 1.33.
    pub(super) fn without_service_cidrs(&self) {
        self.remove(&SERVICE_CIDRS, "", "kubernetes");
    }
}
