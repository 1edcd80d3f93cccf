//! Leader election by a Lease: at most one replica at a time runs a piece of work.
//!
//! Promises: the work's drain begins before any other replica may take the Lease (a leader that cannot renew gives up
//! at the renew deadline, others wait for the whole Lease); another replica's clock is never compared with ours, only
//! how long its record has stood unchanged; who leaves releases the Lease once the work has ended, while it still serves.
//! [`ConfigMapLock`] is for namespaces without a right to Leases.

mod config_map;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::kubernetes::ApiClient;
use crate::kubernetes::resources::LEASES;
use crate::runtime::clock::Clock;
use crate::runtime::drain::{self, Drain};

pub use config_map::ConfigMapLock;

/// What the work gets to end after leadership was lost: with the renew deadline, less than the Lease's duration.
const GRACE: Duration = Duration::from_secs(3);

/// The times of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A Lease that stood unchanged for this long may be taken.
    pub duration: Duration,
    /// A leader that could not renew for this long gives up.
    pub renew_deadline: Duration,
    /// Pause between tries.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { duration: seconds(15), renew_deadline: seconds(10), retry: seconds(2) }
    }
}

/// Who stands for what.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Name of the Lease.
    pub lease: String,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Unique per process: the pod's name.
    pub identity: String,
    /// Name of a pod that can exist only once at a time (a StatefulSet's): a holder that begins with it and `-` or `_` is
    /// an earlier process of that pod, which has ended. Empty: no such promise.
    pub once: String,
    /// How long everything takes.
    pub timing: Timing,
}

impl Candidate {
    fn is_former_self(&self, holder: &str) -> bool {
        let rest = (!self.once.is_empty()).then(|| holder.strip_prefix(self.once.as_str())).flatten();
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
    }
}

/// What is written in a Lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Empty when released.
    pub holder: String,
    /// Changes with every renewal.
    pub renewed: String,
    /// When the holder came in.
    pub acquired: String,
    /// How many times the holder changed.
    pub transitions: i64,
    /// For the conditional write; empty when there is no Lease yet.
    pub version: String,
}

/// Where Leases are: a seam for tests.
pub trait LeaseStore: Send + Sync {
    /// The Lease, if there is one.
    fn read(&self, candidate: &Candidate) -> impl Future<Output = Result<Option<Record>>> + Send;
    /// Creates it (no version) or replaces exactly that version; yields the new version. `Conflict` or
    /// `AlreadyExists` when somebody else was faster.
    fn write(&self, candidate: &Candidate, record: &Record) -> impl Future<Output = Result<String>> + Send;
}

/// Stands for the Lease until the process leaves; runs `work` whenever it is held. The [`Drain`] given to `work` begins
/// when leadership or the process ends; `work` is dropped if it outlasts it. Work that ends by itself gives the Lease
/// back for a moment and stands again.
pub async fn run<S, F, Fut>(store: S, candidate: Candidate, clock: Clock, mut drain: Drain, work: F) -> Result<()>
where
    S: LeaseStore,
    F: Fn(Drain) -> Fut + Send,
    Fut: Future<Output = Result<()>> + Send,
{
    let mut election = Election { store: Arc::new(store), candidate, clock, seen: None, own: None };
    while !drain.is_leaving() {
        tokio::select! {
            () = election.win() => {}
            _ = drain.leaving() => break,
        }
        tracing::info!(lease = election.candidate.lease, "leading");
        election.lead(&work, &mut drain).await;
        tracing::info!(lease = election.candidate.lease, "no longer leading");
    }
    election.release().await;
    Ok(())
}

struct Election<S> {
    store: Arc<S>,
    candidate: Candidate,
    clock: Clock,
    /// Somebody's record and since when we have seen it unchanged.
    seen: Option<(Record, Instant)>,
    /// Our record and when the write that made it began.
    own: Option<(Record, Instant)>,
}

impl<S: LeaseStore> Election<S> {
    /// Returns when the Lease is ours.
    async fn win(&mut self) {
        loop {
            match tokio::time::timeout(self.candidate.timing.renew_deadline, self.take_or_renew()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(lease = self.candidate.lease, %error, "the Lease cannot be read"),
                Err(_) => tracing::warn!(lease = self.candidate.lease, "the Lease cannot be read in time"),
            }
            tokio::time::sleep(self.clock.jitter(self.candidate.timing.retry)).await;
        }
    }

    /// Runs the work while renewing; returns when leadership, the process or the work has ended.
    async fn lead<F, Fut>(&mut self, work: &F, drain: &mut Drain)
    where
        F: Fn(Drain) -> Fut + Send,
        Fut: Future<Output = Result<()>> + Send,
    {
        let (trigger, inner) = drain::channel();
        // A panic of the work must not end the standing for the Lease.
        let panicked = |_| Err(Error::own(Kind::Internal, "it panicked"));
        let guarded = AssertUnwindSafe(work(inner)).catch_unwind();
        let mut running = std::pin::pin!(guarded.map(|ended| ended.unwrap_or_else(panicked)));
        let grace = tokio::select! {
            outcome = &mut running => {
                if let Err(error) = outcome {
                    tracing::warn!(lease = self.candidate.lease, %error, "the work of the leader failed");
                }
                self.release().await;
                tokio::select! {
                    () = tokio::time::sleep(self.clock.jitter(self.candidate.timing.retry)) => {}
                    _ = drain.leaving() => {}
                }
                return;
            }
            () = self.renew() => {
                self.own = None;
                GRACE
            }
            _ = drain.leaving() => drain.deadline().map_or(GRACE, |end| {
                end.saturating_duration_since(self.clock.instant()).min(GRACE)
            }),
        };
        trigger.start(grace);
        if tokio::time::timeout(grace, running).await.is_err() {
            tracing::warn!(lease = self.candidate.lease, "the work did not end in time and is broken off");
        }
    }

