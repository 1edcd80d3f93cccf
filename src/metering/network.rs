//! What pods received and sent, as their kubelets say it: counters of each pod, of which the growth is taken.
//!
//! A pod that is seen for the first time counts whole, unless nothing was known of its node before: then another replica may have
//! counted it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::stream;
use futures::{FutureExt as _, StreamExt as _};
use serde::Deserialize;

use crate::consumption::{Amounts, Tab};
use crate::error::{Error, Kind, Result};
use crate::kubernetes::Kubelets;
use crate::usage::Placed;

/// Nodes that are read, and at once.
const MOST_NODES: usize = 1_000;
const AT_ONCE: usize = 4;
/// Of one node's summary.
const LONGEST_SUMMARY: usize = 16 << 20;

/// What kubelets said last, by node and uid of the host's pod.
#[derive(Default)]
pub(super) struct Network(HashMap<String, HashMap<String, Counters>>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Counters {
    rx_bytes: u64,
    tx_bytes: u64,
}

#[derive(Deserialize)]
struct Summary {
    pods: Option<Vec<Pod>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    pod_ref: Reference,
    /// None for pods in the node's own network.
    network: Option<Counters>,
}

#[derive(Deserialize)]
struct Reference {
    uid: String,
}

/// Whose pod it is, and where inside.
type Owned<'a> = HashMap<&'a str, (&'a Arc<Tab>, &'a str)>;

impl Network {
    /// Reads the nodes of these pods, and adds what passed since the last time.
    pub(super) async fn read(&mut self, kubelets: &Kubelets, placed: &[(Arc<Tab>, Arc<Placed>)]) {
        if !kubelets.is_enabled() {
            return;
        }
        let mut nodes: BTreeMap<&str, Owned<'_>> = BTreeMap::new();
        for (tab, pod) in placed.iter().flat_map(|(tab, pods)| pods.values().map(move |pod| (tab, pod))) {
            if !pod.node.is_empty() && (nodes.len() < MOST_NODES || nodes.contains_key(pod.node.as_str())) {
                nodes.entry(&pod.node).or_default().insert(&pod.uid, (tab, &pod.namespace));
            }
        }
        self.0.retain(|node, _| nodes.contains_key(node.as_str()));
        let names: Vec<String> = nodes.keys().map(|node| (*node).to_owned()).collect();
        let reads = names.into_iter().map(|node| async move { (summary(kubelets, &node).await, node) }.boxed());
        let mut reads = stream::iter(reads).buffer_unordered(AT_ONCE);
        while let Some((read, node)) = reads.next().await {
            let Some(owned) = nodes.get(node.as_str()) else { continue };
            match read {
                Ok(now) => self.add(&node, now, owned),
                Err(error) => {
                    tracing::debug!(node, %error, "what passed the network of pods could not be metered");
                    let mut told: Vec<*const Tab> = Vec::new();
                    for (tab, _) in owned.values() {
                        if !told.contains(&Arc::as_ptr(tab)) {
                            told.push(Arc::as_ptr(tab));
                            tab.missed();
                        }
                    }
                }
            }
        }
    }

    fn add(&mut self, node: &str, now: HashMap<String, Counters>, owned: &Owned<'_>) {
        let before = self.0.get(node);
        for (uid, counters) in now.iter().filter(|_| before.is_some()) {
            let Some((tab, namespace)) = owned.get(uid.as_str()) else { continue };
            let since = before.and_then(|before| before.get(uid)).copied().unwrap_or_default();
            let Counters { rx_bytes: received, tx_bytes: sent } = counters.since(since);
            tab.add(namespace, &Amounts { received, sent, ..Amounts::default() });
        }
        self.0.insert(node.to_owned(), now);
    }
}

impl Counters {
    /// A counter that fell began anew.
    fn since(self, before: Self) -> Self {
        let grown = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        Self { rx_bytes: grown(self.rx_bytes, before.rx_bytes), tx_bytes: grown(self.tx_bytes, before.tx_bytes) }
    }
}

async fn summary(kubelets: &Kubelets, node: &str) -> Result<HashMap<String, Counters>> {
    let none = || Error::host(Kind::NotFound, "there is no such node");
    let answer = kubelets.get(node, "/stats/summary", "application/json", LONGEST_SUMMARY).await?;
    let (mut answer, mut body) = (answer.ok_or_else(none)?.success()?, Vec::new());
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
    }
    read(&body)
}

fn read(body: &[u8]) -> Result<HashMap<String, Counters>> {
    let summary: Summary = serde_json::from_slice(body)
        .map_err(|e| Error::host(Kind::Protocol, "a kubelet's summary cannot be read").because(e))?;
    let pods = summary.pods.unwrap_or_default().into_iter();
    Ok(pods.filter_map(|pod| Some((pod.pod_ref.uid, pod.network?))).collect())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::consumption::{Consumption, Hour, Rows};
    use crate::names::TenantId;

    #[test]
    fn growth_is_counted_for_whose_pod_it_is() {
        let consumption = Consumption::default();
        let tab = |name: &str| consumption.tab(&TenantId::parse("team", name).expect("id"), "uid");
        let (mine, theirs) = (tab("dev"), tab("evil"));
        let owned = Owned::from([("a", (&mine, "default")), ("b", (&theirs, "default")), ("new", (&mine, "default"))]);
        let summary = |pods: &[(&str, u64, u64)]| {
            let pod = |(uid, rx, tx): &(&str, u64, u64)| {
                json!({"podRef": {"uid": uid, "name": "n", "namespace": "x"},
                "network": {"name": "eth0", "rxBytes": rx, "txBytes": tx, "interfaces": []}})
            };
            let mut pods: Vec<_> = pods.iter().map(pod).collect();
            pods.push(json!({"podRef": {"uid": "of-the-node"}, "cpu": {}}));
            read(json!({"node": {"nodeName": "n"}, "pods": pods}).to_string().as_bytes()).expect("summary")
        };
        let mut network = Network::default();
        let rounds: [&[(&str, u64, u64)]; 4] = [
            &[("a", 1000, 10), ("b", 5, 5), ("foreign", 9, 9)],
            &[("a", 1500, 20), ("b", 6, 5), ("foreign", 99, 9), ("new", 7, 8)],
            &[("a", 100, 25), ("b", 6, 5), ("new", 7, 8)],
            &[("a", 100, 25), ("b", 6, 5)],
        ];
        for round in rounds {
            network.add("node-1", summary(round), &owned);
        }
        let mut rows = Rows::default();
        consumption.take(Hour::of(Timestamp::UNIX_EPOCH), &mut rows);
        let seen: Vec<_> = rows.iter().map(|(id, _, _, used)| (id.name().as_str(), used.received, used.sent)).collect();
        assert_eq!(seen, [("dev", 500 + 7 + 100, 10 + 8 + 5), ("evil", 1, 0)]);
        assert!(read(b"{}").expect("empty").is_empty() && read(b"<html>").is_err());
    }
}
