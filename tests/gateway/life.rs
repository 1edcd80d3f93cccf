//! What goes on while tenants come and go, backends fail, limits are hit and the process drains.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portico::config::{Config, GatewayConfig};
use portico::names::claims::Claims;
use portico::names::reserved::Reserved;
use serde_json::json;

use crate::support::fake::Answer;
use crate::world::{PATIENCE, World, piece, status, text};

const WATCH: &str = "/api/v1/pods?watch=1";
const EVENT: &str = "{\"type\":\"BOOKMARK\"}\n";

#[tokio::test]
async fn watch_events_pass_one_by_one() {
    let world = World::start().await;
    for is_http2 in [false, true] {
        let (answer, events) = Answer::stream();
        world.a.answer(answer);
        let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(is_http2).await;
        let mut watch = client.get(WATCH).await;
        for _ in 0..3 {
            events.send(Bytes::from_static(EVENT.as_bytes())).await.expect("sent");
            assert_eq!(piece(&mut watch).await.as_deref(), Some(EVENT));
        }
        drop(events);
        assert_eq!(piece(&mut watch).await, None);
    }
}

#[tokio::test]
async fn a_removed_tenant_ends_alone() {
    let mut world = World::start().await;
    let (answer, _a_events) = Answer::stream();
    world.a.answer(answer);
    let (answer, b_events) = Answer::stream();
    world.b.answer(answer);
    let mut of_a = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    let mut of_b = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    let mut by_path = world.by_path().user(world.a.user("jane")).http(true).await;
    let (mut watch_a, mut watch_b) = (of_a.get(WATCH).await, of_b.get(WATCH).await);
    let mut ports = world.bound.ports();

    world.registry.remove(&world.a.id());
    assert_eq!(piece(&mut watch_a).await, None);
    of_a.closed().await;
    assert_eq!(status(by_path.get("/clusters/team/alpha/api").await).await.0, 404);
    let port = world.a.port;
    tokio::time::timeout(PATIENCE, ports.wait_for(|open| !open.contains(&port))).await.expect("closed").expect("lives");

    b_events.send(Bytes::from_static(EVENT.as_bytes())).await.expect("sent");
    assert_eq!(piece(&mut watch_b).await.as_deref(), Some(EVENT));
    let metrics = world.metrics.render().expect("metrics");
    assert!(!metrics.contains("cluster=\"alpha\""), "{metrics}");
    drop(world.drain.take());
}

/// After a start the gateway hears of the virtual clusters one by one, and builds some later than others. To a client, 404 for
/// an object means that the object is gone.
#[tokio::test]
async fn a_tenant_that_is_not_served_yet_is_not_one_that_is_not_there() {
    let world = World::start().await;
    let own = |names: &[&str]| {
        let mut claims = Claims::default();
        for name in names {
            claims.apply(&json!({"metadata": {"namespace": "team", "name": name, "uid": name}}));
        }
        world.registry.own(claims.owners(&Arc::new(Reserved::new(&Config::default()))));
    };
    own(&["alpha", "beta", "gamma"]);
    let object = |name: &str| format!("/clusters/team/{name}/api/v1/namespaces/default/pods/web");
    let mut by_path = world.by_path().user(world.a.user("jane")).http(true).await;
    let waits = by_path.get(&object("gamma")).await;
    assert_eq!(waits.headers()["retry-after"], "2");
    assert_eq!(status(waits).await, (503, "ServiceUnavailable".to_owned()));
    let host = "gamma.team.portico.local";
    assert_eq!(status(by_path.get_at(host, "/api/v1/namespaces/default/pods/web", &[]).await).await.0, 503);
    assert_eq!(status(by_path.get(&object("delta")).await).await.0, 404);

    // A successor of the same name takes its place before it is built.
    world.registry.remove(&world.a.id());
    assert_eq!(status(by_path.get(&object("alpha")).await).await.0, 503);
    own(&["beta"]);
    assert_eq!(status(by_path.get(&object("alpha")).await).await.0, 404);

    // Of the host nothing was heard yet.
    let world = World::start().await;
    let mut by_path = world.by_path().user(world.a.user("jane")).http(true).await;
    world.registry.remove(&world.a.id());
    world.registry.remove(&world.b.id());
    assert_eq!(status(by_path.get(&object("alpha")).await).await.0, 503);
    assert_eq!(status(by_path.get_at(host, "/api/v1/namespaces/default/pods/web", &[]).await).await.0, 503);
}

#[tokio::test]
async fn a_watch_ends_when_its_user_is_no_longer_vouched_for() {
    let world = World::start().await;
    let (answer, _events) = Answer::stream();
    world.a.answer(answer);
    let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    let mut watch = client.get(WATCH).await;
    let fresh = crate::support::pki::Pki::new("client CA");
    world.registry.put(&Arc::new(world.a.tenant(2, &fresh, &world.clock)));
    assert_eq!(piece(&mut watch).await, None);
}

