//! One VirtualCluster as the phases see it, what they share, and how a phase says that it cannot go on.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::config::Config;
use crate::crd::{self, VirtualCluster, VirtualClusterSpec};
use crate::error::{Error, Kind, Result};
use crate::names::claims::{Owners, Verdict};
use crate::names::reserved::Reserved;
use crate::names::{TenantId, keys};
use crate::operator::backends::Backends;
use crate::operator::host::Host;
use crate::operator::ports::Ports;
use crate::operator::rollout::{self, Rollout};
use crate::runtime::clock::Clock;

/// A VirtualCluster whose name is valid.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub id: TenantId,
    pub uid: String,
    pub generation: i64,
    /// A person wants it to take part in no wave of updates.
    pub is_pushed: bool,
    pub spec: VirtualClusterSpec,
    pub status: crd::VirtualClusterStatus,
}

impl Cluster {
    /// From the watched object.
    pub(crate) fn new(object: &VirtualCluster) -> Result<Self> {
        let metadata = &object.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let name = metadata.name.as_deref().unwrap_or_default();
        let id = TenantId::parse(namespace, name)
            .map_err(|e| Error::client(Kind::Invalid, format!("the name cannot be used: {e}")).because(e))?;
        Ok(Self {
            id,
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            is_pushed: rollout::is_pushed(metadata.annotations.as_ref()),
            spec: object.spec.clone(),
            status: object.status.clone().unwrap_or_default(),
        })
    }

    /// Host namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.id.namespace().as_str()
    }

    /// Name.
    pub(crate) fn name(&self) -> &str {
        self.id.name().as_str()
    }

    /// Name of the PKI Secret.
    pub(crate) fn pki_secret(&self) -> String {
        format!("{}-pki", self.name())
    }

    /// Name of the kubeconfig Secret.
    pub(crate) fn kubeconfig_secret(&self) -> String {
        format!("vc-{}", self.name())
    }

    /// Name that the backend's certificate carries: `{name}.{ns}.svc`.
    pub(crate) fn server_name(&self) -> String {
        format!("{}.{}.svc", self.name(), self.namespace())
    }

    /// Metadata of an object in the host namespace: owned by the VirtualCluster, so that it goes with it.
    pub(crate) fn metadata(&self, name: &str) -> Value {
        json!({
            "name": name,
            "namespace": self.namespace(),
            "labels": {
                keys::CONTROL_PLANE: self.name(),
                "app.kubernetes.io/name": "virtual-cluster",
                "app.kubernetes.io/instance": self.name(),
                "app.kubernetes.io/managed-by": "portico",
            },
            "ownerReferences": [{
                "apiVersion": format!("{}/v1alpha1", crd::GROUP),
                "kind": "VirtualCluster",
                "name": self.name(),
                "uid": self.uid,
                "controller": true,
                "blockOwnerDeletion": false,
            }],
        })
    }
}

/// What all phases share.
pub(crate) struct Context {
    pub config: Arc<Config>,
    pub host: Host,
    pub backends: Arc<dyn Backends>,
    pub clock: Clock,
    pub ports: Ports,
    pub rollout: Rollout,
    /// Names and ports that are no tenant's.
    pub reserved: Arc<Reserved>,
    /// Who has which name, out of all VirtualClusters that are there.
    pub owners: Mutex<Arc<Owners>>,
    pub service_cidr: Mutex<Option<String>>,
}

impl Context {
    /// Portico's own namespace.
    pub(crate) fn system_namespace(&self) -> &str {
        &self.config.host.system_namespace
    }

    /// What becomes of the names that a cluster asks for.
    pub(crate) fn judge(&self, cluster: &Cluster) -> Verdict {
        let owners = Arc::clone(&self.owners.lock());
        owners.judge(&cluster.id, &cluster.spec.expose.hosts)
    }
}

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
    /// Beside the order: whether the control plane has the newest rendering.
    pub(crate) const UP_TO_DATE: &str = "UpToDate";
    /// Beside that order: whether all of `spec.expose.hosts` lead here.
    pub(crate) const HOSTS: &str = "HostsAccepted";
}

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
