//! What the ordinary plans make of objects that vcluster made and that were adopted: nothing is made again, nothing that is
//! in use goes.

use serde_json::{Value, json};

use super::super::kind::{Direction, ResourceSyncer};
use super::claim::{ClaimKind, VolumeKind};
use super::cluster::NodeKind;
use super::config::ConfigKind;
use super::endpoints::EndpointsKind;
use super::ingress::IngressKind;
use super::pod::PodKind;
use super::service::ServiceKind;
use super::testing::{World, writes};
use crate::names::keys;
use crate::translate::legacy::{self, Around, Verdict};
use crate::translate::testing::{old_vcluster, stateful_set};
use crate::translate::{identity, json, selector};

const NS: &str = "default";

fn world() -> World {
    let mut world = World::open();
    world.view.owner = Some(stateful_set());
    world
}

/// An object in the tenant and the copy that vcluster made of it, which is adopted at once.
fn put(world: &mut World, kind: &str, object: &Value, host: Value) {
    world.put_virtual(kind, object.clone());
    adopt(world, kind, host);
}

fn adopt(world: &mut World, kind: &str, mut host: Value) {
    let name = json::name(&host).to_owned();
    host["metadata"]["uid"] = json!(format!("old-{kind}-{name}"));
    world.put_host(kind, host.clone());
    let living = world.virtual_objects(kind, "");
    let services = world.virtual_objects("Service", "");
    let by_name = legacy::by_old_name(&living, &world.view);
    let candidates = by_name.get(&name).cloned().unwrap_or_default();
    let around = Around { services: &services, keep_labels: false };
    let patch = match legacy::judge(kind, &host, &candidates, around, &world.view) {
        Verdict::Adopt { patch, .. } | Verdict::LeftOver { patch, .. } | Verdict::Release { patch } => patch,
        Verdict::Leave { why, .. } => panic!("{kind} {name}: {why}"),
    };
    world.change_host(kind, &name, |host| super::testing::merge(host, &patch));
}

/// Plans until nothing is to be done; the object is the one that it was, and there is no other.
fn settled(world: &mut World, kind: &dyn ResourceSyncer, name: &str) -> Value {
    world.settle(kind, NS, name);
    let kind_name = kind.resource().kind;
    let host_name = old_vcluster().name(NS, name);
    let host = world.host(kind_name, &host_name).unwrap_or_else(|| panic!("{kind_name} {name} is gone"));
    assert_eq!(json::uid(&host), format!("old-{kind_name}-{host_name}"), "made again");
    host
}

fn object(name: &str, rest: &Value) -> Value {
    let mut object = rest.clone();
    object["metadata"] = json!({"name": name, "namespace": NS, "uid": format!("v-{name}"), "labels": {"app": name}});
    object
}

fn pod() -> Value {
    object(
        "web",
        &json!({
            "spec": {"serviceAccountName": "builder", "nodeName": "node-1",
                "containers": [{"name": "c", "image": "nginx:1", "envFrom": [{"configMapRef": {"name": "settings"}}]}],
                "volumes": [{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]},
            "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"},
        }),
    )
}

fn running(mut host: Value) -> Value {
    host["spec"]["nodeName"] = json!("node-1");
    host["status"] = pod()["status"].clone();
    host
}

#[test]
fn a_running_pod_is_not_written_and_wants_no_tokens() {
    let mut world = world();
    world.put_host("Node", json!({"metadata": {"name": "node-1"}}));
    put(&mut world, "Pod", &pod(), running(old_vcluster().pod(&pod(), "builder-token-abcde")));
    let plan = world.plan(&PodKind, NS, "web");
    assert_eq!(plan.actions, [], "{:#?}", plan.actions);
    settled(&mut world, &PodKind, "web");
    assert!(world.other.is_empty(), "{:?}", world.other);
    // Its status still comes up, and its end takes it away.
    world.change_host("Pod", "web-x-default-x-vc1", |p| p["status"]["podIP"] = json!("10.1.1.1"));
    settled(&mut world, &PodKind, "web");
    assert_eq!(world.virtual_one("Pod", NS, "web").expect("kept")["status"]["podIP"], "10.1.1.1");
    world.remove_virtual("Pod", NS, "web");
    world.step(&PodKind, NS, "web");
    assert!(json::is_deleting(&world.host("Pod", "web-x-default-x-vc1").expect("ends with its grace")));
}

