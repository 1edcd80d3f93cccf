//! `NodeMetrics`: the nodes that the tenant sees, each with what its own pods use of it, or with the host's figures where the
//! admin shows those.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::discovery;
use super::figures::Figures;
use super::listed::{self, Shown};
use super::pods::not_found;
use super::written::{self, Amounts, List, Measured, Metrics};
use crate::config::policy::NodeUsage as Whose;
use crate::error::Result;
use crate::gateway::aggregator::Asked;
use crate::kubernetes::ListOptions;
use crate::kubernetes::resources::NODES;
use crate::tenant::Tenant;
use crate::usage::NodeUsage;

/// Figures of nodes, and whether a node without any is one on which nothing of the tenant runs.
#[derive(Debug)]
pub(super) struct OfNodes {
    by_name: BTreeMap<String, NodeUsage>,
    others_are_idle: bool,
}

/// Those that this tenant may see.
pub(super) async fn figures(tenant: &Tenant, figures: &dyn Figures) -> Result<OfNodes> {
    if tenant.policy.node_usage() == Whose::Real {
        let by_name = BTreeMap::clone(&*figures.nodes().await?);
        return Ok(OfNodes { by_name, others_are_idle: false });
    }
    let mut by_name: BTreeMap<String, NodeUsage> = BTreeMap::new();
    for pod in figures.pods(tenant).await?.values().filter(|pod| !pod.node.is_empty()) {
        let node = by_name.entry(pod.node.clone()).or_insert(NodeUsage {
            at: pod.at,
            window: pod.window,
            cpu_nanocores: 0,
            memory_bytes: 0,
        });
        for container in &pod.containers {
            node.cpu_nanocores = node.cpu_nanocores.saturating_add(container.cpu_nanocores);
            node.memory_bytes = node.memory_bytes.saturating_add(container.memory_bytes);
        }
        if pod.at > node.at {
            (node.at, node.window) = (pod.at, pod.window);
        }
    }
    Ok(OfNodes { by_name, others_are_idle: true })
}

/// One of them, or a list.
pub(super) async fn answer(
    asked: &Asked<'_>,
    known: &OfNodes,
    name: Option<&str>,
    options: &ListOptions,
) -> Result<Bytes> {
    let now = asked.connection.gateway.clock.now();
    if let Some(name) = name {
        let mut answer = None;
        let is_there = listed::one(asked, &NODES, None, name, |node| {
            let metrics = metrics(node, known, now);
            answer = metrics.map(|metrics| written::object(metrics, "NodeMetrics")).transpose()?;
            Ok(())
        });
        if !is_there.await? {
            return Err(not_found("", "nodes", name));
        }
        return answer.ok_or_else(|| not_found(discovery::GROUP, "nodemetrics", name));
    }
    let mut list = List::new("NodeMetricsList", &asked.state.buffers)?;
    listed::each(asked, &NODES, None, options, |node| match metrics(node, known, now) {
        Some(metrics) => list.add(&metrics),
        None => Ok(()),
    })
    .await?;
    list.done()
}

fn metrics<'a>(node: &'a Shown<'a>, known: &OfNodes, now: Timestamp) -> Option<Metrics<'a>> {
    let idle = known.others_are_idle.then_some((now, Duration::ZERO, 0, 0));
    let figures = known.by_name.get(&*node.metadata.name);
    let figures = figures.map(|usage| (usage.at, usage.window, usage.cpu_nanocores, usage.memory_bytes));
    let (at, window, cpu, memory) = figures.or(idle)?;
    Some(Metrics::of_node(&node.metadata, Measured { at, window, now }, Amounts::new(cpu, memory)))
}
