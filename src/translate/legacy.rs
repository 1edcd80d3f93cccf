//! Host objects that vcluster made (0.3 to 0.20, all in one namespace): whose they are, and the patch by which they become
//! Portico's without being made again.
//!
//! Promises: an object is ours only when its marker, its name, its namespace label, its owner and (pods) its recorded uid
//! all fit one virtual object; a patch names the object's uid and changes metadata only; what a running pod reads of its own
//! metadata stays. Must not know how objects are listed or written.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{View, identity, ingress, json, pod, service};
use crate::names::{self, Limit, keys};

mod fields;
#[cfg(test)]
mod fuzzed;
mod labels;

use labels::PREFIX;
pub use labels::{ADOPTED, ALSO_USES, MANAGED_BY, keep_current};

/// Label: the virtual namespace, alone or with the cluster's name.
const NAMESPACE: &str = "vcluster.loft.sh/namespace";
/// Annotations that record name, namespace and uid, by newer and older releases.
const RECORDS: &[[&str; 3]] = &[
    ["vcluster.loft.sh/object-name", "vcluster.loft.sh/object-namespace", "vcluster.loft.sh/object-uid"],
    ["vcluster.loft.sh/name", "vcluster.loft.sh/namespace", "vcluster.loft.sh/uid"],
];

/// Labels, inside a tenant, of nodes and volumes that vcluster made up.
const MADE_UP: &[&str] = &["vcluster.loft.sh/fake-node", "vcluster.loft.sh/fake-pv"];

/// A virtual object's namespace and name.
pub type Key = (String, String);

/// What of the whole matters for one object.
#[derive(Debug, Clone, Copy, Default)]
pub struct Around<'a> {
    /// The tenant's Services, when Endpoints are judged.
    pub services: &'a [Value],
    /// Pods that are not scheduled yet select others by old labels: these stay then.
    pub keep_labels: bool,
}

/// What becomes of an old host object.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It stands for this virtual object: a merge patch makes it Portico's.
    Adopt {
        /// Namespace and name in the tenant.
        key: Key,
        /// For the host object.
        patch: Value,
    },
    /// Its virtual object is gone. Marked with whose it was, it is what Portico knows as an orphan, and goes as those do.
    LeftOver {
        /// Whose it was.
        key: Key,
        /// For the host object.
        patch: Value,
    },
    /// The host's own controllers keep it from now on: the old marks go.
    Release {
        /// For the host object.
        patch: Value,
    },
    /// Nobody touches it.
    Leave {
        /// The virtual object whose name on the host it takes.
        key: Option<Key>,
        /// For people.
        why: &'static str,
    },
}

/// Virtual objects by the host name that vcluster gave them. Several can share one.
pub fn by_old_name<'a>(objects: &'a [Value], view: &View) -> BTreeMap<String, Vec<&'a Value>> {
    let mut found: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for object in objects {
        if let Some(name) = old_name(json::namespace(object), json::name(object), view) {
            found.entry(name).or_default().push(object);
        }
    }
    found
}

/// Whether a pod that is not scheduled yet selects others by labels of vcluster.
pub fn waits_for_old_labels(host_pod: &Value) -> bool {
    let selects = |pointer: &str| host_pod.pointer(pointer).is_some_and(|part| part.to_string().contains(PREFIX));
    json::text(host_pod, "/spec/nodeName").is_empty()
        && (selects("/spec/affinity") || selects("/spec/topologySpreadConstraints"))
}

/// What becomes of one host object of a kind; `candidates` are the living virtual objects of that old name.
pub fn judge(kind: &str, host: &Value, candidates: &[&Value], around: Around<'_>, view: &View) -> Verdict {
    if identity::label(host, MANAGED_BY) != view.cluster().as_str()
        || json::namespace(host) != view.namespace().as_str()
    {
        return Verdict::Leave { key: None, why: "its marker names another cluster" };
    }
    if is_of_another(host, view) {
        return Verdict::Leave { key: None, why: "it belongs to another cluster's StatefulSet or Service" };
    }
    let label = identity::label(host, NAMESPACE);
    let mut fitting = candidates.iter().filter(|object| namespace_labels(object, view).iter().any(|l| l == label));
    match (fitting.next(), fitting.next()) {
        (Some(object), None) => adopt(kind, host, object, around, view),
        (Some(_), Some(_)) => {
            Verdict::Leave { key: None, why: "two virtual objects have its name and its namespace label" }
        }
        (None, _) => left_over(kind, host, around, view),
    }
}

