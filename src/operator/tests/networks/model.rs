//! What a network plugin makes of NetworkPolicies, so that tests ask who reaches whom and not how a rule is written.

use ipnet::IpNet;
use serde_json::Value;

/// One end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct End {
    /// Namespace, and labels of the pod; `None` for what is no pod.
    pub pod: Option<(&'static str, Value)>,
    pub address: &'static str,
    /// Names of the pod's ports.
    pub ports: &'static [(&'static str, Port)],
}

/// A port and its protocol.
pub(crate) type Port = (u16, &'static str);

/// Whether a connection comes to be under these policies.
pub(super) fn connects(policies: &[Value], from: &End, to: &End, port: Port) -> bool {
    passes(policies, "Egress", from, to, port) && passes(policies, "Ingress", to, from, port)
}

/// What selects nobody is open; of what selects, one rule suffices.
fn passes(policies: &[Value], direction: &str, own: &End, other: &End, port: Port) -> bool {
    let Some((namespace, labels)) = &own.pod else { return true };
    let mut selecting = policies
        .iter()
        .filter(|policy| policy["metadata"]["namespace"] == *namespace)
        .filter(|policy| policy["spec"]["policyTypes"].as_array().expect("types").contains(&direction.into()))
        .filter(|policy| selects(&policy["spec"]["podSelector"], labels))
        .peekable();
    if selecting.peek().is_none() {
        return true;
    }
    let (rules, peers) = if direction == "Ingress" { ("ingress", "from") } else { ("egress", "to") };
    selecting.any(|policy| {
        let rules = policy["spec"][rules].as_array().cloned().unwrap_or_default();
        let target = if direction == "Ingress" { own } else { other };
        rules.iter().any(|rule| is_port(&rule["ports"], port, target) && is_peer(&rule[peers], namespace, other))
    })
}

fn is_port(ports: &Value, (number, protocol): Port, target: &End) -> bool {
    let Some(ports) = ports.as_array() else { return true };
    assert!(!ports.is_empty(), "an empty list means every port");
    ports.iter().any(|port| {
        if let Some(name) = port["port"].as_str() {
            return port["protocol"] == protocol && target.ports.contains(&(name, (number, protocol)));
        }
        let first = port["port"].as_u64().expect("a number");
        let last = port["endPort"].as_u64().unwrap_or(first);
        port["protocol"] == protocol && (first..=last).contains(&u64::from(number))
    })
}

fn is_peer(peers: &Value, own_namespace: &str, other: &End) -> bool {
    let peers = peers.as_array().expect("no rule without peers: it would mean everybody");
    assert!(!peers.is_empty(), "an empty list means everybody");
    peers.iter().any(|peer| {
        if let Some(block) = peer.get("ipBlock") {
            let network = |text: &Value| text.as_str().expect("text").parse::<IpNet>().expect("network");
            let address: IpNet = format!("{0}/{1}", other.address, if other.address.contains(':') { 128 } else { 32 })
                .parse()
                .expect("address");
            let except = block["except"].as_array().cloned().unwrap_or_default();
            return network(&block["cidr"]).contains(&address)
                && !except.iter().any(|part| network(part).contains(&address));
        }
        let Some((namespace, labels)) = &other.pod else { return false };
        let is_namespace = match peer.get("namespaceSelector") {
            None => *namespace == own_namespace,
            Some(selector) => selects(selector, &serde_json::json!({"kubernetes.io/metadata.name": namespace})),
        };
        is_namespace && peer.get("podSelector").is_none_or(|selector| selects(selector, labels))
    })
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object().cloned().unwrap_or_default();
    let expressions = selector["matchExpressions"].as_array().cloned().unwrap_or_default();
    wanted.iter().all(|(key, value)| labels[key] == *value)
        && expressions.iter().all(|expression| {
            assert_eq!(expression["operator"], "Exists", "the only one that is rendered");
            !labels[expression["key"].as_str().expect("key")].is_null()
        })
}
