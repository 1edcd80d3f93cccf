//! What scraping takes and refuses, counted; and the budgets for results.
//!
//! Must not know what results hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::gateway::buffer::{Budget, Drawn};
use crate::runtime::telemetry::{Families, Source};

/// Of the process.
#[derive(Debug)]
pub(crate) struct Counts {
    /// For what API servers show and pods use.
    results: Budget,
    /// For Portico's own series, as much again: how many these are no tenant decides, and they leave the others their room.
    own: Budget,
    /// API servers asked.
    pub(super) asked: AtomicU64,
    /// Results that were not kept.
    no_room: AtomicU64,
    /// Pages of the fleet that were refused since as many as may be were under way.
    pub(super) refused: AtomicU64,
}

/// Bytes of a result, given back when dropped.
#[derive(Debug)]
pub(super) enum Room {
    /// Of what all pages share.
    Process(#[expect(dead_code, reason = "released by its drop")] Taken),
    /// Of a tenant's own share.
    Tenant(#[expect(dead_code, reason = "released by its drop")] Drawn),
}

/// Bytes of one of the budgets.
#[derive(Debug)]
pub(super) struct Taken {
    counts: Arc<Counts>,
    budget: fn(&Counts) -> &Budget,
    bytes: usize,
}

impl Counts {
    /// With so many bytes for results.
    pub(crate) fn new(bytes: usize) -> Self {
        let zero = || AtomicU64::new(0);
        let (results, own) = (Budget::new(bytes), Budget::new(bytes));
        Self { results, own, asked: zero(), no_room: zero(), refused: zero() }
    }

    /// For what an API server shows or pods use. None: as much is kept as may be.
    pub(super) fn room(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        self.take(|counts| &counts.results, bytes)
    }

    /// For Portico's own series of a tenant.
    pub(super) fn own_room(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        self.take(|counts| &counts.own, bytes)
    }

    fn take(self: &Arc<Self>, budget: fn(&Self) -> &Budget, bytes: usize) -> Option<Room> {
        if budget(self).draw(bytes) {
            return Some(Room::Process(Taken { counts: Arc::clone(self), budget, bytes }));
        }
        self.no_room.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        (self.budget)(&self.counts).give_back(self.bytes);
    }
}

impl Source for Counts {
    fn collect(&self, families: &mut Families) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (results, own) = (self.results.in_use() as f64, self.own.in_use() as f64);
        let help = "Bytes of API servers' series, and of the use of pods, that are kept now.";
        families.gauge("portico_scrape_kept_bytes", help, &[], results);
        let help = "Bytes of Portico's own series that are kept now for pages of virtual clusters.";
        families.gauge("portico_scrape_own_kept_bytes", help, &[], own);
        families.counter("portico_scrape_asked_total", "API servers asked for metrics.", &[], load(&self.asked));
        families.counter(
            "portico_scrape_no_room_total",
            "Results that were not kept, since there was no room: an API server's series, Portico's own of a virtual cluster, the use of its pods.",
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
