//! What is to be looked at, fairly between tenants: a deduplicating queue of (tenant, kind, object).
//!
//! Promises: an object is never worked on twice at once; what is pushed while it is worked on runs again afterwards;
//! tenants take turns, one object each, and none holds more than its share of workers; a tenant that is paused or slow
//! delays nobody else. Bounded by deduplication: at most one entry per object. Must not know what the work is.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::runtime::clock::Clock;
use crate::syncer::kind::ObjectKey;

/// A tenant in this process; never used again after its removal.
pub type TenantNumber = u64;

/// Which object of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Item {
    /// Index of the kind.
    pub kind: u16,
    /// Virtual object.
    pub key: ObjectKey,
}

/// How soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Something changed.
    Fresh,
    /// The drift walk came by; runs when nothing fresh of this tenant waits.
    Background,
}

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

#[derive(Debug, Default)]
struct Inner {
    lanes: HashMap<TenantNumber, Lane>,
    /// Tenants with something ready and a free share, in turn.
    ring: VecDeque<TenantNumber>,
    timers: BTreeMap<(Instant, u64), Wake>,
    sequence: u64,
    paused_until: Option<Instant>,
    closed: bool,
}

#[derive(Debug)]
enum Wake {
    Item(TenantNumber, Arc<Item>),
    Tenant(TenantNumber),
}

