//! A tiny host and tenant in memory: does what a plan says, so that plans can be checked for what they lead to.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::super::kind::{Action, Direction, Lookup, ObjectKey, Plan, ResourceSyncer, TenantView};
use crate::kubernetes::Resource;
use crate::translate::testing::{hostile, open_view, poisoned, view};
use crate::translate::{identity, json};

mod lookup;
mod patches;

use patches::apply_patch;
pub(crate) use patches::merge;

/// Both sides.
pub(crate) struct World {
    pub(crate) view: TenantView,
    pub(crate) now: i64,
    /// Cluster IPs and node ports that the host refuses.
    pub(crate) taken: Vec<String>,
    /// Reasons and messages of all Explain actions so far.
    pub(crate) explained: Vec<(String, String)>,
    /// What plans asked for that has no place in this world.
    pub(crate) other: Vec<Action>,
    virtual_objects: BTreeMap<(String, ObjectKey), Value>,
    host_objects: BTreeMap<(String, String), Value>,
    referrers: BTreeMap<(String, ObjectKey), Vec<(&'static str, ObjectKey)>>,
    serial: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            view: view(),
            now: 1_800_000_000,
            taken: Vec::new(),
            explained: Vec::new(),
            other: Vec::new(),
            virtual_objects: BTreeMap::new(),
            host_objects: BTreeMap::new(),
            referrers: BTreeMap::new(),
            serial: 0,
        }
    }

    /// With a policy that names nothing.
    pub(crate) fn open() -> Self {
        Self { view: open_view(), ..Self::new() }
    }

    pub(crate) fn put_virtual(&mut self, kind: &str, object: Value) {
        let key = super::identity::key_of(&object);
        self.virtual_objects.insert((kind.to_owned(), key), object);
    }

    pub(crate) fn put_host(&mut self, kind: &str, object: Value) {
        self.host_objects.insert((kind.to_owned(), json::name(&object).to_owned()), object);
    }

    pub(crate) fn remove_virtual(&mut self, kind: &str, namespace: &str, name: &str) {
        self.virtual_objects.remove(&(kind.to_owned(), object_key(namespace, name)));
    }

    pub(crate) fn remove_host(&mut self, kind: &str, name: &str) {
        self.host_objects.remove(&(kind.to_owned(), name.to_owned()));
    }

    pub(crate) fn host(&self, kind: &str, name: &str) -> Option<Value> {
        self.host_objects.get(&(kind.to_owned(), name.to_owned())).cloned()
    }

    /// All of a kind in a namespace, "" for all.
    pub(crate) fn virtual_objects(&self, kind: &str, namespace: &str) -> Vec<Value> {
        let of_kind = self.virtual_objects.iter().filter(|((k, _), _)| k == kind);
        of_kind
            .filter(|((_, key), _)| namespace.is_empty() || key.namespace == namespace)
            .map(|(_, o)| o.clone())
            .collect()
    }

    pub(crate) fn virtual_one(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.virtual_objects.get(&(kind.to_owned(), object_key(namespace, name))).cloned()
    }

    pub(crate) fn change_host(&mut self, kind: &str, name: &str, change: impl FnOnce(&mut Value)) {
        change(self.host_objects.get_mut(&(kind.to_owned(), name.to_owned())).expect("exists"));
    }

    pub(crate) fn change_virtual(&mut self, kind: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        change(self.virtual_objects.get_mut(&(kind.to_owned(), object_key(namespace, name))).expect("exists"));
    }

    pub(crate) fn refer(&mut self, kind: &str, namespace: &str, name: &str) {
        self.refer_by(kind, namespace, name, ("Pod", object_key(namespace, "user")));
    }

    pub(crate) fn refer_by(&mut self, kind: &str, namespace: &str, name: &str, by: (&'static str, ObjectKey)) {
        self.referrers.entry((kind.to_owned(), object_key(namespace, name))).or_default().push(by);
    }

    pub(crate) fn forget_referrers(&mut self) {
        self.referrers.clear();
    }

    /// One plan, not applied.
    pub(crate) fn plan(&self, kind: &dyn ResourceSyncer, namespace: &str, name: &str) -> Plan {
        let key = object_key(namespace, name);
        let resource = kind.resource();
        let virtual_object = self.virtual_object(resource.kind, &key).map(|o| kind.project(o, Direction::Down));
        let host = self
            .host_objects
            .iter()
            .filter(|((k, _), _)| k == resource.kind)
            .find(|(_, o)| kind.virtual_key(o, &self.view).as_ref() == Some(&key))
            .map(|(_, o)| kind.project(o.clone(), Direction::Up));
        kind.plan(&key, virtual_object.as_ref(), host.as_ref(), &self.view, self)
    }

    /// One plan, applied; returns it.
    pub(crate) fn step(&mut self, kind: &dyn ResourceSyncer, namespace: &str, name: &str) -> Plan {
        let plan = self.plan(kind, namespace, name);
        for action in plan.actions.clone() {
            self.apply(action);
        }
        plan
    }

    /// Plans and applies until nothing is left to do; a plan must be settled after few rounds, and settled stays settled.
    pub(crate) fn settle(&mut self, kind: &dyn ResourceSyncer, namespace: &str, name: &str) {
        for _ in 0..5 {
            let plan = self.step(kind, namespace, name);
            if writes(&plan).is_empty() {
                return;
            }
        }
        panic!("never settles: {:#?}", writes(&self.plan(kind, namespace, name)));
    }

    pub(crate) fn apply(&mut self, action: Action) {
        if let Err(action) = self.try_apply(action) {
            panic!("refused: {action:#?}");
        }
    }

    fn try_apply(&mut self, action: Action) -> Result<(), Box<Action>> {
        match action {
            Action::OrElse { first, otherwise } => match self.try_apply(*first) {
                Ok(()) => Ok(()),
                Err(_) => self.try_apply(*otherwise),
            },
            Action::ApplyHost { resource, ref object } | Action::CreateHost { resource, ref object } => {
                let stored = self.host(resource.kind, json::name(object));
                let mut merged = object.clone();
                let kept =
                    stored.unwrap_or_else(|| json!({"metadata": {"uid": format!("host-{}", json::name(object))}}));
                if kept["status"].is_object() {
                    merged["status"] = kept["status"].clone();
                }
                merged["metadata"]["uid"] = kept["metadata"]["uid"].clone();
                // What the host's volume controllers wrote is not taken away by an apply that never said it.
                if let Some(volume) = kept["spec"].get("volumeName") {
                    merged["spec"]["volumeName"] = volume.clone();
                }
                if !self.allocate(&resource, &mut merged) {
                    return Err(Box::new(action));
                }
                self.put_host(resource.kind, merged);
                Ok(())
            }
            Action::PatchHost { resource, ref name, kind, ref patch, .. } => {
                let Some(mut object) = self.host(resource.kind, name) else { return Ok(()) };
                apply_patch(&mut object, patch, kind);
                if !self.allocate(&resource, &mut object) {
                    return Err(Box::new(action));
                }
                self.put_host(resource.kind, object);
                Ok(())
            }
            Action::DeleteHost { resource, name, uid, grace } => {
                if self.host(resource.kind, &name).is_some_and(|o| json::uid(&o) == uid) {
                    if resource.kind == "Pod" && grace != Some(0) {
                        self.change_host("Pod", &name, |o| mark_deleting(o, grace));
                    } else {
                        self.remove_host(resource.kind, &name);
                    }
                }
                Ok(())
            }
            other => self.apply_virtual(other),
        }
    }

    fn apply_virtual(&mut self, action: Action) -> Result<(), Box<Action>> {
        match action {
            Action::PatchVirtual { resource, key, kind, patch, .. } => {
                if let Some(object) = self.virtual_objects.get_mut(&(resource.kind.to_owned(), key)) {
                    if let Some(uid) = patch.pointer("/metadata/uid") {
                        assert_eq!(uid, &object["metadata"]["uid"], "precondition");
                    }
                    apply_patch(object, &patch, kind);
                }
            }
            Action::ApplyVirtual { resource, namespace, mut object } => {
                let key = object_key(&namespace, json::name(&object));
                let old = self.virtual_object(resource.kind, &key);
                if resource.kind == "Node" {
                    store_node(&mut object, old.as_ref());
                }
                let old = old.unwrap_or_else(|| json!({"metadata": {"uid": "made"}}));
                object["metadata"]["uid"] = old["metadata"]["uid"].clone();
                if resource.kind != "Event" {
                    object["status"] = old["status"].clone();
                }
                self.virtual_objects.insert((resource.kind.to_owned(), key), object);
            }
            Action::CreateVirtual { resource, namespace, mut object } => {
                self.serial += 1;
                object["metadata"]["uid"] = json!(format!("made-{}", self.serial));
                let key = object_key(&namespace, json::name(&object));
                self.virtual_objects.insert((resource.kind.to_owned(), key), object);
            }
            Action::DeleteVirtual { resource, key, uid, grace } => {
                let slot = (resource.kind.to_owned(), key);
                if let Some(object) = self.virtual_objects.get_mut(&slot).filter(|o| json::uid(o) == uid) {
                    if (resource.kind == "Pod" && grace != Some(0))
                        || !json::items(object, "/metadata/finalizers").is_empty()
                    {
                        mark_deleting(object, grace);
                    } else {
                        self.virtual_objects.remove(&slot);
                    }
                }
            }
            Action::BindVirtual { key, node, .. } => {
                if let Some(object) = self.virtual_objects.get_mut(&("Pod".to_owned(), key)) {
                    object["spec"]["nodeName"] = json!(node);
                }
            }
            Action::Explain { reason, message, .. } => self.explained.push((reason.to_owned(), message)),
            other => self.other.push(other),
        }
        Ok(())
    }

    /// What the host's API server does to Services: allocates, or refuses what is taken.
    fn allocate(&mut self, resource: &Resource, object: &mut Value) -> bool {
        if resource.kind != "Service" {
            return true;
        }
        if self.taken.iter().any(|taken| object["spec"].to_string().contains(taken)) {
            return false;
        }
        if json::text(object, "/spec/clusterIP").is_empty() && object["spec"]["type"] != "ExternalName" {
            self.serial += 1;
            object["spec"]["clusterIP"] = json!(format!("10.96.200.{}", self.serial));
            object["spec"]["clusterIPs"] = json!([object["spec"]["clusterIP"]]);
        }
        if object["spec"]["type"] == "NodePort" {
            for port in object["spec"]["ports"].as_array_mut().expect("ports") {
                if port["nodePort"].as_i64().unwrap_or_default() == 0 {
                    self.serial += 1;
                    port["nodePort"] = json!(32000 + self.serial);
                }
            }
        }
        true
    }
}

