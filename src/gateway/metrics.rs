//! What the gateway counts, as plain fields: no lookups by label on a request's way.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::limits::Refusal;
use crate::names::TenantId;
use crate::runtime::telemetry::{Families, HistogramSample, Source};

/// Coarse kinds of requests: enough to see what a tenant does, few enough to keep series small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerbClass {
    /// get and list.
    Read,
    /// create, update, patch, delete.
    Write,
    /// watch.
    Watch,
    /// exec, attach, port-forward, log, proxy.
    Stream,
    /// Discovery, health and what could not be read.
    Other,
}

impl VerbClass {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Read, "read"),
        (Self::Write, "write"),
        (Self::Watch, "watch"),
        (Self::Stream, "stream"),
        (Self::Other, "other"),
    ];

    /// From what [`crate::gateway::api::RequestInfo`] says.
    pub fn of(verb: &str, long_running: bool) -> Self {
        match (verb, long_running) {
            ("watch", _) => Self::Watch,
            (_, true) => Self::Stream,
            ("get" | "list" | "head", _) => Self::Read,
            ("create" | "update" | "patch" | "delete" | "deletecollection", _) => Self::Write,
            _ => Self::Other,
        }
    }
}

/// Why a connection never became one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandshakeFailure {
    Timeout,
    Protocol,
    NoCertificate,
    TooManyConnections,
    TooManyOfSource,
    TooManyOfTenant,
    TooManyHandshakes,
}

const HANDSHAKE_FAILURES: [&str; 7] = [
    "timeout",
    "protocol",
    "no-certificate",
    "too-many-connections",
    "too-many-of-source",
    "too-many-of-tenant",
    "too-many-handshakes",
];
/// Of one tenant: those of [`Refusal`], its connections, and its part of the memory when that runs out.
const LIMITS: [&str; Refusal::REASONS.len() + 2] = {
    let [a, b, c, d, e] = Refusal::REASONS;
    [a, b, c, d, e, "connections", "memory"]
};
const CODES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Milliseconds; Kubernetes' own request buckets, thinned out.
const BOUNDS: [u64; 10] = [5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 30_000];

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

/// Counts of one tenant, kept over its generations.
#[derive(Debug, Default)]
pub struct TenantMetrics {
    requests: [[AtomicU64; CODES.len()]; VerbClass::ALL.len()],
    durations: [Histogram; VerbClass::ALL.len()],
    received: AtomicU64,
    sent: AtomicU64,
    pub(super) misdirected: AtomicU64,
    limited: [AtomicU64; LIMITS.len()],
    /// Answers that were ended since nothing was taken of them.
    pub(super) unread: AtomicU64,
    /// Requests of unknown callers for whom there was no place.
    pub(super) unknown_refused: AtomicU64,
}

/// Counts of the whole gateway.
#[derive(Debug, Default)]
pub(super) struct GatewayMetrics {
    handshake_failures: [AtomicU64; HANDSHAKE_FAILURES.len()],
    pub(super) connections: AtomicI64,
    pub(super) accepted: AtomicU64,
    /// Requests that named no tenant that is bound here.
    pub(super) unbound: AtomicU64,
    /// Requests of unknown callers that left no log line.
    pub(super) unlogged: AtomicU64,
}

impl TenantMetrics {
    pub(super) fn refused(&self, why: Refusal) {
        self.count_limit(why.reason());
    }

    pub(super) fn refused_connection(&self) {
        self.count_limit(LIMITS.len() - 2);
    }

    pub(super) fn refused_memory(&self) {
        self.count_limit(LIMITS.len() - 1);
    }

