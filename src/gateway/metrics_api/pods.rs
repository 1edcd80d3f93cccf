//! `PodMetrics`: the tenant's pods, each with the figures of the host pod that stands for it.

use bytes::Bytes;

use super::discovery;
use super::figures::PodFigures;
use super::listed::{self, Shown};
use super::written::{self, Amounts, Container, List, Measured, Metrics};
use crate::error::status::Status;
use crate::error::{Error, Result, Side};
use crate::gateway::aggregator::Asked;
use crate::kubernetes::ListOptions;
use crate::kubernetes::resources::PODS;
use crate::names::{self, ClusterName, Limit, VirtualName, VirtualNamespace};
use crate::usage::PodUsage;

/// One of them, or a list.
pub(super) async fn answer(
    asked: &Asked<'_>,
    known: &PodFigures,
    namespace: Option<&str>,
    name: Option<&str>,
    options: &ListOptions,
) -> Result<Bytes> {
    let (cluster, now) = (asked.tenant.id.name(), asked.connection.gateway.clock.now());
    if let (Some(namespace), Some(name)) = (namespace, name) {
        let mut answer = None;
        let is_there = listed::one(asked, &PODS, Some(namespace), name, |pod| {
            let metrics = metrics(pod, known, cluster, now);
            answer = metrics.map(|metrics| written::object(metrics, "PodMetrics")).transpose()?;
            Ok(())
        });
        if !is_there.await? {
            return Err(not_found("", "pods", name));
        }
        return answer.ok_or_else(|| not_found(discovery::GROUP, "podmetrics", &format!("{namespace}/{name}")));
    }
    let mut list = List::new("PodMetricsList", &asked.state.buffers)?;
    listed::each(asked, &PODS, namespace, options, |pod| match metrics(pod, known, cluster, now) {
        Some(metrics) => list.add(&metrics),
        None => Ok(()),
    })
    .await?;
    list.done()
}

/// `None`: nothing is known of it (yet), or it has ended.
fn metrics<'a>(
    pod: &'a Shown<'a>,
    known: &'a PodFigures,
    cluster: &ClusterName,
    now: jiff::Timestamp,
) -> Option<Metrics<'a>> {
    let usage = of_host(pod, known, cluster)?;
    let own = usage.containers.iter().filter(|container| pod.has_container(&container.name));
    let containers: Vec<Container<'_>> = own
        .map(|container| Container {
            name: &container.name,
            usage: Amounts::new(container.cpu_nanocores, container.memory_bytes),
        })
        .collect();
    let measured = Measured { at: usage.at, window: usage.window, now };
    (!containers.is_empty()).then(|| Metrics::of_pod(&pod.metadata, measured, containers))
}

/// A pod that vcluster made keeps its name.
fn of_host<'a>(pod: &Shown<'_>, known: &'a PodFigures, cluster: &ClusterName) -> Option<&'a PodUsage> {
    let name = VirtualName::parse(&pod.metadata.name).ok()?;
    let namespace = VirtualNamespace::parse(&pod.metadata.namespace).ok()?;
    let legacy = || known.get(&names::legacy_host_name(&name, &namespace, cluster)?);
    known.get(&names::host_name(&name, &namespace, cluster, Limit::Subdomain)).or_else(legacy)
}

/// In metrics-server's words.
pub(super) fn not_found(group: &str, resource: &str, name: &str) -> Error {
    Error::from_status(Side::Client, Status::not_found(group, resource, name))
}