/// Whose backend never pauses, or never comes to the end of a line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_however_much_its_backend_has_to_say() {
    let world = World::start().await;
    for (generation, event) in (2..).zip([EVENT, "no line"]) {
        let (events, said) = tokio::sync::mpsc::channel(64);
        let json = http::Response::builder().header("content-type", "application/json");
        world.a.answer(Answer::Stream(json.body(()).expect("an answer"), said));
        let said = portico::runtime::task::spawn("events", async move {
            while events.send(Bytes::from_static(event.as_bytes())).await.is_ok() {}
        });
        let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
        let mut watch = client.get(WATCH).await;
        assert!(piece(&mut watch).await.is_some());
        let fresh = crate::support::pki::Pki::new("client CA");
        world.registry.put(&Arc::new(world.a.tenant(2 * generation, &fresh, &world.clock)));
        let ended = tokio::time::timeout(PATIENCE, async {
            while let Some(Ok(_)) = http_body_util::BodyExt::frame(watch.body_mut()).await {}
        });
        assert!(ended.await.is_ok(), "{event}");
        said.join().await;
        world.registry.put(&Arc::new(world.a.tenant(2 * generation + 1, &world.a.client_ca, &world.clock)));
    }
}

#[tokio::test]
async fn a_backend_that_is_down_is_503_for_its_tenant_only() {
    let world = World::start().await;
    let mut tenant = world.a.tenant(2, &world.a.client_ca, &world.clock);
    let mut target = world.a.api.target(portico::error::Side::Backend);
    target.port = crate::support::port::free([127, 0, 0, 1]);
    tenant.backend.pool = Arc::new(portico::upstream::Pool::new(target, world.clock.clone()));
    world.registry.put(&Arc::new(tenant));
    for is_http2 in [false, true] {
        let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(is_http2).await;
        let response = client.get("/api").await;
        let retry: u32 = response.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
        assert!((1..=5).contains(&retry));
        assert_eq!(status(response).await, (503, "ServiceUnavailable".to_owned()));
        let mut client = world.by_name(&world.b).user(world.b.user("jane")).http(is_http2).await;
        assert_eq!(text(client.get("/api").await).await, "beta");
    }
    let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    for _ in 0..5 {
        assert_eq!(status(client.get("/api").await).await.0, 503);
    }
    assert_eq!(world.metric("portico_gateway_backend_away", &world.a), 1.0);
    assert_eq!(world.metric("portico_gateway_backend_away", &world.b), 0.0);
}

#[tokio::test]
async fn a_backend_that_hangs_is_504() {
    let config =
        GatewayConfig { request_timeout: portico::config::Span(Duration::from_millis(50)), ..Default::default() };
    let world = World::with(config, portico::runtime::clock::Clock::system()).await;
    world.a.answer(Answer::Hang);
    let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    assert_eq!(status(client.get("/api").await).await, (504, "Timeout".to_owned()));
}

#[tokio::test]
async fn seats_are_held_to_the_end_of_the_answer_and_per_tenant() {
    let config = GatewayConfig { max_requests_per_tenant: 1, max_long_running_per_tenant: 1, ..Default::default() };
    let world = World::with(config, portico::runtime::clock::Clock::system()).await;
    let (answer, events) = Answer::stream();
    world.a.answer(answer);
    let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    let mut watch = client.get(WATCH).await;
    let refused = client.get(WATCH).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(status(refused).await, (429, "TooManyRequests".to_owned()));
    assert_eq!(text(client.get("/api").await).await, "alpha");
    let mut other = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    assert_eq!(text(other.get(WATCH).await).await, "beta");
    drop(events);
    assert_eq!(piece(&mut watch).await, None);
    drop(watch);
    assert_eq!(text(client.get(WATCH).await).await, "alpha");
}

#[tokio::test]
async fn a_drain_ends_watches_cleanly_and_lets_requests_finish() {
    let mut world = World::start().await;
    let (answer, _events) = Answer::stream();
    world.a.answer(answer);
    let (slow, rest) = Answer::stream();
    world.b.answer(slow);
    let mut watcher = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    let mut watch = watcher.get(WATCH).await;
    let mut lister = world.by_name(&world.b).user(world.b.user("jane")).http(false).await;
    let mut list = lister.get("/api/v1/pods").await;

    let trigger = world.drain.take().expect("trigger");
    let draining = portico::runtime::task::spawn("drain", trigger.drain(Duration::from_secs(20)));
    assert_eq!(piece(&mut watch).await, None);
    watcher.closed().await;
    rest.send(Bytes::from_static(b"all")).await.expect("sent");
    assert_eq!(piece(&mut list).await.as_deref(), Some("all"));
    drop(rest);
    assert_eq!(piece(&mut list).await, None);
    lister.closed().await;
    assert_eq!(draining.join().await, Some(true));
    assert!(tokio::net::TcpStream::connect(world.address).await.is_err());
}

#[tokio::test]
async fn requests_are_counted_by_tenant() {
    let world = World::start().await;
    let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    text(client.get("/api/v1/pods").await).await;
    client.closed().await;
    let metrics = world.metrics.render().expect("metrics");
    let line = "portico_gateway_requests_total{namespace=\"team\",cluster=\"alpha\",verb=\"read\",code=\"2xx\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    assert!(!metrics.contains("cluster=\"beta\",verb"), "{metrics}");
}
