//! What of a kubelet is asked for, by the raw path.
//!
//! Promises: only paths that are written plainly and as a whole are read: nothing is decoded, cut off or put together, so
//! that nothing behind can read another path. Pure.

use crate::names::HostName;

const NODES: &str = "/api/v1/nodes/";
const PROXY: &str = "proxy";

/// What of a node's kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) node: HostName,
    /// As the path says it; it must be the kubelet's.
    pub(super) port: Option<u16>,
    pub(super) what: What,
}

/// What tenants may see of a kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum What {
    Metrics,
    Cadvisor,
    Resource,
    Probes,
    Summary,
    Pods,
    Healthz,
}

impl What {
    const ALL: [Self; 7] =
        [Self::Metrics, Self::Cadvisor, Self::Resource, Self::Probes, Self::Summary, Self::Pods, Self::Healthz];

    /// As the kubelet names it.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/metrics",
            Self::Cadvisor => "/metrics/cadvisor",
            Self::Resource => "/metrics/resource",
            Self::Probes => "/metrics/probes",
            Self::Summary => "/stats/summary",
            Self::Pods => "/pods",
            Self::Healthz => "/healthz",
        }
    }
}

impl Asked {
    /// `None`: nothing that a tenant may see.
    pub(super) fn parse(raw_path: &str) -> Option<Self> {
        let (node, rest) = raw_path.strip_prefix(NODES)?.split_once('/')?;
        let path = rest.strip_prefix(PROXY)?;
        let what = What::ALL.into_iter().find(|what| what.path() == path)?;
        let (node, port) = match node.split(':').collect::<Vec<_>>().as_slice() {
            [name] => (*name, None),
            [name, port] | ["https", name, port] => (*name, Some(number(port)?)),
            _ => return None,
        };
        Some(Self { node: HostName::parse(node).ok()?, port, what })
    }
}

/// As it is written, and in no other way.
fn number(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

#[cfg(test)]
mod tests;
