//! Who may, and who decides it.

use serde_json::json;

use crate::rules::{self, Watching};
use crate::world::{World, echoing, spdy, websocket};

#[tokio::test]
async fn reading_is_not_running() {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    let expected = "pods \"web\" is forbidden: User \"reader\" cannot create resource \"pods/exec\" in API group \"\" \
                    in the namespace \"default\"";
    for request in [websocket("web"), spdy("web")] {
        assert_eq!(world.refusal(&world.a, "reader", &request).await, (403, expected.to_owned()));
    }
    assert!(world.host.seen().is_empty());
    let asked = world.a.api.seen().remove(0).json()["spec"]["resourceAttributes"].clone();
    let same = |key: &str, value: &str| assert_eq!(asked[key], value, "{key}");
    same("resource", "pods");
    same("subresource", "exec");
    same("name", "web");
    same("namespace", "default");
}

#[tokio::test]
async fn tokens_are_judged_by_the_backend_and_never_reach_the_host() {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    let token = |name: &str| format!("{}\nauthorization: Bearer {name}", websocket("web"));
    for (name, code) in [("jane-token", 101), ("eve-token", 403), ("forged", 401)] {
        let mut wire = world.connect(&world.a, None).await;
        wire.send(&token(name), &world.a).await;
        let head = wire.head().await;
        assert_eq!(head.code, code, "{name}: {head:?}");
        if code == 403 {
            let body = wire.rest().await;
            assert!(String::from_utf8_lossy(&body).contains("User \\\"eve\\\" cannot get"), "{body:?}");
        }
    }
    let by_protocol = websocket("web")
        .replace("v5.channel.k8s.io", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.amFuZS10b2tlbg");
    let mut wire = world.connect(&world.a, None).await;
    wire.send(&by_protocol, &world.a).await;
    assert_eq!(wire.head().await.code, 101);
    let streams = world.streams();
    assert_eq!(streams.len(), 2);
    for seen in streams {
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(seen.header("sec-websocket-protocol"), Some("v5.channel.k8s.io"));
    }
}

#[tokio::test]
async fn impersonation_is_judged_by_the_backend() {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    let as_user = |user: &str| format!("{}\nimpersonate-user: {user}", websocket("web"));
    let (code, message) = world.refusal(&world.a, "reader", &as_user("jane")).await;
    assert_eq!(code, 403);
    assert!(message.contains("cannot impersonate"), "{message}");
    let (code, message) = world.refusal(&world.a, "admin", &as_user("reader")).await;
    assert_eq!(code, 403);
    assert!(message.contains("User \"reader\" cannot create"), "{message}");
    assert!(world.host.seen().is_empty());
    let (_, head) = world.ask(&world.a, "admin", &as_user("jane")).await;
    assert_eq!(head.code, 101);
    assert_eq!(world.streams().remove(0).header("impersonate-user"), None);
}

#[tokio::test]
async fn admission_is_never_bypassed() {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    let webhook = rules::webhook("w", "no.example.com", "pods/exec");
    let (policy, binding) = (rules::policy("p", "*/*"), rules::binding("b", "p"));
    for (objects, named) in [
        (vec![("validatingwebhookconfigurations", &webhook)], "no.example.com"),
        (vec![("mutatingwebhookconfigurations", &webhook)], "no.example.com"),
        (
            vec![("validatingadmissionpolicies", &policy), ("validatingadmissionpolicybindings", &binding)],
            "ValidatingAdmissionPolicy",
        ),
    ] {
        for (plural, object) in &objects {
            world.a.rules.put(plural, object);
        }
        world.judged_by(&world.a, named).await;
        for request in [websocket("web"), spdy("web")] {
            let (code, message) = world.refusal(&world.a, "jane", &request).await;
            assert_eq!(code, 403);
            assert!(message.contains(named) && message.contains("CONNECT"), "{message}");
        }
        for (plural, object) in &objects {
            world.a.rules.remove(plural, object);
        }
        world.passes(&world.a).await;
    }
    // An exec rule says nothing about port-forward.
    world.a.rules.put("validatingwebhookconfigurations", &webhook);
    world.judged_by(&world.a, "no.example.com").await;
    let forward = websocket("web").replace("/exec?", "/portforward?");
    let (_, head) = world.ask(&world.a, "jane", &forward).await;
    assert_eq!(head.code, 101);
}

/// Older API servers, and those with a feature switched on, have no `v1` of policies. Followed or listed, it is the same.
#[tokio::test]
async fn policies_of_every_version_are_read() {
    for (kind, version, watching) in [
        ("Validating", "v1beta1", Watching::Well),
        ("Validating", "v1alpha1", Watching::Refused),
        ("Mutating", "v1", Watching::Well),
        ("Mutating", "v1beta1", Watching::Refused),
        ("Mutating", "v1alpha1", Watching::Well),
    ] {
        let world = World::start(echoing).await;
        world.pod(&world.a, "web");
        world.a.rules.serve(version);
        world.a.rules.watching(watching);
        let plural = |end: &str| format!("{}admissionpolic{end}", kind.to_lowercase());
        world.a.rules.put(&plural("ies"), &rules::policy("p", "*/*"));
        let (_, head) = world.ask(&world.a, "jane", &websocket("web")).await;
        assert_eq!(head.code, 101, "not bound");
        world.a.rules.put(&plural("ybindings"), &rules::binding("b", "p"));
        world.judged_by(&world.a, &format!("{kind}AdmissionPolicy \\\"p\\\"")).await;
    }
}

/// A tenant makes as many and as large rules as it likes: pages shrink until they fit, and none is skipped.
#[tokio::test]
async fn admission_rules_are_read_page_by_page_whatever_their_size() {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    let rules = json!([{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}]);
    let last = json!({"webhooks": [{"name": "last.example.com", "rules": rules}]});
    let large = json!({"webhooks": [{"name": "large", "clientConfig": {"caBundle": "A".repeat(1 << 20)}}]});
    let first = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    // What cannot be followed is listed: what is no list at first, and then does not fit into the pages of who follows.
    world.a.objects.put(&format!("{first}?limit=100"), json!({"items": 7}));
    let (code, message) = world.refusal(&world.a, "jane", &websocket("web")).await;
    assert!(code == 500 && message.contains("cannot be read"), "{code} {message}");
    for limit in [100, 10, 5] {
        world.a.objects.put(&format!("{first}?limit={limit}"), json!({"items": [large, large, last]}));
    }
    world.a.objects.put(&format!("{first}?limit=1"), json!({"items": [large], "metadata": {"continue": "a/b"}}));
    world.a.objects.put(&format!("{first}?limit=1&continue=a%2Fb"), json!({"items": [last]}));
    let (code, message) = world.refusal(&world.a, "jane", &websocket("web")).await;
    assert_eq!(code, 403);
    assert!(message.contains("last.example.com"), "{message}");
    let huge = json!({"webhooks": [{"name": "huge", "clientConfig": {"caBundle": "A".repeat(3 << 20)}}]});
    for limit in [100, 10, 5, 1] {
        world.a.objects.put(&format!("{first}?limit={limit}"), json!({"items": [huge]}));
    }
    let (code, message) = world.refusal(&world.a, "jane", &websocket("web")).await;
    assert_eq!(code, 403);
    assert!(message.contains("too large"), "{message}");
    assert!(world.streams().is_empty());
}
