//! What operator, registry and syncer log when everything is logged: no payload of a Secret, no key, no kubeconfig, no token
//! and no address of a database, whether it is fine, broken or cannot be written.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt as _;

use super::hostile::{self, pod};
use super::run_paused;
use super::server::Faults;
use super::support::logged::{Lines, showing};
use super::support::pki::Pki;
use super::whole::World;

/// Where each is: in a tenant, in its pods' tokens, on the host. Those in JSON and YAML that is broken as well.
const PLANTED: [&str; 11] = [
    "planted-secret-payload",
    "planted-pull-password",
    "planted-large-payload",
    "planted-environment-value",
    "planted-account-token",
    "planted-database-password",
    "planted-kubeconfig-token",
    "planted-broken-token",
    "planted-mistyped-token",
    "planted-damaged-key",
    "planted-certificate-key",
];

fn secret(namespace: &str, name: &str, data: &[(&str, &str)]) -> Value {
    let data: Value = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(STANDARD.encode(value))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"namespace": namespace, "name": name}, "data": data})
}

fn cluster(world: &World, name: &str, spec: &Value) {
    world.host.put(
        "virtualclusters",
        json!({"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster",
            "metadata": {"namespace": "team-a", "name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec}),
    );
}

fn kubeconfig(user: &str) -> String {
    let ca = STANDARD.encode(Pki::new("CA").ca_pem());
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: c, user: u}}\n\
         clusters:\n- name: c\n  cluster:\n    server: https://backend.example.com:6443\n    certificate-authority-data: {ca}\n\
         users:\n- name: u\n  user:\n    {user}\n"
    )
}

/// What stands on the host for virtual clusters of every kind, and what of it is broken.
fn plant_on_the_host(world: &World) {
    let put = |name: &str, data: &[(&str, &str)]| world.host.put("secrets", secret("team-a", name, data));
    put("database", &[("endpoint", "postgres://portico:planted-database-password@db.example.com/portico")]);
    put("unknown", &[("endpoint", "planted-database-password://nowhere")]);
    put("half", &[("endpoint", "mysql://u:planted-database-password@db"), ("tls.key", "planted-certificate-key")]);
    for (name, endpoint) in [("stored", "database"), ("strange", "unknown"), ("halved", "half")] {
        cluster(world, name, &json!({"storage": {"datastoreEndpoint": {"secretName": endpoint, "key": "endpoint"}}}));
    }
    put("kubeconfig", &[("value", &kubeconfig("token: planted-kubeconfig-token"))]);
    put("broken", &[("value", &kubeconfig("token: planted-broken-token\n   : [planted-broken-token"))]);
    put("mistyped", &[("value", &kubeconfig("token: {planted-mistyped-token: planted-mistyped-token}"))]);
    put("files", &[("value", &kubeconfig("{token: planted-kubeconfig-token, client-key: /planted-certificate-key}"))]);
    for name in ["kubeconfig", "broken", "mistyped", "files"] {
        let backend = json!({"kubeconfigSecret": {"name": name, "key": "value"}});
        cluster(world, &format!("external-{name}"), &json!({"distro": "external", "backend": backend}));
    }
    // Its operator finds one that somebody made, and that is none.
    put(
        "damaged-pki",
        &[
            ("server-ca.key", "-----BEGIN PRIVATE KEY-----\nplanted-damaged-key"),
            ("server-ca.crt", "planted-damaged-key"),
        ],
    );
    cluster(world, "damaged", &json!({}));
    cluster(world, "one", &json!({}));
    cluster(world, "two", &json!({}));
}

fn plant_in_a_tenant(world: &World, name: &str) {
    let server = world.backends.of(&world.uid(("team-a", name)).expect("there"));
    server.put("secrets", secret("ns", "used", &[("password", "planted-secret-payload")]));
    let mut pull = secret("ns", "pull", &[(".dockerconfigjson", "planted-pull-password")]);
    pull["type"] = json!("kubernetes.io/dockerconfigjson");
    server.put("secrets", pull);
    server.put("secrets", secret("ns", "large", &[("password", &"planted-large-payload".repeat(5_000))]));
    let mut odd = secret("ns", "odd", &[]);
    odd["data"] = json!({"a": "planted-secret-payload", "b": ["planted-secret-payload"]});
    server.put("secrets", odd);
    server.put("serviceaccounts", json!({"metadata": {"namespace": "ns", "name": "default"}}));
    let from = |name: &str| json!({"secretRef": {"name": name}});
    let environment = json!([{"name": "PASSWORD", "value": "planted-environment-value"},
        {"name": "TWICE", "value": "$(PASSWORD)$(PASSWORD)"}]);
    let container = json!({"name": "c", "image": "i", "env": environment,
        "envFrom": [from("used"), from("large"), from("odd"), from("missing")]});
    let token = json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}});
    let spec = json!({"containers": [container], "volumes": [token], "imagePullSecrets": [{"name": "pull"}]});
    server.put("pods", pod("web", spec.clone()));
    let mut refused = spec;
    refused["hostNetwork"] = json!(true);
    server.put("pods", pod("refused", refused));
}

