//! Connections: how many, shared by whom, and what happens when they go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::BodyExt;
use jiff::Timestamp;
use portico::error::{Kind, Side};
use portico::runtime::clock::Clock;
use portico::upstream::{Body, Class, Credential, Pool};
use serde_json::json;

use crate::support::fake::{Answer, FakeApi, Setup, count_by};

const DEADLINE: Duration = Duration::from_secs(20);

fn clock() -> Clock {
    Clock::seeded(Timestamp::UNIX_EPOCH, 7)
}

fn pool(api: &FakeApi) -> Pool {
    Pool::new(api.target(Side::Backend), clock())
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::Empty).expect("request")
}

async fn text(pool: &Pool, class: Class, request: Request<Body>) -> String {
    let response = pool.send(class, request, DEADLINE).await.expect("answer");
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goaway_fails_no_request() {
    let api = FakeApi::start(|_| async { Answer::text(200, "fine") }).await;
    let pool = Arc::new(pool(&api));
    let mut running = Vec::new();
    for round in 0..200 {
        let pool = Arc::clone(&pool);
        running.push(portico::runtime::task::spawn(
            "request",
            async move { text(&pool, Class::Unary, get("/api")).await },
        ));
        if round % 10 == 9 {
            api.goaway();
            tokio::task::yield_now().await;
        }
    }
    for task in running {
        assert_eq!(task.join().await.as_deref(), Some("fine"));
    }
    assert!(pool.is_reachable());
}

#[tokio::test]
async fn goaway_lets_running_answers_finish() {
    let (answers, mut waiting) = tokio::sync::mpsc::channel(4);
    let api = FakeApi::start(move |_| {
        let answers = answers.clone();
        async move {
            let (answer, sender) = Answer::stream();
            answers.send(sender).await.expect("test waits");
            answer
        }
    })
    .await;
    let pool = pool(&api);
    let old = pool.send(Class::Watch, get("/old"), DEADLINE).await.expect("head");
    let old_sender = waiting.recv().await.expect("handled");
    api.goaway();
    // A new request finds a new connection once the GOAWAY has arrived; the old one goes on meanwhile.
    let mut kept = Vec::new();
    while api.accepted() < 2 {
        kept.push(pool.send(Class::Watch, get("/new"), DEADLINE).await.expect("head"));
        kept.truncate(50);
    }
    old_sender.send(Bytes::from_static(b"still here")).await.expect("open");
    drop(old_sender);
    assert_eq!(old.into_body().collect().await.expect("whole").to_bytes(), "still here");
}

#[tokio::test]
async fn watches_beyond_the_stream_limit_open_more_connections() {
    let senders = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let kept = Arc::clone(&senders);
    let api = FakeApi::start(move |_| {
        let (answer, sender) = Answer::stream();
        kept.lock().push(sender);
        async move { answer }
    })
    .await;
    let pool = pool(&api);
    let mut watches = Vec::new();
    for _ in 0..200 {
        watches.push(pool.send(Class::Watch, get("/watch"), DEADLINE).await.expect("head"));
    }
    let per_connection = count_by(api.seen().into_iter().map(|s| s.connection));
    assert_eq!(per_connection.len(), 3);
    assert!(per_connection.values().all(|n| *n <= 90), "{per_connection:?}");
    // Places come back with the bodies.
    watches.clear();
    for _ in 0..200 {
        watches.push(pool.send(Class::Watch, get("/watch"), DEADLINE).await.expect("head"));
    }
    assert_eq!(api.accepted(), 3);
}

#[tokio::test]
async fn a_smaller_limit_of_the_server_is_obeyed() {
    let senders = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let kept = Arc::clone(&senders);
    let api = Setup::default()
        .max_streams(4)
        .start(move |_| {
            let (answer, sender) = Answer::stream();
            kept.lock().push(sender);
            async move { answer }
        })
        .await;
    let pool = pool(&api);
    let mut watches = Vec::new();
    for _ in 0..12 {
        watches.push(pool.send(Class::Watch, get("/watch"), DEADLINE).await.expect("head"));
    }
    assert!(count_by(api.seen().into_iter().map(|s| s.connection)).values().all(|n| *n <= 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stalls_blocks_no_other() {
    let api = FakeApi::start(|seen| async move {
        if seen.path == "/big" {
            let chunk = Bytes::from(vec![b'x'; 32 << 10]);
            let (answer, sender) = Answer::stream();
            portico::runtime::task::spawn(
                "big answer",
                async move { while sender.send(chunk.clone()).await.is_ok() {} },
            )
            .ends_by_itself();
            return answer;
        }
        Answer::text(200, "small")
    })
    .await;
    let pool = pool(&api);
    let mut stalled = Vec::new();
    for _ in 0..60 {
        stalled.push(pool.send(Class::Unary, get("/big"), DEADLINE).await.expect("head"));
    }
    for _ in 0..20 {
        assert_eq!(text(&pool, Class::Unary, get("/small")).await, "small");
    }
    assert_eq!(api.accepted(), 1, "all of it on one connection");
}

/// How much an API server can send of an answer that nobody reads; its own buffers are in it.
async fn sent_unread(class: Class) -> usize {
    const CHUNK: usize = 16 << 10;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let api = FakeApi::start(move |_| {
        let count = Arc::clone(&count);
        async move {
            let (answer, sender) = Answer::stream();
            let work = async move {
                while sender.send(Bytes::from(vec![b'x'; CHUNK])).await.is_ok() {
                    count.fetch_add(CHUNK, Ordering::SeqCst);
                }
            };
            portico::runtime::task::spawn("endless answer", work).ends_by_itself();
            answer
        }
    })
    .await;
    let pool = pool(&api);
    let _unread = pool.send(class, get("/endless"), DEADLINE).await.expect("head");
    let mut before = usize::MAX;
    while before != sent.load(Ordering::SeqCst) {
        before = sent.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    before
}

/// A tenant may have ten times as many watches as other requests in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_nobody_reads_holds_less_than_a_list() {
    let list = sent_unread(Class::Unary).await;
    for class in [Class::Watch, Class::TokenWatch, Class::UnknownWatch, Class::AnonymousWatch] {
        let watch = sent_unread(class).await;
        assert!(watch + (160 << 10) <= list, "{class:?}: {watch} bytes, of a list {list}");
    }
}

#[tokio::test]
async fn classes_share_no_connection_and_tokens_meet_no_identity() {
    let api = FakeApi::start(|_| async { Answer::text(200, "ok") }).await;
    let mut target = api.target(Side::Backend);
    target.credential = Credential::Token("ours".into());
    let pool = Pool::new(target, clock());
    let all = [
        Class::Unary,
        Class::Token,
        Class::Watch,
        Class::TokenWatch,
        Class::Unknown,
        Class::UnknownWatch,
        Class::Anonymous,
        Class::AnonymousWatch,
    ];
    for class in all.into_iter().chain([Class::Unary, Class::Token]) {
        let mut request = get(&format!("/{class:?}"));
        if matches!(class, Class::Token | Class::Unknown) {
            request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer theirs"));
        }
        text(&pool, class, request).await;
    }
    for seen in api.seen() {
        let (certificate, authorization) = match seen.path.as_str() {
            "/Unary" | "/Watch" | "/Anonymous" | "/AnonymousWatch" => (true, Some("Bearer ours")),
            "/Token" | "/Unknown" => (false, Some("Bearer theirs")),
            _ => (false, None),
        };
        assert_eq!((seen.has_certificate, seen.header("authorization")), (certificate, authorization), "{seen:?}");
    }
    let by_path = count_by(api.seen().into_iter().map(|s| (s.connection, s.path)));
    assert_eq!(by_path.len(), all.len(), "{by_path:?}");
    let connections = count_by(api.seen().into_iter().map(|s| s.connection));
    assert_eq!(connections.len(), all.len(), "{connections:?}");
}

#[tokio::test]
async fn a_token_file_is_read_again() {
    let api = FakeApi::start(|_| async { Answer::text(200, "ok") }).await;
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), "one\n").expect("written");
    let mut target = api.target(Side::Host);
    target.credential = Credential::TokenFile(file.path().to_owned());
    let pool = Pool::new(target, clock());
    text(&pool, Class::Unary, get("/")).await;
    std::fs::write(file.path(), "two\n").expect("written");
    text(&pool, Class::Unary, get("/")).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    text(&pool, Class::Unary, get("/")).await;
    let tokens: Vec<_> = api.seen().iter().map(|s| s.header("authorization").unwrap_or("").to_owned()).collect();
    assert_eq!(tokens, ["Bearer one", "Bearer one", "Bearer two"]);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let api = FakeApi::start(|_| async { Answer::text(200, "ok") }).await;
    let pool = pool(&api);
    text(&pool, Class::Unary, get("/")).await;
    assert_eq!(pool.connections(Class::Unary), 1);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(120)).await;
    tokio::time::resume();
    while pool.connections(Class::Unary) > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(text(&pool, Class::Unary, get("/")).await, "ok");
}

#[tokio::test]
async fn http1_connections_carry_one_request_and_are_used_again() {
    let api = Setup::http1().start(|_| async { Answer::text(200, "ok") }).await;
    let pool = pool(&api);
    for _ in 0..5 {
        assert_eq!(text(&pool, Class::Unary, get("/api?x=1")).await, "ok");
    }
    assert_eq!(api.accepted(), 1);
    let held = pool.send(Class::Unary, get("/held"), DEADLINE).await.expect("head");
    assert_eq!(text(&pool, Class::Unary, get("/other")).await, "ok");
    drop(held);
    assert!(api.accepted() <= 2);
    let seen = api.seen().remove(0);
    assert_eq!(seen.header("host"), Some(api.address.to_string().as_str()));
    assert_eq!((seen.path.as_str(), seen.query.as_str()), ("/api", "x=1"));
}

#[tokio::test]
async fn a_connection_that_closed_unnoticed_costs_no_request() {
    for setup in [Setup::http1(), Setup::default()] {
        let api = setup.start(|_| async { Answer::text(200, "ok") }).await;
        let pool = pool(&api);
        for _ in 0..20 {
            assert_eq!(text(&pool, Class::Unary, get("/")).await, "ok");
            api.goaway();
        }
    }
}

#[tokio::test]
async fn no_answer_in_time_is_the_servers_fault() {
    let api = FakeApi::start(|_| async { Answer::Hang }).await;
    let error = pool(&api).send(Class::Unary, get("/"), Duration::from_millis(50)).await.expect_err("hangs");
    assert_eq!((error.side(), error.kind()), (Side::Backend, Kind::Timeout));
}

/// Its connections are fine, and nothing comes on them.
#[tokio::test]
async fn a_server_that_no_longer_answers_is_not_reachable() {
    let hangs = Arc::new(AtomicBool::new(false));
    let is_hanging = Arc::clone(&hangs);
    let api = FakeApi::start(move |_| {
        let answer = if is_hanging.load(Ordering::SeqCst) { Answer::Hang } else { Answer::text(200, "fine") };
        std::future::ready(answer)
    })
    .await;
    for side in [Side::Host, Side::Backend] {
        hangs.store(false, Ordering::SeqCst);
        let pool = Pool::new(api.target(side), clock());
        assert!(pool.send(Class::Unary, get("/"), DEADLINE).await.is_ok() && pool.is_reachable());
        hangs.store(true, Ordering::SeqCst);
        // Whoever may be anybody's says nothing of the server.
        assert!(pool.send(Class::Unknown, get("/"), Duration::from_millis(50)).await.is_err() && pool.is_reachable());
        assert!(pool.send(Class::Unary, get("/"), Duration::from_millis(50)).await.is_err() && !pool.is_reachable());
        assert!(pool.last_error().is_some_and(|error| error.contains("in time")));
        hangs.store(false, Ordering::SeqCst);
        assert!(pool.send(Class::Unary, get("/"), DEADLINE).await.is_ok() && pool.is_reachable());
    }
}

#[tokio::test]
async fn nobody_there_is_unavailable_with_a_reason() {
    let api = FakeApi::start(|_| async { Answer::Hang }).await;
    let target = api.target(Side::Backend);
    drop(api);
    let pool = Pool::new(target, clock());
    let error = pool.send(Class::Unary, get("/"), DEADLINE).await.expect_err("refused");
    assert_eq!((error.side(), error.kind()), (Side::Backend, Kind::Unavailable));
    assert_eq!(error.to_status().code, 503);
    assert!(!pool.is_reachable());
    assert!(pool.last_error().is_some());
}

#[tokio::test]
async fn a_foreign_ca_is_a_tls_failure() {
    let api = FakeApi::start(|_| async { Answer::Hang }).await;
    let other = FakeApi::start(|_| async { Answer::Hang }).await;
    let mut target = api.target(Side::Backend);
    target.tls = other.target(Side::Backend).tls;
    let error = Pool::new(target, clock()).send(Class::Unary, get("/"), DEADLINE).await.expect_err("not trusted");
    assert_eq!(error.kind(), Kind::Tls);
    assert!(api.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_share_one_dial() {
    let api = FakeApi::start(|_| async { Answer::text(200, "ok") }).await;
    let pool = Arc::new(pool(&api));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let pool = Arc::clone(&pool);
            portico::runtime::task::spawn("request", async move { text(&pool, Class::Unary, get("/")).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.join().await.as_deref(), Some("ok"));
    }
    assert_eq!(api.accepted(), 1);
}

#[tokio::test]
async fn writes_are_sent_once() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let api = FakeApi::start(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Answer::status(500, "InternalError", "no") }
    })
    .await;
    let body = Body::full(json!({"a": 1}).to_string());
    let request = Request::post("/api").body(body).expect("request");
    let response = pool(&api).send(Class::Unary, request, DEADLINE).await.expect("answer");
    assert_eq!(response.status(), 500);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(api.seen().remove(0).json(), json!({"a": 1}));
}

