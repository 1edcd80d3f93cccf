//! What plans of other objects need of a Namespace or a Service: made once, when the object becomes known, so that a pod's
//! plan reads no whole object of another kind.
//!
//! Promises: total; a fraction of the object's size, whatever its annotations hold; what no API server would let pass as a
//! name or an address is not in it.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::{bounds, json, service};

/// Of names of Services and of ports.
const LONGEST_LABEL: usize = 63;

/// Of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Summary {
    /// Of a Namespace.
    Namespace(Arc<NamespaceSummary>),
    /// Of a Service.
    Service(Arc<ServiceSummary>),
}

/// A virtual Namespace as namespace selectors see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceSummary {
    /// Name.
    pub name: Box<str>,
    /// Sorted by key.
    labels: Box<[(Box<str>, Box<str>)]>,
}

/// A virtual Service as service links and its hand-written endpoints see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceSummary {
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// Empty: it has no address.
    pub cluster_ip: Box<str>,
    /// Type `ExternalName`.
    pub is_external: bool,
    /// Its endpoints are made by the host's controllers.
    pub has_selector: bool,
    /// Its deletion has begun.
    pub is_deleting: bool,
    /// None of a Service that does not cross because it has too many.
    pub ports: Box<[Port]>,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// May be empty.
    pub name: Box<str>,
    /// Number.
    pub number: i64,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
}

/// What Services take of the host's nodes and load balancers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exposure {
    /// Ports of every node.
    pub node_ports: u32,
    /// Load balancers.
    pub load_balancers: u32,
}

impl Exposure {
    /// Of one Service, virtual or of the host.
    pub fn of(service: &Value) -> Self {
        let ports = || u32::try_from(json::items(service, "/spec/ports").len()).unwrap_or(u32::MAX);
        let allocates = service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
        match json::text(service, "/spec/type") {
            "NodePort" => Self { node_ports: ports(), load_balancers: 0 },
            "LoadBalancer" => Self { node_ports: if allocates { ports() } else { 0 }, load_balancers: 1 },
            _ => Self::default(),
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            node_ports: self.node_ports.saturating_add(other.node_ports),
            load_balancers: self.load_balancers.saturating_add(other.load_balancers),
        }
    }
}

impl NamespaceSummary {
    /// Of any JSON.
    pub fn of(namespace: &Value) -> Self {
        let labels = json::strings(namespace, "/metadata/labels");
        Self {
            name: json::name(namespace).into(),
            labels: labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
        }
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        self.labels.get(at).map(|(_, value)| &**value)
    }
}

impl ServiceSummary {
    /// Of any JSON.
    pub fn of(object: &Value) -> Self {
        let port = |port: &Value| {
            let (name, protocol) = (json::text(port, "/name"), json::text(port, "/protocol"));
            let protocol = if protocol.is_empty() { "TCP" } else { protocol };
            let number = port.get("port").and_then(Value::as_i64).unwrap_or_default();
            let is_valid = name.len() <= LONGEST_LABEL && protocol.len() <= "SCTP".len();
            is_valid.then(|| Port { name: name.into(), number, protocol: protocol.into() })
        };
        let ports = json::items(object, "/spec/ports");
        let ports = if ports.len() > bounds::PORTS { &[] } else { ports };
        let (name, ip) = (json::name(object), json::text(object, "/spec/clusterIP"));
        let is_valid = name.len() <= LONGEST_LABEL && ip.parse::<IpAddr>().is_ok();
        Self {
            namespace: json::namespace(object).into(),
            name: name.into(),
            cluster_ip: if is_valid { ip.into() } else { Box::default() },
            is_external: json::text(object, "/spec/type") == "ExternalName",
            has_selector: service::has_selector(object),
            is_deleting: json::is_deleting(object),
            ports: ports.iter().filter_map(port).collect(),
        }
    }

    /// Whether pods can be told an address of it.
    pub fn has_address(&self) -> bool {
        !self.is_external && !self.cluster_ip.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::hostile;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_are_found_and_nothing_else_is_kept() {
        let big = "x".repeat(100_000);
        let namespace = json!({"metadata": {"name": "n", "labels": {"b": "2", "a": "1"}, "annotations": {"big": big}}});
        let summary = NamespaceSummary::of(&namespace);
        assert_eq!((summary.label("a"), summary.label("b"), summary.label("c")), (Some("1"), Some("2"), None));
        assert!(format!("{summary:?}").len() < 200);
    }

    #[test]
    fn a_service_with_too_many_ports_has_none() {
        let ports = |number: usize| (1..=number).map(|n| json!({"port": n})).collect::<Value>();
        let of = |number| ServiceSummary::of(&json!({"spec": {"clusterIP": "10.0.0.1", "ports": ports(number)}}));
        assert_eq!(of(bounds::PORTS).ports.len(), bounds::PORTS);
        assert_eq!(of(bounds::PORTS + 1).ports.len(), 0);
    }

    proptest! {
        #[test]
        fn never_panics(object in hostile()) {
            let _ = NamespaceSummary::of(&object);
            let _ = ServiceSummary::of(&object).has_address();
        }
    }
}
