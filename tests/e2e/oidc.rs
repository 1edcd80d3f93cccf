//! People of an identity provider: a real issuer (`tests/e2e/issuer`), somebody who logs in there, and kubectl.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{
    Dump, Invocation, Running, alpha, beta, eventually, eventually_is, kubectl, node, portico, run_id, target, user_of,
    with_user, work,
};
use crate::port;

/// A running issuer: its URL, and the certificate by which it is known.
struct Issuer {
    url: String,
    certificate: PathBuf,
    pem: String,
    _server: Running,
}

impl Issuer {
    fn start() -> Self {
        let own = rcgen::generate_simple_self_signed(vec![node()]).expect("a certificate");
        let folder = work().join(format!("issuer-{}", run_id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (pem, certificate, key) = (own.cert.pem(), folder.join("tls.crt"), folder.join("tls.key"));
        std::fs::write(&certificate, &pem).expect("written");
        std::fs::write(&key, own.signing_key.serialize_pem()).expect("written");
        let address = node().parse::<std::net::Ipv4Addr>().expect("an address").octets();
        let listen = format!("{}:{}", node(), port::free(address));
        let url = format!("https://{listen}");
        let program = target().join("cluster/bin/issuer").display().to_string();
        let (certificate_path, key) = (certificate.display().to_string(), key.display().to_string());
        let arguments = [url.as_str(), &listen, &certificate_path, &key];
        let server = Invocation::new(&program, &alpha().kubeconfig, &arguments).start();
        eventually_is("the issuer listens", || std::net::TcpStream::connect(&listen).is_ok());
        Self { url, certificate, pem, _server: server }
    }

    fn entry(&self) -> Value {
        json!({
            "issuer": {"url": self.url, "audiences": ["native"], "certificateAuthority": self.pem},
            "claimMappings": {"username": {"claim": "sub"}},
        })
    }

    /// Somebody logs in with a browser, as the kubeconfig has it that `portico connect --oidc` wrote.
    fn log_in(&self, exec: &Value) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/browser.py");
        let browser = work().join(format!("browser-{}", run_id()));
        let (script, certificate) = (script.display(), self.certificate.display());
        let line = format!("exec python3 {script} {certificate} test-user@{} verysecure \"$1\"", node());
        std::fs::write(&browser, format!("#!/bin/sh\n{line}\n")).expect("written");
        std::fs::set_permissions(&browser, std::fs::Permissions::from_mode(0o755)).expect("a program");
        let asks = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "spec": {"interactive": true}});
        let arguments: Vec<&str> = exec["args"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let login = Invocation::new("portico", &alpha().kubeconfig, &arguments)
            .env("BROWSER", &browser.display().to_string())
            .env("KUBERNETES_EXEC_INFO", &asks.to_string());
        assert_eq!(login.run().json()["kind"], "ExecCredential");
    }
}

/// What alpha accepts from now on, and what is said of it.
fn accepts(jwt: &Value) -> (String, String) {
    let patch = json!({"spec": {"auth": {"jwt": jwt}}}).to_string();
    alpha().on_host(&["patch", "virtualcluster", &alpha().name, "--type=merge", "-p", &patch]).ok();
    eventually("the operator judges it", || {
        let object = alpha().on_host(&["get", "virtualcluster", &alpha().name, "-o", "json"]).json();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let said = conditions
            .iter()
            .find(|c| c["type"] == "AuthAccepted" && c["observedGeneration"] == object["metadata"]["generation"]);
        let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
        said.map(|said| (text(&said["status"]), text(&said["message"]))).ok_or_else(|| object["status"].to_string())
    })
}

#[test]
fn somebody_logs_in_at_a_real_issuer_and_works_as_far_as_rbac_lets_him() {
    let space = alpha().space("oidc");
    let _dump = Dump(vec![alpha(), beta()]);
    let issuer = Issuer::start();
    assert_eq!(accepts(&json!([issuer.entry()])).0, "True");
    let jane = work().join(format!("oidc-{}.yaml", run_id()));
    let (file, name) = (jane.display().to_string(), alpha().name.as_str());
    let connect = ["connect", name, "-n", &alpha().namespace, "--oidc", "--kube-config", &file];
    let connected = portico(&connect);
    assert!(connected.err.contains("each user logs in at"), "{connected}");
    connected.ok();
    let user = user_of(&jane);
    assert_eq!(user.as_object().map(serde_json::Map::len), Some(1), "nothing secret: {user}");
    // Nobody has, and here is nobody to ask.
    kubectl(&jane, &["get", "namespaces"]).fails(&["somebody has to log in"]);
    issuer.log_in(&user["exec"]);
    let me = || kubectl(&jane, &["auth", "whoami", "-o", "json"]);
    let known = eventually("she is known", || me().result());
    let known: Value = serde_json::from_str(&known).expect("JSON");
    assert_eq!(known["status"]["userInfo"]["username"], "oidc:id1");
    assert_eq!(known["status"]["userInfo"]["groups"], json!(["system:authenticated"]));
    kubectl(&jane, &["-n", &space.name, "get", "pods"]).fails(&["Forbidden", "oidc:id1"]);
    space.pod("web");
    kubectl(&jane, &["-n", &space.name, "exec", "web", "--", "true"]).fails(&["Forbidden"]);
    space.kubectl(&["create", "rolebinding", "jane", "--clusterrole=edit", "--user=oidc:id1"]).ok();
    let said =
        eventually("she may", || kubectl(&jane, &["-n", &space.name, "exec", "web", "--", "echo", "hello"]).result());
    assert_eq!(said.trim(), "hello");
    kubectl(&jane, &["-n", &space.name, "create", "configmap", "hers", "--from-literal=a=b"]).ok();
    kubectl(&jane, &["get", "secrets", "-A"]).fails(&["Forbidden"]);
    // The neighbour has no such issuer.
    let at_beta = with_user(&beta().kubeconfig, &user, "oidc-beta");
    kubectl(&at_beta, &["get", "namespaces"]).fails(&["Unauthorized"]);

    // An unfit edit leaves her what she has, and says why; what is taken away is taken away.
    let mut unfit = issuer.entry();
    unfit["claimMappings"]["username"] = json!({"expression": "claims.sub"});
    let (accepted, why) = accepts(&json!([unfit]));
    assert!(accepted == "False" && why.contains("CEL"), "{accepted} {why}");
    kubectl(&jane, &["-n", &space.name, "get", "configmap", "hers"]).ok();
    let watch = ["-n", space.name.as_str(), "get", "configmaps", "--watch", "-o", "name"];
    let mut watching = Invocation::kubectl(&jane, &watch).start();
    watching.line_with("configmap/hers");
    assert_eq!(accepts(&json!([])).0, "True");
    eventually_is("her watch ends", || !watching.is_running());
    kubectl(&jane, &["-n", &space.name, "get", "configmaps"]).fails(&["Unauthorized"]);
    let arguments: Vec<&str> =
        user["exec"]["args"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    portico(&[&arguments[..], &["--forget"]].concat()).ok();
}
