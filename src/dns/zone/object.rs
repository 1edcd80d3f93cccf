//! What the zone keeps of a Service and of an EndpointSlice, and what that costs.

use std::cmp::Ordering;
use std::net::IpAddr;

/// What an allocation costs beside its bytes.
const ALLOCATION: usize = 16;
/// An endpoint's place in the index by address: address, name of its slice, position, and a B-tree's slack.
const INDEXED: usize = 72;

/// A Service, as far as names go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// What its name leads to.
    pub(crate) target: Target,
    /// Its named ports (of headless Services the endpoints' ports count instead).
    pub(crate) ports: Ports,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    /// Lower-case name, without underscore.
    pub(crate) name: Box<str>,
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: &'static str,
    /// Number.
    pub(crate) port: u16,
}

/// Named ports, each name once for a protocol, found without looking at the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ports(Box<[Port]>);

/// One EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The Service it belongs to; empty when it says none, and then it is not kept.
    pub(crate) service: Box<str>,
    /// Addresses.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Named ports of all of them.
    pub(crate) ports: Ports,
}

/// One address of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    /// The address that an answer gives.
    pub(crate) address: IpAddr,
    /// `hostname` of the pod, when it has a subdomain too.
    pub(crate) hostname: Option<Box<str>>,
    /// Ready, or not said.
    pub(crate) ready: bool,
}

impl From<Vec<Port>> for Ports {
    /// Of two ports of one name and protocol the first counts, as the API server would have it.
    fn from(mut ports: Vec<Port>) -> Self {
        ports.sort_by(|a, b| a.named().cmp(&b.named()));
        ports.dedup_by(|later, first| later.named() == first.named());
        Self(ports.into_boxed_slice())
    }
}

impl Ports {
    /// All of them, by protocol and name.
    pub(crate) fn all(&self) -> &[Port] {
        &self.0
    }

    /// The one of this protocol and name, as a list of one or none.
    pub(crate) fn named(&self, protocol: &str, name: &str) -> &[Port] {
        match self.0.binary_search_by(|p| p.named().cmp(&(protocol, name))) {
            Ok(at) => self.0.get(at..=at).unwrap_or_default(),
            Err(_) => &[],
        }
    }

    /// Whether any is of this protocol.
    pub(crate) fn has_protocol(&self, protocol: &str) -> bool {
        let first_not_before = |p: &Port| match p.protocol.cmp(protocol) {
            Ordering::Less => Ordering::Less,
            _ => Ordering::Greater,
        };
        let at = self.0.binary_search_by(first_not_before).unwrap_or_else(|at| at);
        self.0.get(at).is_some_and(|p| p.protocol == protocol)
    }

    fn weight(&self) -> usize {
        self.0.iter().map(|p| size_of::<Port>() + text(&p.name)).sum()
    }
}

impl Port {
    fn named(&self) -> (&str, &str) {
        (self.protocol, &self.name)
    }
}

impl Service {
    /// Bytes that keeping it costs, about.
    pub(super) fn weight(&self) -> usize {
        let target = match &self.target {
            // Each is in the index by address too.
            Target::ClusterIps(ips) => ips.len() * (size_of::<IpAddr>() + INDEXED),
            Target::Headless => 0,
            Target::External(name) => text(name),
        };
        size_of::<Self>() + target + self.ports.weight()
    }
}

impl Slice {
    /// Bytes that keeping it costs, about.
    pub(super) fn weight(&self) -> usize {
        let hostnames: usize = self.endpoints.iter().filter_map(|e| e.hostname.as_deref()).map(text).sum();
        let endpoints = self.endpoints.len() * (size_of::<Endpoint>() + INDEXED);
        size_of::<Self>() + text(&self.service) + endpoints + hostnames + self.ports.weight()
    }

    /// Whether the same addresses stand at the same places.
    pub(super) fn stands_as(&self, other: &Self) -> bool {
        let addresses = |slice: &Self| slice.endpoints.iter().map(|e| e.address).collect::<Vec<_>>();
        self.endpoints.len() == other.endpoints.len() && addresses(self) == addresses(other)
    }
}

fn text(text: &str) -> usize {
    text.len() + ALLOCATION
}
