//! Pods whose way is traced: from the first look at one without a copy to the moment at which the tenant is told that it is ready.
//!
//! Promises: where nothing is traced it is one test; of a tenant, and of all, a bounded number of pods is followed, each for a bounded time; nobody
//! waits for it. Must not know what is written, only that it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::names::{TenantId, keys};
use crate::runtime::pace::Pace;
use crate::runtime::traces::{Outcome, Part, Trace, Traces};
use crate::syncer::attempt::Pair;
use crate::syncer::cache::text;
use crate::syncer::kind::{Action, ObjectKey};

/// Pods of one tenant that are followed at once.
const MOST: usize = 32;
/// Looks whose parts are shown, and the last: a trace has room for fifteen, and what comes late says most.
const SHOWN: usize = 3;
/// One that is not ready by then never was.
const LONGEST: Duration = Duration::from_secs(600);

/// Those of one tenant.
#[derive(Debug, Default)]
pub struct Journeys {
    pace: Pace,
    all: Mutex<HashMap<ObjectKey, Journey>>,
}

#[derive(Debug)]
struct Journey {
    trace: Arc<Trace>,
    _place: OwnedSemaphorePermit,
    uid: String,
    began: Instant,
    /// When its copy was made, and when that was on a node.
    made: Option<Instant>,
    placed: Option<Instant>,
    is_started: bool,
    looks: usize,
}

/// One look at a pod that is followed.
#[derive(Debug)]
pub struct Look {
    trace: Arc<Trace>,
    /// What is done now is in the trace: the first looks are, and the last one.
    is_shown: bool,
}

impl Journeys {
    /// Before a pod is planned, which has waited since then: its trace, if it has one.
    pub fn look(
        &self,
        traces: &Traces,
        (id, key): (&TenantId, &ObjectKey),
        pair: &Pair,
        (since, now): (Instant, Instant),
    ) -> Option<Look> {
        if !traces.is_on() {
            return None;
        }
        let mut all = self.all.lock();
        let late = all.extract_if(|_, journey| now.saturating_duration_since(journey.began) > LONGEST);
        late.for_each(|(key, journey)| journey.end(id, &key, None, "late"));
        let pod = pair.virtual_object.as_ref().filter(|pod| text(pod, "deletionTimestamp").is_empty());
        if let Some(journey) = all.get_mut(key) {
            if pod.is_some_and(|pod| text(pod, "uid") == journey.uid) {
                journey.follow(pair.host.as_ref(), now);
                let is_shown = journey.looks < SHOWN || journey.is_started;
                journey.looks += 1;
                return Some(Look { trace: Arc::clone(&journey.trace), is_shown });
            }
            if let Some(journey) = all.remove(key) {
                journey.end(id, key, pair.host.as_ref(), "gone");
            }
        }
        let pod = pod.filter(|_| pair.host.is_none() && all.len() < MOST)?;
        let said = pod["metadata"]["annotations"][keys::TRACEPARENT].as_str();
        let (trace, place) = traces.of_pod(said, &self.pace)?;
        trace.past("queue", since);
        let (began, uid) = (since, text(pod, "uid").to_owned());
        let journey = Journey {
            trace: Arc::clone(&trace),
            _place: place,
            uid,
            began,
            made: None,
            placed: None,
            is_started: false,
            looks: 1,
        };
        all.insert(key.clone(), journey);
        Some(Look { trace, is_shown: true })
    }

    /// Behind all that was planned for one that has a trace.
    pub fn looked(&self, (id, key): (&TenantId, &ObjectKey), pair: &Pair, now: Instant) {
        let mut all = self.all.lock();
        let Some(journey) = all.get_mut(key) else { return };
        let Some(host) = &pair.host else {
            journey.made.get_or_insert(now);
            return;
        };
        let phase = host["status"]["phase"].as_str().unwrap_or_default();
        let outcome = match phase {
            _ if is_true(host, "Ready") => "ready",
            "Succeeded" => "succeeded",
            "Failed" => "failed",
            _ => return,
        };
        if let Some(journey) = all.remove(key) {
            journey.end(id, key, Some(host), outcome);
        }
    }
}

impl Journey {
    /// What has become of the copy meanwhile.
    fn follow(&mut self, host: Option<&Value>, now: Instant) {
        let Some(host) = host else { return };
        let made = *self.made.get_or_insert(now);
        if self.placed.is_none() && is_true(host, "PodScheduled") {
            self.trace.past("schedule", made);
            self.placed = Some(now);
        }
        if let Some(placed) = self.placed.filter(|_| !self.is_started && is_true(host, "Ready")) {
            self.trace.past("start", placed);
            self.is_started = true;
        }
    }

    fn end(self, id: &TenantId, key: &ObjectKey, host: Option<&Value>, outcome: &str) {
        let mut attributes = vec![
            ("k8s.namespace.name", key.namespace.clone()),
            ("k8s.pod.name", key.name.clone()),
            ("k8s.pod.uid", self.uid),
            ("portico.cluster", id.to_string()),
            ("portico.outcome", outcome.to_owned()),
        ];
        if let Some(host) = host {
            attributes.push(("portico.host_pod", text(host, "name").to_owned()));
            attributes.push(("k8s.node.name", host["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()));
        }
        let has_failed = matches!(outcome, "late" | "failed");
        self.trace.finish(self.began, &Outcome { name: "pod".to_owned(), attributes, has_failed });
    }
}

impl Look {
    /// Begins a part of it.
    pub fn part(&self, name: &'static str) -> Option<Part> {
        self.is_shown.then(|| self.trace.part(name))
    }
}

/// What an action is called as a part of a trace.
pub fn stage(action: &Action) -> &'static str {
    match action {
        Action::ApplyHost { .. } | Action::CreateHost { .. } | Action::PatchHost { .. } | Action::DeleteHost { .. } => {
            "write on the host"
        }
        Action::PatchVirtual { .. }
        | Action::ApplyVirtual { .. }
        | Action::CreateVirtual { .. }
        | Action::DeleteVirtual { .. } => "tell the tenant",
        Action::BindVirtual { .. } => "bind",
        Action::EnsureTokens { .. } => "tokens",
        Action::Explain { .. } => "event",
        Action::OrElse { first, .. } => stage(first),
    }
}

fn is_true(pod: &Value, condition: &str) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == condition && one["status"] == "True")
}
