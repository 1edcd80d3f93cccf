//! Host objects as vcluster 0.3.0 makes them for virtual ones: the ground of every adoption test.
//!
//! Written from `names`' point of view once more and on its own, so that it can catch mistakes there. Pure JSON; what an API
//! server adds (uid, status, addresses) the caller adds. Not built: Docker-style links of other Services.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// One instance of vcluster 0.3.0.
#[derive(Debug, Clone)]
pub struct Vcluster {
    /// `--suffix`.
    pub suffix: String,
    /// Where it and all its objects live.
    pub namespace: String,
    /// Name and uid of `--owning-statefulset`.
    pub stateful_set: (String, String),
    /// ClusterIP of `--service-name`.
    pub api: String,
    /// ClusterIP of the copy of `kube-system/kube-dns`.
    pub dns: String,
}

impl Vcluster {
    /// Host name of a virtual object.
    pub fn name(&self, namespace: &str, name: &str) -> String {
        safe(&format!("{name}-x-{namespace}-x-{}", self.suffix))
    }

    /// Host key of a tenant's label.
    pub fn label_key(&self, key: &str) -> String {
        safe(&format!("vcluster.loft.sh/label-{}-x-{}", self.suffix, &hex(key)[..10]))
    }

    /// Value of the namespace label.
    pub fn namespace_label(&self, namespace: &str) -> String {
        safe(&format!("{namespace}-x-{}", self.suffix))
    }

    /// Any kind whose fields cross unchanged: ConfigMap, Secret, PersistentVolumeClaim, and what the functions below begin
    /// with.
    pub fn copy(&self, object: &Value) -> Value {
        let mut host = object.clone();
        host["metadata"] = self.metadata(object);
        host.as_object_mut().expect("object").remove("status");
        host
    }

