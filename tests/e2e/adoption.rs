//! From an original vcluster 0.3 deployment to Portico by an image swap: fifty host pods with Services, claims and
//! configuration, named and labelled the old way, go on running under their uids.
//!
//! The objects of the old syncer are made here, after what it makes (`tests/support/vcluster.rs`): its image cannot be pulled
//! where these tests run.

#[path = "../support/vcluster.rs"]
mod vcluster;

use serde_json::{Value, json};

use crate::harness::sidecar::{self, SYNCER, manifest};
use crate::harness::{
    AGNHOST, BUSYBOX, Dump, Invocation, Tenant, eventually, host, host_kubeconfig, kubectl, restarts, run_id, uids,
    work,
};
use vcluster::Vcluster;

const NAME: &str = "elder";
const REPLICAS: usize = 48;
/// 51 characters: with namespace and cluster it is longer than vcluster's names may be.
const LONG: &str = "a-very-long-claim-name-that-is-cut-by-the-old-formula";

/// The manifest with a container that only waits where the old syncer was: k3s alone.
fn without_syncer(namespace: &str) {
    let waits =
        format!("image: \"{BUSYBOX}\"\n        command: [sh, -c, 'trap exit TERM; while true; do sleep 1; done']");
    let text = manifest(NAME).replace(&format!("image: \"{SYNCER}\""), &waits);
    assert!(text.contains("while true"), "{text}");
    sidecar::install(NAME, namespace, &text);
}

/// k3s itself, past any syncer.
fn at_k3s(namespace: &str) -> std::path::PathBuf {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "direct"},
        "spec": {"selector": {"app": NAME}, "ports": [{"port": 443, "targetPort": 6443}]}});
    sidecar::apply(namespace, &service.to_string());
    let address = host(&["-n", namespace, "get", "service", "direct", "-o", "jsonpath={.spec.clusterIP}"]).ok();
    let exec =
        ["-n", namespace, "exec", "elder-0", "-c", "virtual-cluster", "--", "cat", "/k3s-config/kube-config.yaml"];
    let text = eventually("k3s' kubeconfig", || host(&exec).result());
    let mut document: Value = serde_saphyr::from_str(&text).expect("a kubeconfig");
    document["clusters"][0]["cluster"]["server"] = format!("https://{address}").into();
    document["clusters"][0]["cluster"]["tls-server-name"] = "kubernetes".into();
    let path = work().join(format!("{namespace}-k3s.yaml"));
    std::fs::write(&path, document.to_string()).expect("written");
    eventually("the first account", || kubectl(&path, &["-n", "default", "get", "serviceaccount", "default"]).result());
    path
}

fn create(kubeconfig: &std::path::Path, objects: &[Value]) -> Vec<Value> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let arguments = ["create", "-f", "-", "-o", "json"];
    let answer = Invocation::kubectl(kubeconfig, &arguments).stdin(list.as_bytes()).run().ok();
    // One document behind the other.
    serde_json::Deserializer::from_str(&answer).into_iter().map(|object| object.expect("JSON")).collect()
}

/// What the tenant runs, in the tenant, without anything on the host.
fn inside(kubeconfig: &std::path::Path, address: &str) {
    let labels = json!({"app": "web", "tier": "front"});
    let pod = json!({"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
        "containers": [{"name": "main", "image": AGNHOST, "args": ["netexec"], "envFrom": [{"configMapRef": {"name": "settings"}}],
            "volumeMounts": [{"name": "s", "mountPath": "/s"}]}],
        "volumes": [{"name": "s", "secret": {"secretName": "password"}}]});
    let holder = json!({"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
        "containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-c", "echo kept >/d/file; trap exit TERM; while true; do sleep 1; done"],
            "volumeMounts": [{"name": "d", "mountPath": "/d"}]}],
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": LONG}}]});
    create(
        kubeconfig,
        &[
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "default"}, "data": {"KEY": "map"}}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "password", "namespace": "default"}, "data": {"key": "c2VjcmV0"}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
                "spec": {"clusterIP": address, "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}}),
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": LONG, "namespace": "default"},
                "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local-path", "resources": {"requests": {"storage": "1Gi"}}}}),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
                "spec": {"replicas": REPLICAS, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": labels}, "spec": pod}}}),
            json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "holder", "namespace": "default"},
                "spec": {"serviceName": "holder", "replicas": 2, "podManagementPolicy": "Parallel", "selector": {"matchLabels": {"app": "holder"}},
                    "template": {"metadata": {"labels": {"app": "holder"}}, "spec": holder}}}),
        ],
    );
}