    /// Renews until it is lost or could not be renewed for too long.
    async fn renew(&mut self) {
        loop {
            tokio::time::sleep(self.clock.jitter(self.candidate.timing.retry)).await;
            let Some((_, since)) = &self.own else { return };
            let deadline = *since + self.candidate.timing.renew_deadline;
            match tokio::time::timeout_at(deadline, self.take_or_renew()).await {
                Ok(Ok(true)) => continue,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(lease = self.candidate.lease, %error, "the Lease cannot be renewed"),
                Err(_) => return,
            }
            if self.clock.instant() + self.candidate.timing.retry >= deadline {
                tokio::time::sleep_until(deadline).await;
                return;
            }
        }
    }

    /// One try: whether the Lease is ours now.
    async fn take_or_renew(&mut self) -> Result<bool> {
        let began = self.clock.instant();
        let found = self.store.read(&self.candidate).await?;
        if !self.may_take(found.as_ref(), began) {
            return Ok(false);
        }
        let next = self.next(found);
        match self.store.write(&self.candidate, &next).await {
            Ok(version) => {
                self.own = Some((Record { version, ..next }, began));
                Ok(true)
            }
            Err(error) if matches!(error.kind(), Kind::Conflict | Kind::AlreadyExists) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn may_take(&mut self, found: Option<&Record>, now: Instant) -> bool {
        let Some(found) = found else { return true };
        if found.holder.is_empty()
            || found.holder == self.candidate.identity
            || self.candidate.is_former_self(&found.holder)
        {
            return true;
        }
        match &self.seen {
            Some((seen, since)) if seen.holder == found.holder && seen.renewed == found.renewed => {
                now.saturating_duration_since(*since) >= self.candidate.timing.duration
            }
            _ => {
                self.seen = Some((found.clone(), now));
                false
            }
        }
    }

    fn next(&self, found: Option<Record>) -> Record {
        let now = micro_time(self.clock.now());
        let is_first = found.is_none();
        let found = found.unwrap_or_default();
        let is_mine = found.holder == self.candidate.identity;
        Record {
            holder: self.candidate.identity.clone(),
            renewed: now.clone(),
            acquired: if is_mine { found.acquired } else { now },
            transitions: found.transitions + i64::from(!is_mine && !is_first),
            version: found.version,
        }
    }

    /// Gives the Lease back, if it is still exactly ours, so that another replica need not wait.
    async fn release(&mut self) {
        let Some((own, _)) = self.own.take() else { return };
        let released = Record { holder: String::new(), renewed: micro_time(self.clock.now()), ..own };
        if let Ok(Err(error)) = tokio::time::timeout(GRACE, self.store.write(&self.candidate, &released)).await {
            tracing::debug!(lease = self.candidate.lease, %error, "the Lease was not released");
        }
    }
}

fn micro_time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Leases on the host API server.
impl LeaseStore for ApiClient {
    async fn read(&self, candidate: &Candidate) -> Result<Option<Record>> {
        let found = self.get(&LEASES, Some(&candidate.namespace), &candidate.lease).await?;
        Ok(found.map(|lease| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            Record {
                holder: text(&lease["spec"]["holderIdentity"]),
                renewed: text(&lease["spec"]["renewTime"]),
                acquired: text(&lease["spec"]["acquireTime"]),
                transitions: lease["spec"]["leaseTransitions"].as_i64().unwrap_or_default(),
                version: text(&lease["metadata"]["resourceVersion"]),
            }
        }))
    }

    async fn write(&self, candidate: &Candidate, record: &Record) -> Result<String> {
        let optional = |text: &str| if text.is_empty() { Value::Null } else { Value::from(text) };
        let mut lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": candidate.lease, "namespace": candidate.namespace},
            "spec": {
                "holderIdentity": record.holder,
                "leaseDurationSeconds": candidate.timing.duration.as_secs(),
                "acquireTime": optional(&record.acquired),
                "renewTime": optional(&record.renewed),
                "leaseTransitions": record.transitions,
            },
        });
        let namespace = Some(candidate.namespace.as_str());
        let written = if record.version.is_empty() {
            self.create(&LEASES, namespace, &lease).await?
        } else {
            lease["metadata"]["resourceVersion"] = record.version.as_str().into();
            self.replace(&LEASES, namespace, &candidate.lease, "", &lease).await?
        };
        written["metadata"]["resourceVersion"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::host(Kind::Protocol, "a Lease came back without a version"))
    }
}

#[cfg(test)]
mod tests;
