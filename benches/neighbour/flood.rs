//! A's floods: as many workers, each with the next call behind the answer to the last one, and a cap of the rate, the same
//! wherever they go.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use parking_lot::Mutex;
use portico::runtime::task::{self, Task};
use serde_json::Value;
use tokio::net::UdpSocket;
use tokio::time::{Interval, MissedTickBehavior};

use crate::Kind;
use crate::place::{self, Outcome, Place};

/// Watches that see each write of a flood of events.
const WATCHES: usize = 16;
/// A worker that fails does not spin.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

pub(crate) struct Flood {
    workers: Vec<Task>,
    watches: Vec<Task>,
    tally: Arc<Tally>,
    over: Arc<AtomicBool>,
    began: Mutex<Instant>,
}

#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    /// The first reason.
    why: Mutex<Option<String>>,
}

/// What a flood came to.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    answered: u64,
    refused: u64,
    failed: u64,
    time: Duration,
}

/// Answers each question with itself: what sending and receiving costs, past every resolver.
pub(crate) struct Responder {
    pub(crate) address: SocketAddr,
    _task: Task,
}

/// Workers and calls a second of all of them.
fn size(kind: Kind) -> (usize, u64) {
    match kind {
        Kind::Get => (32, 1000),
        Kind::Watch => (8, 100),
        Kind::Pod => (16, 50),
        Kind::Exec => (8, 20),
        Kind::Dns => (32, 4000),
    }
}

pub(crate) async fn responder() -> Responder {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let task = task::spawn("responder", async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            // The bit that makes it an answer.
            buffer[2] |= 0x80;
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    });
    Responder { address, _task: task }
}

impl Flood {
    /// `load` is of a hundred.
    pub(crate) fn start(kind: Kind, place: &Arc<Place>, load: u64) -> Self {
        let (workers, rate) = size(kind);
        let every = Duration::from_secs(workers as u64) * 100 / u32::try_from((rate * load).max(1)).expect("a rate");
        let (tally, over) = (Arc::<Tally>::default(), Arc::<AtomicBool>::default());
        let now = tokio::time::Instant::now();
        let worker = |number: usize| {
            // One behind the other, not all at one moment.
            let first = now + every * u32::try_from(number).expect("few") / u32::try_from(workers).expect("few");
            let pace = tokio::time::interval_at(first, every);
            let work = work(kind, Arc::clone(place), number, pace, Arc::clone(&tally), Arc::clone(&over));
            task::spawn("flood", work)
        };
        let workers = (0..workers).map(worker).collect();
        let watches = if kind == Kind::Watch { WATCHES } else { 0 };
        let watches = (0..watches).map(|_| task::spawn("flood's watch", watch(Arc::clone(place)))).collect();
        Self { workers, watches, tally, over, began: Mutex::new(Instant::now()) }
    }

    /// What was before was the warm-up.
    pub(crate) fn counts_from_now(&self) {
        *self.began.lock() = Instant::now();
        for count in [&self.tally.answered, &self.tally.refused, &self.tally.failed] {
            count.store(0, Ordering::SeqCst);
        }
    }

    /// Every worker ends what it has begun.
    pub(crate) async fn stop(self) -> Reached {
        let time = self.began.lock().elapsed();
        let count = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let tally = &self.tally;
        let (answered, refused, failed) = (count(&tally.answered), count(&tally.refused), count(&tally.failed));
        self.over.store(true, Ordering::SeqCst);
        for worker in self.workers {
            worker.join().await;
        }
        drop(self.watches);
        if let Some(why) = self.tally.why.lock().take() {
            eprintln!("  the flood's first failure: {why:.300}");
        }
        Reached { answered, refused, failed, time }
    }
}

impl Reached {
    pub(crate) fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.failed += other.failed;
        self.time += other.time;
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }

    pub(crate) fn words(&self) -> String {
        let each = |count: u64| count as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE);
        let all = each(self.answered + self.refused + self.failed);
        let failed = if self.failed == 0 { String::new() } else { format!(", {} failed", self.failed) };
        format!("{all:.0}/s, {:.0}/s refused{failed}", each(self.refused))
    }
}

async fn work(
    kind: Kind,
    place: Arc<Place>,
    number: usize,
    mut pace: Interval,
    tally: Arc<Tally>,
    over: Arc<AtomicBool>,
) {
    let resolver = place.resolver().await;
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut n = 0_u64;
    while !over.load(Ordering::SeqCst) {
        pace.tick().await;
        n += 1;
        let outcome = match kind {
            Kind::Get => place.get().await,
            Kind::Watch => place.write(&format!("{number}-{n}")).await,
            Kind::Pod => create_and_delete(&place, &format!("flood-{}-{number}-{n}", std::process::id())).await,
            Kind::Exec => place.exec().await,
            Kind::Dns => place::ask(&resolver, u16::try_from(n % 65_536).expect("16 bits")).await,
        };
        match outcome {
            Outcome::Answered(_) => _ = tally.answered.fetch_add(1, Ordering::SeqCst),
            Outcome::Refused => _ = tally.refused.fetch_add(1, Ordering::SeqCst),
            Outcome::Failed(why) => {
                tally.failed.fetch_add(1, Ordering::SeqCst);
                tally.why.lock().get_or_insert(why);
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

async fn create_and_delete(place: &Place, name: &str) -> Outcome {
    let created = place.create_pod(name).await;
    if matches!(created, Outcome::Answered(_)) {
        // One that stays would be a load of its own.
        while let Outcome::Refused = place.delete_pod(name).await {
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }
    created
}

/// Reads events until it is dropped.
async fn watch(place: Arc<Place>) {
    loop {
        if let Ok(request) = place.now("configmaps", "fieldSelector=metadata.name%3Dbench").await
            && let Ok(events) = place.client.request_events::<Value>(request).await
        {
            let mut events = std::pin::pin!(events);
            while let Some(Ok(_)) = events.next().await {}
        }
        tokio::time::sleep(AFTER_FAILURE).await;
    }
}