/// What a plan writes. Explanations are rate-limited by the engine, tokens are only made when they must be: both may be
/// repeated.
pub(crate) fn writes(plan: &Plan) -> Vec<Action> {
    let repeatable = |a: &&Action| matches!(a, Action::Explain { .. } | Action::EnsureTokens { .. });
    plan.actions.iter().filter(|a| !repeatable(a)).cloned().collect()
}

pub(crate) fn object_key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { namespace: namespace.to_owned(), name: name.to_owned() }
}

fn mark_deleting(object: &mut Value, grace: Option<u64>) {
    object["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z");
    object["metadata"]["deletionGracePeriodSeconds"] = json!(grace.unwrap_or(30));
}

/// What a real API server makes of an applied Node: fields that the apply is silent about stay (unless it had said them
/// before, which is not modelled), admission taints a new one, empty fields are not stored.
fn store_node(object: &mut Value, old: Option<&Value>) {
    for field in ["taints", "unschedulable"] {
        if object["spec"].get(field).is_none()
            && let Some(kept) = old.and_then(|old| old["spec"].get(field))
        {
            object["spec"][field] = kept.clone();
        }
    }
    if old.is_none() {
        let mut taints = json::items(object, "/spec/taints").to_vec();
        if !taints.iter().any(|taint| taint["key"] == "node.kubernetes.io/not-ready") {
            taints.push(json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}));
        }
        object["spec"]["taints"] = json!(taints);
    }
    let spec = object["spec"].as_object_mut().expect("a spec");
    spec.retain(|_, value| *value != json!([]) && *value != json!(false));
}

