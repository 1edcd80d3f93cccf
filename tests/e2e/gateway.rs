//! Requests through the one TLS endpoint: ways in, credentials, protocols, and what a hostile tenant must not get.

use serde_json::{Value, json};

use crate::harness::{Dump, alpha, beta, eventually, gateway_url, kubectl, raw, user_of, with_user};

fn uid_of_default(answer: &Value) -> String {
    answer["metadata"]["uid"].as_str().expect("a uid").to_owned()
}

#[test]
fn by_path_and_by_name_it_is_the_same_cluster() {
    let _dump = Dump(vec![alpha(), beta()]);
    let get = ["get", "namespace", "default", "-o", "json"];
    let by_path = uid_of_default(&alpha().kubectl(&get).json());
    let by_name = uid_of_default(&kubectl(&alpha().by_sni(), &get).json());
    let other = uid_of_default(&beta().kubectl(&get).json());
    assert_eq!(by_path, by_name);
    assert_ne!(by_path, other);
    let own_name = raw(&alpha().by_sni(), "/api/v1/namespaces/default", &[], |c| {
        c.tls_server_name = Some("alpha.e2e.test".to_owned());
    });
    let own_name = own_name.expect("the name given at creation is served");
    assert_eq!(uid_of_default(&serde_json::from_slice(&own_name.bytes).expect("JSON")), by_path);
}

#[test]
fn raw_paths_discovery_and_explain() {
    let _dump = Dump(vec![alpha()]);
    let version = alpha().kubectl(&["get", "--raw", "/version"]).json();
    assert!(version["gitVersion"].as_str().expect("a version").starts_with("v1."), "{version}");
    assert!(alpha().kubectl(&["get", "--raw", "/openapi/v3"]).ok().contains("apis/apps/v1"));
    assert!(alpha().kubectl(&["api-resources"]).ok().contains("deployments"));
    assert!(alpha().kubectl(&["explain", "pod.spec.containers"]).ok().contains("FIELDS"));
}