/// Whether vcluster made up this node or volume inside a tenant.
pub fn is_made_up(virtual_object: &Value) -> bool {
    MADE_UP.iter().any(|label| identity::label(virtual_object, label) == "true")
}

fn adopt(kind: &str, host: &Value, object: &Value, around: Around<'_>, view: &View) -> Verdict {
    let key = (json::namespace(object).to_owned(), json::name(object).to_owned());
    if let Some(why) = obstacle(kind, host, object, view) {
        return Verdict::Leave { key: Some(key), why };
    }
    if kind == "Endpoints" && is_kept_by_the_host(&key, around.services) {
        return Verdict::Release { patch: released(host) };
    }
    if kind == "Pod" && !is_for(host, object) {
        return match left_over(kind, host, around, view) {
            Verdict::Leave { why, .. } => Verdict::Leave { key: Some(key), why },
            other => other,
        };
    }
    let patch = match kind {
        "Pod" => adopt_pod(host, object, around, view),
        "Service" => adopt_service(host, object, view),
        _ => adopt_applied(kind, host, object, view),
    };
    match patch {
        Some(patch) => Verdict::Adopt { key, patch },
        None => Verdict::Leave { key: Some(key), why: "its virtual object's name is not valid" },
    }
}

/// Why an object stays as it is although its virtual object lives: what follows would remove or could not change it.
fn obstacle(kind: &str, host: &Value, object: &Value, view: &View) -> Option<&'static str> {
    match kind {
        "Ingress" => {
            ingress::refusal(object, view).map(|_| "Portico would refuse its virtual Ingress, see the Events there")
        }
        "Secret" => {
            let opaque = |kind: &str| matches!(kind, "" | "Opaque" | "kubernetes.io/service-account-token");
            let (own, found) = (json::text(object, "/type"), json::text(host, "/type"));
            // A type never changes, and this one would not be what Portico writes.
            let same = (opaque(own) && opaque(found)) || (own == found && own != "bootstrap.kubernetes.io/token");
            (!same).then_some("its type is not what Portico would write, and cannot change")
        }
        "PersistentVolumeClaim" => {
            let (own, found) = (json::text(object, "/spec/volumeName"), json::text(host, "/spec/volumeName"));
            let differ = !own.is_empty() && !found.is_empty() && own != found;
            differ.then_some("it is bound to another volume than its virtual claim")
        }
        _ => None,
    }
}

/// Pods are updated by patches: all their metadata at once, and what they would be compared by.
fn adopt_pod(host: &Value, object: &Value, around: Around<'_>, view: &View) -> Option<Value> {
    let read = fields::labels_read(host);
    let keeps = |key: &str| around.keep_labels || read.contains(key);
    let mut remaining = host.clone();
    if let Some(labels) = remaining.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.retain(|key, _| !key.starts_with(PREFIX) || keeps(key));
    }
    let mut wanted = pod::metadata(object, view)?;
    if !pod::update::is_current(object, host, view) {
        // Unlike now, when vcluster wrote it last: the ordinary way must notice.
        json::object(&mut wanted, "annotations").remove(identity::APPLIED);
    }
    keep_current(&mut wanted, object, &remaining, view);
    identity::record_keys(&mut wanted);
    let also = also_uses(host, object, view);
    if !also.is_empty() {
        json::object(&mut wanted, "annotations").insert(ALSO_USES.to_owned(), json!(also.join(",")));
    }
    Some(patch(host, &wanted, &keeps))
}

