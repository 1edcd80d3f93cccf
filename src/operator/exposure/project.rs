//! Host Services and Ingresses as the API server writes them, read down to what opens something.
//!
//! Pure. What has no owner among VirtualClusters is nobody's; what cannot be read opens nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};

use crate::config::Protocol;
use crate::crd;

/// An object of a virtual cluster's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read<T> {
    /// Name on the host.
    pub name: Box<str>,
    /// resourceVersion.
    pub version: String,
    /// Whose; `None`: no virtual cluster's.
    pub owner: Option<Owner>,
    /// `None`: it can open nothing.
    pub value: Option<T>,
}

/// A VirtualCluster as its objects name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Its name.
    pub cluster: Box<str>,
    /// Its uid.
    pub uid: Box<str>,
}

/// A Service with a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// By its type it is there for the outside.
    pub is_exposed: bool,
    /// Of the pods behind it, as on the host.
    pub selector: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// One port of a Service: what others call it, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePort {
    number: Target,
    name: Target,
    /// Of the pods.
    pub port: Port,
}

/// A port of pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub protocol: Protocol,
    pub target: Target,
}

/// A number, or a name that each pod gives a number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(untagged)]
pub(crate) enum Target {
    Number(u16),
    Name(Box<str>),
}

/// What an Ingress leads to.
pub(crate) type Backends = BTreeSet<Backend>;

/// A Service on the host, and one of its ports by number or name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Backend {
    pub service: Box<str>,
    pub port: Target,
}

impl ServicePort {
    /// Whether it is one of those that Ingresses mean, by its number or its name.
    pub(crate) fn is_among(&self, meant: &BTreeSet<&Target>) -> bool {
        meant.contains(&self.number) || meant.contains(&self.name)
    }
}

/// The name alone, of what cannot be read otherwise.
pub(crate) fn name(json: &[u8]) -> Option<Box<str>> {
    #[derive(Deserialize)]
    struct Named {
        metadata: Name,
    }
    #[derive(Deserialize)]
    struct Name {
        name: Box<str>,
    }
    serde_json::from_slice::<Named>(json).ok().map(|object| object.metadata.name)
}

/// A Service. One without a selector has its endpoints from elsewhere, and which pods these are nobody says.
pub(crate) fn service(json: &[u8]) -> Result<Read<Service>, serde_json::Error> {
    let Object { metadata, spec } = serde_json::from_slice::<Object<ServiceSpec>>(json)?;
    let is_exposed = matches!(&*spec.r#type, "NodePort" | "LoadBalancer");
    let is_open = !spec.selector.is_empty() && !spec.ports.is_empty();
    // An alias of a name has neither address nor pods, whatever else it says.
    let value = (is_open && &*spec.r#type != "ExternalName").then(|| Service {
        is_exposed,
        selector: spec.selector,
        ports: spec.ports.into_iter().map(RawPort::read).collect(),
    });
    Ok(metadata.read(value))
}

/// An Ingress.
pub(crate) fn ingress(json: &[u8]) -> Result<Read<Backends>, serde_json::Error> {
    let Object { metadata, spec } = serde_json::from_slice::<Object<IngressSpec>>(json)?;
    let paths = spec.rules.into_iter().filter_map(|rule| rule.http).flat_map(|http| http.paths);
    let all = paths.map(|path| path.backend).chain(spec.default_backend);
    let backends: Backends = all.filter_map(|backend| backend.service?.read()).collect();
    Ok(metadata.read((!backends.is_empty()).then_some(backends)))
}

#[derive(Deserialize)]
struct Object<T> {
    metadata: Metadata,
    spec: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Box<str>,
    #[serde(default)]
    resource_version: String,
    #[serde(default, deserialize_with = "or_none")]
    labels: Labels,
    #[serde(default, deserialize_with = "or_none")]
    owner_references: Vec<OwnerReference>,
}

#[derive(Default, Deserialize)]
struct Labels {
    // keys::CLUSTER; an attribute takes no constant.
    #[serde(default, rename = "portico.dev/cluster")]
    cluster: Box<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnerReference {
    api_version: Box<str>,
    kind: Box<str>,
    name: Box<str>,
    uid: Box<str>,
}

#[derive(Deserialize)]
struct ServiceSpec {
    #[serde(default)]
    r#type: Box<str>,
    #[serde(default, deserialize_with = "or_none")]
    selector: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_none")]
    ports: Vec<RawPort>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPort {
    port: u16,
    #[serde(default)]
    name: Box<str>,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    target_port: Option<Target>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IngressSpec {
    #[serde(default)]
    default_backend: Option<RawBackend>,
    #[serde(default, deserialize_with = "or_none")]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    http: Option<Http>,
}

#[derive(Deserialize)]
struct Http {
    #[serde(default, deserialize_with = "or_none")]
    paths: Vec<Path>,
}

#[derive(Deserialize)]
struct Path {
    backend: RawBackend,
}

#[derive(Deserialize)]
struct RawBackend {
    #[serde(default)]
    service: Option<RawBackendService>,
}

#[derive(Deserialize)]
struct RawBackendService {
    name: Box<str>,
    #[serde(default)]
    port: RawBackendPort,
}

#[derive(Default, Deserialize)]
struct RawBackendPort {
    #[serde(default)]
    name: Box<str>,
    #[serde(default)]
    number: u16,
}

impl Metadata {
    fn read<T>(self, value: Option<T>) -> Read<T> {
        let is_ours = |owner: &OwnerReference| {
            owner.kind.as_ref() == "VirtualCluster"
                && owner.api_version.split_once('/').is_some_and(|(group, _)| group == crd::GROUP)
                && owner.name == self.labels.cluster
        };
        let owner = self.owner_references.iter().find(|owner| is_ours(owner));
        let owner = owner.map(|owner| Owner { cluster: owner.name.clone(), uid: owner.uid.clone() });
        Read { name: self.name, version: self.resource_version, owner, value }
    }
}

impl RawPort {
    fn read(self) -> ServicePort {
        let target = match self.target_port {
            None | Some(Target::Number(0)) => Target::Number(self.port),
            Some(Target::Name(name)) if name.is_empty() => Target::Number(self.port),
            Some(target) => target,
        };
        let (number, name) = (Target::Number(self.port), Target::Name(self.name));
        ServicePort { number, name, port: Port { protocol: self.protocol, target } }
    }
}

impl RawBackendService {
    fn read(self) -> Option<Backend> {
        let port = match self.port {
            RawBackendPort { number: 0, name } if name.is_empty() => return None,
            RawBackendPort { number: 0, name } => Target::Name(name),
            RawBackendPort { number, .. } => Target::Number(number),
        };
        Some(Backend { service: self.name, port })
    }
}

/// `null` is what is absent.
fn or_none<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests;
