//! The keys that somebody publishes for his tokens, asked for when one is shown.
//!
//! Promises: asked once for all who wait, in a task of its own that nobody's leaving ends, and not again for some seconds
//! whatever came of it; what is known is used on while he is away. Where nobody shows a token nothing is asked. Must not know
//! tokens, or how anybody is asked.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::gateway::identity::Keys;
use crate::runtime::clock::Clock;
use crate::runtime::task::{self, Task};

/// For all that is asked.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Published {
    known: watch::Sender<Known>,
    flight: Mutex<Flight>,
    versions: Arc<AtomicU64>,
}

/// Keys as they were published.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) keys: Keys,
    /// Of whoever was asked.
    pub(super) generation: u64,
    pub(super) since: Instant,
    /// Grows when they are others.
    pub(super) version: u64,
}

/// Somebody who waits for them.
#[derive(Debug)]
pub(crate) struct Asked {
    known: watch::Receiver<Known>,
    number: u64,
}

#[derive(Debug, Default)]
struct Known {
    held: Option<Arc<Held>>,
    /// The last flight that ended.
    answered: u64,
    read: u64,
    failed: u64,
}

#[derive(Debug, Default)]
struct Flight {
    number: u64,
    begun: Option<Instant>,
    task: Option<Task>,
}

impl Published {
    /// None are known yet. What they are called is unique among all that are counted by the same.
    pub(super) fn counted_by(versions: &Arc<AtomicU64>) -> Self {
        Self { versions: Arc::clone(versions), ..Self::default() }
    }

    /// What is known now.
    pub(super) fn held(&self) -> Option<Arc<Held>> {
        self.known.borrow().held.clone()
    }

    /// Which keys those are.
    pub(super) fn version(&self) -> u64 {
        self.known.borrow().held.as_ref().map_or(0, |held| held.version)
    }

    /// Begins to ask, or joins who does. `None`: that was less than `pause` ago.
    pub(super) fn ask<F>(&self, pause: Duration, clock: &Clock, read: impl FnOnce() -> (u64, F)) -> Option<Asked>
    where
        F: Future<Output = Result<Keys>> + Send + 'static,
    {
        let mut flight = self.flight.lock();
        let now = clock.instant();
        if flight.task.as_ref().is_none_or(Task::is_finished) {
            if flight.begun.is_some_and(|begun| now.saturating_duration_since(begun) < pause) {
                return None;
            }
            flight.number += 1;
            flight.begun = Some(now);
            let (generation, read) = read();
            let known = (self.known.clone(), Arc::clone(&self.versions));
            let asking = ask(known, flight.number, generation, read, clock.clone());
            flight.task = Some(task::spawn("token keys", asking));
        }
        Some(Asked { known: self.known.subscribe(), number: flight.number })
    }

    /// As if they had been asked for.
    #[cfg(test)]
    pub(super) fn hold(&self, keys: Keys, generation: u64, now: Instant) {
        self.known.send_modify(|known| known.hold(keys, generation, now, &self.versions));
    }

    /// How often they were read, and could not be.
    pub(super) fn counts(&self) -> [(&'static str, u64); 2] {
        let known = self.known.borrow();
        [("read", known.read), ("failed", known.failed)]
    }
}

impl Known {
    fn hold(&mut self, keys: Keys, generation: u64, since: Instant, versions: &AtomicU64) {
        let version = match &self.held {
            Some(held) if held.keys.is_same(&keys) => held.version,
            _ => versions.fetch_add(1, Ordering::Relaxed) + 1,
        };
        self.held = Some(Arc::new(Held { keys, generation, since, version }));
    }
}

impl Asked {
    /// Waits for the answer, or for the end of its time.
    pub(crate) async fn answered(mut self) {
        let Self { known, number } = &mut self;
        let answered = known.wait_for(|known| known.answered >= *number);
        // The task has the same deadline and says so itself; a panic of it does not.
        drop(tokio::time::timeout(DEADLINE + Duration::from_secs(1), answered).await);
    }
}

async fn ask(
    (known, versions): (watch::Sender<Known>, Arc<AtomicU64>),
    number: u64,
    generation: u64,
    read: impl Future<Output = Result<Keys>> + Send + 'static,
    clock: Clock,
) {
    let late = |_| Err(Error::backend(Kind::Timeout, "the keys did not come in time"));
    let read = tokio::time::timeout(DEADLINE, task::caught(read)).await.unwrap_or_else(late);
    let since = clock.instant();
    known.send_modify(|known| {
        known.answered = number;
        match read {
            Ok(keys) => {
                known.read += 1;
                known.hold(keys, generation, since, &versions);
            }
            Err(error) => {
                known.failed += 1;
                tracing::debug!(%error, "keys of tokens cannot be read");
            }
        }
    });
}