/// vcluster made the virtual Service again when its address was another: so does Portico when told that it was refused.
fn adopt_service(host: &Value, object: &Value, view: &View) -> Option<Value> {
    let mut wanted = service::to_host(object, view)?.get("metadata")?.as_object()?.clone();
    let (own, found) = (json::text(object, "/spec/clusterIP"), json::text(host, "/spec/clusterIP"));
    if !own.is_empty() && !found.is_empty() && own != found {
        let refused = json!(service::addresses(object));
        json::object(&mut wanted, "annotations").insert(service::REFUSED.to_owned(), refused);
    }
    Some(patch(host, &wanted, &|_| false))
}

/// Objects that are applied whole get their marks only; the first apply writes the rest.
fn adopt_applied(kind: &str, host: &Value, object: &Value, view: &View) -> Option<Value> {
    let mut wanted = identity::metadata(&annotated_kind(kind), object, view, Limit::Subdomain)?;
    for field in ["labels", "annotations"] {
        json::object(&mut wanted, field).retain(|key, _| keys::is_mark(key));
    }
    let mut patch = patch(host, &wanted, &|_| false);
    let api_version = if kind == "Ingress" { "networking.k8s.io/v1" } else { "v1" };
    if let Some(fields) = fields::taken_over(host, api_version)
        && let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("managedFields".to_owned(), Value::Array(fields));
        metadata.insert("resourceVersion".to_owned(), json!(json::text(host, "/metadata/resourceVersion")));
    }
    Some(patch)
}

/// Whose it was, when that can be told for certain.
fn left_over(kind: &str, host: &Value, around: Around<'_>, view: &View) -> Verdict {
    if kind == "PersistentVolumeClaim" {
        // What a person may have lost by moving a tenant's data is not what a program should delete.
        return Verdict::Leave {
            key: None,
            why: "its virtual claim is gone; its data is kept until somebody deletes it",
        };
    }
    let Some((key, uid)) = recorded(host, view) else {
        return Verdict::Leave { key: None, why: "its virtual object is gone or unknown" };
    };
    if kind == "Endpoints" && is_kept_by_the_host(&key, around.services) {
        return Verdict::Release { patch: released(host) };
    }
    let origin = json!({"metadata": {"namespace": key.0, "name": key.1, "uid": uid}});
    match identity::metadata(&annotated_kind(kind), &origin, view, Limit::Subdomain) {
        Some(wanted) => Verdict::LeftOver { key, patch: patch(host, &wanted, &|_| false) },
        None => Verdict::Leave { key: None, why: "its virtual object's name is not valid" },
    }
}

/// The virtual object of a host object by what is recorded on it, and the recorded uid. Only what leads back to the host
/// object's own name counts.
fn recorded(host: &Value, view: &View) -> Option<(Key, String)> {
    let leads_here = |namespace: &str, name: &str| old_name(namespace, name, view).as_deref() == Some(json::name(host));
    for [name, namespace, uid] in RECORDS {
        let (name, namespace) = (identity::annotation(host, name), identity::annotation(host, namespace));
        if leads_here(namespace, name) {
            return Some(((namespace.to_owned(), name.to_owned()), identity::annotation(host, uid).to_owned()));
        }
    }
    let label = identity::label(host, NAMESPACE);
    let short = label.strip_suffix(&format!("-x-{}", view.cluster()));
    [short, Some(label)].into_iter().flatten().find_map(|namespace| {
        let name = json::name(host).strip_suffix(&format!("-x-{namespace}-x-{}", view.cluster()))?;
        leads_here(namespace, name).then(|| ((namespace.to_owned(), name.to_owned()), String::new()))
    })
}

/// Whether a pod was made for this very virtual pod. A tenant's own annotations stood before the recorded ones.
fn is_for(host: &Value, object: &Value) -> bool {
    RECORDS.iter().all(|[_, _, key]| {
        let found = identity::annotation(host, key);
        let own = identity::annotation(object, key);
        found.is_empty() || found == if own.is_empty() { json::uid(object) } else { own }
    })
}

