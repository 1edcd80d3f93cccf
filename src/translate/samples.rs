//! Virtual pods as users and controllers write them, and what an API server makes of an object that it stores: for tests
//! of the way down and back.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Names of pods: short, of a StatefulSet, with a dot, and such as can only be hashed.
const NAMES: &[&str] = &["web", "web-0", "a.b", "web-7d9f6c5b4-x2x9k", "a-x-b", "x-x-x"];
const ACCOUNT_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Pods with any of the parts below.
pub(crate) fn pods() -> impl Strategy<Value = Value> {
    let metadata = (
        prop::sample::select(NAMES.to_vec()),
        prop::sample::select(vec!["default", "b-x-c"]),
        prop::collection::btree_map("(app|tier|pod-template-hash)", "(web|vc1|vc1-x-vc1|[a-z]{0,4})", 0..4),
        prop::collection::btree_map("(note|example[.]org/a)", "[ -~]{0,8}", 0..3),
    );
    let spec = (
        prop::collection::vec(container(), 1..3),
        prop::collection::vec(container(), 0..2),
        Just(volumes()).prop_shuffle(),
        0_usize..=volumes().len(),
        prop::sample::subsequence(parts(), 0..6),
    );
    (metadata, spec).prop_map(|((name, namespace, labels, annotations), (containers, init, volumes, count, parts))| {
        let volumes: Vec<Value> = volumes.into_iter().take(count).collect();
        let mut spec = json!({
            "containers": numbered("c", containers, &volumes), "initContainers": numbered("i", init, &volumes),
            "volumes": volumes, "serviceAccountName": "builder", "restartPolicy": "Always",
        });
        for part in parts {
            for (field, value) in part.as_object().expect("object") {
                spec[field] = value.clone();
            }
        }
        // As API servers show it.
        if let Some(spec) = spec.as_object_mut() {
            spec.retain(|_, value| value.as_array().is_none_or(|items| !items.is_empty()));
        }
        let annotations = if annotations.is_empty() { Value::Null } else { json!(annotations) };
        json!({
            "metadata": {"name": name, "namespace": namespace, "uid": "u1", "labels": labels, "annotations": annotations},
            "spec": spec,
        })
    })
}

