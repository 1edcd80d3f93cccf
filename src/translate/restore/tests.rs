//! What comes back of copies, and that it goes down as what it came from.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::pod::Around;
use super::super::samples::{injected, pods, stored};
use super::super::testing::{hostile, old_vcluster, open_view, poisoned, view};
use super::super::{diff, endpoints, ingress};
use crate::config::PolicyBounds;
use crate::crd::policy::{GrantedPolicy, Policy};

use super::*;
use crate::translate::summary::{NamespaceSummary, ServiceSummary};

mod pods;

/// A host that changes images, guards labels and keeps tenants to some nodes.
fn busy_view() -> View {
    let mut view = view();
    let guarded = [("app", "vc1"), ("tier", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    view.placement.guarded_labels = Arc::new(BTreeSet::from(guarded));
    view.translate_images.insert("busybox".to_owned(), "mirror/busybox".to_owned());
    view.node_selector.insert("pool".to_owned(), "tenants".to_owned());
    // What the policy takes away cannot come back.
    let bounds = PolicyBounds { tolerations: vec!["*".to_owned()], ..PolicyBounds::default() };
    view.policy = GrantedPolicy::of(bounds, Policy::default());
    view
}

/// As [`pod::to_host`], of a pod within its bounds.
fn to_host(pod: &Value, around: &Around, view: &View) -> Option<Value> {
    pod::to_host(pod, around, view).ok().map(|made| made.pod)
}

fn around() -> Around {
    let service = |name: &str, ip: &str| {
        Arc::new(ServiceSummary::of(
            &json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"clusterIP": ip, "ports": [
            {"name": "http", "port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
        ))
    };
    let namespace = |name: &str, team: &str| {
        Arc::new(NamespaceSummary::of(&json!({"metadata": {"name": name, "labels": {"team": team}}})))
    };
    Around {
        services: vec![service("db", "10.96.7.7"), service("a-b", "fd00::7"), service("none", "None")],
        namespaces: vec![namespace("default", "a"), namespace("other", "b"), namespace("third", "b")],
        priority_class: true,
    }
}

/// Host objects of what the sampled pods name, and the Secret with their tokens.
fn names(pod: &Value, view: &View) -> Recorded {
    let mut names = Recorded::default();
    let namespace = json::namespace(pod);
    for (kind, name) in pod::references::of(pod) {
        let object = json!({"metadata": {"name": name, "namespace": namespace, "uid": "x"}});
        let metadata = identity::metadata(kind.kind(), &object, view, kind.limit()).expect("valid");
        names.learn(kind.kind(), &json!({"metadata": metadata}), view);
    }
    if let Some(tokens) = pod::tokens(pod, None, view) {
        let listed = tokens.tokens.iter().map(|t| (t.key.as_str(), t.audience.as_str(), t.expiration_seconds));
        let spec = pod::volumes::token_spec(json::uid(pod), &tokens.service_account, listed);
        names.learn(
            SECRET,
            &json!({"metadata": {"name": tokens.secret, "namespace": "team-a", "labels": {keys::CLUSTER: "vc1"},
                "annotations": {keys::OBJECT_KIND: pod::TOKEN_KIND, pod::TOKEN_SPEC: spec}}}),
            view,
        );
    }
    names
}

fn with_uid(restored: &Restored, uid: &str) -> Value {
    let mut object = restored.object.clone();
    object["metadata"]["uid"] = json!(uid);
    object
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// What is restored under the old uid goes down as the very copy.
    #[test]
    fn a_pod_goes_down_as_it_came(pod in pods()) {
        let view = busy_view();
        let host = to_host(&pod, &around(), &view).expect("valid");
        let restored = object(POD, &host, &view, &names(&pod, &view)).expect("ours");
        prop_assert!(restored.needs.contains(&Need::ServiceAccount("builder".to_owned())));
        let again = to_host(&with_uid(&restored, "u1"), &around(), &view).expect("valid");
        prop_assert_eq!(again, host);
    }

    /// What the tenant wrote, and the copy tells, is as it was.
    #[test]
    fn a_pod_is_what_it_was(pod in pods()) {
        let view = busy_view();
        let host = to_host(&pod, &around(), &view).expect("valid");
        let restored = object(POD, &host, &view, &names(&pod, &view)).expect("ours").object;
        for field in ["labels", "annotations"] {
            let pointer = format!("/metadata/{field}");
            prop_assert_eq!(json::strings(&restored, &pointer), json::strings(&pod, &pointer));
        }
        let without_images = |list: &str, pod: &Value| -> Vec<Value> {
            let containers = json::items(pod, &format!("/spec/{list}")).iter().cloned();
            containers.map(|mut container| { container["image"].take(); container }).collect()
        };
        for list in ["containers", "initContainers"] {
            prop_assert_eq!(without_images(list, &restored), without_images(list, &pod));
        }
        let mut volumes = json::items(&pod, "/spec/volumes").to_vec();
        for volume in volumes.iter_mut().filter_map(Value::as_object_mut) {
            if volume.remove("ephemeral").is_some() {
                let claim = format!("{}-own", json::name(&pod));
                volume.insert("persistentVolumeClaim".to_owned(), json!({"claimName": claim}));
            }
        }
        prop_assert_eq!(json::items(&restored, "/spec/volumes"), volumes);
        for field in ["subdomain", "serviceAccountName", "dnsConfig", "nodeSelector", "tolerations", "imagePullSecrets", "hostAliases"] {
            prop_assert_eq!(restored["spec"].get(field), pod["spec"].get(field), "{}", field);
        }
        let policy = |pod: &Value| pod["spec"]["dnsPolicy"].as_str().unwrap_or("ClusterFirst").to_owned();
        let on_host_network = pod["spec"]["hostNetwork"] == true;
        prop_assert!(on_host_network || policy(&restored) == policy(&pod));
    }

    /// What the host adds changes nothing, and what its webhooks add is not seen.
    #[test]
    fn the_hosts_own_is_left_out(pod in pods()) {
        let view = busy_view();
        let host = stored(&to_host(&pod, &around(), &view).expect("valid"));
        let names = names(&pod, &view);
        let plain = object(POD, &host, &view, &names).expect("ours");
        let again = to_host(&with_uid(&plain, "u1"), &around(), &view).expect("valid");
        prop_assert!(diff::covers(&host["spec"], &again["spec"]), "{:#?}\n{:#?}", host["spec"], again["spec"]);
        for field in ["nodeName", "priority", "overhead", "serviceAccount"] {
            prop_assert!(plain.object["spec"].get(field).is_none());
        }
        prop_assert!(plain.object.get("status").is_none());
        prop_assert_eq!(plain, object(POD, &injected(host), &view, &names).expect("ours"));
    }

    #[test]
    fn nothing_panics(noise in hostile(), kind in prop::sample::select(KINDS.to_vec()), pod in pods().prop_flat_map(|pod| {
        poisoned(stored(&to_host(&pod, &around(), &view()).expect("valid")))
    })) {
        let view = view();
        for mut host in [noise.clone(), pod] {
            let _ = judge(kind, &host, &view);
            let object_of = json!({"metadata": {"name": "web", "namespace": "default", "uid": "u"}});
            if let Some((kind, limit)) = known(kind)
                && let Value::Object(map) = &mut host
                && let Some(metadata) = identity::metadata(kind, &object_of, &view, limit)
            {
                json::object(map, "metadata").extend(metadata);
            }
            let mut names = Recorded::default();
            names.learn(kind, &host, &view);
            let _ = object(kind, &host, &view, &names);
            let _ = relink(kind, &host, &noise, &view);
        }
    }
}

/// A copy as the host has it.
fn copy(kind: &str, virtual_object: &Value, rest: &Value) -> Value {
    let (kind, limit) = known(kind).expect("a kind");
    let mut host = rest.clone();
    host["metadata"] = Value::Object(identity::metadata(kind, virtual_object, &view(), limit).expect("valid"));
    host["metadata"]["uid"] = json!("h");
    host
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "uid": "u1", "labels": {"app": "web"}, "annotations": {"note": "n"}}})
}

fn restored(kind: &str, host: &Value) -> Restored {
    object(kind, host, &view(), &Recorded::default()).expect("ours")
}

#[test]
fn only_what_all_marks_say_is_restored() {
    let host = copy(CONFIG_MAP, &named("c"), &json!({"data": {"a": "1"}}));
    assert_eq!(judge(CONFIG_MAP, &host, &view()), Verdict::Restore(("default".to_owned(), "c".to_owned())));
    for (pointer, value) in [
        ("/metadata/name", "copy"),
        ("/metadata/namespace", "team-b"),
        ("/metadata/labels/portico.dev~1cluster", "vc2"),
        ("/metadata/annotations/portico.dev~1object-name", "d"),
        ("/metadata/annotations/portico.dev~1object-namespace", "kube-system"),
        ("/metadata/annotations/portico.dev~1object-kind", "Secret"),
    ] {
        let mut other = host.clone();
        *other.pointer_mut(pointer).expect("exists") = json!(value);
        assert_eq!(judge(CONFIG_MAP, &other, &view()), Verdict::Foreign, "{pointer}");
        assert_eq!(object(CONFIG_MAP, &other, &view(), &Recorded::default()), None);
        assert_eq!(relink(CONFIG_MAP, &other, &named("c"), &view()), None);
    }
    assert_eq!(judge("Node", &host, &view()), Verdict::Foreign);
    assert_eq!(relink(CONFIG_MAP, &host, &named("d"), &view()), None, "another object's");
}

#[test]
fn what_the_tenant_makes_by_itself_is_awaited_and_what_ends_is_left() {
    let await_ = |kind: &str, object: &Value| judge(kind, &copy(kind, object, &json!({})), &view());
    assert!(matches!(await_(CONFIG_MAP, &named("kube-root-ca.crt")), Verdict::Await(_)));
    let dns = json!({"metadata": {"name": "kube-dns", "namespace": "kube-system", "uid": "u"}});
    assert!(matches!(await_(SERVICE, &dns), Verdict::Await(_)));
    let why = |kind: &str, name: &str, rest: &Value| judge(kind, &copy(kind, &named(name), rest), &view());
    assert!(matches!(why(POD, "web", &json!({"status": {"phase": "Succeeded"}})), Verdict::Leave(..)));
    assert!(matches!(why(POD, "web", &json!({"status": {"phase": "Running"}})), Verdict::Restore(_)));
    let mut ending = copy(POD, &named("web"), &json!({}));
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(matches!(judge(POD, &ending, &view()), Verdict::Leave(..)));
    assert!(matches!(why(SERVICE, "kubernetes", &json!({})), Verdict::Leave(..)));
    let token = json!({"type": "Opaque", "data": {"token": "dA==", "ca.crt": "YQ==", "namespace": "ZGVmYXVsdA=="}});
    assert!(matches!(why(SECRET, "builder-token", &token), Verdict::Leave(..)));
    let own = json!({"type": "Opaque", "data": {"token": "dA==", "namespace": "b3RoZXI="}});
    assert!(matches!(why(SECRET, "own", &own), Verdict::Restore(_)));
    let mut pending = copy(SERVICE, &named("web"), &json!({}));
    identity::set_annotation(&mut pending, keys::PENDING, "2026-01-01T00:00:00Z".to_owned());
    assert!(matches!(judge(SERVICE, &pending, &view()), Verdict::Leave(..)));
}

#[test]
fn a_services_addresses_and_selector_come_back() {
    let service = json!({
        "metadata": named("web")["metadata"],
        "spec": {"type": "NodePort", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"], "selector": {"app": "vc1"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "nodePort": 30080}]},
    });
    let view = busy_view();
    let mut host = stored(&service::to_host(&service, &view).expect("valid"));
    host["metadata"]["labels"]["hosts-own"] = json!("1");
    host["spec"]["externalIPs"] = json!(["192.0.2.1"]);
    let restored = object(SERVICE, &host, &view, &Recorded::default()).expect("ours");
    assert_eq!((restored.namespace.as_str(), restored.lost.len()), ("default", 0));
    assert_eq!(restored.object["spec"], service["spec"]);
    assert_eq!(restored.object["apiVersion"], "v1");
    let metadata =
        json!({"name": "web", "namespace": "default", "labels": {"app": "web"}, "annotations": {"note": "n"}});
    assert_eq!(restored.object["metadata"], metadata);
}

#[test]
fn config_comes_back_with_what_was_the_tenants() {
    let data = json!({"data": {"a": "1"}, "binaryData": {"b": "Yg=="}, "immutable": true});
    let mut host = copy(CONFIG_MAP, &named("c"), &data);
    host = stored(&host);
    host["metadata"]["annotations"]["hosts-own"] = json!("1");
    let restored_map = restored(CONFIG_MAP, &host).object;
    for field in ["data", "binaryData", "immutable"] {
        assert_eq!(restored_map[field], data[field]);
    }
    assert_eq!(restored_map["metadata"]["annotations"], json!({"note": "n"}));
    // Without a record of who wrote what, all that is not reserved may be the tenant's.
    host["metadata"].as_object_mut().expect("object").remove("managedFields");
    assert_eq!(restored(CONFIG_MAP, &host).object["metadata"]["annotations"], json!({"note": "n", "hosts-own": "1"}));
    let secret = copy(SECRET, &named("s"), &json!({"type": "kubernetes.io/tls", "data": {"tls.key": "eA=="}}));
    let secret = restored(SECRET, &secret).object;
    assert_eq!((&secret["type"], &secret["data"]["tls.key"]), (&json!("kubernetes.io/tls"), &json!("eA==")));
}

#[test]
fn a_bound_claim_comes_back_bound() {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeMode": "Filesystem",
        "storageClassName": "fast", "volumeName": "pvc-1", "dataSource": {"kind": CLAIM, "name": "old-x-default-x-vc1"}});
    let mut host = copy(CLAIM, &named("data"), &json!({"spec": spec, "status": {"phase": "Bound"}}));
    for (key, value) in [("pv.kubernetes.io/bind-completed", "yes"), ("volume.kubernetes.io/selected-node", "n")] {
        host["metadata"]["annotations"][key] = json!(value);
    }
    let bound = restored(CLAIM, &host);
    assert_eq!(bound.object["spec"]["volumeName"], "pvc-1");
    assert_eq!(bound.object["spec"]["storageClassName"], "fast");
    assert_eq!(bound.object["spec"]["dataSource"], json!({"kind": CLAIM, "name": "old"}));
    let annotations = json!({"note": "n", "pv.kubernetes.io/bind-completed": "yes"});
    assert_eq!(bound.object["metadata"]["annotations"], annotations);
    host["spec"]["volumeName"] = json!("");
    host["spec"]["dataSource"]["name"] = json!("anybodys");
    let waiting = restored(CLAIM, &host);
    assert!(waiting.object["metadata"]["annotations"].get("pv.kubernetes.io/bind-completed").is_none());
    assert!(waiting.object["spec"].get("dataSource").is_none() && waiting.lost.len() == 1, "{:?}", waiting.lost);
}

