//! What was lately learnt of a tenant's tokens, so that their next requests need not wait for it.
//!
//! Promises: a token stands here only as a digest under a key of this process, for one tenant and no other of its name,
//! and for two periods at most; the memory for one tenant is bounded, whoever fills it displaces only tokens of the same
//! tenant. Must not know requests, or what is learnt.

use std::collections::HashMap;
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::runtime::clock::Clock;
use crate::tenant::Tenant;

/// Tokens of one period and tenant; two periods take some 300 KiB when full and a user's name each beside, nothing when empty.
const MOST: usize = 2048;

/// A token of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenDigest([u8; 32]);

/// What makes digests useless outside of this process.
pub(super) struct TokenKey([u8; 32]);

/// What was learnt of tokens of one tenant, by the period in which it was: it lasts for one to two of these.
#[derive(Debug)]
pub(super) struct Recent<V> {
    period: Duration,
    /// Of what was learnt in one period, where that has a weight.
    most_weight: usize,
    periods: Mutex<Periods<V>>,
}

#[derive(Debug)]
struct Periods<V> {
    began: Option<Instant>,
    this: HashMap<TokenDigest, V>,
    /// Of `this`.
    weight: usize,
    last: HashMap<TokenDigest, V>,
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

impl<V: Clone> Recent<V> {
    pub(super) fn new(period: Duration) -> Self {
        Self::within(period, usize::MAX)
    }

    /// The same, of things that have a weight: so much in one period, and no more.
    pub(super) fn within(period: Duration, most_weight: usize) -> Self {
        Self { period, most_weight, periods: Mutex::default() }
    }

    /// What is known of a token, and whether that is of this period: else it should be learnt again.
    pub(super) fn get(&self, token: &TokenDigest, now: Instant) -> Option<(V, bool)> {
        let mut periods = self.periods.lock();
        periods.turn(self.period, now);
        let of_last = || periods.last.get(token).map(|value| (value.clone(), false));
        periods.this.get(token).map(|value| (value.clone(), true)).or_else(of_last)
    }

    pub(super) fn has(&self, token: &TokenDigest, now: Instant) -> bool {
        self.get(token, now).is_some()
    }

    /// Notes what has just been learnt.
    pub(super) fn insert(&self, token: TokenDigest, value: V, now: Instant) {
        self.insert_of(token, value, 0, now);
    }

    /// The same, of so much weight.
    pub(super) fn insert_of(&self, token: TokenDigest, value: V, weight: usize, now: Instant) {
        let mut periods = self.periods.lock();
        periods.turn(self.period, now);
        if periods.this.len() >= MOST || periods.weight.saturating_add(weight) > self.most_weight {
            periods.end(now);
        }
        periods.weight = periods.weight.saturating_add(weight);
        periods.this.insert(token, value);
    }

    /// Notes that it holds no more.
    pub(super) fn forget(&self, token: &TokenDigest) {
        let mut periods = self.periods.lock();
        periods.this.remove(token);
        periods.last.remove(token);
    }
}

impl<V> Default for Periods<V> {
    fn default() -> Self {
        Self { began: None, this: HashMap::new(), weight: 0, last: HashMap::new() }
    }
}

impl<V> Periods<V> {
    fn turn(&mut self, period: Duration, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let passed = now.saturating_duration_since(began);
        if passed >= 2 * period {
            *self = Self { began: Some(now), ..Self::default() };
        } else if passed >= period {
            self.end(began + period);
        }
    }

    fn end(&mut self, at: Instant) {
        self.last = std::mem::take(&mut self.this);
        self.weight = 0;
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

    const PERIOD: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn what_is_learnt_holds_for_one_to_two_periods_and_no_longer() {
        let (recent, clock) = (Recent::new(PERIOD), Clock::system());
        for offset in [0, 1, 4999] {
            tokio::time::advance(Duration::from_millis(offset)).await;
            recent.insert(token(1), offset, clock.instant());
            assert_eq!(recent.get(&token(1), clock.instant()), Some((offset, true)));
            tokio::time::advance(PERIOD - Duration::from_millis(1)).await;
            assert!(recent.has(&token(1), clock.instant()), "{offset}");
            tokio::time::advance(PERIOD + Duration::from_millis(1)).await;
            assert!(!recent.has(&token(1), clock.instant()), "{offset}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_pause_forgets_all_at_once() {
        let (recent, clock) = (Recent::new(PERIOD), Clock::system());
        recent.insert(token(1), (), clock.instant());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(!recent.has(&token(1), clock.instant()));
    }

    #[tokio::test(start_paused = true)]
    async fn many_tokens_take_bounded_memory_and_the_newest_stay() {
        let (recent, clock) = (Recent::new(PERIOD), Clock::system());
        for n in 0..10 * MOST {
            recent.insert(token(n), (), clock.instant());
        }
        let periods = recent.periods.lock();
        assert!(periods.this.len() + periods.last.len() <= 2 * MOST);
        assert!(periods.this.contains_key(&token(10 * MOST - 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_holds_no_more_is_forgotten_at_once() {
        let (recent, clock) = (Recent::new(PERIOD), Clock::system());
        recent.insert(token(1), (), clock.instant());
        recent.forget(&token(1));
        assert!(!recent.has(&token(1), clock.instant()));
    }
}
