//! Pure: what the condition says when a call failed.

use crate::error::{Error, Kind};
use crate::operator::cluster::Cluster;
use crate::operator::halt::{Halt, Retry, Says, condition};

/// What a failed call says; nothing where the host only had a moment of trouble, and what was said last stands.
pub(super) fn failure(cluster: &Cluster, error: &Error) -> Option<Says> {
    if error.kind() == Kind::Forbidden {
        let message = format!(
            "Portico may not make NetworkPolicies in namespace {:?}, so pods of others may reach this cluster's: the \
             ClusterRole portico-tenant that is bound there lacks networkpolicies (docs/security.md)",
            cluster.namespace()
        );
        return Some(("False", "NoRights", message));
    }
    let halt = Halt::failed(condition::NETWORK_POLICIES, error);
    (halt.retry == Retry::Later).then_some(("False", halt.reason, halt.message))
}
