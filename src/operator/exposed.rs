//! What became of the policies that open Services of virtual clusters, by the last time it was tried. Only remembered; the
//! policies are the host's.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::names::TenantId;
use crate::operator::cluster::Cluster;
use crate::operator::halt::Says;

/// By virtual cluster.
#[derive(Debug, Default)]
pub(crate) struct Exposed(Mutex<HashMap<TenantId, Outcome>>);

#[derive(Debug)]
struct Outcome {
    uid: String,
    says: Option<Says>,
}

impl Exposed {
    /// What is to be said of them, which may be nothing; `None`: they were not made yet.
    pub(crate) fn get(&self, cluster: &Cluster) -> Option<Option<Says>> {
        let all = self.0.lock();
        all.get(&cluster.id).filter(|outcome| outcome.uid == cluster.uid).map(|outcome| outcome.says.clone())
    }

    /// Whether that is news: another reason, not another number in the same words.
    pub(crate) fn put(&self, cluster: &Cluster, says: Option<Says>) -> bool {
        let outcome = Outcome { uid: cluster.uid.clone(), says };
        let mut all = self.0.lock();
        let is_news = all.get(&cluster.id).is_none_or(|known| !known.is_like(&outcome));
        all.insert(cluster.id.clone(), outcome);
        is_news
    }

    /// It is gone.
    pub(crate) fn forget(&self, id: &TenantId) {
        self.0.lock().remove(id);
    }
}

impl Outcome {
    fn is_like(&self, other: &Self) -> bool {
        let reason = |outcome: &Self| outcome.says.as_ref().map(|(status, reason, _)| (*status, *reason));
        self.uid == other.uid && reason(self) == reason(other)
    }
}
