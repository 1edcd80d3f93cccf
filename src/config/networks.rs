//! Who reaches the pods of virtual clusters and whom they reach: what an admin adds to, or takes from, the NetworkPolicies
//! that the operator makes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// So many entries of a list at most: each stands in two policies of every virtual cluster.
const MOST_ENTRIES: usize = 128;

/// NetworkPolicies for the pods of each virtual cluster and for its control plane. They hold where the host's network
/// plugin enforces such policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NetworksConfig {
    /// Whether there are any. With `false` those that Portico made are removed.
    pub enabled: bool,
    /// Networks of the host's pods, beside `spec.podCIDR` of its nodes. Needed where the network plugin gives addresses
    /// that no node names. Where none are known, all private networks are taken for them.
    #[schemars(with = "Vec<String>")]
    pub pod_networks: Vec<IpNet>,
    /// Who beside the virtual cluster itself may connect to its pods from inside of the host cluster: ingress controllers,
    /// scrapers. Only to pods behind Services of type NodePort and LoadBalancer, at the ports where these lead, and behind
    /// those that an Ingress of the cluster names, at the port that it names. Peers as in a NetworkPolicy; one with a
    /// `podSelector` only means pods of the same host namespace.
    pub reachable_from: Vec<NetworkPeer>,
    /// From where outside of the pods' networks the same pods may be connected to, at the same ports: clients of node ports
    /// and load balancers, and nodes that pass these on. Pods' networks are never part of it.
    #[schemars(with = "Vec<String>")]
    pub external_ingress: Vec<IpNet>,
    /// Networks that neither pods nor control planes may connect to, beside the pods' networks and the addresses of the
    /// host's API server. Portico connects to none of them for a VirtualCluster of `distro: external` either. By default:
    /// link-local addresses, where clouds tell machines their credentials.
    #[schemars(with = "Vec<String>")]
    pub closed: Vec<IpNet>,
    /// What pods and control planes may connect to all the same: rules as in a NetworkPolicy's `egress`, with `to` and,
    /// where not all of them are meant, `ports`.
    pub reaches: Vec<NetworkEgress>,
    /// The same for control planes alone. By default: the host's DNS, by which they find databases and webhooks.
    pub control_plane_reaches: Vec<NetworkEgress>,
}

/// A peer as in a NetworkPolicy: an `ipBlock`, or selectors of pods and namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPeer {
    /// Pods with these labels, of the same namespace unless `namespaceSelector` is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces with these labels; `{}` is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// Addresses of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpBlock {
    /// The network.
    #[schemars(with = "String")]
    pub cidr: IpNet,
    /// Parts of it that are not meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub except: Vec<IpNet>,
}

/// A selector of labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements of other forms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelRequirement {
    /// The label.
    pub key: String,
    /// What is required of it.
    pub operator: LabelOperator,
    /// Values, for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What may be required of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// One of the values.
    In,
    /// None of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// A rule as in a NetworkPolicy's `egress`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkEgress {
    /// Whom.
    pub to: Vec<NetworkPeer>,
    /// At which ports; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NetworkPort>,
}

/// A port, or all from one to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPort {
    /// The first.
    pub port: u16,
    /// The last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
    /// Of which protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Protocols that NetworkPolicies know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Default for NetworksConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            pod_networks: Vec::new(),
            reachable_from: Vec::new(),
            external_ingress: networks(&["0.0.0.0/0", "::/0"]),
            // The last is where machines of one cloud find over IPv6 what others have at 169.254.169.254.
            closed: networks(&["169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128"]),
            reaches: Vec::new(),
            control_plane_reaches: vec![host_dns()],
        }
    }
}

impl NetworksConfig {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::client(Kind::Invalid, message));
        let lengths = [
            ("podNetworks", self.pod_networks.len()),
            ("reachableFrom", self.reachable_from.len()),
            ("externalIngress", self.external_ingress.len()),
            ("closed", self.closed.len()),
            ("reaches", self.reaches.len()),
            ("controlPlaneReaches", self.control_plane_reaches.len()),
        ];
        if let Some((field, _)) = lengths.iter().find(|(_, length)| *length > MOST_ENTRIES) {
            return refuse(format!("networks.{field} may have {MOST_ENTRIES} entries"));
        }
        if let Some(all) = self.pod_networks.iter().find(|network| network.prefix_len() == 0) {
            return refuse(format!("networks.podNetworks: {all} is everything, so nothing would reach a pod"));
        }
        if let Some(fault) = self.reachable_from.iter().find_map(NetworkPeer::fault) {
            return refuse(format!("networks.reachableFrom: {fault}"));
        }
        for (field, rules) in [("reaches", &self.reaches), ("controlPlaneReaches", &self.control_plane_reaches)] {
            if let Some(fault) = rules.iter().find_map(NetworkEgress::fault) {
                return refuse(format!("networks.{field}: {fault}"));
            }
        }
        Ok(())
    }
}

