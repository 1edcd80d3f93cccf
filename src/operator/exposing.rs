//! When the policies of which cluster's Services are looked at: at each change of what is exposed, and now and then. Beside the
//! rounds, with workers of their own: a round may wait for much else.
//!
//! Promises: one step of a cluster at a time, a bounded number at once, the longest due first; one that changes without end has
//! a step a second and no more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::names::TenantId;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::networks::expose::{self, Stepped};
use crate::operator::schedule::Schedule;
use crate::runtime::task;

/// Steps at once.
const WORKERS: usize = 8;
/// Between two steps of one cluster.
const SPACING: Duration = Duration::from_secs(1);
/// Longest step, and until the next after one that was given up.
const LONGEST: Duration = Duration::from_secs(30);
const GIVEN_UP: Duration = Duration::from_secs(10);

/// A step that runs: which cluster, and how it ended.
pub(crate) type Step = BoxFuture<'static, (TenantId, Stepped)>;

/// Due times.
#[derive(Debug, Default)]
pub(crate) struct Exposing {
    schedule: Schedule,
    /// When the last step of a cluster ended.
    last: HashMap<TenantId, Instant>,
}

impl Exposing {
    /// Wants a cluster looked at.
    pub(crate) fn due(&mut self, id: &TenantId, now: Instant) {
        let due = self.last.get(id).map_or(now, |last| now.max(*last + SPACING));
        self.schedule.at(id, due);
    }

    /// The same for all whom news concern.
    pub(crate) fn take(
        &mut self,
        news: &BTreeSet<(String, Option<String>)>,
        living: &HashMap<TenantId, Cluster>,
        now: Instant,
    ) {
        for (namespace, name) in news {
            match name {
                Some(name) => {
                    let id = TenantId::parse(namespace, name).ok();
                    if let Some(id) = id.filter(|id| living.contains_key(id)) {
                        self.due(&id, now);
                    }
                }
                None => {
                    for id in living.keys().filter(|id| id.namespace().as_str() == namespace) {
                        self.due(id, now);
                    }
                }
            }
        }
    }

    /// Begins what is due.
    pub(crate) fn start_due(
        &mut self,
        context: &Arc<Context>,
        living: &HashMap<TenantId, Cluster>,
        steps: &mut FuturesUnordered<Step>,
    ) {
        let now = context.clock.instant();
        while let Some((id, attempt)) = self.schedule.start(WORKERS, now) {
            let Some(cluster) = living.get(&id).filter(|cluster| !cluster.is_leaving).cloned() else {
                self.forget(&id);
                self.schedule.finished(&id, now);
                continue;
            };
            let context = Arc::clone(context);
            steps.push(Box::pin(async move {
                let step = task::caught(expose::step(&context, &cluster, attempt).map(Ok));
                let late = |_| Err(Error::own(Kind::Timeout, "it took too long"));
                let stepped = tokio::time::timeout(LONGEST, step).await.unwrap_or_else(late);
                let stepped = stepped.unwrap_or_else(|error| {
                    tracing::warn!(tenant = %cluster.id, %error, "opening its Services was given up");
                    Stepped { pause: GIVEN_UP, is_news: false }
                });
                (cluster.id, stepped)
            }));
        }
    }

    /// A step ended, of a cluster that still lives.
    pub(crate) fn ended(&mut self, id: &TenantId, stepped: &Stepped, now: Instant) {
        self.last.insert(id.clone(), now);
        self.schedule.finished(id, now + stepped.pause.max(SPACING));
        // News that came while it ran were spaced from the step before.
        self.schedule.not_before(id, now + SPACING);
    }

    /// A step ended of one that is gone.
    pub(crate) fn ended_too_late(&mut self, id: &TenantId, now: Instant) {
        self.schedule.finished(id, now);
    }

    /// When to begin the next.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        self.schedule.next(WORKERS, false, now)
    }

    /// It is gone.
    pub(crate) fn forget(&mut self, id: &TenantId) {
        self.schedule.forget(id);
        self.last.remove(id);
    }
}
