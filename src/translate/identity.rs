//! Who a host object stands for: labels, annotations and owner on the way down, the recorded identity on the way back.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use super::{Owner, View, diff, json, labels};
use crate::crd::policy::Annotated;
use crate::names::{self, HostName, Limit, VirtualName, VirtualNamespace, keys};

/// Annotation: fingerprint of the intent that was last written, so that a removal in the tenant is noticed and a host
/// controller that edits the object is not fought.
pub const APPLIED: &str = "portico.dev/applied";
/// Annotation: label keys that came from the tenant, comma-separated (objects that are updated by patches).
pub const LABEL_KEYS: &str = "portico.dev/label-keys";
/// Annotation: annotation keys that came from the tenant, comma-separated.
pub const ANNOTATION_KEYS: &str = "portico.dev/annotation-keys";
/// Label on objects that Portico made inside a tenant from a host object (nodes, classes, volumes).
pub const FROM_HOST: &str = "portico.dev/from-host";

/// The host name of a virtual object of this kind (with or without its group); None when its name or namespace is not valid. What was named by an older formula
/// keeps its name, whatever refers to it.
pub fn host_name(kind: &str, namespace: &str, name: &str, view: &View, limit: Limit) -> Option<HostName> {
    if let Some(alias) = view.placement.aliases.get(kind, namespace, name) {
        return HostName::parse(alias).ok();
    }
    formula(namespace, name, view, limit)
}

/// The host name by today's formula.
fn formula(namespace: &str, name: &str, view: &View, limit: Limit) -> Option<HostName> {
    let name = VirtualName::parse(name).ok()?;
    let namespace = VirtualNamespace::parse(namespace).ok()?;
    Some(names::host_name(&name, &namespace, view.cluster(), limit))
}

/// The host name by the formula of vcluster; often the same as today's.
pub fn legacy_host_name(namespace: &str, name: &str, view: &View) -> Option<HostName> {
    let name = VirtualName::parse(name).ok()?;
    let namespace = VirtualNamespace::parse(namespace).ok()?;
    names::legacy_host_name(&name, &namespace, view.cluster())
}

/// The host name of something made for a virtual object.
pub fn derived_host_name(purpose: &str, namespace: &str, name: &str, view: &View, limit: Limit) -> Option<HostName> {
    let name = VirtualName::parse(name).ok()?;
    let namespace = VirtualNamespace::parse(namespace).ok()?;
    Some(names::derived_host_name(purpose, &name, &namespace, view.cluster(), limit))
}

/// Like [`host_name`] for a reference inside an object. A reference that names nothing valid stays a name that nothing
/// on the host can have, so it never reaches a foreign object.
pub fn reference(kind: &str, namespace: &str, name: &str, view: &View, limit: Limit) -> String {
    host_name(kind, namespace, name, view, limit).map_or_else(|| "invalid-reference".to_owned(), |n| n.to_string())
}

/// `group/Kind`, or `Kind` in the core group: the value of [`keys::OBJECT_KIND`].
pub fn kind_of(group: &str, kind: &str) -> String {
    if group.is_empty() { kind.to_owned() } else { format!("{group}/{kind}") }
}

/// Whether a tenant's annotation must not reach the host: Portico's own, the copy that `kubectl apply` keeps (size), and
/// what makes the host's kubelet or API server treat a pod as a static one.
pub(in crate::translate) fn is_dropped_annotation(key: &str) -> bool {
    keys::is_reserved(key)
        || key == "kubectl.kubernetes.io/last-applied-configuration"
        || key.starts_with("kubernetes.io/config.")
}

/// The tenant's labels as they reach the host.
pub fn tenant_labels(virtual_object: &Value, view: &View) -> BTreeMap<String, String> {
    let all = json::strings(virtual_object, "/metadata/labels");
    let on_host = |(key, value): (String, String)| {
        let value = labels::value(&key, &value, view).into_owned();
        labels::key(&key, view).map(|key| (key.into_owned(), value))
    };
    all.into_iter().filter_map(on_host).collect()
}

/// The annotations that are the tenant's to know of: neither Portico's own nor what only other clusters read.
pub fn tenant_annotations(object: &Value) -> BTreeMap<String, String> {
    let mut annotations = json::strings(object, "/metadata/annotations");
    annotations.retain(|key, _| !is_dropped_annotation(key));
    annotations
}

