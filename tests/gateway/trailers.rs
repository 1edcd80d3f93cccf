//! Fields behind a body: none of them reaches a backend, in whatever protocol they come and go on.

use std::sync::Arc;

use portico::error::Side;
use portico::upstream::Pool;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::fake::{Answer, FakeApi, Setup};
use crate::wire::{self, DATA, END_HEADERS, END_STREAM, HEADERS, Reading, Wire};
use crate::world::{PATIENCE, World, text};

const RESERVED: [(&str, &str); 8] = [
    ("x-remote-user", "root"),
    ("x-remote-group", "system:masters"),
    ("x-remote-extra-scopes", "all"),
    ("impersonate-user", "root"),
    ("impersonate-uid", "0"),
    ("authorization", "Bearer stolen"),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-anything", "else"),
];

/// CVE-2026-30851 and its kin, in trailers.
#[tokio::test]
async fn no_trailer_reaches_a_backend() {
    let world = World::start().await;
    let old = Setup::http1().start(|_| async { Answer::text(200, "old") }).await;
    for (generation, backend) in [(2, &world.a.api), (3, &old)] {
        let mut tenant = world.a.tenant(generation, &world.a.client_ca, &world.clock);
        tenant.backend.pool = Arc::new(Pool::new(backend.target(Side::Backend), world.clock.clone()));
        world.registry.put(&Arc::new(tenant));
        by_http1(&world).await;
        judge(backend, "h1");
        by_http2(&world).await;
        judge(backend, "h2");
    }
    let mut neighbour = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    assert_eq!(text(neighbour.get("/api").await).await, "beta");
}

async fn by_http1(world: &World) {
    let names: Vec<_> = RESERVED.iter().map(|(name, _)| *name).collect();
    let fields: String = RESERVED.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "POST /api/v1/x HTTP/1.1\r\nHost: alpha.example.com\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
         Trailer: {}\r\n\r\n3\r\nabc\r\n0\r\n{fields}\r\n",
        names.join(", ")
    );
    let mut tls = world.by_name(&world.a).user(world.a.user("mallory")).tls(b"http/1.1").await;
    tls.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, tls.read_to_end(&mut answer)).await.expect("the gateway closes");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

async fn by_http2(world: &World) {
    let dial = world.by_name(&world.a).user(world.a.user("mallory"));
    let wire = Wire::connect(&dial, Reading::Answering, &[]).await;
    let head = wire::head("POST", &world.a.host, "/api/v1/x", &[("te", "trailers")]);
    let frames = [
        wire::frame(HEADERS, END_HEADERS, 1, &head),
        wire::frame(DATA, 0, 1, b"abc"),
        wire::frame(HEADERS, END_HEADERS | END_STREAM, 1, &wire::fields(&RESERVED)),
    ];
    assert!(wire.send(&frames.concat()).await);
    assert!(wire.when(|told| told.count(DATA) > 0).await.data > 0);
}

fn judge(backend: &FakeApi, by: &str) {
    let seen = backend.seen().pop().expect("a request reached the backend");
    assert_eq!((&*seen.body, seen.trailers.len()), (&b"abc"[..], 0), "{by}: {:?}", seen.trailers);
    let all = |name: &str| seen.headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>();
    assert_eq!(all("x-remote-user"), ["mallory"], "{by}");
    assert_eq!(all("x-remote-group"), ["devs"], "{by}");
    for absent in ["x-remote-extra-scopes", "impersonate-user", "impersonate-uid", "authorization", "x-anything"] {
        assert!(all(absent).is_empty(), "{by}: {absent}");
    }
}