#[test]
fn a_left_over_pod_ends_and_the_living_one_is_made() {
    let mut world = world();
    let mut again = pod();
    again["metadata"]["uid"] = json!("v-again");
    again["spec"].as_object_mut().expect("spec").remove("nodeName");
    again["status"] = json!({"phase": "Pending"});
    put(&mut world, "Pod", &again, running(old_vcluster().pod(&pod(), "builder-token-abcde")));
    let plan = world.step(&PodKind, NS, "web");
    assert_eq!(writes(&plan).len(), 1, "{plan:#?}");
    assert!(json::is_deleting(&world.host("Pod", "web-x-default-x-vc1").expect("ends with its grace")));
    world.remove_host("Pod", "web-x-default-x-vc1");
    world.settle(&PodKind, NS, "web");
    let made = world.host("Pod", "web-x-default-x-vc1").expect("made");
    assert_eq!(identity::recorded_uid(&made), "v-again");
}

#[test]
fn a_service_is_given_a_selector_that_finds_its_adopted_pods() {
    let mut world = world();
    let service = object(
        "web",
        &json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"],
            "selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP"}]}}),
    );
    put(&mut world, "Pod", &pod(), running(old_vcluster().pod(&pod(), "builder-token-abcde")));
    put(&mut world, "Service", &service, old_vcluster().service(&service));
    let endpoints = object("web", &json!({"subsets": [{"addresses": [{"ip": "10.1.1.1"}], "ports": [{"port": 80}]}]}));
    put(&mut world, "Endpoints", &endpoints, old_vcluster().endpoints(&endpoints));
    let host = settled(&mut world, &ServiceKind, "web");
    assert_eq!(host["spec"]["clusterIP"], "10.96.1.1");
    let labels = json::strings(&world.host("Pod", "web-x-default-x-vc1").expect("kept"), "/metadata/labels");
    let terms = json!({"matchLabels": host["spec"]["selector"]});
    assert!(selector::selects(&terms, &labels), "{terms} does not select {labels:?}");
    // The host's controller keeps the Endpoints, whose labels it makes the Service's: no plan of ours may see them as ours.
    world.change_host("Endpoints", "web-x-default-x-vc1", |e| {
        e["metadata"]["labels"] = host["metadata"]["labels"].clone()
    });
    let kind = EndpointsKind::endpoints();
    assert_eq!(kind.virtual_key(&world.host("Endpoints", "web-x-default-x-vc1").expect("kept"), &world.view), None);
    assert_eq!(world.step(&kind, NS, "web").actions, []);
}

