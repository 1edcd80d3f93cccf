//! The maps behind a zone, and their accounts: every object is in here once, found by name and by address, and counted
//! when it comes and when it goes.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::bounds::{Bounds, Kind, Put, Refusal};
use super::entry::Entry;
use super::key::Key;
use super::object::{Endpoint, Service, Slice, Target};

/// Maps' slots, headers of shared pointers and the rest that every object costs, whatever it holds.
const OBJECT: usize = 256;

#[derive(Debug)]
struct Kept {
    /// Of the Service it belongs to.
    service: Key,
    slice: Arc<Slice>,
    /// The listing, or watch after it, that last showed it.
    listing: u64,
}

/// Everything known of one tenant.
#[derive(Debug, Default)]
pub(super) struct Content {
    names: HashMap<Key, Arc<Entry>>,
    /// Services by name: the listing, or watch after it, that last showed each.
    services: HashMap<Key, u64>,
    slices: HashMap<Key, Kept>,
    /// How many Services live in each namespace.
    namespaces: HashMap<Box<str>, usize>,
    cluster_ips: BTreeSet<(IpAddr, Key)>,
    /// Address, slice, and the place in it.
    endpoints: BTreeSet<(IpAddr, Key, u32)>,
    weight: usize,
    pub(super) serial: u32,
    pub(super) listed: [bool; 2],
    pub(super) refused: [bool; 2],
}

impl Content {
    /// Puts in or replaces a Service; what was there under its name goes in any case.
    pub(super) fn put_service(&mut self, key: Key, service: Service, listing: u64, bounds: &Bounds) -> Put {
        // A source that is just being replaced may come in late: it takes nothing back.
        let listing = self.services.get(&key).map_or(listing, |shown| listing.max(*shown));
        if self.names.get(&key).and_then(|e| e.service()) == Some(&service) {
            self.services.insert(key, listing);
            return Ok(());
        }
        self.remove_service(&key);
        let weight = weigh(&key, service.weight());
        if self.weight + weight > bounds.weight {
            self.refused[Kind::Services as usize] = true;
            return Err(Refusal::ZoneFull);
        }
        self.weight += weight;
        if let Target::ClusterIps(ips) = &service.target {
            self.cluster_ips.extend(ips.iter().map(|ip| (*ip, key.clone())));
        }
        *self.namespaces.entry(key.parts().0.into()).or_default() += 1;
        Arc::make_mut(self.names.entry(key.clone()).or_default()).service = Some(Arc::new(service));
        self.services.insert(key, listing);
        self.changed();
        Ok(())
    }

    /// Takes a Service out.
    pub(super) fn remove_service(&mut self, key: &Key) {
        if self.services.remove(key).is_none() {
            return;
        }
        let (namespace, _) = key.parts();
        if let Some(left) = self.namespaces.get_mut(namespace) {
            *left -= 1;
            if *left == 0 {
                self.namespaces.remove(namespace);
            }
        }
        let Some(entry) = self.names.get_mut(key) else { return };
        let service = Arc::make_mut(entry).service.take();
        if entry.is_empty() {
            self.names.remove(key);
        }
        if let Some(service) = service {
            self.weight -= weigh(key, service.weight());
            if let Target::ClusterIps(ips) = &service.target {
                for ip in ips {
                    self.cluster_ips.remove(&(*ip, key.clone()));
                }
            }
        }
        self.changed();
    }

    /// Puts in or replaces an EndpointSlice; what was there under its name goes in any case.
    pub(super) fn put_slice(&mut self, key: Key, slice: Slice, listing: u64, bounds: &Bounds) -> Put {
        let (mut is_indexed, mut listing) = (false, listing);
        if let Some(kept) = self.slices.get_mut(&key) {
            listing = listing.max(kept.listing);
            if *kept.slice == slice {
                kept.listing = listing;
                return Ok(());
            }
            is_indexed = kept.slice.stands_as(&slice);
        }
        let weight = weigh(&key, slice.weight());
        let service = Key::new(key.parts().0, &slice.service);
        let refusal = self.refusal(&key, &service, &slice, weight, bounds);
        self.take_slice(&key, !(is_indexed && refusal.is_none()));
        if slice.service.is_empty() {
            return Ok(());
        }
        if let Some(refusal) = refusal {
            self.refused[Kind::Slices as usize] = true;
            return Err(refusal);
        }
        if !is_indexed {
            let places = slice.endpoints.iter().zip(0..);
            self.endpoints.extend(places.map(|(e, at)| (e.address, key.clone(), at)));
        }
        self.weight += weight;
        let slice = Arc::new(slice);
        Arc::make_mut(self.names.entry(service.clone()).or_default()).put(key.clone(), Arc::clone(&slice));
        self.slices.insert(key, Kept { service, slice, listing });
        self.changed();
        Ok(())
    }

