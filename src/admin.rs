//! Health for kubelets, and metrics for Prometheus: two listeners, each with places of its own.
//!
//! Promises: `/livez` says only that the process turns; `/readyz` names what is still awaited or broken; nobody who
//! connects keeps a probe from its answer; metrics are shown to whom the host cluster allows them, unless they are open by
//! choice; nothing here changes anything or shows a secret. Must not know tenants or planes: they hand in guards and
//! metric sources.

mod answer;
mod listener;
mod metrics;
mod probes;
mod questions;
mod readiness;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use futures::FutureExt;

pub use self::readiness::{Awaited, Readiness};
use crate::error::Result;
use crate::kubernetes::{ApiClient, Reviews};
use crate::runtime::drain::{self, Drain, DrainTrigger};
use crate::runtime::task::Task;
use crate::runtime::telemetry::Metrics;
use crate::runtime::watched::{IfDown, Watched};
use crate::tls::SharedCertificate;

/// What is served, and where.
#[derive(Debug)]
pub struct Parts {
    /// Address of probes: plain HTTP.
    pub probes: SocketAddr,
    /// Address of metrics.
    pub metrics_listen: SocketAddr,
    /// Who may read metrics.
    pub access: Access,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Who keeps the listeners running.
    pub watched: Watched,
}

/// Who may read metrics, and how.
#[derive(Debug)]
pub enum Access {
    /// Whoever reaches the port, over plain HTTP.
    Open,
    /// Bearers of a token whose user may `get` the nonresource URL `/metrics` in the host cluster, over TLS.
    Reviewed {
        /// Judges the tokens.
        host: ApiClient,
        /// Shown to scrapers; before there is one, nobody is served.
        certificate: SharedCertificate,
    },
}

/// The running servers. Dropped, they stop; they serve through the drain, so that probes see it.
#[derive(Debug)]
pub struct Bound {
    /// Where probes are answered.
    pub probes: SocketAddr,
    /// Where metrics are shown.
    pub metrics: SocketAddr,
    _listeners: [Task; 2],
    /// The listeners' own, for they serve through the drain of the process.
    _end: DrainTrigger,
}

/// Listens and serves until dropped. `/readyz` is 503 as soon as the process leaves.
pub async fn run(parts: Parts, drain: &Drain) -> Result<Bound> {
    let (for_probes, probes_at) = listener::bind(parts.probes, "health").await?;
    let (for_metrics, metrics_at) = listener::bind(parts.metrics_listen, "metrics").await?;
    let probes = probes::Probes { readiness: parts.readiness, phase: drain.watch() };
    let guard = match parts.access {
        Access::Open => None,
        Access::Reviewed { host, certificate } => {
            let questions = questions::Questions::new(Reviews::new(host), metrics::PATH);
            Some(metrics::Guard { questions, certificate })
        }
    };
    let scrapes = Arc::new(metrics::Scrapes::new(parts.metrics, guard));
    let (end, drain) = drain::channel();
    let (for_probes, for_metrics) = (Arc::new(for_probes), Arc::new(for_metrics));
    let listeners = [
        parts.watched.keep("health listener", IfDown::NotReady, &drain, move || {
            probes::serve(Arc::clone(&for_probes), probes.clone(), probes::LIMITS).map(Ok)
        }),
        parts.watched.keep("metrics listener", IfDown::Noted, &drain, move || {
            metrics::serve(Arc::clone(&for_metrics), Arc::clone(&scrapes), metrics::LIMITS).map(Ok)
        }),
    ];
    Ok(Bound { probes: probes_at, metrics: metrics_at, _listeners: listeners, _end: end })
}