    fn metadata(&self, object: &Value) -> Value {
        let (namespace, name) = (text(object, "namespace"), text(object, "name"));
        let mut labels = Map::new();
        for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
            let key = if key == "vcluster.loft.sh/namespace" { key.clone() } else { self.label_key(key) };
            labels.insert(key, value.clone());
        }
        labels.insert("vcluster.loft.sh/managed-by".to_owned(), json!(self.suffix));
        labels.entry("vcluster.loft.sh/namespace").or_insert(json!(self.namespace_label(namespace)));
        let mut metadata = json!({
            "name": self.name(namespace, name),
            "namespace": self.namespace,
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "StatefulSet", "name": self.stateful_set.0, "uid": self.stateful_set.1,
            }],
        });
        if let Some(annotations) = object["metadata"].get("annotations") {
            metadata["annotations"] = annotations.clone();
        }
        metadata
    }

    /// Secrets of accounts become ordinary ones.
    pub fn secret(&self, object: &Value) -> Value {
        let mut host = self.copy(object);
        if host["type"] == "kubernetes.io/service-account-token" {
            host["type"] = json!("Opaque");
        }
        host
    }

    /// Never a selector. The address is the virtual Service's, as it is once both are made.
    pub fn service(&self, object: &Value) -> Value {
        let mut host = self.copy(object);
        host["spec"].as_object_mut().expect("spec").remove("selector");
        host
    }

    /// Of every Service, with or without a selector.
    pub fn endpoints(&self, object: &Value) -> Value {
        let mut host = self.copy(object);
        for subset in host["subsets"].as_array_mut().into_iter().flatten() {
            for list in ["addresses", "notReadyAddresses"] {
                for address in subset.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                    if address["targetRef"]["kind"] == "Pod" {
                        let target = &address["targetRef"];
                        let name = self.name(&field(target, "namespace"), &field(target, "name"));
                        address["targetRef"] = json!({"kind": "Pod", "name": name, "namespace": self.namespace});
                    }
                }
            }
        }
        host
    }

    /// In the form of `networking/v1` that today's API servers show.
    pub fn ingress(&self, object: &Value) -> Value {
        let mut host = self.copy(object);
        let namespace = text(object, "namespace").to_owned();
        rename(&mut host["spec"], &mut |key, value| match key {
            "secretName" => Some(self.name(&namespace, value)),
            _ => None,
        });
        for rule in host["spec"]["rules"].as_array_mut().into_iter().flatten() {
            for path in rule["http"]["paths"].as_array_mut().into_iter().flatten() {
                let name = field(&path["backend"]["service"], "name");
                path["backend"]["service"]["name"] = json!(self.name(&namespace, &name));
            }
        }
        host
    }

    /// A pod. `token_secret`: the account's token Secret in the tenant, which takes the place of projected tokens.
    pub fn pod(&self, object: &Value, token_secret: &str) -> Value {
        let mut host = self.copy(object);
        self.annotate(&mut host, object);
        let namespace = text(object, "namespace").to_owned();
        let spec = host["spec"].as_object_mut().expect("spec");
        for gone in ["serviceAccount", "serviceAccountName", "priorityClassName", "priority", "subdomain"] {
            spec.remove(gone);
        }
        spec.insert("automountServiceAccountToken".to_owned(), json!(false));
        spec.insert("enableServiceLinks".to_owned(), json!(false));
        let name: String = text(object, "name").chars().take(63).collect();
        spec.entry("hostname").or_insert(json!(name));
        let aliases = spec.entry("hostAliases").or_insert(json!([]));
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        aliases.as_array_mut().expect("aliases").push(json!({"ip": self.api, "hostnames": names}));
        if matches!(object["spec"]["dnsPolicy"].as_str(), None | Some("ClusterFirst"))
            && object["spec"]["hostNetwork"] != true
        {
            spec.insert("dnsPolicy".to_owned(), json!("None"));
            let searches =
                [format!("{namespace}.svc.cluster.local"), "svc.cluster.local".to_owned(), "cluster.local".to_owned()];
            let options = [json!({"name": "ndots", "value": "5"})];
            spec.insert(
                "dnsConfig".to_owned(),
                json!({"nameservers": [self.dns], "searches": searches, "options": options}),
            );
        }
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                self.container(container, &namespace);
            }
        }
        for secret in spec.get_mut("imagePullSecrets").and_then(Value::as_array_mut).into_iter().flatten() {
            secret["name"] = json!(self.name(&namespace, &field(secret, "name")));
        }
        for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
            self.volume(volume, &namespace, token_secret);
        }
        for term in ["affinity", "topologySpreadConstraints"] {
            if let Some(part) = spec.get_mut(term) {
                self.selectors(part, &namespace);
            }
        }
        host
    }

    /// What the downward API is sent to.
    fn annotate(&self, host: &mut Value, object: &Value) {
        let lines: Vec<String> = object["metadata"]["labels"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value}"))
            // In the order of a Go map: none.
            .rev()
            .collect();
        let account = object["spec"]["serviceAccountName"].as_str().unwrap_or_default().to_owned();
        for (key, value) in [
            ("namespace", text(object, "namespace").to_owned()),
            ("name", text(object, "name").to_owned()),
            ("uid", text(object, "uid").to_owned()),
            ("service-account-name", account),
            ("labels", lines.join("\n")),
        ] {
            let key = format!("vcluster.loft.sh/{key}");
            if object["metadata"]["annotations"][&key].as_str().unwrap_or_default().is_empty() {
                host["metadata"]["annotations"][&key] = json!(value);
            }
        }
        let owner = object["metadata"]["ownerReferences"][0]["kind"].as_str().unwrap_or_default();
        if matches!(owner, "StatefulSet" | "ReplicaSet" | "DaemonSet") {
            host["metadata"]["annotations"]["vcluster.loft.sh/owner-set-kind"] = json!(owner);
        }
    }

    fn container(&self, container: &mut Value, namespace: &str) {
        let mut env = container["env"].as_array().cloned().unwrap_or_default();
        for variable in &mut env {
            self.field_ref(&mut variable["valueFrom"]);
            for source in ["configMapKeyRef", "secretKeyRef"] {
                if variable["valueFrom"][source].is_object() {
                    let name = field(&variable["valueFrom"][source], "name");
                    variable["valueFrom"][source]["name"] = json!(self.name(namespace, &name));
                }
            }
            if variable["valueFrom"].is_null() {
                variable.as_object_mut().expect("variable").remove("valueFrom");
            }
        }
        for source in container.get_mut("envFrom").and_then(Value::as_array_mut).into_iter().flatten() {
            for kind in ["configMapRef", "secretRef"] {
                if source[kind].is_object() {
                    source[kind]["name"] = json!(self.name(namespace, &field(&source[kind], "name")));
                }
            }
            source.as_object_mut().expect("source").retain(|_, value| !value.is_null());
        }
        let url = format!("tcp://{}:443", self.api);
        for (name, value) in [
            ("KUBERNETES_PORT", url.as_str()),
            ("KUBERNETES_PORT_443_TCP", &url),
            ("KUBERNETES_PORT_443_TCP_ADDR", &self.api),
            ("KUBERNETES_PORT_443_TCP_PORT", "443"),
            ("KUBERNETES_PORT_443_TCP_PROTO", "tcp"),
            ("KUBERNETES_SERVICE_HOST", &self.api),
            ("KUBERNETES_SERVICE_PORT", "443"),
            ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
        ] {
            if !env.iter().any(|variable| variable["name"] == name) {
                env.push(json!({"name": name, "value": value}));
            }
        }
        container["env"] = Value::Array(env);
    }

    fn volume(&self, volume: &mut Value, namespace: &str, token_secret: &str) {
        let renamed = |name: &str| json!(self.name(namespace, name));
        for (source, key) in [("configMap", "name"), ("secret", "secretName"), ("persistentVolumeClaim", "claimName")] {
            if volume.get(source).is_some() {
                volume[source][key] = renamed(&field(&volume[source], key));
            }
        }
        for item in volume.pointer_mut("/downwardAPI/items").and_then(Value::as_array_mut).into_iter().flatten() {
            self.field_ref(item);
        }
        for source in volume.pointer_mut("/projected/sources").and_then(Value::as_array_mut).into_iter().flatten() {
            for kind in ["configMap", "secret"] {
                if source.get(kind).is_some() {
                    source[kind]["name"] = renamed(&field(&source[kind], "name"));
                }
            }
            for item in source.pointer_mut("/downwardAPI/items").and_then(Value::as_array_mut).into_iter().flatten() {
                self.field_ref(item);
            }
            if let Some(token) = source.as_object_mut().expect("source").remove("serviceAccountToken") {
                let items = json!([{"key": "token", "path": token["path"], "mode": 420}]);
                source["secret"] = json!({"name": renamed(token_secret), "items": items});
            }
        }
    }

    fn field_ref(&self, holder: &mut Value) {
        let Some(Value::String(path)) = holder.pointer_mut("/fieldRef/fieldPath") else { return };
        let label = path.strip_prefix("metadata.labels['").and_then(|rest| rest.strip_suffix("']"));
        let annotation = |key: &str| format!("metadata.annotations['vcluster.loft.sh/{key}']");
        *path = match (path.as_str(), label) {
            (_, Some(key)) => format!("metadata.labels['{}']", self.label_key(key)),
            ("metadata.labels", _) => annotation("labels"),
            ("metadata.name", _) => annotation("name"),
            ("metadata.namespace", _) => annotation("namespace"),
            ("metadata.uid", _) => annotation("uid"),
            ("spec.serviceAccountName", _) => annotation("service-account-name"),
            (other, _) => other.to_owned(),
        };
    }

    /// Selectors of affinity and spread terms: hashed keys, and the pod's own namespace.
    fn selectors(&self, part: &mut Value, namespace: &str) {
        match part {
            Value::Object(map) => {
                if let Some(Value::Object(selector)) = map.get_mut("labelSelector") {
                    let old = selector.remove("matchLabels").unwrap_or_default();
                    let mut terms: Map<String, Value> =
                        old.as_object().into_iter().flatten().map(|(k, v)| (self.label_key(k), v.clone())).collect();
                    terms.insert("vcluster.loft.sh/namespace".to_owned(), json!(self.namespace_label(namespace)));
                    selector.insert("matchLabels".to_owned(), Value::Object(terms));
                }
                map.values_mut().for_each(|inner| self.selectors(inner, namespace));
            }
            Value::Array(items) => items.iter_mut().for_each(|inner| self.selectors(inner, namespace)),
            _ => {}
        }
    }
}

