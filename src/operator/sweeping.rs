//! When which host namespace is swept of [orphans](crate::operator::orphans): all of one where a VirtualCluster went, a moment later,
//! so that the host's garbage collector comes first; and one after the other where some live, a kind at a time.
//!
//! Promises: one sweep at a time; an idle fleet costs a list of metadata for each namespace in ten minutes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::names::TenantId;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::orphans::{self, KINDS, Left, Living, Swept};
use crate::runtime::task;

/// How often each namespace is visited, each time for another kind.
const EVERY: Duration = Duration::from_secs(600);
/// What the host's garbage collector has for a VirtualCluster that went; and until what a bound cut is gone on with.
const GRACE: Duration = Duration::from_secs(60);
/// Longest sweep.
const LONGEST: Duration = Duration::from_secs(60);

/// A sweep that runs.
pub(crate) type Sweep = BoxFuture<'static, Ended>;

/// How one ended.
#[derive(Debug)]
pub(crate) struct Ended {
    namespace: String,
    is_of_all: bool,
    gone: BTreeSet<String>,
    swept: Result<Swept>,
}

#[derive(Debug)]
struct Due {
    at: Instant,
    /// Who went: another of the name may live.
    names: BTreeSet<String>,
}

/// Due times.
#[derive(Debug, Default)]
pub(crate) struct Sweeping {
    /// Namespaces that are swept of all kinds: of VirtualClusters that went.
    due: BTreeMap<String, Due>,
    /// When the next namespace is visited.
    visit: Option<Instant>,
    /// Which was the last.
    visited: String,
    /// How often all were.
    rounds: usize,
    is_running: bool,
}

impl Sweeping {
    /// These went.
    pub(crate) fn gone<'a>(&mut self, ids: impl IntoIterator<Item = &'a TenantId>, now: Instant) {
        for id in ids {
            self.due_at(id.namespace().as_str(), now + GRACE).names.insert(id.name().as_str().to_owned());
        }
    }

    /// Begins what is due, now that it is known who lives.
    pub(crate) fn start_due(
        &mut self,
        context: &Arc<Context>,
        living: &HashMap<TenantId, Cluster>,
        sweeps: &mut FuturesUnordered<Sweep>,
    ) {
        if self.is_running {
            return;
        }
        let now = context.clock.instant();
        let gone = self.due.iter().find(|(_, due)| due.at <= now).map(|(namespace, _)| namespace.clone());
        let (namespace, kinds, gone): (String, &'static [Left], _) = if let Some(namespace) = gone {
            let due = self.due.remove(&namespace);
            (namespace, &KINDS, due.map(|due| due.names).unwrap_or_default())
        } else {
            let Some(namespace) = self.visit(context, living, now) else { return };
            let kind = self.rounds % KINDS.len();
            (namespace, &KINDS[kind..=kind], BTreeSet::new())
        };
        self.is_running = true;
        let of_namespace = || living.values().filter(|cluster| cluster.namespace() == namespace);
        let names = of_namespace().map(|cluster| cluster.name().to_owned()).filter(|name| !gone.contains(name));
        let uids = of_namespace().map(|cluster| cluster.uid.clone()).collect();
        let living = Living { uids, names: names.collect() };
        let context = Arc::clone(context);
        sweeps.push(Box::pin(async move {
            let sweep = task::caught(orphans::sweep(&context, &namespace, kinds, &living).boxed());
            let late = |_| Err(Error::own(Kind::Timeout, "it took too long"));
            let swept = tokio::time::timeout(LONGEST, sweep).await.unwrap_or_else(late);
            Ended { namespace, is_of_all: kinds.len() == KINDS.len(), gone, swept }
        }));
    }

    /// A sweep ended.
    pub(crate) fn ended(&mut self, ended: Ended, now: Instant) {
        self.is_running = false;
        let again = match ended.swept {
            // Where there is one, the others are most likely.
            Ok(swept) => (swept.is_cut || (swept.deleted > 0 && !ended.is_of_all)).then_some(GRACE),
            Err(error) => {
                tracing::debug!(namespace = ended.namespace, %error, "what is left of the gone cannot be looked for");
                ended.is_of_all.then_some(EVERY)
            }
        };
        if let Some(again) = again {
            self.due_at(&ended.namespace, now + again).names.extend(ended.gone);
        }
    }

    /// When to begin the next.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        let all = self.due.values().map(|due| due.at).chain(self.visit);
        all.min().filter(|_| !self.is_running).unwrap_or(now + EVERY)
    }

    fn due_at(&mut self, namespace: &str, at: Instant) -> &mut Due {
        let due = || Due { at, names: BTreeSet::new() };
        self.due.entry(namespace.to_owned()).or_insert_with(due)
    }

    /// The namespace whose turn it is, if it is its time.
    fn visit(&mut self, context: &Context, living: &HashMap<TenantId, Cluster>, now: Instant) -> Option<String> {
        let is_time = self.visit.is_some_and(|at| at <= now);
        if self.visit.is_some() && !is_time {
            return None;
        }
        let all: BTreeSet<&str> = living.values().map(Cluster::namespace).collect();
        let turns = u32::try_from(all.len()).unwrap_or(u32::MAX).max(1);
        self.visit = Some(now + context.clock.jitter(EVERY / turns));
        let mut behind = all.range::<str, _>((Bound::Excluded(self.visited.as_str()), Bound::Unbounded));
        // A new leader does not begin at once: each would begin with the same ones.
        if !is_time {
            return None;
        }
        let next = match behind.next() {
            Some(next) => *next,
            None => {
                let first = all.first()?;
                self.rounds = self.rounds.wrapping_add(1);
                first
            }
        };
        self.visited = next.to_owned();
        self.visited.clone().into()
    }
}
