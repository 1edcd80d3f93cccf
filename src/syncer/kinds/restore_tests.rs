//! What the ordinary plans make of objects that were read back from their copies: nothing is made again, nothing goes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::kind::{Action, ResourceSyncer};
use super::claim::{ClaimKind, VolumeKind};
use super::config::ConfigKind;
use super::endpoints::EndpointsKind;
use super::ingress::IngressKind;
use super::pod::PodKind;
use super::service::ServiceKind;
use super::testing::{World, merge, object_key};
use crate::translate::restore::{self, Recorded};
use crate::translate::samples::{injected, pods, stored};
use crate::translate::{identity, json, pod, selector};

const NS: &str = "default";

/// All virtual objects of these kinds are gone; each copy is read back, and stands for what was read.
fn lose_and_restore(world: &mut World, copies: &[(&str, &str)]) {
    let kind_of = |kind: &str| {
        let group = match kind {
            "Ingress" => "networking.k8s.io",
            "EndpointSlice" => "discovery.k8s.io",
            _ => "",
        };
        identity::kind_of(group, kind)
    };
    let mut names = Recorded::default();
    for (kind, name) in copies {
        names.learn(&kind_of(kind), &world.host(kind, name).expect("a copy"), &world.view);
    }
    let order = |kind: &str| restore::KINDS.iter().position(|known| *known == kind_of(kind));
    let mut copies = copies.to_vec();
    copies.sort_by_key(|(kind, _)| order(kind));
    for (kind, name) in copies {
        let host = world.host(kind, name).expect("a copy");
        let mut object = restore::object(&kind_of(kind), &host, &world.view, &names).expect("restorable").object;
        object["metadata"]["uid"] = json!(format!("again-{name}"));
        if kind == "PersistentVolumeClaim" {
            object["status"] = json!({"phase": "Pending"});
        }
        world.remove_virtual(kind, json::namespace(&object), json::name(&object));
        let patch = restore::relink(&kind_of(kind), &host, &object, &world.view).expect("its own");
        world.put_virtual(kind, object);
        world.change_host(kind, name, |host| merge(host, &patch));
    }
}

/// The plan deletes and makes nothing on the host and in the tenant, and comes to rest after one application.
fn rests(world: &mut World, kind: &dyn ResourceSyncer, namespace: &str, name: &str) {
    let plan = world.step(kind, namespace, name);
    let harmful = plan.actions.iter().find(|action| {
        !matches!(
            action,
            Action::ApplyHost { .. }
                | Action::PatchHost { .. }
                | Action::PatchVirtual { .. }
                | Action::BindVirtual { .. }
                | Action::EnsureTokens { .. }
        )
    });
    assert_eq!(harmful, None);
    let rest = super::testing::writes(&world.plan(kind, namespace, name));
    assert_eq!(rest, [], "not at rest");
}

/// Makes it, lets the host store it, loses and restores it; the copy is the same object in the end.
fn round(world: &mut World, kind: &dyn ResourceSyncer, object: Value) -> (Value, Value) {
    let resource = kind.resource();
    let (namespace, name) = (json::namespace(&object).to_owned(), json::name(&object).to_owned());
    world.refer(resource.kind, &namespace, &name);
    world.put_virtual(resource.kind, object);
    world.settle(kind, &namespace, &name);
    let host_name = kind.host_name(&object_key(&namespace, &name), &world.view).expect("valid");
    world.change_host(resource.kind, &host_name, |host| *host = stored(host));
    world.settle(kind, &namespace, &name);
    let before = world.host(resource.kind, &host_name).expect("made");
    lose_and_restore(world, &[(resource.kind, &host_name)]);
    rests(world, kind, &namespace, &name);
    let after = world.host(resource.kind, &host_name).expect("kept");
    assert_eq!(json::uid(&after), json::uid(&before), "made again");
    (before, after)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pods_run_on(pod in pods(), with_injected in any::<bool>()) {
        let mut world = World::open();
        world.view.policy = crate::crd::policy::GrantedPolicy::at(crate::crd::PodSecurity::Privileged);
        world.put_host("Node", json!({"metadata": {"name": "node-1"}}));
        world.put_host("PriorityClass", json!({"metadata": {"name": "high"}}));
        let (namespace, name) = (json::namespace(&pod).to_owned(), json::name(&pod).to_owned());
        world.put_virtual("Pod", pod.clone());
        world.settle(&PodKind, &namespace, &name);
        let host_name = PodKind.host_name(&object_key(&namespace, &name), &world.view).expect("valid");
        world.change_host("Pod", &host_name, |host| {
            *host = stored(host);
            if with_injected {
                *host = injected(host.clone());
            }
        });
        world.settle(&PodKind, &namespace, &name);
        let before = world.host("Pod", &host_name).expect("made");
        lose_and_restore(&mut world, &[("Pod", &host_name)]);
        // Relinked, nothing of the host pod is left to write.
        let plan = world.plan(&PodKind, &namespace, &name);
        prop_assert!(!plan.actions.iter().any(|a| matches!(a, Action::PatchHost { .. })), "{:#?}", plan.actions);
        world.other.clear();
        rests(&mut world, &PodKind, &namespace, &name);
        let after = world.host("Pod", &host_name).expect("kept");
        prop_assert_eq!(&after["spec"], &before["spec"]);
        prop_assert_eq!(&after["metadata"]["labels"], &before["metadata"]["labels"]);
        prop_assert_eq!(identity::recorded_uid(&after), format!("again-{host_name}"));
        let object = world.virtual_one("Pod", &namespace, &name).expect("restored");
        prop_assert_eq!(&object["spec"]["nodeName"], "node-1");
        prop_assert_eq!(&object["status"]["phase"], "Running");
        // The tokens go into the Secret that the running pod mounts, under the keys that it looks for.
        let wanted = pod::tokens(&pod, None, &world.view);
        let asked: Vec<&Action> = world.other.iter().filter(|a| matches!(a, Action::EnsureTokens { .. })).collect();
        prop_assert_eq!(asked.is_empty(), wanted.is_none());
        for action in asked {
            let Action::EnsureTokens { secret, tokens, pod_uid, .. } = action else { continue };
            let wanted = wanted.as_ref().expect("tokens");
            prop_assert_eq!(secret, &wanted.secret);
            prop_assert_eq!(pod_uid, &format!("again-{}", host_name));
            let keys: Vec<&String> = tokens.iter().map(|t| &t.key).collect();
            prop_assert_eq!(keys, wanted.tokens.iter().map(|t| &t.key).collect::<Vec<_>>());
        }
    }
}

