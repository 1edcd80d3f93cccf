//! What scraping takes and refuses, counted; and the one budget for results.
//!
//! Must not know what results hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::gateway::buffer::Budget;
use crate::runtime::telemetry::{Families, Source};

/// Of the process.
#[derive(Debug)]
pub(crate) struct Counts {
    budget: Budget,
    /// API servers asked.
    pub(super) asked: AtomicU64,
    /// Results that were not kept.
    pub(super) no_room: AtomicU64,
    /// Pages of the fleet that were refused since as many as may be were under way.
    pub(super) refused: AtomicU64,
}

/// Bytes of a result, given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    counts: Arc<Counts>,
    bytes: usize,
}

impl Counts {
    /// With so many bytes for results.
    pub(crate) fn new(bytes: usize) -> Self {
        let zero = || AtomicU64::new(0);
        Self { budget: Budget::new(bytes), asked: zero(), no_room: zero(), refused: zero() }
    }

    /// None: as much is kept as may be.
    pub(super) fn room(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        if self.budget.draw(bytes) {
            return Some(Room { counts: Arc::clone(self), bytes });
        }
        self.no_room.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.counts.budget.give_back(self.bytes);
    }
}

impl Source for Counts {
    fn collect(&self, families: &mut Families) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let kept = self.budget.in_use() as f64;
        families.gauge("portico_scrape_kept_bytes", "Bytes of API servers' series that are kept now.", &[], kept);
        families.counter("portico_scrape_asked_total", "API servers asked for metrics.", &[], load(&self.asked));
        families.counter(
            "portico_scrape_no_room_total",
            "API servers whose series were not kept, since there was no room.",
            &[],
            load(&self.no_room),
        );
        families.counter(
            "portico_scrape_pages_refused_total",
            "Pages of the fleet refused since too many were under way (429).",
            &[],
            load(&self.refused),
        );
    }
}
