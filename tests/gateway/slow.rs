//! Clients that send or read so slowly that they hope to hold something: heads that never end, answers that nobody takes.
//! Time is virtual: what is asserted is that an end comes, and what was kept until then.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::fake::Answer;
use crate::wire::{
    CONTINUATION, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PREFACE, RST_STREAM, Reading, Wire, frame,
    head, settings, window,
};
use crate::world::{World, piece, text};

/// Between two bytes of who is slow; below every deadline for silence.
const STEP: Duration = Duration::from_secs(5);
/// Of virtual time; far beyond every deadline.
const STEPS: usize = 200;
const LONG: Duration = Duration::from_secs(1_000);
const PIECE: usize = 4 << 10;
/// What may be on its way to one reader who takes nothing: a window of the backend's stream, what waits to be sent there
/// and here, and what the test's own channel holds (64 pieces).
const KEPT: usize = 1 << 20;
const ENDLESS: usize = 256 << 20;
const SEATS: [&str; 2] = ["portico_gateway_requests_in_flight", "portico_gateway_long_running"];
/// A list, and a watch.
const PATHS: [&str; 2] = ["/api/v1/pods", "/api/v1/pods?watch=1"];

/// What it is, the protocol, what is sent at once and what slowly.
type Case<'a> = (&'a str, &'a [u8], Vec<u8>, Vec<u8>);

/// Sends the beginning at once and then each of these pieces after a while, over and over; whether the server ends it.
async fn is_cut<S>(mut stream: S, beginning: &[u8], slowly: &[u8]) -> bool
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    if !beginning.is_empty() {
        stream.write_all(beginning).await.expect("sent");
        stream.flush().await.expect("sent");
    }
    tokio::time::pause();
    let mut answer = [0; 4096];
    let mut is_over = false;
    for at in 0..STEPS {
        if stream.write_all(&slowly[at % slowly.len()..][..1]).await.is_err() || stream.flush().await.is_err() {
            is_over = true;
            break;
        }
        let read = async { while stream.read(&mut answer).await.is_ok_and(|read| read > 0) {} };
        if tokio::time::timeout(STEP, read).await.is_ok() {
            is_over = true;
            break;
        }
    }
    tokio::time::resume();
    is_over
}

#[tokio::test]
async fn handshakes_that_never_end_are_cut() {
    let world = World::start().await;
    // A record of 16 KiB with the beginning of a ClientHello that is as long.
    let hello = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3][..], &[0; 1000]].concat();
    for beginning in [0, 5, hello.len()] {
        let stream = TcpStream::connect(world.address).await.expect("connected");
        assert!(is_cut(stream, &hello[..beginning], &hello).await, "{beginning}");
    }
}

#[tokio::test]
async fn heads_that_come_by_the_byte_are_cut() {
    let world = World::start().await;
    let dial = world.by_name(&world.a).user(world.a.user("mallory"));
    let block = head("GET", &world.a.host, "/api", &[]);
    let begun = |flags| [PREFACE, &settings(&[]), &frame(HEADERS, flags, 1, &block)].concat();
    let unfinished = &begun(END_STREAM)[..];
    let cases: [Case<'_>; 5] = [
        ("h1, the request line", b"http/1.1", b"GET /".to_vec(), b"a".to_vec()),
        ("h1, a field", b"http/1.1", b"GET /api HTTP/1.1\r\nHost: alpha.example.com\r\nX: ".to_vec(), b"a".to_vec()),
        ("h1, fields", b"http/1.1", b"GET /api HTTP/1.1\r\n".to_vec(), b"A:b\r\n".to_vec()),
        ("h2, its preface and frames", b"h2", Vec::new(), begun(END_STREAM | END_HEADERS)),
        ("h2, continuations", b"h2", unfinished.to_vec(), frame(CONTINUATION, 0, 1, &[0])),
    ];
    for (what, protocol, beginning, slowly) in cases {
        // The last of the bytes would make it whole.
        let slowly = if beginning.is_empty() { &slowly[..slowly.len() - 1] } else { &slowly };
        assert!(is_cut(dial.tls(protocol).await, &beginning, slowly).await, "{what}");
    }
    assert_eq!(world.a.api.seen().len(), 0);
}

/// An endless answer whose reader takes none of it.
struct Unread {
    wire: Wire,
    pieces: Vec<mpsc::Sender<Bytes>>,
}

impl Unread {
    /// So many of them on one connection, and begun at the backend.
    async fn open(world: &World, path: &str, reading: Reading, count: u32) -> Self {
        let dial = world.by_name(&world.a).user(world.a.user("mallory"));
        let wire = Wire::connect(&dial, reading, &[(INITIAL_WINDOW_SIZE, 0)]).await;
        let mut pieces = Vec::new();
        for number in 0..count {
            let (answer, sender) = Answer::stream();
            world.a.answer(answer);
            pieces.push(sender);
            let before = world.a.api.seen().len();
            let block = head("GET", &world.a.host, path, &[]);
            assert!(wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &block)).await);
            world.a.api.wait_seen(before + 1).await;
        }
        Self { wire, pieces }
    }

    /// How many bytes leave the backend before it is held up.
    async fn taken(&self) -> usize {
        let mut taken = 0;
        for sender in &self.pieces {
            while taken < ENDLESS {
                let sent = sender.send(Bytes::from_static(&[b'\n'; PIECE]));
                match tokio::time::timeout(STEP, sent).await {
                    Ok(Ok(())) => taken += PIECE,
                    _ => break,
                }
            }
        }
        taken
    }
}