#[test]
fn endpoints_without_a_selector_stay_the_tenants() {
    let mut world = world();
    let spec =
        json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.1.1", "ports": [{"port": 80, "protocol": "TCP"}]}});
    let service = object("ext", &spec);
    let endpoints = object("ext", &json!({"subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]}));
    put(&mut world, "Service", &service, old_vcluster().service(&service));
    put(&mut world, "Endpoints", &endpoints, old_vcluster().endpoints(&endpoints));
    let kind = EndpointsKind::endpoints();
    settled(&mut world, &ServiceKind, "ext");
    let host = settled(&mut world, &kind, "ext");
    assert_eq!(host["subsets"], endpoints["subsets"]);
    assert_eq!(host["metadata"]["labels"]["app"], "ext");
    world.change_virtual("Endpoints", NS, "ext", |e| e["subsets"][0]["addresses"][0]["ip"] = json!("192.0.2.9"));
    assert_eq!(settled(&mut world, &kind, "ext")["subsets"][0]["addresses"][0]["ip"], "192.0.2.9");
}

#[test]
fn config_is_applied_once_and_then_at_rest() {
    for kind in [ConfigKind::config_maps(), ConfigKind::secrets()] {
        let name = kind.resource().kind;
        let mut world = world();
        let config = object("settings", &json!({"data": {"a": "MQ=="}, "type": "Opaque"}));
        world.refer(name, NS, "settings");
        put(&mut world, name, &config, old_vcluster().secret(&config));
        let plan = world.step(&kind, NS, "settings");
        assert_eq!(writes(&plan).len(), 1, "one apply: {plan:#?}");
        let host = settled(&mut world, &kind, "settings");
        assert_eq!(host["metadata"]["labels"]["app"], "settings");
        assert_eq!(host["data"], config["data"]);
        world.forget_referrers();
        world.settle(&kind, NS, "settings");
        assert!(world.host(name, "settings-x-default-x-vc1").is_none(), "nobody uses it");
    }
}

#[test]
fn the_token_secret_of_an_adopted_pod_stays_as_long_as_the_pod() {
    let kind = ConfigKind::secrets();
    let mut world = world();
    let secret = object(
        "builder-token-abcde",
        &json!({"type": "kubernetes.io/service-account-token", "data": {"token": "dA=="}}),
    );
    put(&mut world, "Pod", &pod(), running(old_vcluster().pod(&pod(), "builder-token-abcde")));
    put(&mut world, "Secret", &secret, old_vcluster().secret(&secret));
    let host_pod = world.host("Pod", "web-x-default-x-vc1").expect("kept");
    let mounted = host_pod.pointer("/spec/volumes/0/projected/sources/0/secret/name").expect("mounted").clone();
    assert_eq!(mounted, "builder-token-abcde-x-default-x-vc1");
    assert!(PodKind.references(&pod()).iter().all(|r| r.kind != "Secret"), "the virtual pod does not name it");

    // Nobody refers to it, so the engine has fetched no body.
    world.change_virtual("Secret", NS, "builder-token-abcde", |s| {
        s.as_object_mut().expect("secret").remove("data");
    });
    let plan = world.plan(&kind, NS, "builder-token-abcde");
    assert!(plan.actions.is_empty() && plan.again_after.is_some(), "{plan:#?}");
    assert_eq!(settled(&mut world, &kind, "builder-token-abcde")["data"], secret["data"]);

    world.remove_virtual("Pod", NS, "web");
    world.remove_host("Pod", "web-x-default-x-vc1");
    world.settle(&kind, NS, "builder-token-abcde");
    assert!(world.host("Secret", "builder-token-abcde-x-default-x-vc1").is_none());
}

#[test]
fn claims_keep_their_volume_whatever_they_were_made_from() {
    let spec =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "pv-1"});
    let status = json!({"phase": "Bound"});
    let bound = |claim: &Value| {
        let mut host = old_vcluster().copy(claim);
        host["spec"]["storageClassName"] = json!("hosts-default");
        host["spec"]["volumeMode"] = json!("Filesystem");
        host["status"] = status.clone();
        host
    };
    let mut world = world();
    let claim = object("data", &json!({"spec": spec, "status": status}));
    put(&mut world, "PersistentVolumeClaim", &claim, bound(&claim));
    let plan = world.plan(&ClaimKind, NS, "data");
    let applied = writes(&plan).into_iter().find_map(|action| match action {
        super::super::kind::Action::ApplyHost { object, .. } => Some(object),
        _ => None,
    });
    let applied = applied.expect("applied once");
    assert!(applied["spec"].get("volumeName").is_none() && applied["spec"].get("storageClassName").is_none());
    // What an apply does not name stays on a real server.
    world.step(&ClaimKind, NS, "data");
    world.change_host("PersistentVolumeClaim", "data-x-default-x-vc1", |c| c["spec"] = bound(&claim)["spec"].clone());
    settled(&mut world, &ClaimKind, "data");

    let mut restored = object("restored", &json!({"spec": spec, "status": status}));
    restored["spec"]["dataSource"] =
        json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
    put(&mut world, "PersistentVolumeClaim", &restored, bound(&restored));
    let host = settled(&mut world, &ClaimKind, "restored");
    assert_eq!(host["spec"]["dataSource"]["kind"], "VolumeSnapshot");
    world.change_virtual("PersistentVolumeClaim", NS, "restored", |c| {
        c["metadata"]["deletionTimestamp"] = json!("2027-01-01T00:00:00Z")
    });
    world.settle(&ClaimKind, NS, "restored");
    assert!(
        world.host("PersistentVolumeClaim", "restored-x-default-x-vc1").is_none(),
        "the tenant may still delete it"
    );
}

#[test]
fn ingresses_follow_their_services() {
    let mut world = world();
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let ingress = object(
        "web",
        &json!({"spec": {"tls": [{"secretName": "cert"}],
            "rules": [{"host": "a", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}}),
    );
    put(&mut world, "Ingress", &ingress, old_vcluster().ingress(&ingress));
    let host = settled(&mut world, &IngressKind, "web");
    assert_eq!(host["spec"], old_vcluster().ingress(&ingress)["spec"], "both name the same Services and Secrets");
}

#[test]
fn what_refers_to_a_long_old_name_uses_it() {
    let name = "a-very-long-name-of-settings-for-testing-purposes-only";
    let kind = ConfigKind::config_maps();
    let mut world = world();
    let config = object(name, &json!({"data": {"a": "1"}}));
    world.refer("ConfigMap", NS, name);
    put(&mut world, "ConfigMap", &config, old_vcluster().copy(&config));
    let host_name = old_vcluster().name(NS, name);
    // As the engine does when it finds the host object.
    let host = world.host("ConfigMap", &host_name).expect("kept");
    let key = kind.virtual_key(&kind.project(host, Direction::Up), &world.view).expect("known");
    assert_ne!(kind.host_name(&key, &world.view).as_deref(), Some(host_name.as_str()));
    let aliases = std::sync::Arc::make_mut(&mut world.view.placement.aliases);
    aliases.remember("ConfigMap", &key.namespace, &key.name, &host_name);
    let secret = ConfigKind::secrets().host_name(&key, &world.view).expect("valid");
    assert_ne!(secret, host_name, "what another kind has under this name is named by itself");
    settled(&mut world, &kind, name);
    let mut other = pod();
    other["metadata"]["name"] = json!("other");
    other["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": name}}]);
    other["status"] = json!({});
    other["spec"].as_object_mut().expect("spec").remove("nodeName");
    world.put_virtual("Pod", other);
    world.settle(&PodKind, NS, "other");
    let made = world.host("Pod", "other-x-default-x-vc1").expect("made");
    assert_eq!(made["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"], host_name);
    assert_eq!(identity::label(&made, keys::CLUSTER), "vc1");
}

