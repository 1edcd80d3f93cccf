//! Pure: the pod of `distro: k8s`, Portico's own control-plane image.

use serde_json::{Value, json};

use crate::crd::pki;
use crate::operator::control_plane::plan::{self, PORT, Parts, Plan};

/// What the control plane needs. Keys of the server and front-proxy CAs, and Portico's own identities, stay out.
const MOUNTED: [&str; 12] = [
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
    pki::AGGREGATOR,
    pki::AGGREGATOR_KEY,
];
/// Of the variables that say where the database is.
const PREFIX: &str = "PORTICO";

/// Container and volumes.
pub(super) fn parts(plan: &Plan<'_>) -> Parts {
    let items: Vec<Value> = MOUNTED.iter().map(|key| json!({"key": key, "path": key})).collect();
    let secret = plan.cluster.pki_secret();
    Parts {
        init_containers: Vec::new(),
        container: container(plan),
        volumes: vec![
            json!({"name": "pki", "secret": {"secretName": secret, "defaultMode": 0o440, "items": items}}),
            json!({"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
        ],
    }
}

fn container(plan: &Plan<'_>) -> Value {
    let mut args = vec![
        "--data-dir=/data".to_owned(),
        "--pki-dir=/pki".to_owned(),
        format!("--secure-port={PORT}"),
        format!("--service-cidr={}", plan.service_cidr),
        format!("--cluster-domain={}", plan.cluster.spec.network.cluster_domain),
    ];
    let mut environment = vec![json!({"name": "GOGC", "value": "50"})];
    environment.extend(plan::heap_limit(plan));
    // Not its flag: an image from before it, which spec.image may name, would not start.
    let bound = plan::store_bound(plan);
    environment.extend(bound.map(|bytes| json!({"name": "PORTICO_MAX_STORE_BYTES", "value": bytes.to_string()})));
    // The same of who relays the tenant's metrics: an older image relays nothing, and is not asked to.
    environment.push(json!({"name": "PORTICO_METRICS_ADDRESS", "value": plan::authority(plan.gateway_ip)}));
    let mut mounts = vec![
        json!({"name": "data", "mountPath": "/data"}),
        json!({"name": "pki", "mountPath": "/pki", "readOnly": true}),
        json!({"name": "tmp", "mountPath": "/tmp"}),
    ];
    if let Some(datastore) = &plan.datastore {
        // Also with one replica: while there become two, the first still runs as it was started.
        args.push("--leader-elect=true".to_owned());
        environment.extend(datastore.environment(PREFIX));
        mounts.extend(datastore.mount());
    }
    json!({
        "name": "control-plane",
        "image": plan.image,
        "imagePullPolicy": "IfNotPresent",
        "args": args,
        "env": environment,
        "ports": [{"name": "https", "containerPort": PORT, "protocol": "TCP"}],
        "resources": plan::resources(plan, &[("cpu", "50m"), ("memory", "256Mi")]),
        "securityContext": plan::confined(),
        // Startup is watched closely, since somebody waits for it; afterwards seldom, since a probe costs CPU per tenant.
        "startupProbe": plan::probe("/readyz", 1, 180),
        "readinessProbe": plan::probe("/readyz", 10, 3),
        "livenessProbe": plan::probe("/livez", 20, 6),
        "volumeMounts": mounts,
    })
}
