//! What is made once for whoever asks: begun by the first who comes, and not his to end.
//!
//! Promises: all that is made here is made by one task, so pages together take one core at most from users' requests; who
//! leaves early leaves what he began to whoever comes next, and what nobody keeps and nobody waits for is ended. The maker
//! bounds how long it takes. Must not know what is made.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::runtime::clock::Clock;
use crate::runtime::task::{self, Task};

/// All that is being made. Dropped, it is made no further.
#[derive(Debug)]
pub(super) struct Flights {
    clock: Clock,
    begun: Arc<Begun>,
    _task: Task,
}

/// Something that is being made or is there. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Flight<T>(watch::Receiver<Option<(Instant, T)>>);

/// What has not come to the task yet. Whoever begins something keeps it, and bounds how much that is.
#[derive(Default)]
struct Begun {
    flights: Mutex<Vec<BoxFuture<'static, ()>>>,
    any: Notify,
}

impl Flights {
    /// Nothing is being made yet.
    pub(super) fn new(clock: &Clock) -> Self {
        let begun = Arc::<Begun>::default();
        let task = task::spawn("scrape flights", fly(Arc::clone(&begun)));
        Self { clock: clock.clone(), begun, _task: task }
    }

    /// Begins to make something.
    pub(super) fn begin<T>(&self, make: impl Future<Output = T> + Send + 'static) -> Flight<T>
    where
        T: Send + Sync + 'static,
    {
        let (sender, result) = watch::channel(None);
        let clock = self.clock.clone();
        let flight = async move {
            let made = tokio::select! {
                made = task::caught(async { Ok(make.await) }) => made,
                () = sender.closed() => return,
            };
            // Of a panic there is nothing, and whoever waits is told so by the end of the sender.
            if let Ok(made) = made {
                sender.send_replace(Some((clock.instant(), made)));
            }
        };
        self.begun.flights.lock().push(Box::pin(flight));
        self.begun.any.notify_one();
        Flight(result)
    }
}

impl<T: Clone> Flight<T> {
    /// What was made. `None`: nothing was.
    pub(super) async fn result(mut self) -> Option<T> {
        let made = self.0.wait_for(Option::is_some).await.ok()?;
        made.as_ref().map(|(_, made)| made.clone())
    }
}

impl<T> Flight<T> {
    /// Whether it is over, and no longer fresh.
    pub(super) fn is_old(&self, fresh: Duration, now: Instant) -> bool {
        // In this order: what is made between the two is not taken for nothing.
        let is_over = self.0.has_changed().is_err();
        match &*self.0.borrow() {
            Some((at, _)) => now.saturating_duration_since(*at) >= fresh,
            None => is_over,
        }
    }
}

async fn fly(begun: Arc<Begun>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        under_way.extend(std::mem::take(&mut *begun.flights.lock()));
        tokio::select! {
            () = begun.any.notified() => {}
            Some(()) = under_way.next() => {}
        }
    }
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Begun").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const FRESH: Duration = Duration::from_secs(5);
    const MOMENT: Duration = Duration::from_secs(1);

    /// Counts itself while it is there.
    struct There(Arc<AtomicUsize>);

    impl Drop for There {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_early_leaves_it_to_the_next() {
        let clock = Clock::system();
        let flights = Flights::new(&clock);
        let flight = flights.begin(async {
            tokio::time::sleep(3 * MOMENT).await;
            7
        });
        assert!(tokio::time::timeout(MOMENT, flight.clone().result()).await.is_err());
        assert!(!flight.is_old(Duration::ZERO, clock.instant()), "it is under way");
        assert_eq!(flight.clone().result().await, Some(7));
        assert!(!flight.is_old(FRESH, clock.instant()) && flight.is_old(FRESH, clock.instant() + FRESH));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_or_hangs_is_no_others_concern_and_what_nobody_keeps_ends() {
        let clock = Clock::system();
        let flights = Flights::new(&clock);
        let there = Arc::new(AtomicUsize::new(1));
        let hung = There(Arc::clone(&there));
        let hangs = flights.begin(async move {
            pending::<()>().await;
            drop(hung);
        });
        let panics = flights.begin::<u8>(async { panic!("as the test wants it") });
        assert_eq!(panics.clone().result().await, None);
        assert!(panics.is_old(FRESH, clock.instant()), "and it is begun anew");
        assert_eq!(flights.begin(async { 1 }).result().await, Some(1));
        assert_eq!(there.load(Ordering::SeqCst), 1);
        drop(hangs);
        tokio::time::sleep(MOMENT).await;
        assert_eq!(there.load(Ordering::SeqCst), 0);
    }
}
