//! Credentials by `portico connect`: the binary against a server that is the host and the virtual cluster at once.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{Span, Timestamp};
use parking_lot::Mutex;
use portico::tls::certificates::{self, Pair};
use portico::tls::issued::{self, Subject};
use portico::tls::requests::PublicKey;
use serde_json::{Value, json};

use super::fake::{Answer, FakeApi, Seen};
use super::{portico_with, stderr, stdout};

const REQUESTS: &str = "/apis/portico.dev/v1alpha1/namespaces/team-a/credentialrequests";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const BINDING: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/portico:tools:ci:view";

/// A host with virtual cluster `dev` in namespace `team-a`, and that cluster.
struct World {
    server: FakeApi,
    folder: tempfile::TempDir,
    ca: Pair,
    script: Arc<Script>,
}

/// What the server makes of what it is asked.
struct Script {
    ca: Pair,
    /// The last CredentialRequest.
    asked: Mutex<Value>,
    /// What a ClusterRoleBinding that is there already binds.
    bound: Value,
    /// Where clients reach it, once it runs.
    kubeconfig: Mutex<String>,
    /// Whether the caller may read the admin's Secret.
    reads_secrets: AtomicBool,
}

impl Script {
    fn answer(&self, seen: &Seen) -> Answer {
        let created = |object: Value| Answer::json(201, &object);
        match (seen.method.as_str(), seen.path.as_str()) {
            ("GET", "/apis/portico.dev/v1alpha1/namespaces/team-a/virtualclusters/dev") => Answer::json(
                200,
                &json!({"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster",
                    "metadata": {"name": "dev", "namespace": "team-a", "uid": "u1"}, "spec": {}}),
            ),
            ("GET", "/api/v1/namespaces/team-a/secrets/vc-dev") if !self.reads_secrets.load(Ordering::Relaxed) => {
                Answer::status(403, "Forbidden", "no Secrets for you")
            }
            ("GET", "/api/v1/namespaces/team-a/secrets/vc-dev") => {
                let config = STANDARD.encode(&*self.kubeconfig.lock());
                Answer::json(
                    200,
                    &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vc-dev"}, "data": {"config": config}}),
                )
            }
            ("POST", REQUESTS) => {
                let mut object = seen.json();
                object["metadata"]["name"] = "dev-abc".into();
                object["metadata"]["uid"] = "r1".into();
                *self.asked.lock() = object.clone();
                created(object)
            }
            ("GET", path) if path == format!("{REQUESTS}/dev-abc") => {
                let mut object = self.asked.lock().clone();
                object["status"] = self.signed(&object["spec"]);
                Answer::json(200, &object)
            }
            ("DELETE", _) => Answer::json(200, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
            ("POST", "/api/v1/namespaces/tools/serviceaccounts") => created(seen.json()),
            ("POST", "/api/v1/namespaces/tools/serviceaccounts/ci/token") => {
                let ends = Timestamp::now().checked_add(Span::new().seconds(1800)).expect("time");
                let mut object = seen.json();
                object["status"] = json!({"token": "planted", "expirationTimestamp": ends.to_string()});
                created(object)
            }
            ("GET", path) if path == format!("{RBAC}/clusterroles/view") => Answer::json(
                200,
                &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                    "metadata": {"name": "view"}, "rules": []}),
            ),
            ("POST", path) if path == format!("{RBAC}/clusterrolebindings") => {
                if self.bound.is_null() {
                    created(seen.json())
                } else {
                    Answer::status(409, "AlreadyExists", "exists")
                }
            }
            ("GET", BINDING) => Answer::json(200, &self.bound),
            (_, path) => Answer::status(404, "NotFound", &format!("{path} not found")),
        }
    }

    /// As the operator answers.
    fn signed(&self, spec: &Value) -> Value {
        let user = spec["user"].as_str().expect("a user");
        if user.starts_with("system:") {
            return json!({"phase": "Denied", "reason": "ReservedName", "message": "that one is reserved"});
        }
        let key = PublicKey::requested(spec["request"].as_str().expect("PEM")).expect("a request");
        let subject = Subject { user, groups: &[] };
        let seconds = spec["expirationSeconds"].as_i64().expect("a life");
        let issued = issued::issue(&self.ca, subject, &key, (Timestamp::now(), seconds), [1; 16]).expect("signed");
        let mut ways: Value = serde_json::from_str(&self.kubeconfig.lock()).expect("JSON");
        ways["users"][0]["user"] = json!({});
        json!({"phase": "Issued", "certificate": issued.certificate, "kubeconfig": ways.to_string()})
    }
}

