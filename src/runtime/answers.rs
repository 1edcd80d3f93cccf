//! One answer for many who ask the same: made once, by whoever asks first, and good for a moment.
//!
//! Promises: of one key at most one answer is being made, whoever else asks waits for it; a failure is an answer too, for a
//! shorter moment; no more keys are kept than there may be, nor more of what is weighed, and none that nobody asks for while
//! others do. The maker bounds how long it takes and how much it is. Must not know what is asked.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result, Side};
use crate::runtime::clock::Clock;

/// Whoever asks again after a failure finds it for so long.
const FAILURE: Duration = Duration::from_secs(2);

/// The answers of now.
#[derive(Debug)]
pub struct Answers<K, V> {
    fresh: Duration,
    most: usize,
    weigh: fn(&V) -> usize,
    most_weight: usize,
    kept: Mutex<Kept<K, V>>,
}

#[derive(Debug)]
struct Kept<K, V> {
    places: HashMap<K, Arc<Place<V>>>,
    /// When those that nobody asks for were last looked for.
    swept: Option<Instant>,
}

/// Of one key.
#[derive(Debug)]
struct Place<V> {
    used: Mutex<Instant>,
    weight: AtomicUsize,
    /// Held while an answer is made.
    known: tokio::sync::Mutex<Option<Known<V>>>,
}

#[derive(Debug)]
struct Known<V> {
    since: Instant,
    outcome: Result<Arc<V>, (Side, Kind, String)>,
}

impl<K: Hash + Eq + Clone, V> Answers<K, V> {
    /// Answers that are good for `fresh`, of at most so many keys.
    pub fn new(fresh: Duration, most: usize) -> Self {
        Self::weighed(fresh, most, |_| 0, usize::MAX)
    }

    /// The same, which together weigh no more than `most_weight`: those that were asked for longest ago make room.
    pub fn weighed(fresh: Duration, most: usize, weigh: fn(&V) -> usize, most_weight: usize) -> Self {
        let kept = Mutex::new(Kept { places: HashMap::new(), swept: None });
        Self { fresh, most, weigh, most_weight, kept }
    }

    /// What is known of `key`, or what `make` makes of it.
    pub async fn get<F>(&self, key: &K, clock: &Clock, make: impl FnOnce() -> F) -> Result<Arc<V>>
    where
        F: Future<Output = Result<V>>,
    {
        let place = self.place(key, clock.instant());
        let mut known = place.known.lock().await;
        if let Some(answer) = known.as_ref().and_then(|known| known.answer(self.fresh, clock.instant())) {
            return answer;
        }
        let made = make().await.map(Arc::new);
        let outcome = match &made {
            Ok(value) => Ok(Arc::clone(value)),
            Err(error) => Err((error.side(), error.kind(), error.message().to_owned())),
        };
        let weight = outcome.as_ref().map_or(0, |value| (self.weigh)(value));
        *known = Some(Known { since: clock.instant(), outcome });
        drop(known);
        if place.weight.swap(weight, Ordering::Relaxed) != weight {
            self.make_room();
        }
        made
    }

    /// Forgets what is known of `key`.
    pub fn forget(&self, key: &K) {
        let gone = self.kept.lock().places.remove(key);
        drop(gone);
    }

    /// How many keys are kept.
    pub fn len(&self) -> usize {
        self.kept.lock().places.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn place(&self, key: &K, now: Instant) -> Arc<Place<V>> {
        let mut kept = self.kept.lock();
        let life = self.fresh.max(FAILURE) * 2;
        if kept.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= life) {
            // Whoever waits for one that is dropped here holds it himself.
            kept.places.retain(|_, place| now.saturating_duration_since(*place.used.lock()) < life);
            kept.swept = Some(now);
        }
        if let Some(place) = kept.places.get(key) {
            *place.used.lock() = now;
            return Arc::clone(place);
        }
        if kept.places.len() >= self.most {
            kept.drop_oldest();
        }
        let place = Arc::new(Place {
            used: Mutex::new(now),
            weight: AtomicUsize::new(0),
            known: tokio::sync::Mutex::new(None),
        });
        kept.places.insert(key.clone(), Arc::clone(&place));
        place
    }