/// Those of a virtual object of this kind (with or without its group) as they stand on the host.
pub fn host_annotations(kind: &str, virtual_object: &Value, view: &View) -> BTreeMap<String, String> {
    let of = annotated(kind);
    let all = tenant_annotations(virtual_object).into_iter();
    all.filter_map(|(key, value)| Some((annotation_key(of, &key, view)?, value))).collect()
}

/// Where an annotation of the tenant's stands on the host: under its own key when the policy lists it, else where no
/// controller of the host looks for it, but pods can read it and a lost store can be restored from it.
pub fn annotation_key(of: Annotated, key: &str, view: &View) -> Option<String> {
    if view.policy.annotation(of, key) { Some(key.to_owned()) } else { keys::moved(key) }
}

/// Whose annotations those of a kind are for the policy.
fn annotated(kind: &str) -> Annotated {
    match kind.rsplit('/').next() {
        Some("Pod") => Annotated::Pods,
        Some("Service") => Annotated::Services,
        Some("Ingress") => Annotated::Ingresses,
        _ => Annotated::Others,
    }
}

/// Whole metadata of the host object that stands for a virtual one: name, namespace, labels, annotations, owner. Nothing
/// else of the tenant's metadata (finalizers, owners, generateName) crosses. None when the name is not valid.
pub fn metadata(kind: &str, virtual_object: &Value, view: &View, limit: Limit) -> Option<Map<String, Value>> {
    let (name, namespace) = (json::name(virtual_object), json::namespace(virtual_object));
    let host_name = host_name(kind, namespace, name, view, limit)?;
    let mut labels = tenant_labels(virtual_object, view);
    labels.insert(keys::CLUSTER.to_owned(), view.cluster().to_string());
    labels.insert(keys::NAMESPACE.to_owned(), namespace.to_owned());
    let mut annotations = host_annotations(kind, virtual_object, view);
    for (key, value) in [
        (keys::OBJECT_KIND, kind),
        (keys::OBJECT_NAME, name),
        (keys::OBJECT_NAMESPACE, namespace),
        (keys::OBJECT_UID, json::uid(virtual_object)),
    ] {
        annotations.insert(key.to_owned(), value.to_owned());
    }
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(host_name.as_str()));
    metadata.insert("namespace".to_owned(), json!(view.namespace().as_str()));
    metadata.insert("labels".to_owned(), json!(labels));
    metadata.insert("annotations".to_owned(), json!(annotations));
    if let Some(owner) = &view.owner {
        metadata.insert("ownerReferences".to_owned(), json!([owner_reference(owner)]));
    }
    Some(metadata)
}

/// A reference to the owner, as it stands in host objects.
pub fn owner_reference(owner: &Owner) -> Value {
    let mut reference = json!({
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
        "blockOwnerDeletion": false,
    });
    if owner.controller {
        reference["controller"] = json!(true);
    }
    reference
}

/// The owners that a host object should have when its cluster has moved to another form of Portico, and the uids of those
/// that it must lose; None while they are as intended. Owners that others added stay.
pub fn owners_moved(host: &Value, intent: &Map<String, Value>) -> Option<(Vec<Value>, Vec<String>)> {
    let wanted = intent.get("ownerReferences").and_then(Value::as_array)?.first()?;
    let is_wanted = |owner: &Value| owner.get("uid") == wanted.get("uid");
    let is_former = |owner: &Value| {
        !is_wanted(owner)
            && matches!(
                (json::text(owner, "/apiVersion"), json::text(owner, "/kind")),
                ("portico.dev/v1alpha1", "VirtualCluster") | ("apps/v1", "StatefulSet") | ("v1", "Service")
            )
    };
    let found = json::items(host, "/metadata/ownerReferences");
    let former: Vec<String> = found.iter().filter(|o| is_former(o)).map(|o| json::text(o, "/uid").to_owned()).collect();
    if former.is_empty() && found.iter().any(is_wanted) {
        return None;
    }
    let mut owners: Vec<Value> = found.iter().filter(|o| !is_former(o) && !is_wanted(o)).cloned().collect();
    owners.push(wanted.clone());
    Some((owners, former))
}

