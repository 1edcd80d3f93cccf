//! How many questions one tenant may ask in a second, and how many of them may go on to the resolvers; and their counts.
//!
//! Promises: kept over the tenant's generations; other limits count from the next question on; refusing is bounded like
//! answering. Must not know questions, or where they come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use tokio::time::Instant;

use crate::crd::DnsLimits;
use crate::names::TenantId;
use crate::runtime::pace::Pace;
use crate::runtime::telemetry::{Families, Source};

/// As many times what a second allows may come at one moment: pods that start together ask together.
const BURST: u32 = 2;
/// What one question pays for, in records made: about 32 microseconds, as much as the costliest answer over UDP takes.
const WORK_PER_QUESTION: usize = 64;

/// What one tenant asks now.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    granted: RwLock<DnsLimits>,
    questions: Pace,
    refusals: Pace,
    forwarded: Pace,
    asked: AtomicU64,
    limited: [AtomicU64; Limit::ALL.len()],
    failed: [AtomicU64; FAILURES.len()],
}

/// What becomes of a question before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is answered.
    Answer,
    /// It is one too many, and is told so.
    Refuse,
    /// Even refusals are too many.
    Drop,
}

/// For metrics.
#[derive(Debug, Clone, Copy)]
enum Limit {
    Questions,
    Forwarded,
}

/// Why a question within the limits got no answer but SERVFAIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The tenant's Services and endpoints are not listed yet.
    NotReady,
    /// The resolvers outside did not answer.
    Resolvers,
    /// As many questions of the tenant wait for them as may.
    Room,
}

const FAILURES: [&str; 3] = ["not-ready", "resolvers", "room"];

/// The limits of all tenants that are served.
#[derive(Debug, Default)]
pub(crate) struct Shown(RwLock<Vec<(TenantId, Arc<Limits>)>>);

impl Limits {
    /// These are in force from now on.
    pub(crate) fn grant(&self, granted: DnsLimits) {
        *self.granted.write() = granted;
    }

    /// Whether one more question is answered.
    pub(crate) fn admit(&self, now: Instant) -> Admission {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (rate, burst) = with_burst(self.granted.read().dns_questions_per_second);
        if self.questions.pass(rate, burst, now).is_ok() {
            return Admission::Answer;
        }
        self.count(Limit::Questions);
        match self.refusals.pass(rate, burst, now) {
            Ok(()) => Admission::Refuse,
            Err(_) => Admission::Drop,
        }
    }

    /// An answer took so much work, in records made: one that took that of several counts as several.
    pub(crate) fn worked(&self, work: usize, now: Instant) {
        let (rate, burst) = with_burst(self.granted.read().dns_questions_per_second);
        // No answer takes more than a burst, or with a tight limit one would end DNS for minutes.
        let more = u32::try_from(work / WORK_PER_QUESTION).unwrap_or(u32::MAX).min(burst);
        self.questions.draw(rate, more, now);
    }

    /// Whether one more question goes on to the resolvers.
    pub(crate) fn may_forward(&self, now: Instant) -> bool {
        let (rate, burst) = with_burst(self.granted.read().forwarded_questions_per_second);
        let may = self.forwarded.pass(rate, burst, now).is_ok();
        if !may {
            self.count(Limit::Forwarded);
        }
        may
    }

