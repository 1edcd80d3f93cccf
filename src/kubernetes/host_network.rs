//! What must be known of the host to close it to tenants: which addresses its pods have, and which its API server. Asked at
//! most once a minute, for all virtual clusters.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::{Kind, Result};
use crate::kubernetes::ListOptions;
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::resources::{ENDPOINT_SLICES, NODES};

/// How long an answer is good. Until then pods of a new node count as being outside.
const FRESH: Duration = Duration::from_secs(60);
/// Where an API server says at which addresses it is. What clients use, the ClusterIP of the Service, tells nothing: it is
/// translated before policies are asked.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// The host's network at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostNetwork {
    /// Of its nodes' pods. Empty where the network plugin does not go by what nodes say.
    pub pods: Vec<IpNet>,
    /// Of its API server; `None` where that may not be read.
    pub api_server: Option<Vec<IpNet>>,
}

/// The newest answer.
#[derive(Debug, Default)]
pub struct Known(Mutex<Option<(Instant, Arc<HostNetwork>)>>);

impl Known {
    /// The network as it was within the last minute. When it cannot be asked for, as it was last.
    pub async fn get(&self, host: &SharedCluster, now: Instant) -> Result<Arc<HostNetwork>> {
        let mut known = self.0.lock().await;
        if let Some((since, network)) = &*known
            && now.saturating_duration_since(*since) < FRESH
        {
            return Ok(Arc::clone(network));
        }
        match (ask(host).await, &*known) {
            (Ok(network), _) => {
                let network = Arc::new(network);
                *known = Some((now, Arc::clone(&network)));
                Ok(network)
            }
            (Err(error), Some((_, network))) => {
                tracing::debug!(%error, "the host's networks cannot be asked for");
                Ok(Arc::clone(network))
            }
            (Err(error), None) => Err(error),
        }
    }
}

async fn ask(host: &SharedCluster) -> Result<HostNetwork> {
    let nodes = readable(host.list(&NODES, None, &ListOptions::default()).await)?.unwrap_or_default().0;
    let pods: Vec<IpNet> = nodes.iter().flat_map(pod_networks).collect();
    let (namespace, name) = API_SERVER;
    let slice = readable(host.get(&ENDPOINT_SLICES, Some(namespace), name).await)?.flatten();
    let api_server = slice.as_ref().map(|slice| with_all_of_their_nodes(addresses(slice), &nodes));
    Ok(HostNetwork { pods: IpNet::aggregate(&pods), api_server })
}

/// An API server says one address, of one family; it listens at all of its machine.
fn with_all_of_their_nodes(mut api_server: Vec<IpNet>, nodes: &[Value]) -> Vec<IpNet> {
    for node in nodes {
        let own = node_addresses(node);
        if own.iter().any(|address| api_server.contains(address)) {
            api_server.extend(own);
        }
    }
    api_server.sort();
    api_server.dedup();
    api_server
}

fn node_addresses(node: &Value) -> Vec<IpNet> {
    let all = node["status"]["addresses"].as_array().into_iter().flatten();
    let texts = all.filter_map(|address| address["address"].as_str());
    texts.filter_map(|text| text.parse::<IpAddr>().ok()).map(IpNet::from).collect()
}

/// `None` where Portico has no right to it: an installation may leave it out and say in the configuration what it tells.
fn readable<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == Kind::Forbidden => Ok(None),
        Err(error) => Err(error),
    }
}

fn pod_networks(node: &Value) -> Vec<IpNet> {
    let spec = &node["spec"];
    let all = spec["podCIDRs"].as_array().into_iter().flatten().chain(std::iter::once(&spec["podCIDR"]));
    all.filter_map(Value::as_str).filter_map(|text| text.parse::<IpNet>().ok()).map(|network| network.trunc()).collect()
}

fn addresses(slice: &Value) -> Vec<IpNet> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let all = endpoints.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
    all.filter_map(Value::as_str).filter_map(|text| text.parse::<IpAddr>().ok()).map(IpNet::from).collect()
}
