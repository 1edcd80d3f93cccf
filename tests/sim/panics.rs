//! A kind that panics over one object of one tenant, wherever the engine asks it: nobody else notices, nothing of that object
//! is lost or doubled meanwhile, and it is synced as soon as it can be.

use std::sync::Arc;

use parking_lot::Mutex;
use portico::kubernetes::Resource;
use portico::kubernetes::resources::PODS;
use portico::names::TenantId;
use portico::syncer::Catalog;
use portico::syncer::kind::{Direction, HostScope, Lookup, ObjectKey, Plan, Reference, ResourceSyncer, TenantView};
use portico::translate::summary::Summary;
use serde_json::{Value, json};

use super::kinds::{self, host_name};
use super::{DRIFT, World, run_paused, text};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    ProjectDown,
    ProjectUp,
    Summary,
    VirtualKey,
    HostName,
    References,
    Plan,
}

const ALL: [Asked; 7] = [
    Asked::ProjectDown,
    Asked::ProjectUp,
    Asked::Summary,
    Asked::VirtualKey,
    Asked::HostName,
    Asked::References,
    Asked::Plan,
];

/// The pods' kind, which panics over a pod named `bomb` when it is asked for what is set.
struct Panicking {
    inner: Arc<dyn ResourceSyncer>,
    over: Arc<Mutex<Option<Asked>>>,
}

impl Panicking {
    fn asked(&self, asked: Asked, name: &str) {
        let panics = name.contains("bomb") && *self.over.lock() == Some(asked);
        assert!(!panics, "as the test wants it");
    }
}

impl ResourceSyncer for Panicking {
    fn resource(&self) -> Resource {
        self.inner.resource()
    }

    fn host_scope(&self) -> HostScope {
        self.inner.host_scope()
    }

    fn project(&self, object: Value, side: Direction) -> Value {
        let asked = if side == Direction::Down { Asked::ProjectDown } else { Asked::ProjectUp };
        self.asked(asked, &text(&object, "name"));
        self.inner.project(object, side)
    }

    fn summary(&self, object: &Value) -> Option<Summary> {
        self.asked(Asked::Summary, &text(object, "name"));
        self.inner.summary(object)
    }

    fn virtual_key(&self, host: &Value, view: &TenantView) -> Option<ObjectKey> {
        self.asked(Asked::VirtualKey, &text(host, "name"));
        self.inner.virtual_key(host, view)
    }

    fn host_name(&self, key: &ObjectKey, view: &TenantView) -> Option<String> {
        self.asked(Asked::HostName, &key.name);
        self.inner.host_name(key, view)
    }

    fn references(&self, object: &Value) -> Vec<Reference> {
        self.asked(Asked::References, &text(object, "name"));
        self.inner.references(object)
    }

    fn plan(
        &self,
        key: &ObjectKey,
        virtual_object: Option<&Value>,
        host: Option<&Value>,
        view: &TenantView,
        lookup: &dyn Lookup,
    ) -> Plan {
        self.asked(Asked::Plan, &key.name);
        self.inner.plan(key, virtual_object, host, view, lookup)
    }
}

/// Creates a pod of every tenant.
pub(super) fn put(world: &World, name: &str) {
    for tenant in &world.tenants {
        let metadata = json!({"name": name, "namespace": "ns"});
        tenant.server.put("pods", json!({"metadata": metadata, "spec": {"config": "c1"}}));
    }
}

fn uid_on_host(world: &World, tenant: usize, name: &str) -> Option<String> {
    let view = &world.tenants[tenant].view;
    let key = ObjectKey { namespace: "ns".to_owned(), name: name.to_owned() };
    Some(text(&world.host.read("pods", view.namespace().as_str(), &host_name(&key, view))?, "uid"))
}

fn data_on_host(world: &World) -> Value {
    let view = &world.tenants[0].view;
    let key = ObjectKey { namespace: "ns".to_owned(), name: "c1".to_owned() };
    world.host.read("configmaps", view.namespace().as_str(), &host_name(&key, view)).expect("still used")["data"]
        .clone()
}

async fn one(asked: Asked, restarts: bool) {
    let over: Arc<Mutex<Option<Asked>>> = Arc::default();
    let kinds = kinds::catalog_with(|kind| {
        if kind.resource() != PODS {
            return kind;
        }
        Arc::new(Panicking { inner: kind, over: Arc::clone(&over) })
    });
    let mut world = World::quiet(Catalog::new(kinds));
    let who = format!("{asked:?}, restarted: {restarts}");
    for tenant in &world.tenants {
        tenant.server.put("configmaps", json!({"metadata": {"name": "c1", "namespace": "ns"}, "data": {"n": 1}}));
    }
    world.tenants[0]
        .server
        .put("pods", json!({"metadata": {"name": "bomb", "namespace": "ns"}, "spec": {"config": "c1"}}));
    tokio::time::sleep(DRIFT).await;
    let bomb = uid_on_host(&world, 0, "bomb").expect("on the host");

    *over.lock() = Some(asked);
    if restarts {
        world.running = None;
        world.start();
    }
    // Something new on both sides, and lists in which it stands.
    world.tenants[0].server.change("pods", "ns", "bomb", |pod| pod["metadata"]["labels"] = json!({"a": "b"}));
    for pod in world.host.objects("pods") {
        if text(&pod, "name").contains("bomb") {
            let (namespace, name) = (text(&pod, "namespace"), text(&pod, "name"));
            world.host.change("pods", &namespace, &name, |pod| pod["status"] = json!({"phase": "Running"}));
        }
    }
    put(&world, "later");
    tokio::time::sleep(DRIFT).await;
    for tenant in 0..world.tenants.len() {
        assert!(
            uid_on_host(&world, tenant, "later").is_some(),
            "{who}: tenant {tenant} waits for a panic of another object"
        );
    }
    world.host.compact();
    world.tenants[0].server.compact();
    tokio::time::sleep(DRIFT * 15).await;
    put(&world, "last");
    tokio::time::sleep(DRIFT).await;
    for tenant in 0..world.tenants.len() {
        assert!(uid_on_host(&world, tenant, "last").is_some(), "{who}: tenant {tenant} after fresh lists");
    }
    assert_eq!(uid_on_host(&world, 0, "bomb"), Some(bomb), "{who}: what runs was ended or made anew");
    assert_eq!(data_on_host(&world), json!({"n": 1}), "{who}");

    *over.lock() = None;
    world.tenants[0].server.change("pods", "ns", "bomb", |pod| pod["metadata"]["labels"] = json!({"a": "c"}));
    tokio::time::sleep(DRIFT * 15).await;
    let pod = world.tenants[0].server.read("pods", "ns", "bomb").expect("there");
    assert_eq!(pod["status"]["phase"], "Running", "{who}: synced again");
    let id = TenantId::parse("team-a", "one").expect("id");
    assert_eq!(world.tenants[0].view.id, id);
}

#[test]
fn a_panic_over_one_object_is_noticed_by_no_other() {
    for asked in ALL {
        for restarts in [false, true] {
            run_paused(Box::pin(one(asked, restarts)));
        }
    }
}
