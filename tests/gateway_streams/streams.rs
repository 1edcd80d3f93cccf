//! What works.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use jiff::Timestamp;
use portico::consumption::{Hour, Rows};
use portico::runtime::clock::Clock;
use serde_json::json;

use crate::support::fake::{Answer, Seen, parameters};
use crate::support::tokens::{CONFIGURATION, Key, SET, but, claims, documents};
use crate::world::{HOST_NAMESPACE, World, echoing, spdy, websocket};

#[tokio::test]
async fn exec_reaches_the_host_pod_and_nothing_of_the_caller_does() {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    let mut request = websocket("web");
    request.push_str("\ncookie: session=1\nx-remote-user: root\nuser-agent: kubectl");
    let (wire, head) = world.ask(&world.a, "jane", &request).await;
    assert_eq!(head.code, 101, "{head:?}");
    assert!(head.text.contains("sec-websocket-accept: accept\r\n"));
    assert!(head.text.contains("sec-websocket-protocol: v5.channel.k8s.io\r\n"));
    assert!(!head.text.contains("of-the-host"));
    let (back, _) = wire.both(b"hello".to_vec()).await;
    assert_eq!(back, b"hello");
    let seen = world.streams().remove(0);
    assert_eq!(seen.path, format!("/api/v1/namespaces/{HOST_NAMESPACE}/pods/web-x-default-x-alpha/exec"));
    let expected: Vec<(String, String)> =
        [("container", "main"), ("command", "sh"), ("command", "-c"), ("command", "echo hi"), ("stdin", "true")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
    assert_eq!(parameters(&seen.query), expected);
    for absent in ["authorization", "cookie", "x-remote-user", "x-forwarded-for"] {
        assert_eq!(seen.header(absent), None, "{absent}");
    }
    assert!(seen.has_certificate, "under our own identity");
}

/// The host's audit log can say whose a stream was, and the backend's that it asked for it.
#[tokio::test]
async fn the_host_is_told_whose_a_stream_is_and_by_which_id() {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    let mut request = websocket("web");
    request.push_str("\naudit-id: 8f2a-11\nuser-agent: portico/0 (other/dev; root)");
    let (wire, head) = world.ask(&world.a, "jane", &request).await;
    assert_eq!(head.code, 101, "{head:?}");
    assert!(head.text.contains("audit-id: 8f2a-11\r\n"), "{}", head.text);
    let expected = format!("portico/{} ({HOST_NAMESPACE}/alpha; jane)", env!("CARGO_PKG_VERSION"));
    let told = |seen: &Seen| (seen.header("audit-id").map(str::to_owned), seen.header("user-agent").map(str::to_owned));
    assert_eq!(told(&world.streams().remove(0)), (Some("8f2a-11".to_owned()), Some(expected.clone())));
    let own = format!("{}\naudit-id: of two", websocket("web"));
    let (another, head) = world.ask(&world.a, "jane", &own).await;
    let (id, agent) = told(&world.streams().remove(1));
    assert_eq!(agent, Some(expected));
    let id = id.expect("one of its own");
    assert!(id.len() == 36 && head.text.contains(&format!("audit-id: {id}\r\n")), "{id} {}", head.text);
    drop((wire, another));
}

/// While it lasts, since a process that is killed would lose all of it otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_streams_are_counted_while_they_last() {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    let (mut wire, head) = world.ask(&world.a, "jane", &websocket("web")).await;
    assert_eq!(head.code, 101, "{head:?}");
    wire.write(&[7; 200_000]).await;
    wire.read(200_000).await;
    let mut rows = Rows::default();
    world.consumption.take(Hour::of(Timestamp::UNIX_EPOCH), &mut rows);
    let all: Vec<_> = rows.iter().collect();
    let [(tenant, _, within, amounts)] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((tenant.name().as_str(), within.to_string().as_str()), ("alpha", "default"));
    assert_eq!((amounts.calls, amounts.call_bytes), (1, 0));
    assert!((200_000..=400_000).contains(&amounts.stream_bytes), "{amounts:?}");
    drop(wire);
}

