//! PersistentVolumeClaims go down, the volumes they are bound to come up.
//!
//! The tenant sees a volume of its claim's size and class, but nothing of the driver, its secrets or where the data is.
//! What a user binds by hand is refused, see `claim/static_volume.rs`.

use serde_json::{Map, Value, json};

use super::super::kind::{
    Action, Direction, HostScope, Lookup, ObjectKey, Plan, Reference, ResourceSyncer, TenantView,
};
use super::identity::{host_name, is_for, key_of, kind_annotation, recorded_key};
use super::projection::{strip_last_applied, strip_metadata};
use super::writes::{apply_down, delete_virtual, explain, patch_virtual};
use crate::kubernetes::resources::{CLAIMS, VOLUMES};
use crate::kubernetes::{PatchKind, Resource};
use crate::names::{Limit, keys};
use crate::translate::{diff, identity, json, legacy, policy};

mod static_volume;

/// Annotations that volume controllers of either side write.
const BINDING: &[&str] = &[
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Driver of volumes as tenants see them.
const DRIVER: &str = "portico.dev";

/// Claims.
#[derive(Debug)]
pub struct ClaimKind;

/// Volumes.
#[derive(Debug)]
pub struct VolumeKind;

impl ResourceSyncer for ClaimKind {
    fn resource(&self) -> Resource {
        CLAIMS
    }

    fn counted(&self) -> Option<&'static [&'static str]> {
        Some(&["Pending", "Bound", "Lost"])
    }

    fn host_scope(&self) -> HostScope {
        HostScope::Tenant
    }

    fn project(&self, object: Value, _side: Direction) -> Value {
        strip_last_applied(strip_metadata(object, &[]))
    }

    fn virtual_key(&self, host: &Value, view: &TenantView) -> Option<ObjectKey> {
        recorded_key(&CLAIMS, host, view, Limit::Subdomain)
    }

    fn host_name(&self, key: &ObjectKey, view: &TenantView) -> Option<String> {
        host_name(&CLAIMS, key, view, Limit::Subdomain)
    }

    fn plan(
        &self,
        _key: &ObjectKey,
        virtual_object: Option<&Value>,
        host: Option<&Value>,
        view: &TenantView,
        lookup: &dyn Lookup,
    ) -> Plan {
        if let (Some(object), None) = (virtual_object, host)
            && !json::is_deleting(object)
            && let Some(plan) = never_made(object, view, lookup)
        {
            return plan;
        }
        if let (Some(object), Some(host)) = (virtual_object, host)
            && is_for(host, object)
            && json::is_deleting(host)
            && !json::is_deleting(object)
        {
            return Plan { actions: delete_virtual(CLAIMS, object, None), ..Plan::default() };
        }
        let mut actions = if is_beyond_intent(virtual_object, host) {
            Vec::new()
        } else {
            apply_down(CLAIMS, virtual_object, host, |object| claim_intent(object, view), |object| object)
        };
        let mut requires = Vec::new();
        if let (Some(object), Some(host)) = (virtual_object, host)
            && is_for(host, object)
        {
            actions.extend(
                static_volume::mismatch(object, host).unwrap_or_else(|| {
                    binding_up(object, host).into_iter().chain(claim_status(object, host)).collect()
                }),
            );
            let volume = json::text(host, "/spec/volumeName");
            if !volume.is_empty() {
                let key = ObjectKey { namespace: String::new(), name: volume.to_owned() };
                requires.push(Reference { kind: "PersistentVolume", key });
            }
        }
        Plan { actions, requires, ..Plan::default() }
    }
}

/// A claim that vcluster made from a source that Portico would not use. It holds data: it stays, and is written no more.
fn is_beyond_intent(virtual_object: Option<&Value>, host: Option<&Value>) -> bool {
    let (Some(object), Some(host)) = (virtual_object, host) else { return false };
    foreign_source(object).is_some() && is_for(host, object) && !json::is_deleting(object)
}

/// A claim that must not be made on the host (again).
fn never_made(object: &Value, view: &TenantView, lookup: &dyn Lookup) -> Option<Plan> {
    if let Some(why) = denied(object, view) {
        let message = format!("not made on the host: {why}");
        return Some(Plan { actions: vec![explain(&CLAIMS, object, "SyncDenied", message)], ..Plan::default() });
    }
    if let Some(field) = foreign_source(object) {
        let message = format!("not made on the host: spec.{field} may only name a PersistentVolumeClaim");
        return Some(Plan { actions: vec![explain(&CLAIMS, object, "SyncDenied", message)], ..Plan::default() });
    }
    // Bound once, and the host claim is gone: so is the data. A new volume under the old name would hide that.
    let lost = json::text(object, "/status/phase");
    if json::text(object, "/spec/volumeName").is_empty() || !matches!(lost, "Bound" | "Lost") {
        let denied = static_volume::refusal(object, lookup)?;
        return Some(Plan { actions: vec![denied], ..Plan::default() });
    }
    let mut actions = Vec::new();
    if lost == "Bound" {
        let message = "the volume behind this claim is gone on the host".to_owned();
        actions.push(patch_virtual(CLAIMS, object, "status", ("status", json!({"phase": "Lost"}))));
        actions.push(explain(&CLAIMS, object, "ClaimLost", message));
    }
    Some(Plan { actions, ..Plan::default() })
}

