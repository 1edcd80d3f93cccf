use super::*;

const FRESH: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

fn terms<V>() -> Terms<V> {
    Terms::new("test", FRESH, 8)
}

/// Makes how often one was made before, and takes a second for it.
fn counted(made: &Arc<AtomicUsize>) -> impl Future<Output = Result<usize>> + Send + 'static {
    let made = Arc::clone(made);
    async move {
        tokio::time::sleep(SECOND).await;
        Ok(made.fetch_add(1, Ordering::SeqCst))
    }
}

fn away(made: &Arc<AtomicUsize>, kind: Kind) -> impl Future<Output = Result<()>> + Send + 'static {
    let made = counted(made);
    async move {
        made.await?;
        Err(Error::own(kind, "away"))
    }
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_cost_one_answer_until_it_is_old() {
    let (answers, clock, made) = (Answers::new(terms()), Clock::system(), Arc::default());
    let ask = || answers.get(&"a", &clock, || counted(&made));
    let all = futures::future::join_all((0..50).map(|_| ask())).await;
    assert!(all.iter().all(|answer| answer.as_ref().is_ok_and(|n| **n == 0)));
    tokio::time::advance(FRESH).await;
    assert_eq!(*ask().await.expect("made again"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_for_a_shorter_moment() {
    let terms = Terms { late: FRESH * 6, ..terms() };
    let (answers, clock, made) = (Answers::new(terms), Clock::system(), Arc::default());
    let make = &made;
    let ask = |kind| answers.get(&"a", &clock, move || away(make, kind));
    for _ in 0..50 {
        assert_eq!(ask(Kind::Unavailable).await.expect_err("away").message(), "away");
    }
    assert_eq!(made.load(Ordering::SeqCst), 1);
    tokio::time::advance(FAILURE).await;
    assert!(ask(Kind::Timeout).await.is_err());
    tokio::time::advance(FRESH * 6 - SECOND * 2).await;
    answers.get(&"b", &clock, || away(&made, Kind::Timeout)).await.expect_err("and what is not asked for is swept");
    assert_eq!((ask(Kind::Timeout).await.expect_err("late").kind(), made.load(Ordering::SeqCst)), (Kind::Timeout, 3));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_it_is_made_leaves_it_to_the_next() {
    let (answers, clock, made) = (Answers::new(terms()), Clock::system(), Arc::default());
    let (failures, failed) = (Answers::new(terms()), Arc::default());
    let leaves = SECOND / 2;
    assert!(tokio::time::timeout(leaves, answers.get(&"a", &clock, || counted(&made))).await.is_err());
    assert!(tokio::time::timeout(leaves, failures.get(&"a", &clock, || away(&failed, Kind::Closed))).await.is_err());
    tokio::time::sleep(SECOND).await;
    assert_eq!(*answers.get(&"a", &clock, || counted(&made)).await.expect("made"), 0);
    assert!(failures.get(&"a", &clock, || away(&failed, Kind::Closed)).await.is_err());
    assert_eq!((made.load(Ordering::SeqCst), failed.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_made_longer_than_it_is_good_is_made_once() {
    let terms = Terms::new("test", SECOND / 10, 8);
    let (answers, clock, made) = (Answers::new(terms), Clock::system(), Arc::<AtomicUsize>::default());
    let slow = || {
        let made = Arc::clone(&made);
        async move {
            tokio::time::sleep(SECOND * 60).await;
            Ok(made.fetch_add(1, Ordering::SeqCst))
        }
    };
    for key in [0, 1, 0, 1, 0] {
        assert!(tokio::time::timeout(SECOND * 10, answers.get(&key, &clock, slow)).await.is_err());
    }
    assert_eq!(*answers.get(&0, &clock, slow).await.expect("made"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_kept_is_not_made_again_sooner() {
    let terms = Terms { keeps: |_: &usize| false, ..terms() };
    let (answers, clock, made) = (Answers::new(terms), Clock::system(), Arc::default());
    let ask = || answers.get(&"a", &clock, || counted(&made));
    let first = ask().await.expect("made");
    assert_eq!(Arc::strong_count(&first), 1, "nobody else has it");
    let began = clock.instant();
    let all = futures::future::join_all((0..50).map(|_| ask())).await;
    assert!(all.iter().all(|answer| answer.as_ref().is_ok_and(|n| **n == 1)));
    assert_eq!(clock.instant() - began, FRESH + SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_that_answer_and_no_newer_one() {
    let (answers, clock, made) = (Answers::new(terms()), Clock::system(), Arc::default());
    let ask = || answers.get(&"a", &clock, || counted(&made));
    let first = ask().await.expect("made");
    answers.forget(&"a", &first);
    assert_eq!(*ask().await.expect("made again"), 1);
    answers.forget(&"a", &first);
    assert_eq!(*ask().await.expect("kept"), 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_keys_than_there_may_be_and_none_that_nobody_asks_for() {
    let (answers, clock, made) = (Answers::new(terms()), Clock::system(), Arc::default());
    let held = answers.get(&usize::MAX, &clock, || counted(&made));
    let others = async {
        for key in 0..100 {
            tokio::time::advance(Duration::from_millis(1)).await;
            answers.get(&key, &clock, || async move { Ok(key) }).await.expect("made");
        }
        answers.get(&usize::MAX, &clock, || counted(&made)).await
    };
    let (held, again) = futures::future::join(held, others).await;
    assert_eq!((*held.expect("made"), *again.expect("the same"), answers.len()), (0, 0, 8));
    tokio::time::advance(FRESH * 2).await;
    answers.get(&1000, &clock, || async { Ok(0) }).await.expect("made");
    assert_eq!(answers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_heavy_makes_room_and_is_answered_all_the_same() {
    let terms = Terms { weigh: |weight: &usize| *weight, most_weight: 10, ..terms() };
    let (answers, clock) = (Answers::new(terms), Clock::system());
    for (key, weight, left) in [("a", 6, 1), ("b", 4, 2), ("c", 1, 2), ("d", 11, 0), ("e", 10, 1)] {
        tokio::time::advance(Duration::from_millis(1)).await;
        let answer = answers.get(&key, &clock, || async move { Ok(weight) }).await;
        assert_eq!((*answer.expect("made"), answers.len()), (weight, left), "{key}");
    }
}
