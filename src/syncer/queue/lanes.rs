//! The order of the queue: a lane for each tenant, a ring of those who may take their turn, timers for what waits.
//!
//! Pure but for the time that it is told; see [`queue`](super) for what it promises.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

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

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) lanes: HashMap<TenantNumber, Lane>,
    /// Tenants with something ready and a free share, in turn.
    pub(super) ring: VecDeque<TenantNumber>,
    pub(super) timers: BTreeMap<(Instant, u64), Wake>,
    pub(super) sequence: u64,
    pub(super) paused_until: Option<Instant>,
    pub(super) closed: bool,
}

#[derive(Debug)]
pub(super) enum Wake {
    Item(TenantNumber, Arc<Item>),
    Tenant(TenantNumber),
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) fresh: VecDeque<Arc<Item>>,
    pub(super) background: VecDeque<Arc<Item>>,
    pub(super) items: HashMap<Arc<Item>, State>,
    pub(super) active: usize,
    /// One at a time: its API server does not answer.
    pub(super) is_narrow: bool,
    pub(super) in_ring: bool,
    pub(super) paused_until: Option<Instant>,
    /// A timer will put the paused lane back into the ring.
    pub(super) wake_set: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) failures: u32,
    pub(super) since: Instant,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Phase {
    Queued(UrgencyRank),
    Delayed((Instant, u64)),
    Running { again: bool },
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum UrgencyRank {
    Fresh,
    Background,
}

pub(super) enum Verdict {
    Done(Option<Duration>),
    Failed(Duration),
}

/// From this many failures on, a change of the object waits a little too.
const STUBBORN: u32 = 4;

impl Inner {
    pub(super) fn push(
        &mut self,
        tenant: TenantNumber,
        item: Arc<Item>,
        urgency: Urgency,
        now: Instant,
        per_tenant: usize,
    ) {
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
    pub(super) fn enqueue(&mut self, tenant: TenantNumber, item: Arc<Item>, urgency: Urgency, per_tenant: usize) {
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

    pub(super) fn enter_ring(&mut self, tenant: TenantNumber, per_tenant: usize) {
        let Some(lane) = self.lanes.get_mut(&tenant) else { return };
        let waiting = !lane.fresh.is_empty() || !lane.background.is_empty();
        if waiting && !lane.in_ring && !lane.wake_set && lane.active < lane.share(per_tenant) {
            lane.in_ring = true;
            self.ring.push_back(tenant);
        }
    }

    pub(super) fn narrow(&mut self, tenant: TenantNumber, is_narrow: bool, per_tenant: usize) {
        if let Some(lane) = self.lanes.get_mut(&tenant) {
            lane.is_narrow = is_narrow;
        }
        self.enter_ring(tenant, per_tenant);
    }

    pub(super) fn delay(&mut self, tenant: TenantNumber, item: &Arc<Item>, at: Instant) {
        self.sequence += 1;
        let timer = (at, self.sequence);
        let Some(state) = self.lanes.get_mut(&tenant).and_then(|lane| lane.items.get_mut(item)) else { return };
        state.phase = Phase::Delayed(timer);
        self.timers.insert(timer, Wake::Item(tenant, Arc::clone(item)));
    }

    pub(super) fn promote(&mut self, now: Instant, per_tenant: usize) {
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

    pub(super) fn pop(&mut self, now: Instant, per_tenant: usize) -> Option<(TenantNumber, Arc<Item>, u32, Instant)> {
        if self.paused_until.is_some_and(|until| until > now) {
            return None;
        }
        self.paused_until = None;
        while let Some(tenant) = self.ring.pop_front() {
            let Some(lane) = self.lanes.get_mut(&tenant) else { continue };
            lane.in_ring = false;
            if lane.active >= lane.share(per_tenant) {
                continue;
            }
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

    pub(super) fn finish(
        &mut self,
        tenant: TenantNumber,
        item: &Arc<Item>,
        verdict: &Verdict,
        now: Instant,
        per_tenant: usize,
    ) {
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

    pub(super) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
        let pause = self.paused_until.filter(|until| *until > now && !self.ring.is_empty());
        match (timer, pause) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "checked in tests only")]
    pub(super) fn debug_check(&self, _per_tenant: usize) {}

    #[cfg(test)]
    pub(super) fn debug_check(&self, per_tenant: usize) {
        self.check_invariants(per_tenant);
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self, per_tenant: usize) {
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
            assert!(
                !waiting || lane.in_ring || lane.active >= lane.share(per_tenant) || woken,
                "tenant {tenant} is stuck"
            );
        }
    }
}

impl Lane {
    fn share(&self, per_tenant: usize) -> usize {
        if self.is_narrow { 1 } else { per_tenant }
    }

    /// The next item that really waits: an item may stand in the background line and have been hurried since.
    pub(super) fn take(&mut self) -> Option<Arc<Item>> {
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
