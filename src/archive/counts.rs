//! How the archive is: for `/metrics` and `/readyz?verbose`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::spool::Spool;
use crate::runtime::clock::Clock;
use crate::runtime::telemetry::{Families, Source};
use crate::trail::Trail;

/// Where events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sink {
    File,
    Spool,
    Webhook,
}

const SINKS: [(Sink, &str); 3] = [(Sink::File, "file"), (Sink::Spool, "spool"), (Sink::Webhook, "webhook")];

/// Of one process.
#[derive(Debug)]
pub struct Counts {
    clock: Clock,
    trail: OnceLock<Weak<Trail>>,
    spool: OnceLock<Weak<Spool>>,
    /// Of each sink, since when it fails and why.
    failing: [Mutex<Option<(Timestamp, String)>>; SINKS.len()],
    failures: [AtomicU64; SINKS.len()],
    sent: AtomicU64,
    rejected: AtomicU64,
    /// When the oldest event was made that was not sent.
    oldest: Mutex<Option<Timestamp>>,
}

impl Counts {
    pub(super) fn new(clock: &Clock) -> Self {
        Self {
            clock: clock.clone(),
            trail: OnceLock::new(),
            spool: OnceLock::new(),
            failing: Default::default(),
            failures: Default::default(),
            sent: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            oldest: Mutex::default(),
        }
    }

    pub(super) fn watch(&self, trail: &Arc<Trail>, spool: Option<&Arc<Spool>>) {
        self.trail.get_or_init(|| Arc::downgrade(trail));
        if let Some(spool) = spool {
            self.spool.get_or_init(|| Arc::downgrade(spool));
        }
    }

    /// Notes how a step went, and whether it did.
    pub(super) fn outcome(&self, sink: Sink, outcome: Result<(), String>) -> bool {
        let at = SINKS.iter().position(|(known, _)| *known == sink).unwrap_or_default();
        let (Some(failing), Some(failures)) = (self.failing.get(at), self.failures.get(at)) else { return false };
        let mut failing = failing.lock();
        match outcome {
            Ok(()) => {
                if failing.take().is_some() {
                    tracing::info!(?sink, "the audit log is written again");
                }
                true
            }
            Err(why) => {
                failures.fetch_add(1, Ordering::Relaxed);
                if failing.is_none() {
                    tracing::error!(?sink, why, "the audit log cannot be written");
                }
                let since = failing.as_ref().map_or_else(|| self.clock.now(), |(since, _)| *since);
                *failing = Some((since, why));
                false
            }
        }
    }

    pub(super) fn sent(&self, events: usize) {
        self.sent.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(super) fn rejected(&self, events: usize) {
        self.rejected.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(super) fn oldest(&self, at: Option<Timestamp>) {
        *self.oldest.lock() = at;
    }

    /// For `/readyz?verbose`.
    pub fn notes(&self) -> Vec<String> {
        let all = SINKS.iter().zip(&self.failing).filter_map(|((_, name), failing)| {
            let (since, why) = failing.lock().clone()?;
            let since = since.strftime("%Y-%m-%dT%H:%M:%SZ");
            Some(format!("audit: {name} failing since {since}: {why}"))
        });
        let all: Vec<String> = all.collect();
        if all.is_empty() { vec!["audit: ok".to_owned()] } else { all }
    }
}

impl Source for Counts {
    fn collect(&self, families: &mut Families) {
        let waiting = self.trail.get().and_then(Weak::upgrade).map_or(0, |trail| trail.waiting());
        let help = "Bytes of events that wait in memory to be written, with the places that are kept for requests.";
        families.gauge("portico_audit_queued_bytes", help, &[], waiting as f64);
        let spooled = self.spool.get().and_then(Weak::upgrade).map_or(0, |spool| spool.bytes());
        let help = "Bytes of events that wait on the disk for the webhook.";
        families.gauge("portico_audit_spool_bytes", help, &[], spooled as f64);
        let age = self.oldest.lock().map_or(0.0, |at| self.clock.now().duration_since(at).as_secs_f64().max(0.0));
        let help = "How long the oldest event waits that the webhook has not taken.";
        families.gauge("portico_audit_oldest_seconds", help, &[], age);
        for (((_, name), failing), failures) in SINKS.iter().zip(&self.failing).zip(&self.failures) {
            let is_failing = f64::from(u8::from(failing.lock().is_some()));
            let help = "1 while nothing can be written there.";
            families.gauge("portico_audit_sink_failing", help, &[("sink", name)], is_failing);
            let help = "Tries to write or send events that failed.";
            let failures = failures.load(Ordering::Relaxed);
            families.counter("portico_audit_sink_failures_total", help, &[("sink", name)], failures);
        }
        let (sent, rejected) = (self.sent.load(Ordering::Relaxed), self.rejected.load(Ordering::Relaxed));
        families.counter("portico_audit_webhook_sent_total", "Events that the webhook has taken.", &[], sent);
        let help = "Events that the webhook will not take (400, 413, 422): they are lost.";
        families.counter("portico_audit_webhook_rejected_total", help, &[], rejected);
    }
}

/// All families, for the page about them.
#[cfg(test)]
pub(crate) fn example() -> Arc<dyn Source> {
    Arc::new(Counts::new(&Clock::system()))
}
