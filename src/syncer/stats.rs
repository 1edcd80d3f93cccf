//! Numbers of the syncer, for the wiring to export: no registry, no labels chosen by tenants.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::names::TenantId;
use crate::syncer::catalog::Catalog;

/// Upper bounds of the lag histogram's buckets, in milliseconds; the last bucket has none.
pub const LAG_BOUNDS_MS: [u64; 13] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10_000, 60_000];

/// Counters; one for the process, whatever comes and goes.
#[derive(Debug)]
pub struct Stats {
    kinds: Vec<Counters>,
    lag: [AtomicU64; LAG_BOUNDS_MS.len() + 1],
    lag_sum_ms: AtomicU64,
    live: Mutex<Option<Weak<dyn Live>>>,
}

/// Knows the state of this moment.
pub trait Live: Send + Sync {
    /// Fills in what it knows.
    fn describe(&self, snapshot: &mut Snapshot);
}

#[derive(Debug)]
struct Counters {
    kind: &'static str,
    done: AtomicU64,
    writes: AtomicU64,
    errors: AtomicU64,
}

/// All of it at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Whether the syncer runs in this process now.
    pub running: bool,
    /// Objects ready, delayed, worked on.
    pub queue: (usize, usize, usize),
    /// Tenants.
    pub tenants: usize,
    /// Per kind.
    pub kinds: Vec<KindCounts>,
    /// From the wish to its end, counts per bucket of [`LAG_BOUNDS_MS`] and one beyond (not cumulative).
    pub lag: Vec<u64>,
    /// Sum of all lags.
    pub lag_sum_ms: u64,
    /// Host sources that cannot be read now: (kind, host namespace or "").
    pub off: Vec<(&'static str, String)>,
    /// What is kept of each tenant, and what is not.
    pub kept: Vec<Kept>,
    /// Tenants whose first lists are not complete.
    pub starting: Vec<String>,
}

/// Of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Whose.
    pub id: TenantId,
    /// Bytes of its objects.
    pub bytes: usize,
    /// Objects of which nothing more is kept than that they are there.
    pub cut: usize,
    /// Events that were not written, since there were too many.
    pub unsaid: u64,
    /// How many objects of the counted kinds it has, by resource and phase.
    pub objects: Vec<(&'static str, &'static str, usize)>,
}

/// One kind's counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindCounts {
    /// Kind.
    pub kind: &'static str,
    /// Objects looked at to the end.
    pub done: u64,
    /// Writes to either side.
    pub writes: u64,
    /// Failures.
    pub errors: u64,
}

impl Stats {
    /// Zero.
    pub fn new(catalog: &Catalog) -> Self {
        let kinds = catalog
            .iter()
            .map(|(_, kind)| Counters {
                kind: kind.resource().kind,
                done: AtomicU64::new(0),
                writes: AtomicU64::new(0),
                errors: AtomicU64::new(0),
            })
            .collect();
        Self { kinds, lag: Default::default(), lag_sum_ms: AtomicU64::new(0), live: Mutex::default() }
    }

    /// Shows the state of this run from now on.
    pub fn attach(&self, live: Weak<dyn Live>) {
        *self.live.lock() = Some(live);
    }

    /// An object was looked at to the end.
    pub fn count_done(&self, kind: u16, lag: Duration) {
        self.add(kind, |c| &c.done);
        let millis = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        let bucket = LAG_BOUNDS_MS.iter().position(|bound| millis <= *bound).unwrap_or(LAG_BOUNDS_MS.len());
        if let Some(count) = self.lag.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.lag_sum_ms.fetch_add(millis, Ordering::Relaxed);
    }

    /// A write was done.
    pub fn count_write(&self, kind: u16) {
        self.add(kind, |c| &c.writes);
    }

    /// A try failed.
    pub fn count_error(&self, kind: u16) {
        self.add(kind, |c| &c.errors);
    }

    fn add(&self, kind: u16, counter: impl Fn(&Counters) -> &AtomicU64) {
        if let Some(counters) = self.kinds.get(usize::from(kind)) {
            counter(counters).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All numbers now.
    pub fn snapshot(&self) -> Snapshot {
        let read = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let mut snapshot = Snapshot {
            kinds: self
                .kinds
                .iter()
                .map(|c| KindCounts {
                    kind: c.kind,
                    done: read(&c.done),
                    writes: read(&c.writes),
                    errors: read(&c.errors),
                })
                .collect(),
            lag: self.lag.iter().map(read).collect(),
            lag_sum_ms: read(&self.lag_sum_ms),
            ..Snapshot::default()
        };
        let live = self.live.lock().as_ref().and_then(Weak::upgrade);
        if let Some(live) = live {
            live.describe(&mut snapshot);
        }
        snapshot
    }
}