#[test]
fn every_way_to_write() {
    let space = alpha().space("writes");
    let _dump = Dump(vec![alpha()]);
    space.kubectl(&["create", "configmap", "c", "--from-literal=a=1"]).ok();
    for (kind, patch) in [
        ("merge", r#"{"data":{"b":"2"}}"#),
        ("json", r#"[{"op":"add","path":"/data/c","value":"3"}]"#),
        ("strategic", r#"{"data":{"d":"4"}}"#),
    ] {
        space.kubectl(&["patch", "configmap", "c", "--type", kind, "-p", patch]).ok();
    }
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"e": "5"}});
    let apply = ["apply", "--server-side", "--field-manager=e2e", "-f", "-"];
    space.invocation(&apply).stdin(applied.to_string().as_bytes()).run().ok();
    let found = space.kubectl(&["get", "configmap", "c", "-o", "json"]).json();
    assert_eq!(found["data"], json!({"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}));
    space.kubectl(&["get", "configmaps", "--chunk-size=1"]).ok();
    space.kubectl(&["delete", "configmap", "c"]).ok();
}

#[test]
fn a_watch_streams_without_being_buffered() {
    let space = alpha().space("watch");
    let _dump = Dump(vec![alpha()]);
    let watch = space.invocation(&["get", "configmaps", "-w", "-o", "name"]).start();
    watch.line_with("kube-root-ca.crt");
    for n in 0..3 {
        let name = format!("seen-{n}");
        space.kubectl(&["create", "configmap", &name]).ok();
        watch.line_with(&name);
    }
}

#[test]
fn custom_resources_of_the_tenant_stay_in_the_tenant() {
    let _dump = Dump(vec![alpha(), beta()]);
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.e2e.test"},
        "spec": {"group": "e2e.test", "scope": "Namespaced", "names": {"kind": "Gadget", "plural": "gadgets"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let space = alpha().space("crd");
    space.apply(&crd.to_string());
    let gadget = json!({"apiVersion": "e2e.test/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": {"a": 1}});
    eventually("the kind is served", || {
        space.invocation(&["apply", "-f", "-"]).stdin(gadget.to_string().as_bytes()).run().result()
    });
    beta().kubectl(&["get", "gadgets", "-A"]).fails(&["the server doesn't have a resource type"]);
    crate::harness::host(&["get", "gadgets", "-A"]).fails(&["the server doesn't have a resource type"]);
    alpha().kubectl(&["delete", "crd", "gadgets.e2e.test"]).ok();
}

#[test]
fn protobuf_passes_untouched() {
    let accept = [("Accept", "application/vnd.kubernetes.protobuf")];
    let answer = raw(&alpha().kubeconfig, &format!("{}/api/v1/namespaces", alpha().path()), &accept, at_root)
        .expect("an answer");
    assert_eq!(answer.code, 200, "{}", answer.text());
    assert!(answer.bytes.starts_with(b"k8s\0"), "{:?}", &answer.bytes[..8]);
}

/// Lets the test give the whole path itself.
pub(crate) fn at_root(config: &mut kube::Config) {
    config.cluster_url = gateway_url().parse().expect("a URL");
}

#[test]
fn a_service_account_is_who_it_is_and_no_more() {
    let space = alpha().space("account");
    let _dump = Dump(vec![alpha()]);
    let kubeconfig =
        space.account("reader", &json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]));
    let me = kubectl(&kubeconfig, &["auth", "whoami", "-o", "json"]).json();
    assert_eq!(me["status"]["userInfo"]["username"], format!("system:serviceaccount:{}:reader", space.name));
    kubectl(&kubeconfig, &["-n", &space.name, "get", "configmaps"]).ok();
    kubectl(&kubeconfig, &["-n", &space.name, "get", "secrets"]).fails(&["forbidden"]);
    // Impersonation is decided by the tenant.
    kubectl(&kubeconfig, &["-n", &space.name, "get", "secrets", "--as=kubernetes-admin", "--as-group=system:masters"])
        .fails(&["cannot impersonate"]);
    alpha().kubectl(&["-n", &space.name, "get", "secrets", "--as=nobody"]).fails(&["forbidden"]);
    // Headers that only a front proxy may send change nothing.
    let spoofed = [("X-Remote-User", "kubernetes-admin"), ("X-Remote-Group", "system:masters")];
    let path = format!("{}/api/v1/namespaces/{}/secrets", alpha().path(), space.name);
    raw(&kubeconfig, &path, &spoofed, at_root).expect("an answer").is_status(403);
    // The spelling that some servers take for the same header.
    raw(&kubeconfig, &path, &[("X_Remote_User", "kubernetes-admin")], at_root).expect("an answer").is_status(400);
}

#[test]
fn failures_are_statuses() {
    let missing = raw(&alpha().kubeconfig, &format!("{}/api/v1/namespaces/none", alpha().path()), &[], at_root);
    missing.expect("an answer").is_status(404);
    raw(&alpha().kubeconfig, "/clusters/nowhere/nobody/api", &[], at_root).expect("an answer").is_status(404);
    raw(&alpha().kubeconfig, "/api/v1/namespaces", &[], at_root).expect("an answer").is_status(404);
    let nobody = with_user(&alpha().kubeconfig, &json!({}), "nobody");
    raw(&nobody, &format!("{}/api/v1/namespaces", alpha().path()), &[], at_root).expect("an answer").is_status(401);
    let forged = with_user(&alpha().kubeconfig, &json!({"token": "eyJhbGciOiJub25lIn0.e30."}), "forged");
    raw(&forged, &format!("{}/api/v1/namespaces", alpha().path()), &[], at_root).expect("an answer").is_status(401);
}

#[test]
fn hostile_credentials_of_another_tenant() {
    let _dump = Dump(vec![alpha(), beta()]);
    let words = ["unauthorized", "must be logged in", "credentials", "forbidden"];
    // beta's admin certificate, at alpha by path and by name.
    let by_path = with_user(&alpha().kubeconfig, &user_of(&beta().kubeconfig), "beta-at-alpha");
    kubectl(&by_path, &["get", "secrets", "-A"]).fails(&words);
    let by_name = with_user(&alpha().by_sni(), &user_of(&beta().kubeconfig), "beta-at-alpha-sni");
    let answer = raw(&by_name, "/api/v1/secrets", &[], |_| {});
    assert!(answer.as_ref().map_or(true, |a| a.code == 401), "{answer:?}");
    // beta's service account, at alpha.
    let space = beta().space("hostile");
    let account = space.account("thief", &json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]));
    let token = with_user(&alpha().kubeconfig, &user_of(&account), "thief-at-alpha");
    kubectl(&token, &["get", "namespaces"]).fails(&words);
}

/// What beta's API server shows to servers that its users run is no identity at any gateway: nobody at another tenant's, and at
/// its own whoever may read its metrics and nothing else.
#[test]
fn hostile_the_aggregators_certificate_opens_no_door() {
    let pki = beta().on_host(&["get", "secret", "beta-pki", "-o", "json"]).json();
    let user = json!({
        "client-certificate-data": pki["data"]["aggregator.crt"], "client-key-data": pki["data"]["aggregator.key"]});
    assert!(user["client-key-data"].is_string(), "{}", pki["metadata"]);
    let headers = [("X-Remote-User", "kubernetes-admin"), ("X-Remote-Group", "system:masters")];
    for (cluster, name, code) in [(alpha(), "aggregator-at-alpha", 401), (beta(), "aggregator-at-beta", 403)] {
        let kubeconfig = with_user(&cluster.by_sni(), &user, name);
        let answer = raw(&kubeconfig, "/api/v1/secrets", &headers, |_| {});
        assert!(answer.as_ref().map_or(true, |a| a.code == code), "{name}: {answer:?}");
    }
    let foreign = with_user(&alpha().by_sni(), &user, "aggregator-for-metrics");
    let answer = raw(&foreign, "/apis/metrics.k8s.io/v1beta1/pods", &headers, |_| {});
    assert!(answer.as_ref().map_or(true, |a| a.code == 401), "{answer:?}");
}

#[test]
fn hostile_paths_that_name_another_tenant_than_the_connection() {
    let beta_by_name = beta().by_sni();
    for path in [
        format!("{}/api/v1/secrets", alpha().path()),
        format!("{}/api/v1/namespaces/kube-system/secrets", alpha().path()),
        "/clusters/e2e-a/%61lpha/api/v1/secrets".to_owned(),
        "/clusters/e2e-b/beta/../../e2e-a/alpha/api/v1/secrets".to_owned(),
    ] {
        let answer = raw(&beta_by_name, &path, &[], |_| {}).expect("an answer");
        assert!([400, 404, 421].contains(&answer.code), "{path}: {} {}", answer.code, answer.text());
        assert!(!answer.text().contains("SecretList"), "{path}");
    }
    let answer = raw(&beta_by_name, &format!("{}/api/v1/secrets", alpha().path()), &[], |_| {}).expect("an answer");
    answer.is_status(421);
    // The other tenant's name in the Host header.
    let answer = raw(&beta_by_name, "/api/v1/secrets", &[("Host", "alpha.e2e.test")], |_| {}).expect("an answer");
    assert_ne!(answer.code, 200, "{}", answer.text());
}
