//! What tenant DNS knows of one tenant: its Services and their endpoints, projected to what names need.
//!
//! Fed by `source`, read by `resolve`. Promises: a question finds what it needs by name or by address and goes on with
//! immutable pieces, so no lock is held while an answer is made; an event costs what it changes; and all of it takes at
//! most [`Bounds::weight`] bytes, whatever the tenant writes. Knows no sockets and no other tenant.

mod content;
mod object;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use hickory_proto::rr::Name;
use parking_lot::RwLock;

use content::Content;
pub(crate) use content::Key;
pub(crate) use object::{Endpoint, Port, Ports, Service, Slice, Target};

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

/// How much one tenant may have named.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of all objects together, about.
    pub(crate) weight: usize,
    /// EndpointSlices of one Service.
    pub(crate) slices: usize,
    /// Endpoints of one Service, which a question may have to look at.
    pub(crate) endpoints: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            // Ten thousand Services, Kubernetes' own threshold for a whole cluster, take 12 MiB with a slice of two
            // endpoints each. Sixty tenants at this bound would be needed to fill a replica of 1 GiB.
            weight: 16 << 20,
            // A controller fills slices with 100 endpoints each.
            slices: 256,
            // Twice what an answer of 64 KiB can hold, and both families of the 5000 pods of the largest Services.
            endpoints: 10_000,
        }
    }
}

/// A kind of object that the zone keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Services.
    Services = 0,
    /// EndpointSlices.
    Slices = 1,
}

/// Whether an object is in the zone now.
pub(crate) type Put = Result<(), Refusal>;

/// Why an object has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The tenant has as much as it may.
    ZoneFull,
    /// Its Service has as many slices or endpoints as it may.
    ServiceFull,
}

/// What is known below one Service's name. Immutable once it is handed out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    service: Option<Arc<Service>>,
    /// In the order of their names, so that answers do not depend on the order of events.
    slices: Vec<(Key, Arc<Slice>)>,
    /// Of all slices, shown or not.
    endpoints: usize,
}

/// Everything known of one tenant.
#[derive(Debug)]
pub(crate) struct Zone {
    tenant: Box<str>,
    origin: Origin,
    bounds: Bounds,
    content: RwLock<Content>,
    listings: AtomicU64,
    said: AtomicU8,
}

const API_NAMESPACE: &str = "default";
const API_SERVICE: &str = "kubernetes";

impl Zone {
    /// A zone that knows nothing yet but its own API's address. `tenant` is for the log.
    pub(crate) fn new(tenant: &str, origin: Origin, bounds: Bounds) -> Self {
        let (tenant, content) = (tenant.into(), RwLock::new(Content::default()));
        let zone = Self { tenant, origin, bounds, content, listings: AtomicU64::new(0), said: AtomicU8::new(0) };
        zone.remove_service(API_NAMESPACE, API_SERVICE);
        zone
    }

    /// Where it begins.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether both first lists are complete: before that a missing name means nothing.
    pub(crate) fn is_complete(&self) -> bool {
        self.content.read().listed == [true, true]
    }

    /// Grows with every change; the SOA's serial.
    pub(crate) fn serial(&self) -> u32 {
        self.content.read().serial
    }

    /// Bytes that its objects take, about.
    pub(crate) fn weight(&self) -> usize {
        self.content.read().weight()
    }

    /// Begins a listing of a kind: what is put under its number is there, what has an older one is not.
    pub(crate) fn begin(&self, kind: Kind) -> u64 {
        self.content.write().refused[kind as usize] = false;
        self.listings.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Objects of a kind that a listing, now over, did not show.
    pub(crate) fn unlisted(&self, kind: Kind, listing: u64) -> Vec<Key> {
        self.content.read().unlisted(kind, listing)
    }

    /// Says that the listing of a kind is complete.
    pub(crate) fn listed(&self, kind: Kind) {
        self.content.write().listed[kind as usize] = true;
    }

    /// Whether an object of this kind was refused since its listing began.
    pub(crate) fn has_refused(&self, kind: Kind) -> bool {
        self.content.read().refused[kind as usize]
    }

    /// Puts in or replaces a Service.
    pub(crate) fn put_service(&self, listing: u64, namespace: &str, name: &str, mut service: Service) -> Put {
        let mut bounds = self.bounds;
        if (namespace, name) == (API_NAMESPACE, API_SERVICE) {
            service.target = Target::ClusterIps(vec![self.origin.api]);
            // Pods without their API's name do not run.
            bounds.weight = usize::MAX;
        }
        self.content.write().put_service(Key::new(namespace, name), service, listing, &bounds)
    }

    /// Takes a Service out. The API's own stays.
    pub(crate) fn remove_service(&self, namespace: &str, name: &str) {
        if (namespace, name) == (API_NAMESPACE, API_SERVICE) {
            let https = Port { name: "https".into(), protocol: "tcp", port: 443 };
            let target = Target::ClusterIps(vec![self.origin.api]);
            let service = Service { target, ports: vec![https].into(), publish_not_ready: false };
            // Its bound is none.
            let _never_refused = self.put_service(0, namespace, name, service);
            return;
        }
        self.content.write().remove_service(&Key::new(namespace, name));
    }

    /// Puts in or replaces an EndpointSlice.
    pub(crate) fn put_slice(&self, listing: u64, namespace: &str, name: &str, slice: Slice) -> Put {
        self.content.write().put_slice(Key::new(namespace, name), slice, listing, &self.bounds)
    }

    /// Takes an EndpointSlice out.
    pub(crate) fn remove_slice(&self, namespace: &str, name: &str) {
        self.content.write().remove_slice(&Key::new(namespace, name));
    }

    /// Whether any Service lives there: only then the namespace's name exists in DNS.
    pub(crate) fn has_services(&self, namespace: &str) -> bool {
        self.content.read().has_services(namespace)
    }

    /// What is known below a Service's name.
    pub(crate) fn entry(&self, namespace: &str, service: &str) -> Option<Arc<Entry>> {
        self.content.read().entry(&Key::new(namespace, service)).cloned()
    }

    /// Who has this ClusterIP.
    pub(crate) fn service_at(&self, address: IpAddr) -> Option<Key> {
        if address == self.origin.api {
            return Some(Key::new(API_NAMESPACE, API_SERVICE));
        }
        self.content.read().service_at(address)
    }

    /// The endpoints of headless Services with this address, each once with its Service, by name; of `most` places.
    pub(crate) fn endpoints_at(&self, address: IpAddr, most: usize) -> Vec<(Key, Endpoint)> {
        let mut found = self.content.read().endpoints_at(address, most);
        found.sort();
        found.dedup();
        found
    }

    /// Says what has no name, once for each reason: a tenant writes no log.
    pub(crate) fn say(&self, what: Unnamed, namespace: &str, name: &str) {
        let bit = 1 << (what as u8);
        if self.said.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            let first = |text: &str| text.chars().take(64).collect::<String>();
            let (tenant, namespace, name, why) = (&*self.tenant, first(namespace), first(name), what.why());
            tracing::warn!(%tenant, %namespace, %name, bytes = self.weight(), "{why}; this is said once");
        }
    }
}

