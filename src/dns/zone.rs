//! What tenant DNS knows of one tenant: its Services and their endpoints, projected to what names need.
//!
//! Pure. Fed by `source`, read by `resolve`. Knows no sockets and no other tenant.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use hickory_proto::rr::Name;

/// Where the tenant's cluster network begins; fixed for the life of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The cluster domain, fully qualified and lower case.
    pub(crate) domain: Name,
    /// Address of the tenant's API: `kubernetes.default.svc`, whatever its own object says.
    pub(crate) api: IpAddr,
    /// Address of the tenant's DNS: `ns.dns.{domain}`.
    pub(crate) dns: IpAddr,
}

/// A Service, as far as names go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// What its name leads to.
    pub(crate) target: Target,
    /// Its named ports (of headless Services the endpoints' ports count instead).
    pub(crate) ports: Vec<Port>,
    /// Whether endpoints that are not ready are shown too.
    pub(crate) publish_not_ready: bool,
}

/// What a Service's name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// ClusterIPs, at most one for each IP family; empty while none is assigned.
    ClusterIps(Vec<IpAddr>),
    /// `clusterIP: None`: the endpoints themselves.
    Headless,
    /// `type: ExternalName`.
    External(Box<str>),
}

/// A named port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Port {
    /// Lower-case name, without underscore.
    pub(crate) name: Box<str>,
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: &'static str,
    /// Number.
    pub(crate) port: u16,
}

/// One EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The Service it belongs to.
    pub(crate) service: Box<str>,
    /// Addresses.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Named ports of all of them.
    pub(crate) ports: Vec<Port>,
}

/// One address of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Where.
    pub(crate) address: IpAddr,
    /// `hostname` of the pod, when it has a subdomain too.
    pub(crate) hostname: Option<Box<str>>,
    /// Ready, or not said.
    pub(crate) ready: bool,
}

/// Everything known of one tenant.
#[derive(Debug)]
pub(crate) struct Zone {
    origin: Origin,
    namespaces: HashMap<Box<str>, Namespace>,
    services_listed: bool,
    slices_listed: bool,
    serial: u32,
}

#[derive(Debug, Default)]
struct Namespace {
    services: HashMap<Box<str>, Service>,
    // Ordered, so that answers do not depend on the order of events.
    slices: BTreeMap<Box<str>, Slice>,
}

const API_NAMESPACE: &str = "default";
const API_SERVICE: &str = "kubernetes";

impl Zone {
    /// A zone that knows nothing yet but its own API's address.
    pub(crate) fn new(origin: Origin) -> Self {
        let mut zone =
            Self { origin, namespaces: HashMap::new(), services_listed: false, slices_listed: false, serial: 1 };
        zone.remove_service(API_NAMESPACE, API_SERVICE);
        zone
    }

    /// Where it begins.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether both first lists are complete: before that a missing name means nothing.
    pub(crate) fn is_complete(&self) -> bool {
        self.services_listed && self.slices_listed
    }

