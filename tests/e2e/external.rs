//! `distro: external`: Portico in front of an API server that it did not make.

use serde_json::{Value, json};

use crate::harness::{
    Dump, Invocation, Tenant, eventually, host, left, portico, read, run_id, system_services, uids, work,
};

/// An API server that runs without a VirtualCluster: the control plane of one whose VirtualCluster was taken away around
/// it. Leaves an admin's kubeconfig for it in a Secret.
fn abandoned_control_plane(namespace: &str, name: &str, secret: &str) {
    let behind = Tenant::create(name, namespace, &["--ephemeral"]);
    let address = behind.on_host(&["get", "service", name, "-o", "jsonpath={.spec.clusterIP}"]).ok();
    let mut kubeconfig = read(&behind.by_sni());
    let current = kubeconfig["current-context"].clone();
    let clusters = kubeconfig["clusters"].as_array_mut().expect("clusters");
    let cluster = clusters.iter_mut().find(|c| c["name"] == current).expect("the current one");
    cluster["cluster"]["server"] = format!("https://{address}").into();
    cluster["cluster"]["tls-server-name"] = format!("{name}.{namespace}.svc").into();
    let file = work().join(format!("{namespace}-{secret}.yaml"));
    std::fs::write(&file, kubeconfig.to_string()).expect("written");
    behind.on_host(&["delete", "virtualcluster", name, "--cascade=orphan"]).ok();
    let from_file = format!("--from-file=config={}", file.display());
    behind.on_host(&["create", "secret", "generic", secret, &from_file]).ok();
    behind.on_host(&["rollout", "status", &format!("statefulset/{name}"), "--timeout=90s"]).ok();
}

#[test]
fn an_external_api_server_is_used_like_an_own_one_and_left_alone_at_the_end() {
    let namespace = format!("e2e-ext-{}", run_id());
    abandoned_control_plane(&namespace, "behind", "theirs");
    let flags = ["--distro", "external", "--backend-secret", "theirs"];
    let tenant: &'static Tenant = Box::leak(Box::new(Tenant::create("front", &namespace, &flags)));
    let _dump = Dump(vec![tenant]);
    let space = tenant.space("work");

    // By certificate: get, watch and apply.
    let watch = space.invocation(&["get", "configmaps", "-w", "-o", "name"]).start();
    space.kubectl(&["create", "configmap", "seen", "--from-literal=a=b"]).ok();
    watch.line_with("configmap/seen");
    assert_eq!(
        space.kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).ok(),
        "kubernetes-admin"
    );

    // A pod runs on the host, can be entered, and reaches its API server with its own token and CA.
    space.pod("box");
    tenant.on_host(&["get", "pod", &space.host_name("box")]).ok();
    assert_eq!(space.sh("box", "echo inside").ok(), "inside\n");
    let line = "cd /var/run/secrets/kubernetes.io/serviceaccount && /bin/wget -q -O - -T 20 --ca-certificate ca.crt \
                --header \"Authorization: Bearer $(cat token)\" https://kubernetes.default.svc/version";
    let version: Value = eventually("the pod's own API server", || {
        space.sh("box", line).result().and_then(|t| serde_json::from_str(&t).map_err(|e| e.to_string()))
    });
    assert!(version["gitVersion"].is_string(), "{version}");

    // By token, and only with the token's rights; a token may impersonate, as its rights say.
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
                       {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]}]);
    let reader = space.account("reader", &rules);
    let as_reader =
        |arguments: &[&str]| Invocation::kubectl(&reader, &[&["-n", space.name.as_str()], arguments].concat()).run();
    assert!(as_reader(&["get", "configmaps", "-o", "name"]).ok().contains("configmap/seen"));
    as_reader(&["get", "secrets"]).fails(&["forbidden"]);
    let default = format!("system:serviceaccount:{}:default", space.name);
    let refused = as_reader(&["get", "configmaps", "--as", &default]);
    assert!(refused.err.contains(&default), "the backend judges the impersonated one: {refused}");
    refused.fails(&["forbidden"]);

    // The credential that Portico impersonates with must not become the caller's.
    let refused = space.kubectl(&["get", "configmaps", "--as", "somebody"]);
    assert!(refused.err.to_lowercase().contains("forbidden"), "{refused}");
    refused.fails(&["impersonation with a client certificate is not possible"]);

    // It goes without a trace on the host; the API server behind it is not Portico's to stop.
    portico(&["delete", "front", "-n", &namespace]).ok();
    eventually("nothing is left", || match left(&namespace, "front").as_slice() {
        [] => Ok(()),
        some => Err(format!("{some:?}")),
    });
    assert_eq!(system_services(&namespace, "front"), 0);
    host(&["-n", &namespace, "rollout", "status", "statefulset/behind", "--timeout=5s"]).ok();
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}

#[test]
fn a_kubeconfig_that_is_exchanged_ends_nothing_on_the_host() {
    let namespace = format!("e2e-swap-{}", run_id());
    abandoned_control_plane(&namespace, "behind", "theirs");
    abandoned_control_plane(&namespace, "beyond", "others");
    let flags = ["--distro", "external", "--backend-secret", "theirs"];
    let tenant: &'static Tenant = Box::leak(Box::new(Tenant::create("front", &namespace, &flags)));
    let _dump = Dump(vec![tenant]);
    let space = tenant.space("work");
    space.pod("box");
    let copies = || uids(&tenant.on_host(&["get", "pods", "-l", "portico.dev/cluster=front", "-o", "json"]).json());
    let config = |secret: &str| tenant.on_host(&["get", "secret", secret, "-o", "jsonpath={.data.config}"]).ok();
    let point_to = |config: &str| {
        let patch = json!({"data": {"config": config}}).to_string();
        tenant.on_host(&["patch", "secret", "theirs", "-p", &patch]).ok();
    };
    let phase = || tenant.on_host(&["get", "virtualcluster", "front", "-o", "jsonpath={.status.phase}"]).ok();
    let (before, first, second) = (copies(), config("theirs"), config("others"));
    assert_eq!(before.len(), 1);

    point_to(&second);
    // Secrets are read again every minute.
    eventually("the exchange is noticed", || match phase() {
        phase if phase == "Held" => Ok(()),
        phase => Err(phase),
    });
    tenant.kubectl(&["create", "namespace", "elsewhere"]).ok();
    assert_eq!(copies(), before, "the pod ended with the exchange");

    point_to(&first);
    eventually("it is believed again", || match phase() {
        phase if phase == "Ready" => Ok(()),
        phase => Err(phase),
    });
    assert_eq!((copies(), space.sh("box", "echo inside").ok()), (before, "inside\n".to_owned()));
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}