#[test]
fn an_ingress_names_the_tenants_objects_again() {
    let backend = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
    let object_of = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1",
            "annotations": {"nginx.ingress.kubernetes.io/auth-secret": "users", "note": "n"}},
        "spec": {"ingressClassName": "nginx", "defaultBackend": backend("rest"), "tls": [{"hosts": ["a"], "secretName": "cert"}],
            "rules": [{"host": "a", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend("web")}]}}]},
    });
    let mut host = stored(&ingress::to_host(&object_of, &view()).expect("valid"));
    let back = restored(INGRESS, &host);
    assert_eq!(back.object["spec"], object_of["spec"]);
    assert_eq!(back.object["metadata"]["annotations"], object_of["metadata"]["annotations"]);
    assert_eq!(back.object["apiVersion"], "networking.k8s.io/v1");
    host["spec"]["rules"][0]["http"]["paths"][0]["backend"] = backend("web-x-default-x-vc2");
    host["spec"]["tls"][0]["secretName"] = json!("admins-key");
    let back = restored(INGRESS, &host);
    assert_eq!(back.lost.len(), 2, "{:?}", back.lost);
    assert!(!back.object.to_string().contains("vc2") && !back.object.to_string().contains("admins-key"));
    assert_eq!(back.object["spec"]["rules"], json!([]), "a rule for one path is not one for all");
    // Without the annotation, what it protects would be open to everybody.
    host["metadata"]["annotations"]["nginx.ingress.kubernetes.io/auth-secret"] = json!("team-a/admins-key");
    let back = restored(INGRESS, &host).object;
    assert_eq!(back["metadata"]["annotations"]["nginx.ingress.kubernetes.io/auth-secret"], "left-out");
    assert_eq!(ingress::refusal(&back, &open_view()), None);
}

#[test]
fn addresses_written_by_hand_come_back() {
    let subsets = json!([{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 1}]}]);
    let object_of = json!({"metadata": named("ext")["metadata"], "subsets": subsets});
    let host = stored(&endpoints::endpoints_to_host(&object_of, &open_view(), &|_, _| false).expect("valid").object);
    assert_eq!(restored(ENDPOINTS, &host).object["subsets"], subsets);
    let slice = json!({"metadata": {"name": "ext-1", "namespace": "default", "uid": "u", "labels": {"kubernetes.io/service-name": "ext"}},
        "addressType": "IPv4", "ports": [{"port": 1}], "endpoints": [{"addresses": ["192.0.2.1"]}]});
    let host = stored(&endpoints::slice_to_host(&slice, &open_view(), &|_, _| false).expect("valid").object);
    let back = restored(SLICE, &host).object;
    assert_eq!(back["metadata"]["labels"], slice["metadata"]["labels"]);
    assert_eq!((&back["endpoints"], &back["addressType"]), (&slice["endpoints"], &slice["addressType"]));
}
