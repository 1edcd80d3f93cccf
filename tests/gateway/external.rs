//! API servers that a tenant's owner named (`distro: external`): where they are is judged at each connection, and no answer
//! of theirs leads anywhere else.

use std::sync::Arc;

use portico::error::Side;
use portico::upstream::reach::Closed;
use portico::upstream::{Pool, Reach, Target};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::support::fake::{Answer, FakeApi};
use crate::upgrades::rest;
use crate::world::{World, status, text};

#[tokio::test]
async fn hostile_backends_at_closed_addresses_are_503_and_never_connected_to() {
    let world = World::start().await;
    let before = world.a.api.accepted();
    let mut tenant = world.a.tenant(2, &world.a.client_ca, &world.clock);
    let reach = Reach::judged(&[], &[], &Closed::default());
    let target = Target { reach, ..world.a.api.target(Side::Backend) };
    tenant.backend.pool = Arc::new(Pool::new(target, world.clock.clone()));
    world.registry.put(&Arc::new(tenant));
    for is_http2 in [false, true] {
        let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(is_http2).await;
        for path in ["/api", "/api/v1/pods?watch=1", "/api/v1/namespaces/default/services/web/proxy/"] {
            let said = client.get(path).await;
            assert_eq!(status(said).await, (503, "ServiceUnavailable".to_owned()), "{path}");
        }
        let said = text(client.get("/version").await).await;
        assert!(
            said.contains("address of this cluster's API server is not allowed") && !said.contains("127.0.0"),
            "{said}"
        );
        let mut client = world.by_name(&world.b).user(world.b.user("jane")).http(is_http2).await;
        assert_eq!(text(client.get("/api").await).await, "beta", "the neighbour");
    }
    let mut tls = world.by_name(&world.a).user(world.a.user("jane")).tls(b"http/1.1").await;
    let request = format!(
        "GET /api/v1/pods?watch=1 HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        world.a.host
    );
    tls.write_all(request.as_bytes()).await.expect("write");
    let said = String::from_utf8_lossy(&rest(&mut tls).await).into_owned();
    assert!(said.starts_with("HTTP/1.1 503"), "{said}");
    assert_eq!(world.a.api.accepted(), before, "nobody came");
}

#[tokio::test]
async fn hostile_redirects_are_followed_by_nobody() {
    let world = World::start().await;
    let other = FakeApi::start(|_| async { Answer::text(200, "elsewhere") }).await;
    let redirect = || {
        let to = format!("https://{}/version", other.address);
        let answer = http::Response::builder().status(302).header("location", to);
        Answer::Full(answer.body(bytes::Bytes::new()).expect("an answer"))
    };
    for is_http2 in [false, true] {
        world.a.answer(redirect());
        let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(is_http2).await;
        assert_eq!(status(client.get("/version").await).await.0, 500);
    }
    // As syncer, DNS and operator ask.
    world.a.answer(redirect());
    let tenant = world.registry.load().by_id(&world.a.id()).cloned().expect("served");
    let asked = tenant.api.get_path("/version", std::time::Duration::from_secs(20)).await;
    assert!(asked.is_err(), "{asked:?}");
    assert_eq!(other.accepted(), 0, "nobody came");
}

#[tokio::test]
async fn how_full_a_store_is_is_asked_over_a_connection_that_is_kept() {
    use portico::operator::{Asked, Backends as _, Fill};

    let world = World::start().await;
    let before = world.a.api.accepted();
    let asked = Asked { clock: world.clock.clone(), registry: Arc::clone(&world.registry) };
    for bytes in 1..=3 {
        world.a.answer(Answer::json(200, &json!({"bytes": bytes, "bound": 9, "full": false})));
        let fill = asked.fill(&world.a.id(), "u").await.expect("an answer");
        assert_eq!(fill, Some(Fill { bytes, bound: 9, full: false }));
        assert_eq!(world.a.last_seen().path, "/portico/store");
    }
    world.a.answer(Answer::status(404, "NotFound", "an image from before"));
    assert_eq!(asked.fill(&world.a.id(), "u").await.expect("an answer"), None);
    assert_eq!(world.a.api.accepted() - before, 1, "connections");
    let seen = world.a.api.seen().len();
    assert!(asked.fill(&world.a.id(), "another").await.is_err(), "its successor is not served yet");
    assert_eq!(world.a.api.seen().len(), seen);
}
