//! Old objects as `tests/support/vcluster.rs` makes them, judged.

use proptest::prelude::*;

use super::super::testing::{hostile, old_vcluster, poisoned, stateful_set, view as shared_view};
use super::labels::{SHOWN_LABELS, label_key};
use super::vcluster::Vcluster;
use super::*;

const HASHED_APP: &str = "vcluster.loft.sh/label-vc1-x-a172cedcae";

/// As the sidecar sees its tenant.
fn view() -> View {
    let mut view = shared_view();
    view.owner = Some(stateful_set());
    view
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1", "labels": {"app": "web", "tier": "front"},
            "annotations": {"note": "n"}, "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "uid": "r"}]},
        "spec": {
            "serviceAccountName": "builder", "nodeName": "node-1",
            "containers": [{"name": "c", "image": "nginx:1", "env": [
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "k"}}},
            ]}],
            "volumes": [
                {"name": "token", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt"}}]}},
                {"name": "info", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            ],
        },
    })
}

/// As the host's API server holds it.
fn on_host(mut object: Value) -> Value {
    object["metadata"]["uid"] = json!("host-uid");
    object["metadata"]["resourceVersion"] = json!("7");
    object
}

fn old_pod(pod: &Value) -> Value {
    on_host(old_vcluster().pod(pod, "builder-token-abcde"))
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().expect("object").remove(key);
        } else {
            merge(&mut object[key], value);
        }
    }
}

fn judged(kind: &str, host: &Value, living: &[Value]) -> Verdict {
    let by_name = by_old_name(living, &view());
    let candidates = by_name.get(json::name(host)).cloned().unwrap_or_default();
    judge(kind, host, &candidates, Around::default(), &view())
}

/// The host object after its adoption.
fn adopted(kind: &str, host: &Value, living: &[Value]) -> Value {
    let Verdict::Adopt { patch, .. } = judged(kind, host, living) else {
        panic!("{:?}", judged(kind, host, living));
    };
    patched(host, &patch)
}

fn patched(host: &Value, patch: &Value) -> Value {
    assert_eq!(patch["metadata"]["uid"], "host-uid", "names the object that it is for");
    assert_eq!(patch.as_object().expect("patch").len(), 1, "changes metadata only");
    let mut host = host.clone();
    merge(&mut host, patch);
    host
}

fn is_left(kind: &str, host: &Value, living: &[Value]) -> bool {
    matches!(judged(kind, host, living), Verdict::Leave { .. })
}

#[test]
fn an_adopted_pod_is_as_portico_would_have_it_and_reads_what_it_read() {
    let host = old_pod(&pod());
    let now = adopted("Pod", &host, &[pod()]);
    assert_eq!(identity::virtual_key("Pod", &now, &view(), Limit::Subdomain), Some(("default".into(), "web".into())));
    assert_eq!(identity::recorded_uid(&now), "u1");
    assert_eq!(pod::update::update(&pod(), &now, &view()).patch, None, "nothing is left to write");
    assert_eq!(pod::update::resize(&pod(), &now, &view()), None);
    assert_eq!(now["spec"], host["spec"]);
    assert_eq!(now["metadata"]["ownerReferences"], host["metadata"]["ownerReferences"]);
    let labels = now["metadata"]["labels"].as_object().expect("labels");
    let old_ones: Vec<&String> = labels.keys().filter(|key| key.starts_with(PREFIX)).collect();
    assert_eq!(old_ones, [HASHED_APP], "what the container reads stays, the rest goes");
    assert_eq!((&labels["app"], &labels["tier"]), (&json!("web"), &json!("front")));
    for key in ["name", "namespace", "uid", "labels", "service-account-name"] {
        let key = format!("{PREFIX}{key}");
        assert_eq!(identity::annotation(&now, &key), identity::annotation(&host, &key), "{key}");
    }
    assert_eq!(identity::annotation(&now, ALSO_USES), "Secret/builder-token-abcde-x-default-x-vc1");
    assert!(is_also_used(&now, "Secret", "builder-token-abcde-x-default-x-vc1"));
    assert!(!is_also_used(&now, "ConfigMap", "builder-token-abcde-x-default-x-vc1"));
}