/// What an API server of the host adds to what it is sent, a kubelet that runs it included.
pub(crate) fn stored(host: &Value) -> Value {
    let mut object = host.clone();
    let fields = json!({"f:metadata": owned(&host["metadata"]), "f:spec": owned(&host["spec"])});
    object["metadata"]["managedFields"] = json!([{"manager": "portico", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
    object["metadata"]["uid"] = json!("host-uid");
    object["metadata"]["resourceVersion"] = json!("7");
    object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    if host["kind"] == "Pod" {
        let defaults = json!({"nodeName": "node-1", "schedulerName": "default-scheduler", "serviceAccount": "default",
            "serviceAccountName": "default", "priority": 0, "preemptionPolicy": "PreemptLowerPriority",
            "terminationGracePeriodSeconds": 30, "securityContext": {}});
        for (field, value) in defaults.as_object().expect("object") {
            object["spec"][field] = value.clone();
        }
        for container in object["spec"]["containers"].as_array_mut().expect("containers") {
            container["terminationMessagePath"] = json!("/dev/termination-log");
            container["imagePullPolicy"] = json!("IfNotPresent");
        }
        object["status"] = json!({"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "podIP": "10.1.1.1"});
    }
    object
}

/// What a webhook of the host puts into a pod.
pub(crate) fn injected(mut stored: Value) -> Value {
    let spec = &mut stored["spec"];
    let list = |value: &mut Value| value.as_array().cloned().unwrap_or_default();
    let volume = json!({"name": "hosts-own", "secret": {"secretName": "admins-key"}});
    spec["volumes"] = std::iter::once(volume).chain(list(&mut spec["volumes"])).collect();
    for container in spec["containers"].as_array_mut().expect("containers") {
        let mounts = list(&mut container["volumeMounts"]);
        container["volumeMounts"] =
            mounts.into_iter().chain([json!({"name": "hosts-own", "mountPath": "/hosts-own"})]).collect();
        let env = list(&mut container["env"]);
        container["env"] = env.into_iter().chain([json!({"name": "HOSTS_OWN", "value": "secret"})]).collect();
    }
    let proxy = json!({"name": "hosts-own-proxy", "image": "proxy", "env": [{"name": "KEY", "value": "secret"}]});
    spec["containers"] = list(&mut spec["containers"]).into_iter().chain([proxy]).collect();
    stored["metadata"]["labels"]["hosts-own"] = json!("1");
    stored["metadata"]["annotations"]["hosts-own"] = json!("1");
    stored
}

/// `fieldsV1` of everything in a value, with the keys of the lists that have them.
fn owned(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(key, inner)| (format!("f:{key}"), owned(inner))).collect(),
        Value::Array(items) => {
            let keyed = |item: &Value| {
                let key = ["mountPath", "devicePath", "name"].into_iter().find(|key| item[*key].is_string())?;
                Some((format!("k:{}", json!({key: item[key]})), owned(item)))
            };
            items.iter().map(keyed).collect::<Option<Map<_, _>>>().map_or_else(|| json!({}), Value::Object)
        }
        _ => json!({}),
    }
}

fn numbered(prefix: &str, containers: Vec<Value>, volumes: &[Value]) -> Vec<Value> {
    let numbered = containers.into_iter().enumerate().map(|(at, mut container)| {
        container["name"] = json!(format!("{prefix}{at}"));
        let path = |name: &str| if name == "api" { ACCOUNT_MOUNT.to_owned() } else { format!("/{name}") };
        let mount = |v: &Value| json!({"name": v["name"], "mountPath": path(v["name"].as_str().unwrap_or_default())});
        let mounts: Vec<Value> = volumes.iter().map(mount).collect();
        if !mounts.is_empty() {
            container["volumeMounts"] = json!(mounts);
        }
        container
    });
    numbered.collect()
}

fn container() -> impl Strategy<Value = Value> {
    let field = |path: &str| json!({"name": path.to_uppercase(), "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let env = vec![
        json!({"name": "PLAIN", "value": "1"}),
        // Taken from what is generated, and looking like it.
        json!({"name": "DB_SERVICE_HOST", "value": "mine"}),
        json!({"name": "ZZ_SERVICE_PORT", "value": "5432"}),
        json!({"name": "KUBERNETES_SERVICE_HOST", "value": "api.example.org"}),
        field("metadata.name"),
        field("metadata.namespace"),
        field("metadata.uid"),
        field("spec.serviceAccountName"),
        field("metadata.labels['app']"),
        field("status.podIP"),
        json!({"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "k"}}}),
        json!({"name": "SET", "valueFrom": {"configMapKeyRef": {"name": "a-x-settings", "key": "k", "optional": true}}}),
    ];
    let other = vec![
        json!({"envFrom": [{"configMapRef": {"name": "settings"}}, {"prefix": "P", "secretRef": {"name": "creds"}}]}),
        json!({"resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}}}),
        json!({"ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}]}),
        json!({"livenessProbe": {"httpGet": {"path": "/", "port": "http"}}, "readinessProbe": {"exec": {"command": ["a"]}}}),
        json!({"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}, "securityContext": {"runAsNonRoot": true}}),
        json!({"command": ["a", "$(PLAIN)"], "args": ["b"], "workingDir": "/", "tty": true}),
    ];
    let image = prop::sample::select(vec!["nginx:1", "busybox", "mirror/busybox"]);
    (image, prop::sample::subsequence(env, 0..8), prop::sample::subsequence(other, 0..4)).prop_map(
        |(image, env, other)| {
            let mut container = json!({"image": image});
            if !env.is_empty() {
                container["env"] = json!(env);
            }
            for (field, value) in other.iter().filter_map(Value::as_object).flatten() {
                container[field] = value.clone();
            }
            container
        },
    )
}

fn volumes() -> Vec<Value> {
    let shows = |path: &str| json!({"path": path, "fieldRef": {"fieldPath": path}});
    vec![
        json!({"name": "api", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [shows("metadata.namespace")]}},
        ]}}),
        json!({"name": "vault", "projected": {"sources": [
            {"secret": {"name": "creds"}},
            {"serviceAccountToken": {"path": "t", "audience": "https://vault,token=x", "expirationSeconds": 7200}},
        ]}}),
        json!({"name": "scratch", "emptyDir": {}}),
        json!({"name": "settings", "configMap": {"name": "a-x-settings", "defaultMode": 420}}),
        json!({"name": "creds", "secret": {"secretName": "creds", "items": [{"key": "k", "path": "k"}]}}),
        json!({"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}),
        json!({"name": "own", "ephemeral": {"volumeClaimTemplate": {}}}),
        json!({"name": "info", "downwardAPI": {"items": [shows("metadata.labels"), shows("metadata.annotations")]}}),
        json!({"name": "share", "nfs": {"server": "s", "path": "/p"}}),
        json!({"name": "files", "azureFile": {"secretName": "creds", "shareName": "s"}}),
    ]
}

/// Fields of a pod's spec.
fn parts() -> Vec<Value> {
    let app = json!({"matchLabels": {"app": "vc1"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]});
    let term = |rest: &Value| {
        let mut term = json!({"topologyKey": "t", "labelSelector": app});
        for (field, value) in rest.as_object().into_iter().flatten() {
            term[field] = value.clone();
        }
        term
    };
    let some = json!({"namespaceSelector": {"matchLabels": {"team": "b"}}, "namespaces": ["z"]});
    let none = json!({"namespaceSelector": {"matchLabels": {"team": "none"}}});
    vec![
        json!({"subdomain": "web", "hostname": "web-0"}),
        json!({"hostname": "chosen"}),
        json!({"dnsConfig": {"nameservers": ["192.0.2.1"], "searches": ["example.org"], "options": [{"name": "ndots", "value": "1"}]}}),
        json!({"dnsPolicy": "Default"}),
        json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
        json!({"imagePullSecrets": [{"name": "pull"}]}),
        json!({"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["a"]}]}),
        json!({"tolerations": [{"key": "a", "operator": "Exists"}], "priorityClassName": "high"}),
        json!({"nodeSelector": {"disk": "ssd"}, "terminationGracePeriodSeconds": 7, "activeDeadlineSeconds": 9}),
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            term(&json!({})), term(&json!({"namespaces": ["y"]})), term(&json!({"namespaceSelector": {}})), term(&some), term(&none),
            {"topologyKey": "t", "labelSelector": {"matchLabels": {"portico.dev/cluster": "other"}}},
            {"topologyKey": "t", "labelSelector": {}}, {"topologyKey": "t"},
        ]}, "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term(&json!({}))}]}}}),
        json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "t", "labelSelector": app, "whenUnsatisfiable": "DoNotSchedule"}]}),
    ]
}
