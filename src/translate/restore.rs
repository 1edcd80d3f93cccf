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

use super::{View, endpoints, identity, json, legacy, pod, service};
use crate::names::{Limit, keys};

mod config;
mod env;
mod metadata;
mod network;
mod origin;
mod pods;
mod scheduling;
mod volumes;

/// Kinds in the order in which they are best restored: what is named comes before what names it.
pub const KINDS: &[&str] = &[CLAIM, CONFIG_MAP, SECRET, SERVICE, ENDPOINTS, SLICE, INGRESS, POD];

const POD: &str = pod::KIND;
const SERVICE: &str = service::KIND;
const CLAIM: &str = "PersistentVolumeClaim";
const CONFIG_MAP: &str = "ConfigMap";
const SECRET: &str = "Secret";
const ENDPOINTS: &str = "Endpoints";
const SLICE: &str = "discovery.k8s.io/EndpointSlice";
const INGRESS: &str = "networking.k8s.io/Ingress";

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

/// Virtual namespace and name.
pub type Key = (String, String);

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

/// Something that an object cannot be made without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A ServiceAccount in the object's namespace.
    ServiceAccount(String),
    /// A PriorityClass, which the host has.
    PriorityClass(String),
    /// A RuntimeClass, which the host has.
    RuntimeClass(String),
}

/// What all copies of a tenant together tell.
pub trait Names {
    /// The virtual object that a copy of this kind (value of [`keys::OBJECT_KIND`]) and host name stands for.
    fn virtual_of(&self, kind: &str, host_name: &str) -> Option<Key>;
    /// Annotation [`pod::TOKEN_SPEC`] of a token Secret, by its host name.
    fn token_spec(&self, secret: &str) -> Option<String>;
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
                json::object(&mut marks, field).retain(|key, _| keys::is_reserved(key));
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

/// One copy on its way back.
struct Back<'a> {
    view: &'a View,
    names: &'a dyn Names,
    namespace: String,
    name: String,
    needs: Vec<Need>,
    lost: Vec<String>,
}

impl Back<'_> {
    /// Virtual name of what a copy refers to by this host name. Only names of its own virtual namespace come back.
    fn reference(&self, kind: &str, on_host: &str) -> Option<String> {
        let (kind, limit) = known(kind)?;
        match self.names.virtual_of(kind, on_host) {
            Some((namespace, name)) => (namespace == self.namespace).then_some(name),
            None => self.readable(on_host, limit),
        }
    }

    /// Of what has no copy (any more), the name by which it would get this host name.
    fn readable(&self, on_host: &str, limit: Limit) -> Option<String> {
        let name = on_host.strip_suffix(&format!("-x-{}-x-{}", self.namespace, self.view.cluster()))?;
        let again = identity::host_name(&self.namespace, name, self.view, limit)?;
        (again.as_str() == on_host).then(|| name.to_owned())
    }

    fn lose(&mut self, what: impl Into<String>) {
        self.lost.push(what.into());
    }
}

/// The kind as this module writes it, and the limit of its host names.
fn known(kind: &str) -> Option<(&'static str, Limit)> {
    let kind = KINDS.iter().find(|known| **known == kind)?;
    Some((kind, if matches!(*kind, SERVICE | ENDPOINTS) { Limit::Label } else { Limit::Subdomain }))
}

fn is_adopted(host: &Value) -> bool {
    !identity::annotation(host, legacy::ADOPTED).is_empty()
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
