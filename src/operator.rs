//! The operator: every VirtualCluster becomes a control plane, its PKI, Services and kubeconfig, and a status that
//! says what is being waited for.
//!
//! Runs on one replica (the Lease is the wiring's business); two at once do no harm, since ports are settled by age,
//! Secrets are written against the version that was read, and everything else is the same whoever writes it.
//! Finalizer-free: owner references clean the host namespace (`orphans` where the host's garbage collector missed it),
//! `system_services::collect` Portico's own.

mod apply;
mod assign_port;
mod audited;
mod backends;
mod cidr;
mod cluster;
mod context;
mod control_plane;
mod credentials;
mod enforcement;
mod exposed;
mod exposing;
mod exposure;
mod halt;
mod host;
mod kubeconfig;
mod kubeconfigs;
mod listener;
mod networks;
mod orphans;
mod pki;
mod ports;
mod reconcile;
mod restored;
mod rights;
mod rollout;
mod schedule;
mod secret;
mod shown;
mod status;
mod storage;
mod store_fill;
mod sweeping;
mod system_services;
#[cfg(test)]
mod tests;
mod waves;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Fuse, FusedFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use serde_json::Value;

use crate::config::Config;
use crate::crd::VirtualCluster;
use crate::error::{Error, Kind, Result};
use crate::kubernetes::Reaches;
use crate::kubernetes::api::SharedCluster;
use crate::names::TenantId;
use crate::names::claims::{Age, Claims};
use crate::names::reserved::Reserved;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::exposing::{Exposing, Step};
use crate::operator::host::Host;
use crate::operator::networks::expose::Stepped;
use crate::operator::ports::Ports;
use crate::operator::reconcile::Outcome;
use crate::operator::schedule::Schedule;
use crate::operator::sweeping::{Sweep, Sweeping};
use crate::operator::waves::Waves;
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::runtime::task;
use crate::tenant::follow::{self, Change};

pub use backends::{Asked, Backends, Fill};
pub use shown::Shown;
#[cfg(test)]
pub(crate) use shown::example;

/// Clusters worked on at once.
const WORKERS: usize = 8;
/// Longest round over one cluster; a hanging call must not hold a worker for ever.
const LONGEST_ROUND: Duration = Duration::from_secs(60);
/// Until the next round after one that was given up.
const GIVEN_UP: Duration = Duration::from_secs(10);
/// Until the round behind a change of what may be said of its Services: one in so long, whatever a tenant does with them.
const AFTER_EXPOSING: Duration = Duration::from_secs(5);
/// How often Services of vanished tenants are looked for, beside once after each deletion.
const COLLECT: Duration = Duration::from_secs(300);

/// What the operator needs.
#[derive(Clone)]
pub struct Parts {
    /// All of it: gateway names, host, operator.
    pub config: Arc<Config>,
    /// The host API server.
    pub host: SharedCluster,
    /// What the control planes answer.
    pub backends: Arc<dyn Backends>,
    /// Where those of `distro: external` may lead to.
    pub reaches: Arc<Reaches>,
    /// The clock of the process; tests bring their own.
    pub clock: Clock,
    /// What becomes of it, for metrics.
    pub shown: Arc<Shown>,
}

/// Reconciles until the drain begins; rounds that have begun are finished.
pub async fn run(parts: Parts, drain: Drain) -> Result<()> {
    if parts.config.host.system_namespace.is_empty() {
        return Err(Error::own(Kind::Invalid, "host.systemNamespace is not known"));
    }
    let context = Arc::new(Context {
        config: Arc::clone(&parts.config),
        host: Host::new(parts.host),
        backends: parts.backends,
        clock: parts.clock.clone(),
        ports: Ports::default(),
        waves: Waves::default(),
        policies: parts.config.policies(),
        reserved: Arc::new(Reserved::new(&parts.config)),
        owners: Mutex::default(),
        service_cidr: Mutex::default(),
        reaches: parts.reaches,
        enforcement: enforcement::Verdicts::default(),
        exposure: exposure::Exposure::default(),
        exposed: exposed::Exposed::default(),
        shown: parts.shown,
    });
    let _shown = context.shown.begin();
    let mut operator = Operator::new(Arc::clone(&context));
    // Beside each other: neither waits for the other's work.
    tokio::join!(operator.run(drain.clone()), credentials::run(&context, drain)).0
}

struct Operator {
    context: Arc<Context>,
    claims: Claims,
    living: HashMap<TenantId, Cluster>,
    schedule: Schedule,
    exposing: Exposing,
    sweeping: Sweeping,
    /// Before that, who lives is not known.
    is_listed: bool,
}

/// A round that runs: which cluster (and which of several of that name), and how it ended.
type Round = BoxFuture<'static, (TenantId, String, Outcome)>;

impl Operator {
    fn new(context: Arc<Context>) -> Self {
        let (claims, schedule) = (Claims::default(), Schedule::default());
        let (exposing, sweeping) = (Exposing::default(), Sweeping::default());
        Self { context, claims, living: HashMap::new(), schedule, exposing, sweeping, is_listed: false }
    }