#[test]
fn later_label_changes_reach_what_an_adopted_pod_reads() {
    let mut now = adopted("Pod", &old_pod(&pod()), &[pod()]);
    let mut changed = pod();
    changed["metadata"]["labels"] = json!({"app": "web2", "new": "x"});
    let update = pod::update::update(&changed, &now, &view()).patch.expect("differs");
    merge(&mut now, &update);
    assert_eq!(now["metadata"]["labels"][HASHED_APP], "web2");
    assert_eq!(identity::annotation(&now, SHOWN_LABELS), "app=\"web2\"\nnew=\"x\"");
    assert!(now["metadata"]["labels"].get("tier").is_none());
    assert_eq!(pod::update::update(&changed, &now, &view()).patch, None);
    changed["metadata"]["labels"] = json!({});
    let update = pod::update::update(&changed, &now, &view()).patch.expect("differs");
    merge(&mut now, &update);
    assert!(now["metadata"]["labels"].get(HASHED_APP).is_none());
    assert_eq!(pod::update::update(&changed, &now, &view()).patch, None);
}

#[test]
fn a_change_that_nobody_synced_is_still_written() {
    let host = old_pod(&pod());
    let mut changed = pod();
    changed["spec"]["containers"][0]["image"] = json!("nginx:2");
    let now = adopted("Pod", &host, std::slice::from_ref(&changed));
    let update = pod::update::update(&changed, &now, &view()).patch.expect("differs");
    assert_eq!(update["spec"], json!({"containers": [{"name": "c", "image": "nginx:2"}]}));
}

#[test]
fn pods_of_namesakes_and_of_nobody_are_left_over() {
    let host = old_pod(&pod());
    let mut again = pod();
    again["metadata"]["uid"] = json!("u2");
    for living in [vec![again], vec![]] {
        let Verdict::LeftOver { key, patch } = judged("Pod", &host, &living) else { panic!("{living:?}") };
        assert_eq!(key, ("default".to_owned(), "web".to_owned()));
        let now = patched(&host, &patch);
        assert_eq!(identity::virtual_key("Pod", &now, &view(), Limit::Subdomain), Some(key));
        assert_eq!(identity::recorded_uid(&now), "u1");
        assert!(now["metadata"]["labels"].get("app").is_none(), "no Service selects it any more");
    }
    // Old records that lead elsewhere say nothing; the label and the name still do.
    let mut spoofed = host;
    spoofed["metadata"]["annotations"]["vcluster.loft.sh/name"] = json!("other");
    assert!(matches!(judged("Pod", &spoofed, &[]), Verdict::LeftOver { key, .. } if key.1 == "web"));
    spoofed["metadata"]["labels"][NAMESPACE] = json!("elsewhere-x-vc1");
    assert!(is_left("Pod", &spoofed, &[]));
    assert!(is_left("Pod", &spoofed, &[pod()]), "a label that does not fit is no match");
}

#[test]
fn a_tenants_own_annotations_and_label_stood_before_the_recorded_ones() {
    let mut own = pod();
    own["metadata"]["annotations"]["vcluster.loft.sh/uid"] = json!("mine");
    own["metadata"]["labels"][NAMESPACE] = json!("mine");
    let host = old_pod(&own);
    assert_eq!(identity::annotation(&host, "vcluster.loft.sh/uid"), "mine");
    let now = adopted("Pod", &host, std::slice::from_ref(&own));
    assert_eq!(identity::recorded_uid(&now), "u1");
    let moved = "vcluster.loft.sh.tenant.portico.dev/namespace";
    assert_eq!(now["metadata"]["labels"][moved], "mine", "it is the tenant's own label");
    assert_eq!(pod::update::update(&own, &now, &view()).patch, None);
}

