//! Phase 6: the control plane of `distro: k8s` and `k3s` in the host namespace: ServiceAccount, two Services, one
//! StatefulSet.

mod datastore;
mod k3s;
mod k8s;
mod manifests;
mod plan;
mod stuck;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde_json::Value;

use crate::config::Quantity;
use crate::crd::{Distro, StorageKind, StorageStatus, VirtualClusterStatus};
use crate::error::Result;
use crate::kubernetes::resources::{CLAIMS, PODS, SERVICE_ACCOUNTS, SERVICES, STATEFUL_SETS};
use crate::names::keys;
use crate::operator::apply::{self, Mark};
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::{During, Halt, condition};
use crate::operator::host::name_of;
use crate::operator::pki;
use crate::operator::rollout::{self, Change};
use crate::operator::secret::Data;

pub(crate) use plan::{PORT as API_PORT, authority};

/// Waits until nothing of a deleted namesake's control plane is left. The garbage collector takes its pod and volume last:
/// our Service would lead to that pod, and our StatefulSet would begin on that volume, with data that belongs to other
/// keys and that is about to be deleted.
pub(crate) async fn outlive_predecessor(context: &Context, cluster: &Cluster) -> Result<(), Halt> {
    let (host, namespace) = (&context.host, cluster.namespace());
    if find(context, cluster).await.during(condition::SERVICES)?.is_some() {
        return Ok(());
    }
    for pod in pods(context, cluster).await.during(condition::SERVICES)? {
        wait_out(PODS.kind, &pod)?;
    }
    if let Some(claim) = host.get(&CLAIMS, namespace, &claim_name(cluster)).await.during(condition::SERVICES)? {
        wait_out(CLAIMS.kind, &claim)?;
    }
    Ok(())
}

/// The StatefulSet, when there is one; one that is not this cluster's is an error.
pub(crate) async fn find(context: &Context, cluster: &Cluster) -> Result<Option<Value>> {
    let set = context.host.get(&STATEFUL_SETS, cluster.namespace(), cluster.name()).await?;
    if let Some(set) = &set {
        apply::check_ours(&STATEFUL_SETS, set, Mark::Owner(&cluster.uid))?;
    }
    Ok(set)
}

/// Digest of the PKI with which a StatefulSet was made.
pub(crate) fn pki_of(set: &Value) -> Option<&str> {
    set["spec"]["template"]["metadata"]["annotations"][manifests::PKI_DIGEST].as_str()
}

/// Name of the claim with the data: the one pod's.
pub(crate) fn claim_name(cluster: &Cluster) -> String {
    format!("{}-{}-0", manifests::CLAIM, cluster.name())
}

fn wait_out(kind: &str, object: &Value) -> Result<(), Halt> {
    // One without an owner is one that somebody put there to be used.
    if object["metadata"]["deletionTimestamp"].is_null() && !is_of_a_set(object) {
        return Ok(());
    }
    let message = format!("{kind} {:?} of an earlier virtual cluster is still being deleted", name_of(object));
    Err(Halt::waiting(condition::SERVICES, "Waiting", message))
}

async fn pods(context: &Context, cluster: &Cluster) -> Result<Vec<Value>> {
    let labels = format!("{}={}", keys::CONTROL_PLANE, cluster.name());
    context.host.list(&PODS, cluster.namespace(), &labels).await
}

/// Address of a pod of the control plane that is ready.
pub(crate) async fn address(context: &Context, cluster: &Cluster) -> Result<Option<IpAddr>> {
    let pods = pods(context, cluster).await?;
    let ready = pods.iter().filter(|pod| stuck::is_ready(pod) && pod["metadata"]["deletionTimestamp"].is_null());
    Ok(ready.filter_map(|pod| pod["status"]["podIP"].as_str()?.parse().ok()).next())
}

fn is_of_a_set(object: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| owners.iter().any(|owner| owner["kind"] == "StatefulSet"))
}

/// Makes the Services; yields the ClusterIP of the one in front of the backend.
pub(crate) async fn ensure_services(context: &Context, cluster: &Cluster) -> Result<String, Halt> {
    let mark = Mark::Owner(&cluster.uid);
    let (host, namespace) = (&context.host, cluster.namespace());
    let front = apply::ensure(host, &SERVICES, namespace, manifests::service(cluster), mark)
        .await
        .during(condition::SERVICES)?;
    apply::ensure(host, &SERVICES, namespace, manifests::headless_service(cluster), mark)
        .await
        .during(condition::SERVICES)?;
    match front["spec"]["clusterIP"].as_str() {
        Some(ip) if !ip.is_empty() && ip != "None" => Ok(ip.to_owned()),
        _ => Err(Halt::waiting(condition::SERVICES, "NoAddress", "the control plane's Service has no cluster IP yet")),
    }
}

/// What a control plane is made of, beside its spec.
pub(crate) struct Ingredients<'a> {
    pub service_cidr: String,
    /// ClusterIP of the Service in front of the backend.
    pub service_ip: &'a str,
    /// ClusterIP of the Service in front of the gateway, for this cluster.
    pub gateway_ip: &'a str,
    pub pki: &'a Data,
    pub storage: &'a StorageStatus,
}

