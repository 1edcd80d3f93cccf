//! Figures from kubelets: two readings of each, some seconds apart.
//!
//! Promises: a kubelet is read once for all tenants that ask within some seconds; a bounded number of nodes is kept, and none
//! that nobody asked about for minutes. A node that does not answer leaves out its own pods only, and is not waited for again
//! for some time: whoever asks has what the others say within [`LONGEST_ROUND`]. Those that were asked longest ago come first.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::figures::{ContainerUsage, NodeUsage, NodesUsage, PodUsage, PodsUsage};
use super::placed::Placed;
use super::rates::{Rate, Reading};
use crate::error::{Error, Kind, Result};
use crate::exposition::Lines;
use crate::kubernetes::Kubelets;
use crate::names::TenantId;
use crate::runtime::answers::{Answers, Terms};
use crate::runtime::clock::Clock;
use crate::runtime::yielding;

const PATH: &str = "/metrics/resource";
const TEXT: &str = "text/plain;version=0.0.4";
/// Of one kubelet: a thousand containers take 500 KB.
const LONGEST: usize = 8 << 20;
const LONGEST_LINE: usize = 16 << 10;
/// Looking at so many bytes is as much work as making one record of DNS.
const BYTES_PER_WORK: usize = 256;
/// Nodes that are kept.
const MOST_NODES: usize = 512;
/// Nodes that are read at once for one question.
const AT_ONCE: usize = 8;
/// For one kubelet, and for all of one question. Whoever asks waits no longer than ten seconds, listing his pods included.
const LONGEST_SCRAPE: Duration = Duration::from_secs(3);
const LONGEST_ROUND: Duration = Duration::from_secs(6);
/// A node that failed is not asked again for so long.
const FAILED: Duration = Duration::from_secs(15);
/// What was read last stands for a node whose turn does not come in time, as long as it is no older.
const STANDS: Duration = Duration::from_secs(60);
/// What nothing is compared with any more goes.
const OLD: Duration = Duration::from_secs(300);

/// The kubelets as they were read last.
#[derive(Debug)]
pub(super) struct Scrapes {
    source: Arc<Source>,
    newest: Answers<String, Arc<Reading>>,
}

#[derive(Debug)]
struct Source {
    kubelets: Arc<Kubelets>,
    clock: Clock,
    /// When each was asked, whether it answered or not.
    asked: Mutex<HashMap<String, Instant>>,
    last: Mutex<HashMap<String, (Instant, Arc<Reading>)>>,
}

impl Scrapes {
    /// What is read is good for `fresh`.
    pub(super) fn new(kubelets: Arc<Kubelets>, fresh: Duration, clock: Clock) -> Self {
        let terms = Terms { failed: FAILED, late: FAILED, ..Terms::new("kubelet scrape", fresh, MOST_NODES) };
        let source = Source { kubelets, clock, asked: Mutex::default(), last: Mutex::default() };
        Self { source: Arc::new(source), newest: Answers::new(terms) }
    }

    /// Of these pods.
    pub(super) async fn pods(&self, tenant: &TenantId, placed: &Placed) -> Result<PodsUsage> {
        let nodes: BTreeSet<&str> = placed.values().map(|pod| pod.node.as_str()).filter(|n| !n.is_empty()).collect();
        let readings = self.read(nodes.into_iter().map(str::to_owned)).await?;
        let mut usage = PodsUsage::new();
        for (name, pod) in placed {
            let of = readings.get(&pod.node);
            let Some(containers) = of.and_then(|of| of.pod(tenant.namespace().as_str(), name.as_str())) else {
                continue;
            };
            yielding::charge(1 + containers.len()).await;
            let known = containers.iter().filter_map(|(name, point)| Some((name, point, point.usage()?)));
            let (mut at, mut window, mut list) = (None, Duration::ZERO, Vec::new());
            for (name, point, (rate, memory_bytes)) in known {
                at = at.max(Some(point.at()));
                window = window.max(rate.window);
                list.push(ContainerUsage { name: name.clone(), cpu_nanocores: rate.nanocores, memory_bytes });
            }
            let Some(at) = at else { continue };
            usage.insert(name.clone(), PodUsage { node: pod.node.clone(), at, window, containers: list });
        }
        Ok(usage)
    }