impl NetworkPeer {
    /// What the API server would refuse, or what would mean something else than it looks like.
    fn fault(&self) -> Option<String> {
        let selectors = [&self.pod_selector, &self.namespace_selector];
        match &self.ip_block {
            None if selectors.iter().all(|selector| selector.is_none()) => {
                Some("a peer needs ipBlock, namespaceSelector or podSelector".to_owned())
            }
            Some(_) if selectors.iter().any(|selector| selector.is_some()) => {
                Some("a peer with ipBlock can have no selector".to_owned())
            }
            Some(block) => block.fault(),
            None => selectors.into_iter().flatten().find_map(LabelSelector::fault),
        }
    }
}

impl IpBlock {
    fn fault(&self) -> Option<String> {
        let is_inside = |part: &&IpNet| !(self.cidr.contains(*part) && self.cidr.prefix_len() < part.prefix_len());
        let part = self.except.iter().find(is_inside)?;
        Some(format!("except {part} must be a part of {}", self.cidr))
    }
}

impl LabelSelector {
    fn fault(&self) -> Option<String> {
        self.match_expressions.iter().find_map(|requirement| {
            let takes_values = matches!(requirement.operator, LabelOperator::In | LabelOperator::NotIn);
            let key = &requirement.key;
            (takes_values == requirement.values.is_empty())
                .then(|| format!("values of {key:?}: In and NotIn need some, Exists and DoesNotExist can have none"))
        })
    }
}

impl NetworkEgress {
    fn fault(&self) -> Option<String> {
        if self.to.is_empty() {
            // Kubernetes takes it for everything; an admin who means that can say 0.0.0.0/0.
            return Some("a rule needs at least one peer in `to`".to_owned());
        }
        let is_backwards = |port: &&NetworkPort| port.port == 0 || port.end_port.is_some_and(|end| end < port.port);
        if let Some(port) = self.ports.iter().find(is_backwards) {
            return Some(format!("port {} must be at least 1, and endPort not below it", port.port));
        }
        self.to.iter().find_map(NetworkPeer::fault)
    }
}

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Cluster DNS under its usual labels, and where node-local caches listen.
fn host_dns() -> NetworkEgress {
    let labeled = |key: &str, value: &str| {
        let match_labels = [(key.to_owned(), value.to_owned())].into();
        Some(LabelSelector { match_labels, match_expressions: Vec::new() })
    };
    let cluster_dns = NetworkPeer {
        namespace_selector: labeled("kubernetes.io/metadata.name", "kube-system"),
        pod_selector: labeled("k8s-app", "kube-dns"),
        ip_block: None,
    };
    let caches = networks(&["169.254.20.10/32"]).into_iter().map(|cidr| {
        let ip_block = Some(IpBlock { cidr, except: Vec::new() });
        NetworkPeer { ip_block, ..NetworkPeer::default() }
    });
    let port = |protocol| NetworkPort { port: 53, end_port: None, protocol };
    NetworkEgress {
        to: std::iter::once(cluster_dns).chain(caches).collect(),
        ports: vec![port(Protocol::Udp), port(Protocol::Tcp)],
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, NetworksConfig};

    #[test]
    fn nonsense_is_refused_with_a_sentence() {
        for (nonsense, sentence) in [
            ("podNetworks: [10.0.0.0/33]", ""),
            ("podNetworks: ['::/0']", "is everything"),
            ("reachableFrom: [{}]", "needs ipBlock"),
            ("reachableFrom: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]", "can have no selector"),
            ("reachableFrom: [{ipBlock: {cidr: 10.0.0.0/8, except: [192.168.0.0/16]}}]", "must be a part of"),
            ("reachableFrom: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]", "must be a part of"),
            ("reachableFrom: [{podSelektor: {}}]", ""),
            ("reachableFrom: [{podSelector: {matchExpressions: [{key: a, operator: In}]}}]", "In and NotIn need"),
            ("reaches: [{to: []}]", "at least one peer"),
            ("reaches: [{to: [{podSelector: {}}], ports: [{port: 9, endPort: 8}]}]", "not below it"),
            ("controlPlaneReaches: [{to: [{}]}]", "networks.controlPlaneReaches: a peer needs"),
        ] {
            let error = Config::parse(&format!("networks: {{{nonsense}}}")).expect_err(nonsense);
            assert!(error.to_string().contains(sentence), "{nonsense}: {error}");
        }
    }

    #[test]
    fn what_an_admin_writes_is_what_a_policy_has() {
        let text = "networks: {reachableFrom: [{namespaceSelector: {matchLabels: {a: b}}}], \
                    reaches: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: 5432}]}]}";
        let networks = Config::parse(text).expect("valid").networks;
        let written = serde_json::to_value(&networks).expect("written");
        assert_eq!(written["reachableFrom"], serde_json::json!([{"namespaceSelector": {"matchLabels": {"a": "b"}}}]));
        assert_eq!(
            written["reaches"],
            serde_json::json!([{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
                                "ports": [{"port": 5432, "protocol": "TCP"}]}])
        );
        assert_eq!(networks.closed, NetworksConfig::default().closed);
        assert_eq!(networks.closed.len(), 3, "each of the defaults can be read");
    }
}