#[test]
fn of_two_objects_with_one_name_the_label_decides() {
    let object = |name: &str, namespace: &str, uid: &str| json!({"metadata": {"name": name, "namespace": namespace, "uid": uid}, "data": {"of": uid}});
    let (one, two) = (object("a-x-b", "c", "u1"), object("a", "b-x-c", "u2"));
    for (of, uid) in [(&one, "u1"), (&two, "u2")] {
        let host = on_host(old_vcluster().copy(of));
        assert_eq!(json::name(&host), "a-x-b-x-c-x-vc1");
        let now = adopted("ConfigMap", &host, &[one.clone(), two.clone()]);
        assert_eq!(identity::recorded_uid(&now), uid);
    }
    let host = on_host(old_vcluster().copy(&one));
    assert!(
        matches!(judged("ConfigMap", &host, &[two]), Verdict::LeftOver { key, .. } if key == ("c".into(), "a-x-b".into()))
    );
}

#[test]
fn labels_of_newer_releases_fit_too() {
    let object = json!({"metadata": {"name": "c", "namespace": "default", "uid": "u1"}});
    let mut host = on_host(old_vcluster().copy(&object));
    host["metadata"]["labels"][NAMESPACE] = json!("default");
    host["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Service", "name": "vc1", "uid": "svc"}]);
    let now = adopted("ConfigMap", &host, &[object]);
    assert_eq!(now["metadata"]["ownerReferences"][0]["uid"], "sts-uid", "owners of the former form go");
    assert!(matches!(judged("ConfigMap", &host, &[]), Verdict::LeftOver { .. }));
}

#[test]
fn what_belongs_to_others_is_not_touched() {
    let object = json!({"metadata": {"name": "c", "namespace": "default", "uid": "u1"}});
    let host = on_host(old_vcluster().copy(&object));
    let mut other = host.clone();
    other["metadata"]["labels"][MANAGED_BY] = json!("vc2");
    assert!(is_left("ConfigMap", &other, std::slice::from_ref(&object)));
    let mut owned = host.clone();
    owned["metadata"]["ownerReferences"][0] = json!({"kind": "StatefulSet", "name": "vc2", "uid": "other"});
    assert!(is_left("ConfigMap", &owned, std::slice::from_ref(&object)));
    let mut elsewhere = host.clone();
    elsewhere["metadata"]["namespace"] = json!("team-b");
    assert!(is_left("ConfigMap", &elsewhere, std::slice::from_ref(&object)));
    let mut renamed = host;
    renamed["metadata"]["name"] = json!("somebodys");
    assert!(is_left("ConfigMap", &renamed, &[object]));
}

#[test]
fn long_names_are_kept_and_known_again() {
    let name = "a-very-long-statefulset-name-for-testing-purposes-0";
    let object = json!({"metadata": {"name": name, "namespace": "production", "uid": "u1"}});
    let host = on_host(old_vcluster().copy(&object));
    let now = adopted("PersistentVolumeClaim", &host, std::slice::from_ref(&object));
    let key = Some(("production".to_owned(), name.to_owned()));
    assert_eq!(identity::virtual_key("PersistentVolumeClaim", &now, &view(), Limit::Subdomain), key);
    assert!(is_left("ConfigMap", &host, &[]), "whose it was cannot be told from a cut name");
    let pod = json!({"metadata": object["metadata"], "spec": {"containers": []}});
    assert!(matches!(judged("Pod", &old_pod(&pod), &[]), Verdict::LeftOver { .. }), "a pod records it");
}

#[test]
fn endpoints_of_services_with_selectors_are_the_hosts() {
    let endpoints = json!({"metadata": {"name": "web", "namespace": "default", "uid": "u1", "labels": {"app": "web"}},
        "subsets": [{"addresses": [{"ip": "10.1.1.1", "targetRef": {"kind": "Pod", "name": "web", "namespace": "default"}}]}]});
    let host = on_host(old_vcluster().endpoints(&endpoints));
    let service =
        |selector: Value| json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"selector": selector}});
    let judged = |services: &[Value], living: &[&Value]| {
        judge("Endpoints", &host, living, Around { services, keep_labels: false }, &view())
    };
    for living in [vec![&endpoints], vec![]] {
        let Verdict::Release { patch } = judged(&[service(json!({"app": "web"}))], &living) else {
            panic!("{living:?}")
        };
        let now = patched(&host, &patch);
        assert_eq!(now["metadata"]["labels"], json!({}));
        assert_eq!(now["subsets"], host["subsets"]);
    }
    assert!(matches!(judged(&[service(json!(null))], &[&endpoints]), Verdict::Adopt { .. }));
    assert!(matches!(judged(&[], &[]), Verdict::LeftOver { .. }));
}

