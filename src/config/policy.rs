//! The most that the objects of virtual clusters may ask of the host.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pod Security Standards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PodSecurity {
    /// No known privilege escalation (default).
    #[default]
    Baseline,
    /// Hardened.
    Restricted,
    /// Everything is allowed: for tenants who may have root on the nodes.
    Privileged,
}

impl PodSecurity {
    fn openness(self) -> u8 {
        match self {
            Self::Restricted => 0,
            Self::Baseline => 1,
            Self::Privileged => 2,
        }
    }

    /// The one that allows less.
    pub(crate) fn tighter(self, other: Self) -> Self {
        if other.openness() < self.openness() { other } else { self }
    }
}

/// Whose figures nodes have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeUsage {
    /// The sum of the virtual cluster's own pods on them (default).
    #[default]
    Own,
    /// The host's: with them a tenant sees what all others use together.
    Real,
}

impl NodeUsage {
    /// The one that shows less.
    pub(crate) fn tighter(self, other: Self) -> Self {
        if self == Self::Real { other } else { self }
    }
}

/// The most that virtual clusters may ask of the host; a VirtualCluster can tighten it in `spec.policy`. In lists an entry
/// with `*` at its end or its beginning stands for all with that beginning or end, and `*` for everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PolicyBounds {
    /// The most open Pod Security Standard. With `privileged` a VirtualCluster may choose to have root on the nodes.
    pub pod_security: PodSecurity,
    /// Annotations of Pods that reach the host as they are: its controllers, runtimes and network plugins act on them. All
    /// others do so as `PREFIX.tenant.portico.dev/NAME`, where nobody looks for them.
    pub pod_annotations: Vec<String>,
    /// The same of Services: load balancers and DNS controllers act on them.
    pub service_annotations: Vec<String>,
    /// The same of Ingresses. One that is not listed refuses the Ingress, unless it is known to protect nothing.
    pub ingress_annotations: Vec<String>,
    /// The same of all other kinds: claims, ConfigMaps, Secrets, endpoints.
    pub other_annotations: Vec<String>,
    /// Labels with a prefix that reach the host as they are; others as annotations do, and selectors follow. Labels without
    /// a prefix are never changed.
    pub labels: Vec<String>,
    /// Host names of Ingresses; `{namespace}` and `{cluster}` in an entry stand for those of the VirtualCluster. With `*`
    /// alone rules without a host pass too. Empty: no Ingress reaches the host.
    pub ingress_domains: Vec<String>,
    /// Names in `spec.expose.hosts`; placeholders as in `ingressDomains`.
    pub expose_domains: Vec<String>,
    /// IngressClasses. An Ingress that names none is the default class's business.
    pub ingress_classes: Vec<String>,
    /// StorageClasses. A claim that names none gets the default class.
    pub storage_classes: Vec<String>,
    /// Whether claims may have a selector or the class `""`, with which they bind volumes that somebody made for others.
    pub static_volumes: bool,
    /// PriorityClasses of the host: their pods may displace those of others. Pods of another class have none on the host.
    /// `system-` classes take `podSecurity: privileged` as well.
    pub priority_classes: Vec<String>,
    /// RuntimeClasses of the host.
    pub runtime_classes: Vec<String>,
    /// Schedulers of the host beside `default-scheduler`.
    pub schedulers: Vec<String>,
    /// CSI drivers of inline volumes, which get what the pod says and not what a StorageClass does.
    pub csi_drivers: Vec<String>,
    /// Kinds of volumes that nodes mount from the network at a pod's word: `nfs`, `iscsi`, `rbd`, `cephfs`, `glusterfs`,
    /// `azureFile`.
    pub network_volumes: Vec<String>,
    /// Keys of taints that pods may tolerate; other tolerations are left out. One without a key takes `*`.
    pub tolerations: Vec<String>,
    /// Types of Services that reach the host. `ExternalName` needs none to be found by the tenant's own pods: on the host
    /// it only serves Ingresses, whose controller then connects to wherever the name leads.
    pub service_types: Vec<String>,
    /// Whether Services may choose the address of their load balancer.
    pub load_balancer_addresses: bool,
    /// Networks (CIDR) whose addresses may stand in Endpoints and EndpointSlices that a tenant writes. Addresses of its own
    /// pods always may, when `targetRef` names the pod.
    pub endpoints: Vec<String>,
    /// Networks (CIDR) to which the kubeconfig of a VirtualCluster of `distro: external` may lead although they are closed: by
    /// `deniedBackends`, because the host's pods or its API server are there, by `networks.closed`, or because such an address
    /// means the machine itself, its link or many. Of several networks that hold an address the narrowest counts; Portico's
    /// own address takes an entry for itself (/32, /128).
    #[schemars(with = "Vec<String>")]
    pub allowed_backends: Vec<IpNet>,
    /// Networks (CIDR) to which it may not lead, beside those. With `0.0.0.0/0` and `::/0` only what `allowedBackends` lists is
    /// left.
    #[schemars(with = "Vec<String>")]
    pub denied_backends: Vec<IpNet>,
    /// Images, such as `registry.example.com/team/*`, as they stand in the pod.
    pub images: Vec<String>,
    /// Whether images must be named by digest.
    pub image_digests: bool,
    /// Whose figures nodes have inside virtual clusters: `Own`, or `Real`, those of the whole node.
    pub node_usage: NodeUsage,
    /// Longest time in seconds that a pod is given to end.
    #[schemars(range(min = 1))]
    pub max_grace_period_seconds: u32,
    /// How many objects of each kind (by its plural), how many node ports (`services.nodeports`) and load balancers
    /// (`services.loadbalancers`) one virtual cluster has on the host. What is not named has the default.
    pub objects: BTreeMap<String, u32>,
}