/// What the policy has against it.
fn denied(object: &Value, view: &TenantView) -> Option<String> {
    let class = class(object);
    if let Some(class) = class.filter(|class| !class.is_empty() && !view.policy.storage_class(class)) {
        return Some(format!("the StorageClass {class:?} is not allowed ({})", policy::decides("storageClasses")));
    }
    let binds = json::has(object, "/spec/selector") || class == Some("");
    (binds && !view.policy.static_volumes()).then(|| {
        let what = "spec.selector and the StorageClass \"\" may bind volumes that were made for others";
        format!("{what} ({})", policy::decides("staticVolumes"))
    })
}

/// The class, by the field or the annotation that came before it; None: the default one.
fn class(object: &Value) -> Option<&str> {
    let of_field = object.pointer("/spec/storageClassName").and_then(Value::as_str);
    let annotations = object.pointer("/metadata/annotations").and_then(|all| all.get(CLASS_ANNOTATION));
    annotations.and_then(Value::as_str).or(of_field)
}

/// The data source that is no claim of the same namespace: on the host its name could be anybody's.
fn foreign_source(object: &Value) -> Option<&'static str> {
    ["dataSource", "dataSourceRef"].into_iter().find(|field| {
        object.pointer(&format!("/spec/{field}")).filter(|source| !source.is_null()).is_some_and(|source| {
            let own = json::text(source, "/namespace");
            json::text(source, "/kind") != "PersistentVolumeClaim"
                || !json::text(source, "/apiGroup").is_empty()
                || !(own.is_empty() || own == json::namespace(object))
        })
    })
}

fn claim_intent(object: &Value, view: &TenantView) -> Option<Value> {
    if foreign_source(object).is_some() {
        return None;
    }
    let mut metadata = identity::metadata(&kind_annotation(&CLAIMS), object, view, Limit::Subdomain)?;
    json::within(&mut metadata, "annotations", |annotations| {
        annotations.retain(|key, _| {
            let own = keys::own(key);
            !BINDING.contains(&&*own) && own != SELECTED_NODE
        });
    });
    let source = object.get("spec").unwrap_or(&Value::Null);
    let mut spec = json::pick(source, &["accessModes", "resources", "storageClassName", "volumeMode", "selector"]);
    if let Some(class) = class(object) {
        spec.insert("storageClassName".to_owned(), json!(class));
    }
    for field in ["dataSource", "dataSourceRef"] {
        let name = json::text(source, &format!("/{field}/name"));
        if !name.is_empty() {
            let name =
                identity::reference("PersistentVolumeClaim", json::namespace(object), name, view, Limit::Subdomain);
            spec.insert(field.to_owned(), json!({"kind": "PersistentVolumeClaim", "name": name}));
        }
    }
    Some(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}))
}

/// Volume name, default class and the annotations that go with a binding.
fn binding_up(object: &Value, host: &Value) -> Option<Action> {
    let mut spec = Map::new();
    for field in ["volumeName", "storageClassName"] {
        let (own, wanted) =
            (json::text(object, &format!("/spec/{field}")), json::text(host, &format!("/spec/{field}")));
        let unset = own.is_empty() && (field == "volumeName" || !json::has(object, "/spec/storageClassName"));
        if unset && !wanted.is_empty() {
            spec.insert(field.to_owned(), json!(wanted));
        }
    }
    let differing = |key: &&&str| {
        let wanted = identity::annotation(host, key);
        !wanted.is_empty() && wanted != identity::annotation(object, key)
    };
    let annotations: Map<String, Value> = BINDING
        .iter()
        .filter(differing)
        .map(|key| ((*key).to_owned(), json!(identity::annotation(host, key))))
        .collect();
    if spec.is_empty() && annotations.is_empty() {
        return None;
    }
    let mut patch = json!({"metadata": {"uid": json::uid(object)}, "spec": spec});
    if !annotations.is_empty()
        && let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("annotations".to_owned(), Value::Object(annotations));
    }
    Some(Action::PatchVirtual { resource: CLAIMS, key: key_of(object), subresource: "", kind: PatchKind::Merge, patch })
}

fn claim_status(object: &Value, host: &Value) -> Option<Action> {
    let wanted = json::pick(host.get("status")?, &["phase", "accessModes", "capacity", "conditions"]);
    let found = object.get("status").unwrap_or(&Value::Null);
    let mut patch = diff::changed(found, &wanted).unwrap_or_default();
    if !wanted.contains_key("conditions") && json::has(found, "/conditions") {
        patch.insert("conditions".to_owned(), Value::Null);
    }
    (!patch.is_empty()).then(|| patch_virtual(CLAIMS, object, "status", ("status", Value::Object(patch))))
}

