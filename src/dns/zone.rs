//! What tenant DNS knows of one tenant: its Services and their endpoints, projected to what names need.
//!
//! Fed by `source`, read by `resolve`. Promises: a question finds what it needs by name or by address and goes on with
//! immutable pieces, so no lock is held while an answer is made; an event costs what it changes; and all of it takes at
//! most [`Bounds::weight`] bytes, whatever the tenant writes. Knows no sockets and no other tenant.

mod bounds;
mod content;
mod entry;
mod key;
mod object;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use hickory_proto::rr::Name;
use parking_lot::RwLock;

pub(crate) use bounds::{Bounds, Kind, Put, Unnamed};
use content::Content;
pub(crate) use entry::Entry;
pub(crate) use key::Key;
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

#[cfg(test)]
mod tests;