/// The old syncer's work: a host object for each.
fn outside(k3s: &std::path::Path, old: &Vcluster) {
    let get =
        |kind: &str| kubectl(k3s, &["-n", "default", "get", kind, "-o", "json"]).json()["items"].as_array().cloned();
    let pods = eventually("the tenant's pods", || match get("pods") {
        Some(pods) if pods.len() == REPLICAS + 2 => Ok(pods),
        pods => Err(format!("{:?} pods", pods.map(|p| p.len()))),
    });
    let mut objects: Vec<Value> = pods.iter().map(|pod| old.pod(pod, "")).collect();
    for kind in ["configmaps", "persistentvolumeclaims"] {
        let found = get(kind).expect("a list");
        objects.extend(found.iter().filter(|o| o["metadata"]["name"] != "kube-root-ca.crt").map(|o| old.copy(o)));
    }
    objects.extend(get("secrets").expect("a list").iter().map(|secret| old.secret(secret)));
    for object in &mut objects {
        object["metadata"]
            .as_object_mut()
            .expect("metadata")
            .retain(|key, _| ["name", "namespace", "labels", "annotations", "ownerReferences"].contains(&key.as_str()));
    }
    create(&host_kubeconfig(), &objects);
}

#[test]
fn fifty_pods_of_vcluster_change_hands_by_an_image_swap() {
    let namespace = format!("e2e-adopt-{}", run_id());
    without_syncer(&namespace);
    let k3s = at_k3s(&namespace);
    let on_host = |arguments: &[&str]| host(&[&["-n", namespace.as_str()], arguments].concat());
    let uid = on_host(&["get", "statefulset", NAME, "-o", "jsonpath={.metadata.uid}"]).ok();
    let api = on_host(&["get", "service", NAME, "-o", "jsonpath={.spec.clusterIP}"]).ok();
    let old = Vcluster {
        suffix: NAME.to_owned(),
        namespace: namespace.clone(),
        stateful_set: (NAME.to_owned(), uid),
        dns: api.clone(),
        api,
    };
    // The host's Service came first and gave its address, as vcluster's proxy does.
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    let made = create(&host_kubeconfig(), &[old.service(&service)]);
    inside(&k3s, made[0]["spec"]["clusterIP"].as_str().expect("an address"));
    outside(&k3s, &old);
    // Somebody else's in the same namespace, old as well: another vcluster's.
    let other = Vcluster { suffix: "younger".to_owned(), ..old };
    let foreign = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "default"}, "data": {"KEY": "theirs"}});
    create(&host_kubeconfig(), &[other.copy(&foreign)]);

    let label = "vcluster.loft.sh/managed-by=elder";
    let kinds = "pods,services,persistentvolumeclaims,configmaps,secrets";
    eventually("the old pods run", || {
        let running =
            on_host(&["get", "pods", "-l", label, "--field-selector=status.phase=Running", "-o", "name"]).ok();
        if running.lines().count() == REPLICAS + 2 { Ok(()) } else { Err(format!("{}", running.lines().count())) }
    });
    let before = uids(&on_host(&["get", kinds, "-l", label, "-o", "json"]).json());
    let virtual_before = uids(&kubectl(&k3s, &["-n", "default", "get", kinds, "-o", "json"]).json());

    // The swap.
    let swap = format!(
        r#"[{{"op": "replace", "path": "/spec/template/spec/containers/1/image", "value": "{SYNCER}"}},
            {{"op": "remove", "path": "/spec/template/spec/containers/1/command"}}]"#
    );
    on_host(&["patch", "statefulset", NAME, "--type=json", "-p", &swap]).ok();
    on_host(&["rollout", "status", &format!("statefulset/{NAME}"), "--timeout=120s"]).ok();
    let kubeconfig = sidecar::connect(NAME, &namespace);
    let tenant: &'static Tenant =
        Box::leak(Box::new(Tenant { name: NAME.to_owned(), namespace: namespace.clone(), kubeconfig }));
    let _dump = Dump(vec![tenant]);
    eventually("the tenant's Deployment is whole", || {
        tenant.kubectl(&["rollout", "status", "deployment/web", "--timeout=5s"]).result()
    });
    tenant.kubectl(&["rollout", "status", "statefulset/holder", "--timeout=60s"]).ok();

    // Nothing was made again, on either side, and nothing twice.
    let after = uids(&on_host(&["get", kinds, "-l", "portico.dev/cluster=elder", "-o", "json"]).json());
    for (object, uid) in &before {
        assert_eq!(after.get(object), Some(uid), "{object} on the host");
    }
    assert_eq!(after.keys().filter(|key| key.starts_with("Pod/")).count(), REPLICAS + 2);
    let virtual_after = uids(&kubectl(&k3s, &["-n", "default", "get", kinds, "-o", "json"]).json());
    // The API server's own Service is not among them: with no syncer beside it here, k3s chose its address by itself.
    for (object, uid) in virtual_before.iter().filter(|(object, _)| *object != "Service/kubernetes") {
        assert_eq!(virtual_after.get(object), Some(uid), "{object} in the tenant");
    }
    assert_eq!(restarts(&namespace, "portico.dev/cluster=elder"), 0);
    let theirs = on_host(&["get", "configmap", "settings-x-default-x-younger", "-o", "json"]).json();
    assert!(theirs["metadata"]["labels"]["portico.dev/cluster"].is_null(), "{theirs}");

    // What was adopted is used: streams, Services with the host's own endpoints, claims under their old names.
    assert_eq!(tenant.kubectl(&["exec", "deployment/web", "--", "cat", "/s/key"]).ok(), "secret");
    assert_eq!(tenant.kubectl(&["exec", "holder-0", "--", "cat", "/d/file"]).ok(), "kept\n");
    tenant.kubectl(&["run", "visitor", "--image", BUSYBOX, "--restart=Never", "--", "sleep", "3600"]).ok();
    tenant.kubectl(&["wait", "pod/visitor", "--for=condition=Ready", "--timeout=90s"]).ok();
    let line = "/bin/wget -q -O - -T 5 http://web.default.svc.cluster.local/hostname";
    let answer = eventually("the Service", || tenant.kubectl(&["exec", "visitor", "--", "sh", "-c", line]).result());
    assert!(answer.starts_with("web-"), "{answer}");
    tenant.kubectl(&["delete", "pod", "holder-0"]).ok();
    eventually("a new pod finds the old claim", || {
        let ready = tenant.kubectl(&["wait", "pod/holder-0", "--for=condition=Ready", "--timeout=5s"]).result();
        ready.and_then(|_| tenant.kubectl(&["exec", "holder-0", "--", "cat", "/d/file"]).result())
    });
    let claim =
        uids(&on_host(&["get", "persistentvolumeclaims", "-l", "portico.dev/cluster=elder", "-o", "json"]).json());
    assert_eq!(claim.len(), 1, "{claim:?}");
    tenant.kubectl(&["delete", "deployment", "web"]).ok();
    eventually("what was adopted goes as well", || {
        let left = on_host(&["get", "pods", "-l", "portico.dev/cluster=elder,tier=front", "-o", "name"]).ok();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}
