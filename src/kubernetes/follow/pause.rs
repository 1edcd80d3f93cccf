//! When a server that failed is asked again, and when its absence is worth a word.

use std::time::Duration;

use tokio::time::Instant;

use super::plan::Followed;
use crate::error::{Error, Kind};
use crate::runtime::clock::Clock;

/// A watch that lived so long was worth its list: the pauses begin anew.
const STEADY: Duration = Duration::from_secs(10);
/// Watches that go on from each other are not opened more often than this.
const FLOOR: Duration = Duration::from_secs(1);
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(20);
/// Longest `Retry-After` that is obeyed.
const LONGEST_WISH: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Pauses {
    until: Option<Instant>,
    failures: u32,
    away_since: Option<Instant>,
    is_told: bool,
}

impl Pauses {
    pub(super) async fn wait(&mut self) {
        if let Some(until) = self.until {
            tokio::time::sleep_until(until).await;
            self.until = None;
        }
    }

    /// After a failure; `lived` of the watch that it ended. Yields the pause before jitter.
    pub(super) fn failed(&mut self, clock: &Clock, lived: Option<Duration>, error: &Error) -> Duration {
        if lived.is_some_and(|lived| lived >= STEADY) {
            self.failures = 0;
        }
        let wish = Duration::from_secs(u64::from(error.retry_after().unwrap_or(0))).min(LONGEST_WISH);
        let pause = FIRST.saturating_mul(1 << self.failures.min(7)).min(LONGEST).max(wish);
        self.failures += 1;
        self.rest(clock, pause);
        pause
    }

    /// After a watch that ended in good order and goes on.
    pub(super) fn ended(&mut self, clock: &Clock, lived: Duration) {
        if lived >= STEADY {
            self.failures = 0;
        }
        if lived < FLOOR {
            self.rest(clock, FLOOR);
        }
    }

    pub(super) fn rest(&mut self, clock: &Clock, pause: Duration) {
        self.until = Some(clock.instant() + clock.jitter(pause));
    }

    /// The server told something.
    pub(super) fn answered(&mut self, followed: &Followed) {
        self.away_since = None;
        if std::mem::take(&mut self.is_told) {
            tracing::info!(owner = %followed.owner, kind = followed.resource.kind, "followed again");
        }
    }

    /// Once for each absence, when it is no longer a restart.
    pub(super) fn tell(&mut self, clock: &Clock, followed: &Followed, error: &Error, retry_in: Duration) {
        let (owner, kind) = (&followed.owner, followed.resource.kind);
        let now = clock.instant();
        let away = now.saturating_duration_since(*self.away_since.get_or_insert(now));
        if error.kind() == Kind::Gone || self.is_told || away < followed.patience {
            tracing::debug!(%owner, kind, %error, ?retry_in, "a list or watch failed");
            return;
        }
        self.is_told = true;
        tracing::warn!(%owner, kind, %error, ?retry_in, "cannot be followed");
    }
}
