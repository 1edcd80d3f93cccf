//! Pure: the pod of `distro: k3s`, the official image without an agent: API server, controller manager and store in
//! one process, no node, no scheduler, no add-ons.
//!
//! k3s reads CAs that it finds in its data folder and signs its own leaves with them. They are copied there by an init
//! container, not mounted: on an empty disk k3s writes its CAs from the datastore over these files, with the same
//! content, and ends when it cannot. That is every second replica, and every pod that comes anew.

use serde_json::{Value, json};

use crate::crd::{K3S_VERSION, pki};
use crate::operator::control_plane::plan::{self, PORT, Parts, Plan};

const FLAGS: [&str; 11] = [
    "--data-dir=/data",
    "--write-kubeconfig=/data/kubeconfig.yaml",
    // DNS is Portico's; RuntimeClasses are the host's.
    "--disable=coredns,local-storage,metrics-server,runtimes,servicelb,traefik",
    "--disable-agent",
    "--disable-scheduler",
    "--disable-cloud-controller",
    "--disable-network-policy",
    "--disable-helm-controller",
    "--flannel-backend=none",
    "--egress-selector-mode=disabled",
    // The endpoints of the Service kubernetes are Portico's gateway, which k3s does not know.
    "--kube-apiserver-arg=endpoint-reconciler-type=none",
];
/// Controllers that would fight the syncer, by the names that every version knows.
const DISABLED_CONTROLLERS: &str = "*,-nodeipam,-nodelifecycle,-ttl,-cloud-node-lifecycle,-persistentvolume-binder,\
                                    -attachdetach,-persistentvolume-expander";
/// Those that came later, with the minor version of Kubernetes that knows them; an unknown name ends k3s.
const LATER_CONTROLLERS: [(u32, &str); 2] =
    [(29, "taint-eviction-controller"), (33, "device-taint-eviction-controller")];
/// Since when the API server takes a user's uid from the front proxy.
const UID_HEADERS: u32 = 33;
/// Files of the PKI Secret under the names that k3s looks for in its folder.
const FILES: [(&str, &str); 7] = [
    (pki::SERVER_CA, "server-ca.crt"),
    (pki::SERVER_CA_KEY, "server-ca.key"),
    (pki::CLIENT_CA, "client-ca.crt"),
    (pki::CLIENT_CA_KEY, "client-ca.key"),
    (pki::FRONT_PROXY_CA, "request-header-ca.crt"),
    (pki::FRONT_PROXY_CA_KEY, "request-header-ca.key"),
    (pki::SERVICE_ACCOUNT_KEY, "service.key"),
];
const PLACE_FILES: &str = r#"umask 077
mkdir -p /data/server/tls
for file in /pki/*; do cat "$file" >"/data/server/tls/${file##*/}"; done"#;
/// The one member of an embedded etcd is known by the address of its pod, which a new pod has not.
const RESET_ETCD: &str = r#"[ -d /data/server/db/etcd/member ] || exit 0
rm -f /data/server/db/reset-flag
/bin/k3s "$@" --cluster-reset
rm -rf /data/server/db/reset-flag /data/server/tls-[0-9]*"#;
/// Of k3s' own environment variables.
const PREFIX: &str = "K3S";

/// Containers and volumes.
pub(super) fn parts(plan: &Plan<'_>) -> Parts {
    let items: Vec<Value> = FILES.iter().map(|(key, path)| json!({"key": key, "path": path})).collect();
    let secret = plan.cluster.pki_secret();
    let placed = json!([
        {"name": "data", "mountPath": "/data"},
        {"name": "pki", "mountPath": "/pki", "readOnly": true},
    ]);
    let mut init_containers = vec![init_container(plan, "pki", &json!(["/bin/sh", "-ec", PLACE_FILES]), &placed)];
    if plan.cluster.spec.storage.embedded_etcd {
        let command = json!(["/bin/sh", "-ec", RESET_ETCD, "k3s"]);
        let mut reset = init_container(plan, "etcd", &command, &mounts(plan).into());
        reset["args"] = arguments(plan).into();
        reset["env"] = environment(plan).into();
        init_containers.push(reset);
    }
    Parts {
        init_containers,
        container: container(plan),
        volumes: vec![
            json!({"name": "pki", "secret": {"secretName": secret, "defaultMode": 0o440, "items": items}}),
            json!({"name": "tmp", "emptyDir": {}}),
            json!({"name": "etc", "emptyDir": {}}),
        ],
    }
}