/// Networks in a list that is looked through for each connection.
const MOST_BACKENDS: usize = 1024;

/// What one virtual cluster has on the host where nobody says another number.
const OBJECTS: &[(&str, u32)] = &[
    ("configmaps", 5000),
    ("endpoints", 2000),
    ("endpointslices", 2000),
    ("ingresses", 500),
    ("persistentvolumeclaims", 1000),
    ("pods", 5000),
    ("secrets", 5000),
    ("services", 2000),
    ("services.loadbalancers", 10),
    ("services.nodeports", 50),
];

impl Default for PolicyBounds {
    fn default() -> Self {
        let list = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect();
        Self {
            pod_security: PodSecurity::Baseline,
            pod_annotations: list(&[
                "container.apparmor.security.beta.kubernetes.io/*",
                "kubectl.kubernetes.io/default-container",
                "kubernetes.io/egress-bandwidth",
                "kubernetes.io/ingress-bandwidth",
            ]),
            service_annotations: list(&["service.kubernetes.io/topology-mode"]),
            ingress_annotations: list(&[
                "nginx.ingress.kubernetes.io/auth-realm",
                "nginx.ingress.kubernetes.io/auth-secret",
                "nginx.ingress.kubernetes.io/auth-type",
                "nginx.ingress.kubernetes.io/backend-protocol",
                "nginx.ingress.kubernetes.io/enable-cors",
                "nginx.ingress.kubernetes.io/force-ssl-redirect",
                "nginx.ingress.kubernetes.io/proxy-body-size",
                "nginx.ingress.kubernetes.io/proxy-connect-timeout",
                "nginx.ingress.kubernetes.io/proxy-read-timeout",
                "nginx.ingress.kubernetes.io/proxy-send-timeout",
                "nginx.ingress.kubernetes.io/rewrite-target",
                "nginx.ingress.kubernetes.io/ssl-redirect",
                "nginx.ingress.kubernetes.io/use-regex",
                "nginx.ingress.kubernetes.io/whitelist-source-range",
            ]),
            other_annotations: Vec::new(),
            labels: list(&[
                "app.kubernetes.io/*",
                "apps.kubernetes.io/pod-index",
                "batch.kubernetes.io/*",
                "endpointslice.kubernetes.io/*",
                "helm.sh/*",
                "kubernetes.io/service-name",
                "service.kubernetes.io/headless",
                "service.kubernetes.io/service-proxy-name",
                "statefulset.kubernetes.io/pod-name",
            ]),
            ingress_domains: Vec::new(),
            expose_domains: list(&["*"]),
            ingress_classes: list(&["*"]),
            storage_classes: list(&["*"]),
            static_volumes: false,
            priority_classes: Vec::new(),
            runtime_classes: Vec::new(),
            schedulers: Vec::new(),
            csi_drivers: Vec::new(),
            network_volumes: Vec::new(),
            tolerations: list(&["node.kubernetes.io/*"]),
            service_types: list(&["ClusterIP", "NodePort", "LoadBalancer"]),
            load_balancer_addresses: false,
            endpoints: Vec::new(),
            allowed_backends: Vec::new(),
            denied_backends: Vec::new(),
            images: list(&["*"]),
            image_digests: false,
            node_usage: NodeUsage::Own,
            max_grace_period_seconds: 3600,
            objects: OBJECTS.iter().map(|(kind, most)| ((*kind).to_owned(), *most)).collect(),
        }
    }
}