    /// Of all nodes.
    pub(super) async fn nodes(&self) -> Result<NodesUsage> {
        let names = self.source.kubelets.places().await?;
        let readings = self.read(names.keys().cloned()).await?;
        let usage = readings.into_iter().filter_map(|(name, reading)| {
            let (Rate { nanocores, window }, memory_bytes) = reading.node.usage()?;
            Some((name, NodeUsage { at: reading.node.at(), window, cpu_nanocores: nanocores, memory_bytes }))
        });
        Ok(usage.collect())
    }

    /// Those that answer in time. An error when none of them can be read.
    async fn read(&self, nodes: impl Iterator<Item = String>) -> Result<HashMap<String, Arc<Reading>>> {
        let clock = &self.source.clock;
        if !self.source.kubelets.is_enabled() {
            self.source.kubelets.places().await?;
        }
        let nodes = self.source.longest_ago_first(nodes.take(MOST_NODES).collect());
        let reads = nodes.clone().into_iter().map(|node| async move {
            let scrape = || {
                let (source, node) = (Arc::clone(&self.source), node.clone());
                async move { timeout(LONGEST_SCRAPE, source.scrape(&node)).await.map_err(|_| late())? }
            };
            let read = self.newest.get(&node, clock, scrape).await;
            (node, read)
        });
        let until = clock.instant() + LONGEST_ROUND;
        let mut reads = futures::stream::iter(reads).buffer_unordered(AT_ONCE);
        let (mut readings, mut failed) = (HashMap::new(), None);
        loop {
            match timeout_at(until, reads.next()).await {
                Ok(Some((node, Ok(reading)))) => {
                    readings.insert(node, Arc::clone(&*reading));
                }
                Ok(Some((node, Err(error)))) => {
                    tracing::debug!(%error, node, "a kubelet's figures cannot be read");
                    failed = Some(error);
                }
                Ok(None) => break,
                Err(_) => {
                    failed = Some(late());
                    self.source.stand_in(&nodes, &mut readings);
                    break;
                }
            }
        }
        match failed {
            Some(error) if readings.is_empty() => Err(error),
            _ => Ok(readings),
        }
    }
}

impl Source {
    fn longest_ago_first(&self, mut nodes: Vec<String>) -> Vec<String> {
        let asked = self.asked.lock();
        nodes.sort_by_cached_key(|node| asked.get(node).copied());
        nodes
    }

    fn stand_in(&self, nodes: &[String], readings: &mut HashMap<String, Arc<Reading>>) {
        let (now, last) = (self.clock.instant(), self.last.lock());
        for node in nodes.iter().filter(|node| !readings.contains_key(*node)).collect::<Vec<_>>() {
            if let Some((since, reading)) = last.get(node)
                && now.saturating_duration_since(*since) <= STANDS
            {
                readings.insert(node.clone(), Arc::clone(reading));
            }
        }
    }

    fn begins(&self, node: &str) {
        let (now, mut asked) = (self.clock.instant(), self.asked.lock());
        asked.retain(|_, at| now.saturating_duration_since(*at) < OLD);
        if asked.len() < MOST_NODES || asked.contains_key(node) {
            asked.insert(node.to_owned(), now);
        }
    }

    async fn scrape(&self, node: &str) -> Result<Arc<Reading>> {
        self.begins(node);
        let answer = self.kubelets.get(node, PATH, TEXT, LONGEST).await?;
        let gone = || Error::own(Kind::Unavailable, "the node has no kubelet that can be asked");
        let mut answer = answer.ok_or_else(gone)?.success()?;
        let (mut lines, mut reading, now) = (Lines::new(LONGEST_LINE), Reading::default(), self.clock.now());
        while let Some(piece) = answer.chunk().await? {
            lines.push(&piece, |line| reading.line(line, now));
            yielding::charge(piece.len() / BYTES_PER_WORK).await;
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

fn late() -> Error {
    Error::own(Kind::Unavailable, "the kubelets of this cluster's nodes did not answer in time")
}
