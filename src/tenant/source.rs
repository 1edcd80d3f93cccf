//! Fills the registry from VirtualClusters and their PKI Secrets on the host.
//!
//! Promises: a tenant that cannot be built is reported and tried again, and blocks no other: builds run beside each other
//! and beside the watch, each with a deadline; a tenant whose inputs did not change is not swapped; a VirtualCluster that
//! is gone or being deleted leaves the registry at once, and so does one whose end nobody heard of, with the next list.
//! All that must outlive a failure of this task is in the [`Registry`](crate::tenant::Registry): begun anew, it goes on from there.
//! PKI Secrets are read again every minute, so a rotated certificate is in force without a watch per namespace.

mod build;
mod parts;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use tokio::time::Instant;

pub use self::parts::Parts;
use super::follow::{self, Change};
use crate::crd::VirtualCluster;
use crate::error::{Error, Kind, Result};
use crate::names::TenantId;
use crate::names::claims::Claims;
use crate::runtime::drain::Drain;
use crate::runtime::task;
use crate::tenant::Tenant;

/// How often Secrets of known tenants are read again.
const REFRESH: Duration = Duration::from_secs(60);
/// How soon a tenant that could not be built is tried again, at first and at most.
const RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// However often a VirtualCluster changes, its Secrets are not read more often than this.
const FLOOR: Duration = Duration::from_millis(250);
/// Tenants that are built at once, each only once.
const BUILDS: usize = 16;
/// Longest build: two Secrets.
const BUILD_DEADLINE: Duration = Duration::from_secs(10);
/// How long, from the first list on, the first builds are waited for.
const FIRST_BUILDS: Duration = Duration::from_secs(30);
/// How long whoever holds a tenant may still begin requests on its connections when others have taken their place.
const GRACE: Duration = Duration::from_secs(60);
/// Nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// Follows the VirtualClusters until the drain begins. `listed` is called once, when every tenant of the first list was
/// built or tried, or was not within half a minute.
pub async fn run(parts: &Parts, mut drain: Drain, listed: impl Fn() + Send) -> Result<()> {
    let mut source = Source {
        parts: parts.clone(),
        claims: Claims::default(),
        known: HashMap::new(),
        building: HashSet::new(),
        first: First::Unlisted,
    };
    // This task may have begun anew: whom the registry serves is known.
    let served: Vec<TenantId> = parts.registry.load().tenants().map(|tenant| tenant.id.clone()).collect();
    let mut changes = Box::pin(follow::changes(Arc::clone(&parts.host), &served, parts.clock.clone()));
    let mut builds: Builds = FuturesUnordered::new();
    loop {
        source.start_due(&mut builds);
        if source.has_tried_all() {
            listed();
        }
        let wake = source.wake();
        tokio::select! {
            _ = drain.signaled() => return Ok(()),
            Some(change) = changes.next() => source.take(change),
            Some(built) = builds.next(), if !builds.is_empty() => source.built(built),
            () = tokio::time::sleep_until(wake) => {}
        }
    }
}

type Builds = FuturesUnordered<BoxFuture<'static, Built>>;

struct Source {
    parts: Parts,
    claims: Claims,
    known: HashMap<TenantId, Known>,
    building: HashSet<TenantId>,
    first: First,
}

/// Where the first list is.
enum First {
    Unlisted,
    /// These were not tried yet.
    Building(HashSet<TenantId>, Instant),
    Done,
}

struct Known {
    cluster: Arc<VirtualCluster>,
    due: Instant,
    begun: Option<Instant>,
    failures: u32,
    complaint: Option<String>,
}

/// How a build ended, and for which state of the VirtualCluster it holds.
struct Built {
    id: TenantId,
    cluster: Arc<VirtualCluster>,
    outcome: Result<Option<Arc<Tenant>>>,
}

impl Source {
    fn take(&mut self, change: Change) {
        match change {
            Change::Listed { live, gone } => self.listed(live, &gone),
            Change::Applied(object) => {
                if self.claims.apply(&object) {
                    self.own();
                }
                self.applied(object);
            }
            Change::Deleted(id) => {
                if self.claims.remove(&id) {
                    self.own();
                }
                self.deleted(&id);
            }
        }
    }

    fn listed(&mut self, items: Vec<Value>, gone: &[TenantId]) {
        self.claims.replace(&items);
        self.own();
        for id in gone {
            self.deleted(id);
        }
        for item in items {
            self.applied(item);
        }
        if matches!(self.first, First::Unlisted) {
            let until = self.parts.clock.instant() + FIRST_BUILDS;
            self.first = First::Building(self.known.keys().cloned().collect(), until);
        }
    }

    /// Who has what follows from all VirtualClusters, built or not.
    fn own(&self) {
        self.parts.registry.own(self.claims.owners(&self.parts.reserved));
    }

