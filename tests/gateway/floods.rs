//! Floods over HTTP/2: frames that cost their sender nothing. The connection they come on is ended or slowed down, few of
//! them become requests of a backend, and the other tenant is answered all the while.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portico::crd::Limits;

use crate::support::fake::Answer;
use crate::wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, PROTOCOL_ERROR, Reading, SETTINGS,
    STREAM_CLOSED, Told, Wire, frame, head, reset, settings, window,
};
use crate::world::{World, text};

const SEATS: &str = "portico_gateway_requests_in_flight";
/// Far more than any server lets pass.
const ENDLESS: u32 = 100_000;
/// Requests in one write, so that the server finds many at once.
const BATCH: u32 = 50;

/// Frames that make the server reset a stream.
type Provocation = fn(u32) -> Vec<u8>;

/// A connection of tenant A's user.
async fn attacker(world: &World) -> Wire {
    Wire::connect(&world.by_name(&world.a).user(world.a.user("mallory")), Reading::Silently, &[]).await
}

/// Does as is said while tenant B's user asks, on one connection and on new ones.
async fn beside<T>(world: &World, attack: impl Future<Output = T>) -> T {
    let is_over = AtomicBool::new(false);
    let dial = world.by_name(&world.b).user(world.b.user("jane"));
    let asking = async {
        let mut client = dial.http(true).await;
        let mut asked = 0;
        while asked < 20 || !is_over.load(Ordering::Relaxed) {
            if asked % 10 == 9 {
                client = dial.http(asked % 20 == 9).await;
            }
            assert_eq!(text(client.get("/api").await).await, "beta");
            asked += 1;
        }
    };
    let attack = async {
        let outcome = attack.await;
        is_over.store(true, Ordering::Relaxed);
        outcome
    };
    tokio::join!(attack, asking).0
}

/// Streams of a client have odd numbers.
fn stream(number: u32) -> u32 {
    2 * number + 1
}

fn get(world: &World, number: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &head("GET", &world.a.host, "/api", &[]))
}

fn post(world: &World, number: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream(number), &head("POST", &world.a.host, "/api/v1/namespaces", &[]))
}

/// CVE-2023-44487, CVE-2023-39325.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_reset_ends_its_connection() {
    let world = World::start().await;
    let wire = attacker(&world).await;
    let pair = |number| [get(&world, number), reset(stream(number))].concat();
    let rounds = wire.flood(ENDLESS / BATCH, |round| (0..BATCH).flat_map(|n| pair(round * BATCH + n)).collect());
    let rounds = beside(&world, rounds).await;
    assert!(rounds < ENDLESS / BATCH, "{rounds} rounds were let in");
    wire.is_told_to_calm_down().await;
    let reached = world.a.api.seen().len();
    assert!(reached <= BATCH as usize * 2, "{reached} reached the backend");
    world.metric_becomes(SEATS, &world.a, 0.0).await;
}

/// So slow that each of them is taken for a request: then they are what a tenant may ask in a second, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patient_resets_are_what_the_tenant_may_ask() {
    const ROUNDS: u32 = 300;
    let world = World::start().await;
    let mut tenant = world.a.tenant(2, &world.a.client_ca, &world.clock);
    tenant.limits = Limits { requests_per_second: Some(1), request_burst: Some(20), ..Limits::default() };
    world.registry.put(&Arc::new(tenant));
    let wire = attacker(&world).await;
    let attack = async {
        for number in 0..ROUNDS {
            assert!(wire.send(&get(&world, number)).await && wire.settled().await, "{number}");
            assert!(wire.send(&reset(stream(number))).await);
        }
    };
    beside(&world, attack).await;
    let reached = world.a.api.seen().len();
    assert!(reached < ROUNDS as usize / 2, "{reached} of {ROUNDS} reached the backend");
    world.metric_becomes(SEATS, &world.a, 0.0).await;
}

