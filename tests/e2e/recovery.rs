//! What outlives what: a control plane that loses its pod loses nothing else, and one that was deleted comes back from a
//! backup by the steps of `docs/operations/backup.md`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{Dump, Invocation, Tenant, eventually, host, host_kubeconfig, portico, run_id, sleeper, uids};

/// Takes out of an object what belongs to the cluster that it was saved from.
const STRIP: &str = r#"[{"op":"remove","path":"/metadata/ownerReferences"},{"op":"remove","path":"/metadata/resourceVersion"},{"op":"remove","path":"/metadata/uid"}]"#;

#[test]
fn a_cluster_made_without_a_word_about_storage_loses_nothing_with_its_pod() {
    let namespace = format!("e2e-firm-{}", run_id());
    let created = portico(&["create", "firm", "-n", &namespace]);
    assert!(created.err.contains("volume of 5Gi") && !created.err.contains("WARNING"), "{created}");
    let tenant = leaked(Tenant::create("firm", &namespace, &[]));
    let _dump = Dump(vec![tenant]);
    let claim = tenant.on_host(&["get", "pvc", "data-firm-0", "-o", "json"]).json();
    assert_eq!(claim["status"]["phase"], "Bound");
    run_web(tenant);
    tenant.kubectl(&["create", "service", "clusterip", "web", "--tcp=80:8080"]).ok();
    let copies = || {
        let kinds = ["get", "pods,services,configmaps", "-l", "portico.dev/cluster=firm", "-o", "json"];
        uids(&tenant.on_host(&kinds).json())
    };
    let (inside, outside) =
        (spaces(tenant), eventually("the Service's copy", || with(copies(), "web-x-default-x-firm")));

    tenant.on_host(&["delete", "pod", "firm-0", "--wait=true"]).ok();
    eventually("it answers again", || tenant.kubectl(&["get", "--raw", "/readyz"]).result());
    // Something new has gone all the way, so the syncer has seen the store that came back.
    let next = sleeper("next");
    eventually("a new pod", || {
        let apply = Invocation::kubectl(&tenant.kubeconfig, &["apply", "-f", "-"]);
        apply.stdin(next.as_bytes()).run().result()
    });
    tenant.kubectl(&["wait", "pod/next", "--for=condition=Ready", "--timeout=90s"]).ok();
    assert_eq!(spaces(tenant), inside);
    let after = copies();
    let lost: Vec<_> = outside.iter().filter(|(name, uid)| after.get(*name) != Some(uid)).collect();
    assert!(lost.is_empty(), "gone or made anew on the host: {lost:?}");
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}

#[test]
fn a_cluster_in_the_pod_alone_says_so() {
    let namespace = format!("e2e-thrown-{}", run_id());
    let created = portico(&["create", "thrown", "-n", &namespace, "--ephemeral"]);
    assert!(created.err.contains("WARNING") && created.err.contains("lost with"), "{created}");
    created.ok();
    let list = portico(&["list", "-n", &namespace]).ok();
    assert!(list.contains("pod only"), "{list}");
    let durable = "jsonpath={.status.conditions[?(@.type==\"Durable\")].reason}";
    let get = |what: &[&str]| host(&[&["-n", namespace.as_str(), "get"], what].concat());
    assert_eq!(get(&["vc", "thrown", "-o", durable]).ok(), "Ephemeral");
    assert_eq!(get(&["pvc", "-o", "name"]).ok(), "");
    // Neither way can be gone later.
    for change in [r#"{"spec":{"storage":{"ephemeral":false}}}"#, r#"{"spec":{"storage":{"volumeClaim":{}}}}"#] {
        let patch = ["-n", namespace.as_str(), "patch", "vc", "thrown", "--type=merge", "-p", change];
        host(&patch).fails(&["cannot be changed", "excludes"]);
    }
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}

