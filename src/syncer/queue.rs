//! What is to be looked at, fairly between tenants: a deduplicating queue of (tenant, kind, object).
//!
//! Promises: an object is never worked on twice at once; what is pushed while it is worked on runs again afterwards;
//! tenants take turns, one object each, and none holds more than its share of workers; a tenant that is paused or slow
//! delays nobody else. Bounded by deduplication: at most one entry per object. Must not know what the work is.

mod lanes;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::runtime::clock::Clock;

use lanes::{Inner, Phase, Verdict, Wake};

pub use lanes::{Item, TenantNumber, Urgency};

/// The queue.
#[derive(Debug)]
pub struct Queue {
    inner: Mutex<Inner>,
    ready: Notify,
    clock: Clock,
    per_tenant: usize,
}

/// One object to work on. Dropped without a verdict it counts as failed.
#[derive(Debug)]
#[must_use = "work ends with done or retry"]
pub struct Work {
    queue: Arc<Queue>,
    tenant: TenantNumber,
    item: Arc<Item>,
    failures: u32,
    since: Instant,
    finished: bool,
}

const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

impl Queue {
    /// An empty queue; `per_tenant` is the most objects of one tenant that are worked on at once.
    pub fn new(clock: Clock, per_tenant: usize) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), ready: Notify::new(), clock, per_tenant: per_tenant.max(1) })
    }

    /// Takes a tenant's work from now on.
    pub fn add_tenant(&self, tenant: TenantNumber) {
        self.inner.lock().lanes.entry(tenant).or_default();
    }

    /// Forgets a tenant and all that waits for it.
    pub fn remove_tenant(&self, tenant: TenantNumber) {
        let mut inner = self.inner.lock();
        inner.lanes.remove(&tenant);
        inner.ring.retain(|t| *t != tenant);
        inner.timers.retain(|_, wake| match wake {
            Wake::Item(t, _) | Wake::Tenant(t) => *t != tenant,
        });
    }

    /// Wants the object looked at soon.
    pub fn push(&self, tenant: TenantNumber, item: Item, urgency: Urgency) {
        let now = self.clock.instant();
        let mut inner = self.inner.lock();
        inner.push(tenant, Arc::new(item), urgency, now, self.per_tenant);
        inner.debug_check(self.per_tenant);
        drop(inner);
        self.ready.notify_one();
    }

    /// Gives nothing of this tenant out for a while.
    pub fn pause_tenant(&self, tenant: TenantNumber, pause: Duration) {
        let until = self.clock.instant() + pause;
        let mut inner = self.inner.lock();
        if let Some(lane) = inner.lanes.get_mut(&tenant)
            && lane.paused_until.is_none_or(|old| old < until)
        {
            lane.paused_until = Some(until);
        }
    }

    /// Gives one object of this tenant out at a time, or its whole share again.
    pub fn narrow_tenant(&self, tenant: TenantNumber, is_narrow: bool) {
        let mut inner = self.inner.lock();
        inner.narrow(tenant, is_narrow, self.per_tenant);
        inner.debug_check(self.per_tenant);
        drop(inner);
        self.ready.notify_one();
    }

    /// Gives nothing out for a while: the host asked for it or is away.
    pub fn pause_all(&self, pause: Duration) {
        let until = self.clock.instant() + pause;
        let mut inner = self.inner.lock();
        if inner.paused_until.is_none_or(|old| old < until) {
            inner.paused_until = Some(until);
        }
    }

    /// Ends every [`Queue::next`]; nothing more is given out.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.ready.notify_waiters();
        self.ready.notify_one();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.inner.lock().closed
    }

    /// Objects waiting (ready, delayed) and being worked on.
    pub fn depth(&self) -> (usize, usize, usize) {
        let inner = self.inner.lock();
        let (mut ready, mut delayed, mut active) = (0, 0, 0);
        for state in inner.lanes.values().flat_map(|lane| lane.items.values()) {
            match state.phase {
                Phase::Queued(_) => ready += 1,
                Phase::Delayed(_) => delayed += 1,
                Phase::Running { .. } => active += 1,
            }
        }
        (ready, delayed, active)
    }

    /// The next object; None once closed. Cancelling loses nothing.
    pub async fn next(self: &Arc<Self>) -> Option<Work> {
        loop {
            let notified = self.ready.notified();
            let wake = {
                let mut inner = self.inner.lock();
                if inner.closed {
                    drop(inner);
                    self.ready.notify_one();
                    return None;
                }
                let now = self.clock.instant();
                inner.promote(now, self.per_tenant);
                let popped = inner.pop(now, self.per_tenant);
                inner.debug_check(self.per_tenant);
                if let Some((tenant, item, failures, since)) = popped {
                    let more = !inner.ring.is_empty();
                    drop(inner);
                    if more {
                        self.ready.notify_one();
                    }
                    return Some(Work { queue: Arc::clone(self), tenant, item, failures, since, finished: false });
                }
                inner.next_wake(now)
            };
            match wake {
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = notified => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => notified.await,
            }
        }
    }

    fn backoff(&self, failures: u32) -> Duration {
        let base = match failures {
            0 | 1 => Duration::from_millis(50),
            2 => Duration::from_millis(250),
            n => Duration::from_secs(1).saturating_mul(1 << (n - 3).min(6)).min(LONGEST_BACKOFF),
        };
        self.clock.jitter(base)
    }

    fn finish(&self, tenant: TenantNumber, item: &Arc<Item>, verdict: &Verdict) {
        let now = self.clock.instant();
        let mut inner = self.inner.lock();
        inner.finish(tenant, item, verdict, now, self.per_tenant);
        inner.debug_check(self.per_tenant);
        drop(inner);
        self.ready.notify_one();
    }
}

impl Work {
    /// The tenant whose object it is.
    pub fn tenant(&self) -> TenantNumber {
        self.tenant
    }

    /// Which object.
    pub fn item(&self) -> &Item {
        &self.item
    }

    /// How often it failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When it was first asked for.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Both sides are as they should be; look again after a while if given.
    pub fn done(mut self, again_after: Option<Duration>) {
        self.finished = true;
        self.queue.finish(self.tenant, &self.item, &Verdict::Done(again_after));
    }

    /// Try again with growing delay, `at_least` that long.
    pub fn retry(mut self, at_least: Duration) {
        self.finished = true;
        self.fail(at_least);
    }

    fn fail(&self, at_least: Duration) {
        let wait = self.queue.backoff(self.failures + 1).max(at_least);
        self.queue.finish(self.tenant, &self.item, &Verdict::Failed(wait));
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.finished {
            self.fail(Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests;
