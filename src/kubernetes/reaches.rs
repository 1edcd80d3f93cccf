//! Where `distro: external` may lead to: what the configuration says for a host namespace, and what of the host is closed to
//! whoever names a server there. That is what is closed to tenants' pods as well: the host's pods, Portico's own among them,
//! its API server, and `networks.closed`.

use std::net::IpAddr;

use ipnet::IpNet;
use tokio::time::Instant;

use crate::config::{Config, Policies};
use crate::error::Result;
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::host_network::{HostNetwork, Known};
use crate::upstream::Reach;
use crate::upstream::reach::Closed;

/// Of all host namespaces.
#[derive(Debug)]
pub struct Reaches {
    policies: Policies,
    /// Closed whatever the host says.
    always: Vec<IpNet>,
    network: Known,
    closed: Closed,
}

impl Reaches {
    /// `api_server` is where Portico itself reaches the host's: a name tells nothing.
    pub fn new(config: &Config, api_server: &str) -> Self {
        let service = api_server.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(IpNet::from);
        let networks = &config.networks;
        let always: Vec<IpNet> = networks
            .closed
            .iter()
            .chain(&networks.pod_networks)
            .copied()
            .chain(service)
            .map(|net| net.trunc())
            .collect();
        let closed = Closed::default();
        closed.set(always.clone());
        Self { policies: config.policies(), always, network: Known::default(), closed }
    }

    /// Whom a virtual cluster of this host namespace may name. What it holds of the host is as new as the last call, of
    /// whatever namespace.
    pub async fn of(&self, host: &SharedCluster, namespace: &str, now: Instant) -> Result<Reach> {
        let network = self.network.get(host, now).await?;
        self.closed.set(self.closed_on(&network));
        let bounds = self.policies.bounds(namespace);
        Ok(Reach::judged(&bounds.allowed_backends, &bounds.denied_backends, &self.closed))
    }

    /// What is closed on the host, as of the last call of [`Self::of`].
    pub fn closed(&self) -> &Closed {
        &self.closed
    }

    /// What is known of the host.
    pub fn network(&self) -> &Known {
        &self.network
    }

    fn closed_on(&self, network: &HostNetwork) -> Vec<IpNet> {
        let api_server = network.api_server.iter().flatten();
        self.always.iter().chain(&network.pods).chain(api_server).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::error::Side;
    use crate::kubernetes::testing::{Faults, Server};

    fn refuses(reach: &Reach, address: &str) -> bool {
        reach.refusal(SocketAddr::new(address.parse().expect("address"), 443)).is_some()
    }

    #[tokio::test]
    async fn pods_and_the_api_server_of_the_host_are_closed_unless_a_namespace_may() {
        let server = Server::new("host", Side::Host, Faults::none());
        server
            .put("nodes", json!({"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.244.0.0/24", "fd00:1::/64"]}}));
        let endpoints = json!([{"addresses": ["192.0.2.10"]}]);
        server.put(
            "endpointslices",
            json!({"metadata": {"namespace": "default", "name": "kubernetes"}, "endpoints": endpoints}),
        );
        let host: SharedCluster = Arc::new(server);
        let config = Config::parse(
            "{networks: {podNetworks: [10.99.0.0/16]}, \
              policies: {team-b: {allowedBackends: [10.244.0.7/32], deniedBackends: [192.0.2.0/24]}}}",
        );
        let reaches = Reaches::new(&config.expect("valid"), "10.96.0.1");
        let now = Instant::now();
        let (a, b) = (reaches.of(&host, "team-a", now).await, reaches.of(&host, "team-b", now).await);
        let (a, b) = (a.expect("known"), b.expect("known"));
        for closed in
            ["10.96.0.1", "192.0.2.10", "10.244.0.7", "fd00:1::9", "10.99.1.1", "169.254.169.254", "fd00:ec2::254"]
        {
            assert!(refuses(&a, closed), "{closed}");
        }
        for open in ["10.96.0.2", "192.0.2.11", "10.244.1.1", "198.51.100.1"] {
            assert!(!refuses(&a, open), "{open}");
        }
        assert!(!refuses(&b, "10.244.0.7") && refuses(&b, "10.244.0.8") && refuses(&b, "192.0.2.11"), "its own policy");
    }
}
