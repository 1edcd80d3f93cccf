//! What is known of one host namespace: its Services that lead to pods, and what its Ingresses lead to.
//!
//! Promises: it has an answer only once both lists were whole, and keeps it; what one virtual cluster's objects take is
//! bounded by their weight, and what is beyond is known to be there and opens nothing; each change tells whom it concerns.
//! Does no IO.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::project::{Backends, Owner, Port, Read, Service, ServicePort, Target};

/// Bytes that the objects of one virtual cluster take here: about three times what its default policy lets it have of ordinary
/// ones (2000 Services, 500 Ingresses).
const MOST_BYTES: usize = 4 << 20;
/// So many Services of one virtual cluster are opened at most: each is an object on the host.
const MOST_SERVICES: usize = 500;
/// So many ports of one of them: each becomes a rule for each network that may come in, at each of its pods.
const MOST_PORTS_OF_ONE: usize = 100;
/// So many ports of them all together.
const MOST_PORTS: usize = 2000;
/// What an entry takes beside its texts, about.
const ENTRY: usize = 160;
const PORT: usize = 64;

/// Whom something concerns: a namespace, and a virtual cluster or all of them.
#[derive(Default)]
pub(crate) struct News {
    /// At most one for each virtual cluster, and one for each namespace.
    changed: Mutex<BTreeSet<(String, Option<String>)>>,
    notify: Notify,
}

impl News {
    /// All since the last call, at least one.
    pub(crate) async fn wait(&self) -> BTreeSet<(String, Option<String>)> {
        loop {
            let all = std::mem::take(&mut *self.changed.lock());
            if !all.is_empty() {
                return all;
            }
            self.notify.notified().await;
        }
    }

    fn tell(&self, namespace: &str, cluster: Option<&str>) {
        self.changed.lock().insert((namespace.to_owned(), cluster.map(str::to_owned)));
        self.notify.notify_one();
    }
}

/// What of a virtual cluster is to be reached.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Openings {
    /// Those by their own type first, then those that an Ingress names; by name.
    pub all: Vec<Opening>,
    /// Objects and Services that are beyond the bounds and open nothing.
    pub left_out: usize,
}

/// Pods, and the ports at which they are to be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opening {
    /// Host name of the Service.
    pub service: String,
    /// Never empty.
    pub selector: BTreeMap<String, String>,
    /// Never empty.
    pub ports: BTreeSet<Port>,
}

/// Of one host namespace.
pub(crate) struct Store {
    namespace: String,
    news: Arc<News>,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    services: Shelf<Service>,
    ingresses: Shelf<Backends>,
    /// By uid of the virtual cluster.
    weights: HashMap<Box<str>, usize>,
}

/// All objects of one kind, by name.
pub(crate) struct Shelf<T> {
    entries: BTreeMap<Box<str>, Entry<T>>,
    /// The last list that began.
    listing: u64,
    is_listed: bool,
    is_refused: bool,
}

struct Entry<T> {
    owner: Owner,
    /// The list that showed it last, or began before an event did.
    listing: u64,
    weight: usize,
    /// `None`: there is no room for it.
    value: Option<T>,
}

/// A kind that is kept.
pub(crate) trait Kept: Sized + PartialEq {
    fn shelf(state: &mut State) -> &mut Shelf<Self>;
    /// Bytes that it takes, about.
    fn weight(&self) -> usize;
}

impl Kept for Service {
    fn shelf(state: &mut State) -> &mut Shelf<Self> {
        &mut state.services
    }

    fn weight(&self) -> usize {
        let selector: usize = self.selector.iter().map(|(key, value)| key.len() + value.len() + PORT).sum();
        selector + self.ports.len() * PORT
    }
}

impl Kept for Backends {
    fn shelf(state: &mut State) -> &mut Shelf<Self> {
        &mut state.ingresses
    }

    fn weight(&self) -> usize {
        self.iter().map(|backend| backend.service.len() + PORT).sum()
    }
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), listing: 0, is_listed: false, is_refused: false }
    }
}

impl Store {
    /// That knows nothing yet.
    pub(crate) fn new(namespace: &str, news: &Arc<News>) -> Self {
        Self { namespace: namespace.to_owned(), news: Arc::clone(news), state: Mutex::default() }
    }

    /// A list begins: its number.
    pub(crate) fn begin<T: Kept>(&self) -> u64 {
        let mut state = self.state.lock();
        let shelf = T::shelf(&mut state);
        shelf.listing += 1;
        shelf.listing
    }

    /// An object is now this, as this list or an event after it shows.
    pub(crate) fn put<T: Kept>(&self, listing: u64, object: Read<T>) {
        let Read { name, owner, value, .. } = object;
        let (Some(owner), Some(value)) = (owner, value) else { return self.remove::<T>(&name) };
        let mut state = self.state.lock();
        if let Some(known) = T::shelf(&mut state).entries.get_mut(&name)
            && known.owner == owner
            && known.value.as_ref() == Some(&value)
        {
            known.listing = listing;
            return;
        }
        let before = state.take::<T>(&name);
        let held = state.weights.get(&owner.uid).copied().unwrap_or_default();
        let (base, weight) = (ENTRY + name.len(), value.weight());
        let has_room = held + base + weight <= MOST_BYTES;
        let (value, weight) = if has_room { (Some(value), base + weight) } else { (None, 0) };
        if weight > 0 {
            *state.weights.entry(owner.uid.clone()).or_default() += weight;
        }
        let entry = Entry { owner: owner.clone(), listing, weight, value };
        T::shelf(&mut state).entries.insert(name, entry);
        drop(state);
        if let Some(before) = before.filter(|before| *before != owner) {
            self.news.tell(&self.namespace, Some(&before.cluster));
        }
        self.news.tell(&self.namespace, Some(&owner.cluster));
    }

