//! Pure: the host objects of a control plane. Selectors use only [`keys::CONTROL_PLANE`], which no tenant object can
//! carry, so no tenant pod can put itself behind them.

use serde_json::{Value, json};

use crate::crd::pki;
use crate::names::keys;
use crate::operator::cluster::Cluster;

/// User and group of the control-plane image.
const USER: u32 = 65_532;
const PORT: u16 = 6443;
/// Annotation on the pod template: a change of CAs or of the token key restarts the pod.
const PKI_DIGEST: &str = "portico.dev/pki";
/// What the control plane needs. Keys of the server and front-proxy CAs, and Portico's own identities, stay out.
const MOUNTED: [&str; 10] = [
    pki::SERVER_CA,
    pki::CLIENT_CA,
    pki::CLIENT_CA_KEY,
    pki::FRONT_PROXY_CA,
    pki::SERVICE_ACCOUNT_KEY,
    pki::SERVICE_ACCOUNT_PUBLIC,
    pki::API_SERVER,
    pki::API_SERVER_KEY,
    pki::CONTROLLER_MANAGER,
    pki::CONTROLLER_MANAGER_KEY,
];

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
pub(super) fn stateful_set(cluster: &Cluster, image: &str, service_cidr: &str, pki_digest: &str) -> Value {
    let mut set = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": cluster.metadata(cluster.name()),
        "spec": {
            "replicas": 1,
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
                    "annotations": {PKI_DIGEST: pki_digest},
                },
                "spec": pod_spec(cluster, image, service_cidr),
            },
        },
    });
    if let Some(claim) = &cluster.spec.storage.volume_claim {
        let mut spec = json!({
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": claim.size}},
        });
        if !claim.class.is_empty() {
            spec["storageClassName"] = claim.class.as_str().into();
        }
        let labels = json!({keys::CONTROL_PLANE: cluster.name()});
        set["spec"]["volumeClaimTemplates"] = json!([{
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "labels": labels},
            "spec": spec,
        }]);
    }
    set
}

fn pod_spec(cluster: &Cluster, image: &str, service_cidr: &str) -> Value {
    let items: Vec<Value> = MOUNTED.iter().map(|key| json!({"key": key, "path": key})).collect();
    let mut volumes = vec![
        json!({"name": "pki", "secret": {"secretName": cluster.pki_secret(), "defaultMode": 0o440, "items": items}}),
        json!({"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
    ];
    if cluster.spec.storage.volume_claim.is_none() {
        volumes.push(json!({"name": "data", "emptyDir": {}}));
    }
    json!({
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
        "containers": [container(cluster, image, service_cidr)],
        "volumes": volumes,
    })
}

fn container(cluster: &Cluster, image: &str, service_cidr: &str) -> Value {
    let requests = with_defaults(&cluster.spec.resources.requests, &[("cpu", "50m"), ("memory", "256Mi")]);
    let mut resources = json!({"requests": requests});
    if !cluster.spec.resources.limits.is_empty() {
        resources["limits"] = json!(cluster.spec.resources.limits);
    }
    json!({
        "name": "control-plane",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "--data-dir=/data",
            "--pki-dir=/pki",
            format!("--secure-port={PORT}"),
            format!("--service-cidr={service_cidr}"),
            format!("--cluster-domain={}", cluster.spec.network.cluster_domain),
        ],
        "env": [{"name": "GOGC", "value": "50"}],
        "ports": [{"name": "https", "containerPort": PORT, "protocol": "TCP"}],
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        // Startup is watched closely, since somebody waits for it; afterwards seldom, since a probe costs CPU per tenant.
        "startupProbe": probe("/readyz", 1, 180),
        "readinessProbe": probe("/readyz", 10, 3),
        "livenessProbe": probe("/livez", 20, 6),
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "pki", "mountPath": "/pki", "readOnly": true},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    })
}

fn probe(path: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": PORT, "scheme": "HTTPS"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    })
}

/// The user's resources, or the default where the user says nothing; a limit below a default request is the user's to
/// solve by naming a request.
fn with_defaults(given: &std::collections::BTreeMap<String, String>, defaults: &[(&str, &str)]) -> Value {
    let mut all = json!(given);
    for (resource, quantity) in defaults {
        if !given.contains_key(*resource) {
            all[*resource] = (*quantity).into();
        }
    }
    all
}

fn headless_name(cluster: &Cluster) -> String {
    format!("{}-headless", cluster.name())
}

fn account_name(cluster: &Cluster) -> String {
    format!("vc-{}", cluster.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{VirtualClusterSpec, VirtualClusterStatus, VolumeClaim};
    use crate::names::TenantId;

    fn cluster() -> Cluster {
        let id = TenantId::parse("team-a", "dev").expect("id");
        let spec = VirtualClusterSpec::default();
        Cluster { id, uid: "uid-1".to_owned(), generation: 1, spec, status: VirtualClusterStatus::default() }
    }

    fn golden(file: &str, objects: &[Value]) {
        let path = format!("{}/src/operator/control_plane/golden/{file}", env!("CARGO_MANIFEST_DIR"));
        let text: String =
            objects.iter().map(|o| format!("---\n{}", serde_saphyr::to_string(o).expect("yaml"))).collect();
        if std::env::var_os("PORTICO_BLESS").is_some() {
            std::fs::write(&path, &text).expect("written");
        }
        let wanted = std::fs::read_to_string(&path).expect("golden file");
        assert!(wanted == text, "{file} differs; look at the change, then run with PORTICO_BLESS=1:\n{text}");
    }

    #[test]
    fn ephemeral() {
        let cluster = cluster();
        golden(
            "ephemeral.yaml",
            &[
                service_account(&cluster),
                service(&cluster),
                headless_service(&cluster),
                stateful_set(&cluster, "example.com/control-plane:1", "10.96.0.0/16", "abc"),
            ],
        );
    }

    #[test]
    fn with_a_claim_and_resources() {
        let mut cluster = cluster();
        cluster.spec.storage.volume_claim = Some(VolumeClaim { size: "2Gi".to_owned(), class: "fast".to_owned() });
        cluster.spec.resources.requests = [("memory".to_owned(), "1Gi".to_owned())].into();
        cluster.spec.resources.limits = [("memory".to_owned(), "2Gi".to_owned())].into();
        golden("claim.yaml", &[stateful_set(&cluster, "example.com/control-plane:1", "10.96.0.0/16", "abc")]);
    }

    #[test]
    fn keys_that_the_control_plane_does_not_need_are_not_mounted() {
        let text = stateful_set(&cluster(), "i", "10.96.0.0/16", "d").to_string();
        for key in [pki::SERVER_CA_KEY, pki::FRONT_PROXY_CA_KEY, pki::FRONT_PROXY_KEY, pki::GATEWAY_KEY] {
            assert!(!text.contains(key), "{key}");
        }
    }
}
