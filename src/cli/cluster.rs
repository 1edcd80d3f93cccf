//! Reading VirtualClusters and putting their state in words.

use kube::api::Api;

use super::failure::{Failure, Outcome};
use crate::crd::{StorageKind, VirtualCluster, VirtualClusterStatus};

/// One VirtualCluster, or exit code 3 with where to look.
pub(super) async fn get(api: &Api<VirtualCluster>, namespace: &str, name: &str) -> Outcome<VirtualCluster> {
    let action = format!("read virtual cluster {name} in namespace {namespace}");
    match api.get_opt(name).await {
        Ok(Some(cluster)) => Ok(cluster),
        // get_opt swallows the difference between a missing object and a missing kind.
        Ok(None) => match api.get(name).await {
            Ok(cluster) => Ok(cluster),
            Err(error) => {
                let failure = Failure::api(&action, &error);
                Err(if failure.is_not_found() { missing(namespace, name) } else { failure })
            }
        },
        Err(error) => Err(Failure::api(&action, &error)),
    }
}

pub(super) fn missing(namespace: &str, name: &str) -> Failure {
    Failure::not_found(
        format!("there is no virtual cluster {name} in namespace {namespace}"),
        "look for it in other namespaces: portico list -A, then name its namespace with -n",
    )
}

/// Conditions that say something of a cluster that is nevertheless ready.
const ADVICE: [&str; 7] = [
    DURABLE,
    "UpToDate",
    "StoreFull",
    "ObjectsSynced",
    "NetworkPoliciesApplied",
    "NetworkPoliciesEnforced",
    "KubeconfigsReady",
];
const DURABLE: &str = "Durable";

/// Whether the status speaks of the current spec and says `Ready`.
pub(super) fn is_ready(cluster: &VirtualCluster) -> bool {
    status_of_current_spec(cluster).is_some_and(|s| s.phase == "Ready")
}

/// Whether Portico has given up on the current spec.
pub(super) fn has_failed(cluster: &VirtualCluster) -> bool {
    status_of_current_spec(cluster).is_some_and(|s| s.phase == "Failed")
}

fn status_of_current_spec(cluster: &VirtualCluster) -> Option<&VirtualClusterStatus> {
    let status = cluster.status.as_ref()?;
    (status.observed_generation >= cluster.metadata.generation.unwrap_or_default()).then_some(status)
}

/// Phase for a table.
pub(super) fn phase(cluster: &VirtualCluster) -> &str {
    if cluster.metadata.deletion_timestamp.is_some() {
        return "Deleting";
    }
    match cluster.status.as_ref().map(|s| s.phase.as_str()) {
        None | Some("") => "Pending",
        Some(phase) => phase,
    }
}

/// What is being waited for, in one sentence.
pub(super) fn message(cluster: &VirtualCluster) -> String {
    let Some(status) = &cluster.status else { return "waiting for Portico's operator".to_owned() };
    if !status.message.is_empty() {
        return status.message.clone();
    }
    let waiting = status.conditions.iter().find(|c| c.status != "True" && !ADVICE.contains(&c.r#type.as_str()));
    match waiting {
        Some(condition) => format!("{}: {}", condition.r#type, condition.message),
        None if status.phase.is_empty() => "waiting for Portico's operator".to_owned(),
        None => status.phase.clone(),
    }
}

/// Where its data is, for a table.
pub(super) fn storage(cluster: &VirtualCluster) -> String {
    match cluster.status.as_ref().and_then(|s| s.storage.as_ref()) {
        None => "-".to_owned(),
        Some(storage) => match storage.kind {
            StorageKind::Volume => storage.size.clone(),
            StorageKind::Database => "database".to_owned(),
            StorageKind::External => "external".to_owned(),
            StorageKind::Pod => "pod only".to_owned(),
        },
    }
}

/// Where its data is, in a sentence; loud when it does not outlive the control plane's pod.
pub(super) fn durability(cluster: &VirtualCluster) -> Option<String> {
    let conditions = &cluster.status.as_ref()?.conditions;
    let durable = conditions.iter().find(|c| c.r#type == DURABLE)?;
    Some(match durable.status.as_str() {
        "True" => durable.message.clone(),
        _ => format!("WARNING: {}", durable.message),
    })
}

/// Age as kubectl shows it.
pub(super) fn age(cluster: &VirtualCluster) -> String {
    let Some(created) = &cluster.metadata.creation_timestamp else { return "<unknown>".to_owned() };
    let seconds = jiff::Timestamp::now().duration_since(created.0).as_secs().max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(phase: &str, observed: i64, generation: i64) -> VirtualCluster {
        let mut cluster = VirtualCluster::new("vc", crate::crd::VirtualClusterSpec::default());
        cluster.metadata.generation = Some(generation);
        cluster.status =
            Some(VirtualClusterStatus { phase: phase.to_owned(), observed_generation: observed, ..Default::default() });
        cluster
    }

    #[test]
    fn a_status_of_an_older_spec_counts_for_nothing() {
        assert!(is_ready(&cluster("Ready", 2, 2)));
        assert!(!is_ready(&cluster("Ready", 1, 2)));
        assert!(!has_failed(&cluster("Failed", 1, 2)));
    }

    #[test]
    fn a_loss_to_come_is_loud_and_is_not_what_is_waited_for() {
        let mut cluster = cluster("Ready", 1, 1);
        assert_eq!((storage(&cluster), durability(&cluster)), ("-".to_owned(), None));
        let status = cluster.status.as_mut().expect("status");
        status.storage = Some(crate::crd::StorageStatus::default());
        status.conditions.push(crate::crd::Condition {
            r#type: DURABLE.to_owned(),
            status: "False".to_owned(),
            message: "the data is lost with the pod".to_owned(),
            ..Default::default()
        });
        assert_eq!(durability(&cluster).as_deref(), Some("WARNING: the data is lost with the pod"));
        assert_eq!(storage(&cluster), "pod only");
        assert_eq!(message(&cluster), "Ready");
    }

    #[test]
    fn without_a_status_the_operator_is_waited_for() {
        let fresh = VirtualCluster::new("vc", crate::crd::VirtualClusterSpec::default());
        assert_eq!(phase(&fresh), "Pending");
        assert!(message(&fresh).contains("operator"));
    }
}