    fn count_limit(&self, at: usize) {
        if let Some(counter) = self.limited.get(at) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn finished(&self, class: VerbClass, code: u16, took: Duration, received: u64, sent: u64) {
        let at = class as usize;
        let code = usize::from(code / 100).min(CODES.len() - 1);
        if let Some(counter) = self.requests.get(at).and_then(|row| row.get(code)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(histogram) = self.durations.get(at) {
            histogram.observe(took);
        }
        self.received.fetch_add(received, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }
}

impl Histogram {
    fn observe(&self, took: Duration) {
        let millis = took.as_micros().div_ceil(1000);
        if let Some(at) = BOUNDS.iter().position(|bound| millis <= u128::from(*bound))
            && let Some(bucket) = self.buckets.get(at)
        {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn sample(&self) -> HistogramSample {
        let mut below = 0;
        let buckets = BOUNDS.iter().zip(&self.buckets).map(|(bound, bucket)| {
            below += bucket.load(Ordering::Relaxed);
            (*bound as f64 / 1000.0, below)
        });
        HistogramSample {
            buckets: buckets.collect(),
            sum: self.micros.load(Ordering::Relaxed) as f64 / 1e6,
            count: self.count.load(Ordering::Relaxed),
        }
    }
}

impl GatewayMetrics {
    pub(super) fn handshake_failed(&self, why: HandshakeFailure) {
        if let Some(counter) = self.handshake_failures.get(why as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Source for GatewayMetrics {
    fn collect(&self, families: &mut Families) {
        let open = self.connections.load(Ordering::Relaxed) as f64;
        families.gauge("portico_gateway_connections", "Open client connections.", &[], open);
        let accepted = self.accepted.load(Ordering::Relaxed);
        families.counter("portico_gateway_connections_total", "Accepted client connections.", &[], accepted);
        let unbound = self.unbound.load(Ordering::Relaxed);
        families.counter(
            "portico_gateway_unbound_requests_total",
            "Requests that named no virtual cluster served here.",
            &[],
            unbound,
        );
        families.counter(
            "portico_gateway_unlogged_requests_total",
            "Requests of callers who are not known that left no line in the access log, since there were too many.",
            &[],
            self.unlogged.load(Ordering::Relaxed),
        );
        for (reason, counter) in HANDSHAKE_FAILURES.iter().zip(&self.handshake_failures) {
            families.counter(
                "portico_gateway_handshake_failures_total",
                "Connections that ended before their first request.",
                &[("reason", reason)],
                counter.load(Ordering::Relaxed),
            );
        }
    }
}

/// Shows the counts of one tenant.
pub(super) fn collect_tenant(families: &mut Families, id: &TenantId, metrics: &TenantMetrics) {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let tenant = [("namespace", id.namespace().as_str()), ("cluster", id.name().as_str())];
    let with = |more: &[(&'static str, &'static str)]| [tenant.as_slice(), more].concat();
    for ((_, verb), codes) in VerbClass::ALL.iter().zip(&metrics.requests) {
        for (code, counter) in CODES.iter().zip(codes).filter(|(_, counter)| load(counter) > 0) {
            let labels = with(&[("verb", verb), ("code", code)]);
            families.counter("portico_gateway_requests_total", "Finished requests.", &labels, load(counter));
        }
    }
    for ((_, verb), histogram) in VerbClass::ALL.iter().zip(&metrics.durations) {
        let sample = histogram.sample();
        if sample.count > 0 {
            let help = "Time from a request's head to the last byte of its answer.";
            families.histogram("portico_gateway_request_duration_seconds", help, &with(&[("verb", verb)]), &sample);
        }
    }
    families.counter(
        "portico_gateway_received_bytes_total",
        "Bytes of request bodies.",
        &tenant,
        load(&metrics.received),
    );
    families.counter("portico_gateway_sent_bytes_total", "Bytes of response bodies.", &tenant, load(&metrics.sent));
    families.counter(
        "portico_gateway_unread_total",
        "Answers that were ended since their readers took nothing of what waited.",
        &tenant,
        load(&metrics.unread),
    );
    let misdirected = load(&metrics.misdirected);
    families.counter("portico_gateway_misdirected_total", "Requests for another cluster (421).", &tenant, misdirected);
    for (limit, counter) in LIMITS.iter().zip(&metrics.limited) {
        let labels = with(&[("limit", limit)]);
        families.counter("portico_gateway_limited_total", "Requests refused by a limit (429).", &labels, load(counter));
    }
}