impl World {
    async fn new(bound: Value) -> Self {
        let ca = certificates::new_ca("client-ca@team-a/dev", Timestamp::now()).expect("CA");
        let script = Arc::new(Script {
            ca: ca.clone(),
            asked: Mutex::default(),
            bound,
            kubeconfig: Mutex::default(),
            reads_secrets: AtomicBool::new(true),
        });
        let during = Arc::clone(&script);
        let server = FakeApi::start(move |seen| {
            let answer = during.answer(&seen);
            async move { answer }
        })
        .await;
        let admin = issued::issue_pair(
            &ca,
            Subject { user: "kubernetes-admin", groups: &[] },
            (Timestamp::now(), 3600),
            [2; 16],
        );
        let (admin, _) = admin.expect("signed");
        let [certificate, key] = [&admin.certificate, &admin.key].map(|pem| STANDARD.encode(pem));
        let authority = STANDARD.encode(server.pki.ca_pem());
        let of = |cluster: Value, user: Value| {
            json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "team-a"}}]})
        };
        let dev = json!({"server": "https://192.0.2.1", "tls-server-name": "localhost", "certificate-authority-data": authority});
        let admins = json!({"client-certificate-data": certificate, "client-key-data": key});
        *script.kubeconfig.lock() = of(dev, admins).to_string();
        let folder = tempfile::tempdir().expect("folder");
        let address = format!("https://localhost:{}", server.address.port());
        let host = of(json!({"server": address, "certificate-authority-data": authority}), json!({"token": "mine"}));
        std::fs::write(folder.path().join("host"), host.to_string()).expect("written");
        Self { server, folder, ca, script }
    }

    /// `portico connect dev`, to the gateway that the server is, with these flags; and what it wrote.
    fn connect(&self, flags: &[&str]) -> (Output, PathBuf) {
        let (host, written) = (self.folder.path().join("host"), self.folder.path().join("written"));
        let (server, file) =
            (format!("https://localhost:{}", self.server.address.port()), written.display().to_string());
        let connect = ["connect", "dev", "--server", &server, "--kube-config", &file];
        let output = tokio::task::block_in_place(|| portico_with(&[&connect[..], flags].concat(), &host));
        (output, written)
    }

    fn asked(&self, method: &str, path: &str) -> Vec<Seen> {
        self.server.seen().into_iter().filter(|seen| seen.method == method && seen.path == path).collect()
    }
}