async fn rounds(world: &mut World, count: u32) {
    for _ in 0..count {
        world.host_controllers();
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

/// Keys that were made meanwhile: each line of each.
fn made(world: &World) -> Vec<String> {
    let secrets = world.host.objects("secrets").into_iter();
    let values = secrets.flat_map(|secret| secret["data"].as_object().cloned().unwrap_or_default());
    let texts =
        values.filter_map(|(_, value)| STANDARD.decode(value.as_str()?).ok().and_then(|b| String::from_utf8(b).ok()));
    let keys = texts.filter(|text| text.contains("PRIVATE KEY"));
    keys.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).filter(|line| line.len() > 40).collect()
}

/// As it is, and within base64 of something longer: its letters depend on where it stands and on what is around it.
fn forms(secret: &str) -> Vec<String> {
    let within = (0..3).map(|at| {
        let encoded = STANDARD.encode([&[0; 2][..at.min(2)], secret.as_bytes()].concat());
        encoded[[0, 2, 3][at]..encoded.len() - 4].to_owned()
    });
    within.chain([secret.to_owned()]).collect()
}

async fn everything_that_can_be_said() -> Vec<String> {
    let mut world = World::with(0, Faults::none(), hostile::catalog);
    plant_on_the_host(&world);
    rounds(&mut world, 8).await;
    for name in ["one", "two"] {
        plant_in_a_tenant(&world, name);
    }
    rounds(&mut world, 8).await;
    let copies = world
        .host
        .objects("secrets")
        .iter()
        .filter(|s| s.to_string().contains(&STANDARD.encode("planted-secret-payload")))
        .count();
    assert!(copies >= 2, "{copies} copies of Secrets are on the host");
    let tokens = world
        .host
        .objects("secrets")
        .iter()
        .filter(|s| s.to_string().contains(&STANDARD.encode("planted-account-token")))
        .count();
    assert!(tokens >= 2, "{tokens} pods have tokens");
    for cluster in world.host.objects("virtualclusters") {
        let status = cluster["status"].to_string();
        assert!(
            !PLANTED.iter().any(|secret| status.contains(secret)),
            "whoever may read a VirtualCluster may read {status}"
        );
    }
    let keys = made(&world);
    assert!(keys.len() > 10, "{} lines of keys", keys.len());
    // One that was fine is broken, and is read again after a minute.
    let broken = kubeconfig("token: planted-broken-token\n   : [planted-broken-token");
    world.host.put("secrets", secret("team-a", "kubeconfig", &[("value", &broken)]));
    rounds(&mut world, 15).await;
    // Nothing can be written, then nothing can be had.
    world.host.forbid(Some("team-a"), Some("secrets"));
    for name in ["one", "two"] {
        let server = world.backends.of(&world.uid(("team-a", name)).expect("there"));
        server
            .change("secrets", "ns", "used", |s| s["data"]["more"] = json!(STANDARD.encode("planted-secret-payload")));
    }
    rounds(&mut world, 8).await;
    world.host.down(true);
    rounds(&mut world, 3).await;
    world.host.down(false);
    world.restart(0);
    world.restart(1);
    rounds(&mut world, 8).await;
    keys
}

/// CVE-2019-11250, CVE-2023-22649 and their kin.
#[test]
fn no_secret_is_logged_by_operator_and_syncer_however_much_is() {
    let lines = Lines::default();
    let everything = Dispatch::new(lines.of_everything());
    // With one alone, a line that another test's thread comes to first would be switched off for all.
    let _second = Dispatch::new(tracing_subscriber::registry().with(tracing_subscriber::EnvFilter::new("trace")));
    let keys = Arc::new(Mutex::new(Vec::new()));
    let made = Arc::clone(&keys);
    tracing::dispatcher::with_default(&everything, || {
        run_paused(async move {
            let made_now = everything_that_can_be_said().await;
            made.lock().extend(made_now);
        });
    });
    let text = lines.text();
    assert!(text.lines().count() > 100, "{} lines", text.lines().count());
    for said in ["tenant served", "tenant not served yet", "syncing", "is not readable: see line"] {
        assert!(text.contains(said), "{said:?} is said");
    }
    let mut found = Vec::new();
    let mut secrets = keys.lock().drain(..).collect::<Vec<_>>();
    secrets.extend(PLANTED.map(str::to_owned));
    for secret in secrets {
        found.extend(showing(&text, &secret, forms(&secret)));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}