    fn make_room(&self) {
        let mut kept = self.kept.lock();
        while kept.weight() > self.most_weight && kept.drop_oldest() {}
    }
}

impl<K: Hash + Eq + Clone, V> Kept<K, V> {
    fn weight(&self) -> usize {
        self.places.values().map(|place| place.weight.load(Ordering::Relaxed)).sum()
    }

    /// Whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let oldest = self.places.iter().min_by_key(|(_, place)| *place.used.lock()).map(|(key, _)| key.clone());
        oldest.is_some_and(|oldest| self.places.remove(&oldest).is_some())
    }
}

impl<V> Known<V> {
    fn answer(&self, fresh: Duration, now: Instant) -> Option<Result<Arc<V>>> {
        let age = now.saturating_duration_since(self.since);
        match &self.outcome {
            Ok(value) if age < fresh => Some(Ok(Arc::clone(value))),
            Err((side, kind, message)) if age < fresh.min(FAILURE) => {
                Some(Err(Error::new(*side, *kind, message.clone())))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_cost_one_answer_until_it_is_old() {
        let (answers, clock, made) = (Answers::new(FRESH, 8), Clock::system(), AtomicUsize::new(0));
        let ask = || {
            answers.get(&"a", &clock, || async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(made.fetch_add(1, Ordering::SeqCst))
            })
        };
        let all = futures::future::join_all((0..50).map(|_| ask())).await;
        assert!(all.iter().all(|answer| answer.as_ref().is_ok_and(|n| **n == 0)));
        tokio::time::advance(FRESH).await;
        assert_eq!(*ask().await.expect("made again"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_for_a_shorter_moment() {
        let (answers, clock, made) = (Answers::<_, ()>::new(FRESH, 8), Clock::system(), AtomicUsize::new(0));
        let ask = || {
            answers.get(&"a", &clock, || async {
                made.fetch_add(1, Ordering::SeqCst);
                Err(Error::own(Kind::Unavailable, "away"))
            })
        };
        for _ in 0..50 {
            assert_eq!(ask().await.expect_err("away").message(), "away");
        }
        assert_eq!(made.load(Ordering::SeqCst), 1);
        tokio::time::advance(FAILURE).await;
        assert!(ask().await.is_err());
        assert_eq!(made.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_while_it_is_made_leaves_it_to_the_next() {
        let (answers, clock) = (Answers::new(FRESH, 8), Clock::system());
        let first = answers.get(&"a", &clock, std::future::pending::<Result<u8>>);
        assert!(tokio::time::timeout(Duration::from_secs(1), first).await.is_err());
        assert_eq!(*answers.get(&"a", &clock, || async { Ok(7) }).await.expect("made"), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_keys_than_there_may_be_and_none_that_nobody_asks_for() {
        let (answers, clock) = (Answers::new(FRESH, 8), Clock::system());
        for key in 0..100 {
            answers.get(&key, &clock, || async move { Ok(key) }).await.expect("made");
        }
        assert_eq!(answers.len(), 8);
        tokio::time::advance(FRESH * 2).await;
        answers.get(&1000, &clock, || async { Ok(0) }).await.expect("made");
        assert_eq!(answers.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_heavy_makes_room_and_is_answered_all_the_same() {
        let (answers, clock) = (Answers::weighed(FRESH, 8, |weight: &usize| *weight, 10), Clock::system());
        for (key, weight, left) in [("a", 6, 1), ("b", 4, 2), ("c", 1, 2), ("d", 11, 0), ("e", 10, 1)] {
            tokio::time::advance(Duration::from_millis(1)).await;
            let answer = answers.get(&key, &clock, || async move { Ok(weight) }).await;
            assert_eq!((*answer.expect("made"), answers.len()), (weight, left), "{key}");
        }
    }
}