#[tokio::test]
async fn closing_lets_the_running_finish_and_starts_nothing() {
    let (answers, mut waiting) = tokio::sync::mpsc::channel(1);
    let api = FakeApi::start(move |_| {
        let answers = answers.clone();
        async move {
            let (answer, sender) = Answer::stream();
            answers.send(sender).await.expect("test waits");
            answer
        }
    })
    .await;
    let pool = pool(&api);
    let response = pool.send(Class::Watch, get("/"), DEADLINE).await.expect("head");
    let sender = waiting.recv().await.expect("handled");
    pool.close();
    assert_eq!(pool.send(Class::Watch, get("/"), DEADLINE).await.expect_err("closed").kind(), Kind::Closed);
    drop(pool);
    sender.send(Bytes::from_static(b"end")).await.expect("open");
    drop(sender);
    assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), "end");
}

/// Whoever loaded a tenant before its connections were replaced sends on the old ones, and is not refused.
#[tokio::test]
async fn a_retired_pool_goes_on_for_its_holders_and_then_begins_nothing() {
    let (answers, mut waiting) = tokio::sync::mpsc::channel(1);
    let api = FakeApi::start(move |seen| {
        let answers = answers.clone();
        async move {
            if seen.path != "/watch" {
                return Answer::text(200, "new");
            }
            let (answer, sender) = Answer::stream();
            answers.send(sender).await.expect("test waits");
            answer
        }
    })
    .await;
    let pool = pool(&api);
    let response = pool.send(Class::Watch, get("/watch"), DEADLINE).await.expect("head");
    let sender = waiting.recv().await.expect("handled");
    pool.retire(DEADLINE * 10);
    assert_eq!(text(&pool, Class::Unary, get("/")).await, "new");
    assert!(pool.dial_upgrade(true, DEADLINE).await.is_ok());
    let over = self::pool(&api);
    assert_eq!(text(&over, Class::Unary, get("/")).await, "new");
    over.retire(Duration::ZERO);
    assert_eq!(over.send(Class::Unary, get("/"), DEADLINE).await.expect_err("over").kind(), Kind::Closed);
    drop(pool);
    sender.send(Bytes::from_static(b"end")).await.expect("open");
    drop(sender);
    assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), "end");
}

