//! Waves: a new image or flag that Portico itself renders for control planes reaches them some at a time, and nobody else
//! after one that does not come back. What the owner of a cluster changed is never held.
//!
//! The state is the host's: each VirtualCluster's `status.rollout` says that it waits, is being updated or failed, and is
//! written before its StatefulSet is touched. [`Waves`](super::waves::Waves) only counts what these say, so a successor of the operator goes
//! on with the wave where it was.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::crd::{RolloutPhase, RolloutStatus, StorageKind, VirtualClusterStatus};
use crate::kubernetes::resources::VIRTUAL_CLUSTERS;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::{During, Halt, condition};
use crate::operator::status;
use crate::operator::waves::{Allowance, is_over};

/// Annotations of a StatefulSet: the generation of the spec for which it was rendered, and a digest of what Portico
/// renders, without what the owner's Secrets put in.
pub(crate) const GENERATION: &str = "portico.dev/generation";
pub(crate) const RENDERING: &str = "portico.dev/rendering";

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

/// Reason and message for one that keeps its data in the pod.
const LOSES_DATA: (&str, &str) = (
    "WouldLoseData",
    "Portico has a new image or new flags for the control plane, which runs on with those it has: its data is in its pod and \
     would be lost with it; the annotation portico.dev/rollout=now does it all the same",
);

/// A round over a cluster begins.
pub(crate) fn begin_round(context: &Context, cluster: &Cluster) {
    context.waves.begin_round(&cluster.id);
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
    let (waves, now) = (&context.waves, context.clock.now());
    let phase = waves.phase(cluster);
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
        Some(_) => waves.settle(cluster, None),
        None => {}
    }
    match waves.ask(cluster, is_ready, &context.config.operator.rollout) {
        Ok(phase) => {
            let began = RolloutStatus { phase, since: text(now) };
            let patch = json!({"metadata": {"uid": cluster.uid}, "status": {"rollout": began}});
            let written =
                context.host.patch_status(&VIRTUAL_CLUSTERS, cluster.namespace(), cluster.name(), &patch).await;
            if let Err(error) = written {
                waves.settle(cluster, Some(RolloutPhase::Waiting));
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
    let phase = context.waves.phase(cluster);
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
    context.waves.settle(cluster, phase);
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
