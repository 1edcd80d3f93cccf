//! Rounds over control planes of `distro: k3s`, and over those with a database outside.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const PASSWORD: &str = "correct-horse";

/// A Secret with these keys.
fn secret(name: &str, data: &[(&str, &str)]) -> Value {
    let data: HashMap<&str, String> = data.iter().map(|(key, value)| (*key, STANDARD.encode(value))).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data})
}

fn address() -> String {
    format!("mysql://kine:{PASSWORD}@tcp(database:3306)/dev")
}

/// A database's user sees this cluster.
fn with_database(distro: &str) -> Value {
    json!({"distro": distro, "replicas": 2, "storage": {"datastoreEndpoint": {"secretName": "database"}}})
}

fn set(world: &World) -> Value {
    world.host.find(&STATEFUL_SETS, "team-a", "dev").expect("a StatefulSet")
}

fn digest(set: &Value) -> Value {
    set["spec"]["template"]["metadata"]["annotations"]["portico.dev/datastore"].clone()
}

#[tokio::test]
async fn k3s_becomes_ready_with_the_image_of_its_version() {
    let world = World::new();
    world.add("team-a", "dev", json!({"distro": "k3s", "version": "v1.33.1+k3s1"}));
    world.round("team-a", "dev").await;
    world.pod_is_ready("team-a", "dev");
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(status["phase"], "Ready", "{status}");
    let container = set(&world)["spec"]["template"]["spec"]["containers"][0].clone();
    assert_eq!(container["image"], "docker.io/rancher/k3s:v1.33.1-k3s1");
    let address = format!("--tls-san={}", status["backend"]["address"].as_str().expect("text").replace(":443", ""));
    assert!(container["args"].as_array().is_some_and(|args| args.contains(&json!(address))), "{container}");
    let pki = world.host.find(&SECRETS, "team-a", "dev-pki").expect("secret");
    let token = STANDARD.decode(pki["data"][pki::K3S_TOKEN].as_str().expect("token")).expect("base64");
    let token = String::from_utf8(token).expect("text");
    assert!(!set(&world).to_string().contains(&token), "by reference only");
}

#[tokio::test]
async fn a_missing_database_is_reported_with_what_to_do() {
    let world = World::new();
    world.add("team-a", "dev", with_database("k8s"));
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(World::condition(&status, condition::CONTROL_PLANE), ("False".to_owned(), "NoDatastore".to_owned()));
    assert_eq!(status["phase"], "Failed");
    let message = status["message"].as_str().expect("text");
    assert!(message.contains("kubectl -n team-a create secret generic database"), "{message}");
    assert!(world.host.find(&STATEFUL_SETS, "team-a", "dev").is_none());

    // Half of what is needed, or something else.
    for (data, why) in [
        (vec![("address", "mysql://x/y")], "no key \"endpoint\""),
        (vec![("endpoint", "sqlite:///db")], "unknown kind"),
        (vec![("endpoint", "nats://x")], "unknown kind"),
        (vec![("endpoint", "postgres://x/y"), ("tls.crt", "…")], "only one of"),
    ] {
        world.host.put(&SECRETS, "team-a", secret("database", &data));
        let (_, status) = world.round("team-a", "dev").await;
        let message = status["message"].as_str().expect("text");
        assert!(message.contains(why), "{data:?}: {message}");
    }
    world.host.put(&SECRETS, "team-a", secret("database", &[("endpoint", &address())]));
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(status["phase"], "Provisioning", "{status}");
}

#[tokio::test]
async fn a_password_reaches_the_pod_by_reference_and_a_new_one_restarts_it() {
    for (distro, prefix) in [("k8s", "PORTICO"), ("k3s", "K3S")] {
        let world = World::new();
        let files = [("ca.crt", "CA"), ("tls.crt", "CERTIFICATE"), ("tls.key", "KEY")];
        let address = address();
        let both = [&[("endpoint", address.as_str())], &files[..]].concat();
        world.host.put(&SECRETS, "team-a", secret("database", &both));
        world.add("team-a", "dev", with_database(distro));
        world.round("team-a", "dev").await;
        let first = set(&world);
        assert_eq!(first["spec"]["replicas"], 2);
        let text = first.to_string();
        assert!(!text.contains(PASSWORD) && !text.contains("CERTIFICATE"), "{text}");
        for variable in ["ENDPOINT", "CAFILE", "CERTFILE", "KEYFILE"] {
            assert!(text.contains(&format!("\"{prefix}_DATASTORE_{variable}\"")), "{variable} in {text}");
        }
        let (_, status) = world.round("team-a", "dev").await;
        assert!(!status.to_string().contains(PASSWORD));
        assert_eq!(digest(&set(&world)), digest(&first), "a quiet Secret restarts nothing");

        // Without files there is nothing to mount, and no variable that would name one.
        world.host.put(&SECRETS, "team-a", secret("database", &[("endpoint", "postgres://new@database/dev")]));
        world.round("team-a", "dev").await;
        let text = set(&world).to_string();
        assert_ne!(digest(&set(&world)), digest(&first));
        assert!(!text.contains("_CAFILE") && !text.contains("/datastore/"), "{text}");
    }
}

/// The same password in two clusters shows as two digests: nobody can tell it from outside.
#[tokio::test]
async fn a_digest_tells_nothing_about_a_password() {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let world = World::new();
        world.host.put(&SECRETS, "team-a", secret("database", &[("endpoint", &address())]));
        world.add("team-a", "dev", with_database("k8s"));
        world.round("team-a", "dev").await;
        seen.push(digest(&set(&world)));
    }
    assert!(seen[0].is_string());
    assert_ne!(seen[0], seen[1]);
}