    /// A question got no answer.
    pub(crate) fn failed(&self, why: Failure) {
        if let Some(counter) = self.failed.get(why as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many did, by reason in the order of [`FAILURES`].
    #[cfg(test)]
    pub(crate) fn failures(&self) -> [u64; FAILURES.len()] {
        self.failed.each_ref().map(|counter| counter.load(Ordering::Relaxed))
    }

    fn count(&self, limit: Limit) {
        if let Some(counter) = self.limited.get(limit as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Limit {
    const ALL: [(Self, &'static str); 2] = [(Self::Questions, "questions"), (Self::Forwarded, "forwarded")];
}

impl Shown {
    /// These, and no others.
    pub(crate) fn set(&self, all: Vec<(TenantId, Arc<Limits>)>) {
        *self.0.write() = all;
    }
}

impl Source for Shown {
    fn collect(&self, families: &mut Families) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (id, limits) in &*self.0.read() {
            let tenant = [("namespace", id.namespace().as_str()), ("cluster", id.name().as_str())];
            families.counter("portico_dns_questions_total", "Questions that came.", &tenant, load(&limits.asked));
            for ((_, limit), counter) in Limit::ALL.iter().zip(&limits.limited) {
                let labels = [tenant.as_slice(), &[("limit", limit)]].concat();
                let help = "Questions that were not answered or not forwarded for a limit (SERVFAIL, or nothing).";
                families.counter("portico_dns_limited_total", help, &labels, load(counter));
            }
            for (reason, counter) in FAILURES.iter().zip(&limits.failed) {
                let labels = [tenant.as_slice(), &[("reason", reason)]].concat();
                let help = "Questions within the limits that could not be answered (SERVFAIL).";
                families.counter("portico_dns_failed_total", help, &labels, load(counter));
            }
        }
    }
}

fn with_burst(rate: u32) -> (u32, u32) {
    (rate, rate.saturating_mul(BURST))
}

/// All families, for the page about them.
#[cfg(test)]
pub(crate) fn example(id: TenantId) -> Arc<dyn Source> {
    let shown = Shown::default();
    shown.set(vec![(id, Arc::default())]);
    Arc::new(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::telemetry::Metrics;
    use std::time::Duration;

    fn limits(questions: u32, forwarded: u32) -> Limits {
        let limits = Limits::default();
        limits.grant(granted(questions, forwarded));
        limits
    }

    fn granted(questions: u32, forwarded: u32) -> DnsLimits {
        DnsLimits { dns_questions_per_second: questions, forwarded_questions_per_second: forwarded }
    }

    fn admitted(limits: &Limits, now: Instant) -> (usize, usize, usize) {
        let all: Vec<_> = (0..100).map(|_| limits.admit(now)).collect();
        let count = |what| all.iter().filter(|admission| **admission == what).count();
        (count(Admission::Answer), count(Admission::Refuse), count(Admission::Drop))
    }

    #[test]
    fn a_burst_is_answered_as_many_are_refused_and_the_rest_is_dropped() {
        let (limits, began) = (limits(10, 10), Instant::now());
        assert_eq!(admitted(&limits, began), (20, 20, 60));
        assert_eq!(admitted(&limits, began + Duration::from_secs(1)), (10, 10, 80));
    }

    #[test]
    fn other_limits_count_from_the_next_question_on() {
        let (limits, began) = (limits(10, 10), Instant::now());
        assert_eq!(admitted(&limits, began).0, 20);
        limits.grant(granted(1000, 1));
        assert_eq!(admitted(&limits, began + Duration::from_secs(1)).0, 100);
        assert!((0..2).all(|_| limits.may_forward(began)) && !limits.may_forward(began));
    }

    #[test]
    fn an_answer_that_takes_the_work_of_several_counts_as_several() {
        let (limits, began) = (limits(10, 10), Instant::now());
        limits.worked(WORK_PER_QUESTION - 1, began);
        limits.worked(5 * WORK_PER_QUESTION, began);
        assert_eq!(admitted(&limits, began).0, 15);
        limits.worked(usize::MAX, began);
        assert_eq!(admitted(&limits, began + Duration::from_millis(2100)).0, 1, "of no answer more than a burst");
    }

    #[test]
    fn counts_are_shown_for_whom_is_served() {
        let (limits, shown, now) = (limits(10, 1), Arc::new(Shown::default()), Instant::now());
        admitted(&limits, now);
        assert_eq!((0..5).filter(|_| limits.may_forward(now)).count(), 2);
        limits.failed(Failure::Resolvers);
        let metrics = Metrics::default();
        metrics.register(Arc::clone(&shown) as Arc<dyn Source>);
        shown.set(vec![(TenantId::parse("team", "dev").expect("valid"), Arc::new(limits))]);
        let text = metrics.render().expect("renders");
        for line in [
            "portico_dns_questions_total{namespace=\"team\",cluster=\"dev\"} 100",
            "portico_dns_limited_total{namespace=\"team\",cluster=\"dev\",limit=\"questions\"} 80",
            "portico_dns_limited_total{namespace=\"team\",cluster=\"dev\",limit=\"forwarded\"} 3",
            "portico_dns_failed_total{namespace=\"team\",cluster=\"dev\",reason=\"resolvers\"} 1",
            "portico_dns_failed_total{namespace=\"team\",cluster=\"dev\",reason=\"room\"} 0",
        ] {
            assert!(text.contains(line), "{text}");
        }
        shown.set(Vec::new());
        assert_eq!(metrics.render().expect("renders"), "", "and vanish with it");
    }
}