    /// Takes an EndpointSlice out.
    pub(super) fn remove_slice(&mut self, key: &Key) {
        self.take_slice(key, true);
    }

    /// Objects of a kind that a listing, now over, did not show.
    pub(super) fn unlisted(&self, kind: Kind, listing: u64) -> Vec<Key> {
        let (mut services, mut slices) = (Vec::new(), Vec::new());
        match kind {
            Kind::Services => {
                services.extend(self.services.iter().filter(|(_, at)| **at < listing).map(|(key, _)| key))
            }
            Kind::Slices => slices.extend(self.slices.iter().filter(|(_, k)| k.listing < listing).map(|(key, _)| key)),
        }
        services.into_iter().chain(slices).cloned().collect()
    }

    pub(super) fn entry(&self, key: &Key) -> Option<&Arc<Entry>> {
        self.names.get(key)
    }

    pub(super) fn has_services(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// The first Service, in the order of names, with this ClusterIP.
    pub(super) fn service_at(&self, address: IpAddr) -> Option<Key> {
        let (at, key) = self.cluster_ips.range((address, Key::first())..).next()?;
        (*at == address).then(|| key.clone())
    }

    /// Endpoints of headless Services with this address, each with its Service; looks at `most` places.
    pub(super) fn endpoints_at(&self, address: IpAddr, most: usize) -> Vec<(Key, Endpoint)> {
        let places = self.endpoints.range((address, Key::first(), 0)..).take_while(|(at, ..)| *at == address);
        let shown = |(_, slice, at): &(IpAddr, Key, u32)| {
            let kept = self.slices.get(slice)?;
            let service = self.names.get(&kept.service)?.service()?;
            let endpoint = kept.slice.endpoints.get(usize::try_from(*at).ok()?)?;
            let shown = service.target == Target::Headless && (endpoint.ready || service.publish_not_ready);
            shown.then(|| (kept.service.clone(), endpoint.clone()))
        };
        places.take(most).filter_map(shown).collect()
    }

    /// Bytes that all this takes, about.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Whether nothing is left but so many Services, each with one ClusterIP.
    #[cfg(test)]
    pub(super) fn is_empty_but_for(&self, services: usize) -> bool {
        let left = (self.names.len(), self.services.len(), self.cluster_ips.len());
        left == (services, services, services) && self.slices.is_empty() && self.endpoints.is_empty()
    }

    fn refusal(&self, key: &Key, service: &Key, slice: &Slice, weight: usize, bounds: &Bounds) -> Option<Refusal> {
        let old = self.slices.get(key);
        let freed = old.map_or(0, |kept| weigh(key, kept.slice.weight()));
        if self.weight - freed + weight > bounds.weight {
            return Some(Refusal::ZoneFull);
        }
        let entry = self.names.get(service)?;
        let own = old.filter(|kept| kept.service == *service).map(|kept| kept.slice.endpoints.len());
        let slices = entry.slices.len() - usize::from(own.is_some());
        let endpoints = entry.endpoints - own.unwrap_or_default() + slice.endpoints.len();
        (slices >= bounds.slices || endpoints > bounds.endpoints).then_some(Refusal::ServiceFull)
    }

    fn take_slice(&mut self, key: &Key, from_index: bool) {
        let Some(Kept { service, slice, .. }) = self.slices.remove(key) else { return };
        self.weight -= weigh(key, slice.weight());
        if from_index {
            for (endpoint, at) in slice.endpoints.iter().zip(0..) {
                self.endpoints.remove(&(endpoint.address, key.clone(), at));
            }
        }
        if let Some(entry) = self.names.get_mut(&service) {
            Arc::make_mut(entry).remove(key);
            if entry.is_empty() {
                self.names.remove(&service);
            }
        }
        self.changed();
    }

    fn changed(&mut self) {
        self.serial = self.serial.wrapping_add(1);
    }
}

fn weigh(key: &Key, object: usize) -> usize {
    OBJECT + 2 * key.bytes() + object
}