/// Plans with hostile JSON on either side, and with real objects that hold hostile JSON somewhere; none may panic.
pub(crate) fn hostile_plans(kind: &dyn ResourceSyncer, base: &Value) {
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let resource = kind.resource();
    let mut host = json!({"metadata": identity::metadata(&super::identity::kind_annotation(&resource), base, &view(), crate::names::Limit::Label).unwrap_or_default()});
    host["spec"] = base["spec"].clone();
    host["status"] = base["status"].clone();
    let sides = (
        prop_oneof![hostile(), poisoned(base.clone())],
        prop_oneof![hostile(), poisoned(host), poisoned(base.clone())],
        hostile(),
    );
    let key = super::identity::key_of(base);
    runner
        .run(&sides, |(virtual_object, host, other)| {
            let mut world = World::new();
            world.refer(resource.kind, &key.namespace, &key.name);
            for other_kind in ["Service", "Namespace", "Pod", "PersistentVolumeClaim", "Node"] {
                let named = |name: &str| json!({"metadata": {"name": name, "namespace": key.namespace}, "spec": other, "status": other});
                world.put_virtual(other_kind, named("other"));
                world.put_virtual(other_kind, other.clone());
                world.put_host(other_kind, named("other"));
            }
            let virtual_object = kind.project(virtual_object, Direction::Down);
            let _ = kind.virtual_key(&host, &world.view);
            let host = kind.project(host, Direction::Up);
            let _ = kind.references(&virtual_object);
            for (v, h) in [(Some(&virtual_object), Some(&host)), (Some(&virtual_object), None), (None, Some(&host))] {
                let _ = kind.plan(&key, v, h, &world.view, &world);
            }
            Ok(())
        })
        .expect("no panic");
}
