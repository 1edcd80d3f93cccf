//! What stands on host objects that vcluster may have made, over mutations of what it writes: labels and annotations are
//! anybody's who may write there, and tenants' own stand among them.

use serde_json::{Value, json};

use super::super::View;
use super::super::testing::{old_vcluster, stateful_set, view as shared_view};
use super::labels::MANAGED_BY;
use super::{Around, Key, Verdict, by_old_name, identity, is_also_used, judge, old_name, waits_for_old_labels};
use crate::runtime::fuzz;
use crate::translate::json as read;

fn view() -> View {
    View { owner: Some(stateful_set()), ..shared_view() }
}

/// One of each kind, with the virtual object that it was made for.
fn seeds() -> Vec<Value> {
    let old = old_vcluster();
    let metadata = json!({"name": "web", "namespace": "default", "uid": "u1", "labels": {"app": "web"}, "annotations": {"note": "n"}});
    let read_label = json!({"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}});
    let pod = json!({"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "i", "env": [read_label]}]}});
    let service = json!({"metadata": metadata, "spec": {"clusterIP": "10.96.1.1", "selector": {"app": "web"}, "ports": [{"port": 1}]}});
    let endpoints =
        json!({"metadata": metadata, "subsets": [{"addresses": [{"ip": "10.1.1.1"}], "ports": [{"port": 1}]}]});
    let secret = json!({"metadata": metadata, "type": "Opaque", "data": {"a": "Yg=="}});
    let backend = json!({"service": {"name": "web", "port": {"number": 1}}});
    let rules = json!([{"host": "a.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]);
    let ingress = json!({"metadata": metadata, "spec": {"rules": rules}});
    let of = |kind: &str, object: &Value, host: Value| json!({"kind": kind, "host": host, "living": [object, service]});
    vec![
        of("Pod", &pod, old.pod(&pod, "token")),
        of("Service", &service, old.service(&service)),
        of("Endpoints", &endpoints, old.endpoints(&endpoints)),
        of("Secret", &secret, old.secret(&secret)),
        of("PersistentVolumeClaim", &secret, old.copy(&secret)),
        of("Ingress", &ingress, old.ingress(&ingress)),
    ]
}

/// It names the object that was judged, and changes nothing but its metadata.
fn check(patch: &Value, host: &Value) {
    let Some(parts) = patch.as_object() else { panic!("{patch}") };
    assert!(parts.keys().eq(["metadata"]), "{patch}");
    assert_eq!(patch["metadata"]["uid"], read::uid(host), "{patch}");
    for field in ["name", "namespace", "finalizers", "deletionTimestamp"] {
        assert!(patch["metadata"].get(field).is_none(), "{patch}");
    }
}

#[test]
fn adoptions() {
    let view = view();
    let leads_to = |key: &Key, host: &Value| old_name(&key.0, &key.1, &view).as_deref() == Some(read::name(host));
    fuzz::json("adoptions", &seeds(), |input| {
        let (kind, host) = (read::text(input, "/kind"), &input["host"]);
        let living = input["living"].as_array().cloned().unwrap_or_default();
        let by_name = by_old_name(&living, &view);
        let candidates = by_name.get(read::name(host)).cloned().unwrap_or_default();
        let around = Around { services: &living, keep_labels: waits_for_old_labels(host) };
        let verdict = judge(kind, host, &candidates, around, &view);
        let is_used = is_also_used(host, "Secret", "token");
        match &verdict {
            Verdict::Adopt { key, patch } => {
                assert!(leads_to(key, host), "{key:?} for {host}");
                assert!(candidates.iter().any(|one| (read::namespace(one), read::name(one)) == (&*key.0, &*key.1)));
                check(patch, host);
            }
            Verdict::LeftOver { key, patch } => {
                assert!(leads_to(key, host), "{key:?} for {host}");
                check(patch, host);
            }
            Verdict::Release { patch } => check(patch, host),
            Verdict::Leave { .. } => {}
        }
        let is_marked = identity::label(host, MANAGED_BY) == view.cluster().as_str();
        assert!(is_marked || matches!(verdict, Verdict::Leave { .. }), "it is another cluster's: {host}");
        (kind.to_owned(), std::mem::discriminant(&verdict), is_used)
    });
}
