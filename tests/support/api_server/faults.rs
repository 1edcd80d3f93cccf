//! Seeded misfortune.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portico::error::{Error, Kind, Result, Side};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Seeded misfortune, shared by all servers of one run.
pub struct Faults {
    random: Mutex<StdRng>,
    on: Mutex<bool>,
    /// How late watches of the host are.
    pub(super) lag: Mutex<Duration>,
    /// Whether the host refuses reads that its rights allow, as while a Role is made again.
    refusing: Mutex<bool>,
    /// Whether the host's lists show nothing, whatever there is.
    blind: Mutex<bool>,
    panicking: Mutex<bool>,
    /// Answers take no time.
    instant: Mutex<bool>,
}

impl Faults {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            on: Mutex::new(true),
            lag: Mutex::default(),
            refusing: Mutex::default(),
            blind: Mutex::default(),
            panicking: Mutex::default(),
            instant: Mutex::default(),
        })
    }

    /// All goes well, at once.
    pub fn none() -> Arc<Self> {
        let faults = Self::new(0);
        faults.answer_at_once();
        faults.stop();
        faults
    }

    pub fn answer_at_once(&self) {
        *self.instant.lock() = true;
    }

    pub fn stop(&self) {
        *self.on.lock() = false;
    }

    /// Misfortune begins or ends.
    pub fn go_on(&self, on: bool) {
        *self.on.lock() = on;
    }

    /// Now and then a call panics in the caller's hands, or is never answered.
    pub fn panics(&self, on: bool) {
        *self.panicking.lock() = on;
    }

    /// Every event of the host comes so late from now on.
    pub fn delay_watches(&self, lag: Duration) {
        *self.lag.lock() = lag;
    }

    /// The host answers every list and watch with 403.
    pub fn refuse_reads(&self, refusing: bool) {
        *self.refusing.lock() = refusing;
    }

    /// Lists of the host are empty, while single objects are found.
    pub fn empty_lists(&self, blind: bool) {
        *self.blind.lock() = blind;
    }

    pub(super) fn hides(&self, side: Side) -> bool {
        side == Side::Host && *self.blind.lock()
    }

    pub(super) fn read_right(&self, side: Side) -> Result<()> {
        if side == Side::Host && *self.refusing.lock() {
            return Err(Error::new(side, Kind::Forbidden, "no right to list"));
        }
        Ok(())
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.random.lock().random_range(0..bound)
    }

    pub(super) fn strikes(&self, permille: u64) -> bool {
        *self.on.lock() && self.below(1000) < permille
    }

    pub(super) async fn latency(&self) {
        if *self.instant.lock() {
            return;
        }
        let millis = self.below(8);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        if self.strikes(10) {
            let millis = self.below(5000);
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    pub(super) async fn before(&self, side: Side, write: bool) -> Result<()> {
        self.latency().await;
        if *self.panicking.lock() {
            assert!(!self.strikes(30), "as the test wants it");
            if self.strikes(30) {
                std::future::pending::<()>().await;
            }
        }
        if self.strikes(20) {
            return Err(Error::new(side, Kind::Unavailable, "refused"));
        }
        if self.strikes(10) {
            return Err(Error::new(side, Kind::TooManyRequests, "slower"));
        }
        if write && self.strikes(10) {
            return Err(Error::new(side, Kind::Conflict, "somebody was faster"));
        }
        Ok(())
    }

    /// The effect has happened; the answer may still be lost.
    pub(super) async fn after(&self, side: Side) -> Result<()> {
        self.latency().await;
        if self.strikes(20) { Err(Error::new(side, Kind::Timeout, "no answer")) } else { Ok(()) }
    }
}
