//! One answer for many who ask the same: made once, by whoever asks first, and good for a moment.
//!
//! Promises: of one key at most one answer is being made, whoever else asks waits for it; a failure is an answer too, for a
//! shorter moment; no more keys are kept than there may be, and none that nobody asks for. The maker bounds how long it takes
//! and how much it is. Must not know what is asked.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
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
    kept: Mutex<HashMap<K, Arc<Place<V>>>>,
}

/// Of one key.
#[derive(Debug)]
struct Place<V> {
    used: Mutex<Instant>,
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
        Self { fresh, most, kept: Mutex::default() }
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
        *known = Some(Known { since: clock.instant(), outcome });
        made
    }

    /// Forgets what is known of `key`.
    pub fn forget(&self, key: &K) {
        let gone = self.kept.lock().remove(key);
        drop(gone);
    }

    /// How many keys are kept.
    pub fn len(&self) -> usize {
        self.kept.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn place(&self, key: &K, now: Instant) -> Arc<Place<V>> {
        let mut kept = self.kept.lock();
        if let Some(place) = kept.get(key) {
            *place.used.lock() = now;
            return Arc::clone(place);
        }
        // Whoever waits for one that is dropped here holds it himself.
        kept.retain(|_, place| now.saturating_duration_since(*place.used.lock()) < self.fresh.max(FAILURE) * 2);
        if kept.len() >= self.most {
            let oldest = kept.iter().min_by_key(|(_, place)| *place.used.lock()).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                kept.remove(&oldest);
            }
        }
        let place = Arc::new(Place { used: Mutex::new(now), known: tokio::sync::Mutex::new(None) });
        kept.insert(key.clone(), Arc::clone(&place));
        place
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
    use std::sync::atomic::{AtomicUsize, Ordering};

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
}
