//! `distro: k3s`, with a stand-in for k3s: the official image cannot be pulled where these tests run. The stand-in takes
//! k3s' flags, reads CAs where k3s reads them and has a supervisor on k3s' port; what is k3s' own beyond that is not
//! tested here.

use crate::harness::sidecar::STAND_IN;
use crate::harness::{Dump, Tenant, eventually, host, portico, raw, run_id, work};

/// Sends a request straight to the control plane's Service on the host, past the gateway.
fn at_backend(tenant: &Tenant, path: &str) -> Result<(u16, String), String> {
    let name = tenant.name.as_str();
    let address = tenant.on_host(&["get", "service", name, "-o", "jsonpath={.spec.clusterIP}"]).ok();
    let server_name = format!("{name}.{}.svc", tenant.namespace);
    let answer = raw(&tenant.by_sni(), path, &[], |config| {
        config.cluster_url = format!("https://{address}").parse().expect("a URL");
        config.tls_server_name = Some(server_name);
    })?;
    Ok((answer.code, answer.text()))
}

#[test]
fn a_cluster_of_k3s_is_used_like_any_other() {
    let namespace = format!("e2e-k3s-{}", run_id());
    let flags = ["--distro", "k3s", "--image", STAND_IN, "--storage", "1Gi"];
    let tenant: &'static Tenant = Box::leak(Box::new(Tenant::create("light", &namespace, &flags)));
    let _dump = Dump(vec![tenant]);
    let space = tenant.space("work");

    // Who one is, by certificate and by token: the front proxy's name and the key of tokens are what k3s allows.
    let name = ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"];
    assert_eq!(space.kubectl(&name).ok(), "kubernetes-admin");
    let rules = serde_json::json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]);
    let account = space.account("reader", &rules);
    let as_reader =
        |arguments: &[&str]| crate::harness::kubectl(&account, &[&["-n", space.name.as_str()], arguments].concat());
    assert_eq!(as_reader(&name).ok(), format!("system:serviceaccount:{}:reader", space.name));
    as_reader(&["get", "secrets"]).fails(&["forbidden"]);

    // A pod runs on the host, is entered and read, and trusts its own API server.
    space.pod("box");
    tenant.on_host(&["get", "pod", &space.host_name("box")]).ok();
    assert_eq!(space.sh("box", "echo inside").ok(), "inside\n");
    space
        .kubectl(&["run", "speaker", "--image", crate::harness::BUSYBOX, "--restart=Never", "--", "echo", "said"])
        .ok();
    eventually("logs", || match space.kubectl(&["logs", "speaker"]).result() {
        Ok(text) if text == "said\n" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let line = "cd /var/run/secrets/kubernetes.io/serviceaccount && /bin/wget -q -O - -T 20 --ca-certificate ca.crt \
                --header \"Authorization: Bearer $(cat token)\" https://kubernetes.default.svc/version";
    eventually("the pod's own API server", || space.sh("box", line).result());

    // Its data outlives its pod.
    space.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    tenant.on_host(&["delete", "pod", "light-0", "--wait=true"]).ok();
    eventually("the data is there again", || space.kubectl(&["get", "configmap", "kept"]).result());
    portico(&["delete", "light", "-n", &namespace]).ok();
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}

#[test]
fn hostile_paths_of_the_supervisor_end_at_the_gateway() {
    let namespace = format!("e2e-k3s-paths-{}", run_id());
    let tenant = Tenant::create("paths", &namespace, &["--distro", "k3s", "--image", STAND_IN, "--ephemeral"]);
    // They are there: who reaches the backend itself is answered.
    eventually("the supervisor", || match at_backend(&tenant, "/ping") {
        Ok((200, text)) if text.contains("pong") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let (code, authorities) = at_backend(&tenant, "/cacerts").expect("an answer");
    assert!(code == 200 && authorities.contains("BEGIN CERTIFICATE"), "{code} {authorities}");
    for path in ["/v1-k3s/server-bootstrap", "/v1-k3s/token", "/v1-k3s/config", "/cacerts", "/ping", "/db/info"] {
        // As the tenant's admin, by name and by path.
        raw(&tenant.by_sni(), path, &[], |_| {}).expect("an answer").is_status(404);
        raw(&tenant.kubeconfig, path, &[], |_| {}).expect("an answer").is_status(404);
    }
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}

#[test]
fn an_etcd_inside_outlives_its_pod_and_the_pods_address() {
    let namespace = format!("e2e-k3s-etcd-{}", run_id());
    let file = work().join(format!("{namespace}.yaml"));
    let spec =
        format!("{{distro: k3s, image: '{STAND_IN}', storage: {{embeddedEtcd: true, volumeClaim: {{size: 1Gi}}}}}}\n");
    std::fs::write(&file, spec).expect("written");
    let tenant: &'static Tenant =
        Box::leak(Box::new(Tenant::create("inner", &namespace, &["-f", &file.display().to_string()])));
    let _dump = Dump(vec![tenant]);
    tenant.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    let arguments = "jsonpath={.spec.template.spec.containers[0].args}";
    let arguments = tenant.on_host(&["get", "statefulset", "inner", "-o", arguments]).ok();
    assert!(arguments.contains("--cluster-init"), "{arguments}");
    tenant.on_host(&["delete", "pod", "inner-0", "--wait=true"]).ok();
    eventually("the data is there again", || tenant.kubectl(&["get", "configmap", "kept"]).result());
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}
