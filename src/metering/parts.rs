//! What all of metering needs.

use std::sync::Arc;
use std::time::Duration;

use crate::config::MeteringConfig;
use crate::consumption::Consumption;
use crate::kubernetes::ApiClient;
use crate::kubernetes::api::SharedCluster;
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::usage::Usage;

/// Of every process that counts.
#[derive(Clone)]
pub struct Parts {
    /// How often, how long.
    pub config: MeteringConfig,
    /// Where it is kept.
    pub host: SharedCluster,
    /// In this namespace, Portico's own.
    pub namespace: String,
    /// Names this process among all that ever were.
    pub process: String,
    /// What tenants used.
    pub consumption: Arc<Consumption>,
    /// Clock of the process.
    pub clock: Clock,
}

/// What the meter reads.
#[derive(Clone)]
pub struct Sources {
    /// Figures of pods.
    pub usage: Arc<Usage>,
    /// The host's claims.
    pub host: ApiClient,
    /// Who is there.
    pub tenants: Tenants,
}

/// A tenant that may use something.
#[derive(Debug, Clone)]
pub struct Metered {
    /// Who.
    pub id: TenantId,
    /// Of its VirtualCluster.
    pub uid: String,
    /// Whether it has pods.
    pub has_pods: bool,
    /// Whether it has claims.
    pub has_claims: bool,
}

/// All that may.
pub type Tenants = Arc<dyn Fn() -> Vec<Metered> + Send + Sync>;

/// Waits; false if the drain begins before.
pub(super) async fn goes_on(drain: &mut Drain, pause: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(pause) => true,
        _ = drain.leaving() => false,
    }
}
