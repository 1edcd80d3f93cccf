//! One answer for many who ask the same: made once, in a task of its own, and good for a moment.
//!
//! Promises: of one key at most one answer is being made, and whoever asks waits for it; it is made and remembered though
//! whoever asked first has left; a failure is an answer too, for a shorter moment; what is not kept is not made again
//! sooner than what is; no more keys are kept than there may be, nor more of what is weighed, and none that nobody asks for
//! while others do. The maker bounds how long it takes and how much it is. Must not know what is asked.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};
use crate::runtime::clock::Clock;
use crate::runtime::task::{self, Task};

/// Whoever asks again after a failure finds it for so long, unless the terms say otherwise.
const FAILURE: Duration = Duration::from_secs(2);

/// The answers of now. Dropped, those that are being made are given up.
#[derive(Debug)]
pub struct Answers<K, V>(Arc<All<K, V>>);

/// What is kept of which answers, and for how long.
#[derive(Debug)]
pub struct Terms<V> {
    /// Names the tasks in which they are made.
    pub task: &'static str,
    /// An answer is good for so long.
    pub fresh: Duration,
    /// A failure is an answer for so long.
    pub failed: Duration,
    /// The same, when it came too late.
    pub late: Duration,
    /// Keys that are kept.
    pub most: usize,
    /// What an answer weighs.
    pub weigh: fn(&V) -> usize,
    /// What all together may weigh: those that were asked for longest ago make room.
    pub most_weight: usize,
    /// Whether it is kept, or given only to those who wait for it.
    pub keeps: fn(&V) -> bool,
}

#[derive(Debug)]
struct All<K, V> {
    terms: Terms<V>,
    kept: Mutex<Kept<K, V>>,
}

#[derive(Debug)]
struct Kept<K, V> {
    places: HashMap<K, Arc<Place<V>>>,
    /// When those that nobody asks for were last looked for.
    swept: Option<Instant>,
}

/// Of one key. Who waits for its answer holds it, so that it is made though the place is given to another key.
#[derive(Debug)]
struct Place<V> {
    used: Mutex<Instant>,
    weight: AtomicUsize,
    known: Mutex<Known<V>>,
}

#[derive(Debug)]
enum Known<V> {
    Nothing,
    Making {
        waiting: Waiting<V>,
        /// Ends with this.
        _task: Task,
    },
    Made(Instant, Outcome<V>),
    /// It was made then, and is not kept.
    Passed(Instant),
}

type Outcome<V> = Result<Arc<V>, Arc<Failure>>;
type Waiting<V> = watch::Receiver<Option<Outcome<V>>>;

/// An error that may be told more than once.
#[derive(Debug)]
struct Failure {
    side: Side,
    kind: Kind,
    message: String,
    status: Option<Status>,
}

impl<V> Terms<V> {
    /// Answers that are good for `fresh`, of at most so many keys, whatever they weigh.
    pub fn new(task: &'static str, fresh: Duration, most: usize) -> Self {
        let failed = FAILURE.min(fresh);
        Self { task, fresh, failed, late: failed, most, weigh: |_| 0, most_weight: usize::MAX, keeps: |_| true }
    }

    fn failed(&self, kind: Kind) -> Duration {
        if kind == Kind::Timeout { self.late } else { self.failed }
    }
}

impl<K, V> Answers<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// None yet.
    pub fn new(terms: Terms<V>) -> Self {
        Self(Arc::new(All { terms, kept: Mutex::new(Kept { places: HashMap::new(), swept: None }) }))
    }

    /// What is known of `key`, or what `make` makes of it.
    pub async fn get<F>(&self, key: &K, clock: &Clock, make: impl FnOnce() -> F) -> Result<Arc<V>>
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let place = self.0.place(key, clock.instant());
        let mut waiting = match self.known_or_begun(&place, clock, make) {
            Ok(outcome) => return outcome.map_err(|failure| failure.error()),
            Err(waiting) => waiting,
        };
        let outcome = waiting.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        let given_up = || Err(Error::own(Kind::Closed, "an answer was given up while it was made"));
        outcome.map_or_else(given_up, |outcome| outcome.map_err(|failure| failure.error()))
    }

    /// Forgets this answer; a newer one stays.
    pub fn forget(&self, key: &K, answer: &Arc<V>) {
        let place = self.0.kept.lock().places.get(key).map(Arc::clone);
        let Some(place) = place else { return };
        let mut known = place.known.lock();
        if matches!(&*known, Known::Made(_, Ok(kept)) if Arc::ptr_eq(kept, answer)) {
            *known = Known::Nothing;
        }
    }

    /// How many keys are kept.
    pub fn len(&self) -> usize {
        self.0.kept.lock().places.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The answer, or where it will come.
    fn known_or_begun<F>(
        &self,
        place: &Arc<Place<V>>,
        clock: &Clock,
        make: impl FnOnce() -> F,
    ) -> Result<Outcome<V>, Waiting<V>>
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let (now, mut known) = (clock.instant(), place.known.lock());
        let terms = &self.0.terms;
        let pause = match &*known {
            // Unless it was given up, as when its runtime ended.
            Known::Making { waiting, .. } if waiting.has_changed().is_ok() => return Err(waiting.clone()),
            Known::Made(at, outcome) if now.saturating_duration_since(*at) < terms.life(outcome) => {
                return Ok(outcome.clone());
            }
            Known::Passed(at) => Some(*at + terms.fresh).filter(|until| *until > now),
            Known::Made(..) | Known::Making { .. } | Known::Nothing => None,
        };
        let (sender, waiting) = watch::channel(None);
        let (all, place, clock, work) = (Arc::downgrade(&self.0), Arc::downgrade(place), clock.clone(), make());
        let task = task::spawn(terms.task, async move {
            if let Some(until) = pause {
                tokio::time::sleep_until(until).await;
            }
            let outcome = task::caught(work).await.map(Arc::new).map_err(|error| Arc::new(Failure::of(&error)));
            keep(&all, &place, &outcome, clock.instant());
            sender.send_replace(Some(outcome));
        });
        *known = Known::Making { waiting: waiting.clone(), _task: task };
        Err(waiting)
    }
}

