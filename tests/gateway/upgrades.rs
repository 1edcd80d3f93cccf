//! What the backend itself upgrades: how such streams end, and what is counted of them.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use portico::config::GatewayConfig;
use portico::runtime::clock::Clock;
use portico::runtime::task;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::fake::Answer;
use crate::support::pki::Pki;
use crate::world::{Cluster, PATIENCE, World, piece, status};

const SWITCHING: [(&str, &str); 2] = [("connection", "upgrade"), ("upgrade", "websocket")];

/// A watch over WebSocket behind its 101; the backend echoes.
pub async fn upgraded(world: &World, cluster: &Cluster) -> TlsStream<TcpStream> {
    cluster.answer(Answer::echo(&SWITCHING));
    let mut tls = world.by_name(cluster).user(cluster.user("jane")).tls(b"http/1.1").await;
    let request = format!(
        "GET /api/v1/pods?watch=1 HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        cluster.host
    );
    tls.write_all(request.as_bytes()).await.expect("write");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(PATIENCE, tls.read_u8()).await.expect("in time").expect("a head"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    tls
}

pub async fn echoed(tls: &mut TlsStream<TcpStream>, text: &[u8]) -> bool {
    tls.write_all(text).await.expect("write");
    tls.flush().await.expect("flush");
    let mut back = vec![0; text.len()];
    tokio::time::timeout(PATIENCE, tls.read_exact(&mut back)).await.expect("in time").expect("bytes");
    back == text
}

/// Everything until the gateway closes.
pub async fn rest(tls: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A close without close_notify is an end too.
    let _ = tokio::time::timeout(PATIENCE, tls.read_to_end(&mut bytes)).await.expect("the gateway closes");
    bytes
}

#[tokio::test]
async fn a_stream_ends_with_its_tenant_and_no_other() {
    let world = World::start().await;
    let (mut a, mut b) = (upgraded(&world, &world.a).await, upgraded(&world, &world.b).await);
    assert!(echoed(&mut a, b"one").await && echoed(&mut b, b"two").await);
    world.registry.remove(&world.a.id());
    assert!(rest(&mut a).await.is_empty());
    assert!(echoed(&mut b, b"still here").await);
}

#[tokio::test]
async fn a_stream_outlives_a_generation_but_not_its_users_certificate() {
    let world = World::start().await;
    let mut stream = upgraded(&world, &world.a).await;
    world.registry.put(&Arc::new(world.a.tenant(2, &world.a.client_ca, &world.clock)));
    assert!(echoed(&mut stream, b"still here").await);
    world.registry.put(&Arc::new(world.a.tenant(3, &Pki::new("client CA"), &world.clock)));
    assert!(rest(&mut stream).await.is_empty());
}

/// The end of a certificate's time is no generation of the tenant. Who is known by a token goes on: its end is the API
/// server's to notice.
#[tokio::test]
async fn what_takes_long_ends_with_the_time_of_its_users_certificate() {
    let last: jiff::Timestamp = "4095-12-31T23:59:56Z".parse().expect("a time");
    let world = World::with(GatewayConfig::default(), Clock::going(last, 1)).await;
    let mut stream = upgraded(&world, &world.a).await;
    let by_certificate = || world.by_name(&world.a).user(world.a.user("jane"));
    let token = [("authorization", "Bearer t")];
    let mut kept = Vec::new();
    for (dial, path, headers) in [
        (by_certificate(), "/api/v1/pods?watch=1", &[][..]),
        (by_certificate(), "/api/v1/namespaces/a/services/b/proxy/events", &[]),
        (world.by_name(&world.a), "/api/v1/pods?watch=1", &token),
    ] {
        let (answer, events) = Answer::stream();
        world.a.answer(answer);
        let mut client = dial.http(true).await;
        let answer = client.get_with(path, headers).await;
        kept.push((client, answer, events));
    }
    assert!(echoed(&mut stream, b"still here").await);
    assert!(rest(&mut stream).await.is_empty(), "it ends by itself");
    assert_eq!(piece(&mut kept[0].1).await, None);
    let proxied = kept[1].1.body_mut().frame();
    let proxied = tokio::time::timeout(PATIENCE, proxied).await.expect("in time").expect("no end that looks whole");
    assert!(proxied.is_err(), "{proxied:?}");
    assert_eq!(status(kept[0].0.get("/api").await).await.0, 401, "nor is anything begun on its connection");
    let (_, answer, events) = &mut kept[2];
    events.send("more".into()).await.expect("sent");
    assert_eq!(piece(answer).await.as_deref(), Some("more"));
}

#[tokio::test]
async fn a_backend_leads_nobody_into_another_protocol() {
    let world = World::start().await;
    for to in [&[("connection", "upgrade"), ("upgrade", "h2c")][..], &[("connection", "upgrade")]] {
        world.a.answer(Answer::echo(to));
        let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(false).await;
        let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
        let (code, reason) = status(client.get_with("/api/v1/pods?watch=1", &upgrade).await).await;
        assert_eq!((code, &*reason), (500, "InternalError"));
    }
}

#[tokio::test]
async fn a_half_close_passes_and_the_rest_comes_back() {
    let world = World::start().await;
    let mut stream = upgraded(&world, &world.a).await;
    stream.write_all(b"last words").await.expect("write");
    stream.shutdown().await.expect("half-closed");
    assert_eq!(rest(&mut stream).await, b"last words");
    world.metric_becomes("portico_gateway_long_running", &world.a, 0.0).await;
}

#[tokio::test]
async fn what_passed_before_a_stream_broke_off_is_counted() {
    let world = World::start().await;
    let mut stream = upgraded(&world, &world.a).await;
    assert!(echoed(&mut stream, b"12345").await);
    stream.get_ref().0.set_zero_linger().expect("reset instead of an end");
    drop(stream);
    world.metric_becomes("portico_gateway_long_running", &world.a, 0.0).await;
    for name in ["portico_gateway_received_bytes_total", "portico_gateway_sent_bytes_total"] {
        world.metric_becomes(name, &world.a, 5.0).await;
    }
}

#[tokio::test]
async fn a_drain_waits_for_streams_and_ends_them_in_time() {
    let mut world = World::start().await;
    let mut stream = upgraded(&world, &world.a).await;
    let draining = world.drain.take().expect("trigger").drain(Duration::from_millis(1500));
    let draining = task::spawn("drain", draining);
    assert!(echoed(&mut stream, b"still here").await);
    assert!(rest(&mut stream).await.is_empty());
    assert_eq!(draining.join().await, Some(true), "nothing is left at the deadline");
}