#[derive(Debug, Default)]
struct Lane {
    fresh: VecDeque<Arc<Item>>,
    background: VecDeque<Arc<Item>>,
    items: HashMap<Arc<Item>, State>,
    active: usize,
    in_ring: bool,
    paused_until: Option<Instant>,
    /// A timer will put the paused lane back into the ring.
    wake_set: bool,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    failures: u32,
    since: Instant,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Phase {
    Queued(UrgencyRank),
    Delayed((Instant, u64)),
    Running { again: bool },
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum UrgencyRank {
    Fresh,
    Background,
}

enum Verdict {
    Done(Option<Duration>),
    Failed(Duration),
}

const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// From this many failures on, a change of the object waits a little too.
const STUBBORN: u32 = 4;

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
    /// Whose.
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

impl Inner {
    fn push(&mut self, tenant: TenantNumber, item: Arc<Item>, urgency: Urgency, now: Instant, per_tenant: usize) {
        let Some(lane) = self.lanes.get_mut(&tenant) else { return };
        let Some(state) = lane.items.get_mut(&item) else {
            lane.items.insert(
                Arc::clone(&item),
                State { phase: Phase::Queued(UrgencyRank::Background), failures: 0, since: now },
            );
            self.enqueue(tenant, item, urgency, per_tenant);
            return;
        };
        match (state.phase, urgency) {
            (Phase::Running { .. }, Urgency::Fresh) => state.phase = Phase::Running { again: true },
            (Phase::Queued(UrgencyRank::Background), Urgency::Fresh) => {
                self.enqueue(tenant, item, urgency, per_tenant);
            }
            (Phase::Delayed(at), Urgency::Fresh) => {
                let stubborn = state.failures >= STUBBORN;
                if state.failures == 0 {
                    state.since = now;
                }
                if stubborn && at.0 <= now + Duration::from_secs(1) {
                    return;
                }
                self.timers.remove(&at);
                if stubborn {
                    self.delay(tenant, &item, now + Duration::from_secs(1));
                } else {
                    self.enqueue(tenant, item, urgency, per_tenant);
                }
            }
            // A delayed or running object is looked at anyway; the drift walk need not hurry it.
            (_, Urgency::Background) | (Phase::Queued(UrgencyRank::Fresh), Urgency::Fresh) => {}
        }
    }

    /// Puts a known item into its lane's line and the lane into the ring.
    fn enqueue(&mut self, tenant: TenantNumber, item: Arc<Item>, urgency: Urgency, per_tenant: usize) {
        let Some(lane) = self.lanes.get_mut(&tenant) else { return };
        let Some(state) = lane.items.get_mut(&item) else { return };
        match urgency {
            Urgency::Fresh => {
                state.phase = Phase::Queued(UrgencyRank::Fresh);
                lane.fresh.push_back(item);
            }
            Urgency::Background => {
                state.phase = Phase::Queued(UrgencyRank::Background);
                lane.background.push_back(item);
            }
        }
        self.enter_ring(tenant, per_tenant);
    }

    fn enter_ring(&mut self, tenant: TenantNumber, per_tenant: usize) {
        let Some(lane) = self.lanes.get_mut(&tenant) else { return };
        let waiting = !lane.fresh.is_empty() || !lane.background.is_empty();
        if waiting && !lane.in_ring && !lane.wake_set && lane.active < per_tenant {
            lane.in_ring = true;
            self.ring.push_back(tenant);
        }
    }

    fn delay(&mut self, tenant: TenantNumber, item: &Arc<Item>, at: Instant) {
        self.sequence += 1;
        let timer = (at, self.sequence);
        let Some(state) = self.lanes.get_mut(&tenant).and_then(|lane| lane.items.get_mut(item)) else { return };
        state.phase = Phase::Delayed(timer);
        self.timers.insert(timer, Wake::Item(tenant, Arc::clone(item)));
    }

    fn promote(&mut self, now: Instant, per_tenant: usize) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                return;
            }
            match entry.remove() {
                Wake::Item(tenant, item) => {
                    let state = self.lanes.get_mut(&tenant).and_then(|lane| lane.items.get_mut(&item));
                    if let Some(state) = state
                        && state.failures == 0
                    {
                        state.since = now;
                    }
                    self.enqueue(tenant, item, Urgency::Fresh, per_tenant);
                }
                Wake::Tenant(tenant) => {
                    if let Some(lane) = self.lanes.get_mut(&tenant) {
                        lane.wake_set = false;
                    }
                    self.enter_ring(tenant, per_tenant);
                }
            }
        }
    }

    fn pop(&mut self, now: Instant, per_tenant: usize) -> Option<(TenantNumber, Arc<Item>, u32, Instant)> {
        if self.paused_until.is_some_and(|until| until > now) {
            return None;
        }
        self.paused_until = None;
        while let Some(tenant) = self.ring.pop_front() {
            let Some(lane) = self.lanes.get_mut(&tenant) else { continue };
            lane.in_ring = false;
            if let Some(until) = lane.paused_until {
                if until > now {
                    lane.wake_set = true;
                    self.sequence += 1;
                    self.timers.insert((until, self.sequence), Wake::Tenant(tenant));
                    continue;
                }
                lane.paused_until = None;
            }
            let Some(item) = lane.take() else { continue };
            let Some(state) = lane.items.get_mut(&item) else { continue };
            state.phase = Phase::Running { again: false };
            let (failures, since) = (state.failures, state.since);
            lane.active += 1;
            self.enter_ring(tenant, per_tenant);
            return Some((tenant, item, failures, since));
        }
        None
    }

    fn finish(&mut self, tenant: TenantNumber, item: &Arc<Item>, verdict: &Verdict, now: Instant, per_tenant: usize) {
        let Some(lane) = self.lanes.get_mut(&tenant) else { return };
        lane.active = lane.active.saturating_sub(1);
        if let Some(state) = lane.items.get_mut(item) {
            let again = state.phase == Phase::Running { again: true };
            match verdict {
                Verdict::Done(_) => state.failures = 0,
                Verdict::Failed(_) => state.failures = state.failures.saturating_add(1),
            }
            match verdict {
                Verdict::Done(_) if again => {
                    state.since = now;
                    self.enqueue(tenant, Arc::clone(item), Urgency::Fresh, per_tenant);
                }
                Verdict::Done(None) => {
                    lane.items.remove(item);
                }
                Verdict::Done(Some(wait)) => self.delay(tenant, item, now + *wait),
                Verdict::Failed(wait) if again => self.delay(tenant, item, now + (*wait).min(Duration::from_secs(1))),
                Verdict::Failed(wait) => self.delay(tenant, item, now + *wait),
            }
        }
        self.enter_ring(tenant, per_tenant);
    }

    fn next_wake(&self, now: Instant) -> Option<Instant> {
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
        let pause = self.paused_until.filter(|until| *until > now && !self.ring.is_empty());
        match (timer, pause) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "checked in tests only")]
    fn debug_check(&self, _per_tenant: usize) {}

    #[cfg(test)]
    fn debug_check(&self, per_tenant: usize) {
        self.check_invariants(per_tenant);
    }

    #[cfg(test)]
    fn check_invariants(&self, per_tenant: usize) {
        for (tenant, lane) in &self.lanes {
            assert_eq!(self.ring.iter().filter(|t| *t == tenant).count(), usize::from(lane.in_ring));
            let running = lane.items.values().filter(|s| matches!(s.phase, Phase::Running { .. })).count();
            assert_eq!(running, lane.active, "tenant {tenant}");
            assert!(lane.active <= per_tenant);
            for (item, state) in &lane.items {
                match state.phase {
                    Phase::Queued(UrgencyRank::Fresh) => assert!(lane.fresh.contains(item)),
                    Phase::Queued(UrgencyRank::Background) => assert!(lane.background.contains(item)),
                    Phase::Delayed(timer) => assert!(self.timers.contains_key(&timer)),
                    Phase::Running { .. } => {}
                }
            }
            let waiting = lane.items.values().any(|s| matches!(s.phase, Phase::Queued(_)));
            let woken = self.timers.values().any(|w| matches!(w, Wake::Tenant(t) if t == tenant));
            assert!(!waiting || lane.in_ring || lane.active >= per_tenant || woken, "tenant {tenant} is stuck");
        }
    }
}

impl Lane {
    /// The next item that really waits: an item may stand in the background line and have been hurried since.
    fn take(&mut self) -> Option<Arc<Item>> {
        while let Some(item) = self.fresh.pop_front() {
            if self.items.get(&item).is_some_and(|s| s.phase == Phase::Queued(UrgencyRank::Fresh)) {
                return Some(item);
            }
        }
        while let Some(item) = self.background.pop_front() {
            if self.items.get(&item).is_some_and(|s| s.phase == Phase::Queued(UrgencyRank::Background)) {
                return Some(item);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