fn container(plan: &Plan<'_>) -> Value {
    json!({
        "name": "control-plane",
        "image": plan.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/k3s"],
        "args": arguments(plan),
        "env": environment(plan),
        "ports": [{"name": "https", "containerPort": PORT, "protocol": "TCP"}],
        "resources": resources(plan),
        "securityContext": plan::confined(),
        // Anonymous requests are refused except on the supervisor's own paths: whether the API server itself answers,
        // the operator asks with its identity.
        "startupProbe": plan::probe("/ping", 2, 150),
        "readinessProbe": plan::probe("/ping", 10, 3),
        "livenessProbe": plan::probe("/ping", 20, 6),
        "volumeMounts": mounts(plan),
    })
}

fn init_container(plan: &Plan<'_>, name: &str, command: &Value, mounts: &Value) -> Value {
    json!({
        "name": name,
        "image": plan.image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "resources": resources(plan),
        "securityContext": plan::confined(),
        "volumeMounts": mounts,
    })
}

fn arguments(plan: &Plan<'_>) -> Vec<String> {
    let spec = &plan.cluster.spec;
    let minor = minor(&spec.version);
    let mut args = vec!["server".to_owned()];
    args.extend(FLAGS.map(str::to_owned));
    if minor >= UID_HEADERS {
        args.push("--kube-apiserver-arg=requestheader-uid-headers=X-Remote-Uid".to_owned());
    }
    let mut controllers = DISABLED_CONTROLLERS.to_owned();
    for (_, name) in LATER_CONTROLLERS.iter().filter(|(since, _)| minor >= *since) {
        controllers.push_str(",-");
        controllers.push_str(name);
    }
    args.push(format!("--kube-controller-manager-arg=controllers={controllers}"));
    args.push(format!("--service-cidr={}", plan.service_cidr));
    args.push(format!("--cluster-domain={}", spec.network.cluster_domain));
    let (name, namespace) = (plan.cluster.name(), plan.cluster.namespace());
    for name in [plan.cluster.server_name(), format!("{name}.{namespace}"), name.to_owned(), plan.service_ip.to_owned()]
    {
        args.push(format!("--tls-san={name}"));
    }
    if spec.storage.embedded_etcd {
        args.push("--cluster-init".to_owned());
    }
    args
}

fn environment(plan: &Plan<'_>) -> Vec<Value> {
    let token = json!({"secretKeyRef": {"name": plan.cluster.pki_secret(), "key": pki::K3S_TOKEN}});
    let mut all = vec![json!({"name": "K3S_TOKEN", "valueFrom": token})];
    all.extend(plan::heap_limit(plan));
    all.extend(plan.datastore.iter().flat_map(|datastore| datastore.environment(PREFIX)));
    all
}

fn mounts(plan: &Plan<'_>) -> Vec<Value> {
    let mut all = vec![
        json!({"name": "data", "mountPath": "/data"}),
        json!({"name": "tmp", "mountPath": "/tmp"}),
        // Without an agent, too, k3s makes a node's password there.
        json!({"name": "etc", "mountPath": "/etc/rancher"}),
    ];
    all.extend(plan.datastore.as_ref().and_then(|datastore| datastore.mount()));
    all
}

fn resources(plan: &Plan<'_>) -> Value {
    plan::resources(plan, &[("cpu", "100m"), ("memory", "512Mi")])
}

/// The image's tag for a version: `+` is not allowed in one.
pub(super) fn tag(version: &str) -> String {
    let version = if version.is_empty() { K3S_VERSION } else { version };
    version.replace('+', "-")
}

/// `34` of `v1.34.4-k3s1`.
fn minor(version: &str) -> u32 {
    let of = |version: &str| version.split('.').nth(1).and_then(|minor| minor.parse().ok());
    of(version).or_else(|| of(K3S_VERSION)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(tag("v1.33.1+k3s1"), "v1.33.1-k3s1");
        assert_eq!(tag(""), K3S_VERSION);
        assert_eq!(minor("v1.28.15-k3s1"), 28);
        assert!(minor("") >= UID_HEADERS, "the default version is a new one");
    }
}
