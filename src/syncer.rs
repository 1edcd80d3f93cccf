//! The syncer: copies what must run from every tenant to the host, and statuses back.
//!
//! A pod's way, top-down: `source` (watch → event) → `feeds` (projected, into the stores) → `world` (whom it concerns) →
//! `queue` (fair, keyed) → `worker` (load, `kinds/*` plan) → `apply` (one call each; the answer goes into `world`) and back.
//! `engine` decides who takes part; `drift` compares both sides continuously; `loss` and `mass_deletion` hold what a broken
//! tenant would tear down. Kinds are pure functions behind [`kind::ResourceSyncer`]. All state is rebuilt from the two API
//! servers.

use std::sync::Arc;

use crate::config::SyncerConfig;
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::rights::Access;
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::runtime::traces::Traces;
use crate::tenant::{Registry, Tenant};

pub mod adopt;
pub mod apply;
pub mod attempt;
pub mod budget;
pub mod cache;
pub mod catalog;
pub mod deletions;
pub mod dns_service;
pub mod drift;
pub mod engine;
pub mod explain;
pub mod exposed;
pub mod feeds;
pub mod guard;
pub mod hold;
pub mod host;
pub mod incoming;
pub mod index;
pub mod journeys;
pub mod kind;
pub mod kind_state;
pub mod kinds;
pub mod kubernetes_service;
pub mod ledger;
pub mod loss;
pub mod making;
pub mod mass_deletion;
pub mod metrics;
pub mod metrics_api;
mod pauses;
pub mod queue;
pub mod recover;
pub mod references;
pub mod routes;
pub mod service_address;
pub mod source;
pub mod stats;
pub mod store;
pub mod synthetic;
pub mod tell;
pub mod tenant;
pub mod tokens;
pub mod unsynced;
pub mod view;
pub mod worker;
pub mod world;

pub use catalog::Catalog;
pub use engine::{Running, Settings};
pub use stats::{Snapshot, Stats};
pub use synthetic::OwnPlace;
pub use tenant::Member;

/// How a tenant's API server is reached with the syncer's rights: a seam, so that tenants of a registry can be simulated.
pub type Backends = Arc<dyn Fn(&Tenant) -> SharedCluster + Send + Sync>;

/// With the client that the tenant was built with.
pub fn connected() -> Backends {
    Arc::new(|tenant| Arc::new(tenant.api.clone()))
}

/// What the syncer is made of.
#[derive(Clone)]
pub struct Parts {
    /// Its configuration.
    pub config: SyncerConfig,
    /// The kinds that are synced, by index.
    pub catalog: Catalog,
    /// Tenants, followed as they come and go.
    pub registry: Arc<Registry>,
    /// The host.
    pub host: SharedCluster,
    /// The tenants' API servers.
    pub backends: Backends,
    /// The clock of the process; tests bring their own.
    pub clock: Clock,
    /// Counters, kept over runs.
    pub stats: Arc<Stats>,
    /// What may be done on the host.
    pub access: Access,
    /// Where this process runs.
    pub own_place: OwnPlace,
    /// Whether host objects that vcluster made for the tenants are taken over.
    pub adopts: bool,
    /// Of pods.
    pub traces: Traces,
}

/// Syncs all tenants of the registry until the drain begins; then finishes the writes that run and returns. Dropping
/// the future stops at once, which is safe too. Run it under the lease only.
pub async fn run(parts: Parts, mut drain: Drain) {
    let Parts { config, catalog, registry, host, backends, clock, stats, access, own_place, adopts, traces } = parts;
    let mut changed = registry.subscribe();
    let settings = Settings { config: config.clone(), catalog, host, clock, stats, access, own_place, traces };
    let running = Running::start(settings).accounted(registry.memory());
    loop {
        changed.mark_unchanged();
        let members =
            registry.load().tenants().map(|tenant| member(tenant, backends(tenant), &config, adopts)).collect();
        running.set_members(members);
        tokio::select! {
            _ = drain.signaled() => break,
            alive = changed.changed() => if alive.is_err() { break },
        }
    }
    running.stop().await;
}

fn member(tenant: &Tenant, api: SharedCluster, config: &SyncerConfig, adopts: bool) -> Member {
    Member {
        view: kind::TenantView {
            translate_images: config.translate_images.clone(),
            node_selector: config.node_selector.clone(),
            ..tenant.view()
        },
        api,
        fingerprint: tenant.fingerprint.clone(),
        adopts,
        on_loss: tenant.on_loss,
        limits: tenant.limits,
        metrics_at_gateway: tenant.aggregator.as_ref().is_some_and(|who| who.asks_gateway),
    }
}
