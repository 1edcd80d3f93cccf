//! What all traces of a process have in common: the budgets, the queue to what sends them, and what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::{Semaphore, mpsc};

use crate::config::TracingConfig;
use crate::runtime::clock::Clock;
use crate::runtime::pace::Pace;

/// Traces that wait to be sent, each of some KiB at most: some 4 MiB in all.
pub(super) const QUEUE: usize = 512;

/// Pods that are followed at once, each for minutes: some KiB each.
pub(super) const FOLLOWED: usize = 1024;

/// All spans of a trace.
#[derive(Debug)]
pub(super) struct Finished(pub(super) Vec<Span>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: TracingConfig,
    pub(super) clock: Clock,
    /// Of all tenants.
    pub(super) pace: Pace,
    pub(super) queue: mpsc::Sender<Finished>,
    pub(super) counts: Arc<Counts>,
    /// Room for pods that are followed, of all tenants.
    pub(super) followed: Arc<Semaphore>,
}

/// What became of spans, and of what was not traced.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: AtomicU64,
    /// The queue was full.
    pub(super) dropped: AtomicU64,
    /// The collector did not take them.
    pub(super) failed: AtomicU64,
    /// Were to be traced, beyond a budget.
    pub(super) over_budget: AtomicU64,
}

impl Inner {
    /// Within both budgets.
    pub(super) fn may_begin(&self, tenant: &Pace) -> bool {
        let (now, config) = (self.clock.instant(), &self.config);
        let of_one = config.max_traces_per_second_per_tenant;
        let may = tenant.pass(of_one, of_one.saturating_mul(2), now).is_ok()
            && self.pace.pass(config.max_traces_per_second, config.max_traces_per_second, now).is_ok();
        if !may {
            self.counts.over_budget.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    /// Without waiting.
    pub(super) fn send(&self, finished: Finished) {
        let spans = finished.0.len() as u64;
        if self.queue.try_send(finished).is_err() {
            self.counts.dropped.fetch_add(spans, Ordering::Relaxed);
        }
    }
}
