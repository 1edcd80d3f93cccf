//! Traces: what took how long, in one request or for one pod, for whoever collects them by OpenTelemetry's protocol.
//!
//! Promises: off, it is one test of an `Option`; on, nobody waits for it: what is traced is decided by a budget of the process and
//! one of the tenant before anything is kept, a trace has a bounded number of spans of bounded size, and what the collector does
//! not take in time is dropped and counted. What a caller says of his own trace is parsed strictly, and only an id. Must not
//! know requests or pods, nor whose budget it draws on.

mod parent;
mod post;
mod sending;
mod shared;
mod trace;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderMap;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::config::TracingConfig;
use crate::error::Result;
use crate::runtime::clock::Clock;
use crate::runtime::pace::Pace;
use crate::runtime::telemetry::{Families, Source};

pub use parent::{Parent, TRACEPARENT, TRACESTATE};
pub use sending::{Sender, Sending};
pub use trace::{Outcome, Part, Trace};

use shared::{Counts, Inner};

const MILLION: u64 = 1_000_000;

/// Whether and what is traced. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

impl Traces {
    /// None.
    pub fn off() -> Self {
        Self(None)
    }

    /// As configured, and what sends them; files are read.
    pub fn new(config: &TracingConfig, clock: Clock) -> Result<(Self, Option<Sending>)> {
        if !config.is_on() {
            return Ok((Self(None), None));
        }
        let (sender, receiver) = mpsc::channel(shared::QUEUE);
        let counts = Arc::new(Counts::default());
        let followed = Arc::new(Semaphore::new(shared::FOLLOWED));
        let sending = Sending::new(config, receiver, Arc::clone(&counts))?;
        let inner = Inner { config: config.clone(), clock, pace: Pace::default(), queue: sender, counts, followed };
        Ok((Self(Some(Arc::new(inner))), Some(sending)))
    }

    /// Whether there are any.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A trace of what somebody asks who is known, where it is sampled: as a part of what its headers name, or a new one. `tenant` is
    /// the budget of whose it is.
    pub fn of_request(&self, headers: &HeaderMap, tenant: &Pace) -> Option<Arc<Trace>> {
        self.begin(|| Parent::of(headers), SpanKind::Server, tenant)
    }

    /// The same of a pod, by what it says of itself (a `traceparent`), if anything. It takes a place of those of all tenants, which
    /// whoever follows it holds.
    pub fn of_pod(&self, said: Option<&str>, tenant: &Pace) -> Option<(Arc<Trace>, OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.0.as_ref()?.followed).try_acquire_owned().ok()?;
        let trace = self.begin(|| Parent::parse(said?.as_bytes()), SpanKind::Internal, tenant)?;
        Some((trace, place))
    }

    fn begin(&self, parent: impl FnOnce() -> Option<Parent>, kind: SpanKind, tenant: &Pace) -> Option<Arc<Trace>> {
        let inner = self.0.as_ref()?;
        let parent = if inner.config.trust_parents { parent() } else { None };
        let is_sampled = match &parent {
            Some(parent) => parent.is_sampled,
            None => inner.clock.random_below(MILLION) < u64::from(inner.config.sampling_rate_per_million),
        };
        if !is_sampled || !inner.may_begin(tenant) {
            return None;
        }
        Some(Arc::new(Trace::new(inner, parent, kind)))
    }
}

impl Source for Traces {
    fn collect(&self, families: &mut Families) {
        let Some(inner) = &self.0 else { return };
        let Counts { sent, dropped, failed, over_budget } = &*inner.counts;
        for (outcome, number) in [("sent", sent), ("dropped", dropped), ("failed", failed)] {
            families.counter(
                "portico_traces_spans_total",
                "Spans of traces: sent, dropped since too many waited, or not taken by the collector.",
                &[("outcome", outcome)],
                number.load(Ordering::Relaxed),
            );
        }
        families.counter(
            "portico_traces_over_budget_total",
            "Traces that were not begun since there were too many in a second, of one virtual cluster or of all.",
            &[],
            over_budget.load(Ordering::Relaxed),
        );
    }
}

/// All families, for the page about them.
#[cfg(test)]
pub(crate) fn example() -> Traces {
    let config = TracingConfig { endpoint: "http://127.0.0.1:1/".to_owned(), ..TracingConfig::default() };
    Traces::new(&config, Clock::system()).expect("valid").0
}
