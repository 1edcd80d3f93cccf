//! When memory runs out: who takes most of it is refused, and nobody else. What is measured is said by the tests.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::support::fake::Answer;
use crate::wire::{END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, Reading, Wire, frame, head};
use crate::world::{World, status, text};

/// So small that what two answers leave waiting is much.
const WATERMARK: u64 = 4 << 20;
/// Of each, with what its backend may send meanwhile.
const WAITING: usize = PIECE + portico::upstream::STREAM_WINDOW as usize;
const PIECE: usize = 4096;
const ABOVE: u64 = WATERMARK + 1;
const ENOUGH: u64 = WATERMARK / 2;
const LIST: &str = "/api/v1/pods";
const BYTES: &str = "portico_memory_tenant_bytes";
const REFUSED: &str = "portico_memory_tenant_refused";

/// Answers that wait for a reader who takes nothing.
async fn unread(world: &World, count: u32) -> (Wire, Vec<mpsc::Sender<Bytes>>) {
    let dial = world.by_name(&world.a).user(world.a.user("mallory"));
    let wire = Wire::connect(&dial, Reading::Answering, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let mut senders = Vec::new();
    for number in 0..count {
        let (answer, sender) = Answer::stream();
        world.a.answer(answer);
        let before = world.a.api.seen().len();
        let block = head("GET", &world.a.host, "/api/v1/namespaces/default/secrets", &[]);
        assert!(wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &block)).await);
        world.a.api.wait_seen(before + 1).await;
        sender.send(Bytes::from_static(&[b' '; PIECE])).await.expect("taken");
        senders.push(sender);
    }
    (wire, senders)
}

/// Whoever knows a tenant's name may leave answers unread there.
#[tokio::test]
async fn strangers_have_no_tenant_refused() {
    const MANY: u32 = 50;
    let world = World::start().await;
    let memory = world.registry.memory();
    world.metrics.register(std::sync::Arc::new(memory.clone()));
    let mut jane = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    assert_eq!(text(jane.get(LIST).await).await, "alpha");
    memory.measured(ENOUGH, WATERMARK);
    let wire = Wire::connect(&world.by_name(&world.a), Reading::Answering, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    for number in 0..MANY {
        let has_token = number % 2 == 0;
        let fields: &[(&str, &str)] = if has_token { &[("authorization", "Bearer invented")] } else { &[] };
        if has_token {
            world.a.answer(Answer::status(401, "Unauthorized", "Unauthorized"));
        }
        let block = head("GET", &world.a.host, LIST, fields);
        assert!(wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &block)).await);
    }
    drop(wire.when(|told| told.count(HEADERS) == MANY as usize).await);
    assert_eq!(world.metric(BYTES, &world.a), 0.0);
    memory.measured(ABOVE, WATERMARK);
    assert_eq!(text(jane.get(LIST).await).await, "alpha");
}

#[tokio::test]
async fn the_tenant_that_takes_most_is_refused_and_its_neighbour_served() {
    let world = World::start().await;
    let memory = world.registry.memory();
    world.metrics.register(std::sync::Arc::new(memory.clone()));
    let mut jane = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    let mut neighbour = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    for (client, name) in [(&mut jane, "alpha"), (&mut neighbour, "beta")] {
        assert_eq!(text(client.get(LIST).await).await, name);
    }
    memory.measured(ENOUGH, WATERMARK);
    let held = unread(&world, 2).await;
    world.metric_becomes(BYTES, &world.a, 2.0 * WAITING as f64).await;

    memory.measured(ABOVE, WATERMARK);
    assert_eq!((world.metric(REFUSED, &world.a), world.metric(REFUSED, &world.b)), (1.0, 0.0));
    for path in [LIST, "/api/v1/pods?watch=1", "/api/v1/namespaces/default/pods/p/log"] {
        let refused = jane.get(path).await;
        assert_eq!(refused.headers()["retry-after"], "10", "{path}");
        assert_eq!(status(refused).await, (429, "TooManyRequests".to_owned()), "{path}");
    }
    for path in ["/livez", "/api/v1/namespaces/default/pods/p"] {
        assert_eq!(text(jane.get(path).await).await, "alpha", "{path}");
    }
    for path in [LIST, "/api/v1/namespaces/default/pods/p"] {
        assert_eq!(text(neighbour.get(path).await).await, "beta", "{path}");
    }
    assert_eq!(world.metric("portico_gateway_limited_total", &world.a), 3.0);

    memory.measured(ENOUGH, WATERMARK);
    for (client, name) in [(&mut jane, "alpha"), (&mut neighbour, "beta")] {
        assert_eq!(text(client.get(LIST).await).await, name);
    }
    drop(held);
    world.metric_becomes(BYTES, &world.a, 0.0).await;
    memory.measured(ABOVE, WATERMARK);
    assert_eq!(text(jane.get(LIST).await).await, "alpha", "it takes nothing any more");
}
