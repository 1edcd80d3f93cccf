//! Phase 8: conditions, phase and the status patch. Pure.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::config::JwtBounds;
use crate::crd::{Condition, VirtualClusterStatus};
use crate::issuers::Issuers;
use crate::names::claims::Verdict;
use crate::operator::cluster::Cluster;
use crate::operator::halt::{Halt, Retry, condition};

/// In the order in which they come true.
const ORDER: [&str; 4] = [condition::SERVICES, condition::CERTIFICATES, condition::CONTROL_PLANE, condition::READY];

/// Reasons of a hold, each a condition of its own.
const HOLDS: [&str; 2] = [condition::STORE_REPLACED, condition::MASS_DELETION];

/// Of a condition, in bytes: Kubernetes' own bound is 32 KiB.
const LONGEST_MESSAGE: usize = 2048;

/// Completes `status` with conditions, phase and message after a round that came through (`None`) or halted.
pub(crate) fn conclude(status: &mut VirtualClusterStatus, halt: Option<&Halt>, generation: i64, now: Timestamp) {
    status.observed_generation = generation;
    let reached = halt.map_or(ORDER.len(), |halt| ORDER.iter().position(|c| *c == halt.condition).unwrap_or(0));
    for (at, kind) in ORDER.iter().enumerate() {
        let (value, reason, message) = match halt {
            _ if at < reached => ("True", "Done", ""),
            Some(halt) if at == reached || *kind == condition::READY => ("False", halt.reason, halt.message.as_str()),
            // A later step's last known state stands: a failed read of a Secret does not mean that the pod is gone.
            Some(_) if status.conditions.iter().any(|c| c.r#type == *kind) => continue,
            _ => ("Unknown", "NotYet", ""),
        };
        set(&mut status.conditions, kind, (value, reason, message), generation, now);
    }
    status.phase = match halt {
        None => "Ready",
        Some(halt) if halt.retry == Retry::Later => "Failed",
        Some(_) if status.port.is_none() => "Pending",
        Some(_) => "Provisioning",
    }
    .to_owned();
    status.message = halt.map(|halt| halt.message.clone()).unwrap_or_default();
    show_hold(status, generation, now);
    show_unsynced(status, generation, now);
}

/// What the syncer says of objects for which there is no room.
fn show_unsynced(status: &mut VirtualClusterStatus, generation: i64, now: Timestamp) {
    let kind = condition::OBJECTS_SYNCED;
    let was_said = says(status, kind);
    match status.unsynced.clone() {
        Some(message) => set(&mut status.conditions, kind, ("False", "NoRoom", &message), generation, now),
        None if was_said => set(&mut status.conditions, kind, ("True", "Room", ""), generation, now),
        None => {}
    }
}

/// What the syncer says of a hold, as conditions: nobody shall read `Ready` while nothing is synced.
fn show_hold(status: &mut VirtualClusterStatus, generation: i64, now: Timestamp) {
    let hold = status.hold.clone();
    for kind in HOLDS {
        let hold = hold.as_ref().filter(|hold| hold.reason == kind);
        match hold {
            Some(hold) => {
                set(&mut status.conditions, kind, ("True", kind, hold.message.as_str()), generation, now);
                set(&mut status.conditions, condition::READY, ("False", kind, hold.message.as_str()), generation, now);
                "Held".clone_into(&mut status.phase);
                status.message.clone_from(&hold.message);
            }
            None if status.conditions.iter().any(|c| c.r#type == kind) => {
                set(&mut status.conditions, kind, ("False", "Settled", ""), generation, now);
            }
            None => {}
        }
    }
}

/// Whether it says anything of this condition.
pub(crate) fn says(status: &VirtualClusterStatus, kind: &str) -> bool {
    status.conditions.iter().any(|c| c.r#type == kind)
}

/// Sets a condition that is beside the order: [`conclude`] leaves it alone.
pub(crate) fn note(
    status: &mut VirtualClusterStatus,
    kind: &str,
    (value, reason, message): (&str, &str, &str),
    generation: i64,
    now: Timestamp,
) {
    set(&mut status.conditions, kind, (value, reason, message), generation, now);
}

/// Says which of the names that the cluster asks for it does not get, and who has them. It is served all the same.
pub(crate) fn hosts(status: &mut VirtualClusterStatus, verdict: &Verdict, generation: i64, now: Timestamp) {
    let value = if verdict.refused.is_empty() { "True" } else { "False" };
    let message = verdict.message();
    set(&mut status.conditions, condition::HOSTS, (value, verdict.reason(), &message), generation, now);
}

/// Says which issuers of its tokens are not in force as they are written. The gateway judges them by the same rules.
pub(crate) fn auth(status: &mut VirtualClusterStatus, bounds: &JwtBounds, cluster: &Cluster, now: Timestamp) {
    let written = &cluster.spec.auth.jwt;
    if written.is_empty() && !says(status, condition::AUTH) {
        return;
    }
    let issuers = Issuers::new(written, bounds, &Issuers::default());
    let (value, reason, message) = match issuers.faults() {
        [] => ("True", "Accepted", String::new()),
        faults => {
            let after = "; such an entry is as it was last fit, as long as its issuer is listed, allowed and known to the gateway, and off otherwise";
            ("False", "Invalid", format!("spec.auth.{}{after}", faults.join("; spec.auth.")))
        }
    };
    let end = message.floor_char_boundary(LONGEST_MESSAGE);
    let message = message.get(..end).unwrap_or_default();
    set(&mut status.conditions, condition::AUTH, (value, reason, message), cluster.generation, now);
}

fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    (value, reason, message): (&str, &str, &str),
    generation: i64,
    now: Timestamp,
) {
    let since = conditions
        .iter()
        .find(|c| c.r#type == kind && c.status == value)
        .map(|c| c.last_transition_time.clone())
        .unwrap_or_else(|| now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let next = Condition {
        r#type: kind.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since,
        observed_generation: generation,
    };
    match conditions.iter_mut().find(|c| c.r#type == kind) {
        Some(old) => *old = next,
        None => conditions.push(next),
    }
}

/// Whether a condition is true.
pub(crate) fn is_true(status: &VirtualClusterStatus, kind: &str) -> bool {
    status.conditions.iter().any(|c| c.r#type == kind && c.status == "True")
}

/// The merge patch from one status to the other; `None` when they are equal.
pub(crate) fn patch(old: &VirtualClusterStatus, new: &VirtualClusterStatus) -> Option<Value> {
    if old == new {
        return None;
    }
    let (old, new) = (fields(old), fields(new));
    let mut patch = Map::new();
    for (key, value) in &new {
        if old.get(key) != Some(value) {
            patch.insert(key.clone(), value.clone());
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

fn fields(status: &VirtualClusterStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("time")
    }

    fn get<'a>(status: &'a VirtualClusterStatus, kind: &str) -> &'a Condition {
        status.conditions.iter().find(|c| c.r#type == kind).expect("condition")
    }

    #[test]
    fn objects_without_room_are_said_until_there_is_some() {
        let (mut status, now) = (VirtualClusterStatus::default(), at("2026-01-01T00:00:00Z"));
        conclude(&mut status, None, 1, now);
        assert!(!status.conditions.iter().any(|c| c.r#type == condition::OBJECTS_SYNCED), "no word of what never was");
        status.unsynced = Some("3 objects are not synced".to_owned());
        conclude(&mut status, None, 1, now);
        let said = get(&status, condition::OBJECTS_SYNCED);
        assert_eq!((said.status.as_str(), said.message.as_str()), ("False", "3 objects are not synced"));
        assert_eq!(status.phase, "Ready", "the rest is");
        status.unsynced = None;
        conclude(&mut status, None, 1, now);
        assert_eq!(get(&status, condition::OBJECTS_SYNCED).status, "True");
    }

    #[test]
    fn transition_times_move_only_with_the_status() {
        let mut status = VirtualClusterStatus::default();
        let halt = Halt::waiting(condition::CONTROL_PLANE, "Creating", "the pod is being created");
        conclude(&mut status, Some(&halt), 1, at("2026-01-01T00:00:00Z"));
        assert_eq!(status.phase, "Pending");
        assert!(is_true(&status, condition::CERTIFICATES) && !is_true(&status, condition::READY));
        assert_eq!(status.message, "the pod is being created");
        let before = status.clone();
        conclude(&mut status, Some(&halt), 1, at("2026-01-01T00:00:09Z"));
        assert_eq!(patch(&before, &status), None, "nothing to write");
        conclude(&mut status, None, 1, at("2026-01-01T00:01:00Z"));
        assert_eq!(status.phase, "Ready");
        assert_eq!(get(&status, condition::READY).last_transition_time, "2026-01-01T00:01:00Z");
        assert_eq!(get(&status, condition::CERTIFICATES).last_transition_time, "2026-01-01T00:00:00Z");
        let patch = patch(&before, &status).expect("changed");
        assert_eq!(patch["message"], Value::Null);
        assert!(patch.get("observedGeneration").is_none());
    }

    #[test]
    fn a_held_cluster_is_not_ready_and_says_why_until_it_is_settled() {
        let mut status = VirtualClusterStatus { port: Some(20_000), ..Default::default() };
        conclude(&mut status, None, 1, at("2026-01-01T00:00:00Z"));
        assert!(!status.conditions.iter().any(|c| c.r#type == condition::STORE_REPLACED));
        let message = "another store".to_owned();
        let reason = condition::STORE_REPLACED.to_owned();
        status.hold = Some(crate::crd::HoldStatus { reason, message, ..Default::default() });
        conclude(&mut status, None, 1, at("2026-01-01T00:01:00Z"));
        assert!(is_true(&status, condition::STORE_REPLACED) && !is_true(&status, condition::READY));
        assert_eq!((status.phase.as_str(), status.message.as_str()), ("Held", "another store"));
        status.hold = None;
        conclude(&mut status, None, 1, at("2026-01-01T00:02:00Z"));
        assert!(is_true(&status, condition::READY));
        assert_eq!(get(&status, condition::STORE_REPLACED).status, "False");
    }

    #[test]
    fn an_early_failure_leaves_later_conditions_as_they_were() {
        let mut status = VirtualClusterStatus { port: Some(20_000), ..Default::default() };
        conclude(&mut status, None, 1, at("2026-01-01T00:00:00Z"));
        let halt = Halt::waiting(condition::SERVICES, "Waiting", "the host does not answer");
        conclude(&mut status, Some(&halt), 1, at("2026-01-01T00:01:00Z"));
        assert!(is_true(&status, condition::CONTROL_PLANE) && !is_true(&status, condition::READY));
        assert_eq!(status.phase, "Provisioning");
    }
}