    /// Takes in a VirtualCluster; it is built when due. A malformed one is reported, and what was known of it stands.
    fn applied(&mut self, object: Value) {
        let Some(id) = TenantId::of(&object) else { return };
        let mut cluster: VirtualCluster = match serde_json::from_value(object) {
            Ok(cluster) => cluster,
            Err(error) => {
                tracing::warn!(tenant = %id, %error, "a VirtualCluster cannot be read");
                return;
            }
        };
        if cluster.metadata.deletion_timestamp.is_some() {
            self.deleted(&id);
            return;
        }
        let is_another = |tenant: &Arc<Tenant>| Some(tenant.uid.as_str()) != cluster.metadata.uid.as_deref();
        if self.parts.registry.load().by_id(&id).is_some_and(is_another) {
            // Its end was not heard of; the successor has nothing of it but the name.
            self.leave(&id);
        }
        cluster.metadata.managed_fields = None;
        if self.known.get(&id).is_some_and(|old| *old.cluster == cluster) {
            return;
        }
        let old = self.known.remove(&id);
        let now = self.parts.clock.instant();
        let begun = old.as_ref().and_then(|old| old.begun);
        let due = begun.map_or(now, |begun| now.max(begun + FLOOR));
        let complaint = old.and_then(|old| old.complaint);
        self.known.insert(id, Known { cluster: Arc::new(cluster), due, begun, failures: 0, complaint });
    }

    fn deleted(&mut self, id: &TenantId) {
        self.known.remove(id);
        self.tried(id);
        self.leave(id);
    }

    fn leave(&self, id: &TenantId) {
        if let Some(tenant) = self.parts.registry.load().by_id(id) {
            tenant.backend.pool.close();
            self.parts.registry.remove(id);
            tracing::info!(tenant = %id, "tenant left");
        }
    }

    /// Begins builds of the longest due, as many as may run.
    fn start_due(&mut self, builds: &mut Builds) {
        let now = self.parts.clock.instant();
        let mut due: Vec<(Instant, TenantId)> = self
            .known
            .iter()
            .filter(|(id, known)| known.due <= now && !self.building.contains(*id))
            .map(|(id, known)| (known.due, id.clone()))
            .collect();
        due.sort();
        let free = BUILDS.saturating_sub(self.building.len());
        for (_, id) in due.into_iter().take(free) {
            let Some(known) = self.known.get_mut(&id) else { continue };
            known.begun = Some(now);
            let (parts, cluster) = (self.parts.clone(), Arc::clone(&known.cluster));
            self.building.insert(id.clone());
            builds.push(Box::pin(build(parts, id, cluster)));
        }
    }

    /// The outcome counts for the state that it was built from only: if the VirtualCluster changed or went meanwhile, it is
    /// dropped, and the next build is due already.
    fn built(&mut self, Built { id, cluster, outcome }: Built) {
        self.building.remove(&id);
        self.tried(&id);
        let now = self.parts.clock.instant();
        let Some(known) = self.known.get_mut(&id) else { return };
        if !Arc::ptr_eq(&known.cluster, &cluster) {
            return;
        }
        match outcome {
            Ok(tenant) => {
                known.due = now + self.parts.clock.jitter(REFRESH);
                known.failures = 0;
                known.complaint = None;
                if let Some(tenant) = tenant {
                    self.serve(&tenant);
                }
            }
            Err(error) => {
                let wait = RETRY.saturating_mul(1 << known.failures.min(4)).min(LONGEST_RETRY);
                known.due = now + self.parts.clock.jitter(wait);
                known.failures += 1;
                let complaint = error.to_string();
                if known.complaint.as_ref() != Some(&complaint) {
                    tracing::info!(tenant = %id, %error, "tenant not served yet");
                    known.complaint = Some(complaint);
                }
            }
        }
    }

    fn serve(&self, tenant: &Arc<Tenant>) {
        let before = self.parts.registry.load();
        let refused = self.parts.registry.put(tenant);
        if !refused.is_empty() {
            tracing::warn!(tenant = %tenant.id, hosts = ?refused, "these hosts are reserved or another tenant's");
        }
        if let Some(old) = before.by_id(&tenant.id).filter(|old| !Arc::ptr_eq(&old.backend.pool, &tenant.backend.pool))
        {
            old.backend.pool.retire(GRACE);
        }
        tracing::info!(tenant = %tenant.id, generation = tenant.generation, "tenant served");
    }

    fn tried(&mut self, id: &TenantId) {
        if let First::Building(left, _) = &mut self.first {
            left.remove(id);
        }
    }

    /// True once.
    fn has_tried_all(&mut self) -> bool {
        let now = self.parts.clock.instant();
        let tried = matches!(&self.first, First::Building(left, until) if left.is_empty() || *until <= now);
        if tried {
            self.first = First::Done;
        }
        tried
    }

    /// When something is due that can be begun.
    fn wake(&self) -> Instant {
        let can_begin = self.building.len() < BUILDS;
        let idle = self.known.iter().filter(|(id, _)| can_begin && !self.building.contains(*id));
        let first = if let First::Building(_, until) = &self.first { Some(*until) } else { None };
        let due = idle.map(|(_, known)| known.due).chain(first).min();
        due.unwrap_or_else(|| self.parts.clock.instant() + IDLE)
    }
}

async fn build(parts: Parts, id: TenantId, cluster: Arc<VirtualCluster>) -> Built {
    let work = task::caught(build::tenant(&parts, &id, &cluster));
    let late = |_| Err(Error::host(Kind::Timeout, "its Secrets cannot be read in time"));
    let outcome = tokio::time::timeout(BUILD_DEADLINE, work).await.unwrap_or_else(late);
    Built { id, cluster, outcome }
}
