//! Short credentials, with kubectl as their client: tokens and certificates by `portico connect`, Secrets for machines.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{Dump, alpha, beta, eventually, eventually_is, kubectl, portico, run_id, work};

/// `portico connect` to alpha with these flags into a file of this name.
fn connected(name: &str, flags: &[&str]) -> (PathBuf, crate::harness::Answer) {
    let path = work().join(format!("{name}-{}.yaml", run_id()));
    let file = path.display().to_string();
    let (cluster, namespace) = (alpha().name.as_str(), alpha().namespace.as_str());
    let connect = ["connect", cluster, "-n", namespace, "--kube-config", &file];
    let answer = portico(&[&connect[..], flags].concat());
    (path, answer)
}

/// Who somebody is: user and groups.
fn who(kubeconfig: &std::path::Path) -> Value {
    let answer = kubectl(kubeconfig, &["auth", "whoami", "-o", "json"]).json();
    json!([answer["status"]["userInfo"]["username"], answer["status"]["userInfo"]["groups"]])
}

#[test]
fn an_account_has_a_token_with_the_rights_that_were_asked_for() {
    let space = alpha().space("accounts");
    let _dump = Dump(vec![alpha()]);
    space.kubectl(&["create", "role", "reader", "--verb=get,list", "--resource=configmaps"]).ok();
    let (account, role) = (format!("{}/ci", space.name), format!("{}/reader", space.name));
    let flags = ["--service-account", account.as_str(), "--role", &role, "--expiration", "10m"];
    let (kubeconfig, answer) = connected("account", &flags);
    assert!(answer.err.contains("is good until"), "{answer}");
    answer.ok();
    let user = format!("system:serviceaccount:{}:ci", space.name);
    assert_eq!(who(&kubeconfig)[0], user);
    kubectl(&kubeconfig, &["-n", &space.name, "get", "configmaps"]).ok();
    kubectl(&kubeconfig, &["-n", &space.name, "get", "secrets"]).fails(&["Forbidden"]);
    // Again: what is there is used.
    connected("account", &flags).1.ok();
    // A binding of the same name that binds something else is left alone.
    let binding = format!("portico:{}:ci:reader", space.name);
    space.kubectl(&["delete", "rolebinding", &binding]).ok();
    space.kubectl(&["create", "rolebinding", &binding, "--clusterrole=view", "--user=somebody"]).ok();
    connected("account", &flags).1.fails(&["binds something else"]);
    let (_, answer) = connected("account", &["--service-account", "nowhere/ci"]);
    answer.fails(&["no namespace nowhere"]);
    let (_, answer) = connected("account", &["--service-account", &account, "--cluster-role", "absent"]);
    answer.fails(&["no ClusterRole absent"]);
    // The end of its account is the token's.
    space.kubectl(&["delete", "serviceaccount", "ci"]).ok();
    eventually_is("the token ends", || kubectl(&kubeconfig, &["get", "--raw", "/version"]).code != 0);
}

#[test]
fn a_user_has_a_certificate_of_his_own_and_none_of_kubernetes_names() {
    let _dump = Dump(vec![alpha()]);
    let flags = ["--user", "jane", "--group", "developers", "--group", "on call", "--expiration", "10m"];
    let (kubeconfig, answer) = connected("user", &flags);
    answer.ok();
    let found = who(&kubeconfig);
    assert_eq!(found[0], "jane");
    let groups = found[1].as_array().expect("groups");
    for group in ["developers", "on call", "system:authenticated"] {
        assert!(groups.contains(&json!(group)), "{found}");
    }
    kubectl(&kubeconfig, &["get", "secrets", "-A"]).fails(&["Forbidden"]);
    for hostile in [&["--user", "jane", "--group", "system:masters"][..], &["--user", "system:admin"]] {
        let (_, answer) = connected("hostile", hostile);
        answer.fails(&["did not sign", "begins with"]);
    }
    let left = alpha().on_host(&["get", "credentialrequests", "-o", "name"]).ok();
    assert!(left.trim().is_empty(), "{left}");
}

