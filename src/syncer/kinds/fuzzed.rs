//! What tenants write and what stands on the host, of every kind, over a mutated corpus: whatever comes of it on the host
//! is the tenant's own, in its namespace.

use serde_json::{Map, Value, json};

use super::super::kind::{Action, Direction, HostScope, ObjectKey, Plan, ResourceSyncer};
use super::testing::World;
use super::{Switches, all};
use crate::names::Limit;
use crate::runtime::fuzz;
use crate::translate::identity;
use crate::translate::testing::view;

const NAMESPACE: &str = "team-a";

#[test]
fn plans() {
    let kinds = all(&Switches::default());
    fuzz::json("kinds", &[], |input| {
        let pair = pair(input);
        let kind = kinds.iter().find(|kind| pair.virtual_object["kind"] == kind.resource().kind)?;
        let plans = planned(kind.as_ref(), &pair);
        // An API server gives no object without a name, and only then what comes of it must be right.
        let key = super::identity::key_of(&pair.virtual_object);
        if !key.name.is_empty() && key.namespace.is_empty() != kind.resource().namespaced {
            for action in plans.iter().flat_map(|plan| &plan.actions) {
                check(kind.as_ref(), action);
            }
        }
        let shape = |plan: &Plan| plan.actions.iter().map(std::mem::discriminant).collect::<Vec<_>>();
        Some((kind.resource().kind, plans.iter().map(shape).collect::<Vec<_>>()))
    });
}

struct Pair {
    virtual_object: Value,
    host: Value,
}

/// A virtual object alone has the host object that was made for it; what was found has both.
fn pair(input: &Value) -> Pair {
    if let (Some(virtual_object), Some(host)) = (input.get("virtual"), input.get("host")) {
        return Pair { virtual_object: virtual_object.clone(), host: host.clone() };
    }
    let mut host = input.clone();
    let kinds = all(&Switches::default());
    let resource = kinds.iter().map(|kind| kind.resource()).find(|r| input["kind"] == r.kind && r.namespaced);
    if let Some(resource) = resource.filter(|resource| resource.kind != "Event") {
        let kind = super::identity::kind_annotation(&resource);
        let metadata = identity::metadata(&kind, input, &view(), Limit::Label).unwrap_or_default();
        if let Value::Object(fields) = &mut host {
            fields.insert("metadata".to_owned(), Value::Object(with(metadata, "uid", json!("host-uid"))));
        }
    }
    Pair { virtual_object: input.clone(), host }
}

fn with(mut map: Map<String, Value>, key: &str, value: Value) -> Map<String, Value> {
    map.insert(key.to_owned(), value);
    map
}

/// As the engine asks: with both sides, with one, and of the host only what is recorded as this object's.
fn planned(kind: &dyn ResourceSyncer, pair: &Pair) -> Vec<Plan> {
    let key = super::identity::key_of(&pair.virtual_object);
    let mut worlds = [World::new(), World::open()];
    for world in &mut worlds {
        world.refer(kind.resource().kind, &key.namespace, &key.name);
        for other in ["Service", "Namespace", "Pod", "PersistentVolumeClaim", "ConfigMap", "Secret", "Node"] {
            let object = json!({"metadata": {"name": "out", "namespace": key.namespace, "uid": "o"}, "spec": pair.virtual_object["spec"]});
            world.put_virtual(other, object.clone());
            world.put_host(other, object);
        }
    }
    let virtual_object = kind.project(pair.virtual_object.clone(), Direction::Down);
    let host = kind.project(pair.host.clone(), Direction::Up);
    let _ = (kind.references(&virtual_object), kind.summary(&virtual_object));
    let mut plans = Vec::new();
    for world in &worlds {
        let is_its = match kind.host_scope() {
            HostScope::Tenant => kind.virtual_key(&host, &world.view).as_ref() == Some(&key),
            _ => true,
        };
        let host = Some(&host).filter(|_| is_its);
        for (of_tenant, of_host) in [(Some(&virtual_object), host), (Some(&virtual_object), None), (None, host)] {
            plans.push(kind.plan(&key, of_tenant, of_host, &world.view, world));
        }
    }
    plans
}

fn check(kind: &dyn ResourceSyncer, action: &Action) {
    match action {
        Action::ApplyHost { resource, object } | Action::CreateHost { resource, object } => {
            assert!(resource.namespaced, "{object}");
            assert_eq!(*resource, kind.resource());
            check_metadata(&object["metadata"]);
            check_spec(resource.kind, object);
        }
        Action::PatchHost { resource, patch, .. } => {
            assert!(resource.namespaced);
            let namespace = patch.pointer("/metadata/namespace").unwrap_or(&Value::Null);
            assert!(namespace.is_null() || namespace == NAMESPACE, "{patch}");
            let label = patch.pointer("/metadata/labels/portico.dev~1cluster").unwrap_or(&Value::Null);
            assert!(label.is_null() || label == "vc1", "{patch}");
            assert!(patch.pointer("/metadata/finalizers").is_none(), "{patch}");
        }
        Action::DeleteHost { resource, .. } => assert!(resource.namespaced),
        Action::OrElse { first, otherwise } => {
            check(kind, first);
            check(kind, otherwise);
        }
        Action::PatchVirtual { key: ObjectKey { namespace, .. }, resource, .. } => {
            assert_eq!(namespace.is_empty(), !resource.namespaced);
        }
        _ => {}
    }
}

/// Every object on the host carries its cluster's marks, whatever the tenant wrote there, and its owner's alone.
fn check_metadata(metadata: &Value) {
    assert_eq!(metadata["namespace"], NAMESPACE);
    assert_eq!(metadata["labels"]["portico.dev/cluster"], "vc1", "{metadata}");
    assert!(metadata["name"].as_str().is_some_and(|name| !name.is_empty()));
    assert!(metadata["labels"].get("portico.dev/control-plane").is_none(), "{metadata}");
    assert!(metadata.get("finalizers").is_none() && metadata.get("generateName").is_none(), "{metadata}");
    let owners: Vec<_> = metadata["ownerReferences"].as_array().into_iter().flatten().map(|o| &o["uid"]).collect();
    assert_eq!(owners, ["vc-uid"], "{metadata}");
}

fn check_spec(kind: &str, object: &Value) {
    let spec = &object["spec"];
    match kind {
        "Service" => {
            assert!(spec.get("externalIPs").is_none(), "{object}");
            let selector = spec["selector"].as_object();
            assert!(selector.is_none_or(|s| s.is_empty() || s["portico.dev/cluster"] == "vc1"), "{object}");
        }
        "Pod" => {
            let is_on = |field: &str| spec[field] == true;
            assert!(!["hostNetwork", "hostPID", "hostIPC"].into_iter().any(is_on), "{object}");
            assert_eq!(spec["automountServiceAccountToken"], false, "{object}");
            let volumes = spec["volumes"].as_array().into_iter().flatten();
            assert!(volumes.clone().all(|volume| volume.get("hostPath").is_none()), "{object}");
            let lists = ["containers", "initContainers"].into_iter().filter_map(|list| spec[list].as_array());
            for container in lists.flatten() {
                assert!(container["securityContext"]["privileged"] != true, "{object}");
            }
        }
        _ => {}
    }
}
