//! The gateway: one TLS endpoint for every virtual cluster.
//!
//! A request's way, each step a plain function in its own file: accept → handshake → bind → clean → authenticate →
//! admit → forward or intercept. Promises: the tenant is computed anew for every request; no identity passes that was
//! not verified here or is not judged by the backend; no body is buffered; every failure is a `metav1.Status`; every
//! request leaves one log line. Must not know how objects are synced.

pub mod context;
pub mod metrics;
pub mod record;
pub mod respond;
pub mod service_create;
pub mod stream;

mod accept;
mod authenticate;
mod bind;
mod forward;
mod handshake;
mod limits;
mod request;
mod serve;
mod upgrade;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use self::bind::SharedNames;
use self::metrics::GatewayMetrics;
use crate::clock::Clock;
use crate::config::GatewayConfig;
use crate::drain::Drain;
use crate::error::{Error, Kind, Result};
use crate::registry::Registry;
use crate::task::{self, Task};
use crate::telemetry::Metrics;
use crate::tls::ServerTls;
use crate::upstream::ApiClient;

/// The certificate of the shared listener; whoever makes or renews it sets it, handshakes take the newest.
#[derive(Debug, Clone, Default)]
pub struct SharedCertificate(Arc<ArcSwapOption<ServerTls>>);

/// What the gateway is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Limits, deadlines and the shared address.
    pub config: GatewayConfig,
    /// The tenants.
    pub registry: Arc<Registry>,
    /// The shared listener's certificate.
    pub shared: SharedCertificate,
    /// The host cluster.
    pub host: ApiClient,
    /// Where the gateway's metrics are shown.
    pub metrics: Metrics,
    /// Time.
    pub clock: Clock,
}

/// A running gateway. Dropped, it takes no new connections; those that are open hold the drain.
#[derive(Debug)]
pub struct Bound {
    /// The shared listener's address.
    pub address: SocketAddr,
    ports: watch::Receiver<BTreeSet<u16>>,
    tasks: Vec<Task>,
}

/// What all connections share.
#[derive(Debug)]
struct Gateway {
    config: Arc<GatewayConfig>,
    names: SharedNames,
    registry: Arc<Registry>,
    shared: SharedCertificate,
    host: ApiClient,
    clock: Clock,
    metrics: Arc<GatewayMetrics>,
    connections: Arc<Semaphore>,
}

impl SharedCertificate {
    /// Puts a certificate in force for the next handshakes.
    pub fn set(&self, certificate: ServerTls) {
        self.0.store(Some(Arc::new(certificate)));
    }

    /// The certificate in force.
    pub fn load(&self) -> Option<Arc<ServerTls>> {
        self.0.load_full()
    }
}

impl From<Arc<ArcSwapOption<ServerTls>>> for SharedCertificate {
    fn from(slot: Arc<ArcSwapOption<ServerTls>>) -> Self {
        Self(slot)
    }
}

/// Listens, and serves until the drain: then takes nothing new, ends watches, and lets the rest finish.
pub async fn run(parts: Parts, drain: Drain) -> Result<Bound> {
    let listener = TcpListener::bind(parts.config.listen)
        .await
        .map_err(|e| Error::own(Kind::Unavailable, format!("cannot listen on {}", parts.config.listen)).because(e))?;
    let address =
        listener.local_addr().map_err(|e| Error::own(Kind::Internal, "a listener has no address").because(e))?;
    Ok(start(parts, address, Some(listener), drain))
}

/// As [`run`], without the shared listener: only the tenants' own ports, on the address of `config.listen`.
pub fn run_tenant_ports(parts: Parts, drain: Drain) -> Bound {
    let address = SocketAddr::new(parts.config.listen.ip(), 0);
    start(parts, address, None, drain)
}

fn start(parts: Parts, address: SocketAddr, listener: Option<TcpListener>, drain: Drain) -> Bound {
    let metrics = GatewayMetrics::new(parts.config.clone());
    parts.metrics.register(Arc::clone(&metrics) as Arc<dyn crate::telemetry::Source>);
    let gateway = Arc::new(Gateway {
        names: SharedNames::new(&parts.config),
        connections: Arc::new(Semaphore::new(parts.config.max_connections.min(Semaphore::MAX_PERMITS))),
        config: Arc::new(parts.config),
        registry: parts.registry,
        shared: parts.shared,
        host: parts.host,
        clock: parts.clock,
        metrics,
    });
    let (published, ports) = watch::channel(BTreeSet::new());
    let mut tasks = Vec::with_capacity(2);
    if let Some(listener) = listener {
        let shared = accept::shared(Arc::clone(&gateway), listener, drain.clone());
        tasks.push(task::spawn("gateway listener", shared));
    }
    let tenants = accept::tenants(gateway, address.ip(), published, drain);
    tasks.push(task::spawn("gateway tenant listeners", tenants));
    Bound { address, ports, tasks }
}

impl Bound {
    /// The tenant ports that are listened on now; wakes at every change.
    pub fn ports(&self) -> watch::Receiver<BTreeSet<u16>> {
        self.ports.clone()
    }

    /// Waits until nothing new is taken any more (the drain has begun).
    pub async fn join(self) {
        for task in self.tasks {
            task.join().await;
        }
    }
}