#[tokio::test]
async fn spdy_keeps_its_protocol_versions_and_answer() {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    let (wire, head) = world.ask(&world.a, "jane", &spdy("web")).await;
    assert_eq!(head.code, 101, "{head:?}");
    assert!(head.text.contains("upgrade: SPDY/3.1\r\n"));
    assert!(head.text.contains("x-stream-protocol-version: v4.channel.k8s.io\r\n"));
    let (back, _) = wire.both(b"frames".to_vec()).await;
    assert_eq!(back, b"frames");
    let seen = world.streams().remove(0);
    assert_eq!(seen.method, "POST");
    let versions: Vec<_> = seen.headers.get_all("x-stream-protocol-version").iter().collect();
    assert_eq!(versions, ["v5.channel.k8s.io", "v4.channel.k8s.io"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_passes_byte_for_byte() {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    let bytes: Vec<u8> = (0..8_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for request in [websocket("web"), spdy("web")] {
        let (wire, head) = world.ask(&world.a, "jane", &request).await;
        assert_eq!(head.code, 101);
        let (back, _) = wire.both(bytes.clone()).await;
        assert!(back == bytes);
    }
}

#[tokio::test]
async fn an_end_is_passed_on_and_the_answer_still_comes() {
    let world = World::start(|_| {
        Answer::tunnel(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")], |mut io| async move {
            let mut all = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut io, &mut all).await.expect("until the end");
            let answer = format!("{} bytes", all.len());
            tokio::io::AsyncWriteExt::write_all(&mut io, answer.as_bytes()).await.expect("written");
            tokio::io::AsyncWriteExt::shutdown(&mut io).await.expect("closed");
        })
    })
    .await;
    world.pod(&world.a, "web");
    let (mut wire, head) = world.ask(&world.a, "jane", &spdy("web")).await;
    assert_eq!(head.code, 101);
    wire.write(b"12345").await;
    wire.half_close().await;
    assert_eq!(wire.rest().await, b"5 bytes");
}

#[tokio::test]
async fn attach_and_port_forward_are_served_too() {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    for (path, query) in [
        ("attach?container=side&stdin=true&command=x", "container=side&stdin=true"),
        ("portforward?ports=80&ports=443&container=x", "ports=80&ports=443"),
    ] {
        let request = format!(
            "GET /api/v1/namespaces/default/pods/web/{path}\nconnection: upgrade\nupgrade: websocket\n\
             sec-websocket-protocol: SPDY/3.1+portforward.k8s.io"
        );
        let (_, head) = world.ask(&world.a, "jane", &request).await;
        assert_eq!(head.code, 101, "{head:?}");
        assert_eq!(world.streams().pop().expect("seen").query, query);
    }
}

#[tokio::test]
async fn a_followed_log_arrives_as_it_is_written_and_ends_with_the_container() {
    let (senders, mut waiting) = tokio::sync::mpsc::channel(1);
    let world = World::start(move |_| {
        let (answer, sender) = Answer::stream();
        senders.try_send(sender).expect("one log");
        answer
    })
    .await;
    world.pod(&world.a, "web");
    let request =
        "GET /api/v1/namespaces/default/pods/web/log?container=main&follow=true&insecureSkipTLSVerifyBackend=true";
    let (mut wire, head) = world.ask(&world.a, "reader", request).await;
    assert_eq!(head.code, 200, "{head:?}");
    assert!(head.text.contains("content-type: text/plain"));
    let log = waiting.recv().await.expect("host asked");
    for line in ["one\n", "two\n"] {
        log.send(Bytes::from_static(line.as_bytes())).await.expect("open");
        assert!(String::from_utf8(wire.read(4 + 5).await).expect("text").contains(line.trim()));
    }
    drop(log);
    assert_eq!(wire.read(5).await, b"0\r\n\r\n");
    let seen = world.streams().remove(0);
    assert_eq!(seen.query, "container=main&follow=true");
    assert_eq!((seen.header("authorization"), seen.header("x-remote-user")), (None, None));
}

#[tokio::test]
async fn container_rules_and_errors_are_the_api_servers() {
    let world = World::start(|_| {
        Answer::status(400, "BadRequest", "container \"main\" in pod \"web-x-default-x-alpha\" is waiting to start")
    })
    .await;
    world.pod(&world.a, "web");
    world.a.pod("pending", "");
    let log = |rest: &str| format!("GET /api/v1/namespaces/default/pods/{rest}\nconnection: close");
    let cases = [
        ("web/log", 400, "a container name must be specified for pod web, choose one of: [main side]"),
        ("web/log?container=x", 400, "container x is not valid for pod web"),
        ("web/log?container=main", 400, "container \"main\" in pod \"web\" is waiting to start"),
        ("nobody/log", 404, "pods \"nobody\" not found"),
    ];
    for (rest, code, message) in cases {
        assert_eq!(world.refusal(&world.a, "jane", &log(rest)).await, (code, message.to_owned()));
    }
    let (_, head) = world.ask(&world.a, "jane", &log("pending/log?container=main")).await;
    assert_eq!(head.code, 204);
    let refused = world.refusal(&world.a, "jane", &websocket("pending")).await;
    assert_eq!(refused, (400, "pod pending does not have a host assigned".to_owned()));
    let plain = "GET /api/v1/namespaces/default/pods/web/exec?command=id&container=main\nconnection: close";
    assert_eq!(world.refusal(&world.a, "jane", plain).await, (400, "Upgrade request required".to_owned()));
}

#[tokio::test]
async fn a_missing_common_protocol_is_the_callers_to_see() {
    let world = World::start(|_| {
        let response =
            Response::builder().status(403).header("X-Accepted-Stream-Protocol-Versions", "v4.channel.k8s.io");
        Answer::Full(response.body(Bytes::from_static(b"unable to upgrade")).expect("response"))
    })
    .await;
    world.pod(&world.a, "web");
    let (_, head) = world.ask(&world.a, "jane", &spdy("web")).await;
    assert_eq!(head.code, 403);
    assert!(head.text.contains("x-accepted-stream-protocol-versions: v4.channel.k8s.io\r\n"));
}

#[tokio::test]
async fn streams_end_with_their_tenant_and_with_the_drain() {
    let mut world = World::start(echoing).await;
    world.pod(&world.a, "web");
    world.pod(&world.b, "web");
    let (mut a, head) = world.ask(&world.a, "jane", &websocket("web")).await;
    assert_eq!(head.code, 101);
    let (b, head) = world.ask(&world.b, "jane", &spdy("web")).await;
    assert_eq!(head.code, 101);
    world.registry.remove(&world.a.id());
    assert!(a.rest().await.is_empty(), "closed");
    let (back, mut b) = b.both(b"still here".to_vec()).await;
    assert_eq!(back, b"still here");
    let drain = world.drain.take().expect("once");
    drain.start(Duration::from_millis(1200));
    assert!(b.rest().await.is_empty(), "closed before the deadline");
}

/// So does the end of a token's: a minute after its `exp`, as API servers allow.
#[tokio::test]
async fn what_is_served_from_the_host_ends_with_the_time_of_its_users_token() {
    let clock = Clock::going("2030-01-01T00:00:00Z".parse().expect("a time"), 1);
    let began = clock.now().as_second();
    let world = World::with(clock, echoing).await;
    world.pod(&world.a, "web");
    let key = Key::ec();
    let [configuration, set] = documents(&[&key]);
    world.a.objects.put(CONFIGURATION, configuration);
    world.a.objects.put(SET, set);
    let asked = async |exp: i64, is_accepted: bool| {
        let token = format!("Bearer {}", key.of(&but(claims("jane", began), &json!({"exp": exp}))));
        if is_accepted {
            world.a.objects.put(&token, json!("jane"));
        }
        let mut wire = world.connect(&world.a, None).await;
        wire.send(&format!("{}\nauthorization: {token}", websocket("web")), &world.a).await;
        let head = wire.head().await;
        (wire, head.code)
    };
    let (_, code) = asked(began + 3601, false).await;
    assert_eq!((code, world.host.seen().len()), (401, 0), "what the API server took back opens nothing");
    let (lasting, code) = asked(began + 3600, true).await;
    assert_eq!(code, 101);
    let (mut ending, code) = asked(began - 54, true).await;
    assert_eq!(code, 101);
    assert!(ending.rest().await.is_empty(), "closed");
    let (back, _) = lasting.both(b"still here".to_vec()).await;
    assert_eq!(back, b"still here");
}

/// The API server alone knows, so it is asked again while something is open, whoever's the token is: once for all of them.
#[tokio::test]
async fn what_is_served_from_the_host_ends_when_its_users_token_was_taken_back() {
    let world = World::start(echoing).await;
    world.pod(&world.a, "web");
    let opened = async |token: &str, request: &str| {
        world.a.objects.put(&format!("Bearer {token}"), json!("jane"));
        let mut wire = world.connect(&world.a, None).await;
        wire.send(&format!("{request}\nauthorization: Bearer {token}"), &world.a).await;
        assert_eq!(wire.head().await.code, 101);
        let (back, wire) = wire.both(b"under way".to_vec()).await;
        assert_eq!(back, b"under way");
        wire
    };
    let mut revoked = [opened("revoked", &websocket("web")).await, opened("revoked", &spdy("web")).await];
    let kept = opened("kept", &websocket("web")).await;
    world.a.objects.remove("Bearer revoked");
    let asked = || {
        let is_asked = |seen: &&Seen| seen.path.ends_with("/selfsubjectreviews");
        let of = |token: &'static str| move |seen: &&Seen| seen.header("authorization") == Some(token);
        let seen = world.a.api.seen();
        [of("Bearer revoked"), of("Bearer kept")].map(|of| seen.iter().filter(is_asked).filter(of).count())
    };
    let before = asked();
    assert_eq!(before, [1, 1], "at the beginning of the first stream");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(361)).await;
    tokio::time::resume();
    for wire in &mut revoked {
        assert!(wire.rest().await.is_empty(), "closed");
    }
    let (back, _) = kept.both(b"still here".to_vec()).await;
    assert_eq!(back, b"still here");
    assert_eq!(asked()[0], before[0] + 2, "twice, for both");
}

/// The end of a certificate's time counts on the host's side as well, for its user and for nobody else. Nothing that both
/// sides do ends these streams.
#[tokio::test]
async fn what_is_served_from_the_host_ends_with_the_time_of_its_users_certificate() {
    let last = "4095-12-31T23:59:54Z".parse().expect("a time");
    let (senders, mut logs) = tokio::sync::mpsc::channel(4);
    let world = World::with(Clock::going(last, 1), move |seen| {
        if !seen.path.ends_with("/log") {
            return echoing(seen);
        }
        let (answer, sender) = Answer::stream();
        senders.try_send(sender).expect("few logs");
        answer
    })
    .await;
    world.pod(&world.a, "web");
    world.pod(&world.b, "web");
    let log = "GET /api/v1/namespaces/default/pods/web/log?container=main&follow=true\nconnection: close";
    let (mut ending, mut lasting) = (Vec::new(), Vec::new());
    for request in [websocket("web"), spdy("web"), log.to_owned()] {
        ending.push(world.ask(&world.a, "jane", &request).await);
        lasting.push(world.ask_lasting(&world.a, "admin", &request).await);
        lasting.push(world.ask_lasting(&world.b, "jane", &request).await);
    }
    let codes: Vec<u16> = ending.iter().chain(&lasting).map(|(_, head)| head.code).collect();
    assert_eq!(codes, [101, 101, 200, 101, 101, 101, 101, 200, 200]);
    let mut senders = Vec::new();
    for _ in 0..3 {
        senders.push(logs.recv().await.expect("the host is asked"));
    }
    senders[0].send(Bytes::from_static(b"one\n")).await.expect("open");
    let logged = ending.pop().expect("three").0;
    for (mut wire, _) in ending {
        assert!(wire.rest().await.is_empty(), "closed");
    }
    let mut logged = logged;
    assert_eq!(logged.rest().await, b"4\r\none\n\r\n0\r\n\r\n", "what was said, and its end");
    let followed = lasting.split_off(4);
    for (wire, _) in lasting {
        let (back, _) = wire.both(b"still here".to_vec()).await;
        assert_eq!(back, b"still here");
    }
    for ((mut wire, _), sender) in followed.into_iter().zip(&senders[1..]) {
        sender.send(Bytes::from_static(b"two\n")).await.expect("open");
        assert_eq!(wire.read(9).await, b"4\r\ntwo\n\r\n");
    }
}
