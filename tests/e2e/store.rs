//! A control plane that comes back with another store: what runs runs on, nothing is synced, and a person decides.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{Dump, Tenant, alpha, eventually, eventually_is, host, portico, run_id, sleeper, uids};

const COPIES: &str = "pods,services,persistentvolumeclaims,configmaps";

/// A cluster that keeps its data in its pod, with a pod, its configuration, a Service and a claim with data.
fn ephemeral(name: &str, more: &[&str]) -> &'static Tenant {
    let namespace = format!("e2e-{name}-{}", run_id());
    let tenant: &'static Tenant =
        Box::leak(Box::new(Tenant::create(name, &namespace, &[&["--ephemeral"], more].concat())));
    let apply = |text: &str| {
        let arguments = ["apply", "-n", "work", "-f", "-"];
        crate::harness::Invocation::kubectl(&tenant.kubeconfig, &arguments).stdin(text.as_bytes()).run().ok();
    };
    tenant.kubectl(&["create", "namespace", "work"]).ok();
    eventually("the account", || tenant.kubectl(&["-n", "work", "get", "serviceaccount", "default"]).result());
    tenant.kubectl(&["-n", "work", "create", "configmap", "settings", "--from-literal=key=kept"]).ok();
    apply(
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, \
         spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}",
    );
    let mut pod: Value = serde_saphyr::from_str(&sleeper("box")).expect("YAML");
    pod["spec"]["volumes"] = serde_json::json!([
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "settings", "configMap": {"name": "settings"}},
    ]);
    pod["spec"]["containers"][0]["volumeMounts"] = serde_json::json!([
        {"name": "data", "mountPath": "/data"}, {"name": "settings", "mountPath": "/settings"},
    ]);
    apply(&pod.to_string());
    tenant.kubectl(&["-n", "work", "expose", "pod", "box", "--port=80"]).ok();
    eventually("the pod runs", || {
        tenant.kubectl(&["-n", "work", "wait", "pod/box", "--for=condition=Ready", "--timeout=30s"]).result()
    });
    tenant.kubectl(&["-n", "work", "exec", "box", "--", "sh", "-c", "echo precious >/data/file; sync"]).ok();
    tenant
}

fn copies(tenant: &Tenant) -> BTreeMap<String, String> {
    let labels = format!("portico.dev/cluster={},portico.dev/namespace=work", tenant.name);
    uids(&tenant.on_host(&["get", COPIES, "-l", &labels, "-o", "json"]).json())
}

/// As a drain or an eviction does: the pod comes back with an empty emptyDir.
fn lose(tenant: &Tenant) {
    let pod = format!("{}-0", tenant.name);
    tenant.on_host(&["delete", "pod", &pod, "--wait=false"]).ok();
    eventually("the loss is noticed", || {
        let phase = tenant.on_host(&["get", "virtualcluster", &tenant.name, "-o", "jsonpath={.status.phase}"]).ok();
        if phase == "Held" { Ok(()) } else { Err(phase) }
    });
}

fn condition(tenant: &Tenant, kind: &str) -> String {
    let path = format!("jsonpath={{.status.conditions[?(@.type=='{kind}')].status}}");
    tenant.on_host(&["get", "virtualcluster", &tenant.name, "-o", &path]).ok()
}

/// The operator's next round says it, whenever that is: objects are synced again before.
fn conditions_are(tenant: &Tenant, replaced: &str, ready: &str) {
    eventually("the conditions", || {
        let say = (condition(tenant, "StoreReplaced"), condition(tenant, "Ready"));
        if say.0 == replaced && say.1 == ready { Ok(()) } else { Err(format!("{say:?}")) }
    });
}

/// The neighbour's pods come and go as ever.
fn neighbour_goes_on(topic: &str) {
    let space = alpha().space(topic);
    space.pod("box");
}

#[test]
fn a_lost_store_stops_nothing_and_its_objects_are_written_back() {
    let tenant = ephemeral("written", &[]);
    let _dump = Dump(vec![alpha(), tenant]);
    let before = copies(tenant);
    assert!(before.len() >= 4, "{before:?}");
    lose(tenant);
    // Longer than the forty seconds within which all of it once went.
    std::thread::sleep(std::time::Duration::from_secs(45));
    assert_eq!(copies(tenant), before, "something went with the store");
    conditions_are(tenant, "True", "False");
    let message = portico(&["describe", &tenant.name, "-n", &tenant.namespace]).ok();
    assert!(message.contains("--adopt") && message.contains("--discard"), "{message}");
    let events = tenant.on_host(&["get", "events", "--field-selector", "reason=StoreReplaced", "-o", "name"]).ok();
    assert!(!events.trim().is_empty(), "no event on the VirtualCluster");
    neighbour_goes_on("beside-the-held");

    let report = portico(&["recover", &tenant.name, "-n", &tenant.namespace, "--adopt"]).ok();
    assert!(report.contains("Pod work/box"), "{report}");
    assert_eq!(copies(tenant), before, "the very same objects");
    eventually("it is synced again", || {
        tenant.kubectl(&["-n", "work", "wait", "pod/box", "--for=condition=Ready", "--timeout=30s"]).result()
    });
    eventually("the claim is bound", || {
        let phase = tenant.kubectl(&["-n", "work", "get", "pvc", "data", "-o", "jsonpath={.status.phase}"]).result()?;
        if phase == "Bound" { Ok(()) } else { Err(phase) }
    });
    let data = tenant.kubectl(&["-n", "work", "exec", "box", "--", "cat", "/data/file", "/settings/key"]).ok();
    assert_eq!(data, "precious\nkept");
    conditions_are(tenant, "False", "True");
    // It is the tenant's pod again: deleting it ends the copy.
    tenant.kubectl(&["-n", "work", "delete", "pod", "box", "--wait=false"]).ok();
    eventually_is("the copy ends", || !copies(tenant).keys().any(|name| name.starts_with("Pod/")));
    host(&["delete", "namespace", &tenant.namespace, "--wait=false"]).ok();
}

#[test]
fn a_lost_store_is_let_go_by_decision_but_its_claims_are_kept_for_a_while() {
    let tenant = ephemeral("letgo", &[]);
    let _dump = Dump(vec![tenant]);
    lose(tenant);
    portico(&["recover", &tenant.name, "-n", &tenant.namespace, "--discard", "--yes"]).ok();
    eventually("nothing but the claim is left", || match copies(tenant) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    let aside = ["get", "pvc", "-l", "portico.dev/abandoned=letgo", "-o", "json"];
    let claims = tenant.on_host(&aside).json();
    let claim = &claims["items"][0]["metadata"];
    assert!(claim["annotations"]["portico.dev/delete-after"].is_string(), "{claims}");
    portico(&["recover", &tenant.name, "-n", &tenant.namespace, "--keep-claims"]).ok();
    assert_eq!(uids(&tenant.on_host(&aside).json()).len(), 0, "it is nobody's to delete any more");
    // The new store is in use.
    tenant.kubectl(&["create", "namespace", "next"]).ok();
    host(&["delete", "namespace", &tenant.namespace, "--wait=false"]).ok();
}
