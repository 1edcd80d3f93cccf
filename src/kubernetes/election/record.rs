//! Who stands for what, for how long, and what is written of it. Pure.

use std::time::Duration;

/// The times of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A Lease that stood unchanged for this long may be taken.
    pub duration: Duration,
    /// A leader that could not renew for this long gives up.
    pub renew_deadline: Duration,
    /// Pause between tries.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { duration: seconds(15), renew_deadline: seconds(10), retry: seconds(2) }
    }
}

/// Who stands for what.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Name of the Lease.
    pub lease: String,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Unique per process: the pod's name.
    pub identity: String,
    /// Name of a pod that can exist only once at a time (a StatefulSet's): a holder that begins with it and `-` or `_` is
    /// an earlier process of that pod, which has ended. Empty: no such promise.
    pub once: String,
    /// How long everything takes.
    pub timing: Timing,
}

impl Candidate {
    /// Whether that holder has ended for certain.
    pub(super) fn is_former_self(&self, holder: &str) -> bool {
        let rest = (!self.once.is_empty()).then(|| holder.strip_prefix(self.once.as_str())).flatten();
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
    }
}

/// What is written in a Lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Empty when released.
    pub holder: String,
    /// Changes with every renewal.
    pub renewed: String,
    /// When the holder came in.
    pub acquired: String,
    /// How many times the holder changed.
    pub transitions: i64,
    /// For the conditional write; empty when there is no Lease yet.
    pub version: String,
}
