//! Who takes part in a wave, where each is, and how many may be away at once: only counted, in memory; the state is the
//! host's. Does no IO.

use std::collections::BTreeMap;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::config::RolloutConfig;
use crate::crd::RolloutPhase;
use crate::names::TenantId;
use crate::operator::cluster::Cluster;

/// How many more may begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// So many, which may be none.
    More(usize),
    /// None: one did not come back.
    Stopped,
    /// None: the configuration says so.
    Paused,
}

/// Decides by the phases of all control planes that take part; `None` is one that has the newest rendering.
pub(crate) fn allowance(phases: impl IntoIterator<Item = Option<RolloutPhase>>, limits: &RolloutConfig) -> Allowance {
    let (mut all, mut away, mut has_failed) = (0, 0, false);
    for phase in phases {
        all += 1;
        match phase {
            Some(RolloutPhase::Updating | RolloutPhase::Repairing) => away += 1,
            Some(RolloutPhase::Failed) => has_failed = true,
            Some(RolloutPhase::Waiting) | None => {}
        }
    }
    if limits.paused {
        return Allowance::Paused;
    }
    if has_failed {
        return Allowance::Stopped;
    }
    Allowance::More(budget(all, limits).saturating_sub(away))
}

/// How many of `all` may be away at once.
fn budget(all: usize, limits: &RolloutConfig) -> usize {
    let share = all.saturating_mul(usize::from(limits.max_unavailable_percent)) / 100;
    share.clamp(1, limits.max_unavailable.max(1))
}

/// All control planes that take part in waves, as their statuses and the rounds of this operator show them.
#[derive(Debug, Default)]
pub(crate) struct Waves {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: BTreeMap<TenantId, Member>,
    /// Somebody's place has become free, or what stopped all is over.
    has_news: bool,
}

#[derive(Debug)]
struct Member {
    uid: String,
    phase: Option<RolloutPhase>,
    /// It asked in its last round and was told to wait; whether it was ready then.
    asked: Option<bool>,
}

impl Waves {
    /// Takes in a VirtualCluster. Of one that is known here, this process' own rounds know more than its status, which
    /// may be shown late. One that an earlier operator updated long ago counts as failed until a round has seen it.
    pub(crate) fn observe(&self, cluster: &Cluster, limits: &RolloutConfig, now: Timestamp) {
        if !cluster.spec.distro.is_ours() || cluster.is_pushed {
            return self.release(&cluster.id);
        }
        let mut state = self.state.lock();
        if state.members.get(&cluster.id).is_some_and(|member| member.uid != cluster.uid) {
            state.remove(&cluster.id);
        }
        let phase = cluster.status.rollout.as_ref().map(|rollout| match rollout.phase {
            RolloutPhase::Updating if is_over(&rollout.since, limits.timeout.0, now) => RolloutPhase::Failed,
            phase => phase,
        });
        let fresh = || Member { uid: cluster.uid.clone(), phase, asked: None };
        state.members.entry(cluster.id.clone()).or_insert_with(fresh);
    }

    /// It is gone, or takes part no longer.
    pub(crate) fn release(&self, id: &TenantId) {
        self.state.lock().remove(id);
    }

    /// Where it is, by all that is known.
    pub(crate) fn phase(&self, cluster: &Cluster) -> Option<RolloutPhase> {
        let state = self.state.lock();
        let member = state.members.get(&cluster.id).filter(|member| member.uid == cluster.uid);
        member.and_then(|member| member.phase)
    }

    /// A place in the wave, held from now on; otherwise why not.
    pub(crate) fn ask(
        &self,
        cluster: &Cluster,
        is_ready: bool,
        limits: &RolloutConfig,
    ) -> Result<RolloutPhase, Allowance> {
        let (mut state, id) = (self.state.lock(), &cluster.id);
        let allowance = allowance(state.members.values().map(|member| member.phase), limits);
        // One that is away anyway comes after those whose updates prove something.
        let is_behind = !is_ready && state.members.iter().any(|(other, m)| other != id && m.asked == Some(true));
        let Some(member) = state.members.get_mut(id).filter(|member| member.uid == cluster.uid) else {
            return Err(Allowance::More(0));
        };
        match allowance {
            Allowance::More(places) if places > 0 && !is_behind => {
                let phase = if is_ready { RolloutPhase::Updating } else { RolloutPhase::Repairing };
                (member.phase, member.asked) = (Some(phase), None);
                Ok(phase)
            }
            why => {
                (member.phase, member.asked) = (Some(RolloutPhase::Waiting), Some(is_ready));
                Err(why)
            }
        }
    }

    /// A round begins: it may end before it asks.
    pub(crate) fn begin_round(&self, id: &TenantId) {
        if let Some(member) = self.state.lock().members.get_mut(id) {
            member.asked = None;
        }
    }

    /// What a round has made of it.
    pub(crate) fn settle(&self, cluster: &Cluster, phase: Option<RolloutPhase>) {
        let mut state = self.state.lock();
        let Some(member) = state.members.get_mut(&cluster.id).filter(|member| member.uid == cluster.uid) else {
            return;
        };
        let held = std::mem::replace(&mut member.phase, phase);
        state.has_news |= is_in_the_way(held) && !is_in_the_way(phase);
    }

    /// Whom to look at now, since there is a place again: as many as there are, those that are ready first.
    pub(crate) fn next(&self, limits: &RolloutConfig) -> Vec<TenantId> {
        let mut state = self.state.lock();
        if !std::mem::take(&mut state.has_news) {
            return Vec::new();
        }
        let allowance = allowance(state.members.values().map(|member| member.phase), limits);
        let Allowance::More(places) = allowance else { return Vec::new() };
        let mut waiting: Vec<(bool, TenantId)> =
            state.members.iter().filter_map(|(id, m)| m.asked.map(|is_ready| (!is_ready, id.clone()))).collect();
        waiting.sort();
        let chosen: Vec<TenantId> = waiting.into_iter().take(places).map(|(_, id)| id).collect();
        for id in &chosen {
            if let Some(member) = state.members.get_mut(id) {
                member.asked = None;
            }
        }
        chosen
    }
}

impl State {
    fn remove(&mut self, id: &TenantId) {
        if let Some(member) = self.members.remove(id) {
            self.has_news |= is_in_the_way(member.phase);
        }
    }
}

/// Whether others wait for one in this phase.
fn is_in_the_way(phase: Option<RolloutPhase>) -> bool {
    matches!(phase, Some(RolloutPhase::Updating | RolloutPhase::Repairing | RolloutPhase::Failed))
}

/// A time that cannot be read is long ago.
pub(crate) fn is_over(since: &str, patience: std::time::Duration, now: Timestamp) -> bool {
    let Ok(since) = since.parse::<Timestamp>() else { return true };
    now.duration_since(since).unsigned_abs() >= patience && now > since
}
