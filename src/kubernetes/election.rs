//! Leader election by a Lease: at most one replica at a time runs a piece of work.
//!
//! Promises: the work's drain begins before any other replica may take the Lease (a leader that cannot renew gives up
//! at the renew deadline, others wait for the whole Lease); another replica's clock is never compared with ours, only
//! how long its record has stood unchanged; who leaves releases the Lease once the work has ended, while it still serves.
//! A [`Lock`] in a ConfigMap is for namespaces without a right to Leases.

mod config_map;
mod lease;
mod lock;
mod record;

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::error::{Kind, Result};
use crate::runtime::clock::Clock;
use crate::runtime::drain::{self, Drain};
use crate::runtime::task;

pub use lock::{Lock, Owners};
pub use record::{Candidate, Record, Timing};

/// What the work gets to end after leadership was lost: with the renew deadline, less than the Lease's duration.
const GRACE: Duration = Duration::from_secs(3);

/// Stands for the Lease until the process leaves; runs `work` whenever it is held. The [`Drain`] given to `work` begins
/// when leadership or the process ends; `work` is dropped if it outlasts it. Work that ends by itself gives the Lease
/// back for a moment and stands again.
pub async fn run<F, Fut>(lock: Lock, candidate: Candidate, clock: Clock, mut drain: Drain, work: F) -> Result<()>
where
    F: Fn(Drain) -> Fut + Send,
    Fut: Future<Output = Result<()>> + Send,
{
    let mut election = Election { lock, candidate, clock, seen: None, own: None };
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

struct Election {
    lock: Lock,
    candidate: Candidate,
    clock: Clock,
    /// Somebody's record and since when we have seen it unchanged.
    seen: Option<(Record, Instant)>,
    /// Our record and when the write that made it began.
    own: Option<(Record, Instant)>,
}

impl Election {
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
        let mut running = std::pin::pin!(task::caught(async { work(inner).await }));
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
        let found = self.lock.read(&self.candidate).await?;
        if !self.may_take(found.as_ref(), began) {
            return Ok(false);
        }
        let next = self.next(found);
        match self.lock.write(&self.candidate, &next).await {
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
        if let Ok(Err(error)) = tokio::time::timeout(GRACE, self.lock.write(&self.candidate, &released)).await {
            tracing::debug!(lease = self.candidate.lease, %error, "the Lease was not released");
        }
    }
}

fn micro_time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
mod tests;
