//! Heads that are too large, of ordinary requests and of upgrades: refused by size, and nobody else notices.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::wire::{self, END_HEADERS, END_STREAM, HEADERS, Reading, Wire};
use crate::world::{PATIENCE, World, text};

/// More than the gateway takes.
const LONG: usize = 70 << 10;
const MANY: usize = 3000;
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// RUSTSEC-2023-0065 and its kin.
#[tokio::test]
async fn huge_heads_of_http1_are_refused() {
    let world = World::start().await;
    let mut neighbour = world.by_name(&world.b).user(world.b.user("jane")).http(false).await;
    let long = "a".repeat(LONG);
    let many: String = (0..MANY).map(|n| format!("x-{n}: a\r\n")).collect();
    let few: String = (0..300).map(|n| format!("x-{n}: a\r\n")).collect();
    let cases = [
        ("a long field", "/api".to_owned(), format!("x-a: {long}\r\n")),
        ("a long name", "/api".to_owned(), format!("{long}: a\r\n")),
        ("many fields", "/api".to_owned(), many),
        ("more fields than may be", "/api".to_owned(), few),
        ("a long path", format!("/api/{long}"), String::new()),
        ("a long query", format!("/api?{long}"), String::new()),
        ("a long protocol", "/api".to_owned(), format!("sec-websocket-protocol: {long}\r\n")),
    ];
    for (what, path, fields) in cases {
        for upgrade in ["", UPGRADE] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: alpha.example.com\r\n{upgrade}{fields}\r\n");
            let mut tls = world.by_name(&world.a).user(world.a.user("mallory")).tls(b"http/1.1").await;
            // It may be cut before all was sent.
            let _ = tls.write_all(request.as_bytes()).await;
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(PATIENCE, tls.read_to_end(&mut answer)).await.expect("the gateway closes");
            let answer = String::from_utf8_lossy(&answer);
            let code = answer.split(' ').nth(1).unwrap_or_default();
            assert!(["431", "414", "400"].contains(&code), "{what}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
            assert_eq!(text(neighbour.get("/api").await).await, "beta", "{what}");
        }
    }
    assert!(world.a.api.seen().is_empty());
}

#[tokio::test]
async fn huge_heads_of_http2_are_refused_and_their_connection_goes_on() {
    let world = World::start().await;
    let mut client = world.by_name(&world.a).user(world.a.user("mallory")).http(true).await;
    let mut neighbour = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    let long = "a".repeat(LONG);
    let names: Vec<_> = (0..MANY).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "a")).collect();
    for fields in [&[("x-a", long.as_str())][..], &many] {
        assert_eq!(client.get_with("/api", fields).await.status(), 431);
        assert_eq!(text(neighbour.get("/api").await).await, "beta");
    }
    assert!(world.a.api.seen().is_empty());
    assert_eq!(text(client.get("/api").await).await, "alpha", "the connection goes on");
}

/// A field of the table that is named again and again: a few kilobytes that mean megabytes.
#[tokio::test]
async fn heads_that_grow_when_they_are_read_are_refused() {
    const INDEXED_FIRST: u8 = 0x80 | 62;
    let world = World::start().await;
    let mut neighbour = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    let wire = Wire::connect(&world.by_name(&world.a).user(world.a.user("mallory")), Reading::Answering, &[]).await;
    let mut block = wire::head("GET", &world.a.host, "/api", &[]);
    block.extend(wire::kept("x-a", &"a".repeat(3900)));
    block.extend([INDEXED_FIRST; 8000]);
    assert!(wire.send(&wire::frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await);
    drop(wire.when(|told| told.is_over() || told.count(HEADERS) + told.count(wire::RST_STREAM) > 0).await);
    assert_eq!(world.a.api.accepted(), 0, "nobody was asked");
    assert_eq!(text(neighbour.get("/api").await).await, "beta");
}