fn user_in(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("written");
    let document: Value = serde_saphyr::from_str(&text).expect("YAML");
    assert_eq!(document["users"][0]["name"], "portico_dev_team-a");
    document["users"][0]["user"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admins_certificate_stays_what_it_was_and_its_end_is_said() {
    let world = World::new(Value::Null).await;
    let (output, written) = world.connect(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("the admin's certificate in it is good until"), "{}", stderr(&output));
    assert!(user_in(&written)["client-certificate-data"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accounts_token_is_written_and_its_end_is_the_api_servers() {
    let world = World::new(Value::Null).await;
    let flags = ["--service-account", "tools/ci", "--cluster-role", "view", "--expiration", "2h"];
    let (output, written) = world.connect(&flags);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(user_in(&written), json!({"token": "planted"}));
    assert!(stderr(&output).contains("(30m, less than was asked for)"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("planted") && !stdout(&output).contains("planted"));
    let asked = world.asked("POST", "/api/v1/namespaces/tools/serviceaccounts/ci/token");
    assert_eq!(asked[0].json()["spec"]["expirationSeconds"], 7200);
    let bound = world.asked("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings")[0].json();
    assert_eq!(bound["subjects"], json!([{"kind": "ServiceAccount", "name": "ci", "namespace": "tools"}]));
    assert_eq!(
        (&bound["roleRef"]["name"], &bound["metadata"]["name"]),
        (&json!("view"), &json!("portico:tools:ci:view"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_somebody_elses_is_not_changed() {
    let theirs = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "portico:tools:ci:view"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "somebody", "apiGroup": "rbac.authorization.k8s.io"}]});
    let world = World::new(theirs).await;
    let (output, written) = world.connect(&["--service-account", "tools/ci", "--cluster-role", "view"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("binds something else") && !written.exists(), "{}", stderr(&output));
    assert!(world.asked("POST", "/api/v1/namespaces/tools/serviceaccounts/ci/token").is_empty());
    for method in ["PUT", "PATCH", "DELETE"] {
        assert!(world.server.seen().iter().all(|seen| seen.method != method), "{method}");
    }
    for (flags, code, said) in [
        (["--service-account", "tools/ci", "--cluster-role", "absent"], 3, "no ClusterRole absent"),
        (["--service-account", "elsewhere/ci", "--cluster-role", "view"], 3, "no namespace elsewhere"),
    ] {
        let (output, _) = world.connect(&flags);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(said) && stderr(&output).contains("hint: "), "{}", stderr(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_key_never_leaves_the_machine() {
    let world = World::new(Value::Null).await;
    let (output, written) = world.connect(&["--user", "jane", "--group", "dev", "--expiration", "8h"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let asked = world.asked("POST", REQUESTS)[0].json();
    assert_eq!((&asked["spec"]["user"], &asked["spec"]["groups"]), (&json!("jane"), &json!(["dev"])));
    assert_eq!(
        (&asked["spec"]["expirationSeconds"], &asked["spec"]["virtualClusterUID"]),
        (&json!(28_800), &json!("u1"))
    );
    assert_eq!(asked["metadata"]["ownerReferences"][0]["uid"], "u1");
    let user = user_in(&written);
    let [certificate, key] = ["client-certificate-data", "client-key-data"]
        .map(|part| STANDARD.decode(user[part].as_str().expect("PEM")).expect("base64"));
    portico::tls::client_config(world.ca.certificate.as_bytes(), Some((&certificate, &key))).expect("they fit");
    let key = String::from_utf8(key).expect("PEM");
    let secret = key.lines().nth(1).expect("a key");
    let sent = world.server.seen().iter().any(|seen| String::from_utf8_lossy(&seen.body).contains(secret));
    assert!(!sent && !stderr(&output).contains(secret));
    assert_eq!(world.asked("DELETE", &format!("{REQUESTS}/dev-abc")).len(), 1, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_passed_on_with_what_to_do_and_writes_nothing() {
    let world = World::new(Value::Null).await;
    let (output, written) = world.connect(&["--user", "system:admin"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("did not sign: that one is reserved") && said.contains("hint: "), "{said}");
    assert!(!written.exists());
    assert_eq!(world.asked("DELETE", &format!("{REQUESTS}/dev-abc")).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_the_admins_secret_has_a_certificate_of_his_own() {
    let world = World::new(Value::Null).await;
    world.script.reads_secrets.store(false, Ordering::Relaxed);
    let (output, _) = world.connect(&[]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("no Secrets for you"), "{}", stderr(&output));
    let (output, written) = world.connect(&["--user", "jane"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let certificate = STANDARD.decode(user_in(&written)["client-certificate-data"].as_str().expect("PEM"));
    let chain = portico::tls::certificates_from_pem(&certificate.expect("base64")).expect("PEM");
    let trust = portico::tls::ClientTrust::from_pem(world.ca.certificate.as_bytes()).expect("CA");
    trust.verify(&chain, Timestamp::now()).expect("signed by the cluster");
    let text = std::fs::read_to_string(&written).expect("written");
    assert!(text.contains(&format!("https://localhost:{}", world.server.address.port())), "{text}");
}