fn named(name: &str, rest: &Value) -> Value {
    let mut object = rest.clone();
    object["metadata"] = json!({"name": name, "namespace": NS, "uid": format!("v-{name}"), "labels": {"app": "web"},
        "annotations": {"note": "n"}});
    object
}

#[test]
fn services_keep_their_addresses_and_their_pods() {
    let service = named(
        "web",
        &json!({"spec": {"type": "NodePort", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"], "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]}}),
    );
    let (before, after) = round(&mut World::open(), &ServiceKind, service);
    assert_eq!(after["spec"], before["spec"]);
    let labels = json!({"app": "web", "portico.dev/cluster": "vc1", "portico.dev/namespace": NS});
    assert!(selector::selects(&json!({"matchLabels": after["spec"]["selector"]}), &json::strings(&labels, "")));
    // An address that the host had refused once is not asked for again.
    let mut world = World::open();
    world.taken = vec!["10.96.1.1\"".to_owned()];
    world.put_virtual(
        "Service",
        named("web", &json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.1.1", "ports": [{"port": 80}]}})),
    );
    world.step(&ServiceKind, NS, "web");
    lose_and_restore(&mut world, &[("Service", "web-x-default-x-vc1")]);
    assert_eq!(world.plan(&ServiceKind, NS, "web").actions, []);
}

#[test]
fn claims_stay_on_their_volumes() {
    let claim = named(
        "data",
        &json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
    );
    let host_name = "data-x-default-x-vc1";
    let mut world = World::open();
    world.put_virtual("PersistentVolumeClaim", claim);
    world.settle(&ClaimKind, NS, "data");
    world.change_host("PersistentVolumeClaim", host_name, |host| {
        *host = stored(host);
        host["spec"]["volumeName"] = json!("pvc-1");
        host["spec"]["storageClassName"] = json!("fast");
        host["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes");
        host["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
    });
    world.put_host(
        "PersistentVolume",
        json!({"metadata": {"name": "pvc-1", "uid": "pv"}, "status": {"phase": "Bound"},
        "spec": {"claimRef": {"namespace": "team-a", "name": host_name, "uid": "host-uid"}}}),
    );
    let kept = world.host("PersistentVolumeClaim", host_name).expect("made");
    world.settle(&ClaimKind, NS, "data");
    // What an apply does not name stays on a real server.
    world.change_host("PersistentVolumeClaim", host_name, |host| host["spec"] = kept["spec"].clone());
    lose_and_restore(&mut world, &[("PersistentVolumeClaim", host_name)]);
    let plan = world.step(&ClaimKind, NS, "data");
    assert!(!plan.actions.iter().any(|a| matches!(a, Action::DeleteHost { .. })), "{plan:#?}");
    world.change_host("PersistentVolumeClaim", host_name, |host| host["spec"] = kept["spec"].clone());
    rests(&mut world, &ClaimKind, NS, "data");
    let object = world.virtual_one("PersistentVolumeClaim", NS, "data").expect("restored");
    assert_eq!((&object["spec"]["volumeName"], &object["status"]["phase"]), (&json!("pvc-1"), &json!("Bound")));
    world.settle(&VolumeKind, "", "pvc-1");
    let volume = world.virtual_one("PersistentVolume", "", "pvc-1").expect("shown");
    assert_eq!(volume["spec"]["claimRef"]["uid"], object["metadata"]["uid"]);
}

#[test]
fn config_and_what_is_in_front_of_pods_stay() {
    let data = json!({"data": {"a": "MQ=="}, "type": "Opaque"});
    for kind in [ConfigKind::config_maps(), ConfigKind::secrets()] {
        let (before, after) = round(&mut World::open(), &kind, named("settings", &data));
        assert_eq!((&after["data"], &after["metadata"]["labels"]), (&before["data"], &before["metadata"]["labels"]));
    }
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let ingress = named(
        "web",
        &json!({"spec": {"tls": [{"secretName": "cert"}],
            "rules": [{"host": "a", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}}),
    );
    let (before, after) = round(&mut World::open(), &IngressKind, ingress);
    assert_eq!(after["spec"], before["spec"]);
}

#[test]
fn addresses_stay_with_their_service() {
    let service = json!({"metadata": {"name": "ext", "namespace": NS}, "spec": {"ports": [{"port": 80}]}});
    let endpoints = named("ext", &json!({"subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]}));
    let mut slice = named(
        "ext-1",
        &json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["192.0.2.1"]}]}),
    );
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": "ext"});
    for (kind, object) in [(EndpointsKind::endpoints(), endpoints), (EndpointsKind::slices(), slice)] {
        let mut world = World::open();
        world.put_virtual("Service", service.clone());
        let (before, after) = round(&mut world, &kind, object);
        for field in ["subsets", "endpoints", "ports"] {
            assert_eq!(after[field], before[field]);
        }
        assert_eq!(after["metadata"]["labels"], before["metadata"]["labels"]);
    }
}
