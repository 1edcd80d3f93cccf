//! Phase 6: the control plane of `distro: k8s` in the host namespace: ServiceAccount, two Services, one StatefulSet.

mod manifests;

use serde_json::Value;

use crate::operator::apply::{self, Mark};
use crate::operator::cluster::{Cluster, Context, During, Halt, condition};
use crate::upstream::resources::{CLAIMS, PODS, SERVICE_ACCOUNTS, SERVICES, STATEFUL_SETS};

/// Waits until nothing of a deleted namesake's control plane is left. The garbage collector takes its pod and volume last:
/// our Service would lead to that pod, and our StatefulSet would begin on that volume, with data that belongs to other
/// keys and that is about to be deleted.
pub(crate) async fn outlive_predecessor(context: &Context, cluster: &Cluster) -> Result<(), Halt> {
    let (host, namespace) = (&*context.host, cluster.namespace());
    let set = host.get(&STATEFUL_SETS, namespace, cluster.name()).await.during(condition::SERVICES)?;
    if let Some(set) = set {
        return apply::check_ours(&STATEFUL_SETS, &set, Mark::Owner(&cluster.uid)).during(condition::SERVICES);
    }
    let name = format!("{}-0", cluster.name());
    for (resource, name) in [(&PODS, name.clone()), (&CLAIMS, format!("data-{name}"))] {
        let found = host.get(resource, namespace, &name).await.during(condition::SERVICES)?;
        // A claim without an owner is one that somebody put there to be used.
        let is_leaving = found.is_some_and(|o| !o["metadata"]["deletionTimestamp"].is_null() || is_of_a_set(&o));
        if is_leaving {
            let message = format!("{} {name:?} of an earlier virtual cluster is still being deleted", resource.kind);
            return Err(Halt::waiting(condition::SERVICES, "Waiting", message));
        }
    }
    Ok(())
}

fn is_of_a_set(object: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| owners.iter().any(|owner| owner["kind"] == "StatefulSet"))
}

/// Makes the Services; yields the ClusterIP of the one in front of the backend.
pub(crate) async fn ensure_services(context: &Context, cluster: &Cluster) -> Result<String, Halt> {
    let mark = Mark::Owner(&cluster.uid);
    let (host, namespace) = (&*context.host, cluster.namespace());
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

/// Makes the ServiceAccount and StatefulSet and waits for the pod.
pub(crate) async fn ensure(
    context: &Context,
    cluster: &Cluster,
    service_cidr: &str,
    pki_digest: &str,
) -> Result<(), Halt> {
    let mark = Mark::Owner(&cluster.uid);
    let (host, namespace) = (&*context.host, cluster.namespace());
    apply::ensure(host, &SERVICE_ACCOUNTS, namespace, manifests::service_account(cluster), mark)
        .await
        .during(condition::CONTROL_PLANE)?;
    let image =
        if cluster.spec.image.is_empty() { &context.config.operator.control_plane_image } else { &cluster.spec.image };
    let desired = manifests::stateful_set(cluster, image, service_cidr, pki_digest);
    let set = apply::ensure(host, &STATEFUL_SETS, namespace, desired, mark).await.during(condition::CONTROL_PLANE)?;
    if is_ready(&set) {
        return Ok(());
    }
    let pod = host.get(&PODS, namespace, &format!("{}-0", cluster.name())).await.during(condition::CONTROL_PLANE)?;
    let (reason, message) = explain(pod.as_ref());
    Err(Halt::waiting(condition::CONTROL_PLANE, reason, message))
}

/// Ready in the newest generation.
fn is_ready(set: &Value) -> bool {
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let status = &set["status"];
    number(&status["observedGeneration"]) >= number(&set["metadata"]["generation"])
        && number(&status["readyReplicas"]) >= 1
}

/// What the control plane's pod waits for.
fn explain(pod: Option<&Value>) -> (&'static str, String) {
    let Some(pod) = pod else { return ("NoPod", "the control plane's pod is not created yet".to_owned()) };
    let status = &pod["status"];
    for condition in status["conditions"].as_array().into_iter().flatten() {
        if condition["type"] == "PodScheduled" && condition["status"] == "False" {
            let message = condition["message"].as_str().unwrap_or("no node fits");
            return ("Unschedulable", format!("the control plane's pod is not scheduled: {message}"));
        }
    }
    let container = &status["containerStatuses"][0];
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_only_in_the_newest_generation() {
        let set = |observed: i64, ready: i64| json!({"metadata": {"generation": 2}, "status": {"observedGeneration": observed, "readyReplicas": ready}});
        assert!(is_ready(&set(2, 1)));
        assert!(!is_ready(&set(1, 1)));
        assert!(!is_ready(&set(2, 0)));
        assert!(!is_ready(&json!({"metadata": {"generation": 1}})));
    }

    #[test]
    fn the_owner_reads_why_the_pod_does_not_start() {
        let pod = json!({"status": {"containerStatuses": [{"state": {"waiting": {
            "reason": "ErrImagePull", "message": "no such image"}}}]}});
        let (reason, message) = explain(Some(&pod));
        assert_eq!(reason, "PodFailing");
        assert!(message.contains("ErrImagePull: no such image"));
        assert_eq!(explain(None).0, "NoPod");
    }
}