#[tokio::test]
async fn who_takes_neither_answers_nor_pings_is_cut_and_holds_little() {
    let world = World::start().await;
    for path in PATHS {
        for reading in [Reading::Never, Reading::Silently] {
            let unread = Unread::open(&world, path, reading, 1).await;
            tokio::time::pause();
            let taken = unread.taken().await;
            let ended = tokio::time::timeout(LONG, unread.pieces[0].closed()).await;
            tokio::time::resume();
            assert!(taken < KEPT, "{path} {reading:?}: {taken}");
            assert!(ended.is_ok(), "{path} {reading:?}: the backend still answers");
        }
    }
}

/// A reader that is only slow looks the same for a while, as it answers pings. It holds its own seats and windows, and not
/// for ever.
#[tokio::test]
async fn who_never_opens_his_window_holds_little_and_nobody_else() {
    const MANY: u32 = 40;
    let world = World::start().await;
    let (mut held, mut taken) = (Vec::new(), 0);
    for path in PATHS {
        let unread = Unread::open(&world, path, Reading::Answering, MANY).await;
        tokio::time::pause();
        taken += unread.taken().await;
        tokio::time::resume();
        held.push(unread);
    }
    assert!(taken < KEPT * MANY as usize * PATHS.len(), "{taken}");
    for (cluster, user) in [(&world.a, "jane"), (&world.b, "jane"), (&world.b, "mallory")] {
        let mut client = world.by_name(cluster).user(cluster.user(user)).http(true).await;
        assert_eq!(text(client.get("/api").await).await, cluster.name);
        let (answer, events) = Answer::stream();
        cluster.answer(answer);
        let mut watch = client.get("/api/v1/pods?watch=1").await;
        events.send(Bytes::from_static(b"{}\n")).await.expect("sent");
        assert_eq!(piece(&mut watch).await.as_deref(), Some("{}\n"));
    }
    tokio::time::pause();
    for unread in &held {
        for sender in &unread.pieces {
            tokio::time::timeout(LONG, sender.closed()).await.expect("ended");
        }
    }
    tokio::time::resume();
    for unread in held {
        let told = unread.wire.when(|told| told.count(RST_STREAM) == MANY as usize).await;
        assert_eq!(told.data, 0);
    }
    world.metric_becomes("portico_gateway_unread_total", &world.a, f64::from(MANY) * PATHS.len() as f64).await;
    for seats in SEATS {
        world.metric_becomes(seats, &world.a, 0.0).await;
    }
    assert_eq!(world.metric("portico_gateway_unread_total", &world.b), 0.0);
}

#[tokio::test]
async fn who_opens_his_window_now_and_then_is_not_ended() {
    let world = World::start().await;
    let unread = Unread::open(&world, PATHS[0], Reading::Answering, 1).await;
    tokio::time::pause();
    unread.taken().await;
    for _ in 0..STEPS {
        assert!(unread.wire.send(&window(1, 1)).await);
        tokio::time::sleep(STEP).await;
    }
    tokio::time::resume();
    let told = unread.wire.when(|told| told.data == STEPS).await;
    assert_eq!((told.count(RST_STREAM), told.is_over()), (0, false));
    assert!(!unread.pieces[0].is_closed());
}

#[tokio::test]
async fn an_answer_of_http1_that_nobody_takes_ends_with_its_connection() {
    let world = World::start().await;
    let dial = world.by_name(&world.a).user(world.a.user("mallory"));
    let mut stream = dial.tls(b"http/1.1").await;
    let (answer, sender) = Answer::stream();
    world.a.answer(answer);
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", PATHS[0], world.a.host);
    stream.write_all(request.as_bytes()).await.expect("sent");
    world.a.api.wait_seen(1).await;
    tokio::time::pause();
    // What the kernel holds for both sides comes to it.
    let mut taken = 0;
    while taken < ENDLESS {
        let sent = sender.send(Bytes::from_static(&[b'\n'; PIECE]));
        match tokio::time::timeout(STEP, sent).await {
            Ok(Ok(())) => taken += PIECE,
            _ => break,
        }
    }
    let ended = tokio::time::timeout(LONG, sender.closed()).await;
    tokio::time::resume();
    assert!(taken < ENDLESS && ended.is_ok(), "{taken}");
    world.metric_becomes("portico_gateway_unread_total", &world.a, 1.0).await;
}

#[tokio::test]
async fn the_last_bytes_of_an_answer_hold_its_seat_until_they_are_taken() {
    let world = World::start().await;
    let dial = world.by_name(&world.a).user(world.a.user("mallory"));
    let wire = Wire::connect(&dial, Reading::Answering, &[(INITIAL_WINDOW_SIZE, 1)]).await;
    let block = head("GET", &world.a.host, "/api", &[]);
    assert!(wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await);
    assert_eq!(wire.when(|told| told.data == 1).await.count(RST_STREAM), 0);
    assert!(wire.settled().await);
    assert_eq!(world.metric(SEATS[0], &world.a), 1.0);
    assert!(wire.send(&window(1, 100)).await);
    wire.when(|told| told.data == world.a.name.len()).await;
    world.metric_becomes(SEATS[0], &world.a, 0.0).await;
}