impl PolicyBounds {
    /// How many of this; no number: it is not counted.
    pub(crate) fn most(&self, what: &str) -> Option<u32> {
        let default = || OBJECTS.iter().find(|(known, _)| *known == what).map(|(_, most)| *most);
        self.objects.get(what).copied().or_else(default)
    }

    /// What is wrong with it, for the admin.
    pub fn fault(&self) -> Option<String> {
        let lists = [
            ("podAnnotations", &self.pod_annotations),
            ("serviceAnnotations", &self.service_annotations),
            ("ingressAnnotations", &self.ingress_annotations),
            ("otherAnnotations", &self.other_annotations),
            ("labels", &self.labels),
            ("ingressDomains", &self.ingress_domains),
            ("exposeDomains", &self.expose_domains),
            ("ingressClasses", &self.ingress_classes),
            ("storageClasses", &self.storage_classes),
            ("priorityClasses", &self.priority_classes),
            ("runtimeClasses", &self.runtime_classes),
            ("schedulers", &self.schedulers),
            ("csiDrivers", &self.csi_drivers),
            ("networkVolumes", &self.network_volumes),
            ("tolerations", &self.tolerations),
            ("serviceTypes", &self.service_types),
            ("images", &self.images),
        ];
        for (field, list) in lists {
            if let Some(entry) = list.iter().find(|entry| !is_pattern(entry)) {
                return Some(format!(
                    "{field}: {entry:?} has `*` elsewhere than at its beginning or its end, or is empty"
                ));
            }
        }
        if let Some(entry) = self.endpoints.iter().find(|entry| entry.parse::<IpNet>().is_err()) {
            return Some(format!("endpoints: {entry:?} is no network, such as 192.0.2.0/24"));
        }
        if let Some(both) = self.allowed_backends.iter().find(|network| self.denied_backends.contains(network)) {
            return Some(format!("deniedBackends: {both} is in allowedBackends as well"));
        }
        for (field, list) in [("allowedBackends", &self.allowed_backends), ("deniedBackends", &self.denied_backends)] {
            if list.len() > MOST_BACKENDS {
                return Some(format!("{field} may have {MOST_BACKENDS} entries"));
            }
        }
        if let Some(kind) = self.objects.keys().find(|kind| !OBJECTS.iter().any(|(known, _)| known == kind)) {
            let known: Vec<&str> = OBJECTS.iter().map(|(known, _)| *known).collect();
            return Some(format!("objects: {kind:?} is not counted; choose of {}", known.join(", ")));
        }
        (self.max_grace_period_seconds == 0).then(|| "maxGracePeriodSeconds must be at least 1".to_owned())
    }
}

/// Bounds for all, and for host namespaces that have their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// For every namespace that is not named.
    pub general: Arc<PolicyBounds>,
    /// By host namespace.
    pub namespaces: BTreeMap<String, Arc<PolicyBounds>>,
}

impl Policies {
    /// Whether the gateway may serve a virtual cluster by this name.
    pub fn expose_domain(&self, (namespace, cluster): (&str, &str), host: &str) -> bool {
        domain(&self.bounds(namespace).expose_domains, (namespace, cluster), host)
    }

    /// The bounds of a host namespace.
    pub(crate) fn bounds(&self, namespace: &str) -> &Arc<PolicyBounds> {
        self.namespaces.get(namespace).unwrap_or(&self.general)
    }
}

/// Whether a domain of the list holds the host name; `""` is every name.
pub(crate) fn domain(entries: &[String], (namespace, cluster): (&str, &str), host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    entries.iter().any(|entry| match entry.as_str() {
        "*" => true,
        _ if host.is_empty() => false,
        entry => {
            let entry = entry.replace("{namespace}", namespace).replace("{cluster}", cluster);
            matches(&entry.to_ascii_lowercase(), &host)
        }
    })
}

/// Whether an entry of a list stands for this text.
pub(crate) fn matches(entry: &str, text: &str) -> bool {
    match (entry.strip_suffix('*'), entry.strip_prefix('*')) {
        (Some(beginning), _) => text.starts_with(beginning),
        (None, Some(end)) => text.ends_with(end) && text.len() > end.len(),
        (None, None) => entry == text,
    }
}

fn is_pattern(entry: &str) -> bool {
    let rest = entry.strip_suffix('*').or_else(|| entry.strip_prefix('*')).unwrap_or(entry);
    !entry.is_empty() && !rest.contains('*')
}
