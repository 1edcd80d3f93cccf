//! Tokens that a tenant's backend accepted a moment ago, so that their next requests need no place among the unknown.
//!
//! Promises: a token stands here only as a digest under a key of this process, for one tenant and no other of its name,
//! and for ten seconds at most; the memory for one tenant is bounded, whoever fills it displaces only tokens of the same
//! tenant. Must not know requests: who calls [`Accepted::insert`] has seen a proof.

use std::collections::HashSet;
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::runtime::clock::Clock;
use crate::tenant::Tenant;

/// A token lives in two of these at most: five to ten seconds.
const PERIOD: Duration = Duration::from_secs(5);
/// Tokens of one period and tenant; two periods take 270 KiB when full, nothing when empty.
const MOST: usize = 2048;

/// A token of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenDigest([u8; 32]);

/// What makes digests useless outside of this process.
pub(super) struct TokenKey([u8; 32]);

/// What is known of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Accepted in this period.
    Fresh,
    /// Accepted in the last one: the next proof should be noted.
    Ageing,
    /// Not, or too long ago.
    Unknown,
}

/// Accepted tokens of one tenant, by the period of their acceptance.
#[derive(Debug, Default)]
pub(super) struct Accepted(Mutex<Periods>);

#[derive(Debug, Default)]
struct Periods {
    began: Option<Instant>,
    this: HashSet<TokenDigest>,
    last: HashSet<TokenDigest>,
}

impl TokenKey {
    pub(super) fn new(clock: &Clock) -> Self {
        Self(Sha256::digest(clock.random_bytes(32)).into())
    }

    /// `authorization` is the whole header value. All parts before it are of fixed length or ended by a zero byte.
    pub(super) fn digest(&self, tenant: &Tenant, authorization: &HeaderValue) -> TokenDigest {
        let mut hash = Sha256::new_with_prefix(self.0);
        for part in [tenant.id.namespace().as_str(), tenant.id.name().as_str(), &tenant.uid] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.update(authorization.as_bytes());
        TokenDigest(hash.finalize().into())
    }
}

impl TokenDigest {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Accepted {
    pub(super) fn standing(&self, token: &TokenDigest, now: Instant) -> Standing {
        let mut periods = self.0.lock();
        periods.turn(now);
        match (periods.this.contains(token), periods.last.contains(token)) {
            (true, _) => Standing::Fresh,
            (false, true) => Standing::Ageing,
            (false, false) => Standing::Unknown,
        }
    }

    /// Notes that the backend has just accepted it.
    pub(super) fn insert(&self, token: TokenDigest, now: Instant) {
        let mut periods = self.0.lock();
        periods.turn(now);
        if periods.this.len() >= MOST {
            periods.end(now);
        }
        periods.this.insert(token);
    }

    /// Notes that the backend has just refused it.
    pub(super) fn forget(&self, token: &TokenDigest) {
        let mut periods = self.0.lock();
        periods.this.remove(token);
        periods.last.remove(token);
    }
}

impl Periods {
    fn turn(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let passed = now.saturating_duration_since(began);
        if passed >= 2 * PERIOD {
            *self = Self { began: Some(now), ..Self::default() };
        } else if passed >= PERIOD {
            self.end(began + PERIOD);
        }
    }

    fn end(&mut self, at: Instant) {
        self.last = std::mem::take(&mut self.this);
        self.began = Some(at);
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: usize) -> TokenDigest {
        TokenDigest(Sha256::digest(n.to_be_bytes()).into())
    }

    #[tokio::test(start_paused = true)]
    async fn acceptance_holds_for_five_to_ten_seconds_and_no_longer() {
        let (accepted, clock) = (Accepted::default(), Clock::system());
        for offset in [0, 1, 4999] {
            tokio::time::advance(Duration::from_millis(offset)).await;
            accepted.insert(token(1), clock.instant());
            assert_eq!(accepted.standing(&token(1), clock.instant()), Standing::Fresh);
            tokio::time::advance(PERIOD - Duration::from_millis(1)).await;
            assert_ne!(accepted.standing(&token(1), clock.instant()), Standing::Unknown, "{offset}");
            tokio::time::advance(PERIOD + Duration::from_millis(1)).await;
            assert_eq!(accepted.standing(&token(1), clock.instant()), Standing::Unknown, "{offset}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_pause_forgets_all_at_once() {
        let (accepted, clock) = (Accepted::default(), Clock::system());
        accepted.insert(token(1), clock.instant());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(accepted.standing(&token(1), clock.instant()), Standing::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn many_tokens_take_bounded_memory_and_the_newest_stay() {
        let (accepted, clock) = (Accepted::default(), Clock::system());
        for n in 0..10 * MOST {
            accepted.insert(token(n), clock.instant());
        }
        let periods = accepted.0.lock();
        assert!(periods.this.len() + periods.last.len() <= 2 * MOST);
        assert!(periods.this.contains(&token(10 * MOST - 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_unknown_at_once() {
        let (accepted, clock) = (Accepted::default(), Clock::system());
        accepted.insert(token(1), clock.instant());
        accepted.forget(&token(1));
        assert_eq!(accepted.standing(&token(1), clock.instant()), Standing::Unknown);
    }
}
