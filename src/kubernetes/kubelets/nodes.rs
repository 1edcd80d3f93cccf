//! Where kubelets are, as the host's Nodes say.
//!
//! Promises: asked once for many, and of a bounded number of nodes; a node that tenants are not shown is none. A kubelet
//! writes its own Node, so what stands there is believed of that node only.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::kubernetes::resources::NODES;
use crate::kubernetes::{ApiClient, ListOptions, PageOf};
use crate::runtime::answers::{Answers, Terms};
use crate::runtime::clock::Clock;

/// A node whose address changed is not reached for so long.
const FRESH: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(10);
/// All pages together.
const LONGEST_LISTING: Duration = Duration::from_secs(20);
/// A Node names its images: some ten kilobytes.
const LONGEST: usize = 2 << 20;
const PAGE: usize = 100;
const LONGEST_PAGE: usize = 16 << 20;
/// Nodes that are known at once.
pub(super) const MOST: usize = 1000;

/// The nodes of the host.
#[derive(Debug)]
pub(super) struct Nodes {
    source: Arc<Source>,
    clock: Clock,
    single: Answers<String, Option<Place>>,
    all: Answers<(), BTreeMap<String, Place>>,
}

#[derive(Debug)]
struct Source {
    host: ApiClient,
    selector: BTreeMap<String, String>,
}

/// Where a kubelet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The node's internal address.
    pub address: IpAddr,
    /// The kubelet's port.
    pub port: u16,
}

impl Nodes {
    pub(super) fn new(host: ApiClient, selector: BTreeMap<String, String>, clock: Clock) -> Self {
        let (single, all) = (Terms::new("node", FRESH, MOST), Terms::new("nodes", FRESH, 1));
        let source = Arc::new(Source { host, selector });
        Self { source, clock, single: Answers::new(single), all: Answers::new(all) }
    }

    pub(super) async fn get(&self, name: &str) -> Result<Arc<Option<Place>>> {
        let ask = || {
            let (source, name) = (Arc::clone(&self.source), name.to_owned());
            async move { source.ask(&name).await }
        };
        self.single.get(&name.to_owned(), &self.clock, ask).await
    }

    pub(super) async fn all(&self) -> Result<Arc<BTreeMap<String, Place>>> {
        let list = || {
            let source = Arc::clone(&self.source);
            async move {
                let late = |_| Error::host(Kind::Timeout, "the Nodes could not be listed in time");
                tokio::time::timeout(LONGEST_LISTING, source.list()).await.map_err(late)?
            }
        };
        self.all.get(&(), &self.clock, list).await
    }
}

impl Source {
    async fn ask(&self, name: &str) -> Result<Option<Place>> {
        let path = NODES.path(None, Some(name), None);
        match self.host.get_bounded(&path, DEADLINE, LONGEST).await {
            Ok(bytes) => Ok(read(&bytes)?.place(&self.selector)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self) -> Result<BTreeMap<String, Place>> {
        let selector: Vec<String> = self.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let options = ListOptions { label_selector: selector.join(","), ..ListOptions::default() };
        let (mut places, mut token) = (BTreeMap::new(), String::new());
        loop {
            let page = PageOf { token: &token, limit: PAGE, most: MOST, bytes: LONGEST_PAGE };
            let page = self.host.page(&NODES, None, &options, page).await?;
            for item in &page.items {
                // One that is odd has no kubelet, and its neighbours have theirs.
                let Ok(node) = read(item).inspect_err(|error| tracing::debug!(%error, "a Node is passed over")) else {
                    continue;
                };
                if let Some(place) = node.place(&self.selector) {
                    places.insert(node.metadata.name, place);
                }
            }
            token = page.token;
            if token.is_empty() || places.len() >= MOST {
                return Ok(places);
            }
        }
    }
}

fn read(bytes: &[u8]) -> Result<Node> {
    serde_json::from_slice(bytes).map_err(|e| Error::host(Kind::Protocol, "a Node cannot be read").because(e))
}

#[derive(Deserialize)]
struct Node {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    addresses: Vec<Address>,
    daemon_endpoints: DaemonEndpoints,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Address {
    r#type: String,
    address: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DaemonEndpoints {
    kubelet_endpoint: Endpoint,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Endpoint {
    port: i64,
}

impl Node {
    fn place(&self, selector: &BTreeMap<String, String>) -> Option<Place> {
        let is_shown = selector.iter().all(|(key, value)| self.metadata.labels.get(key) == Some(value));
        let port = self.status.daemon_endpoints.kubelet_endpoint.port;
        let internal = self.status.addresses.iter().filter(|address| address.r#type == "InternalIP");
        let address = internal.filter_map(|address| address.address.parse::<IpAddr>().ok()).next()?;
        let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
        is_shown.then_some(Place { address, port })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kubelet_is_where_its_node_says_unless_tenants_are_not_shown_it() {
        let node = json!({
            "metadata": {"name": "n", "labels": {"pool": "a"}},
            "status": {
                "addresses": [{"type": "Hostname", "address": "n"}, {"type": "ExternalIP", "address": "203.0.113.1"},
                    {"type": "InternalIP", "address": "name"}, {"type": "InternalIP", "address": "192.0.2.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            },
        });
        let selector = |pool: &str| BTreeMap::from([("pool".to_owned(), pool.to_owned())]);
        let place =
            |node: &serde_json::Value, selector| read(node.to_string().as_bytes()).expect("a node").place(&selector);
        let expected = Place { address: IpAddr::from([192, 0, 2, 1]), port: 10250 };
        assert_eq!(place(&node, BTreeMap::new()), Some(expected));
        assert_eq!(place(&node, selector("a")), Some(expected));
        assert_eq!(place(&node, selector("b")), None);
        assert_eq!(place(&json!({"metadata": {"name": "n"}}), BTreeMap::new()), None);
        for port in [-1, 0, 70_000] {
            let mut odd = node.clone();
            odd["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] = json!(port);
            assert_eq!(place(&odd, BTreeMap::new()), None, "{port}");
        }
    }
}
