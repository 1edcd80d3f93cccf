//! The gateway: one TLS endpoint for every virtual cluster.
//!
//! A request's way, each step a plain function in its own file: accept → handshake → bind → clean → authenticate →
//! enter → forward or intercept; a tenant's own API server that asks as aggregator is answered by `metrics_api` instead.
//! Promises: the tenant is computed anew for every request; no identity passes that was
//! not verified here or is not judged by the backend; what is forwarded is never buffered, and the few bodies that are
//! read as a whole are of callers who are known, and drawn on one budget of the process; every failure is a
//! `metav1.Status`; every request leaves one log line, and the
//! events of the audit log that its policies want. Must not know how objects are synced.

pub mod api;
mod audit_id;
mod audited;
pub mod buffer;
pub mod context;
pub mod entry;
pub mod flag;
pub mod identity;
pub mod metrics;
pub mod metrics_api;
pub mod reading;
pub mod record;
pub mod respond;

mod accept;
mod admission;
mod aggregator;
mod authenticate;
mod bind;
mod browser;
mod connection;
mod connections;
mod counts;
mod ending;
mod forward;
#[cfg(test)]
mod fuzzed;
mod handshake;
mod host_cluster;
mod intercept;
mod issued;
mod jwt;
mod known;
mod kubelet;
mod limits;
mod places;
mod proxied;
mod published;
mod request;
mod review;
mod scarce;
mod scrape;
mod serve;
mod served;
mod shared;
#[cfg(test)]
mod shown;
mod tenants;
mod tokens;
mod traced;
mod tunnel;
mod turns;
mod upgrade;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

pub use self::host_cluster::HostCluster;
use self::known::TokenKey;
use self::metrics::GatewayMetrics;
use self::scrape::door::Door;
use self::scrape::kept::Scrapes;
use self::served::Served;
use self::shared::{Gateway, SharedNames};
#[cfg(test)]
pub(crate) use self::shown::{example, of_the_fleet};
use self::tenants::Tenants;
use self::turns::Turns;
use crate::config::GatewayConfig;
use crate::consumption::Consumption;
use crate::error::{Error, Kind, Result};
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::runtime::pace::Pace;
use crate::runtime::task::Task;
use crate::runtime::telemetry::{Metrics, Source};
use crate::runtime::traces::Traces;
use crate::runtime::watched::Watched;
use crate::tenant::Registry;
pub use crate::tls::SharedCertificate;
use crate::trail::Trail;
use crate::upstream::reach::Closed;

/// What the gateway is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Limits, deadlines and the shared address.
    pub config: GatewayConfig,
    /// The tenants.
    pub registry: Arc<Registry>,
    /// The shared listener's certificate.
    pub shared: SharedCertificate,
    /// The host cluster; none where the gateway stands alone, in front of clusters that have nodes of their own.
    pub host: Option<HostCluster>,
    /// Addresses of the host to which no tenant's word leads: issuers of tokens are not asked there.
    pub closed: Closed,
    /// What tenants use is counted here.
    pub consumption: Arc<Consumption>,
    /// The audit log, where there is one.
    pub audit: Option<Arc<Trail>>,
    /// Where the gateway's metrics are shown.
    pub metrics: Metrics,
    /// The clock of the process; tests bring their own.
    pub clock: Clock,
    /// Who keeps the listeners running.
    pub watched: Watched,
    /// Of requests.
    pub traces: Traces,
}

/// A running gateway. Dropped, it takes no new connections; those that are open hold the drain.
#[derive(Debug)]
pub struct Bound {
    /// The shared listener's address.
    pub address: SocketAddr,
    ports: watch::Receiver<BTreeSet<u16>>,
    listeners: Vec<Task>,
}

/// Listens, and serves until the drain: then takes nothing new, ends watches, and lets the rest finish.
pub async fn run(parts: Parts, drain: &Drain) -> Result<Bound> {
    let listener = TcpListener::bind(parts.config.listen)
        .await
        .map_err(|e| Error::own(Kind::Unavailable, format!("cannot listen on {}", parts.config.listen)).because(e))?;
    let address =
        listener.local_addr().map_err(|e| Error::own(Kind::Internal, "a listener has no address").because(e))?;
    Ok(start(parts, address, Some(listener), drain))
}

/// As [`run`], without the shared listener: only the tenants' own ports, on the address of `config.listen`.
pub fn run_tenant_ports(parts: Parts, drain: &Drain) -> Bound {
    let address = SocketAddr::new(parts.config.listen.ip(), 0);
    start(parts, address, None, drain)
}

fn start(parts: Parts, address: SocketAddr, listener: Option<TcpListener>, drain: &Drain) -> Bound {
    let (metrics, kept) = (
        Arc::new(GatewayMetrics::default()),
        Tenants::new(&parts.config, parts.registry.memory(), &parts.consumption, parts.audit.is_some()),
    );
    parts.metrics.register(Arc::clone(&metrics) as Arc<dyn Source>);
    parts.metrics.register(Arc::clone(&kept) as Arc<dyn Source>);
    let usage = parts.host.as_ref().map(|host| &host.usage);
    let scrapes = Scrapes::new(&parts.config.scrape, &parts.metrics, usage, &parts.clock);
    parts.metrics.register(Arc::new(Served::new(&parts.registry, &parts.shared)));
    let gateway = Arc::new(Gateway {
        scrapes,
        door: parts.host.as_ref().filter(|_| listener.is_some()).map(|host| Door::new(host.api.layered())),
        names: SharedNames::new(&parts.config),
        connections: kept.connections.clone(),
        unknown_lines: Pace::default(),
        audit: parts.audit,
        config: parts.config,
        registry: parts.registry,
        shared: parts.shared,
        closed: parts.closed,
        host: parts.host,
        traces: parts.traces,
        token_key: TokenKey::new(&parts.clock),
        token_pace: Pace::default(),
        issuer_turns: Turns::default(),
        clock: parts.clock,
        metrics,
        tenants: kept,
    });
    let shared = listener.map(|listener| accept::shared(&parts.watched, &gateway, listener, drain));
    let (tenants, ports) = accept::tenants(&parts.watched, &gateway, address.ip(), drain);
    Bound { address, ports, listeners: shared.into_iter().chain([tenants]).collect() }
}

impl Bound {
    /// The tenant ports that are listened on now; wakes at every change.
    pub fn ports(&self) -> watch::Receiver<BTreeSet<u16>> {
        self.ports.clone()
    }

    /// The listeners' tasks, for an owner: each ends when nothing new is taken any more (the drain has begun).
    pub fn listeners(self) -> Vec<Task> {
        self.listeners
    }
}
