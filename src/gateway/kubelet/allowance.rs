//! How often a tenant may have kubelets asked, and what its callers share of it.
//!
//! Promises: over it is 429 at once; one question about one node is asked once in two seconds, whoever asks it and however long
//! the answer is; a tenant asks one kubelet one thing at a time; what is kept for those who come later is small, and little of
//! it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::asked::What;
use super::figures::Figures;
use crate::error::{Error, Kind, Result};
use crate::gateway::limits::too_many;
use crate::names::{HostName, TenantId};
use crate::runtime::answers::{Answers, Terms};
use crate::runtime::clock::Clock;
use crate::runtime::pace::Pace;

/// Of one tenant: requests at once, in a second in the long run, and at one moment. A Prometheus that scrapes three paths of
/// a hundred nodes twice a minute takes ten a second.
const AT_ONCE: usize = 16;
const A_SECOND: u32 = 20;
const BURST: u32 = 300;
/// What is asked again meanwhile is answered alike.
const FRESH: Duration = Duration::from_secs(2);
/// Answers that are kept for it, of all tenants.
const MOST_KEPT: usize = 64;
/// Longer ones are shared only by those who wait for them.
const LONGEST_KEPT: usize = 128 << 10;

/// What one tenant does now.
#[derive(Debug)]
pub(crate) struct Allowance {
    seats: Arc<Semaphore>,
    pace: Pace,
    one_each: Arc<OneEach>,
}

/// One seat of each node: kubelets have few, and others want theirs.
#[derive(Debug, Default)]
pub(super) struct OneEach(Mutex<HashMap<HostName, Weak<Semaphore>>>);

/// What is being read now, and was a moment ago.
#[derive(Debug)]
pub(crate) struct Shared(Answers<Key, Figures>);

/// Of which cluster, by its uid as well; whether the whole node is shown changes what is.
pub(super) type Key = (TenantId, String, String, What, bool);

impl Default for Allowance {
    fn default() -> Self {
        Self { seats: Arc::new(Semaphore::new(AT_ONCE)), pace: Pace::default(), one_each: Arc::default() }
    }
}

impl Default for Shared {
    fn default() -> Self {
        let keeps = |figures: &Figures| figures.is_kept_apart(LONGEST_KEPT);
        Self(Answers::new(Terms { keeps, ..Terms::new("figures of a kubelet", FRESH, MOST_KEPT) }))
    }
}

impl Allowance {
    /// A seat for one request, or 429.
    pub(super) fn enter(&self, now: Instant) -> Result<OwnedSemaphorePermit> {
        let refuse = |wait| too_many("this cluster asks kubelets more often than it may, please try again later", wait);
        let seat = Arc::clone(&self.seats).try_acquire_owned().map_err(|_| refuse(Duration::ZERO))?;
        self.pace.pass(A_SECOND, BURST, now).map_err(refuse)?;
        Ok(seat)
    }

    /// Of its requests to kubelets.
    pub(super) fn one_each(&self) -> &Arc<OneEach> {
        &self.one_each
    }
}

impl OneEach {
    /// The seat of this node, when it is free.
    pub(super) async fn of(&self, node: &HostName) -> Result<OwnedSemaphorePermit> {
        let seat = {
            let mut nodes = self.0.lock();
            nodes.retain(|_, seat| seat.strong_count() > 0);
            nodes.get(node).and_then(Weak::upgrade).unwrap_or_else(|| {
                let seat = Arc::new(Semaphore::new(1));
                nodes.insert(node.clone(), Arc::downgrade(&seat));
                seat
            })
        };
        let closed = |error| Error::own(Kind::Internal, "the seat of a node was closed").because(error);
        seat.acquire_owned().await.map_err(closed)
    }
}

impl Shared {
    /// The figures, read now or a moment ago.
    pub(super) async fn get<F>(&self, key: &Key, clock: &Clock, read: impl FnOnce() -> F) -> Result<Arc<Figures>>
    where
        F: Future<Output = Result<Figures>> + Send + 'static,
    {
        let read = || {
            let read = read();
            async move { Ok(read.await?.kept_apart(LONGEST_KEPT)) }
        };
        self.0.get(key, clock, read).await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn over_what_one_may_it_is_429() {
        let (allowance, now) = (Allowance::default(), Instant::now());
        let seats: Vec<_> = (0..AT_ONCE).map(|_| allowance.enter(now).expect("a seat")).collect();
        assert_eq!(allowance.enter(now).expect_err("none").to_status().code, 429);
        drop(seats);
        let passed = (0..2 * BURST).filter(|_| allowance.enter(now).is_ok()).count();
        assert_eq!(passed, BURST as usize - AT_ONCE);
        assert!(allowance.enter(now).expect_err("too often").retry_after().is_some());
        assert!(allowance.enter(now + Duration::from_secs(1)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn short_answers_are_kept_for_a_moment_and_long_ones_are_not_read_again_sooner() {
        let (shared, clock) = (Shared::default(), Clock::system());
        let key = |node: &str| {
            (TenantId::parse("team", "alpha").expect("id"), "uid".to_owned(), node.to_owned(), What::Metrics, false)
        };
        for (node, length, expected, after) in [("short", 10, 10, Duration::ZERO), ("long", LONGEST_KEPT + 1, 3, FRESH)]
        {
            let text = |length| async move { Ok(Figures::Text(Bytes::from(vec![b'x'; length]))) };
            let first = shared.get(&key(node), &clock, || text(length)).await.expect("read");
            assert_eq!(Arc::strong_count(&first) > 1, length == expected, "{node}: kept");
            let began = clock.instant();
            let again = shared.get(&key(node), &clock, || text(3)).await.expect("read");
            assert!(matches!(&*again, Figures::Text(bytes) if bytes.len() == expected), "{node}");
            assert_eq!(clock.instant() - began, after, "{node}");
        }
    }

    #[tokio::test]
    async fn one_thing_at_a_time_of_each_node() {
        let (each, node) = (OneEach::default(), |name| HostName::parse(name).expect("name"));
        let (a, b) = (node("a"), node("b"));
        let first = each.of(&a).await.expect("a seat");
        let mut second = Box::pin(each.of(&a));
        assert!((&mut second).now_or_never().is_none());
        assert!(each.of(&b).now_or_never().is_some_and(|seat| seat.is_ok()));
        drop(first);
        assert!(second.now_or_never().is_some_and(|seat| seat.is_ok()));
        drop(each.of(&b).await.expect("a seat"));
        assert_eq!(each.0.lock().len(), 1, "who has no seat takes no memory");
    }
}
