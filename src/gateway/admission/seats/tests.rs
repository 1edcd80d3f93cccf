use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Seats with tasks that run until they are not used any more.
struct World {
    seats: Arc<Seats>,
    clock: Clock,
    running: Arc<AtomicUsize>,
    began: Arc<AtomicUsize>,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn id(n: usize) -> TenantId {
    TenantId::parse("team", &format!("t{n}")).expect("valid")
}

impl World {
    fn new() -> Self {
        Self { seats: Arc::default(), clock: Clock::system(), running: Arc::default(), began: Arc::default() }
    }

    fn take(&self, tenant: usize, uid: &str, generation: u64) -> Option<watch::Receiver<Known>> {
        let who = Who { id: &id(tenant), uid, generation };
        self.seats.take(who, self.clock.instant(), |used| {
            let (told, known) = watch::channel(Known::new(&Arc::default()));
            self.began.fetch_add(1, Ordering::SeqCst);
            self.running.fetch_add(1, Ordering::SeqCst);
            let (running, clock) = (Running(Arc::clone(&self.running)), self.clock.clone());
            let work = async move {
                let _held = (told, running);
                used.is_over(&clock).await;
            };
            (known, work)
        })
    }

    /// Seats, tasks that run, tasks that were begun.
    async fn counts(&self) -> (usize, usize, usize) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        (self.seats.taken(), self.running.load(Ordering::SeqCst), self.began.load(Ordering::SeqCst))
    }
}

const UNUSED: Duration = Duration::from_secs(299);

#[tokio::test(start_paused = true)]
async fn a_seat_ends_when_nobody_asked_for_minutes() {
    let world = World::new();
    let known = world.take(1, "u", 1).expect("a seat");
    for _ in 0..3 {
        tokio::time::sleep(UNUSED).await;
        assert!(world.take(1, "u", 1).is_some());
    }
    assert_eq!(world.counts().await, (1, 1, 1), "the same one");
    tokio::time::sleep(UNUSED).await;
    assert!(known.has_changed().is_ok());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.counts().await, (0, 0, 1));
    assert!(known.has_changed().is_err(), "nothing more is told");
    assert!(world.take(1, "u", 1).is_some());
    assert_eq!(world.counts().await, (1, 1, 2));
    drop(world.seats);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(world.running.load(Ordering::SeqCst), 0, "with their owner");
}

#[tokio::test(start_paused = true)]
async fn where_no_seat_is_free_one_that_rests_gives_way() {
    let world = World::new();
    let first = world.take(0, "u", 1).expect("a seat");
    for tenant in 1..SEATS {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(world.take(tenant, "u", 1).is_some());
    }
    assert!(world.take(SEATS, "u", 1).is_none(), "all were used a moment ago");
    assert_eq!(world.counts().await, (SEATS, SEATS, SEATS));
    tokio::time::sleep(RESTS).await;
    assert!(world.take(1, "u", 1).is_some());
    assert!(world.take(SEATS, "u", 1).is_some());
    assert!(world.take(SEATS + 1, "u", 1).is_some());
    assert_eq!(world.counts().await, (SEATS, SEATS, SEATS + 2));
    assert!(first.has_changed().is_err(), "it was used longest ago");
    assert!(world.take(1, "u", 1).is_some_and(|known| known.has_changed().is_ok()));
    assert_eq!(world.began.load(Ordering::SeqCst), SEATS + 2, "the second was used again");
}

#[tokio::test(start_paused = true)]
async fn a_later_generation_begins_anew_and_an_earlier_one_does_not() {
    let world = World::new();
    let first = world.take(1, "u", 3).expect("a seat");
    assert!(world.take(1, "u", 2).is_some());
    assert_eq!(world.counts().await, (1, 1, 1));
    assert!(world.take(1, "u", 4).is_some());
    assert_eq!(world.counts().await, (1, 1, 2));
    assert!(first.has_changed().is_err());
    assert!(world.take(1, "v", 5).is_some(), "made again under its name");
    assert!(world.take(1, "u", 4).is_none(), "the last requests of the one before");
    assert_eq!(world.counts().await, (1, 1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_leaves_its_seat() {
    let seats = Arc::<Seats>::default();
    let who = Who { id: &id(1), uid: "u", generation: 1 };
    let (_told, known) = watch::channel(Known::new(&Arc::default()));
    let work = |_| (known, async { panic!("as the test wants it") });
    assert!(seats.take(who, Instant::now(), work).is_some());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(seats.taken(), 0);
}
