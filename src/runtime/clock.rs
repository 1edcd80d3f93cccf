//! Injected time and randomness, so that tests are paused or seeded.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

/// Monotonic and calendar time plus a seeded source of randomness; cheap to clone.
#[derive(Clone)]
pub struct Clock {
    random: Arc<Mutex<StdRng>>,
    calendar: Calendar,
}

#[derive(Debug, Clone, Copy)]
enum Calendar {
    Machine,
    Standing(Timestamp),
    /// What it showed, and when.
    Going(Timestamp, Instant),
}

impl Clock {
    /// The machine's clock, seeded by the system.
    pub fn system() -> Self {
        Self { random: Arc::new(Mutex::new(StdRng::from_rng(&mut rand::rng()))), calendar: Calendar::Machine }
    }

    /// A clock for tests: the calendar stands still at `now`, randomness comes from `seed`.
    pub fn seeded(now: Timestamp, seed: u64) -> Self {
        Self { random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))), calendar: Calendar::Standing(now) }
    }

    /// The same for tests in which time passes: the calendar goes on from `now` with tokio's clock, paused or not.
    pub fn going(now: Timestamp, seed: u64) -> Self {
        Self { calendar: Calendar::Going(now, Instant::now()), ..Self::seeded(now, seed) }
    }

    /// Calendar time.
    pub fn now(&self) -> Timestamp {
        match self.calendar {
            Calendar::Machine => Timestamp::now(),
            Calendar::Standing(now) => now,
            Calendar::Going(began, at) => began.saturating_add(at.elapsed()).unwrap_or(began),
        }
    }

    /// Monotonic time; obeys tokio's paused clock.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// A random number in `0..bound` (0 when `bound` is 0).
    pub fn random_below(&self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        self.random.lock().random_range(0..bound)
    }

    /// `base` spread by ±20 %, so that many waiters do not wake together.
    pub fn jitter(&self, base: Duration) -> Duration {
        let permille = 800 + self.random_below(401);
        base.mul_f64(permille as f64 / 1000.0)
    }

    /// `len` random bytes.
    pub fn random_bytes(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        rand::Rng::fill_bytes(&mut *self.random.lock(), &mut bytes);
        bytes
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").field("calendar", &self.calendar).finish_non_exhaustive()
    }
}