#[test]
fn a_certificate_that_ended_is_refused() {
    let _dump = Dump(vec![alpha()]);
    // The schema has no shorter life than ten minutes, so one of the past is made by the clock of the certificate: signed by the CA's own key.
    let secret = alpha().on_host(&["get", "secret", "alpha-pki", "-o", "json"]).json();
    let part = |key: &str| {
        let bytes = STANDARD.decode(secret["data"][key].as_str().expect("there")).expect("base64");
        String::from_utf8(bytes).expect("PEM")
    };
    let ca = portico::tls::certificates::Pair { certificate: part("client-ca.crt"), key: part("client-ca.key") };
    let now = jiff::Timestamp::now();
    let made = |began: jiff::Timestamp| {
        let subject = portico::tls::issued::Subject { user: "jane", groups: &[] };
        let (pair, _) = portico::tls::issued::issue_pair(&ca, subject, (began, 600), [7; 16]).expect("signed");
        let [certificate, key] = [pair.certificate, pair.key].map(|pem| STANDARD.encode(pem));
        json!({"client-certificate-data": certificate, "client-key-data": key})
    };
    let earlier = now.checked_sub(jiff::Span::new().seconds(3600)).expect("time");
    let fresh = crate::harness::with_user(&alpha().kubeconfig, &made(now), "fresh");
    let over = crate::harness::with_user(&alpha().kubeconfig, &made(earlier), "over");
    assert_eq!(who(&fresh)[0], "jane");
    kubectl(&over, &["auth", "whoami"]).fails(&["Unauthorized"]);
}

#[test]
fn a_machine_has_a_secret_as_long_as_it_is_wanted() {
    let space = beta().space("machines");
    let _dump = Dump(vec![beta()]);
    let (robot, ci) = (format!("robot-{}", run_id()), format!("ci-{}", run_id()));
    let wanted = json!({"spec": {"kubeconfigs": [
        {"secretName": robot, "user": "robot", "groups": ["machines"], "clusterRole": "view"},
        {"secretName": ci, "serviceAccount": {"namespace": space.name, "name": "ci"}},
    ]}});
    let patch = |patch: &Value| {
        beta().on_host(&["patch", "virtualcluster", "beta", "--type=merge", "-p", &patch.to_string()]).ok();
    };
    patch(&wanted);
    let written = |secret: &str| {
        let found = eventually("the Secret", || beta().on_host(&["get", "secret", secret, "-o", "json"]).result());
        let found: Value = serde_json::from_str(&found).expect("JSON");
        let path = work().join(format!("{secret}.yaml"));
        let config = STANDARD.decode(found["data"]["config"].as_str().expect("config")).expect("base64");
        std::fs::write(&path, config).expect("written");
        path
    };
    let (robots, cis) = (written(&robot), written(&ci));
    assert_eq!(who(&robots)[0], "robot");
    kubectl(&robots, &["get", "configmaps", "-A"]).ok();
    kubectl(&robots, &["get", "secrets", "-A"]).fails(&["Forbidden"]);
    assert_eq!(who(&cis)[0], format!("system:serviceaccount:{}:ci", space.name));

    // Whoever deletes one gets a new one, and what is not wanted goes with its rights.
    beta().on_host(&["delete", "secret", &robot]).ok();
    std::thread::sleep(Duration::from_secs(1));
    written(&robot);
    patch(&json!({"spec": {"kubeconfigs": []}}));
    eventually_is("both are gone", || {
        [&robot, &ci].iter().all(|name| beta().on_host(&["get", "secret", name]).code != 0)
    });
    eventually_is("its rights, too", || kubectl(&robots, &["get", "configmaps", "-A"]).code != 0);

    // A Secret of somebody else's is left alone.
    beta().on_host(&["create", "secret", "generic", &robot, "--from-literal=password=x"]).ok();
    patch(&json!({"spec": {"kubeconfigs": [{"secretName": robot, "user": "robot"}]}}));
    let said = "jsonpath={.status.conditions[?(@.type=='KubeconfigsReady')].reason}";
    eventually_is("it is said", || beta().on_host(&["get", "vc", "beta", "-o", said]).out().contains("NameTaken"));
    let theirs = beta().on_host(&["get", "secret", &robot, "-o", "jsonpath={.data}"]).ok();
    assert!(theirs.contains("password") && !theirs.contains("config"), "{theirs}");
    patch(&json!({"spec": {"kubeconfigs": []}}));
    beta().on_host(&["delete", "secret", &robot]).ok();
}