/// What a tenant wrote and has no name in its DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unnamed {
    /// Ports or endpoints of one object beyond their bound.
    Parts = 0,
    /// A name that DNS cannot have.
    Name = 1,
    /// An object that cannot be read.
    Unreadable = 2,
    /// Objects beyond the bound of the zone.
    Zone = 3,
    /// Slices and endpoints beyond the bound of their Service.
    Service = 4,
}

impl Unnamed {
    fn why(self) -> &'static str {
        match self {
            Self::Parts => "an object has more ports or endpoints than DNS names: those beyond the bound have no name",
            Self::Name => "an object has a name, or names a host or a port, that no DNS name can be made of",
            Self::Unreadable => "an object cannot be read and has no name in DNS",
            Self::Zone => "the tenant has more objects than DNS names: this one and others have no name",
            Self::Service => {
                "a Service has more endpoints or slices than DNS names: those beyond the bound have no name"
            }
        }
    }
}

impl From<Refusal> for Unnamed {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::ZoneFull => Self::Zone,
            Refusal::ServiceFull => Self::Service,
        }
    }
}

impl Entry {
    /// The Service itself; none while only its slices are known.
    pub(crate) fn service(&self) -> Option<&Service> {
        self.service.as_deref()
    }

    /// How many endpoints there are to look at.
    pub(crate) fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// The endpoints that are shown, each with its slice; begins at the `turn`-th and goes round.
    pub(crate) fn shown(&self, turn: u64) -> impl Iterator<Item = (&Endpoint, &Slice)> {
        let mut start = usize::try_from(turn % self.endpoints.max(1) as u64).unwrap_or_default();
        let mut first = 0;
        while let Some((_, slice)) = self.slices.get(first).filter(|(_, s)| s.endpoints.len() <= start) {
            start -= slice.endpoints.len();
            first += 1;
        }
        let (before, after) = self.slices.split_at(first);
        let (begun, whole) = after.split_at(after.len().min(1));
        let all = self.service().is_some_and(|s| s.publish_not_ready);
        let there = begun.iter().flat_map(move |(_, slice)| part(slice, start, usize::MAX));
        let whole = whole.iter().chain(before).flat_map(|(_, slice)| part(slice, 0, usize::MAX));
        let rest = begun.iter().flat_map(move |(_, slice)| part(slice, 0, start));
        there.chain(whole).chain(rest).filter(move |(endpoint, _)| endpoint.ready || all)
    }

    /// Ports of the slices that have an endpoint to show.
    pub(crate) fn shown_ports(&self) -> impl Iterator<Item = &Ports> {
        let all = self.service().is_some_and(|s| s.publish_not_ready);
        let shown = move |slice: &&Slice| slice.endpoints.iter().any(|e| e.ready || all);
        self.slices.iter().map(|(_, slice)| &**slice).filter(shown).map(|slice| &slice.ports)
    }

    fn put(&mut self, key: Key, slice: Arc<Slice>) {
        self.endpoints += slice.endpoints.len();
        let at = self.slices.binary_search_by(|(k, _)| k.cmp(&key)).unwrap_or_else(|at| at);
        self.slices.insert(at, (key, slice));
    }

    fn remove(&mut self, key: &Key) {
        if let Ok(at) = self.slices.binary_search_by(|(k, _)| k.cmp(key)) {
            let (_, slice) = self.slices.remove(at);
            self.endpoints -= slice.endpoints.len();
        }
    }

    fn is_empty(&self) -> bool {
        self.service.is_none() && self.slices.is_empty()
    }
}

fn part(slice: &Slice, skip: usize, take: usize) -> impl Iterator<Item = (&Endpoint, &Slice)> {
    slice.endpoints.iter().skip(skip).take(take).map(move |endpoint| (endpoint, slice))
}

#[cfg(test)]
mod tests;
