//! What pods and nodes of the host use: from its `metrics.k8s.io` where there is one, else from its kubelets, where Portico
//! may ask them.
//!
//! Promises: figures of a tenant are those of host pods that carry its label, whatever else is in its host namespace; where
//! they come from is found out, and looked at again; however often a tenant asks, the host is asked once in some seconds and
//! by one at a time; what is kept is bounded in tenants, nodes and containers, and goes when nobody asks. Must not know
//! virtual objects, or what becomes of the figures.

mod figures;
mod host_metrics;
mod placed;
mod quantity;
mod rates;
mod scrapes;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub use self::figures::{ContainerUsage, NodeUsage, NodesUsage, PodUsage, PodsUsage};
pub use self::placed::{HostPod, Placed};
use self::scrapes::Scrapes;
use crate::error::{Error, Kind, Result};
use crate::kubernetes::{ApiClient, Kubelets};
use crate::names::TenantId;
use crate::runtime::answers::Answers;
use crate::runtime::clock::Clock;

/// Figures are at most so old beside their source's own age (metrics-server scrapes every 15 s).
const FRESH: Duration = Duration::from_secs(10);
/// Which host pods a tenant has: a new one is seen so much later.
const PODS_FRESH: Duration = Duration::from_secs(5);
/// Tenants whose figures are kept at once.
const MOST_TENANTS: usize = 512;
/// Tenants whose figures are read at once: each holds a page of what the host says.
const AT_ONCE: usize = 4;
/// A host that has no `metrics.k8s.io` is asked for it again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Where figures come from.
#[derive(Debug)]
pub struct Usage {
    host: ApiClient,
    kubelets: Arc<Kubelets>,
    clock: Clock,
    pods: Answers<TenantId, PodsUsage>,
    nodes: Answers<(), NodesUsage>,
    placed: Answers<TenantId, Placed>,
    scrapes: Scrapes,
    reading: Semaphore,
    /// Until then the host has no `metrics.k8s.io`.
    absent: Mutex<Option<Instant>>,
}

impl Usage {
    /// Of this host, asked with Portico's own rights.
    pub fn new(host: ApiClient, kubelets: Arc<Kubelets>, clock: Clock) -> Self {
        Self {
            host,
            scrapes: Scrapes::new(Arc::clone(&kubelets), FRESH, clock.clone()),
            kubelets,
            clock,
            pods: Answers::new(FRESH, MOST_TENANTS),
            nodes: Answers::new(FRESH, 1),
            placed: Answers::new(PODS_FRESH, MOST_TENANTS),
            reading: Semaphore::new(AT_ONCE),
            absent: Mutex::new(None),
        }
    }

    /// Of the pods of one tenant, by name of the host pod; shared for some seconds, one flight at a time. A pod that is new,
    /// or of which there is nothing yet to compare with, is not there.
    pub async fn pods(&self, tenant: &TenantId) -> Result<Arc<PodsUsage>> {
        self.pods.get(tenant, &self.clock, || self.read_pods(tenant)).await
    }

    /// Of the host's nodes.
    pub async fn nodes(&self) -> Result<Arc<NodesUsage>> {
        self.nodes.get(&(), &self.clock, || self.read_nodes()).await
    }

    /// The tenant's pods on the host, each proven by the label and the identity recorded on it; shared for some seconds.
    pub async fn placed(&self, tenant: &TenantId) -> Result<Arc<Placed>> {
        let read = || async {
            let _turn = self.turn().await?;
            placed::read(&self.host, tenant).await
        };
        self.placed.get(tenant, &self.clock, read).await
    }

    /// The kubelets behind them.
    pub fn kubelets(&self) -> &Arc<Kubelets> {
        &self.kubelets
    }

    async fn read_pods(&self, tenant: &TenantId) -> Result<PodsUsage> {
        let placed = self.placed(tenant).await?;
        if self.may_have_metrics() {
            let turn = self.turn().await?;
            let read = host_metrics::pods(&self.host, tenant, &placed).await;
            drop(turn);
            if let Some(found) = self.judged(read)? {
                return Ok(found);
            }
        }
        self.scrapes.pods(tenant, &placed).await.map_err(|e| self.without_source(e))
    }

    async fn read_nodes(&self) -> Result<NodesUsage> {
        if self.may_have_metrics() {
            let turn = self.turn().await?;
            let read = host_metrics::nodes(&self.host).await;
            drop(turn);
            if let Some(found) = self.judged(read)? {
                return Ok(found);
            }
        }
        self.scrapes.nodes().await.map_err(|e| self.without_source(e))
    }

    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        let closed = |e| Error::own(Kind::Internal, "the seats for figures were closed").because(e);
        self.reading.acquire().await.map_err(closed)
    }

    fn may_have_metrics(&self) -> bool {
        self.absent.lock().is_none_or(|until| self.clock.instant() >= until)
    }

    /// `None`: the host has no `metrics.k8s.io` for us, and the kubelets are asked instead.
    fn judged<T>(&self, read: Result<T>) -> Result<Option<T>> {
        let error = match read {
            Ok(found) => {
                *self.absent.lock() = None;
                return Ok(Some(found));
            }
            Err(error) => error,
        };
        match error.kind() {
            // No such group, or nobody behind it.
            Kind::NotFound | Kind::Unavailable => {
                *self.absent.lock() = Some(self.clock.instant() + LOOK_AGAIN);
                tracing::debug!(%error, "the host has no metrics.k8s.io");
                Ok(None)
            }
            Kind::Forbidden => {
                tracing::debug!(%error, "Portico may not read the host's metrics.k8s.io");
                Ok(None)
            }
            _ => Err(error),
        }
    }

    /// Where nothing tells figures, the admin is told what would.
    fn without_source(&self, error: Error) -> Error {
        if self.kubelets.is_enabled() {
            return error;
        }
        Error::own(
            Kind::Unavailable,
            "there are no figures: the host has no metrics.k8s.io that Portico may read (metrics-server), and its kubelets \
             are not asked (host.kubelets.enabled)",
        )
    }
}
