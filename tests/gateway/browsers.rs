//! What a page of tenant A (hostile) does in the browser of somebody who uses B as well. By path both are one origin, and the
//! browser shows the user's certificate whoever's page asks.

use bytes::Bytes;
use http::{HeaderMap, Response};
use portico::config::GatewayConfig;
use portico::runtime::clock::Clock;

use crate::support::fake::Answer;
use crate::world::{Client, Cluster, World, status, text};

const PAGE: &str = "/api/v1/namespaces/default/services/evil/proxy/";
const SHARED: &str = "portico.example.com";
const SWITCHING: [(&str, &str); 2] = [("connection", "upgrade"), ("upgrade", "websocket")];

/// What browsers keep for a whole origin or host.
const KEPT: [(&str, &str); 8] = [
    ("set-cookie", "session=evil; Path=/"),
    ("set-cookie", "__Host-session=evil; Path=/; Secure"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("clear-site-data", "\"*\""),
    ("alt-svc", "h2=\":20001\""),
    ("report-to", "{\"group\": \"default\", \"endpoints\": [{\"url\": \"https://evil.test\"}]}"),
    ("nel", "{\"report_to\": \"default\", \"max_age\": 86400}"),
    ("service-worker-allowed", "/"),
];

/// Of a page, with a policy that would let it run.
fn hostile(code: u16, with: &[(&'static str, &'static str)]) -> Answer {
    let mut response = Response::builder().status(code).header("content-type", "text/html");
    response = response.header("content-security-policy", "sandbox allow-scripts allow-same-origin; default-src *");
    for (name, value) in with {
        response = response.header(*name, *value);
    }
    Answer::Full(response.body(Bytes::from_static(b"<script src=x></script>")).expect("response"))
}

fn kept(headers: &HeaderMap) -> Vec<&str> {
    headers.keys().map(http::HeaderName::as_str).filter(|name| KEPT.iter().any(|(kept, _)| kept == name)).collect()
}

fn policies(headers: &HeaderMap) -> Vec<&str> {
    headers.get_all("content-security-policy").iter().map(|policy| policy.to_str().expect("text")).collect()
}

fn by_path(cluster: &Cluster, path: &str) -> String {
    format!("/clusters/team/{}{path}", cluster.name)
}

/// The hosts under which a page of A can be asked for, and what of it is A's own.
struct Way {
    client: Client,
    host: String,
    path: String,
    is_own_origin: bool,
    is_own_host: bool,
}

async fn ways(world: &World, is_http2: bool) -> Vec<Way> {
    let a = &world.a;
    let user = || a.user("jane");
    let mut ways = Vec::new();
    for (dial, host, path, own) in [
        (world.by_path(), None, by_path(a, PAGE), (false, false)),
        // Its certificate may name whatever A wants: browsers take such a connection for the other name too.
        (world.by_name(a), Some(SHARED), by_path(a, PAGE), (false, false)),
        (world.by_name(a), Some(SHARED), PAGE.to_owned(), (false, false)),
        (world.by_name(a), Some("127.0.0.1"), PAGE.to_owned(), (false, false)),
        (world.by_port(a), None, PAGE.to_owned(), (true, false)),
        (world.by_port(a), Some("node-1.example.com:30001"), PAGE.to_owned(), (true, false)),
        (world.by_port(a), Some("alpha.example.com:30001"), PAGE.to_owned(), (true, true)),
        (world.by_name(a), None, PAGE.to_owned(), (true, true)),
        (world.by_name(a), None, by_path(a, PAGE), (true, true)),
    ] {
        let client = dial.user(user()).http(is_http2).await;
        let host = host.map_or_else(|| client.host.clone(), str::to_owned);
        ways.push(Way { client, host, path, is_own_origin: own.0, is_own_host: own.1 });
    }
    ways
}

async fn world() -> World {
    let config = GatewayConfig { public_url: format!("https://{SHARED}"), ..GatewayConfig::default() };
    World::with(config, Clock::system()).await
}

#[tokio::test]
async fn what_comes_by_path_is_no_document_of_the_shared_origin() {
    let world = world().await;
    for is_http2 in [false, true] {
        for mut way in ways(&world, is_http2).await {
            for (method, code) in [("GET", 200), ("GET", 404), ("HEAD", 200), ("POST", 500)] {
                world.a.answer(hostile(code, &KEPT));
                let answer = way.client.send(method, &way.host, &way.path, &[]).await;
                let (what, headers) = (format!("{method} {} at {}", way.path, way.host), answer.headers().clone());
                assert_eq!((answer.status().as_u16(), &headers["content-type"]), (code, &"text/html".parse().unwrap()));
                let policies = policies(&headers);
                assert_eq!(policies.contains(&"sandbox"), !way.is_own_origin, "{what}: {policies:?}");
                assert!(
                    policies.iter().any(|policy| policy.contains("default-src *")),
                    "its own stands beside: {what}"
                );
                assert_eq!(headers.contains_key("x-content-type-options"), !way.is_own_origin, "{what}");
                let count = if way.is_own_host { KEPT.len() - 1 } else { 0 };
                assert_eq!(kept(&headers).len(), count, "{what}: {headers:?}");
                text(answer).await;
            }
        }
    }
}

/// Whatever the path: `distro: external` and extension API servers answer what they like everywhere.
#[tokio::test]
async fn every_path_of_a_tenant_answers_so() {
    let world = World::start().await;
    let mut client = world.by_path().user(world.a.user("jane")).http(true).await;
    for path in
        ["/version", "/api/v1/pods", "/apis/evil.test/v1/x", "/openapi/v3", "/api/v1/namespaces/a/pods/b/proxy/x"]
    {
        world.a.answer(hostile(200, &KEPT));
        let answer = client.get(&by_path(&world.a, path)).await;
        assert!(policies(answer.headers()).contains(&"sandbox") && kept(answer.headers()).is_empty(), "{path}");
    }
    for answer in [hostile(302, &KEPT), hostile(403, &KEPT), Answer::echo(&[&SWITCHING[..], &KEPT[..]].concat())] {
        let mut client = world.by_path().user(world.a.user("jane")).http(false).await;
        world.a.answer(answer);
        let answer = client.get_with(&by_path(&world.a, "/api/v1/pods?watch=1"), &SWITCHING).await;
        assert_eq!(kept(answer.headers()), [""; 0], "an answer to an upgrade: {}", answer.status());
    }
}

/// A cookie that B's application set, which the browser sends to the whole host.
#[tokio::test]
async fn a_cookie_reaches_a_tenant_by_its_own_name_only() {
    let world = world().await;
    for is_http2 in [false, true] {
        for mut way in ways(&world, is_http2).await {
            text(way.client.get_at(&way.host, &way.path, &[("cookie", "session=of-b")]).await).await;
            let seen = world.a.last_seen();
            let expected = way.is_own_host.then_some("session=of-b");
            assert_eq!(seen.header("cookie"), expected, "{} at {}", way.path, way.host);
        }
    }
}

/// What a page asks for and whether it may, by what its browser says of it.
const PAGES: [(&[(&str, &str)], bool); 12] = [
    (&[], true),
    (&[("origin", "null")], false),
    (&[("origin", "https://alpha.example.com")], false),
    (&[("origin", "https://evil.test")], false),
    (&[("origin", "http://localhost:8001")], false),
    (&[("origin", "null"), ("sec-fetch-site", "cross-site")], false),
    (&[("sec-fetch-site", "cross-site")], false),
    (&[("sec-fetch-site", "same-site")], false),
    (&[("sec-fetch-site", "none")], true),
    (&[("sec-fetch-site", "same-origin")], true),
    // `kubectl proxy` passes on what the page in front of it says.
    (&[("origin", "http://localhost:8001"), ("sec-fetch-site", "same-origin")], true),
    // A dashboard's page on the desktop is of another origin than its own server, which asks: no page can say so itself.
    (&[("origin", "file://"), ("sec-fetch-site", "cross-site"), ("x-forwarded-for", "127.0.0.1")], true),
];

/// Forms, `fetch` and WebSockets of a page of A that ask B in the name of its user.
#[tokio::test]
async fn no_page_of_another_origin_acts_by_a_certificate() {
    let world = World::start().await;
    let b = &world.b;
    let victim = b.user("victim");
    let (exec, pods) = ("/api/v1/namespaces/default/services/web/proxy/exec", "/api/v1/namespaces/default/pods");
    for (fields, may) in PAGES {
        for way in ["path", "name", "port"] {
            let (dial, prefix) = match way {
                "path" => (world.by_path(), by_path(b, "")),
                "name" => (world.by_name(b), String::new()),
                _ => (world.by_port(b), String::new()),
            };
            let dial = dial.user(victim.clone());
            for (method, path, upgrade) in [
                ("POST", pods, &[][..]),
                ("PUT", pods, &[]),
                ("PATCH", pods, &[]),
                ("DELETE", pods, &[]),
                ("GET", exec, &SWITCHING),
            ] {
                // An upgrade that is refused ends its connection.
                let before = b.api.seen().len();
                let mut client = dial.http(false).await;
                let host = client.host.clone();
                let fields = [fields, upgrade].concat();
                if may && !upgrade.is_empty() {
                    b.answer(Answer::echo(&SWITCHING));
                }
                let answer = client.send(method, &host, &format!("{prefix}{path}"), &fields).await;
                let what = format!("{method} {prefix}{path} {fields:?}");
                if may {
                    assert!([101, 200].contains(&answer.status().as_u16()), "{what}: {}", answer.status());
                    continue;
                }
                assert_eq!(status(answer).await, (403, "Forbidden".to_owned()), "{what}");
                assert_eq!(b.api.seen().len(), before, "{what} reached the API server");
            }
        }
    }
}

/// What nobody shows for another, and what only reads, is as ever; and a client that names its server is no page.
#[tokio::test]
async fn tokens_reads_and_other_programs_pass() {
    let world = World::start().await;
    let b = &world.b;
    let from = [("origin", "https://evil.test"), ("sec-fetch-site", "cross-site")];
    let mut client = world.by_path().user(b.user("victim")).http(true).await;
    assert_eq!(text(client.get_with(&by_path(b, "/api/v1/pods"), &from).await).await, "beta", "no origin reads it");
    let mut by_token = world.by_path().http(true).await;
    let fields = [&from[..], &[("authorization", "Bearer t")]].concat();
    let host = by_token.host.clone();
    assert_eq!(text(by_token.send("POST", &host, &by_path(b, "/api/v1/pods"), &fields).await).await, "beta");
    for dial in [world.by_path(), world.by_port(b), world.by_name(b)] {
        let mut client = dial.user(b.user("jane")).http(false).await;
        let (host, origin) = (client.host.clone(), format!("https://{}", client.host));
        let path = if host == b.host { "/api".to_owned() } else { by_path(b, "/api") };
        assert_eq!(text(client.send("POST", &host, &path, &[("origin", &origin)]).await).await, "beta", "{origin}");
    }
}

/// A worker would stay in the browser and answer for the shared origin.
#[tokio::test]
async fn no_service_worker_is_served_by_path() {
    let world = World::start().await;
    let script = [("service-worker", "script")];
    let mut pathed = world.by_path().user(world.a.user("jane")).http(true).await;
    assert_eq!(status(pathed.get_with(&by_path(&world.a, PAGE), &script).await).await.0, 403);
    assert!(world.a.api.seen().is_empty());
    let mut named = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    assert_eq!(text(named.get_with(PAGE, &script).await).await, "alpha");
}
