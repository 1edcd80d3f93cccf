//! What one virtual cluster has in the trail, and what was lost of it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::runtime::pace::Pace;
use crate::runtime::telemetry::{Families, Labels};

/// Why an event was not written, or a request not done for want of a place for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// More than so many a second.
    Rate,
    /// More than may wait in memory.
    Queue,
    /// More than may wait on the disk.
    Spool,
    /// The file could not be written.
    File,
    /// Of callers who are not known there were too many.
    Unknown,
    /// The request was refused: nothing is lost.
    Refused,
}

const LOSSES: [(Loss, &str); 5] = [
    (Loss::Rate, "rate"),
    (Loss::Queue, "queue"),
    (Loss::Spool, "spool"),
    (Loss::File, "file"),
    (Loss::Unknown, "unknown"),
];

/// Of one virtual cluster.
#[derive(Debug, Default)]
pub struct Tab {
    pub(super) pace: Pace,
    /// Bytes that wait in memory, changed by the queue alone.
    pub(super) waiting: AtomicUsize,
    on_disk: AtomicU64,
    taken: AtomicU64,
    lost: [AtomicU64; LOSSES.len()],
    refused: AtomicU64,
}

impl Tab {
    /// One event was taken.
    pub(super) fn counted(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// One was lost.
    pub fn lost(&self, why: Loss) {
        let counter = LOSSES.iter().position(|(loss, _)| *loss == why).and_then(|at| self.lost.get(at));
        counter.unwrap_or(&self.refused).fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of its that wait on the disk.
    pub fn on_disk(&self) -> u64 {
        self.on_disk.load(Ordering::Relaxed)
    }

    /// So many more wait there.
    pub fn spooled(&self, bytes: u64) {
        self.on_disk.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many wait no more.
    pub fn sent(&self, bytes: u64) {
        self.on_disk.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Shows it.
    pub fn collect(&self, families: &mut Families, tenant: Labels<'_>) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        families.counter("portico_audit_events_total", "Events taken for the audit log.", tenant, load(&self.taken));
        for ((_, reason), lost) in LOSSES.iter().zip(&self.lost) {
            families.counter(
                "portico_audit_dropped_total",
                "Events that were not written to the audit log.",
                &[tenant, &[("reason", reason)]].concat(),
                load(lost),
            );
        }
        families.counter(
            "portico_audit_refused_total",
            "Requests that were refused since their events had no place in the audit log (`whenFull: block`).",
            tenant,
            load(&self.refused),
        );
    }
}
