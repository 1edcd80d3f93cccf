//! Which store a tenant's API server has: known by the uid of its Namespace `kube-system`, and believed or not.
//!
//! Promises: what another store says is not believed. What happens then, [`loss`](super::loss) knows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::kubernetes::api::Cluster;
use crate::kubernetes::resources::NAMESPACES;
use crate::runtime::clock::Clock;
use crate::syncer::cache::text;

/// So old may the last look at the store be when something is deleted on the host. A control plane takes longer to come
/// back, and deletions come in bursts.
pub(super) const RECENT: Duration = Duration::from_secs(1);
/// Whether what a tenant's API server says is believed.
#[derive(Debug, Default)]
pub struct StoreGuard {
    known: Mutex<Known>,
    /// Grows when another store is accepted: all lists are made again.
    epoch: AtomicU64,
    /// How often it was doubted: a doubt may be over before whoever follows the belief has seen it.
    doubts: AtomicU64,
    pub(super) belief: watch::Sender<Belief>,
}

/// What is thought of the store that answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Belief {
    /// It is the known one.
    #[default]
    Known,
    /// Another server may answer by now: nobody has looked yet.
    Doubted,
    /// It is another one, of this uid.
    Foreign(String),
}

#[derive(Debug, Default)]
struct Known {
    uid: String,
    looked: Option<Instant>,
}

impl StoreGuard {
    /// Whether the store is known and the known one answers, as far as anybody has looked.
    pub fn is_believed(&self) -> bool {
        *self.belief.borrow() == Belief::Known && !self.known.lock().uid.is_empty()
    }

    /// Which acceptance of a store this is.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Asks the server which store it has. An error of kind `Conflict` when it is not the known one; nothing that it said
    /// just before or says next may be used then.
    pub async fn check(&self, cluster: &dyn Cluster, clock: &Clock) -> Result<()> {
        let doubts = self.doubts();
        let uid = uid_of(cluster).await?;
        let mut known = self.known.lock();
        if uid == known.uid {
            // An answer from before a doubt says nothing of the server that is doubted.
            if doubts == self.doubts() {
                known.looked = Some(clock.instant());
            }
            drop(known);
            self.belief.send_if_modified(|belief| {
                let doubted = *belief == Belief::Doubted && doubts == self.doubts();
                if doubted {
                    *belief = Belief::Known;
                }
                doubted
            });
            return Ok(());
        }
        known.looked = None;
        drop(known);
        self.found(uid);
        Err(Error::backend(Kind::Conflict, "the API server has another store than the one that is known"))
    }

    /// As [`Self::check`], unless somebody looked a moment ago.
    pub async fn check_recent(&self, cluster: &dyn Cluster, clock: &Clock) -> Result<()> {
        let looked = self.known.lock().looked;
        if looked.is_some_and(|at| clock.instant().duration_since(at) < RECENT) && self.is_believed() {
            return Ok(());
        }
        self.check(cluster, clock).await
    }

    /// Resolves when the known store, or a newly accepted one, is believed.
    pub async fn until_believed(&self) {
        let mut belief = self.belief.subscribe();
        // The sender lives as long as we do.
        let _ = belief.wait_for(|belief| *belief == Belief::Known).await;
    }

    /// Another server may answer from now on: nothing of it counts before its store has been looked at.
    pub fn doubt(&self) {
        self.known.lock().looked = None;
        self.belief.send_if_modified(|belief| {
            let known = *belief == Belief::Known;
            // Counted under the lock of the belief, so that whoever holds it reads both of one moment.
            self.doubts.fetch_add(1, Ordering::AcqRel);
            if known {
                *belief = Belief::Doubted;
            }
            known
        });
    }

    /// How often it was doubted. What was looked at meanwhile was laid aside.
    pub(super) fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Acquire)
    }

    pub(super) fn uid(&self) -> String {
        self.known.lock().uid.clone()
    }

    pub(super) fn found(&self, uid: String) {
        self.belief.send_if_modified(|belief| {
            let found = Belief::Foreign(uid);
            let is_news = *belief != found;
            *belief = found;
            is_news
        });
    }

    /// This store is the one to believe.
    pub(super) fn accept(&self, uid: &str) {
        let mut known = self.known.lock();
        if !known.uid.is_empty() && known.uid != uid {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        uid.clone_into(&mut known.uid);
        known.looked = None;
        drop(known);
        self.belief.send_replace(Belief::Known);
    }
}

/// uid of the store behind an API server.
pub(super) async fn uid_of(cluster: &dyn Cluster) -> Result<String> {
    let namespace = cluster.get(&NAMESPACES, None, "kube-system").await?;
    let uid = namespace.as_ref().map(|namespace| text(namespace, "uid")).unwrap_or_default();
    if uid.is_empty() {
        // An API server makes it within its first seconds; before that, an empty store proves nothing.
        return Err(Error::backend(Kind::Unavailable, "the API server has no Namespace kube-system yet"));
    }
    Ok(uid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Side;
    use crate::kubernetes::testing::{Faults, Server};

    #[tokio::test(start_paused = true)]
    async fn an_answer_from_before_a_doubt_ends_none() {
        let faults = Faults::new(7);
        faults.stop();
        let (server, clock) = (Server::new("a", Side::Backend, faults), Clock::system());
        let guard = StoreGuard::default();
        guard.accept(&uid_of(&server).await.expect("there"));
        guard.doubt();
        let mut asked = Box::pin(guard.check(&server, &clock));
        assert!(futures::poll!(&mut asked).is_pending(), "it takes a moment");
        guard.doubt();
        asked.await.expect("the known store");
        assert!(!guard.is_believed(), "it was another server's answer, for all that anybody knows");
        guard.check(&server, &clock).await.expect("the known store");
        assert!(guard.is_believed());
    }
}