/// Makes the ServiceAccount and StatefulSet and waits for a pod. Of several replicas one suffices: more are for the case
/// that it goes. `existing` is the StatefulSet as it was found; it stays as it is while a wave of updates holds it.
pub(crate) async fn ensure(
    context: &Context,
    cluster: &Cluster,
    with: Ingredients<'_>,
    existing: Option<Value>,
    next: &mut VirtualClusterStatus,
) -> Result<(), Halt> {
    let mark = Mark::Owner(&cluster.uid);
    let (host, namespace) = (&context.host, cluster.namespace());
    let datastore = datastore::find(context, cluster, with.pki).await?;
    apply::ensure(host, &SERVICE_ACCOUNTS, namespace, manifests::service_account(cluster), mark)
        .await
        .during(condition::CONTROL_PLANE)?;
    let (image, pki_digest) = (image(context, cluster), pki::digest(with.pki));
    let plan = plan::Plan {
        cluster,
        image: &image,
        service_cidr: &with.service_cidr,
        service_ip: with.service_ip,
        gateway_ip: with.gateway_ip,
        pki_digest: &pki_digest,
        datastore,
        storage: with.storage,
        grown: claimed(context, cluster, with.storage).await?,
        config: &context.config.operator,
    };
    let desired = manifests::stateful_set(&plan);
    let set = match existing {
        Some(set) if !may_change(context, cluster, &set, &desired, next).await? => set,
        existing => apply::ensure_over(host, &STATEFUL_SETS, namespace, desired, mark, existing)
            .await
            .during(condition::CONTROL_PLANE)?,
    };
    if is_ready(&set) {
        return Ok(());
    }
    let pods = pods(context, cluster).await.during(condition::CONTROL_PLANE)?;
    stuck::unstick(context, &set, &pods, namespace).await.during(condition::CONTROL_PLANE)?;
    let (reason, message) = explain(&pods);
    Err(Halt::waiting(condition::CONTROL_PLANE, reason, message))
}

/// What the claim asks for by now. Not what the volume has: some have a little more from their beginning, for which no
/// control plane needs to start again.
async fn claimed(context: &Context, cluster: &Cluster, storage: &StorageStatus) -> Result<Option<Quantity>, Halt> {
    if storage.kind != StorageKind::Volume {
        return Ok(None);
    }
    let claim = context.host.get(&CLAIMS, cluster.namespace(), &claim_name(cluster)).await;
    let claim = claim.during(condition::CONTROL_PLANE)?.unwrap_or_default();
    let size = claim["spec"]["resources"]["requests"]["storage"].as_str();
    Ok(size.and_then(|size| Quantity::parse(size).ok()))
}

async fn may_change(
    context: &Context,
    cluster: &Cluster,
    set: &Value,
    desired: &Value,
    next: &mut VirtualClusterStatus,
) -> Result<bool, Halt> {
    let inputs = [manifests::PKI_DIGEST, manifests::DATASTORE_DIGEST];
    let change = Change::between(set, desired, &inputs, cluster);
    rollout::admit(context, cluster, change, is_ready(set), next).await
}

fn image(context: &Context, cluster: &Cluster) -> String {
    let (config, spec) = (&context.config.operator, &cluster.spec);
    match spec.distro {
        _ if !spec.image.is_empty() => spec.image.clone(),
        Distro::K3s => format!("{}:{}", config.k3s_image, k3s::tag(&spec.version)),
        Distro::K8s | Distro::External => config.control_plane_image.clone(),
    }
}

/// Ready in the newest generation, by pods that are of it: an older one would name an older version.
fn is_ready(set: &Value) -> bool {
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let status = &set["status"];
    number(&status["observedGeneration"]) >= number(&set["metadata"]["generation"])
        && number(&status["readyReplicas"]) >= 1
        && status["currentRevision"] == status["updateRevision"]
}

/// What is being waited for, by the first pod that is not ready.
fn explain(pods: &[Value]) -> (&'static str, String) {
    if pods.is_empty() {
        return ("NoPod", "the control plane's pod is not created yet".to_owned());
    }
    match pods.iter().find(|pod| !stuck::is_ready(pod)) {
        Some(pod) => explain_pod(pod),
        None => ("Updating", "the control plane's pods are being replaced by those of the new spec".to_owned()),
    }
}

fn explain_pod(pod: &Value) -> (&'static str, String) {
    let status = &pod["status"];
    for condition in status["conditions"].as_array().into_iter().flatten() {
        if condition["type"] == "PodScheduled" && condition["status"] == "False" {
            let message = condition["message"].as_str().unwrap_or("no node fits");
            return ("Unschedulable", format!("the control plane's pod is not scheduled: {message}"));
        }
    }
    // Until all of them have ended the container itself only waits for them.
    let init = status["initContainerStatuses"].as_array().into_iter().flatten();
    let unfinished = init.filter(|container| container["ready"] == false).find(|c| !c["state"]["waiting"].is_null());
    let container = unfinished.unwrap_or(&status["containerStatuses"][0]);
    let waiting = &container["state"]["waiting"];
    if let Some(reason) = waiting["reason"].as_str().filter(|r| *r != "ContainerCreating" && *r != "PodInitializing") {
        let detail = waiting["message"].as_str().map(|m| format!(": {m}")).unwrap_or_default();
        return ("PodFailing", format!("the control plane's container waits: {reason}{detail}"));
    }
    if !container["state"]["running"].is_null() {
        return ("Starting", "the control plane's container runs and is not ready yet".to_owned());
    }
    ("Creating", "the control plane's pod is being created".to_owned())
}
