//! Clients that say nothing, or too little: no connection is held for ever by silence.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::fake::Answer;
use crate::world::{World, piece, text};

/// Virtual time; far beyond every deadline that a silent connection has.
const LONG: Duration = Duration::from_secs(600);
const HALF_A_HEAD: &[u8] = b"GET /api HTTP/1.1\r\nHost: alpha.example.com\r\n";
const A_REQUEST: &[u8] = b"GET /api HTTP/1.1\r\nHost: alpha.example.com\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Whether the gateway closes a connection on which nothing comes after these bytes.
async fn is_closed(world: &World, protocol: &[u8], bytes: &[u8]) -> bool {
    let mut tls = world.by_name(&world.a).user(world.a.user("jane")).tls(protocol).await;
    tls.write_all(bytes).await.expect("write");
    tls.flush().await.expect("flush");
    let mut answer = Vec::new();
    tokio::time::pause();
    let closed = tokio::time::timeout(LONG, tls.read_to_end(&mut answer)).await.is_ok();
    tokio::time::resume();
    closed
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_closed() {
    let world = World::start().await;
    let cases: [(&str, &[u8], &[u8]); 7] = [
        ("h1, nothing", b"http/1.1", b""),
        ("h1, half a head", b"http/1.1", HALF_A_HEAD),
        ("h1, after an answer", b"http/1.1", A_REQUEST),
        ("h2, nothing", b"h2", b""),
        ("h2, half a preface", b"h2", &PREFACE[..10]),
        ("h2, no settings", b"h2", PREFACE),
        ("h2, no request", b"h2", &[PREFACE, SETTINGS].concat()),
    ];
    for (what, protocol, bytes) in cases {
        assert!(is_closed(&world, protocol, bytes).await, "{what}");
    }
}

/// Pings are answered: the peer lives, and that alone is no reason to keep it.
#[tokio::test]
async fn a_connection_that_never_asks_or_asks_no_more_is_closed() {
    let world = World::start().await;
    let dial = world.by_name(&world.a).user(world.a.user("jane"));
    let fresh = dial.http(true).await;
    let mut used = dial.http(true).await;
    assert_eq!(text(used.get("/api").await).await, "alpha");
    pass(Duration::from_secs(150)).await;
    fresh.left().await;
    used.left().await;
}

#[tokio::test]
async fn a_connection_in_use_is_kept() {
    let world = World::start().await;
    let dial = world.by_name(&world.a).user(world.a.user("jane"));
    let (mut asking, mut watching) = (dial.http(true).await, dial.http(true).await);
    let (answer, events) = Answer::stream();
    world.a.answer(answer);
    let mut watch = watching.get("/api/v1/pods?watch=1").await;
    for _ in 0..4 {
        pass(Duration::from_secs(45)).await;
        assert_eq!(text(asking.get("/api").await).await, "alpha");
    }
    events.send(Bytes::from_static(b"{}\n")).await.expect("sent");
    assert_eq!(piece(&mut watch).await.as_deref(), Some("{}\n"));
}

/// Time passes, and whatever is on the wire arrives before it does.
async fn pass(time: Duration) {
    const STEP: Duration = Duration::from_secs(5);
    tokio::time::pause();
    for _ in 0..time.as_secs() / STEP.as_secs() {
        tokio::time::advance(STEP).await;
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(1));
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
    }
    tokio::time::resume();
}