    /// Who lives, and which ports are given out, is kept until the end, whatever becomes of a watch.
    async fn run(&mut self, mut drain: Drain) -> Result<()> {
        if let Err(error) = listener::ensure(&self.context).await {
            tracing::error!(%error, "the shared listener's certificate cannot be made");
        }
        let mut rounds: FuturesUnordered<Round> = FuturesUnordered::new();
        let mut steps: FuturesUnordered<Step> = FuturesUnordered::new();
        let mut sweeps: FuturesUnordered<Sweep> = FuturesUnordered::new();
        let mut changes =
            Box::pin(follow::changes(Arc::clone(self.context.host.cluster()), &[], self.context.clock.clone()));
        let mut collection: Fuse<BoxFuture<'static, BTreeSet<TenantId>>> = Fuse::terminated();
        loop {
            self.start_due(&mut rounds);
            self.exposing.start_due(&self.context, &self.living, &mut steps);
            if self.is_listed {
                self.sweeping.start_due(&self.context, &self.living, &mut sweeps);
            }
            // One that is due while another runs wakes nobody: the loop would spin until that one ends.
            let can_collect = self.is_listed && collection.is_terminated();
            let now = self.context.clock.instant();
            let wake = self.exposing.next(now).min(self.sweeping.next(now));
            let wake = self.schedule.next(WORKERS, can_collect, now).min(wake);
            tokio::select! {
                Some(change) = changes.next() => self.take(change),
                news = self.context.exposure.news() => self.exposing.take(&news, &self.living, now),
                Some((id, stepped)) = steps.next(), if !steps.is_empty() => self.stepped(&id, &stepped),
                Some((id, uid, outcome)) = rounds.next(), if !rounds.is_empty() => self.ended(&id, &uid, outcome),
                Some(ended) = sweeps.next(), if !sweeps.is_empty() => self.sweeping.ended(ended, now),
                gone = &mut collection, if !collection.is_terminated() => self.sweeping.gone(&gone, now),
                () = tokio::time::sleep_until(wake) => {}
                _ = drain.signaled() => break,
            }
            let now = self.context.clock.instant();
            if self.is_listed && collection.is_terminated() && self.schedule.take_collection(now, COLLECT) {
                collection = self.collect().fuse();
            }
        }
        let deadline = drain.deadline().unwrap_or_else(|| self.context.clock.instant() + LONGEST_ROUND);
        let rest = async { tokio::join!(ended(rounds), ended(steps)) };
        if tokio::time::timeout_at(deadline, rest).await.is_err() {
            tracing::warn!("rounds were broken off; the next leader begins them again");
        }
        Ok(())
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Listed { live, gone } => {
                if self.claims.replace(&live) {
                    self.own();
                }
                for id in gone {
                    self.deleted(&id);
                }
                for item in live {
                    self.applied(item);
                }
                self.is_listed = true;
                self.schedule.collect_at(self.context.clock.instant());
                self.follow_exposure();
            }
            Change::Applied(object) => {
                if self.claims.apply(&object) {
                    self.own();
                }
                self.applied(object);
                self.follow_exposure();
            }
            Change::Deleted(id) => {
                if self.claims.remove(&id) {
                    self.own();
                }
                self.deleted(&id);
                self.follow_exposure();
            }
        }
    }

    /// In the namespaces of all that live.
    fn follow_exposure(&self) {
        let is_wanted = self.context.config.networks.enabled;
        let all = self.living.values().filter(|_| is_wanted).map(Cluster::namespace).collect();
        self.context.exposure.keep(&self.context.host, &self.context.clock, &all);
    }

    /// Who has which name follows from all VirtualClusters; for whom that changes something, a round is due.
    fn own(&mut self) {
        let now = Arc::new(self.claims.owners(&self.context.reserved));
        let before = std::mem::replace(&mut *self.context.owners.lock(), Arc::clone(&now));
        for id in self.claims.affected(&before, &now) {
            if self.living.contains_key(&id) {
                self.schedule.now(&id, self.context.clock.instant());
            }
        }
    }

    /// Takes in a VirtualCluster. One that cannot be read or has an impossible name is reported and passed over; what was
    /// known of it stands.
    fn applied(&mut self, object: Value) {
        let age = Age::of(&object);
        let parsed = serde_json::from_value::<VirtualCluster>(object)
            .map_err(|e| Error::client(Kind::Invalid, "a VirtualCluster cannot be read").because(e))
            .and_then(|object| Cluster::new(&object));
        let cluster = match parsed {
            Ok(cluster) => cluster,
            Err(error) => {
                tracing::warn!(%error, "a VirtualCluster is passed over");
                return;
            }
        };
        let (id, uid) = (cluster.id.clone(), cluster.uid.clone());
        if let Some(age) = age {
            self.context.ports.observe(&age, cluster.status.port);
        }
        if cluster.is_leaving {
            // Its port stays held until it is gone; nothing more is made for it.
            self.schedule.forget(&id);
            self.exposing.forget(&id);
            self.context.shown.forget(&id);
            self.context.waves.release(&id);
            self.living.insert(id, cluster);
            return;
        }
        self.context.waves.observe(&cluster, &self.context.config.operator.rollout, self.context.clock.now());
        // Our own status writes come back as events; only a new spec, a push, a successor or the syncer's word of a hold is
        // worth an immediate round.
        let is_news = self.living.get(&id).is_none_or(|old| {
            old.generation != cluster.generation
                || old.uid != cluster.uid
                || old.is_pushed != cluster.is_pushed
                || old.status.hold != cluster.status.hold
        });
        self.context.shown.set(&cluster);
        if self.living.insert(id.clone(), cluster).is_some_and(|old| old.uid != uid) {
            self.sweeping.gone([&id], self.context.clock.instant());
        }
        if is_news {
            self.schedule.now(&id, self.context.clock.instant());
            self.exposing.due(&id, self.context.clock.instant());
        }
    }

    fn deleted(&mut self, id: &TenantId) {
        self.living.remove(id);
        self.schedule.forget(id);
        self.exposing.forget(id);
        self.context.exposed.forget(id);
        self.context.shown.forget(id);
        self.context.ports.release(id);
        self.context.waves.release(id);
        let now = self.context.clock.instant();
        self.schedule.collect_at(now);
        self.sweeping.gone([id], now);
        tracing::info!(tenant = %id, "gone");
    }

    fn ended(&mut self, id: &TenantId, uid: &str, outcome: Outcome) {
        self.schedule.finished(id, self.context.clock.instant() + outcome.pause);
        // The watch shows the written status too, but perhaps only after the next round has begun.
        if let (Some(cluster), Some(status)) = (self.living.get_mut(id).filter(|c| c.uid == uid), outcome.status) {
            cluster.status = status;
            if !cluster.is_leaving {
                self.context.shown.set(cluster);
            }
        }
    }

    fn stepped(&mut self, id: &TenantId, stepped: &Stepped) {
        let now = self.context.clock.instant();
        if !self.living.contains_key(id) {
            self.exposing.ended_too_late(id, now);
            self.context.exposed.forget(id);
            return;
        }
        self.exposing.ended(id, stepped, now);
        if stepped.is_news {
            // The condition says it, and what was open before the Services' policies were there is closed. Not at once: what it
            // says may change with each of a tenant's Services.
            self.schedule.at(id, now + AFTER_EXPOSING);
        }
    }

    fn start_due(&mut self, rounds: &mut FuturesUnordered<Round>) {
        let now = self.context.clock.instant();
        for id in self.context.waves.next(&self.context.config.operator.rollout) {
            self.schedule.now(&id, now);
        }
        while let Some((id, attempt)) = self.schedule.start(WORKERS, now) {
            // News of one that leaves may have made it due once more.
            let Some(cluster) = self.living.get(&id).filter(|cluster| !cluster.is_leaving).cloned() else {
                self.schedule.forget(&id);
                self.schedule.finished(&id, now);
                continue;
            };
            let context = Arc::clone(&self.context);
            rounds.push(Box::pin(async move {
                let round = task::caught(reconcile::reconcile(&context, &cluster, attempt).map(Ok));
                let late = |_| Err(Error::own(Kind::Timeout, "it took too long"));
                let outcome = tokio::time::timeout(LONGEST_ROUND, round).await.unwrap_or_else(late);
                let outcome = outcome.unwrap_or_else(|error| {
                    tracing::warn!(tenant = %cluster.id, %error, "a round was given up");
                    Outcome { pause: GIVEN_UP, status: None }
                });
                (cluster.id, cluster.uid, outcome)
            }));
        }
    }

    /// Beside the rounds: a call that hangs holds up nothing. Yields who is gone without having been seen to go.
    fn collect(&self) -> BoxFuture<'static, BTreeSet<TenantId>> {
        let living: HashMap<TenantId, String> =
            self.living.iter().map(|(id, cluster)| (id.clone(), cluster.uid.clone())).collect();
        let context = Arc::clone(&self.context);
        Box::pin(async move {
            let mut gone = BTreeSet::new();
            let work = async {
                if let Err(error) = system_services::collect(&context, &living, &mut gone).await {
                    tracing::warn!(%error, "Services of vanished tenants cannot be collected");
                }
                if let Err(error) = listener::ensure(&context).await {
                    tracing::warn!(%error, "the shared listener's certificate cannot be checked");
                }
                Ok(())
            };
            let late = |_| Err(Error::own(Kind::Timeout, "it took too long"));
            if let Err(error) = tokio::time::timeout(LONGEST_ROUND, task::caught(work)).await.unwrap_or_else(late) {
                tracing::warn!(%error, "collecting was given up");
            }
            gone
        })
    }
}

async fn ended(work: FuturesUnordered<impl Future>) {
    let mut work = std::pin::pin!(work);
    while work.next().await.is_some() {}
}
