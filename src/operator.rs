//! The operator: every VirtualCluster becomes a control plane, its PKI, Services and kubeconfig, and a status that
//! says what is being waited for.
//!
//! Runs on one replica (the Lease is the wiring's business); two at once do no harm, since ports are settled by age,
//! Secrets are written against the version that was read, and everything else is the same whoever writes it.
//! Finalizer-free: owner references clean the host namespace, `system_services::collect` Portico's own.

mod apply;
mod cidr;
mod cluster;
mod control_plane;
mod host;
mod kubeconfig;
mod listener;
mod pki;
mod ports;
mod reconcile;
mod rights;
mod schedule;
mod secret;
mod status;
mod system_services;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use http::HeaderMap;
use parking_lot::Mutex;
use serde_json::Value;

use crate::clock::Clock;
use crate::config::Config;
use crate::crd::VirtualCluster;
use crate::drain::Drain;
use crate::error::{Error, Kind, Result, Side};
use crate::names::TenantId;
use crate::operator::cluster::{Backends, Cluster, Context};
use crate::operator::host::Pending;
use crate::operator::ports::Ports;
use crate::operator::reconcile::Outcome;
use crate::operator::schedule::Schedule;
use crate::upstream::resources::VIRTUAL_CLUSTERS;
use crate::upstream::{ApiClient, ListOptions, Pool, Target, WatchEvent};

/// Clusters worked on at once.
const WORKERS: usize = 8;
/// Longest round over one cluster; a hanging call must not hold a worker for ever.
const LONGEST_ROUND: Duration = Duration::from_secs(60);
/// How often Services of vanished tenants are looked for, beside once after each deletion.
const COLLECT: Duration = Duration::from_secs(300);
const VERSION_DEADLINE: Duration = Duration::from_secs(5);

/// What the operator needs.
#[derive(Clone)]
pub struct Parts {
    /// All of it: gateway names, host, operator.
    pub config: Arc<Config>,
    /// The host API server.
    pub host: ApiClient,
    /// Time.
    pub clock: Clock,
}

/// Reconciles until the drain begins; rounds that have begun are finished.
pub async fn run(parts: Parts, drain: Drain) -> Result<()> {
    if parts.config.host.system_namespace.is_empty() {
        return Err(Error::own(Kind::Invalid, "host.systemNamespace is not known"));
    }
    let context = Arc::new(Context {
        config: Arc::clone(&parts.config),
        host: Arc::new(parts.host.clone()),
        backends: Arc::new(Asked { clock: parts.clock.clone() }),
        clock: parts.clock.clone(),
        ports: Ports::default(),
        service_cidr: Mutex::default(),
    });
    let mut operator = Operator { context, living: HashMap::new(), schedule: Schedule::default() };
    operator.run(&parts.host, drain).await
}

struct Operator {
    context: Arc<Context>,
    living: HashMap<TenantId, Cluster>,
    schedule: Schedule,
}

/// A round that runs: which cluster (and which of several of that name), and how it ended.
type Round = BoxFuture<'static, (TenantId, String, Outcome)>;

impl Operator {
    async fn run(&mut self, host: &ApiClient, mut drain: Drain) -> Result<()> {
        if let Err(error) = listener::ensure(&self.context).await {
            tracing::error!(%error, "the shared listener's certificate cannot be made");
        }
        let mut rounds: FuturesUnordered<Round> = FuturesUnordered::new();
        let outcome = loop {
            tokio::select! {
                outcome = self.follow(host, &mut rounds) => {
                    if let Err(error) = outcome {
                        break Err(error);
                    }
                }
                _ = drain.signaled() => break Ok(()),
            }
        };
        let deadline = drain.deadline().unwrap_or_else(|| self.context.clock.instant() + LONGEST_ROUND);
        let rest = async { while rounds.next().await.is_some() {} };
        if tokio::time::timeout_at(deadline, rest).await.is_err() {
            tracing::warn!("rounds were broken off; the next leader begins them again");
        }
        outcome
    }

    /// One list and the watch that follows it.
    async fn follow(&mut self, host: &ApiClient, rounds: &mut FuturesUnordered<Round>) -> Result<()> {
        let (items, version) = host.list(&VIRTUAL_CLUSTERS, None, &ListOptions::default()).await?;
        let mut seen = Vec::with_capacity(items.len());
        for item in items {
            seen.extend(self.applied(item));
        }
        let gone: Vec<TenantId> = self.living.keys().filter(|id| !seen.contains(id)).cloned().collect();
        for id in gone {
            self.deleted(&id);
        }
        self.schedule.collect_at(self.context.clock.instant());
        let mut watch = host.watch(&VIRTUAL_CLUSTERS, None, &ListOptions::default(), &version).await?;
        loop {
            self.start_due(rounds);
            tokio::select! {
                event = watch.next() => match event {
                    Ok(Some(event)) => self.event(event),
                    Ok(None) => return Ok(()),
                    Err(error) if error.kind() == Kind::Gone => return Ok(()),
                    Err(error) => return Err(error),
                },
                Some((id, uid, outcome)) = rounds.next(), if !rounds.is_empty() => self.ended(&id, &uid, outcome),
                () = tokio::time::sleep_until(self.schedule.next(WORKERS, self.context.clock.instant())) => {}
            }
            if self.schedule.take_collection(self.context.clock.instant(), COLLECT) {
                self.collect().await;
            }
        }
    }