#[test]
fn what_the_ordinary_way_would_remove_or_could_not_change_stays_as_it_is() {
    let claim = |volume: &str| json!({"metadata": {"name": "data", "namespace": "default", "uid": "u1"}, "spec": {"volumeName": volume}});
    let host = on_host(old_vcluster().copy(&claim("pv-1")));
    assert!(matches!(judged("PersistentVolumeClaim", &host, &[claim("pv-1")]), Verdict::Adopt { .. }));
    let aliased = |verdict: Verdict| matches!(verdict, Verdict::Leave { key: Some(_), .. });
    assert!(aliased(judged("PersistentVolumeClaim", &host, &[claim("pv-2")])));
    assert!(is_left("PersistentVolumeClaim", &host, &[]), "data is never given to the clean-up");

    let secret = |kind: &str| json!({"metadata": {"name": "s", "namespace": "default", "uid": "u1"}, "type": kind});
    let host = on_host(old_vcluster().secret(&secret("kubernetes.io/service-account-token")));
    assert!(matches!(judged("Secret", &host, &[secret("kubernetes.io/service-account-token")]), Verdict::Adopt { .. }));
    assert!(aliased(judged("Secret", &host, &[secret("kubernetes.io/tls")])));
    let token = secret("bootstrap.kubernetes.io/token");
    assert!(aliased(judged("Secret", &on_host(old_vcluster().secret(&token)), &[token])));

    let ingress = |annotations: Value| json!({"metadata": {"name": "i", "namespace": "default", "uid": "u1", "annotations": annotations}, "spec": {}});
    let fine = ingress(json!({}));
    let now = adopted("Ingress", &on_host(old_vcluster().ingress(&fine)), &[fine]);
    assert_eq!(identity::annotation(&now, keys::OBJECT_KIND), "networking.k8s.io/Ingress");
    let refused = ingress(json!({"nginx.ingress.kubernetes.io/server-snippet": "x"}));
    assert!(aliased(judged("Ingress", &on_host(old_vcluster().ingress(&refused)), &[refused])));
}

#[test]
fn a_service_keeps_the_address_that_the_host_gave_it() {
    let service = |ip: &str| {
        json!({"metadata": {"name": "web", "namespace": "default", "uid": "u1", "labels": {"app": "web"}},
            "spec": {"clusterIP": ip, "selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP"}]}})
    };
    let host = on_host(old_vcluster().service(&service("10.96.1.1")));
    assert!(host["spec"].get("selector").is_none());
    let now = adopted("Service", &host, &[service("10.96.1.1")]);
    assert_eq!(identity::annotation(&now, service::REFUSED), "");
    assert_eq!(now["metadata"]["labels"]["app"], "web");
    let now = adopted("Service", &host, &[service("10.96.2.2")]);
    assert_eq!(identity::annotation(&now, service::REFUSED), service::addresses(&service("10.96.2.2")));
}

#[test]
fn labels_stay_while_a_pod_that_waits_selects_by_them() {
    let mut waiting = pod();
    waiting["spec"].as_object_mut().expect("spec").remove("nodeName");
    waiting["spec"]["affinity"] = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"tier": "front"}}}]}});
    assert!(waits_for_old_labels(&old_pod(&waiting)));
    assert!(!waits_for_old_labels(&old_pod(&pod())));
    let host = old_pod(&pod());
    let around = Around { services: &[], keep_labels: true };
    let Verdict::Adopt { patch, .. } = judge("Pod", &host, &[&pod()], around, &view()) else { panic!() };
    let now = patched(&host, &patch);
    for key in host["metadata"]["labels"].as_object().expect("labels").keys() {
        assert_eq!(now["metadata"]["labels"][key], host["metadata"]["labels"][key], "{key}");
    }
    assert_eq!(pod::update::update(&pod(), &now, &view()).patch, None);
}

