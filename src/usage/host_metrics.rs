//! Figures from the host's `metrics.k8s.io`, one list each.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::figures::{ContainerUsage, NodeUsage, NodesUsage, PodUsage, PodsUsage};
use super::placed::{self, Placed};
use super::quantity::{duration, nanocores};
use crate::config::Quantity;
use crate::error::{Error, Kind, Result};
use crate::kubernetes::{ApiClient, Resource, listed_path};
use crate::names::{HostName, TenantId};
use crate::runtime::yielding;

const METRICS: Resource =
    Resource { group: "metrics.k8s.io", version: "v1beta1", plural: "pods", kind: "PodMetrics", namespaced: true };
const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";
const DEADLINE: Duration = Duration::from_secs(10);
/// Ten thousand pods with some labels. A tenant whose own labels take more has no figures.
const LONGEST: usize = 16 << 20;
/// Reading so many bytes is as much work as making one record of DNS.
const BYTES_PER_WORK: usize = 128;

#[derive(Deserialize)]
struct List<T> {
    items: Option<Vec<T>>,
}

#[derive(Deserialize)]
struct Metrics {
    metadata: Metadata,
    timestamp: Timestamp,
    window: String,
    containers: Option<Vec<Container>>,
    usage: Option<Amounts>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    usage: Amounts,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Amounts {
    cpu: String,
    memory: String,
}

/// Of a tenant's pods: what carries its label there, and is one of its pods.
pub(super) async fn pods(host: &ApiClient, tenant: &TenantId, known: &Placed) -> Result<PodsUsage> {
    let path = listed_path(&METRICS, Some(tenant.namespace().as_str()), &placed::selected(tenant));
    let list: List<Metrics> = list(host, &path).await?;
    let usage = list.items.into_iter().flatten().filter_map(|item| {
        let name = HostName::parse(&item.metadata.name).ok()?;
        let pod = known.get(&name)?;
        let containers = item.containers.iter().flatten().filter_map(|container| {
            let (cpu_nanocores, memory_bytes) = container.usage.read()?;
            Some(ContainerUsage { name: container.name.clone(), cpu_nanocores, memory_bytes })
        });
        let containers = containers.collect();
        let window = duration(&item.window).unwrap_or_default();
        Some((name, PodUsage { node: pod.node.clone(), at: item.timestamp, window, containers }))
    });
    Ok(usage.collect())
}

/// Of all nodes.
pub(super) async fn nodes(host: &ApiClient) -> Result<NodesUsage> {
    let list: List<Metrics> = list(host, NODES).await?;
    let usage = list.items.into_iter().flatten().filter_map(|item| {
        let (cpu_nanocores, memory_bytes) = item.usage.as_ref()?.read()?;
        let window = duration(&item.window).unwrap_or_default();
        Some((item.metadata.name, NodeUsage { at: item.timestamp, window, cpu_nanocores, memory_bytes }))
    });
    Ok(usage.collect())
}

async fn list<T: DeserializeOwned + Send>(host: &ApiClient, path: &str) -> Result<List<T>> {
    let bytes = host.get_bounded(path, DEADLINE, LONGEST).await.map_err(|error| match error.kind() {
        Kind::TooLarge => {
            Error::client(Kind::Unavailable, "the host has more figures of this cluster than are read here")
                .because(error)
        }
        _ => error,
    })?;
    let list = serde_json::from_slice(&bytes)
        .map_err(|e| Error::host(Kind::Protocol, "a list of metrics.k8s.io cannot be read").because(e));
    yielding::charge(bytes.len() / BYTES_PER_WORK).await;
    list
}

impl Amounts {
    /// CPU and memory.
    fn read(&self) -> Option<(u64, u64)> {
        Some((nanocores(&self.cpu)?, Quantity::parse(&self.memory).ok()?.units()))
    }
}