    fn event(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Applied(bytes) => match serde_json::from_slice(&bytes) {
                Ok(object) => {
                    self.applied(object);
                }
                Err(error) => tracing::warn!(%error, "a watch event cannot be read"),
            },
            WatchEvent::Deleted(bytes) => {
                let object: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                if let Some(id) = TenantId::of(&object) {
                    self.deleted(&id);
                }
            }
            WatchEvent::Bookmark { .. } => {}
        }
    }

    /// Takes in a VirtualCluster. One that cannot be read or has an impossible name is reported and passed over.
    fn applied(&mut self, object: Value) -> Option<TenantId> {
        let created = object["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
        let parsed = serde_json::from_value::<VirtualCluster>(object)
            .map_err(|e| Error::client(Kind::Invalid, "a VirtualCluster cannot be read").because(e))
            .and_then(|object| Ok((Cluster::new(&object)?, object.metadata.deletion_timestamp.is_some())));
        let (cluster, is_deleting) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                tracing::warn!(%error, "a VirtualCluster is passed over");
                return None;
            }
        };
        let id = cluster.id.clone();
        self.context.ports.observe(&id, &cluster.uid, &created, cluster.status.port);
        if is_deleting {
            // Its port stays held until it is gone; nothing more is made for it.
            self.schedule.forget(&id);
            self.living.insert(id.clone(), cluster);
            return Some(id);
        }
        // Our own status writes come back as events; only a new spec or a successor is worth an immediate round.
        let is_news =
            self.living.get(&id).is_none_or(|old| old.generation != cluster.generation || old.uid != cluster.uid);
        self.living.insert(id.clone(), cluster);
        if is_news {
            self.schedule.now(&id, self.context.clock.instant());
        }
        Some(id)
    }

    fn deleted(&mut self, id: &TenantId) {
        self.living.remove(id);
        self.schedule.forget(id);
        self.context.ports.release(id);
        self.schedule.collect_at(self.context.clock.instant());
        tracing::info!(tenant = %id, "gone");
    }

    fn ended(&mut self, id: &TenantId, uid: &str, outcome: Outcome) {
        self.schedule.finished(id, self.context.clock.instant() + outcome.pause);
        // The watch shows the written status too, but perhaps only after the next round has begun.
        if let (Some(cluster), Some(status)) = (self.living.get_mut(id).filter(|c| c.uid == uid), outcome.status) {
            cluster.status = status;
        }
    }

    fn start_due(&mut self, rounds: &mut FuturesUnordered<Round>) {
        let now = self.context.clock.instant();
        while let Some((id, attempt)) = self.schedule.start(WORKERS, now) {
            let Some(cluster) = self.living.get(&id).cloned() else {
                self.schedule.forget(&id);
                continue;
            };
            let context = Arc::clone(&self.context);
            rounds.push(Box::pin(async move {
                let round = reconcile::reconcile(&context, &cluster, attempt);
                let outcome = tokio::time::timeout(LONGEST_ROUND, round).await.unwrap_or_else(|_| {
                    tracing::warn!(tenant = %cluster.id, "a round took too long and was given up");
                    Outcome { pause: Duration::from_secs(10), status: None }
                });
                (cluster.id, cluster.uid, outcome)
            }));
        }
    }

    async fn collect(&self) {
        let living: HashMap<TenantId, String> =
            self.living.iter().map(|(id, cluster)| (id.clone(), cluster.uid.clone())).collect();
        if let Err(error) = system_services::collect(&self.context, &living).await {
            tracing::warn!(%error, "Services of vanished tenants cannot be collected");
        }
        if let Err(error) = listener::ensure(&self.context).await {
            tracing::warn!(%error, "the shared listener's certificate cannot be checked");
        }
    }
}

/// Asks real backends.
struct Asked {
    clock: Clock,
}

impl Backends for Asked {
    fn version<'a>(&'a self, target: Target, identity: HeaderMap) -> Pending<'a, String> {
        Box::pin(async move {
            let pool = Arc::new(Pool::new(target, self.clock.clone()));
            let client = ApiClient::new(Arc::clone(&pool), identity);
            let answer = client.get_path("/version", VERSION_DEADLINE).await;
            pool.close();
            let answer: Value = serde_json::from_slice(&answer?)
                .map_err(|e| Error::new(Side::Backend, Kind::Protocol, "its version is no JSON").because(e))?;
            answer["gitVersion"]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| Error::new(Side::Backend, Kind::Protocol, "it names no version"))
        })
    }
}