    /// An object is gone, or opens nothing any more.
    pub(crate) fn remove<T: Kept>(&self, name: &str) {
        let gone = self.state.lock().take::<T>(name);
        if let Some(owner) = gone {
            self.news.tell(&self.namespace, Some(&owner.cluster));
        }
    }

    /// A list is whole: what it did not show is gone.
    pub(crate) fn end<T: Kept>(&self, listing: u64) {
        let mut state = self.state.lock();
        let unlisted = |shelf: &Shelf<T>| {
            let old = shelf.entries.iter().filter(|(_, entry)| entry.listing < listing);
            old.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        let gone: Vec<Owner> = {
            let names = unlisted(T::shelf(&mut state));
            names.iter().filter_map(|name| state.take::<T>(name)).collect()
        };
        let shelf = T::shelf(&mut state);
        // Both, whatever the other says.
        let (was_refused, was_listed) =
            (std::mem::take(&mut shelf.is_refused), std::mem::replace(&mut shelf.is_listed, true));
        drop(state);
        for owner in gone {
            self.news.tell(&self.namespace, Some(&owner.cluster));
        }
        if was_refused || !was_listed {
            self.news.tell(&self.namespace, None);
        }
    }

    /// The host lets Portico not read this kind here. What was known stays.
    pub(crate) fn refused<T: Kept>(&self) {
        let was_refused = std::mem::replace(&mut T::shelf(&mut self.state.lock()).is_refused, true);
        if !was_refused {
            self.news.tell(&self.namespace, None);
        }
    }

    /// Whether that is so of any kind.
    pub(crate) fn is_refused(&self) -> bool {
        let state = self.state.lock();
        state.services.is_refused || state.ingresses.is_refused
    }

    /// Whether there was no room for some: only a list shows these again.
    pub(crate) fn has_cut<T: Kept>(&self) -> bool {
        T::shelf(&mut self.state.lock()).entries.values().any(|entry| entry.value.is_none())
    }

    /// What of the virtual cluster with this uid is to be reached; `None` while that is not known.
    pub(crate) fn openings(&self, uid: &str) -> Option<Openings> {
        let state = self.state.lock();
        if !(state.services.is_listed && state.ingresses.is_listed) {
            return None;
        }
        let mut meant: BTreeMap<&str, BTreeSet<&Target>> = BTreeMap::new();
        for backend in state.ingresses.of(uid).filter_map(|(_, value)| value).flatten() {
            meant.entry(&backend.service).or_default().insert(&backend.port);
        }
        let cut = state.services.of(uid).filter(|(_, value)| value.is_none()).count()
            + state.ingresses.of(uid).filter(|(_, value)| value.is_none()).count();
        let mut found = Openings { all: Vec::new(), left_out: cut };
        let mut ports = 0;
        for by_type in [true, false] {
            let services = state.services.of(uid).filter_map(|(name, value)| Some((name, value?)));
            for (name, service) in services.filter(|(_, service)| service.is_exposed == by_type) {
                let meant = meant.get(name);
                let is_meant = |port: &ServicePort| meant.is_some_and(|targets| port.is_among(targets));
                let open = service.ports.iter().filter(|port| by_type || is_meant(port));
                let open: BTreeSet<Port> = open.map(|port| port.port.clone()).collect();
                if open.is_empty() {
                    continue;
                }
                let is_too_much = open.len() > MOST_PORTS_OF_ONE || ports + open.len() > MOST_PORTS;
                if is_too_much || found.all.len() == MOST_SERVICES {
                    found.left_out += 1;
                    continue;
                }
                ports += open.len();
                found.all.push(Opening { service: name.to_owned(), selector: service.selector.clone(), ports: open });
            }
        }
        Some(found)
    }
}

impl State {
    /// Takes an entry out; whose it was.
    fn take<T: Kept>(&mut self, name: &str) -> Option<Owner> {
        let Entry { owner, weight, .. } = T::shelf(self).entries.remove(name)?;
        if let Some(held) = self.weights.get_mut(&owner.uid) {
            *held = held.saturating_sub(weight);
            if *held == 0 {
                self.weights.remove(&owner.uid);
            }
        }
        Some(owner)
    }
}

impl<T> Shelf<T> {
    /// All of one virtual cluster's.
    fn of<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = (&'a str, Option<&'a T>)> + 'a {
        let own = self.entries.iter().filter(move |(_, entry)| *entry.owner.uid == *uid);
        own.map(|(name, entry)| (&**name, entry.value.as_ref()))
    }
}

#[cfg(test)]
mod tests;
