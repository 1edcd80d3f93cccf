//! What a tenant's copies on the host tell about its objects: the way back, for a control plane that lost its store.
//!
//! Promises: an object is read from a copy only when every mark says that it is this tenant's; names inside it are the
//! tenant's own or are left out and said; what goes down again from it is the copy that it was read from, so that nothing
//! on the host is made or deleted for it; total, whatever the host holds. Must not know clients, clocks or what else is in
//! the tenant.
//!
//! A copy tells less than the object was: `lost` says what of one object, [`NOT_ON_HOST`] what of a whole tenant.
//! Restored pods have no owner. Controllers that are applied again take them over: a ReplicaSet (of a Deployment with an
//! unchanged template: its hash is a label) and a DaemonSet by their labels, a StatefulSet by name and labels. Pods of a Job
//! stay without one, since a Job selects by its own uid.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{View, endpoints, identity, json, pod, service};
use crate::names::keys;

mod back;
mod config;
mod env;
mod kinds;
mod metadata;
mod network;
mod origin;
mod pods;
mod scheduling;
mod unknown;
mod volumes;

use back::Back;
pub use back::{Key, Names, Need};
pub use kinds::KINDS;
use kinds::{CLAIM, CONFIG_MAP, ENDPOINTS, INGRESS, POD, SECRET, SERVICE, SLICE, known};

/// ConfigMap by which an API server publishes its CA in every namespace.
const ROOT_CA: &str = "kube-root-ca.crt";
/// Keys of a Secret with an account's token; on the host its type is `Opaque`.
const TOKEN_KEYS: &[&str] = &["ca.crt", "namespace", "service-ca.crt", "token"];

/// What of a tenant no copy on the host tells, one sentence each, for the report.
pub const NOT_ON_HOST: &[&str] = &[
    "Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs and CronJobs: apply them again. A Deployment or DaemonSet \
     with an unchanged template takes its restored pods over by their labels, a StatefulSet by name and labels; pods of \
     Jobs stay without an owner.",
    "ServiceAccounts are made again by name, where a pod runs as one; their annotations, image pull secrets and token \
     Secrets are not.",
    "Roles, ClusterRoles and their bindings.",
    "CustomResourceDefinitions with all their objects, webhook configurations, admission policies and APIServices.",
    "ConfigMaps and Secrets that no running pod and no Ingress used, and Secrets with an account's token.",
    "Labels and annotations of Namespaces.",
    "NetworkPolicies, PodDisruptionBudgets, autoscalers, ResourceQuotas, LimitRanges, Leases and Events.",
    "PersistentVolumes that no claim was bound to, and VolumeSnapshots.",
    "Pods that had ended, and pods, Services and Ingresses that were never on the host.",
    "Owners, finalizers and kubectl's record of what was last applied: the first kubectl apply of each object warns.",
];

/// What becomes of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// [`object`] tells what is written into the tenant.
    Restore(Key),
    /// The tenant's control plane, or Portico, makes this object by itself: [`relink`] the copy when it is there.
    Await(Key),
    /// Nothing is written, and why.
    Leave(Key, &'static str),
    /// It is not, or not certainly, a copy of an object of this tenant.
    Foreign,
}

/// What is written into the tenant for one copy.
#[derive(Debug, Clone, PartialEq)]
pub struct Restored {
    /// Virtual namespace, which must exist.
    pub namespace: String,
    /// Body of the POST.
    pub object: Value,
    /// What must exist before.
    pub needs: Vec<Need>,
    /// What the copy does not tell, one sentence each.
    pub lost: Vec<String>,
}

/// [`Names`] by the recorded identity of the copies that it was told of.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    keys: BTreeMap<(&'static str, String), Key>,
    token_specs: BTreeMap<String, String>,
}

impl Recorded {
    /// Takes one copy in; what is not this tenant's is passed over. Secrets: the token Secrets of pods too.
    pub fn learn(&mut self, kind: &str, host: &Value, view: &View) {
        let name = json::name(host).to_owned();
        if kind == SECRET && is_token_secret(host, view) {
            self.token_specs.insert(name, identity::annotation(host, pod::TOKEN_SPEC).to_owned());
        } else if let Some((kind, limit)) = known(kind)
            && let Some(key) = identity::virtual_key(kind, host, view, limit)
        {
            self.keys.insert((kind, name), key);
        }
    }

    /// Namespaces of the virtual objects that the copies stand for.
    pub fn namespaces(&self) -> BTreeSet<&str> {
        self.keys.values().map(|(namespace, _)| namespace.as_str()).collect()
    }
}

impl Names for Recorded {
    fn virtual_of(&self, kind: &str, host_name: &str) -> Option<Key> {
        self.keys.get(&(known(kind)?.0, host_name.to_owned())).cloned()
    }

    fn token_spec(&self, secret: &str) -> Option<String> {
        self.token_specs.get(secret).cloned()
    }
}

