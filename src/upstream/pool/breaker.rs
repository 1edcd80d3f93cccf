//! A server that does not answer is not asked by everybody: after some failures in a row only one request now and then finds
//! out whether it is back, and the others are told so at once instead of waiting with what they hold.
//!
//! Promises: one success lets all pass again; nothing is locked while all is well. Time is the caller's, and so is what counts
//! as a failure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Failures in a row, without any success, after which it opens.
const FAILURES: u32 = 5;
/// How long nobody is let through at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Of one server.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Whether there is anything to look up or to forget.
    stirred: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Open: nobody passes before this.
    opens_at: Option<Instant>,
    pause: Duration,
}

/// The right to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// As everybody.
    Closed,
    /// As the one who finds out.
    Probe,
}

impl Breaker {
    /// None: it does not answer, and it is not yet time to ask again.
    pub(super) fn pass(&self, now: Instant) -> Option<Pass> {
        if !self.stirred.load(Ordering::Acquire) {
            return Some(Pass::Closed);
        }
        let mut state = self.state.lock();
        match state.opens_at {
            None => Some(Pass::Closed),
            Some(at) if now < at => None,
            Some(_) => {
                // While this one asks, however long it waits, others ask no more often than this.
                state.opens_at = Some(now + state.pause);
                Some(Pass::Probe)
            }
        }
    }

    /// Whether it does not answer, as far as is known: who asks finds out before the next pause would be over, and when
    /// nobody does, nobody knows.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.stirred.load(Ordering::Acquire) && self.state.lock().opens_at.is_some_and(|at| now < at + LONGEST_PAUSE)
    }

    /// It answered, whatever it said.
    pub(super) fn succeeded(&self) {
        if self.stirred.load(Ordering::Acquire) {
            let mut state = self.state.lock();
            *state = State::default();
            self.stirred.store(false, Ordering::Release);
        }
    }

    /// It did not. Who asked before it opened says nothing new.
    pub(super) fn failed(&self, pass: Pass, now: Instant) {
        let mut state = self.state.lock();
        self.stirred.store(true, Ordering::Release);
        match (state.opens_at, pass) {
            (Some(_), Pass::Closed) => {}
            (Some(_), Pass::Probe) => {
                state.pause = (state.pause * 2).min(LONGEST_PAUSE);
                state.opens_at = Some(now + state.pause);
            }
            (None, _) => {
                state.failures += 1;
                if state.failures >= FAILURES {
                    state.pause = FIRST_PAUSE;
                    state.opens_at = Some(now + FIRST_PAUSE);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::default();
        for _ in 0..FAILURES {
            assert!(breaker.pass(now) == Some(Pass::Closed) && !breaker.is_open(now));
            breaker.failed(Pass::Closed, now);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_at_a_time_finds_out() {
        let now = Instant::now();
        let breaker = opened(now);
        assert!(breaker.pass(now).is_none() && breaker.is_open(now));
        let mut at = now + FIRST_PAUSE;
        let mut pause = FIRST_PAUSE;
        for _ in 0..8 {
            assert_eq!(breaker.pass(at), Some(Pass::Probe));
            assert_eq!(breaker.pass(at), None, "one asks");
            breaker.failed(Pass::Closed, at);
            breaker.failed(Pass::Probe, at);
            pause = (pause * 2).min(LONGEST_PAUSE);
            assert_eq!(breaker.pass(at + pause - Duration::from_millis(1)), None);
            at += pause;
        }
        assert_eq!(pause, LONGEST_PAUSE);
        breaker.succeeded();
        assert!(breaker.pass(at) == Some(Pass::Closed) && !breaker.is_open(at));
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..20 {
            breaker.failed(Pass::Closed, now);
            breaker.failed(Pass::Closed, now);
            breaker.succeeded();
        }
        assert!(breaker.pass(now) == Some(Pass::Closed) && !breaker.is_open(now));
    }

    #[test]
    fn whether_one_that_nobody_asks_is_away_is_not_known() {
        let now = Instant::now();
        let breaker = opened(now);
        let known = now + FIRST_PAUSE + LONGEST_PAUSE;
        assert!(breaker.is_open(known - Duration::from_millis(1)) && !breaker.is_open(known));
        assert_eq!(breaker.pass(known), Some(Pass::Probe), "who asks then finds out");
        assert!(breaker.is_open(known));
        breaker.failed(Pass::Probe, known);
        assert!(breaker.is_open(known + LONGEST_PAUSE) && !breaker.is_open(known + 2 * LONGEST_PAUSE));
    }

    #[test]
    fn a_probe_that_hangs_keeps_nobody_from_asking_later() {
        let now = Instant::now();
        let breaker = opened(now);
        assert_eq!(breaker.pass(now + FIRST_PAUSE), Some(Pass::Probe));
        assert_eq!(breaker.pass(now + 2 * FIRST_PAUSE), Some(Pass::Probe));
    }
}
