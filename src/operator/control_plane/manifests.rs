//! Pure: the host objects of a control plane. Selectors use only [`keys::CONTROL_PLANE`], which no tenant object can
//! carry, so no tenant pod can put itself behind them.

use crate::translate::diff::fingerprint;
use serde_json::{Value, json};

use crate::crd::{Distro, StorageKind};
use crate::names::keys;
use crate::operator::cluster::Cluster;
use crate::operator::control_plane::datastore::Datastore;
use crate::operator::control_plane::plan::{self, PORT, Plan};
use crate::operator::control_plane::{k3s, k8s};
use crate::operator::rollout;

/// User and group of the control-plane image, and of k3s, which needs no root without an agent.
const USER: u32 = 65_532;
/// Name of the volume, and of the claim template.
pub(super) const CLAIM: &str = "data";
/// Annotation on the pod template: a change of CAs or of the token key restarts the pod.
pub(super) const PKI_DIGEST: &str = "portico.dev/pki";
/// Annotation on the pod template: another database, or another password of it, restarts the pod.
pub(super) const DATASTORE_DIGEST: &str = "portico.dev/datastore";

/// The Service in front of the backend.
pub(super) fn service(cluster: &Cluster) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": cluster.metadata(cluster.name()),
        "spec": {
            "type": "ClusterIP",
            "selector": {keys::CONTROL_PLANE: cluster.name()},
            "ports": [{"name": "https", "port": 443, "targetPort": PORT, "protocol": "TCP"}],
        },
    })
}

/// The governing Service of the StatefulSet.
pub(super) fn headless_service(cluster: &Cluster) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": cluster.metadata(&headless_name(cluster)),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": {keys::CONTROL_PLANE: cluster.name()},
            "ports": [{"name": "https", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
        },
    })
}

/// An identity without rights or token: the control plane never speaks to the host.
pub(super) fn service_account(cluster: &Cluster) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": cluster.metadata(&account_name(cluster)),
        "automountServiceAccountToken": false,
    })
}

/// The control plane itself.
pub(super) fn stateful_set(plan: &Plan<'_>) -> Value {
    let cluster = plan.cluster;
    let mut annotations = json!({PKI_DIGEST: plan.pki_digest});
    if let Some(datastore) = &plan.datastore {
        annotations[DATASTORE_DIGEST] = datastore.digest.as_str().into();
    }
    let mut set = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": cluster.metadata(cluster.name()),
        "spec": {
            "replicas": cluster.spec.replicas,
            "serviceName": headless_name(cluster),
            "selector": {"matchLabels": {keys::CONTROL_PLANE: cluster.name()}},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
            "template": {
                "metadata": {
                    "labels": {
                        keys::CONTROL_PLANE: cluster.name(),
                        "app.kubernetes.io/name": "virtual-cluster",
                        "app.kubernetes.io/instance": cluster.name(),
                        "app.kubernetes.io/component": "control-plane",
                    },
                    "annotations": annotations,
                },
                "spec": pod_spec(plan),
            },
        },
    });
    if plan.datastore.is_some() {
        // Replicas do not wait for each other. Not only with two of them, since it cannot be changed later.
        set["spec"]["podManagementPolicy"] = "Parallel".into();
    }
    if plan.storage.kind == StorageKind::Volume {
        set["spec"]["volumeClaimTemplates"] = json!([claim_template(plan)]);
    }
    set["metadata"]["annotations"] = json!({
        rollout::GENERATION: cluster.generation.to_string(),
        rollout::RENDERING: rendering(&set["spec"]["template"]),
    });
    set
}

/// Digest of what Portico renders for the pod, without what shows that the owner's Secrets have changed.
fn rendering(template: &Value) -> String {
    let mut template = template.clone();
    if let Some(annotations) = template["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|key, _| ![PKI_DIGEST, DATASTORE_DIGEST].contains(&key.as_str()));
    }
    fingerprint(&template)
}

fn claim_template(plan: &Plan<'_>) -> Value {
    let storage = plan.storage;
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.size}},
    });
    if !storage.class.is_empty() {
        spec["storageClassName"] = storage.class.as_str().into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "labels": {keys::CONTROL_PLANE: plan.cluster.name()}},
        "spec": spec,
    })
}

fn pod_spec(plan: &Plan<'_>) -> Value {
    let cluster = plan.cluster;
    let mut parts = match cluster.spec.distro {
        Distro::K3s => k3s::parts(plan),
        Distro::K8s | Distro::External => k8s::parts(plan),
    };
    if plan.storage.kind != StorageKind::Volume {
        parts.volumes.push(json!({"name": CLAIM, "emptyDir": plan::folder(plan)}));
    }
    parts.volumes.extend(plan.datastore.as_ref().and_then(Datastore::volume));
    let mut spec = json!({
        "serviceAccountName": account_name(cluster),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [parts.container],
        "volumes": parts.volumes,
    });
    if !parts.init_containers.is_empty() {
        spec["initContainers"] = parts.init_containers.into();
    }
    if cluster.spec.replicas > 1 {
        let term = json!({
            "labelSelector": {"matchLabels": {keys::CONTROL_PLANE: cluster.name()}},
            "topologyKey": "kubernetes.io/hostname",
        });
        // A wish only: where there is one node, two replicas on it still survive the end of one.
        spec["affinity"] = json!({"podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}],
        }});
    }
    spec
}

fn headless_name(cluster: &Cluster) -> String {
    format!("{}-headless", cluster.name())
}

fn account_name(cluster: &Cluster) -> String {
    format!("vc-{}", cluster.name())
}
