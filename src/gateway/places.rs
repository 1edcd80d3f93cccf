//! Places for requests of callers whom nobody knows yet: few, and shared fairly by source address and tenant.
//!
//! Promises: one source has half of a tenant's places and half of all at most, one tenant its own share; a request that
//! finds none waits its turn for a moment, sources in turn, each in the order of its requests; who waits is bounded too.
//! Callers who are known never come here. Must not know what makes a caller known.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::counts::Counts;
use crate::names::TenantId;
use crate::runtime::source::source;

/// A first request of an honest token is over within milliseconds: waiting spares its client a refusal and a second.
const PATIENCE: Duration = Duration::from_secs(2);

/// A pool of places. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Inner>);

/// One place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    of: Key,
}

#[derive(Debug)]
struct Inner {
    sizes: Sizes,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    all: usize,
    tenant: usize,
    source: usize,
    source_in_tenant: usize,
    waiting: usize,
    waiting_of_one: usize,
}

/// Who is treated as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    tenant: TenantId,
    source: IpAddr,
}

/// Queues are never empty, so that only those who are here take memory.
#[derive(Debug, Default)]
struct State {
    all: usize,
    by_tenant: Counts<TenantId>,
    by_source: Counts<IpAddr>,
    by_key: Counts<Key>,
    queues: HashMap<Key, VecDeque<Waiter>>,
    turns: VecDeque<Key>,
    waiting: usize,
    arrivals: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    granted: oneshot::Sender<Place>,
}

/// A waiter's own end; dropped, it waits no more.
struct Waiting<'a> {
    places: &'a Places,
    of: Key,
    number: u64,
    granted: oneshot::Receiver<Place>,
}

impl Places {
    /// `all` places, of which one tenant has `per_tenant` at most.
    pub(super) fn new(all: usize, per_tenant: usize) -> Self {
        let source_in_tenant = (per_tenant / 2).max(1);
        let sizes = Sizes {
            all,
            tenant: per_tenant,
            source: (all / 2).max(1),
            source_in_tenant,
            waiting: all.saturating_mul(2),
            waiting_of_one: source_in_tenant.saturating_mul(2),
        };
        Self(Arc::new(Inner { sizes, state: Mutex::default() }))
    }

    /// A place, at once or after a short wait; `None` when there is none.
    pub(super) async fn enter(&self, tenant: &TenantId, peer: IpAddr) -> Option<Place> {
        let of = Key { tenant: tenant.clone(), source: source(peer) };
        let mut waiting = {
            let mut state = self.0.state.lock();
            if state.has_room(&of, &self.0.sizes) {
                state.take(&of);
                return Some(Place { places: self.clone(), of });
            }
            let (number, granted) = state.queue(&of, &self.0.sizes)?;
            Waiting { places: self, of, number, granted }
        };
        tokio::time::timeout(PATIENCE, &mut waiting.granted).await.ok()?.ok()
    }

    /// Places that a tenant's callers have now.
    pub(super) fn in_use(&self, tenant: &TenantId) -> usize {
        self.0.state.lock().by_tenant.of(tenant)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let granted: Vec<(Key, Waiter)> = {
            let mut state = self.places.0.state.lock();
            state.give_back(&self.of);
            std::iter::from_fn(|| state.next(&self.places.0.sizes)).collect()
        };
        // Outside of the lock: a place that its waiter does not want any more comes back at once.
        for (of, waiter) in granted {
            let place = Self { places: self.places.clone(), of };
            drop(waiter.granted.send(place));
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.places.0.state.lock().leave(&self.of, self.number);
    }
}

impl State {
    fn has_room(&self, of: &Key, sizes: &Sizes) -> bool {
        self.all < sizes.all
            && self.by_tenant.of(&of.tenant) < sizes.tenant
            && self.by_source.of(&of.source) < sizes.source
            && self.by_key.of(of) < sizes.source_in_tenant
    }

    fn take(&mut self, of: &Key) {
        self.all += 1;
        self.by_tenant.increase(of.tenant.clone());
        self.by_source.increase(of.source);
        self.by_key.increase(of.clone());
    }

    fn give_back(&mut self, of: &Key) {
        self.all = self.all.saturating_sub(1);
        self.by_tenant.decrease(&of.tenant);
        self.by_source.decrease(&of.source);
        self.by_key.decrease(of);
    }

    fn queue(&mut self, of: &Key, sizes: &Sizes) -> Option<(u64, oneshot::Receiver<Place>)> {
        let own = self.queues.get(of).map_or(0, VecDeque::len);
        if self.waiting >= sizes.waiting || own >= sizes.waiting_of_one {
            return None;
        }
        if own == 0 {
            self.turns.push_back(of.clone());
        }
        self.waiting += 1;
        self.arrivals += 1;
        let (number, (granted, receiver)) = (self.arrivals, oneshot::channel());
        self.queues.entry(of.clone()).or_default().push_back(Waiter { number, granted });
        Some((number, receiver))
    }

    /// Takes a place for the next whose turn it is. One that came back may serve two, one of its tenant and one of its
    /// source.
    fn next(&mut self, sizes: &Sizes) -> Option<(Key, Waiter)> {
        let at = self.turns.iter().position(|of| self.has_room(of, sizes))?;
        let of = self.turns.remove(at)?;
        let queue = self.queues.get_mut(&of)?;
        let waiter = queue.pop_front()?;
        self.waiting = self.waiting.saturating_sub(1);
        if queue.is_empty() {
            self.queues.remove(&of);
        } else {
            self.turns.push_back(of.clone());
        }
        self.take(&of);
        Some((of, waiter))
    }

    fn leave(&mut self, of: &Key, number: u64) {
        let Some(queue) = self.queues.get_mut(of) else { return };
        let before = queue.len();
        queue.retain(|waiter| waiter.number != number);
        self.waiting = self.waiting.saturating_sub(before - queue.len());
        if queue.is_empty() {
            self.queues.remove(of);
            self.turns.retain(|other| other != of);
        }
    }
}

#[cfg(test)]
mod tests;
