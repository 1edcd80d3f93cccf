//! Pure: the NetworkPolicies of one virtual cluster, for its pods and for its control plane.
//!
//! Three things decide their form. Policies only ever add: what one allows no other takes away, so everything that is to be
//! closed must be left out of every rule that selects the same pods, and an admin's own policies in the namespace can only
//! open more. Addresses of Services and node ports are translated before policies are asked: rules name pods and their
//! ports, never ClusterIPs, and whoever asks a tenant's own Service is a pod of that tenant that meets its own pod. And an
//! `ipBlock` holds pods too, whatever their labels say: so the pods' networks are excepted from every block, and pods are
//! let in by selectors alone. Answers need no rule, since plugins follow connections.

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::config::{Config, NetworkEgress};
use crate::kubernetes::host_network::HostNetwork;
use crate::names::keys;
use crate::operator::cluster::Cluster;
use crate::operator::control_plane::API_PORT;
use crate::operator::enforcement;
use crate::operator::networks::ranges;

/// Label value of those of Portico's pods that run syncer and operator where the chart's topology is `split`.
const CONTROL: &str = "portico-control";
const COMPONENT: &str = "portico.dev/component";
/// Label by which the API server names each namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// What is rendered.
pub(super) struct Plan<'a> {
    pub cluster: &'a Cluster,
    pub config: &'a Config,
    pub host: &'a HostNetwork,
}

/// Names of the policies that a cluster may have.
pub(super) fn names(cluster: &Cluster) -> [String; 2] {
    [pods_name(cluster), control_plane_name(cluster)]
}

/// The policies of a cluster.
pub(super) fn policies(plan: &Plan<'_>) -> Vec<Value> {
    let mut all = vec![for_pods(plan)];
    if plan.cluster.spec.distro.is_ours() {
        all.push(for_control_plane(plan));
    }
    all
}

/// Whether it is known which addresses are pods'. Where not, all private ones count as theirs.
pub(super) fn are_pods_known(plan: &Plan<'_>) -> bool {
    !plan.host.pods.is_empty() || !plan.config.networks.pod_networks.is_empty()
}

fn pods_name(cluster: &Cluster) -> String {
    format!("{}-pods", cluster.name())
}

fn control_plane_name(cluster: &Cluster) -> String {
    format!("{}-control-plane", cluster.name())
}

fn for_pods(plan: &Plan<'_>) -> Value {
    let (cluster, networks) = (plan.cluster, &plan.config.networks);
    let mut from = vec![pods(cluster)];
    // Webhooks, aggregated APIs, and the proxy to Services and pods: the API server dials pods itself.
    from.extend(cluster.spec.distro.is_ours().then(|| control_plane(cluster)));
    from.extend(portico(plan));
    from.extend(networks.reachable_from.iter().map(|peer| json!(peer)));
    // Clients of node ports and load balancers, and what nodes pass on in their own name. All ports: which of them is a
    // Service's only the tenant's pods and Services know together, and behind them stands the tenant's own word.
    from.extend(ranges::blocks(&networks.external_ingress, &pod_networks(plan)));
    // Not their control plane: they reach it through Portico, which knows whose request it is.
    let mut to = vec![pods(cluster)];
    to.extend(outside(plan));
    let mut egress = vec![json!({"to": to}), to_portico(plan)];
    egress.extend(networks.reaches.iter().map(rule));
    let spec = json!({
        "podSelector": pods(cluster)["podSelector"],
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": from}],
        "egress": egress,
    });
    policy(cluster, &pods_name(cluster), &spec)
}

fn for_control_plane(plan: &Plan<'_>) -> Value {
    let (cluster, networks) = (plan.cluster, &plan.config.networks);
    let itself = control_plane(cluster);
    let api = json!([{"port": API_PORT, "protocol": "TCP"}]);
    let probed = json!([{"port": enforcement::ALLOWED, "protocol": "TCP"}]);
    let mut from = vec![itself.clone()];
    from.extend(portico(plan));
    let mut to = vec![pods(cluster)];
    to.extend(outside(plan));
    let mut egress = vec![json!({"to": to}), json!({"to": [itself], "ports": api}), to_portico(plan)];
    egress.extend(networks.reaches.iter().chain(&networks.control_plane_reaches).map(rule));
    let spec = json!({
        "podSelector": itself["podSelector"],
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": from, "ports": api}, {"from": portico(plan), "ports": probed}],
        "egress": egress,
    });
    policy(cluster, &control_plane_name(cluster), &spec)
}

fn policy(cluster: &Cluster, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": cluster.metadata(name),
        "spec": spec,
    })
}

/// The tenant's pods, by labels that none of its objects can carry by itself. Of this namespace only: there are no others.
fn pods(cluster: &Cluster) -> Value {
    json!({"podSelector": {
        "matchLabels": {keys::CLUSTER: cluster.name()},
        "matchExpressions": [{"key": keys::NAMESPACE, "operator": "Exists"}],
    }})
}

fn control_plane(cluster: &Cluster) -> Value {
    json!({"podSelector": {"matchLabels": {keys::CONTROL_PLANE: cluster.name()}}})
}

/// Portico's pods, in either topology.
fn portico(plan: &Plan<'_>) -> [Value; 2] {
    let control = json!({COMPONENT: CONTROL});
    [gateway(plan), of_system(plan, &control)]
}

/// Those of them that serve tenants.
fn gateway(plan: &Plan<'_>) -> Value {
    of_system(plan, &json!(plan.config.host.pod_selector))
}

fn of_system(plan: &Plan<'_>, labels: &Value) -> Value {
    json!({
        "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: plan.config.host.system_namespace}},
        "podSelector": {"matchLabels": labels},
    })
}

/// API and DNS, and not the ports of health and metrics.
fn to_portico(plan: &Plan<'_>) -> Value {
    let operator = &plan.config.operator;
    let range =
        |protocol: &str| json!({"port": operator.first_port, "endPort": operator.last_port, "protocol": protocol});
    let shared = json!({"port": plan.config.gateway.listen.port(), "protocol": "TCP"});
    json!({"to": [gateway(plan)], "ports": [shared, range("TCP"), range("UDP")]})
}

fn pod_networks(plan: &Plan<'_>) -> Vec<IpNet> {
    if !are_pods_known(plan) {
        return ranges::private();
    }
    [plan.host.pods.as_slice(), &plan.config.networks.pod_networks].concat()
}

/// Everything but pods, the host's API server and what the admin closes. The API server's addresses are its real ones.
fn outside(plan: &Plan<'_>) -> Vec<Value> {
    let everything = [IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())];
    let mut closed = pod_networks(plan);
    closed.extend(&plan.config.networks.closed);
    closed.extend(plan.host.api_server.iter().flatten());
    ranges::blocks(&everything, &closed)
}

fn rule(egress: &NetworkEgress) -> Value {
    json!(egress)
}