impl ResourceSyncer for VolumeKind {
    fn resource(&self) -> Resource {
        VOLUMES
    }

    fn host_scope(&self) -> HostScope {
        HostScope::Cluster
    }

    fn project(&self, object: Value, side: Direction) -> Value {
        let object = strip_last_applied(strip_metadata(object, &[]));
        if side == Direction::Down {
            return object;
        }
        let part = |from: &str, fields: &[&str]| json::pick(object.get(from).unwrap_or(&Value::Null), fields);
        let spec = [
            "capacity",
            "accessModes",
            "volumeMode",
            "storageClassName",
            "persistentVolumeReclaimPolicy",
            "claimRef",
            "nodeAffinity",
            "mountOptions",
        ];
        json!({
            "metadata": part("metadata", &["name", "uid", "resourceVersion", "deletionTimestamp"]),
            "spec": part("spec", &spec),
            "status": part("status", &["phase"]),
        })
    }

    /// Any volume that is bound to a claim in the tenant's host namespace; whose claim it is, the plan finds out.
    fn virtual_key(&self, host: &Value, view: &TenantView) -> Option<ObjectKey> {
        (json::text(host, "/spec/claimRef/namespace") == view.namespace().as_str())
            .then(|| ObjectKey { namespace: String::new(), name: json::name(host).to_owned() })
    }

    fn host_name(&self, key: &ObjectKey, _view: &TenantView) -> Option<String> {
        Some(key.name.clone())
    }

    fn references(&self, virtual_object: &Value) -> Vec<Reference> {
        static_volume::reserved(virtual_object).into_iter().collect()
    }

    fn plan(
        &self,
        _key: &ObjectKey,
        virtual_object: Option<&Value>,
        host: Option<&Value>,
        view: &TenantView,
        lookup: &dyn Lookup,
    ) -> Plan {
        let claim = host.and_then(|host| claim_of(host, view, lookup));
        match (virtual_object, host.zip(claim)) {
            // Its source cannot change, so it stays as vcluster made it up, until its claim goes.
            (Some(object), None) if legacy::is_made_up(object) => volume_gone(object),
            (Some(object), _) if static_volume::is_of_the_tenant(object) => {
                let said = (!json::is_deleting(object)).then(|| static_volume::unused(object));
                Plan { actions: said.into_iter().collect(), ..Plan::default() }
            }
            (Some(object), _) if !identity::is_from_host(object) => Plan::default(),
            (object, Some((host, claim))) => volume_up(object, host, &claim),
            (Some(object), None) => volume_gone(object),
            (None, None) => Plan::default(),
        }
    }
}

/// The virtual claim behind a host volume, if it is this tenant's: the recorded identity of the host claim says so, and
/// the host claim is the very one that the volume is bound to.
fn claim_of(host: &Value, view: &TenantView, lookup: &dyn Lookup) -> Option<Value> {
    let claim = lookup.host_object_named("PersistentVolumeClaim", json::text(host, "/spec/claimRef/name"))?;
    if json::uid(&claim) != json::text(host, "/spec/claimRef/uid") {
        return None;
    }
    let key = recorded_key(&CLAIMS, &claim, view, Limit::Subdomain)?;
    lookup.virtual_object("PersistentVolumeClaim", &key).filter(|object| is_for(&claim, object))
}

fn volume_up(object: Option<&Value>, host: &Value, claim: &Value) -> Plan {
    let mut spec = host.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    spec.insert("csi".to_owned(), json!({"driver": DRIVER, "volumeHandle": json::name(host)}));
    let reference = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": json::namespace(claim),
        "name": json::name(claim), "uid": json::uid(claim),
    });
    spec.insert("claimRef".to_owned(), reference);
    let mut intent = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": json::name(host), "labels": {identity::FROM_HOST: "true"}},
        "spec": spec,
    });
    identity::stamp(&mut intent);
    let mut actions = Vec::new();
    if !object.is_some_and(|object| json::is_deleting(object) || identity::is_applied(object, &intent)) {
        actions.push(Action::ApplyVirtual { resource: VOLUMES, namespace: String::new(), object: intent });
    }
    if let Some(object) = object {
        let wanted = json::text(host, "/status/phase");
        if !wanted.is_empty() && wanted != json::text(object, "/status/phase") {
            actions.push(patch_virtual(VOLUMES, object, "status", ("status", json!({"phase": wanted}))));
        }
    }
    Plan { actions, ..Plan::default() }
}

/// Bound volumes are protected in the tenant: released first.
fn volume_gone(object: &Value) -> Plan {
    let mut actions = Vec::new();
    if json::text(object, "/status/phase") == "Bound" {
        actions.push(patch_virtual(VOLUMES, object, "status", ("status", json!({"phase": "Released"}))));
    }
    actions.extend(delete_virtual(VOLUMES, object, None));
    Plan { actions, ..Plan::default() }
}

#[cfg(test)]
mod tests;
