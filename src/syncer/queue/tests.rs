use super::*;
use crate::syncer::kind::ObjectKey;
use proptest::prelude::*;

fn item(name: &str) -> Item {
    Item { kind: 0, key: ObjectKey { namespace: "ns".to_owned(), name: name.to_owned() } }
}

fn queue(per_tenant: usize) -> Arc<Queue> {
    let queue = Queue::new(Clock::seeded(jiff::Timestamp::UNIX_EPOCH, 1), per_tenant);
    for tenant in 0..3 {
        queue.add_tenant(tenant);
    }
    queue
}

#[tokio::test(start_paused = true)]
async fn what_is_pushed_while_running_runs_again_and_never_twice_at_once() {
    let queue = queue(4);
    queue.push(1, item("a"), Urgency::Fresh);
    queue.push(1, item("a"), Urgency::Fresh);
    let first = queue.next().await.expect("work");
    queue.push(1, item("a"), Urgency::Fresh);
    assert!(tokio::time::timeout(Duration::from_secs(5), queue.next()).await.is_err());
    first.done(None);
    queue.next().await.expect("again").done(None);
    assert_eq!(queue.depth(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn failures_wait_longer_each_time_and_the_first_retry_is_fast() {
    let queue = queue(4);
    queue.push(1, item("a"), Urgency::Fresh);
    let mut waits = Vec::new();
    for _ in 0..12 {
        let before = Instant::now();
        let work = queue.next().await.expect("work");
        waits.push(before.elapsed());
        work.retry(Duration::ZERO);
    }
    assert!(waits[1] <= Duration::from_millis(70), "{waits:?}");
    assert!(waits.iter().all(|w| *w <= Duration::from_secs(73)), "{waits:?}");
    assert!(waits[11] >= Duration::from_secs(47), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_greedy_tenant_delays_nobody() {
    let queue = queue(2);
    for n in 0..2_000 {
        let mut inner = queue.inner.lock();
        let now = Instant::now();
        inner.push(0, Arc::new(item(&n.to_string())), Urgency::Fresh, now, 2);
    }
    queue.push(1, item("mine"), Urgency::Fresh);
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(queue.next().await.expect("work"));
    }
    assert!(held.iter().any(|w| w.tenant() == 1));
    held.push(queue.next().await.expect("work"));
    assert!(tokio::time::timeout(Duration::from_secs(1), queue.next()).await.is_err(), "two at once, no more");
}

#[tokio::test(start_paused = true)]
async fn a_paused_tenant_waits_and_the_other_goes_on() {
    let queue = queue(2);
    queue.pause_tenant(0, Duration::from_secs(10));
    queue.push(0, item("a"), Urgency::Fresh);
    queue.push(1, item("b"), Urgency::Fresh);
    let start = Instant::now();
    let work = queue.next().await.expect("work");
    assert_eq!(work.tenant(), 1);
    let late = queue.next().await.expect("work");
    assert_eq!(late.tenant(), 0);
    assert!(start.elapsed() >= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_narrow_tenant_has_one_at_a_time_until_it_is_widened() {
    let queue = queue(3);
    for name in ["a", "b", "c", "d"] {
        queue.push(0, item(name), Urgency::Fresh);
    }
    let mut held = vec![queue.next().await.expect("work"), queue.next().await.expect("work")];
    queue.narrow_tenant(0, true);
    let nothing = || async { tokio::time::timeout(Duration::from_secs(1), queue.next()).await.is_err() };
    assert!(nothing().await);
    held.pop().expect("held").done(None);
    assert!(nothing().await, "one is still out");
    held.pop().expect("held").done(None);
    held.push(queue.next().await.expect("work"));
    assert!(nothing().await, "one at a time");
    queue.narrow_tenant(0, false);
    held.push(queue.next().await.expect("its share again"));
}

#[tokio::test(start_paused = true)]
async fn a_removed_tenant_leaves_nothing_behind() {
    let queue = queue(2);
    for name in ["a", "b", "c"] {
        queue.push(2, item(name), Urgency::Fresh);
    }
    let running = queue.next().await.expect("work");
    queue.next().await.expect("work").done(Some(Duration::from_secs(3600)));
    queue.remove_tenant(2);
    running.done(None);
    assert_eq!(queue.depth(), (0, 0, 0));
    assert!(queue.inner.lock().timers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn closing_ends_every_waiter() {
    let queue = queue(2);
    let waiters: Vec<_> = (0..5)
        .map(|_| {
            let queue = Arc::clone(&queue);
            crate::runtime::task::spawn("waiter", async move { queue.next().await.is_none() })
        })
        .collect();
    tokio::task::yield_now().await;
    queue.close();
    for waiter in waiters {
        assert_eq!(waiter.join().await, Some(true));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(u64, u8, bool),
    Next,
    Done(usize, bool),
    Fail(usize),
    Pause(u64),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3u64, 0..6u8, any::<bool>()).prop_map(|(t, n, f)| Step::Push(t, n, f)),
        4 => Just(Step::Next),
        2 => (0..4usize, any::<bool>()).prop_map(|(n, a)| Step::Done(n, a)),
        1 => (0..4usize).prop_map(Step::Fail),
        1 => (0..3u64).prop_map(Step::Pause),
        1 => (0..2000u16).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Whatever happens, invariants hold (checked inside at every step), nothing runs twice at once, and in the end
    /// every pushed object has run after its last push.
    #[test]
    fn nothing_is_lost(steps in proptest::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("runtime");
        runtime.block_on(async {
            let queue = queue(2);
            let mut held: Vec<Work> = Vec::new();
            let mut owed = std::collections::HashSet::new();
            for step in steps {
                match step {
                    Step::Push(tenant, n, fresh) => {
                        let item = item(&n.to_string());
                        if fresh { owed.insert((tenant, item.clone())); }
                        queue.push(tenant, item, if fresh { Urgency::Fresh } else { Urgency::Background });
                    }
                    Step::Next => {
                        if let Ok(Some(work)) = tokio::time::timeout(Duration::from_millis(1), queue.next()).await {
                            let id = (work.tenant(), work.item().clone());
                            assert!(!held.iter().any(|w| (w.tenant(), w.item().clone()) == id), "twice at once");
                            owed.remove(&id);
                            held.push(work);
                        }
                    }
                    Step::Done(n, again) if n < held.len() => held.swap_remove(n).done(again.then_some(Duration::from_secs(30))),
                    Step::Fail(n) if n < held.len() => drop(held.swap_remove(n)),
                    Step::Pause(tenant) => queue.pause_tenant(tenant, Duration::from_secs(3)),
                    Step::Wait(ms) => tokio::time::advance(Duration::from_millis(u64::from(ms))).await,
                    Step::Done(..) | Step::Fail(_) => {}
                }
            }
            held.into_iter().for_each(|w| w.done(None));
            while let Ok(Some(work)) = tokio::time::timeout(Duration::from_secs(200), queue.next()).await {
                owed.remove(&(work.tenant(), work.item().clone()));
                work.done(None);
            }
            assert!(owed.is_empty(), "never run: {owed:?}");
            assert_eq!(queue.depth(), (0, 0, 0));
        });
    }
}
