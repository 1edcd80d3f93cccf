//! Figures from kubelets: two readings of each, some seconds apart.
//!
//! Promises: a kubelet is read once for all tenants that ask within some seconds; a bounded number of nodes is kept, and none
//! that nobody asked about for minutes. A node that does not answer leaves out its own pods only.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::figures::{ContainerUsage, NodeUsage, NodesUsage, PodUsage, PodsUsage};
use super::placed::Placed;
use super::rates::{Rate, Reading};
use crate::error::{Error, Kind, Result};
use crate::exposition::Lines;
use crate::kubernetes::Kubelets;
use crate::names::TenantId;
use crate::runtime::answers::Answers;
use crate::runtime::clock::Clock;

const PATH: &str = "/metrics/resource";
const TEXT: &str = "text/plain;version=0.0.4";
/// Of one kubelet: a thousand containers take 500 KB.
const LONGEST: usize = 8 << 20;
const LONGEST_LINE: usize = 16 << 10;
/// Nodes that are kept.
const MOST_NODES: usize = 512;
/// Nodes that are read at once for one question.
const AT_ONCE: usize = 8;
/// What nothing is compared with any more goes.
const OLD: Duration = Duration::from_secs(300);

/// The kubelets as they were read last.
#[derive(Debug)]
pub(super) struct Scrapes {
    kubelets: Arc<Kubelets>,
    clock: Clock,
    newest: Answers<String, Arc<Reading>>,
    last: Mutex<HashMap<String, (Instant, Arc<Reading>)>>,
}

impl Scrapes {
    /// What is read is good for `fresh`.
    pub(super) fn new(kubelets: Arc<Kubelets>, fresh: Duration, clock: Clock) -> Self {
        Self { kubelets, clock, newest: Answers::new(fresh, MOST_NODES), last: Mutex::default() }
    }

    /// Of these pods.
    pub(super) async fn pods(&self, tenant: &TenantId, placed: &Placed) -> Result<PodsUsage> {
        let nodes: BTreeSet<&str> = placed.values().map(|pod| pod.node.as_str()).filter(|n| !n.is_empty()).collect();
        let readings = self.read(nodes.into_iter().map(str::to_owned)).await?;
        let usage = placed.iter().filter_map(|(name, pod)| {
            let containers = readings.get(&pod.node)?.pod(tenant.namespace().as_str(), name.as_str())?;
            let known = containers.iter().filter_map(|(name, point)| Some((name, point, point.usage()?)));
            let (mut at, mut window, mut list) = (None, Duration::ZERO, Vec::new());
            for (name, point, (rate, memory_bytes)) in known {
                at = at.max(Some(point.at()));
                window = window.max(rate.window);
                list.push(ContainerUsage { name: name.clone(), cpu_nanocores: rate.nanocores, memory_bytes });
            }
            Some((name.clone(), PodUsage { node: pod.node.clone(), at: at?, window, containers: list }))
        });
        Ok(usage.collect())
    }

    /// Of all nodes.
    pub(super) async fn nodes(&self) -> Result<NodesUsage> {
        let names = self.kubelets.places().await?;
        let readings = self.read(names.keys().cloned()).await?;
        let usage = readings.into_iter().filter_map(|(name, reading)| {
            let (Rate { nanocores, window }, memory_bytes) = reading.node.usage()?;
            Some((name, NodeUsage { at: reading.node.at(), window, cpu_nanocores: nanocores, memory_bytes }))
        });
        Ok(usage.collect())
    }

    /// An error when none of them can be read.
    async fn read(&self, nodes: impl Iterator<Item = String>) -> Result<HashMap<String, Arc<Reading>>> {
        if !self.kubelets.is_enabled() {
            self.kubelets.places().await?;
        }
        let reads = nodes.take(MOST_NODES).map(|node| async move {
            let read = self.newest.get(&node, &self.clock, || self.scrape(&node)).await;
            (node, read)
        });
        let all: Vec<_> = futures::stream::iter(reads).buffer_unordered(AT_ONCE).collect().await;
        let (mut readings, mut failed) = (HashMap::new(), None);
        for (node, read) in all {
            match read {
                Ok(reading) => {
                    readings.insert(node, Arc::clone(&*reading));
                }
                Err(error) => {
                    tracing::debug!(%error, node, "a kubelet's figures cannot be read");
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if readings.is_empty() => Err(error),
            _ => Ok(readings),
        }
    }

    async fn scrape(&self, node: &str) -> Result<Arc<Reading>> {
        let answer = self.kubelets.get(node, PATH, TEXT, LONGEST).await?;
        let gone = || Error::own(Kind::Unavailable, "the node has no kubelet that can be asked");
        let mut answer = answer.ok_or_else(gone)?.success()?;
        let (mut lines, mut reading, now) = (Lines::new(LONGEST_LINE), Reading::default(), self.clock.now());
        while let Some(piece) = answer.chunk().await? {
            lines.push(&piece, |line| reading.line(line, now));
        }
        lines.finish(|line| reading.line(line, now));
        let (now, mut last) = (self.clock.instant(), self.last.lock());
        last.retain(|_, (since, _)| now.saturating_duration_since(*since) < OLD);
        reading.since(last.get(node).map(|(_, before)| &**before));
        let reading = Arc::new(reading);
        if last.len() < MOST_NODES || last.contains_key(node) {
            last.insert(node.to_owned(), (now, Arc::clone(&reading)));
        }
        Ok(reading)
    }
}
