//! Of which tenants the admission rules are followed: so many and no more, and only while they are asked for.
//!
//! Promises: one task for each tenant, owned here and ended with its seat; a task that ends by itself, panics included,
//! leaves its seat; a newer generation or another identity takes the seat of the one before; where none is free, the one
//! that was not used for longest gives way, unless it was used a moment ago. Must not know what the tasks do.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::known::Known;
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::runtime::task::{self, Task};

/// Tenants at once.
const SEATS: usize = 64;
/// A seat that was not used for so long may be had by another tenant. A seat is worth the lists with which it begins.
const RESTS: Duration = Duration::from_secs(60);
/// Nobody asked for so long: it is over.
const IDLE: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<Taken>);

/// A tenant in one generation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) id: &'a TenantId,
    pub(super) uid: &'a str,
    pub(super) generation: u64,
}

/// When a seat was used last.
#[derive(Debug, Clone)]
pub(super) struct Used(Arc<Mutex<Instant>>);

#[derive(Debug, Default)]
struct Taken {
    seats: HashMap<TenantId, Seat>,
    /// Seats that were taken so far.
    count: u64,
}

#[derive(Debug)]
struct Seat {
    number: u64,
    uid: String,
    generation: u64,
    used: Used,
    known: watch::Receiver<Known>,
    /// Ends with the seat.
    _task: Task,
}

/// In a task: gives the seat back with its end, whatever that is.
struct Leave {
    seats: Weak<Seats>,
    id: TenantId,
    number: u64,
}

impl Seats {
    /// What the tenant's task knows. `work` makes one, for a tenant that has none; `None`: there is no seat for it.
    pub(super) fn take<F>(
        self: &Arc<Self>,
        who: Who<'_>,
        now: Instant,
        work: impl FnOnce(Used) -> (watch::Receiver<Known>, F),
    ) -> Option<watch::Receiver<Known>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut taken = self.0.lock();
        match taken.seats.get(who.id) {
            Some(seat) if seat.uid == who.uid && seat.generation >= who.generation => {
                seat.used.now(now);
                return Some(seat.known.clone());
            }
            // The last requests of a cluster that is gone.
            Some(seat) if seat.generation > who.generation => return None,
            _ => {}
        }
        let before = taken.seats.remove(who.id);
        let resting = if taken.seats.len() < SEATS { None } else { Some(taken.resting(now)?) };
        taken.count += 1;
        let number = taken.count;
        let used = Used(Arc::new(Mutex::new(now)));
        let (known, work) = work(used.clone());
        let (seats, id) = (Arc::downgrade(self), who.id.clone());
        let task = task::spawn("admission rules", async move {
            // Made in here: one that is never begun, as the process ends, would be dropped under the lock that it takes.
            let _leave = Leave { seats, id, number };
            work.await;
        });
        let (uid, generation) = (who.uid.to_owned(), who.generation);
        let seat = Seat { number, uid, generation, used, known: known.clone(), _task: task };
        taken.seats.insert(who.id.clone(), seat);
        drop(taken);
        // Not under the lock, which their tasks take when they end.
        drop((before, resting));
        Some(known)
    }

    /// Seats that are taken now.
    pub(super) fn taken(&self) -> usize {
        self.0.lock().seats.len()
    }
}

impl Taken {
    /// The seat that was not used for longest, if it rests.
    fn resting(&mut self, now: Instant) -> Option<Seat> {
        let (id, seat) = self.seats.iter().min_by_key(|(_, seat)| seat.used.last())?;
        let rests = now.saturating_duration_since(seat.used.last()) >= RESTS;
        let id = rests.then(|| id.clone())?;
        self.seats.remove(&id)
    }
}

impl Used {
    fn now(&self, now: Instant) {
        *self.0.lock() = now;
    }

    fn last(&self) -> Instant {
        *self.0.lock()
    }

    /// Resolves when nobody asked for long.
    pub(super) async fn is_over(&self, clock: &Clock) {
        loop {
            let until = self.last() + IDLE;
            if until <= clock.instant() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        let Some(seats) = self.seats.upgrade() else { return };
        let mut taken = seats.0.lock();
        let is_ours = taken.seats.get(&self.id).is_some_and(|seat| seat.number == self.number);
        let seat = if is_ours { taken.seats.remove(&self.id) } else { None };
        drop(taken);
        drop(seat);
    }
}

#[cfg(test)]
mod tests;
