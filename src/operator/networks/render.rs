//! Pure: the NetworkPolicies of one virtual cluster, for its pods and for its control plane.
//!
//! Four things decide their form. Policies only ever add: what one allows no other takes away, so everything that is to be
//! closed must be left out of every rule that selects the same pods, and an admin's own policies in the namespace can only
//! open more. Addresses of Services and node ports are translated before policies are asked: rules name pods and their
//! ports, never ClusterIPs, and whoever asks a tenant's own Service is a pod of that tenant that meets its own pod. An
//! `ipBlock` holds pods too, whatever their labels say: so the pods' networks are excepted from every block, and pods are
//! let in by selectors alone. And the first policy that selects a pod closes it to whom none of its policies lets in, so each
//! that selects a tenant's pods lets in who belongs to them: it may be the only one. Answers need no rule, since plugins
//! follow connections.

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::config::{Config, NetworkEgress};
use crate::kubernetes::host_network::HostNetwork;
use crate::names::keys;
use crate::operator::cluster::Cluster;
use crate::operator::control_plane::API_PORT;
use crate::operator::enforcement;
use crate::operator::exposure::{Opening, Port, Target};
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

/// Whether this one of them is for the pods.
pub(super) fn is_of_pods(plan: &Plan<'_>, policy: &Value) -> bool {
    policy["metadata"]["name"] == pods_name(plan.cluster)
}

/// The policies that open Services to whom the admin names, one for each: of one policy all pods have the same ports. None
/// when nobody is named, since a rule without peers means everybody.
pub(super) fn exposed(plan: &Plan<'_>, openings: &[Opening]) -> Vec<Value> {
    let networks = &plan.config.networks;
    let mut from: Vec<Value> = networks.reachable_from.iter().map(|peer| json!(peer)).collect();
    // Clients of node ports and load balancers, what nodes pass on in their own name, and what is on the nodes' network.
    from.extend(ranges::blocks(&networks.external_ingress, &pod_networks(plan)));
    let openings = openings.iter().filter(|_| !from.is_empty());
    openings.filter(|opening| !opening.ports.is_empty()).map(|opening| for_service(plan, opening, &from)).collect()
}

fn for_service(plan: &Plan<'_>, opening: &Opening, from: &[Value]) -> Value {
    let cluster = plan.cluster;
    let port = |port: &Port| match &port.target {
        Target::Number(number) => json!({"port": number, "protocol": port.protocol}),
        Target::Name(name) => json!({"port": name, "protocol": port.protocol}),
    };
    // Whatever the Service selects by, no pods of others.
    let mut selector = pods(cluster)["podSelector"].take();
    for (key, value) in opening.selector.iter().filter(|(key, _)| *key != keys::CLUSTER) {
        selector["matchLabels"][key] = json!(value);
    }
    let spec = json!({
        "podSelector": selector,
        "policyTypes": ["Ingress"],
        // Said, so that what somebody adds is taken out again when this is applied.
        "egress": [],
        "ingress": [
            {"from": from, "ports": opening.ports.iter().map(port).collect::<Vec<_>>()},
            // The pods' own policy may be missing.
            {"from": inside(plan)},
        ],
    });
    let mut policy = policy(cluster, &exposed_name(&opening.service), &spec);
    policy["metadata"]["labels"][keys::EXPOSES] = json!(opening.service);
    policy
}

/// Services have names without dots, and in one namespace no two have the same.
fn exposed_name(service: &str) -> String {
    format!("{service}.exposed")
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
    // Not their control plane: they reach it through Portico, which knows whose request it is.
    let mut to = vec![pods(cluster)];
    to.extend(outside(plan));
    let mut egress = vec![json!({"to": to}), to_portico(plan)];
    egress.extend(networks.reaches.iter().map(rule));
    let spec = json!({
        "podSelector": pods(cluster)["podSelector"],
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": inside(plan)}],
        "egress": egress,
    });
    policy(cluster, &pods_name(cluster), &spec)
}

/// Who reaches the tenant's pods at every port.
fn inside(plan: &Plan<'_>) -> Vec<Value> {
    let cluster = plan.cluster;
    let mut from = vec![pods(cluster)];
    // Webhooks, aggregated APIs, and the proxy to Services and pods: the API server dials pods itself.
    from.extend(cluster.spec.distro.is_ours().then(|| control_plane(cluster)));
    from.extend(portico(plan));
    from
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

/// Of each family: those that are known, or else all private ones. A host whose nodes only name networks of one family may give
/// its pods addresses of both.
fn pod_networks(plan: &Plan<'_>) -> Vec<IpNet> {
    let mut known = [plan.host.pods.as_slice(), &plan.config.networks.pod_networks].concat();
    let is_known = [true, false].map(|v4| known.iter().any(|network| network.addr().is_ipv4() == v4));
    let mut private = ranges::private();
    private.retain(|network| !is_known[usize::from(!network.addr().is_ipv4())]);
    known.extend(private);
    known
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