/// The virtual object that a host object stands for: namespace and name. None unless *all* marks fit and the host name
/// is the one that this virtual object would get, or would have got from vcluster, so copies that host controllers make of
/// our metadata are not ours.
pub fn virtual_key(kind: &str, host: &Value, view: &View, limit: Limit) -> Option<(String, String)> {
    if json::namespace(host) != view.namespace().as_str() {
        return None;
    }
    let labels = host.pointer("/metadata/labels")?;
    let annotations = host.pointer("/metadata/annotations")?;
    let field = |map: &Value, key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
    if field(labels, keys::CLUSTER)? != view.cluster().as_str() || field(annotations, keys::OBJECT_KIND)? != kind {
        return None;
    }
    let (namespace, name) = (field(annotations, keys::OBJECT_NAMESPACE)?, field(annotations, keys::OBJECT_NAME)?);
    let is_name = |candidate: Option<HostName>| candidate.is_some_and(|c| c.as_str() == json::name(host));
    let fits = is_name(formula(&namespace, &name, view, limit)) || is_name(legacy_host_name(&namespace, &name, view));
    fits.then_some((namespace, name))
}

/// uid of the virtual object for which a host object was written, "" when none is recorded.
pub fn recorded_uid(host: &Value) -> &str {
    annotation(host, keys::OBJECT_UID)
}