#[test]
fn nodes_and_volumes_that_were_made_up_go_when_nothing_needs_them() {
    let mut world = world();
    let node = json!({"metadata": {"name": "n1", "uid": "v-n1", "labels": {"vcluster.loft.sh/fake-node": "true"}}});
    world.put_virtual("Node", node.clone());
    world.put_host("Node", json!({"metadata": {"name": "n1"}}));
    world.settle(&NodeKind, "", "n1");
    let taken_over = world.virtual_one("Node", "", "n1").expect("kept");
    assert!(identity::is_from_host(&taken_over));
    world.put_virtual("Node", node);
    world.remove_host("Node", "n1");
    world.settle(&NodeKind, "", "n1");
    assert!(world.virtual_one("Node", "", "n1").is_none());

    let volume = json!({"metadata": {"name": "pv-1", "uid": "v-pv", "labels": {"vcluster.loft.sh/fake-pv": "true"}},
        "spec": {"flexVolume": {"driver": "fake"}}, "status": {"phase": "Bound"}});
    world.put_virtual("PersistentVolume", volume.clone());
    let claim = object("data", &json!({"spec": {"volumeName": "pv-1"}, "status": {"phase": "Bound"}}));
    put(&mut world, "PersistentVolumeClaim", &claim, old_vcluster().copy(&claim));
    let uid = json::uid(&world.host("PersistentVolumeClaim", "data-x-default-x-vc1").expect("kept")).to_owned();
    let reference = json!({"namespace": "team-a", "name": "data-x-default-x-vc1", "uid": uid});
    world.put_host(
        "PersistentVolume",
        json!({"metadata": {"name": "pv-1"}, "spec": {"claimRef": reference}, "status": {"phase": "Bound"}}),
    );
    world.settle(&VolumeKind, "", "pv-1");
    assert_eq!(world.virtual_one("PersistentVolume", "", "pv-1"), Some(volume), "its source could not be changed");
    world.remove_host("PersistentVolume", "pv-1");
    world.settle(&VolumeKind, "", "pv-1");
    assert!(world.virtual_one("PersistentVolume", "", "pv-1").is_none());
}