#[tokio::test]
async fn an_upgrade_has_a_connection_of_its_own() {
    let api = FakeApi::start(|_| async { Answer::echo(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]) }).await;
    let pool = pool(&api);
    for with_identity in [true, false] {
        let connection = pool.dial_upgrade(with_identity, DEADLINE).await.expect("dialed");
        let mut request = get("/exec");
        request.headers_mut().insert("connection", HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert("upgrade", HeaderValue::from_static("SPDY/3.1"));
        let response = connection.send(request, DEADLINE).await.expect("head");
        assert_eq!(response.status(), 101);
        let upgraded = hyper::upgrade::on(response).await.expect("upgraded");
        let mut io = hyper_util::rt::TokioIo::new(upgraded);
        tokio::io::AsyncWriteExt::write_all(&mut io, b"hello").await.expect("written");
        let mut back = [0; 5];
        tokio::io::AsyncReadExt::read_exact(&mut io, &mut back).await.expect("read");
        assert_eq!(&back, b"hello");
        assert_eq!(api.seen().last().expect("seen").has_certificate, with_identity);
    }
    assert_eq!(api.accepted(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_not_dialed_by_everybody_and_comes_back() {
    let api = FakeApi::start(|_| async { Answer::text(200, "fine") }).await;
    let mut target = api.target(Side::Backend);
    let (alive, dead) = (target.port, crate::support::port::free(std::net::Ipv4Addr::LOCALHOST));
    target.port = dead;
    let pool = Pool::new(target.clone(), clock());
    let mut told = String::new();
    while !told.contains("asked again in a moment") {
        let error = pool.send(Class::Unary, get("/api"), DEADLINE).await.expect_err("nobody is there");
        assert_eq!((error.side(), error.kind()), (Side::Backend, Kind::Unavailable));
        told = error.message().to_owned();
    }
    assert!(pool.is_away());
    // It comes up where it was: whoever asks again gets through by himself.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", dead)).await.expect("free");
    let _relay = portico::runtime::task::spawn("relay", async move {
        let mut relayed = Vec::new();
        loop {
            let (mut from, _) = listener.accept().await.expect("accepted");
            let mut to = tokio::net::TcpStream::connect(("127.0.0.1", alive)).await.expect("connected");
            relayed.push(portico::runtime::task::spawn("relayed", async move {
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            }));
        }
    });
    while pool.send(Class::Unary, get("/api"), DEADLINE).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(pool.is_reachable() && !pool.is_away());
}
