//! Services: the host's first, so that the addresses agree.

use serde_json::{Value, json};

use crate::support::fake::{Answer, Seen};
use crate::world::World;

/// A host that gives every Service the address 10.96.7.7.
fn giving(seen: Seen) -> Answer {
    let mut object = seen.json();
    if seen.method == "DELETE" {
        return Answer::json(200, &json!({"kind": "Status", "status": "Success"}));
    }
    object["metadata"]["uid"] = json!("host-uid");
    object["spec"]["clusterIP"] = json!("10.96.7.7");
    object["spec"]["clusterIPs"] = json!(["10.96.7.7"]);
    Answer::json(201, &object)
}

fn post(metadata: &Value) -> String {
    let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let body = object.to_string();
    format!(
        "POST /api/v1/namespaces/default/services?fieldManager=kubectl\ncontent-type: application/json\n\
         connection: close\ncontent-length: {}\n\n{body}",
        body.len()
    )
}

/// The last real create that reached the backend.
fn created(world: &World) -> Option<Value> {
    let seen = world.a.api.seen();
    seen.iter().rfind(|s| s.path.ends_with("/services") && !s.query.contains("dryRun")).map(Seen::json)
}

#[tokio::test]
async fn the_tenants_service_gets_the_hosts_address() {
    let world = World::start(giving).await;
    let (_, head) = world.ask(&world.a, "jane", &post(&json!({"name": "web"}))).await;
    assert_eq!(head.code, 201, "{head:?}");
    assert_eq!(created(&world).expect("created")["spec"]["clusterIP"], "10.96.7.7");
    let host = world.host.seen().remove(0);
    assert_eq!(host.path, "/api/v1/namespaces/team/services");
    let made = host.json();
    assert_eq!(made["metadata"]["name"], "web-x-default-x-alpha");
    assert!(made["spec"].get("clusterIP").is_none(), "the host chooses");
    assert_eq!(made["spec"]["selector"]["portico.dev/cluster"], "alpha");
    assert!(made["metadata"]["annotations"]["portico.dev/pending-since"].is_string());
    assert_eq!((host.header("x-remote-user"), host.header("authorization")), (None, None));
    let dry_run = world.a.api.seen().remove(0);
    assert_eq!(dry_run.header("x-remote-user"), Some("jane"));
}

#[tokio::test]
async fn a_generated_name_is_one_name() {
    let world = World::start(giving).await;
    let (_, head) = world.ask(&world.a, "jane", &post(&json!({"generateName": "web-"}))).await;
    assert_eq!(head.code, 201, "{head:?}");
    assert_eq!(created(&world).expect("created")["metadata"]["name"], "web-abcde");
    assert_eq!(world.host.seen().remove(0).json()["metadata"]["name"], "web-abcde-x-default-x-alpha");
}

#[tokio::test]
async fn what_the_backend_refuses_does_not_stay_on_the_host() {
    let world = World::start(giving).await;
    world.a.objects.put("refusal", json!({}));
    let (code, message) = world.refusal(&world.a, "jane", &post(&json!({"name": "web"}))).await;
    assert_eq!((code, message.as_str()), (409, "services \"web\" already exists"));
    let last = world.host.seen().pop().expect("seen");
    assert_eq!(
        (last.method.as_str(), last.path.as_str()),
        ("DELETE", "/api/v1/namespaces/team/services/web-x-default-x-alpha")
    );
    assert_eq!(last.json()["preconditions"]["uid"], "host-uid");
}

#[tokio::test]
async fn the_hosts_refusal_is_told_without_its_names() {
    let world = World::start(|_| {
        let cause = json!({"field": "spec.clusterIPs", "reason": "FieldValueInvalid",
            "message": "Invalid value: [\"10.96.1.1\"]: failed to allocate IP 10.96.1.1: provided IP is already allocated"});
        Answer::json(422, &json!({"kind": "Status", "status": "Failure", "reason": "Invalid", "code": 422,
            "message": "Service \"web-x-default-x-alpha\" is invalid", "details": {"causes": [cause]}}))
    })
    .await;
    let (code, message) = world.refusal(&world.a, "jane", &post(&json!({"name": "web"}))).await;
    assert_eq!(code, 422);
    assert!(message.contains("already allocated") && !message.contains("-x-"), "{message}");
    assert!(created(&world).is_none());
}

/// Nothing of a Service is read before the backend accepted the token, and then as ever.
#[tokio::test]
async fn a_token_is_judged_before_a_service_is_read() {
    let world = World::start(giving).await;
    let with = |token: &str| {
        post(&json!({"name": "web"}))
            .replace("connection: close", &format!("connection: close\nauthorization: Bearer {token}"))
    };
    for (token, code) in [("forged", 401), ("jane-token", 201)] {
        let mut wire = world.connect(&world.a, None).await;
        wire.send(&with(token), &world.a).await;
        assert_eq!(wire.head().await.code, code, "{token}");
    }
    let asked: Vec<String> = world.a.api.seen().into_iter().map(|seen| seen.path).collect();
    let (review, services) =
        ("/apis/authentication.k8s.io/v1/selfsubjectreviews", "/api/v1/namespaces/default/services");
    assert_eq!(asked, [review, review, services, services]);
    assert_eq!(world.host.seen().len(), 1);
}

/// Three bytes of text can become hundreds in memory.
#[tokio::test]
async fn a_service_that_is_a_bomb_is_413() {
    let world = World::start(giving).await;
    let bomb: Vec<Value> = (0..60_000).map(|_| json!({"": 0})).collect();
    let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    object["unheard"] = json!(bomb);
    let body = object.to_string();
    let request = format!(
        "POST /api/v1/namespaces/default/services\ncontent-type: application/json\nconnection: close\n\
         content-length: {}\n\n{body}",
        body.len()
    );
    let (code, message) = world.refusal(&world.a, "jane", &request).await;
    assert_eq!(code, 413, "{message}");
    assert!(world.host.seen().is_empty() && created(&world).is_none());
}
