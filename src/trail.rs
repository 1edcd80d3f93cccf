//! The trail: events of the gateway's audit log between the request that leaves one and whoever writes them.
//!
//! Promises: what waits is bounded in bytes, of all virtual clusters and of one; one that floods loses its own events, or waits, and
//! takes nobody else's place; what is lost is counted with its reason; a place that was promised to a request stays its. No file
//! is touched here, and nobody waits but the writer. Must not know requests or files.

mod queue;
mod tab;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use self::queue::Queue;
pub use self::queue::{Event, Full, Taken};
pub use self::tab::{Loss, Tab};
use crate::audit::{Asks, MOST_BYTES, Matter, Policy, Stages};
use crate::config::AuditConfig;
use crate::config::audit::WhenFull;
use crate::error::Result;

/// At one moment so many times as many as in a second.
const BURST: u32 = 10;
/// A virtual cluster may have this part of what waits on the disk when much does.
const SPOOL_PARTS: u64 = 4;

/// Of one process.
#[derive(Debug)]
pub struct Trail {
    policy: Policy,
    takes_asks: bool,
    writes_refused: bool,
    blocks: bool,
    per_second: u32,
    spool_share: u64,
    /// More than half of what may wait on the disk does.
    is_crowded: AtomicBool,
    queue: Queue,
}

/// A place for one event, kept for a request.
#[derive(Debug)]
pub struct Place {
    trail: Arc<Trail>,
    tab: Arc<Tab>,
}

impl Trail {
    /// Empty.
    pub fn new(config: &AuditConfig) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            policy: Policy::new(&config.policy.rules, &config.policy.omit_stages)?,
            takes_asks: config.tenants,
            writes_refused: config.refused,
            blocks: config.when_full == WhenFull::Block,
            per_second: config.max_events_per_second_per_tenant,
            spool_share: (config.spool.max_size_mb << 20) / SPOOL_PARTS,
            is_crowded: AtomicBool::new(false),
            queue: Queue::new(config.max_queued_bytes),
        }))
    }

    /// What a virtual cluster asks for, where that counts.
    pub fn asks<'a>(&self, asks: Option<&'a Arc<Asks>>) -> Option<&'a Arc<Asks>> {
        asks.filter(|_| self.takes_asks)
    }

    /// What is written of a request.
    pub fn stages(&self, asks: Option<&Asks>, matter: &Matter<'_>) -> Stages {
        let asked = asks.map(|asks| asks.policy.stages(matter)).unwrap_or_default();
        self.policy.stages(matter).or(asked)
    }

    /// Whether an answer of this code is written whatever the rules say.
    pub fn is_refusal(&self, code: u16) -> bool {
        self.writes_refused && matches!(code, 401 | 403)
    }

    /// Before a request is done: a place for its event, where requests wait for one. Callers who are not known are few, and are
    /// no measure of what is their virtual cluster's.
    pub fn promise(self: &Arc<Self>, tab: &Arc<Tab>, is_known: bool, now: Instant) -> Result<Option<Place>, Full> {
        if !self.blocks {
            return Ok(None);
        }
        let refused = |full, loss| {
            tab.lost(loss);
            Err(full)
        };
        if self.is_over_its_share(tab) {
            return refused(Full::Own, Loss::Refused);
        }
        if is_known && tab.pace.pass(self.per_second, self.burst(), now).is_err() {
            return refused(Full::Own, Loss::Refused);
        }
        match self.queue.reserve(tab, MOST_BYTES) {
            Ok(()) => Ok(Some(Place { trail: Arc::clone(self), tab: Arc::clone(tab) })),
            Err(full) => refused(full, Loss::Refused),
        }
    }

    /// Takes an event, on its place if it has one. Of what has none `is_last`, the end of a stream that was let in, may take
    /// as much again as all others.
    pub fn add(
        &self,
        tab: &Arc<Tab>,
        line: Vec<u8>,
        place: Option<Place>,
        (is_known, is_last): (bool, bool),
        now: Instant,
    ) {
        let has_place = place.is_some();
        // Given back within the same lock would be better still; what comes between can only be one event more.
        drop(place);
        if !has_place && self.is_over_its_share(tab) {
            return tab.lost(Loss::Spool);
        }
        let is_paced = !has_place && is_known && !(is_last && self.blocks);
        if is_paced && tab.pace.pass(self.per_second, self.burst(), now).is_err() {
            return tab.lost(Loss::Rate);
        }
        let slack = if has_place || is_last && self.blocks { 2 } else { 1 };
        match self.queue.push(Event { tab: Arc::clone(tab), line }, slack) {
            true => tab.counted(),
            false => tab.lost(Loss::Queue),
        }
    }

    /// For the writer: what waits, at once or after at most this long. It is still counted until [`Trail::done`].
    pub fn take(&self, patience: Duration) -> Taken {
        self.queue.take(patience)
    }

    /// These are written, or lost.
    pub fn done(&self, events: &[Event]) {
        self.queue.done(events);
    }

    /// Nothing comes any more; the writer ends when it has written what waits.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Whether events wait for their writer rather than being lost.
    pub fn blocks(&self) -> bool {
        self.blocks
    }

    /// Bytes that wait, with those that are promised.
    pub fn waiting(&self) -> usize {
        self.queue.bytes()
    }

    /// Whether more than half of what may wait on the disk does: from then on each has its part.
    pub fn crowded(&self, is_crowded: bool) {
        self.is_crowded.store(is_crowded, Ordering::Relaxed);
    }

    fn is_over_its_share(&self, tab: &Tab) -> bool {
        self.is_crowded.load(Ordering::Relaxed) && tab.on_disk() > self.spool_share
    }

    fn burst(&self) -> u32 {
        self.per_second.saturating_mul(BURST)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.trail.queue.release(&self.tab, MOST_BYTES);
    }
}

#[cfg(test)]
mod tests;