/// One merge patch of metadata: marks, owner, and without the old labels unless they are kept.
fn patch(host: &Value, wanted: &Map<String, Value>, keeps: &dyn Fn(&str) -> bool) -> Value {
    let mut metadata = match identity::metadata_patch(host, wanted) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let is_wanted = |key: &str| wanted.get("labels").is_some_and(|labels| labels.get(key).is_some());
    let labels = json::object(&mut metadata, "labels");
    for key in old_labels(host).filter(|key| !is_wanted(key) && !keeps(key)) {
        labels.insert(key.to_owned(), Value::Null);
    }
    json::object(&mut metadata, "annotations").insert(ADOPTED.to_owned(), json!("vcluster"));
    if let Some((owners, _)) = identity::owners_moved(host, wanted) {
        metadata.insert("ownerReferences".to_owned(), Value::Array(owners));
    }
    metadata.insert("uid".to_owned(), json!(json::uid(host)));
    json!({"metadata": metadata})
}

fn released(host: &Value) -> Value {
    let labels: Map<String, Value> = old_labels(host).map(|key| (key.to_owned(), Value::Null)).collect();
    json!({"metadata": {"uid": json::uid(host), "labels": labels}})
}

fn old_labels(host: &Value) -> impl Iterator<Item = &str> {
    let labels = host.pointer("/metadata/labels").and_then(Value::as_object);
    labels.into_iter().flat_map(Map::keys).map(String::as_str).filter(|key| key.starts_with(PREFIX))
}

/// Endpoints of a Service with a selector are made by the host as soon as its own Service has one.
fn is_kept_by_the_host(key: &Key, services: &[Value]) -> bool {
    let of = services.iter().find(|s| json::namespace(s) == key.0 && json::name(s) == key.1);
    of.is_some_and(service::has_selector)
}

/// ConfigMaps and Secrets that the host pod uses and the virtual one does not name: vcluster put the account's token
/// Secret in the place of a projected token.
fn also_uses(host: &Value, object: &Value, view: &View) -> Vec<String> {
    use pod::references::{Referenced, of};
    let config = |kind: Referenced| matches!(kind, Referenced::ConfigMap | Referenced::Secret);
    let named: BTreeSet<(Referenced, String)> = of(object)
        .into_iter()
        .filter_map(|(kind, name)| Some((kind, old_name(json::namespace(object), &name, view)?)))
        .collect();
    let used = of(host).into_iter().filter(|used| config(used.0) && !named.contains(used));
    used.map(|(kind, name)| format!("{}/{name}", kind.kind())).collect()
}

/// Whether an adopted pod uses a host object that its virtual pod does not name.
pub fn is_also_used(host_pod: &Value, kind: &str, host_name: &str) -> bool {
    let listed = identity::annotation(host_pod, ALSO_USES);
    !listed.is_empty() && listed.split(',').any(|used| used.split_once('/') == Some((kind, host_name)))
}

/// A StatefulSet or Service of another cluster in the same namespace owns it.
fn is_of_another(host: &Value, view: &View) -> bool {
    let own = view.owner.as_ref();
    json::items(host, "/metadata/ownerReferences").iter().any(|owner| {
        let (name, uid) = (json::text(owner, "/name"), json::text(owner, "/uid"));
        let is_owner = own.is_some_and(|own| own.uid == uid || own.name == name);
        matches!(json::text(owner, "/kind"), "StatefulSet" | "Service" | "VirtualCluster")
            && !is_owner
            && name != view.cluster().as_str()
    })
}

/// Values that the namespace label of a virtual object's copy can have: the tenant's own label won in old releases.
fn namespace_labels(object: &Value, view: &View) -> Vec<String> {
    let namespace = json::namespace(object);
    let with_cluster = names::legacy_shortened(&format!("{namespace}-x-{}", view.cluster()));
    let own = Some(identity::label(object, NAMESPACE).to_owned()).filter(|own| !own.is_empty());
    [Some(namespace.to_owned()), with_cluster, own].into_iter().flatten().collect()
}

fn old_name(namespace: &str, name: &str, view: &View) -> Option<String> {
    identity::legacy_host_name(namespace, name, view).map(|name| name.to_string())
}

fn annotated_kind(kind: &str) -> String {
    identity::kind_of(if kind == "Ingress" { "networking.k8s.io" } else { "" }, kind)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
#[path = "../../tests/support/vcluster.rs"]
pub(crate) mod vcluster;
