//! What the objects of one virtual cluster may ask of the host: what its VirtualCluster tightens of the configuration's
//! bounds, and both together.
//!
//! Promises: a VirtualCluster can take away from the bounds and never add to them. Pure; which object asks for what is
//! [`crate::translate`]'s to know.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::policy::{NodeUsage, PodSecurity, Policies, PolicyBounds, domain, matches};

/// What this virtual cluster may ask of the host, within `policy` (or `policies`) of the configuration: a field that is
/// absent means what stands there, and what is not allowed there is not allowed by being named here. `*` as there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// Pod Security Standard that synced pods must meet; the tighter of this and the configuration's. Absent: `baseline`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_security: Option<PodSecurity>,
    /// Annotations of Pods that reach the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_annotations: Option<Entries>,
    /// Annotations of Services that reach the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_annotations: Option<Entries>,
    /// Annotations of Ingresses that reach the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_annotations: Option<Entries>,
    /// Annotations of other kinds that reach the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_annotations: Option<Entries>,
    /// Labels with a prefix that reach the host unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Entries>,
    /// Host names of Ingresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_domains: Option<Entries>,
    /// IngressClasses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_classes: Option<Entries>,
    /// StorageClasses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_classes: Option<Entries>,
    /// Whether claims may have a selector or the class `""`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_volumes: Option<bool>,
    /// PriorityClasses of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_classes: Option<Entries>,
    /// RuntimeClasses of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_classes: Option<Entries>,
    /// Schedulers beside the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedulers: Option<Entries>,
    /// CSI drivers of inline volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csi_drivers: Option<Entries>,
    /// Kinds of volumes that nodes mount from the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_volumes: Option<Entries>,
    /// Keys of taints that pods may tolerate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Entries>,
    /// Types of Services that reach the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_types: Option<Entries>,
    /// Whether Services may choose the address of their load balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_addresses: Option<bool>,
    /// Networks whose addresses may stand in endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Entries>,
    /// Images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<Entries>,
    /// Whether images must be named by digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digests: Option<bool>,
    /// Whose figures nodes have: `Own` (the sum of this cluster's pods), or `Real` where the configuration lets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_usage: Option<NodeUsage>,
    /// Longest time in seconds that a pod is given to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_grace_period_seconds: Option<u32>,
    /// How many objects of each kind are on the host, by the names of the configuration's `policy.objects`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub objects: BTreeMap<String, u32>,
}

/// A list of a VirtualCluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Entries(#[schemars(length(max = 64), inner(length(min = 1, max = 253)))] pub Vec<String>);

/// What one virtual cluster may ask of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantedPolicy {
    bounds: Arc<PolicyBounds>,
    asked: Arc<Policy>,
    /// Host namespace and name.
    place: Arc<(String, String)>,
}

/// Whose annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Annotated {
    /// Pods.
    Pods,
    /// Services.
    Services,
    /// Ingresses.
    Ingresses,
    /// Everything else.
    Others,
}

impl Annotated {
    /// The setting that decides.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Pods => "podAnnotations",
            Self::Services => "serviceAnnotations",
            Self::Ingresses => "ingressAnnotations",
            Self::Others => "otherAnnotations",
        }
    }
}

impl GrantedPolicy {
    /// What a virtual cluster of this host namespace and name gets that asks for this.
    pub fn new(policies: &Policies, (namespace, cluster): (&str, &str), asked: &Policy) -> Self {
        Self {
            bounds: Arc::clone(policies.bounds(namespace)),
            asked: Arc::new(asked.clone()),
            place: Arc::new((namespace.to_owned(), cluster.to_owned())),
        }
    }

    /// These bounds as they are, whatever a VirtualCluster says.
    pub fn of(bounds: PolicyBounds, asked: Policy) -> Self {
        Self { bounds: Arc::new(bounds), asked: Arc::new(asked), place: Arc::default() }
    }

    /// The default bounds, with another Pod Security Standard.
    #[cfg(test)]
    pub(crate) fn at(pod_security: PodSecurity) -> Self {
        let asked = Policy { pod_security: Some(pod_security), ..Policy::default() };
        Self::of(PolicyBounds { pod_security, ..PolicyBounds::default() }, asked)
    }

    /// The Pod Security Standard in force.
    pub fn pod_security(&self) -> PodSecurity {
        self.bounds.pod_security.tighter(self.asked.pod_security.unwrap_or_default())
    }

    /// Whether this annotation reaches the host.
    pub fn annotation(&self, of: Annotated, key: &str) -> bool {
        let (bounds, asked) = match of {
            Annotated::Pods => (&self.bounds.pod_annotations, &self.asked.pod_annotations),
            Annotated::Services => (&self.bounds.service_annotations, &self.asked.service_annotations),
            Annotated::Ingresses => (&self.bounds.ingress_annotations, &self.asked.ingress_annotations),
            Annotated::Others => (&self.bounds.other_annotations, &self.asked.other_annotations),
        };
        both(bounds, asked.as_ref(), key)
    }

