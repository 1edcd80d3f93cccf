//! HTTP framing: one request in is one request out, or none.

use http::{HeaderMap, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::fake::Answer;
use crate::wire::{self, Reading, Wire};
use crate::world::{PATIENCE, World, status, text};

/// Writes raw bytes as A's user and reads until the gateway closes or says no more.
async fn raw(world: &World, bytes: &[u8]) -> String {
    let mut tls = world.by_name(&world.a).user(world.a.user("mallory")).tls(b"http/1.1").await;
    tls.write_all(bytes).await.expect("write");
    let mut answer = Vec::new();
    let read = tls.read_to_end(&mut answer);
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("the gateway closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn ambiguous_requests_are_refused() {
    let world = World::start().await;
    let corpus: &[(&str, &str)] = &[
        ("two hosts", "GET /api HTTP/1.1\r\nHost: alpha.example.com\r\nHost: beta.example.com\r\n\r\n"),
        ("no host", "GET /api HTTP/1.1\r\n\r\n"),
        ("absolute form elsewhere", "GET https://beta.example.com/api HTTP/1.1\r\nHost: alpha.example.com\r\n\r\n"),
        ("userinfo", "GET /api HTTP/1.1\r\nHost: x@alpha.example.com\r\n\r\n"),
        ("odd host", "GET /api HTTP/1.1\r\nHost: alpha.example.com/beta\r\n\r\n"),
        ("comma host", "GET /api HTTP/1.1\r\nHost: alpha.example.com,beta.example.com\r\n\r\n"),
        (
            "te.te",
            "POST /api HTTP/1.1\r\nHost: alpha.example.com\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        ),
        (
            "te gzip",
            "POST /api HTTP/1.1\r\nHost: alpha.example.com\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        ("odd te", "POST /api HTTP/1.1\r\nHost: alpha.example.com\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        (
            "two lengths",
            "POST /api HTTP/1.1\r\nHost: alpha.example.com\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        ),
        ("bad length", "POST /api HTTP/1.1\r\nHost: alpha.example.com\r\nContent-Length: +1\r\n\r\na"),
        ("1.0 with te", "POST /api HTTP/1.0\r\nHost: alpha.example.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("fold", "GET /api HTTP/1.1\r\nHost: alpha.example.com\r\nX-A: b\r\n c\r\n\r\n"),
        ("space before colon", "GET /api HTTP/1.1\r\nHost: alpha.example.com\r\nX-Remote-User : root\r\n\r\n"),
    ];
    for (what, request) in corpus {
        let answer = raw(&world, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"), "{what}: {answer}");
    }
    assert!(world.a.api.seen().is_empty() && world.b.api.seen().is_empty());
    let connect = raw(
        &world,
        b"CONNECT beta.example.com:443 HTTP/1.1\r\nHost: beta.example.com:443\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(connect.starts_with("HTTP/1.1 4"), "{connect}");
}

/// Length and chunks together: one request by its chunks, and the connection ends, so nothing can hide behind it.
#[tokio::test]
async fn length_and_chunks_make_one_request() {
    let world = World::start().await;
    let smuggled = "POST /api/v1/x HTTP/1.1\r\nHost: alpha.example.com\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n\
        0\r\n\r\nGET /api/v1/secrets HTTP/1.1\r\nHost: alpha.example.com\r\n\r\n";
    let answer = raw(&world, smuggled.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(world.a.api.seen().iter().all(|seen| seen.path != "/api/v1/secrets"));
}

#[tokio::test]
async fn bodies_beyond_the_limit_are_413() {
    let config = portico::config::GatewayConfig { max_body: 1000, ..Default::default() };
    let world = World::with(config, portico::runtime::clock::Clock::system()).await;
    let head = "POST /api/v1/x HTTP/1.1\r\nHost: alpha.example.com\r\nConnection: close\r\n";
    let known = format!("{head}Content-Length: 2000\r\n\r\n{}", "x".repeat(2000));
    assert!(raw(&world, known.as_bytes()).await.starts_with("HTTP/1.1 413"));
    assert!(world.a.api.seen().is_empty());
    let counted = format!("{head}Transfer-Encoding: chunked\r\n\r\n7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000));
    let answer = raw(&world, counted.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let small = format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Remote-User: root\r\n\r\n");
    assert!(raw(&world, small.as_bytes()).await.starts_with("HTTP/1.1 200"));
    assert_eq!(world.a.last_seen().body, "abc");
}

/// CVE-2018-1002105: after a refused upgrade the connection carries nothing more.
#[tokio::test]
async fn a_refused_upgrade_leaves_no_pipe() {
    let world = World::start().await;
    world.a.answer(Answer::status(403, "Forbidden", "no"));
    let requests = "GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: alpha.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\
        GET /api/v1/secrets HTTP/1.1\r\nHost: alpha.example.com\r\n\r\n";
    let answer = raw(&world, requests.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let seen = world.a.api.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].header("upgrade"), seen[0].header("x-remote-user")), (Some("websocket"), Some("mallory")));
}

#[tokio::test]
async fn an_accepted_upgrade_is_a_tunnel() {
    let world = World::start().await;
    world.a.answer(Answer::echo(&[("connection", "Upgrade"), ("upgrade", "websocket")]));
    let mut tls = world.by_name(&world.a).user(world.a.user("jane")).tls(b"http/1.1").await;
    let head = b"GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: alpha.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly";
    tls.write_all(head).await.expect("write");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nearly") {
        let byte = tokio::time::timeout(PATIENCE, tls.read_u8()).await.expect("in time").expect("byte");
        answer.push(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    tls.write_all(b"late").await.expect("write");
    let mut echoed = [0; 4];
    tls.read_exact(&mut echoed).await.expect("echo");
    assert_eq!(&echoed, b"late");
}

/// CVE-2022-3172: redirects stay with the tenant.
#[tokio::test]
async fn redirects_keep_the_prefix_and_the_origin() {
    let world = World::start().await;
    let redirect = |to: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("location", to.parse().expect("location"));
        let mut response = Response::new(bytes::Bytes::new());
        *response.status_mut() = http::StatusCode::FOUND;
        *response.headers_mut() = headers;
        Answer::Full(response)
    };
    let own = format!("https://{}/api/x", world.a.api.address);
    for is_http2 in [false, true] {
        let mut client = world.by_path().user(world.a.user("jane")).http(is_http2).await;
        let (prefixed, relative) = ("/clusters/team/alpha/api/x", "x?time=10:00\\");
        for (to, shown) in [("/api/x", prefixed), (own.as_str(), prefixed), (relative, relative)] {
            world.a.answer(redirect(to));
            let response = client.get("/clusters/team/alpha/api").await;
            assert_eq!(response.headers()["location"], shown);
            text(response).await;
        }
        let browsers = [
            "/\\evil.example.com/",
            "\\\\evil.example.com/",
            "/\t/evil.example.com/",
            "http:evil.example.com",
            "javascript:x",
        ];
        for to in
            ["https://evil.example.com/api", "//evil.example.com/api", "http://10.0.0.1/"].into_iter().chain(browsers)
        {
            world.a.answer(redirect(to));
            assert_eq!(status(client.get("/clusters/team/alpha/api").await).await.0, 500, "{to}");
        }
    }
}

/// The same of an answer to an upgrade.
#[tokio::test]
async fn redirects_of_upgrades_keep_the_prefix_and_the_origin() {
    let world = World::start().await;
    let redirect = |to: &str| {
        let response = Response::builder().status(302).header("location", to).body(bytes::Bytes::new());
        Answer::Full(response.expect("response"))
    };
    let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket")];
    for (to, expected) in
        [("/api/x", "/clusters/team/alpha/api/x"), ("https://evil.example.com/", ""), ("//evil.example.com/", "")]
    {
        let mut client = world.by_path().user(world.a.user("jane")).http(false).await;
        world.a.answer(redirect(to));
        let response = client.get_with("/clusters/team/alpha/api/v1/pods?watch=1", &upgrade).await;
        let location = response.headers().get("location").map(|value| value.to_str().expect("text").to_owned());
        assert_eq!(location.unwrap_or_default(), expected, "{to}");
        assert_eq!(response.status(), if expected.is_empty() { 500 } else { 302 }, "{to}");
    }
}

/// Clients of HTTP/2 reset a stream on which an answer to HEAD has a body.
#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    let world = World::start().await;
    for (path, user) in [("/api", "jane"), ("/nothing", "jane"), ("/api", "")] {
        let dial = world.by_name(&world.a);
        let dial = if user.is_empty() { dial } else { dial.user(world.a.user(user)) };
        let wire = Wire::connect(&dial, Reading::Answering, &[]).await;
        let head = wire::head("HEAD", &world.a.host, path, &[]);
        assert!(wire.send(&wire::frame(wire::HEADERS, wire::END_HEADERS | wire::END_STREAM, 1, &head)).await);
        drop(wire.when(|told| told.count(wire::HEADERS) == 1).await);
        assert!(wire.settled().await);
        assert_eq!(wire.when(|_| true).await.data, 0, "{path} as {user:?}");
    }
}
