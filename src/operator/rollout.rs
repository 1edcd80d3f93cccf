//! Waves: a new image or flag that Portico itself renders for control planes reaches them some at a time, and nobody else
//! after one that does not come back. What the owner of a cluster changed is never held.
//!
//! The state is the host's: each VirtualCluster's `status.rollout` says that it waits, is being updated or failed, and is
//! written before its StatefulSet is touched. [`Rollout`] only counts what these say, so a successor of the operator goes
//! on with the wave where it was.

use std::collections::BTreeMap;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::config::RolloutConfig;
use crate::crd::{RolloutPhase, RolloutStatus, StorageKind, VirtualClusterStatus};
use crate::error::Result;
use crate::kubernetes::resources::VIRTUAL_CLUSTERS;
use crate::names::TenantId;
use crate::operator::cluster::{Cluster, Context, During, Halt, condition};
use crate::operator::status;

/// Annotation of a VirtualCluster: with the value `now` it takes part in no wave. Its updates come at once, and it holds
/// up nobody.
const PUSH: &str = "portico.dev/rollout";
/// Annotations of a StatefulSet: the generation of the spec for which it was rendered, and a digest of what Portico
/// renders, without what the owner's Secrets put in.
pub(crate) const GENERATION: &str = "portico.dev/generation";
pub(crate) const RENDERING: &str = "portico.dev/rendering";

/// Whether a person has taken this VirtualCluster out of the waves.
pub(crate) fn is_pushed(annotations: Option<&BTreeMap<String, String>>) -> bool {
    annotations.and_then(|all| all.get(PUSH)).is_some_and(|value| value == "now")
}

/// Whether `wanted` restarts the pods of `existing`, and who wants that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing that a pod notices.
    None,
    /// The cluster's owner: another spec, another PKI or database.
    Owners,
    /// Portico: another rendering of the same spec.
    Ours,
}

impl Change {
    /// Compares two StatefulSets of one cluster. `inputs` are the annotations of the pod template by which the owner's
    /// Secrets show.
    pub(crate) fn between(existing: &Value, wanted: &Value, inputs: &[&str], cluster: &Cluster) -> Self {
        let of_set = |set: &Value, key: &str| set["metadata"]["annotations"][key].clone();
        let of_pods = |set: &Value, key: &str| set["spec"]["template"]["metadata"]["annotations"][key].clone();
        let is_same_inputs = inputs.iter().all(|key| of_pods(existing, key) == of_pods(wanted, key));
        if is_same_inputs && of_set(existing, RENDERING) == of_set(wanted, RENDERING) {
            return Self::None;
        }
        // One that an earlier Portico made does not say it.
        let rendered_for = of_set(existing, GENERATION).as_str().and_then(|text| text.parse().ok());
        let rendered_for: i64 = rendered_for.unwrap_or(cluster.status.observed_generation);
        if rendered_for != cluster.generation || !is_same_inputs { Self::Owners } else { Self::Ours }
    }
}

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
pub(crate) struct Rollout {
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

impl Rollout {
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
    fn phase(&self, cluster: &Cluster) -> Option<RolloutPhase> {
        let state = self.state.lock();
        let member = state.members.get(&cluster.id).filter(|member| member.uid == cluster.uid);
        member.and_then(|member| member.phase)
    }

