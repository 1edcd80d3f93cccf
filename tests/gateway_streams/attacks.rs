//! What must not work.

use bytes::Bytes;
use http::Response;

use crate::support::fake::Answer;
use crate::world::{World, echoing, spdy, websocket};

/// The name is computed from the caller's input; only what the syncer recorded counts.
#[tokio::test]
async fn a_host_pod_that_is_recorded_as_another_is_never_entered() {
    let world = World::start(echoing).await;
    let (a, b) = (&world.a, &world.b);
    // Replaced meanwhile: same name, other uid.
    world.pod(a, "web");
    world.host_pod(a, "web", "uid-of-an-older-web", "alpha");
    // Another tenant's pod under the name that this one's would have.
    world.pod(b, "bank");
    world.host_pod(b, "bank", "uid-bank", "alpha");
    // No record at all.
    b.pod("bare", "node-1");
    let path = format!("/api/v1/namespaces/team/pods/{}", b.host_name("bare"));
    world.host_objects.put(&path, serde_json::json!({"metadata": {"name": b.host_name("bare")}}));
    for (cluster, pod) in [(a, "web"), (b, "bank"), (b, "bare")] {
        for request in [websocket(pod), spdy(pod)] {
            let (code, message) = world.refusal(cluster, "jane", &request).await;
            assert_eq!((code, message), (400, format!("pod {pod} does not have a host assigned")));
        }
    }
    assert!(world.streams().is_empty());
}

#[tokio::test]
async fn another_tenants_pod_does_not_exist_here() {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    let names = ["web", "web-x-default-x-alpha", "..%2fweb", "web%2Fexec%3F", "web-x-default-x-alpha%00"];
    for name in names {
        let mut wire = world.connect(&world.b, Some("jane")).await;
        wire.send(&websocket(name), &world.b).await;
        let head = wire.head().await;
        assert!(head.code == 404 || head.code == 400, "{name}: {head:?}");
    }
    assert!(world.host.seen().is_empty(), "{:?}", world.host.seen());
    // A's user is nobody in B, whatever the Host header says.
    let stolen = websocket("web") + "\nx-forwarded-host: beta.example.com";
    let mut wire = world.connect(&world.a, Some("eve")).await;
    wire.send(&stolen, &world.b).await;
    assert_eq!(wire.head().await.code, 421);
}

/// CVE-2018-1002105: after a refused upgrade neither connection carries anything more.
#[tokio::test]
async fn a_failed_upgrade_leaves_no_pipe() {
    let world = World::start(|_| Answer::status(500, "InternalError", "container not found (\"main\")")).await;
    world.pod(&world.a, "web");
    for request in [websocket("web"), spdy("web")] {
        let second = "GET /api/v1/namespaces/team/secrets HTTP/1.1\r\nhost: alpha.example.com\r\n\r\n";
        let (mut wire, head) = world.ask(&world.a, "jane", &format!("{request}\n\n{second}")).await;
        assert_eq!(head.code, 500);
        let body = String::from_utf8(wire.rest().await).expect("text");
        assert!(body.contains("container not found") && !body.contains("HTTP/1.1"), "{body}");
    }
    assert!(world.host.seen().iter().all(|seen| !seen.path.contains("secrets")));
    assert_eq!(world.streams().len(), 2);
    assert!(world.a.api.seen().iter().all(|seen| !seen.path.contains("secrets")));
}

/// CVE-2026-2833: what stands behind the head is a stream's only after the 101.
#[tokio::test]
async fn bytes_glued_to_the_request_wait_for_the_101() {
    let (release, released) = tokio::sync::watch::channel(false);
    let world = World::start(move |_| {
        let mut released = released.clone();
        Answer::tunnel(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")], move |mut io| async move {
            released.wait_for(|go| *go).await.expect("test runs");
            let mut early = [0; 5];
            tokio::io::AsyncReadExt::read_exact(&mut io, &mut early).await.expect("early bytes");
            tokio::io::AsyncWriteExt::write_all(&mut io, &early).await.expect("echo");
            tokio::io::AsyncWriteExt::shutdown(&mut io).await.expect("end");
        })
    })
    .await;
    world.pod(&world.a, "web");
    let (mut wire, head) = world.ask(&world.a, "jane", &(spdy("web") + "\n\nearly")).await;
    assert_eq!(head.code, 101, "{head:?}");
    assert!(world.streams().remove(0).body.is_empty());
    release.send_replace(true);
    assert_eq!(wire.read(5).await, b"early");
}

#[tokio::test]
async fn a_body_before_the_upgrade_is_refused() {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    let request = spdy("web").replace("content-length: 0", "content-length: 5") + "\n\nabcde";
    assert_eq!(world.refusal(&world.a, "jane", &request).await.0, 400);
    assert!(world.streams().is_empty());
}

#[tokio::test]
async fn the_hosts_refusals_and_redirects_are_our_fault_and_nameless() {
    let answers: [fn() -> Answer; 4] = [
        || {
            Answer::status(
                403,
                "Forbidden",
                "pods \"web-x-default-x-alpha\" is forbidden: User \"system:serviceaccount:portico-system:portico\" cannot create",
            )
        },
        || Answer::status(401, "Unauthorized", "Unauthorized"),
        || {
            let response = Response::builder().status(302).header("location", "https://evil.example.com/");
            Answer::Full(response.body(Bytes::new()).expect("response"))
        },
        || Answer::text(200, "not an upgrade"),
    ];
    for answer in answers {
        let world = World::start(move |_| answer()).await;
        world.pod(&world.a, "web");
        for request in [websocket("web"), spdy("web")] {
            let (mut wire, head) = world.ask(&world.a, "jane", &request).await;
            assert_eq!(head.code, 500, "{head:?}");
            assert!(!head.text.contains("location"), "{head:?}");
            let body = String::from_utf8(wire.rest().await).expect("text");
            for hidden in ["-x-", "portico-system", "evil", "not an upgrade"] {
                assert!(!body.contains(hidden), "{body}");
            }
        }
        assert_eq!(world.streams().len(), 2);
    }
}

/// A 101 to another protocol than the one asked for is no stream.
#[tokio::test]
async fn an_unasked_protocol_is_refused() {
    let world = World::start(|_| Answer::echo(&[("connection", "Upgrade"), ("upgrade", "h2c")])).await;
    world.pod(&world.a, "web");
    assert_eq!(world.refusal(&world.a, "jane", &spdy("web")).await.0, 500);
    let odd = websocket("web").replace("upgrade: websocket", "upgrade: h2c");
    assert_eq!(world.refusal(&world.a, "jane", &odd).await, (400, "Upgrade request required".to_owned()));
}
