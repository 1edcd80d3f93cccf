//! Whoever may edit a VirtualCluster can tighten its policy and not widen it, and wins no right and no way by what he names.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{
    BUSYBOX, Dump, Invocation, SYSTEM, Space, beta, eventually, eventually_is, host, host_kubeconfig, kubectl, portico,
    read, run_id, with_user, work,
};

/// Makes a pod and waits for what is said of it.
fn denied(space: &Space, name: &str, mut spec: Value) -> String {
    spec["containers"] = json!([{"name": "main", "image": BUSYBOX, "command": ["sleep", "3600"]}]);
    space.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string());
    space.denied(name)
}

#[test]
fn hostile_editors_do_not_get_root_on_the_nodes() {
    let space = beta().space("editor");
    let _dump = Dump(vec![beta()]);
    let patch = |policy: Value| {
        let patch = json!({"spec": {"policy": policy}}).to_string();
        beta().on_host(&["patch", "virtualcluster", "beta", "--type", "merge", "-p", &patch]).ok();
    };
    patch(json!({"podSecurity": "privileged", "storageClasses": ["*"], "csiDrivers": ["*"]}));
    let describe = ["describe", "beta", "-n", beta().namespace.as_str()];
    eventually("what is in force", || {
        let said = portico(&describe).out();
        if said.contains("baseline (of privileged: the configuration allows no more)") { Ok(()) } else { Err(said) }
    });
    assert!(denied(&space, "root", json!({"hostPID": true})).contains("`podSecurity`"));
    let inline = json!({"volumes": [{"name": "v", "csi": {"driver": "secrets-store.csi.k8s.io"}}]});
    assert!(denied(&space, "driver", inline).contains("`csiDrivers`"));
    assert_eq!(space.on_host("pods"), BTreeSet::new());
    patch(json!({"podSecurity": null, "storageClasses": null, "csiDrivers": null}));
}

/// RBAC lets whoever may bind a role bind it to anybody: an admission policy of the chart does not.
#[test]
fn hostile_namespace_admins_bind_the_working_role_to_portico_alone() {
    let namespace = format!("e2e-bind-{}", run_id());
    host(&["create", "namespace", &namespace]).ok();
    host(&["-n", &namespace, "create", "serviceaccount", "dev"]).ok();
    let dev = format!("--serviceaccount={namespace}:dev");
    host(&["-n", &namespace, "create", "rolebinding", "dev-admin", "--clusterrole=admin", &dev]).ok();
    let token = host(&["-n", &namespace, "create", "token", "dev"]).ok();
    let kubeconfig = with_user(&host_kubeconfig(), &json!({"token": token.trim()}), "editor-dev");
    let as_dev = |arguments: &[&str]| kubectl(&kubeconfig, &[&["-n", namespace.as_str()], arguments].concat());
    let bind = |name: &str, subjects: &[&str]| {
        as_dev(&[&["create", "rolebinding", name, "--clusterrole=portico-tenant"], subjects].concat())
    };
    let may = |what: &[&str]| as_dev(&[&["auth", "can-i"], what].concat()).out().trim() == "yes";
    // An API server hears of a binding a moment after it was made; before, RBAC refuses and the policy is not asked.
    eventually_is("the account may bind the role", || may(&["bind", "clusterroles/portico-tenant"]));
    eventually_is("and make bindings", || may(&["create", "rolebindings.rbac.authorization.k8s.io"]));
    let portico_account = format!("--serviceaccount={SYSTEM}:portico");
    let portico_account = portico_account.as_str();
    let namesake = format!("--serviceaccount={namespace}:portico");
    for subjects in [
        &[dev.as_str()][..],
        &["--user=dev"],
        &["--group=system:authenticated"],
        &[&namesake],
        &[portico_account, &dev],
    ] {
        bind("mine", subjects).fails(&["may only be bound to ServiceAccount portico"]);
    }
    assert!(may(&["create", "pods"]), "the question is understood");
    assert!(!may(&["update", "endpointslices"]) && !may(&["patch", "pods", "--subresource=status"]));

    // What the right is for: opting the namespace in, and nothing more by changing that binding.
    bind("portico", &[portico_account]).ok();
    let more = json!([{"op": "add", "path": "/subjects/-",
        "value": {"kind": "ServiceAccount", "name": "dev", "namespace": namespace}}]);
    as_dev(&["patch", "rolebinding", "portico", "--type=json", "-p", &more.to_string()])
        .fails(&["may only be bound to ServiceAccount portico"]);
    // Other roles are his affair.
    as_dev(&["create", "rolebinding", "readers", "--clusterrole=view", &dev]).ok();
    let tenant = Invocation::new("portico", &kubeconfig, &["create", "mine", "-n", &namespace]).run();
    tenant.ok();
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}

/// A kubeconfig that leads where Portico has a way and its editor has none.
#[test]
fn hostile_kubeconfigs_lead_to_nothing_of_the_host() {
    let namespace = format!("e2e-lead-{}", run_id());
    host(&["create", "namespace", &namespace]).ok();
    let by_service = host(&["-n", "default", "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"]).ok();
    for (name, server) in [("meta", "169.254.169.254"), ("own", "localhost:9090"), ("hosts", by_service.trim())] {
        let mut kubeconfig = read(&host_kubeconfig());
        let current = kubeconfig["current-context"].clone();
        let context = kubeconfig["contexts"].as_array().expect("contexts").iter().find(|c| c["name"] == current);
        let cluster = context.expect("the current one")["context"]["cluster"].clone();
        let clusters = kubeconfig["clusters"].as_array_mut().expect("clusters");
        let found = clusters.iter_mut().find(|c| c["name"] == cluster).expect("its cluster");
        found["cluster"]["server"] = format!("https://{server}").into();
        let file = work().join(format!("{namespace}-{name}.yaml"));
        std::fs::write(&file, kubeconfig.to_string()).expect("written");
        let from = format!("--from-file=config={}", file.display());
        host(&["-n", &namespace, "create", "secret", "generic", name, &from]).ok();
        let flags = ["create", name, "-n", &namespace, "--distro", "external", "--backend-secret", name, "--no-wait"];
        portico(&flags).ok();
        let path = "jsonpath={.status.conditions[?(@.type=='ControlPlaneReady')].reason}";
        eventually(&format!("{server} is refused"), || {
            let said = host(&["-n", &namespace, "get", "virtualcluster", name, "-o", path]).out();
            if said == "AddressRefused" { Ok(()) } else { Err(said) }
        });
    }
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}