/// As a 1.34 API server recorded it when a ConfigMap was made with field manager `vcluster`.
#[test]
fn an_apply_may_take_away_what_the_former_writer_set() {
    let object = json!({"metadata": {"name": "c", "namespace": "default", "uid": "u1"}});
    let mut host = on_host(old_vcluster().copy(&object));
    let theirs = json!({"manager": "vcluster", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "time": "2026-01-01T00:00:00Z", "fieldsV1": {
            "f:data": {".": {}, "f:a": {}, "f:b": {}}, "f:immutable": {},
            "f:metadata": {"f:annotations": {".": {}, "f:note": {}}, "f:labels": {".": {}, "f:vcluster.loft.sh/managed-by": {}}}}});
    let also = json!({"manager": "vcluster", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:c": {}}}});
    let status =
        json!({"manager": "vcluster", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}});
    let person = json!({"manager": "kubectl-edit", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:d": {}}}});
    host["metadata"]["managedFields"] = json!([theirs, also, status, person]);
    let Verdict::Adopt { patch, .. } = judged("ConfigMap", &host, std::slice::from_ref(&object)) else { panic!() };
    assert_eq!(patch["metadata"]["resourceVersion"], "7", "a list is replaced whole: only what was read may be");
    let own = json!({"manager": "portico", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {
        "f:data": {".": {}, "f:a": {}, "f:b": {}, "f:c": {}},
        "f:metadata": {"f:annotations": {".": {}, "f:note": {}}, "f:labels": {".": {}, "f:vcluster.loft.sh/managed-by": {}}}}});
    assert_eq!(patch["metadata"]["managedFields"], json!([status, person, own]));
    // Once more, after a way back: what was applied before stays applied.
    host["metadata"]["managedFields"] = json!([own, theirs]);
    let fields = fields::taken_over(&host, "v1").expect("taken over");
    assert_eq!(fields, [own]);
    host["metadata"]["managedFields"] = json!([person]);
    assert_eq!(fields::taken_over(&host, "v1"), None);
    let Verdict::Adopt { patch, .. } = judged("ConfigMap", &host, &[object]) else { panic!() };
    assert!(patch["metadata"].get("resourceVersion").is_none());
}

#[test]
fn keys_of_long_cluster_names_go_as_well() {
    let cluster = "a-cluster-name-that-is-forty-bytes-long1";
    let mut view = view();
    view.id = crate::names::TenantId::parse("team-a", cluster).expect("valid");
    let old = Vcluster { suffix: cluster.to_owned(), ..old_vcluster() };
    let host = on_host(old.pod(&pod(), "t"));
    let key = label_key("app", &view).expect("key");
    assert_eq!(key, old.label_key("app"));
    assert!(key.len() == 63 && host["metadata"]["labels"].get(&key).is_some());
    let Verdict::Adopt { patch, .. } = judge("Pod", &host, &[&pod()], Around::default(), &view) else { panic!() };
    assert!(patch["metadata"]["labels"].get(&key).is_none(), "read by the container");
    assert_eq!(patch["metadata"]["labels"][old.label_key("tier")], Value::Null);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn hostile_objects_never_panic_and_patches_are_metadata_of_that_object(
        host in prop_oneof![hostile(), poisoned(old_pod(&pod()))],
        object in prop_oneof![hostile(), poisoned(pod()), Just(pod())],
        keep_labels in any::<bool>(),
    ) {
        for kind in ["Pod", "Service", "Endpoints", "Secret", "PersistentVolumeClaim", "Ingress"] {
            let living = [object.clone()];
            let _ = (by_old_name(&living, &view()), waits_for_old_labels(&host));
            let around = Around { services: &living, keep_labels };
            match judge(kind, &host, &[&object], around, &view()) {
                Verdict::Adopt { patch, .. } | Verdict::LeftOver { patch, .. } | Verdict::Release { patch } => {
                    prop_assert_eq!(patch.as_object().map(Map::len), Some(1));
                    prop_assert_eq!(&patch["metadata"]["uid"], &json!(json::uid(&host)));
                    prop_assert!(patch["metadata"].get("name").is_none());
                }
                Verdict::Leave { .. } => {}
            }
        }
    }
}
