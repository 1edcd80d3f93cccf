//! How a phase says that it cannot go on, and which condition that keeps from being true.

use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// Condition types, in the order in which they come true.
pub(crate) mod condition {
    pub(crate) const SERVICES: &str = "ServicesReady";
    pub(crate) const CERTIFICATES: &str = "CertificatesReady";
    pub(crate) const CONTROL_PLANE: &str = "ControlPlaneReady";
    pub(crate) const READY: &str = "Ready";
    /// The API server has another store than the known one; reason of a hold.
    pub(crate) const STORE_REPLACED: &str = "StoreReplaced";
    /// Copies wait for a person; reason of a hold.
    pub(crate) const MASS_DELETION: &str = "MassDeletion";
    /// Beside the order: whether the data outlives the control plane's pod.
    pub(crate) const DURABLE: &str = "Durable";
    /// Beside the order: what adds to the store is refused. Absent as long as it never was.
    pub(crate) const STORE_FULL: &str = "StoreFull";
    /// Beside the order: whether there is room for all its objects. Absent as long as there always was.
    pub(crate) const OBJECTS_SYNCED: &str = "ObjectsSynced";
    /// Beside the order: whether the control plane has the newest rendering.
    pub(crate) const UP_TO_DATE: &str = "UpToDate";
    /// Beside the order: whether NetworkPolicies keep the pods apart from those of others.
    pub(crate) const NETWORK_POLICIES: &str = "NetworkPoliciesApplied";
    /// Beside the order: whether the host's network does what they say.
    pub(crate) const POLICIES_ENFORCED: &str = "NetworkPoliciesEnforced";
    /// Beside the order: whether the Secrets of `spec.kubeconfigs` are there. Absent as long as there never were any.
    pub(crate) const KUBECONFIGS: &str = "KubeconfigsReady";
    /// Beside the order: whether all of `spec.auth.jwt` is in force. Absent as long as there never was any.
    pub(crate) const AUTH: &str = "AuthAccepted";
    /// Beside the order: whether `spec.audit` is kept to. Absent as long as nothing was asked for.
    pub(crate) const AUDIT: &str = "AuditAccepted";
    /// Beside that order: whether all of `spec.expose.hosts` lead here.
    pub(crate) const HOSTS: &str = "HostsAccepted";
}

/// What a condition says: its status, reason and message.
pub(crate) type Says = (&'static str, &'static str, String);

/// Why a round ends before the cluster is ready.
#[derive(Debug)]
pub(crate) struct Halt {
    /// Condition that is not true.
    pub condition: &'static str,
    /// One word.
    pub reason: &'static str,
    /// One sentence for the VirtualCluster's owner.
    pub message: String,
    /// When to look again.
    pub retry: Retry,
}

/// When to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Progress is expected: soon.
    Soon,
    /// A person must act, or something is broken: with growing pauses.
    Later,
}

impl Retry {
    /// The pause before round `attempt` (0 for the first repetition).
    pub(crate) fn pause(self, attempt: u32) -> Duration {
        let (first, longest) = match self {
            Self::Soon => (Duration::from_secs(1), Duration::from_secs(4)),
            Self::Later => (Duration::from_secs(2), Duration::from_secs(20)),
        };
        let factor = match self {
            Self::Soon => 1 + attempt / 10,
            Self::Later => 1_u32.checked_shl(attempt.min(16)).unwrap_or(u32::MAX),
        };
        first.saturating_mul(factor).min(longest)
    }
}

impl Halt {
    /// Something is on its way.
    pub(crate) fn waiting(condition: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { condition, reason, message: message.into(), retry: Retry::Soon }
    }

    /// Somebody must act.
    pub(crate) fn blocked(condition: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { condition, reason, message: message.into(), retry: Retry::Later }
    }

    /// A failed call. The owner of a VirtualCluster works in the host namespace, so the host's words are theirs to read.
    pub(crate) fn failed(condition: &'static str, error: &Error) -> Self {
        let message = error.message().to_owned();
        match error.kind() {
            Kind::Conflict if error.api_status().is_none() => Self::blocked(condition, "NameTaken", message),
            Kind::Conflict | Kind::AlreadyExists => Self::waiting(condition, "Conflict", "another writer was faster"),
            Kind::Unavailable | Kind::Timeout | Kind::Closed | Kind::Draining => {
                Self::waiting(condition, "Waiting", message)
            }
            Kind::Forbidden => Self::blocked(condition, "Forbidden", message),
            Kind::Invalid | Kind::BadRequest => Self::blocked(condition, "Refused", message),
            // A server's momentary trouble: `Failed` is only for what a person must solve.
            _ => Self::waiting(condition, "Error", message),
        }
    }
}

/// Names the condition that a failed call keeps from being true.
pub(crate) trait During<T> {
    fn during(self, condition: &'static str) -> Result<T, Halt>;
}

impl<T> During<T> for Result<T> {
    fn during(self, condition: &'static str) -> Result<T, Halt> {
        self.map_err(|error| Halt::failed(condition, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        assert_eq!(Retry::Soon.pause(0), Duration::from_secs(1));
        assert_eq!(Retry::Soon.pause(1000), Duration::from_secs(4));
        assert_eq!(Retry::Later.pause(0), Duration::from_secs(2));
        assert_eq!(Retry::Later.pause(1), Duration::from_secs(4));
        assert_eq!(Retry::Later.pause(u32::MAX), Duration::from_secs(20));
    }
}