#[test]
fn a_deleted_cluster_comes_back_from_its_volume_and_its_pki_secret() {
    let namespace = format!("e2e-restored-{}", run_id());
    let old = leaked(Tenant::create("dev", &namespace, &[]));
    let _dump = Dump(vec![old]);
    old.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    run_web(old);
    let inside = spaces(old);
    let text = |kind: &str, name: &str, path: &str| {
        old.on_host(&["get", kind, name, "-o", &format!("jsonpath={{{path}}}")]).ok()
    };

    // Saved.
    let secret = old.on_host(&["get", "secret", "dev-pki", "-o", "yaml"]).ok();
    let strip = ["patch", "--local", "-f", "-", "--type", "json", "-o", "yaml", "-p", STRIP];
    let secret = Invocation::kubectl(&host_kubeconfig(), &strip).stdin(secret.as_bytes()).run().ok();
    let volume = text("pvc", "data-dev-0", ".spec.volumeName");
    let class = text("pvc", "data-dev-0", ".spec.storageClassName");
    reclaim(&volume, "Retain");

    portico(&["delete", "dev", "-n", &namespace]).ok();
    old.on_host(&["get", "secret", "dev-pki"]).fails(&["not found"]);

    // Restored: the volume, the Secret, then the cluster.
    eventually("the volume is released", || {
        match host(&["get", "pv", &volume, "-o", "jsonpath={.status.phase}"]).ok().as_str() {
            "Released" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    let free = r#"{"spec":{"claimRef":{"uid":null,"resourceVersion":null}}}"#;
    host(&["patch", "pv", &volume, "--type=merge", "-p", free]).ok();
    let claim = format!(
        "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: data-dev-0}}, spec: {{volumeName: '{volume}', \
         storageClassName: '{class}', accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 5Gi}}}}}}}}"
    );
    let apply = |manifest: &str| {
        let arguments = ["-n", namespace.as_str(), "apply", "-f", "-"];
        Invocation::kubectl(&host_kubeconfig(), &arguments).stdin(manifest.as_bytes()).run().ok()
    };
    apply(&claim);
    apply(&secret);
    portico(&["create", "dev", "-n", &namespace]).ok();

    // The kubeconfig of before, and all that was there.
    eventually("the old kubeconfig works", || old.kubectl(&["get", "configmap", "kept"]).result());
    assert_eq!(spaces(old), inside);
    old.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=90s"]).ok();
    let owner = text("virtualcluster", "dev", ".metadata.uid");
    assert_eq!(text("secret", "dev-pki", ".metadata.ownerReferences[*].uid"), owner);
    assert_eq!(text("pvc", "data-dev-0", ".spec.volumeName"), volume);
    reclaim(&volume, "Delete");
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}

fn leaked(tenant: Tenant) -> &'static Tenant {
    Box::leak(Box::new(tenant))
}

/// A pod that runs.
fn run_web(tenant: &Tenant) {
    eventually("account", || tenant.kubectl(&["get", "serviceaccount", "default"]).result());
    Invocation::kubectl(&tenant.kubeconfig, &["apply", "-f", "-"]).stdin(sleeper("web").as_bytes()).run().ok();
    tenant.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=90s"]).ok();
}

/// uids of the namespaces: `kube-system`'s lives as long as the store.
fn spaces(tenant: &Tenant) -> BTreeMap<String, String> {
    let list: Value = tenant.kubectl(&["get", "namespaces", "-o", "json"]).json();
    uids(&list)
}

fn with(objects: BTreeMap<String, String>, name: &str) -> Result<BTreeMap<String, String>, String> {
    let wanted = [format!("Pod/{name}"), format!("Service/{name}")];
    if wanted.iter().all(|name| objects.contains_key(name)) { Ok(objects) } else { Err(format!("{objects:?}")) }
}

/// What becomes of a volume without its claim.
fn reclaim(volume: &str, policy: &str) {
    let patch = format!(r#"{{"spec":{{"persistentVolumeReclaimPolicy":"{policy}"}}}}"#);
    host(&["patch", "pv", volume, "-p", &patch]).ok();
}
