use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::*;

fn tenant(name: &str) -> TenantId {
    TenantId::parse("team", name).expect("id")
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// One look at a future.
fn look<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A place that is there at once.
fn at_once(places: &Places, name: &str, source: u8) -> Place {
    let tenant = tenant(name);
    match look(pin!(places.enter(&tenant, ip(source)))) {
        Poll::Ready(Some(place)) => place,
        other => panic!("{name} {source}: {other:?}"),
    }
}

fn must_wait(places: &Places, name: &str, source: u8) {
    let tenant = tenant(name);
    assert!(look(pin!(places.enter(&tenant, ip(source)))).is_pending(), "{name} {source}");
}

#[tokio::test(start_paused = true)]
async fn one_source_has_half_of_a_tenant_and_half_of_all() {
    let places = Places::new(8, 4);
    let mut held = vec![at_once(&places, "a", 1), at_once(&places, "a", 1)];
    must_wait(&places, "a", 1);
    held.extend([at_once(&places, "a", 2), at_once(&places, "a", 3)]);
    must_wait(&places, "a", 4);
    held.extend([at_once(&places, "b", 1), at_once(&places, "b", 1)]);
    must_wait(&places, "c", 1);
    held.extend([at_once(&places, "b", 2), at_once(&places, "c", 2)]);
    must_wait(&places, "d", 5);
    assert_eq!((places.in_use(&tenant("a")), places.in_use(&tenant("b"))), (4, 3));
    drop(held);
    let state = places.0.state.lock();
    assert_eq!((state.all, state.waiting), (0, 0));
    assert!(state.by_tenant.is_empty() && state.by_source.is_empty() && state.by_key.is_empty());
    assert!(state.queues.is_empty() && state.turns.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_a_moment() {
    let places = Places::new(2, 2);
    let _held = (at_once(&places, "a", 1), at_once(&places, "b", 2));
    let began = tokio::time::Instant::now();
    assert!(places.enter(&tenant("a"), ip(3)).await.is_none());
    assert_eq!(began.elapsed(), PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn waiters_are_bounded() {
    let places = Places::new(2, 2);
    let _held = (at_once(&places, "a", 1), at_once(&places, "b", 2));
    let (a, b, c) = (tenant("a"), tenant("b"), tenant("c"));
    let mut of_one = [pin!(places.enter(&a, ip(1))), pin!(places.enter(&a, ip(1)))];
    assert!(of_one.iter_mut().all(|waiting| look(waiting.as_mut()).is_pending()));
    assert!(matches!(look(pin!(places.enter(&a, ip(1)))), Poll::Ready(None)), "two of one source");
    let mut others = [pin!(places.enter(&b, ip(1))), pin!(places.enter(&b, ip(1)))];
    assert!(others.iter_mut().all(|waiting| look(waiting.as_mut()).is_pending()));
    assert!(matches!(look(pin!(places.enter(&c, ip(7)))), Poll::Ready(None)), "four of all");
}

/// However many one source has waiting, another's first is next but one.
#[tokio::test(start_paused = true)]
async fn sources_take_turns() {
    let places = Places::new(8, 8);
    let tenant = tenant("a");
    let mut held: VecDeque<Place> =
        (1..=2).flat_map(|s| (0..4).map(move |_| s)).map(|s| at_once(&places, "a", s)).collect();
    let mut flood: Vec<_> = (0..4).map(|_| Box::pin(places.enter(&tenant, ip(1)))).collect();
    assert!(flood.iter_mut().all(|waiting| look(waiting.as_mut()).is_pending()));
    let mut newcomer = pin!(places.enter(&tenant, ip(9)));
    assert!(look(newcomer.as_mut()).is_pending());
    held.pop_front();
    held.pop_front();
    let place = newcomer.await.expect("its turn");
    // Kept, or the place would go to the next one.
    let looks: Vec<_> = flood.iter_mut().map(|waiting| look(waiting.as_mut())).collect();
    let granted = looks.iter().filter(|look| look.is_ready()).count();
    assert_eq!(granted, 1);
    drop(place);
}

/// A waiter that left between its grant and its wake-up takes nothing with it.
#[tokio::test(start_paused = true)]
async fn a_place_granted_to_nobody_comes_back() {
    let places = Places::new(2, 2);
    let tenant = tenant("a");
    let held = at_once(&places, "a", 1);
    {
        let mut waiting = pin!(places.enter(&tenant, ip(1)));
        assert!(look(waiting.as_mut()).is_pending());
        drop(held);
    }
    assert_eq!(places.in_use(&tenant), 0);
    drop(at_once(&places, "a", 1));
}
