//! What is said of pods and nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::names::HostName;

/// What one container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Its name.
    pub name: String,
    /// Mean over [`PodUsage::window`].
    pub cpu_nanocores: u64,
    /// Working set.
    pub memory_bytes: u64,
}

/// What one pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodUsage {
    /// Where it runs.
    pub node: String,
    /// End of the window.
    pub at: Timestamp,
    /// Over which its CPU time is taken.
    pub window: Duration,
    /// Its containers, those that the host adds among them.
    pub containers: Vec<ContainerUsage>,
}

/// What a node uses, everything on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeUsage {
    /// End of the window.
    pub at: Timestamp,
    /// Over which its CPU time is taken.
    pub window: Duration,
    /// Mean over the window.
    pub cpu_nanocores: u64,
    /// Working set.
    pub memory_bytes: u64,
}

/// Figures of pods by host name.
pub type PodsUsage = BTreeMap<HostName, PodUsage>;
/// Figures of nodes by name.
pub type NodesUsage = BTreeMap<String, NodeUsage>;