/// What becomes of a copy of this kind (value of [`keys::OBJECT_KIND`]).
pub fn judge(kind: &str, host: &Value, view: &View) -> Verdict {
    let Some(key) = known(kind).and_then(|(kind, limit)| identity::virtual_key(kind, host, view, limit)) else {
        return Verdict::Foreign;
    };
    let (namespace, name) = (key.0.as_str(), key.1.as_str());
    let why = match kind {
        CONFIG_MAP if name == ROOT_CA => return Verdict::Await(key),
        SERVICE if namespace == "kube-system" && name == "kube-dns" => return Verdict::Await(key),
        _ if json::is_deleting(host) => "it is being deleted",
        POD if matches!(json::text(host, "/status/phase"), "Succeeded" | "Failed") => "it has ended",
        SERVICE if service::is_api_service(namespace, name) => "the tenant has its own",
        SERVICE if !identity::annotation(host, keys::PENDING).is_empty() => "it was only being made",
        SECRET if holds_a_token(host, namespace) => "the token in it is of an account that is gone",
        SLICE if endpoints::is_derived_slice(host) => "it is made from other objects",
        _ => return Verdict::Restore(key),
    };
    Verdict::Leave(key, why)
}

/// The virtual object of a copy; None unless [`judge`] says [`Verdict::Restore`]. ConfigMaps and Secrets must come whole,
/// with their data, and all with their `managedFields`: without them, what the host's own controllers and webhooks put
/// into a copy cannot be told from what was the tenant's.
pub fn object(kind: &str, host: &Value, view: &View, names: &dyn Names) -> Option<Restored> {
    let Verdict::Restore((namespace, name)) = judge(kind, host, view) else { return None };
    let mut back = Back { view, names, namespace, name, needs: Vec::new(), lost: Vec::new() };
    let mut object = match kind {
        POD => pods::restore(host, &mut back),
        SERVICE => network::service(host, &mut back),
        ENDPOINTS => network::endpoints(host, &mut back),
        SLICE => network::slice(host, &mut back),
        INGRESS => network::ingress(host, &mut back),
        CLAIM => config::claim(host, &mut back),
        _ => config::plain(host, &mut back),
    };
    let (group, kind) = kind.split_once('/').unwrap_or(("", kind));
    let api_version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    let Back { namespace, needs, lost, .. } = back;
    Some(Restored { namespace, object: Value::Object(object), needs, lost })
}

/// Merge patch of a copy by which it stands for this virtual object, as the tenant's API server has stored it: the plan of
/// its kind then finds nothing that is to be made again or deleted. It names the copy's uid. None when the copy is not of
/// an object of this name.
pub fn relink(kind: &str, host: &Value, object: &Value, view: &View) -> Option<Value> {
    let (kind, limit) = known(kind)?;
    let (namespace, name) = identity::virtual_key(kind, host, view, limit)?;
    if (namespace.as_str(), name.as_str()) != (json::namespace(object), json::name(object)) {
        return None;
    }
    let mut wanted = match kind {
        POD => pod::update::recorded_metadata(object, host, view)?,
        SERVICE => service::to_host(object, view)?.get("metadata")?.as_object()?.clone(),
        // Applied whole: their marks are enough, the next apply writes the rest.
        _ => {
            let mut marks = identity::metadata(kind, object, view, limit)?;
            for field in ["labels", "annotations"] {
                json::object(&mut marks, field).retain(|key, _| keys::is_mark(key));
            }
            marks
        }
    };
    if kind == POD
        && let Some(secret) = volumes::token_secret(host, (&namespace, &name), view)
        && volumes::mounts(host, &secret)
    {
        json::object(&mut wanted, "annotations").insert(pod::TOKEN_SECRET.to_owned(), json!(secret));
    }
    let mut metadata = match identity::metadata_patch(host, &wanted) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    if !identity::annotation(host, service::REFUSED).is_empty() {
        json::object(&mut metadata, "annotations").insert(service::REFUSED.to_owned(), Value::Null);
    }
    metadata.insert("uid".to_owned(), json!(json::uid(host)));
    Some(json!({"metadata": metadata}))
}

fn is_token_secret(host: &Value, view: &View) -> bool {
    json::namespace(host) == view.namespace().as_str()
        && identity::label(host, keys::CLUSTER) == view.cluster().as_str()
        && identity::annotation(host, keys::OBJECT_KIND) == pod::TOKEN_KIND
}

/// Whether a Secret is what a token controller fills: these are made anew, and the old token is worth nothing.
fn holds_a_token(host: &Value, namespace: &str) -> bool {
    let data = json::strings(host, "/data");
    matches!(json::text(host, "/type"), "" | "Opaque" | "kubernetes.io/service-account-token")
        && data.contains_key("token")
        && data.get("namespace").is_some_and(|encoded| *encoded == STANDARD.encode(namespace))
        && data.keys().all(|key| TOKEN_KEYS.contains(&key.as_str()))
}

#[cfg(test)]
mod tests;