/// One annotation, or "".
pub fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    object.pointer("/metadata/annotations").and_then(|a| a.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// One label, or "".
pub fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    object.pointer("/metadata/labels").and_then(|a| a.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// Whether Portico made this object inside a tenant.
pub fn is_from_host(virtual_object: &Value) -> bool {
    !label(virtual_object, FROM_HOST).is_empty()
}

/// Puts the fingerprint of an intent into its own annotations.
pub fn stamp(intent: &mut Value) {
    let fingerprint = diff::fingerprint(intent);
    set_annotation(intent, APPLIED, fingerprint);
}

/// Sets one annotation of an object.
pub fn set_annotation(object: &mut Value, key: &str, value: String) {
    if let Value::Object(map) = object {
        let metadata = json::object(map, "metadata");
        json::object(metadata, "annotations").insert(key.to_owned(), Value::String(value));
    }
}

/// Whether `actual` is what the stamped `intent` asks for.
pub fn is_applied(actual: &Value, intent: &Value) -> bool {
    let fields = |value: &Value| -> Map<String, Value> {
        let map = value.as_object().into_iter().flatten();
        map.filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    annotation(actual, APPLIED) == annotation(intent, APPLIED) && diff::covers(actual, &Value::Object(fields(intent)))
}

/// Records which label and annotation keys are the tenant's, for [`metadata_patch`].
pub fn record_keys(metadata: &mut Map<String, Value>) {
    let list = |metadata: &Map<String, Value>, field: &str| {
        let keys = metadata.get(field).and_then(Value::as_object).into_iter().flat_map(Map::keys);
        keys.filter(|key| !keys::is_mark(key)).cloned().collect::<Vec<_>>().join(",")
    };
    let (labels, annotations) = (list(metadata, "labels"), list(metadata, "annotations"));
    let target = json::object(metadata, "annotations");
    for (key, value) in [(LABEL_KEYS, labels), (ANNOTATION_KEYS, annotations)] {
        if !value.is_empty() {
            target.insert(key.to_owned(), Value::String(value));
        }
    }
}

/// Merge patch of `metadata` that makes the host's labels and annotations as intended: sets what differs, removes what
/// once came from the tenant (or is ours) and is no longer wanted, leaves what others put there.
pub fn metadata_patch(host: &Value, intent: &Map<String, Value>) -> Option<Value> {
    let mut patch = Map::new();
    for (field, record) in [("labels", LABEL_KEYS), ("annotations", ANNOTATION_KEYS)] {
        let empty = Map::new();
        let wanted = intent.get(field).and_then(Value::as_object).unwrap_or(&empty);
        let found = host.pointer("/metadata").and_then(|m| m.get(field)).and_then(Value::as_object).unwrap_or(&empty);
        let recorded: HashSet<&str> = annotation(host, record).split(',').collect();
        let mut changes: Map<String, Value> =
            wanted.iter().filter(|(k, v)| found.get(*k) != Some(v)).map(|(k, v)| (k.clone(), v.clone())).collect();
        for key in found.keys().filter(|key| !wanted.contains_key(*key)) {
            if recorded.contains(key.as_str()) || is_ours_to_remove(key) {
                changes.insert(key.clone(), Value::Null);
            }
        }
        if !changes.is_empty() {
            patch.insert(field.to_owned(), Value::Object(changes));
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Bookkeeping that a kind stopped wanting. Other reserved keys may belong to other parts of Portico.
fn is_ours_to_remove(key: &str) -> bool {
    [LABEL_KEYS, ANNOTATION_KEYS, keys::PENDING].contains(&key)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{hostile, view};
    use super::*;
    use proptest::prelude::*;

    fn object() -> Value {
        json!({"metadata": {
            "name": "web", "namespace": "default", "uid": "u1", "finalizers": ["a/b"], "generateName": "web-",
            "labels": {"app": "web", "portico.dev/cluster": "other", "x.portico.dev/y": "z"},
            "annotations": {"note": "n", "portico.dev/object-uid": "forged", "kubernetes.io/config.mirror": "m",
                "kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "r", "uid": "u"}],
        }})
    }

    #[test]
    fn host_metadata_carries_identity_and_no_tenant_machinery() {
        let metadata = metadata("Service", &object(), &view(), Limit::Label).expect("valid");
        assert_eq!(
            Value::Object(metadata),
            json!({
                "name": "web-x-default-x-vc1", "namespace": "team-a",
                "labels": {"app": "web", "portico.dev/cluster": "vc1", "portico.dev/namespace": "default"},
                "annotations": {"tenant.portico.dev/note": "n", "portico.dev/object-kind": "Service", "portico.dev/object-name": "web",
                    "portico.dev/object-namespace": "default", "portico.dev/object-uid": "u1"},
                "ownerReferences": [{"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster", "name": "vc1",
                    "uid": "vc-uid", "controller": true, "blockOwnerDeletion": false}],
            })
        );
    }

    #[test]
    fn identity_comes_back_only_when_every_mark_fits() {
        let host = json!({"metadata": metadata("Service", &object(), &view(), Limit::Label).expect("valid")});
        let key = Some(("default".to_owned(), "web".to_owned()));
        assert_eq!(virtual_key("Service", &host, &view(), Limit::Label), key);
        assert_eq!(virtual_key("Endpoints", &host, &view(), Limit::Label), None);
        for (pointer, value) in [
            ("/metadata/name", "copy"),
            ("/metadata/namespace", "team-b"),
            ("/metadata/labels/portico.dev~1cluster", "vc2"),
            ("/metadata/annotations/portico.dev~1object-name", "other"),
        ] {
            let mut copy = host.clone();
            *copy.pointer_mut(pointer).expect("exists") = json!(value);
            assert_eq!(virtual_key("Service", &copy, &view(), Limit::Label), None, "{pointer}");
        }
    }

    #[test]
    fn removed_tenant_keys_go_and_foreign_ones_stay() {
        let mut old = metadata("Pod", &object(), &view(), Limit::Subdomain).expect("valid");
        record_keys(&mut old);
        let mut host = json!({"metadata": old});
        host["metadata"]["labels"]["host.example/added"] = json!("1");
        let mut bare = object();
        bare["metadata"]["labels"] = json!({"tier": "x"});
        let mut wanted = metadata("Pod", &bare, &view(), Limit::Subdomain).expect("valid");
        record_keys(&mut wanted);
        let patch = metadata_patch(&host, &wanted).expect("differs");
        assert_eq!(patch["labels"], json!({"app": null, "tier": "x"}));
        assert_eq!(patch["annotations"], json!({"portico.dev/label-keys": "tier"}));
    }

    proptest! {
        #[test]
        fn nothing_reserved_survives(labels in prop::collection::btree_map("([a-z]{1,3}[.])?portico[.]dev/[a-z]{1,9}", "[a-z]{0,5}", 0..6)) {
            let object = json!({"metadata": {"name": "a", "namespace": "b", "uid": "u", "labels": labels, "annotations": labels}});
            let metadata = metadata("Pod", &object, &view(), Limit::Subdomain).expect("valid");
            prop_assert_eq!(&metadata["labels"], &json!({"portico.dev/cluster": "vc1", "portico.dev/namespace": "b"}));
            prop_assert_eq!(metadata["annotations"].as_object().map(Map::len), Some(4));
        }

        #[test]
        fn never_panics(object in hostile(), host in hostile()) {
            let _ = metadata("Pod", &object, &view(), Limit::Subdomain);
            let _ = virtual_key("Pod", &host, &view(), Limit::Subdomain);
            let mut copy = object.clone();
            stamp(&mut copy);
            let _ = is_applied(&host, &copy);
            if let Value::Object(map) = object { let _ = metadata_patch(&host, &map); }
        }
    }
}
