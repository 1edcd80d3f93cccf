//! Which pods of a node are shown to whom, and what of a host pod is replaced by what.

use std::collections::HashMap;

use crate::names::TenantId;
use crate::usage::{HostPod, Placed};

/// A tenant's pods on one node.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    /// Where they are on the host.
    namespace: &'a str,
    /// By name there.
    pods: HashMap<&'a str, &'a HostPod>,
}

impl<'a> Shown<'a> {
    /// Of what the tenant has on this node; a kubelet is not believed about pods of others.
    pub(super) fn on(node: &str, tenant: &'a TenantId, placed: &'a Placed) -> Self {
        let here = placed.iter().filter(|(_, pod)| !pod.node.is_empty() && pod.node == node);
        let pods = here.map(|(name, pod)| (name.as_str(), pod)).collect();
        Self { namespace: tenant.namespace().as_str(), pods }
    }

    /// The pod of this namespace and name on the host. Compared byte for byte.
    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<&'a HostPod> {
        (namespace == self.namespace).then(|| self.pods.get(name).copied()).flatten()
    }
}

/// Whether a text is the id that runtimes give containers.
pub(super) fn is_container_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