fn rename(value: &mut Value, to: &mut dyn FnMut(&str, &str) -> Option<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner.as_str().and_then(|text| to(key, text)) {
                    Some(new) => *inner = json!(new),
                    None => rename(inner, to),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| rename(inner, to)),
        _ => {}
    }
}

/// At most 63 bytes.
fn safe(text: &str) -> String {
    if text.len() <= 63 {
        return text.to_owned();
    }
    format!("{}-{}", &text[..52], &hex(text)[..10]).replace(".-", "-")
}

fn hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"][key].as_str().unwrap_or_default()
}

fn field(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// The vectors that were computed with the original.
#[test]
fn names_and_keys_are_those_of_the_original() {
    let of = |suffix: &str| Vcluster {
        suffix: suffix.to_owned(),
        namespace: "team-a".to_owned(),
        stateful_set: (suffix.to_owned(), "sts-uid".to_owned()),
        api: "10.96.0.50".to_owned(),
        dns: "10.96.0.51".to_owned(),
    };
    let vc1 = of("vc1");
    assert_eq!(vc1.name("default", "nginx"), "nginx-x-default-x-vc1");
    let p = |n: usize| "p".repeat(n);
    assert_eq!(vc1.name("default", &p(51)), format!("{}--d27fa6bb98", p(51)));
    assert_eq!(vc1.name("default", &p(52)), format!("{}-46c367190b", p(52)));
    assert_eq!(vc1.name("default", &p(53)), format!("{}-ecec578db0", p(52)));
    assert_eq!(
        of("tenant-one").name("production", "a-very-long-statefulset-name-for-testing-purposes-0"),
        "a-very-long-statefulset-name-for-testing-purposes-0--86a295343e"
    );
    assert_eq!(
        of("dev-cluster").name("kube-system", "coredns-854c77959c-2x4kd"),
        "coredns-854c77959c-2x4kd-x-kube-system-x-dev-cluster"
    );
    assert_eq!(vc1.label_key("app"), "vcluster.loft.sh/label-vc1-x-a172cedcae");
    assert_eq!(vc1.label_key("release"), "vcluster.loft.sh/label-vc1-x-a4d451ec23");
    assert_eq!(vc1.namespace_label("default"), "default-x-vc1");
    let vc = of("vc");
    assert_eq!(vc.name("c", "a-x-b"), vc.name("b-x-c", "a"));
}
