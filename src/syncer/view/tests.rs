//! How often a plan makes whole objects of what is cached.

use serde_json::json;

use super::*;
use crate::config::SyncerConfig;
use crate::crd::OnLoss;
use crate::error::Side;
use crate::kubernetes::testing::{Faults, Server};
use crate::syncer::budget::Budget;
use crate::syncer::cache::PARSES;
use crate::syncer::incoming::{Origin, pack_virtual};
use crate::syncer::kind::Action;
use crate::syncer::kinds::{self, Switches};
use crate::syncer::tenant::Member;
use crate::translate::testing::view;

/// An API server that nobody asks anything.
fn nobody() -> Server {
    Server::new("nobody", Side::Backend, Faults::new(0))
}

fn absorb(catalog: &Catalog, tenant: &TenantState, kind: &str, object: Value) {
    let kind = catalog.index(kind).expect("known");
    tenant.absorb(kind, pack_virtual(catalog, kind, object), Origin::Watch);
}

#[test]
fn a_pods_plan_parses_no_namespace_and_no_service() {
    let catalog = Catalog::new(kinds::all(&Switches::default()));
    let member = Member {
        view: view(),
        api: Arc::new(nobody()),
        fingerprint: String::new(),
        adopts: false,
        on_loss: OnLoss::Hold,
        limits: crate::crd::Limits::default(),
        metrics_at_gateway: false,
    };
    let hosts = catalog.iter().map(|_| None).collect();
    let tenant =
        TenantState::new(1, member, &catalog, hosts, Budget::new(&SyncerConfig::default()).share(Arc::default()));
    for n in 0..200 {
        let metadata = |namespace: &str| json!({"name": format!("n-{n:03}"), "namespace": namespace, "uid": "u", "labels": {"team": "b"}});
        absorb(&catalog, &tenant, "Namespace", json!({"metadata": metadata("")}));
        for namespace in ["default", "other"] {
            let spec = json!({"clusterIP": "10.0.0.1", "ports": [{"port": 1}]});
            absorb(&catalog, &tenant, "Service", json!({"metadata": metadata(namespace), "spec": spec}));
        }
    }
    let pod = json!({"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": {
        "containers": [{"name": "c", "image": "i"}],
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "t", "labelSelector": {}, "namespaceSelector": {"matchLabels": {"team": "b"}}}]}}}});
    let access = Access::granted();
    let caches = Caches { catalog: &catalog, tenant: &tenant, access: &access, now_unix: 0 };
    let key = ObjectKey { namespace: "default".to_owned(), name: "p".to_owned() };
    let kind = catalog.kind(catalog.index("Pod").expect("known"));
    let before = PARSES.with(std::cell::Cell::get);
    let plan = kind.plan(&key, Some(&pod), None, &tenant.bound().view, &caches);
    assert_eq!(PARSES.with(std::cell::Cell::get), before, "objects made of the cache");
    let [Action::CreateHost { object, .. }] = plan.actions.as_slice() else { panic!("{plan:?}") };
    let text = object.to_string();
    assert!(text.contains("N_199_SERVICE_HOST") && text.contains("\"n-199\""), "all of it is known all the same");
    let count = |kind: &str, namespace: &str| caches.virtual_keys(kind, namespace).len();
    assert_eq!((count("Service", "default"), count("Service", "none"), count("Namespace", "")), (200, 0, 200));
    assert!(caches.service(&ObjectKey { namespace: "other".to_owned(), name: "n-001".to_owned() }).is_some());
}