    /// Grows with every change; the SOA's serial.
    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }

    /// Puts in or replaces a Service.
    pub(crate) fn put_service(&mut self, namespace: &str, name: &str, mut service: Service) {
        if (namespace, name) == (API_NAMESPACE, API_SERVICE) {
            service.target = Target::ClusterIps(vec![self.origin.api]);
        }
        self.namespace(namespace).services.insert(name.into(), service);
    }

    /// Takes a Service out. The API's own stays.
    pub(crate) fn remove_service(&mut self, namespace: &str, name: &str) {
        if (namespace, name) == (API_NAMESPACE, API_SERVICE) {
            let https = Port { name: "https".into(), protocol: "tcp", port: 443 };
            let target = Target::ClusterIps(vec![self.origin.api]);
            let service = Service { target, ports: vec![https], publish_not_ready: false };
            self.namespace(namespace).services.insert(name.into(), service);
            return;
        }
        self.namespace(namespace).services.remove(name);
        self.prune(namespace);
    }

    /// Replaces all Services by a complete list.
    pub(crate) fn replace_services(&mut self, services: Vec<(Box<str>, Box<str>, Service)>) {
        for namespace in self.namespaces.values_mut() {
            namespace.services.clear();
        }
        self.remove_service(API_NAMESPACE, API_SERVICE);
        for (namespace, name, service) in services {
            self.put_service(&namespace, &name, service);
        }
        self.namespaces.retain(|_, n| !n.is_empty());
        self.services_listed = true;
    }

    /// Puts in or replaces an EndpointSlice.
    pub(crate) fn put_slice(&mut self, namespace: &str, name: &str, slice: Slice) {
        self.namespace(namespace).slices.insert(name.into(), slice);
    }

    /// Takes an EndpointSlice out.
    pub(crate) fn remove_slice(&mut self, namespace: &str, name: &str) {
        self.namespace(namespace).slices.remove(name);
        self.prune(namespace);
    }

    /// Replaces all EndpointSlices by a complete list.
    pub(crate) fn replace_slices(&mut self, slices: Vec<(Box<str>, Box<str>, Slice)>) {
        for namespace in self.namespaces.values_mut() {
            namespace.slices.clear();
        }
        for (namespace, name, slice) in slices {
            self.put_slice(&namespace, &name, slice);
        }
        self.namespaces.retain(|_, n| !n.is_empty());
        self.serial = self.serial.wrapping_add(1);
        self.slices_listed = true;
    }

    /// Whether any Service lives there: only then the namespace's name exists in DNS.
    pub(crate) fn has_services(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|n| !n.services.is_empty())
    }

    /// A Service by its name.
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.namespaces.get(namespace)?.services.get(name)
    }

    /// The endpoints of a Service that are shown, each with the ports of its slice, no address twice.
    pub(crate) fn endpoints<'a>(&'a self, namespace: &str, service: &str) -> Vec<(&'a Endpoint, &'a [Port])> {
        let Some(namespace) = self.namespaces.get(namespace) else { return Vec::new() };
        let all = namespace.services.get(service).is_some_and(|s| s.publish_not_ready);
        let mut found: Vec<(&Endpoint, &[Port])> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for slice in namespace.slices.values().filter(|s| &*s.service == service) {
            for endpoint in slice.endpoints.iter().filter(|e| e.ready || all) {
                // One address may stand in two slices, while it moves or when a Service's ports differ by pod.
                if seen.insert((endpoint.address, &endpoint.hostname, &*slice.ports)) {
                    found.push((endpoint, &slice.ports));
                }
            }
        }
        found
    }

    /// Who has this ClusterIP.
    pub(crate) fn service_at(&self, address: IpAddr) -> Option<(&str, &str)> {
        if address == self.origin.api {
            return Some((API_NAMESPACE, API_SERVICE));
        }
        self.namespaces.iter().find_map(|(namespace, n)| {
            let holds = |s: &Service| matches!(&s.target, Target::ClusterIps(ips) if ips.contains(&address));
            n.services.iter().find(|(_, s)| holds(s)).map(|(name, _)| (&**namespace, &**name))
        })
    }

    /// The endpoints of headless Services with this address, as (namespace, service, endpoint).
    pub(crate) fn endpoints_at(&self, address: IpAddr) -> Vec<(&str, &str, &Endpoint)> {
        let mut found = Vec::new();
        for (namespace, n) in &self.namespaces {
            for slice in n.slices.values() {
                let Some(service) = n.services.get(&slice.service) else { continue };
                if service.target != Target::Headless {
                    continue;
                }
                let shown = |e: &&Endpoint| e.address == address && (e.ready || service.publish_not_ready);
                if let Some(endpoint) = slice.endpoints.iter().find(shown) {
                    found.push((&**namespace, &*slice.service, endpoint));
                }
            }
        }
        found.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        found
    }

    fn namespace(&mut self, name: &str) -> &mut Namespace {
        self.serial = self.serial.wrapping_add(1);
        self.namespaces.entry(name.into()).or_default()
    }

    fn prune(&mut self, name: &str) {
        if self.namespaces.get(name).is_some_and(Namespace::is_empty) {
            self.namespaces.remove(name);
        }
    }
}

impl Namespace {
    fn is_empty(&self) -> bool {
        self.services.is_empty() && self.slices.is_empty()
    }
}
