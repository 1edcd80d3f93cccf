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
mod turns;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

pub use self::figures::{ContainerUsage, NodeUsage, NodesUsage, PodUsage, PodsUsage};
use self::placed::Listing;
pub use self::placed::{HostPod, Placed};
use self::scrapes::Scrapes;
use self::turns::Turns;
use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::{ApiClient, Kubelets};
use crate::names::TenantId;
use crate::runtime::answers::{Answers, Terms};
use crate::runtime::clock::Clock;

/// Figures are at most so old beside their source's own age (metrics-server scrapes every 15 s).
const FRESH: Duration = Duration::from_secs(10);
/// Which host pods a tenant has: a new one is seen so much later.
const PODS_FRESH: Duration = Duration::from_secs(5);
/// Tenants whose figures are kept at once.
const MOST_TENANTS: usize = 512;
/// And their pods, all together, of figures each container as well: some 50 MB each of figures and places.
const MOST_PODS: usize = 100_000;
/// A tenant whose pods could not be listed in time is not listed again for so long: others have its turns.
const LATE: Duration = Duration::from_secs(60);
/// A host that has no `metrics.k8s.io` is asked for it again, and one where nobody is behind it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// A virtual cluster, by its uid as well: one that is made again under its name has nothing of its predecessor's.
type Key = (TenantId, String);

/// What pods and nodes use, as it was said last.
#[derive(Debug)]
pub struct Usage {
    source: Arc<Source>,
    pods: Answers<Key, PodsUsage>,
    nodes: Answers<(), NodesUsage>,
}

/// Where figures come from.
#[derive(Debug)]
struct Source {
    host: ApiClient,
    kubelets: Arc<Kubelets>,
    clock: Clock,
    placed: Answers<Key, Placed>,
    listing: Arc<Listing>,
    scrapes: Scrapes,
    turns: Arc<Turns>,
    /// Until then the host has no `metrics.k8s.io`, or nobody behind it.
    away: Mutex<Option<(Instant, Away)>>,
}

/// Why the host tells no figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    /// There is no such group, or Portico may not read it.
    Absent,
    /// Nobody answers for it at the moment.
    Silent,
}

impl Usage {
    /// Of this host, asked with Portico's own rights.
    pub fn new(host: ApiClient, kubelets: Arc<Kubelets>, clock: Clock) -> Self {
        let turns: Arc<Turns> = Arc::default();
        let source = Source {
            listing: Arc::new(Listing::new(host.clone(), Arc::clone(&turns), clock.clone())),
            host,
            scrapes: Scrapes::new(Arc::clone(&kubelets), FRESH, clock.clone()),
            kubelets,
            clock,
            placed: Answers::new(Terms {
                weigh: Placed::len,
                most_weight: MOST_PODS,
                late: LATE,
                ..Terms::new("listing of pods", PODS_FRESH, MOST_TENANTS)
            }),
            turns,
            away: Mutex::new(None),
        };
        Self {
            source: Arc::new(source),
            pods: Answers::new(Terms {
                weigh: |pods| pods.values().map(|pod| 1 + pod.containers.len()).sum(),
                most_weight: MOST_PODS,
                ..Terms::new("figures of pods", FRESH, MOST_TENANTS)
            }),
            nodes: Answers::new(Terms::new("figures of nodes", FRESH, 1)),
        }
    }

    /// Of the pods of one tenant, by name of the host pod; shared for some seconds, one flight at a time. A pod that is new,
    /// or of which there is nothing yet to compare with, is not there.
    pub async fn pods(&self, tenant: &TenantId, uid: &str) -> Result<Arc<PodsUsage>> {
        let of = (tenant.clone(), uid.to_owned());
        let read = || {
            let (source, of) = (Arc::clone(&self.source), of.clone());
            async move { source.pods(&of).await }
        };
        self.pods.get(&of, &self.source.clock, read).await
    }

    /// Of the host's nodes.
    pub async fn nodes(&self) -> Result<Arc<NodesUsage>> {
        let read = || {
            let source = Arc::clone(&self.source);
            async move { source.nodes().await }
        };
        self.nodes.get(&(), &self.source.clock, read).await
    }

    /// The tenant's pods on the host, each proven by the label and the identity recorded on it; shared for some seconds.
    pub async fn placed(&self, tenant: &TenantId, uid: &str) -> Result<Arc<Placed>> {
        self.source.placed(&(tenant.clone(), uid.to_owned())).await
    }

    /// The kubelets behind them.
    pub fn kubelets(&self) -> &Arc<Kubelets> {
        &self.source.kubelets
    }
}

impl Source {
    async fn placed(&self, of: &Key) -> Result<Arc<Placed>> {
        let read = || {
            let (listing, (tenant, _)) = (Arc::clone(&self.listing), of.clone());
            async move { listing.read(&tenant).await }
        };
        self.placed.get(of, &self.clock, read).await
    }

    async fn pods(&self, of: &Key) -> Result<PodsUsage> {
        let (tenant, _) = of;
        let placed = self.placed(of).await?;
        if self.may_have_metrics() {
            let turn = self.turns.turn().await?;
            let read = host_metrics::pods(&self.host, tenant, &placed).await;
            drop(turn);
            if let Some(found) = self.judged(read)? {
                return Ok(found);
            }
        }
        self.scrapes.pods(tenant, &placed).await.map_err(|e| self.without_source(e))
    }

    async fn nodes(&self) -> Result<NodesUsage> {
        if self.may_have_metrics() {
            let turn = self.turns.turn().await?;
            let read = host_metrics::nodes(&self.host).await;
            drop(turn);
            if let Some(found) = self.judged(read)? {
                return Ok(found);
            }
        }
        self.scrapes.nodes().await.map_err(|e| self.without_source(e))
    }

    fn may_have_metrics(&self) -> bool {
        self.away.lock().is_none_or(|(until, _)| self.clock.instant() >= until)
    }

    /// `None`: the host has no `metrics.k8s.io` for us, and the kubelets are asked instead.
    fn judged<T>(&self, read: Result<T>) -> Result<Option<T>> {
        let error = match read {
            Ok(found) => {
                *self.away.lock() = None;
                return Ok(Some(found));
            }
            Err(error) => error,
        };
        match error.kind() {
            Kind::NotFound | Kind::Unavailable if error.side() == Side::Host => {
                let (why, wait) = match error.kind() {
                    Kind::NotFound => (Away::Absent, LOOK_AGAIN),
                    _ => (Away::Silent, TRY_AGAIN),
                };
                *self.away.lock() = Some((self.clock.instant() + wait, why));
                tracing::debug!(%error, "the host has no metrics.k8s.io");
                Ok(None)
            }
            Kind::Forbidden => {
                *self.away.lock() = None;
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
        let why = match *self.away.lock() {
            Some((_, Away::Silent)) => "nobody answers for the host's metrics.k8s.io at the moment (metrics-server)",
            _ => "the host has no metrics.k8s.io that Portico may read (metrics-server)",
        };
        let message = format!("there are no figures: {why}, and its kubelets are not asked (host.kubelets.enabled)");
        // It is said to whoever asks, and not logged each time.
        Error::own(Kind::Unavailable, message)
    }
}