/// CVE-2025-8671: the server is made to reset the streams, so that resets of the client need not be many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provoked_resets_end_their_connection() {
    const LARGEST: u32 = (1 << 31) - 1;
    /// What h2 lets one connection provoke, and a little.
    const MOST_RESETS: usize = 1024 + 8;
    let world = World::start().await;
    let provocations: [(&str, Provocation); 4] = [
        ("a window of nothing", |stream| window(stream, 0)),
        ("a window beyond the largest", |stream| [window(stream, LARGEST), window(stream, LARGEST)].concat()),
        ("data after the end", |stream| frame(DATA, 0, stream, b"x")),
        ("a head after the end", |stream| frame(HEADERS, END_HEADERS, stream, &[0x82])),
    ];
    for (what, provoke) in provocations {
        let wire = attacker(&world).await;
        let before = world.a.api.seen().len();
        let attack = async {
            for number in 0..2 * MOST_RESETS as u32 {
                world.a.answer(Answer::Hang);
                let is_asked = wire.send(&get(&world, number)).await && wire.settled().await;
                if !is_asked || !wire.send(&provoke(stream(number))).await || !wire.settled().await {
                    return;
                }
            }
        };
        beside(&world, attack).await;
        let reached = world.a.api.seen().len() - before;
        assert!(reached <= MOST_RESETS, "{what}: {reached} reached the backend");
        let told = wire.when(Told::is_over).await;
        let (code, why) = told.goaway.as_ref().expect("it was told");
        assert!([PROTOCOL_ERROR, STREAM_CLOSED, ENHANCE_YOUR_CALM].contains(code), "{what}: {code} {why}");
        drop(told);
        world.metric_becomes(SEATS, &world.a, 0.0).await;
    }
}

/// CVE-2023-45288, RUSTSEC-2024-0332: a head without end, in large pieces, small ones and empty ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuation_floods_end_their_connection() {
    let world = World::start().await;
    let field = [&[0, 1, b'a', 100][..], &[b'b'; 100]].concat();
    for piece in [field.repeat(100), field, Vec::new()] {
        let wire = attacker(&world).await;
        assert!(wire.send(&frame(HEADERS, END_STREAM, 1, &head("GET", &world.a.host, "/api", &[]))).await);
        let more = frame(CONTINUATION, 0, 1, &piece);
        let rounds = beside(&world, wire.flood(ENDLESS, |_| more.clone())).await;
        assert!(rounds < ENDLESS);
        wire.is_told_to_calm_down().await;
    }
    assert_eq!(world.a.api.seen().len(), 0, "none became a request");
}

/// RUSTSEC-2026-0258: frames of DATA without data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_empty_data_end_their_connection() {
    let world = World::start().await;
    let wire = attacker(&world).await;
    assert!(wire.send(&post(&world, 0)).await);
    let empty = frame(DATA, 0, 1, &[]);
    let rounds = beside(&world, wire.flood(ENDLESS, |_| empty.clone())).await;
    assert!(rounds < ENDLESS);
    wire.is_told_to_calm_down().await;
    world.metric_becomes(SEATS, &world.a, 0.0).await;
}

/// What costs one answer each, and nothing more: there is no reason to end such a connection, nor to ask a backend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_settings_and_pings_get_one_answer_each() {
    const MANY: u32 = 20_000;
    let world = World::start().await;
    for (kind, bytes) in [(SETTINGS, settings(&[(4, 65_535)])), (PING, frame(PING, 0, 0, &[7; 8]))] {
        let wire = attacker(&world).await;
        let many = bytes.repeat(BATCH as usize);
        let rounds = beside(&world, wire.flood(MANY / BATCH, |_| many.clone())).await;
        assert_eq!(rounds, MANY / BATCH);
        // The first answers to the flood must not be taken for that to the last question.
        drop(wire.when(|told| told.answers_to(kind) >= MANY as usize).await);
        assert!(wire.settled().await);
        let answers = wire.when(|_| true).await.answers_to(kind);
        assert!((MANY as usize..MANY as usize + 4).contains(&answers), "{answers}");
    }
    assert_eq!(world.a.api.seen().len(), 0);
}

/// Who does not take the answers is not read any more, and so is the connection's end: nothing piles up for him.
#[tokio::test]
async fn floods_whose_answers_nobody_takes_are_held_up_and_cut() {
    /// More than the buffers of both sockets hold.
    const MANY: u32 = 1 << 20;
    const LONG: Duration = Duration::from_secs(1_000);
    let world = World::start().await;
    for bytes in [settings(&[(4, 65_535)]), frame(PING, 0, 0, &[7; 8])] {
        let dial = world.by_name(&world.a).user(world.a.user("mallory"));
        let wire = Wire::connect(&dial, Reading::Never, &[]).await;
        let many = bytes.repeat(4 * BATCH as usize);
        tokio::time::pause();
        let let_in = tokio::time::timeout(LONG, wire.flood(MANY, |_| many.clone())).await;
        tokio::time::resume();
        let rounds = let_in.expect("it comes to an end");
        assert!(rounds < MANY, "{rounds} of {MANY}");
    }
}