    /// Whether this label, which has a prefix, reaches the host unchanged.
    pub fn label(&self, key: &str) -> bool {
        both(&self.bounds.labels, self.asked.labels.as_ref(), key)
    }

    /// Whether an Ingress may serve this name; `""`: every name.
    pub fn ingress_domain(&self, host: &str) -> bool {
        let place = (self.place.0.as_str(), self.place.1.as_str());
        domain(&self.bounds.ingress_domains, place, host)
            && self.asked.ingress_domains.as_ref().is_none_or(|asked| domain(&asked.0, place, host))
    }

    /// Whether Ingresses may name this class.
    pub fn ingress_class(&self, name: &str) -> bool {
        both(&self.bounds.ingress_classes, self.asked.ingress_classes.as_ref(), name)
    }

    /// Whether claims may name this class.
    pub fn storage_class(&self, name: &str) -> bool {
        both(&self.bounds.storage_classes, self.asked.storage_classes.as_ref(), name)
    }

    /// Whether claims may bind volumes that are there.
    pub fn static_volumes(&self) -> bool {
        self.bounds.static_volumes && self.asked.static_volumes != Some(false)
    }

    /// Whether pods have this priority on the host.
    pub fn priority_class(&self, name: &str) -> bool {
        both(&self.bounds.priority_classes, self.asked.priority_classes.as_ref(), name)
            && (!name.starts_with("system-") || self.pod_security() == PodSecurity::Privileged)
    }

    /// Whether pods may run under this class.
    pub fn runtime_class(&self, name: &str) -> bool {
        both(&self.bounds.runtime_classes, self.asked.runtime_classes.as_ref(), name)
    }

    /// Whether pods may be placed by this scheduler.
    pub fn scheduler(&self, name: &str) -> bool {
        matches!(name, "" | "default-scheduler") || both(&self.bounds.schedulers, self.asked.schedulers.as_ref(), name)
    }

    /// Whether pods may have inline volumes of this driver.
    pub fn csi_driver(&self, name: &str) -> bool {
        both(&self.bounds.csi_drivers, self.asked.csi_drivers.as_ref(), name)
    }

    /// Whether nodes may mount volumes of this kind.
    pub fn network_volume(&self, kind: &str) -> bool {
        both(&self.bounds.network_volumes, self.asked.network_volumes.as_ref(), kind)
    }

    /// Whether pods may tolerate taints of this key; `""`: all taints.
    pub fn toleration(&self, key: &str) -> bool {
        both(&self.bounds.tolerations, self.asked.tolerations.as_ref(), key)
    }

    /// Whether Services of this type reach the host; `""` is `ClusterIP`.
    pub fn service_type(&self, name: &str) -> bool {
        let name = if name.is_empty() { "ClusterIP" } else { name };
        both(&self.bounds.service_types, self.asked.service_types.as_ref(), name)
    }

    /// Whether Services may choose the address of their load balancer.
    pub fn load_balancer_addresses(&self) -> bool {
        self.bounds.load_balancer_addresses && self.asked.load_balancer_addresses != Some(false)
    }

    /// Whether this address, which is not one of the tenant's pods, may be an endpoint.
    pub fn endpoint(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let contains = |entry: &String| entry.parse::<IpNet>().is_ok_and(|network| network.contains(&address));
        let within = |entries: &[String]| entries.iter().any(contains);
        within(&self.bounds.endpoints) && self.asked.endpoints.as_ref().is_none_or(|asked| within(&asked.0))
    }

    /// Whether containers may run this image.
    pub fn image(&self, name: &str) -> bool {
        both(&self.bounds.images, self.asked.images.as_ref(), name)
    }

    /// Whether images must be named by digest.
    pub fn image_digests(&self) -> bool {
        self.bounds.image_digests || self.asked.image_digests == Some(true)
    }

    /// Whose figures nodes have.
    pub fn node_usage(&self) -> NodeUsage {
        self.asked.node_usage.map_or(self.bounds.node_usage, |asked| asked.tighter(self.bounds.node_usage))
    }

    /// How many of this (`pods`, `services.nodeports`) the host has at most; no number: it is not counted.
    pub fn most(&self, what: &str) -> usize {
        let most = self.bounds.most(what).unwrap_or(u32::MAX);
        self.asked.objects.get(what).map_or(most, |asked| most.min(*asked)) as usize
    }

    /// Longest grace period in seconds.
    pub fn max_grace_period(&self) -> u64 {
        let bound = self.bounds.max_grace_period_seconds;
        u64::from(self.asked.max_grace_period_seconds.map_or(bound, |asked| asked.clamp(1, bound)))
    }
}

/// By the configuration, and by the VirtualCluster when it says something.
fn both(bounds: &[String], asked: Option<&Entries>, text: &str) -> bool {
    let any = |entries: &[String]| entries.iter().any(|entry| matches(entry, text));
    any(bounds) && asked.is_none_or(|asked| any(&asked.0))
}

#[cfg(test)]
mod tests;