/// Where it still has a place.
fn keep<K: Hash + Eq + Clone, V>(all: &Weak<All<K, V>>, place: &Weak<Place<V>>, outcome: &Outcome<V>, now: Instant) {
    let (Some(all), Some(place)) = (all.upgrade(), place.upgrade()) else { return };
    let is_kept = outcome.as_ref().map_or(true, |value| (all.terms.keeps)(value));
    let weight = outcome.as_ref().map_or(0, |value| if is_kept { (all.terms.weigh)(value) } else { 0 });
    *place.used.lock() = now;
    place.weight.store(weight, Ordering::Relaxed);
    let made = if is_kept { Known::Made(now, outcome.clone()) } else { Known::Passed(now) };
    let gone = std::mem::replace(&mut *place.known.lock(), made);
    drop(gone);
    drop(place);
    let gone = all.kept.lock().make_room(all.terms.most_weight);
    drop(gone);
}

impl<V> Terms<V> {
    /// An outcome is good for so long.
    fn life(&self, outcome: &Outcome<V>) -> Duration {
        outcome.as_ref().map_or_else(|failure| self.failed(failure.kind), |_| self.fresh)
    }
}

impl<K: Hash + Eq + Clone, V> All<K, V> {
    fn place(&self, key: &K, now: Instant) -> Arc<Place<V>> {
        let mut kept = self.kept.lock();
        let life = self.terms.fresh.max(FAILURE) * 2;
        if kept.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= life) {
            kept.places.retain(|_, place| place.is_busy() || place.since(now) < life.max(place.life(&self.terms)));
            kept.swept = Some(now);
        }
        if let Some(place) = kept.places.get(key) {
            *place.used.lock() = now;
            return Arc::clone(place);
        }
        if kept.places.len() >= self.terms.most {
            kept.drop_oldest(|_| true);
        }
        let place =
            Arc::new(Place { used: Mutex::new(now), weight: AtomicUsize::new(0), known: Mutex::new(Known::Nothing) });
        kept.places.insert(key.clone(), Arc::clone(&place));
        place
    }
}

impl<K: Hash + Eq + Clone, V> Kept<K, V> {
    /// What had to go.
    fn make_room(&mut self, most_weight: usize) -> Vec<Arc<Place<V>>> {
        let mut gone = Vec::new();
        while self.places.values().map(|place| place.weight()).sum::<usize>() > most_weight {
            gone.extend(self.drop_oldest(|place| place.weight() > 0));
        }
        gone
    }

    /// Of these, and first of those that nobody holds.
    fn drop_oldest(&mut self, is_meant: impl Fn(&Place<V>) -> bool) -> Option<Arc<Place<V>>> {
        let meant = self.places.iter().filter(|(_, place)| is_meant(place));
        let oldest = meant.min_by_key(|(_, place)| (place.is_busy(), *place.used.lock())).map(|(key, _)| key.clone());
        self.places.remove(&oldest?)
    }
}

impl<V> Place<V> {
    /// Whether somebody waits for it, or it is being made.
    fn is_busy(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 || matches!(&*self.known.lock(), Known::Making { .. })
    }

    fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*self.used.lock())
    }

    fn life(&self, terms: &Terms<V>) -> Duration {
        match &*self.known.lock() {
            Known::Made(_, outcome) => terms.life(outcome),
            _ => Duration::ZERO,
        }
    }

    fn weight(&self) -> usize {
        self.weight.load(Ordering::Relaxed)
    }
}

impl Failure {
    fn of(error: &Error) -> Self {
        let (message, status) = (error.message().to_owned(), error.api_status().cloned());
        Self { side: error.side(), kind: error.kind(), message, status }
    }

    fn error(&self) -> Error {
        match &self.status {
            Some(status) => Error::from_status(self.side, status.clone()),
            None => Error::new(self.side, self.kind, self.message.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