    /// A place in the wave, held from now on; otherwise why not.
    fn ask(&self, cluster: &Cluster, is_ready: bool, limits: &RolloutConfig) -> Result<RolloutPhase, Allowance> {
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
    fn begin_round(&self, id: &TenantId) {
        if let Some(member) = self.state.lock().members.get_mut(id) {
            member.asked = None;
        }
    }

    /// What a round has made of it.
    fn settle(&self, cluster: &Cluster, phase: Option<RolloutPhase>) {
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

/// Reason and message for one that keeps its data in the pod.
const LOSES_DATA: (&str, &str) = (
    "WouldLoseData",
    "Portico has a new image or new flags for the control plane, which runs on with those it has: its data is in its pod and \
     would be lost with it; the annotation portico.dev/rollout=now does it all the same",
);

/// Whether others wait for one in this phase.
fn is_in_the_way(phase: Option<RolloutPhase>) -> bool {
    matches!(phase, Some(RolloutPhase::Updating | RolloutPhase::Repairing | RolloutPhase::Failed))
}

/// A round over a cluster begins.
pub(crate) fn begin_round(context: &Context, cluster: &Cluster) {
    context.rollout.begin_round(&cluster.id);
}

/// Whether a StatefulSet that exists may be given what is wanted now. When a wave lets it, that is in the status before
/// this returns.
pub(crate) async fn admit(
    context: &Context,
    cluster: &Cluster,
    change: Change,
    is_ready: bool,
    next: &mut VirtualClusterStatus,
) -> Result<bool, Halt> {
    let (rollout, now) = (&context.rollout, context.clock.now());
    let phase = rollout.phase(cluster);
    if change != Change::Ours || cluster.is_pushed {
        if phase == Some(RolloutPhase::Waiting) {
            enter(context, cluster, None, next);
        }
        return Ok(true);
    }
    match phase {
        // It is away because of us: what is wanted now may be what brings it back.
        Some(RolloutPhase::Updating | RolloutPhase::Failed) if !is_ready => return Ok(true),
        // Its data would go with its pod: that is its owner's to decide, whatever the turn.
        _ if next.storage.as_ref().is_some_and(|storage| storage.kind == StorageKind::Pod) => {
            enter(context, cluster, Some(RolloutPhase::Waiting), next);
            status::note(next, condition::UP_TO_DATE, ("False", LOSES_DATA.0, LOSES_DATA.1), cluster.generation, now);
            return Ok(false);
        }
        // Its place was for something else, or was never used: whoever gave it ended before the StatefulSet was touched.
        Some(_) => rollout.settle(cluster, None),
        None => {}
    }
    match rollout.ask(cluster, is_ready, &context.config.operator.rollout) {
        Ok(phase) => {
            let began = RolloutStatus { phase, since: text(now) };
            let patch = json!({"metadata": {"uid": cluster.uid}, "status": {"rollout": began}});
            let written =
                context.host.patch_status(&VIRTUAL_CLUSTERS, cluster.namespace(), cluster.name(), &patch).await;
            if let Err(error) = written {
                rollout.settle(cluster, Some(RolloutPhase::Waiting));
                return Err(error).during(condition::CONTROL_PLANE);
            }
            tracing::info!(tenant = %cluster.id, ?phase, "its control plane is being updated");
            next.rollout = Some(began);
            Ok(true)
        }
        Err(why) => {
            enter(context, cluster, Some(RolloutPhase::Waiting), next);
            let (reason, message) = why_waiting(why);
            status::note(next, condition::UP_TO_DATE, ("False", reason, message), cluster.generation, now);
            Ok(false)
        }
    }
}

/// What a round says of the wave at its end: whether one that was updated is back, or has not come back in time.
pub(crate) fn conclude(context: &Context, cluster: &Cluster, halt: Option<&Halt>, next: &mut VirtualClusterStatus) {
    if !cluster.spec.distro.is_ours() {
        return;
    }
    let limits = &context.config.operator.rollout;
    let phase = context.rollout.phase(cluster);
    let is_late = || next.rollout.as_ref().is_some_and(|r| is_over(&r.since, limits.timeout.0, context.clock.now()));
    let phase = match phase {
        _ if cluster.is_pushed => None,
        Some(RolloutPhase::Updating | RolloutPhase::Repairing | RolloutPhase::Failed) if halt.is_none() => None,
        Some(RolloutPhase::Updating) if is_late() => {
            tracing::error!(tenant = %cluster.id, "its control plane did not come back; no other is updated");
            Some(RolloutPhase::Failed)
        }
        // It was away before: nothing is learned from its being away still.
        Some(RolloutPhase::Repairing) if is_late() => None,
        other => other,
    };
    enter(context, cluster, phase, next);
    let is_reached = halt.is_none_or(|halt| halt.condition == condition::CONTROL_PLANE);
    if let Some((value, reason, message)) = condition_of(phase, is_reached) {
        let now = context.clock.now();
        status::note(next, condition::UP_TO_DATE, (value, reason, message), cluster.generation, now);
    }
}

fn enter(context: &Context, cluster: &Cluster, phase: Option<RolloutPhase>, next: &mut VirtualClusterStatus) {
    context.rollout.settle(cluster, phase);
    if next.rollout.as_ref().map(|rollout| rollout.phase) != phase {
        next.rollout = phase.map(|phase| RolloutStatus { phase, since: text(context.clock.now()) });
    }
}

fn condition_of(phase: Option<RolloutPhase>, is_reached: bool) -> Option<(&'static str, &'static str, &'static str)> {
    match phase {
        None if is_reached => Some(("True", "Current", "")),
        None => None,
        // Why it waits was said when it asked.
        Some(RolloutPhase::Waiting) => None,
        Some(RolloutPhase::Updating | RolloutPhase::Repairing) => {
            Some(("False", "RollingOut", "the control plane is given a new image or new flags of Portico's"))
        }
        Some(RolloutPhase::Failed) => Some((
            "False",
            "RolloutFailed",
            "the control plane did not come back after a new image or new flags of Portico's, so no other is given them \
             until it does: mend what ControlPlaneReady says, or let the admin give Portico the earlier image again, or \
             take this cluster out of the rollout with the annotation portico.dev/rollout=now",
        )),
    }
}

/// For the cluster's owner, who learns nothing here of other tenants.
fn why_waiting(why: Allowance) -> (&'static str, &'static str) {
    match why {
        Allowance::More(_) => (
            "WaitingForRollout",
            "Portico has a new image or new flags for the control plane, which runs on with those it has until it is its \
             turn; the annotation portico.dev/rollout=now does it at once",
        ),
        Allowance::Stopped => (
            "RolloutStopped",
            "Portico has a new image or new flags for the control plane, which runs on with those it has: another control \
             plane did not come back with the new ones, which Portico's admin sees as RolloutFailed",
        ),
        Allowance::Paused => (
            "RolloutPaused",
            "Portico has a new image or new flags for the control plane, and operator.rollout.paused holds them back",
        ),
    }
}

fn text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time that cannot be read is long ago.
fn is_over(since: &str, patience: std::time::Duration, now: Timestamp) -> bool {
    let Ok(since) = since.parse::<Timestamp>() else { return true };
    now.duration_since(since).unsigned_abs() >= patience && now > since
}
