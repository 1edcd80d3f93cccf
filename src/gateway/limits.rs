//! How much one tenant may do at once and in a second: ordinary requests and long-running ones apart, as in the API server,
//! and none of its users everything.
//!
//! Promises: a user is refused before the last seat is taken, so that another one finds something left; who holds nothing
//! takes no memory. Must not know requests, or how a caller became known.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::counts::Counts;
use crate::crd::GatewayLimits;
use crate::error::status::Status;
use crate::error::{Error, Side};
use crate::runtime::pace::Pace;

/// A user may hold so many times what is free: alone three quarters of all seats, as one of two three sevenths. The
/// dynamic threshold of shared packet buffers (Choudhury and Hahne, 1998).
const OF_THE_FREE: usize = 3;
/// Whoever found no seat may come again then.
const SOON: Duration = Duration::from_secs(1);

/// What one tenant does now, kept over its generations.
#[derive(Debug, Default)]
pub(super) struct Limits {
    requests: Arc<Seats>,
    long_running: Arc<Seats>,
    pace: Pace,
}

/// One seat, given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    user: Arc<[u8]>,
}

/// Why a request got none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// All seats for ordinary requests, or for watches and streams, are taken.
    Tenant { long_running: bool },
    /// This user has as many as he may have beside others.
    User { long_running: bool },
    /// There are too many in a second: the next one may come after so long.
    Pace(Duration),
}

#[derive(Debug, Default)]
struct Seats(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_user: Counts<Arc<[u8]>>,
}

impl Limits {
    /// Seats taken now: ordinary requests, long-running ones.
    pub(super) fn in_use(&self) -> (usize, usize) {
        (self.requests.0.lock().all, self.long_running.0.lock().all)
    }

    /// A seat until the answer's last byte. Waiting for one would only hide the overload from the client.
    pub(super) fn admit(
        &self,
        granted: &GatewayLimits,
        user: &[u8],
        long_running: bool,
        now: Instant,
    ) -> Result<Seat, Refusal> {
        let (seats, size) = if long_running {
            (&self.long_running, granted.long_running)
        } else {
            (&self.requests, granted.requests_in_flight)
        };
        let seat = seats.take(size as usize, user).map_err(|is_user| match is_user {
            true => Refusal::User { long_running },
            false => Refusal::Tenant { long_running },
        })?;
        self.pace.pass(granted.requests_per_second, granted.request_burst, now).map_err(Refusal::Pace)?;
        Ok(seat)
    }
}

impl Refusal {
    /// All that [`Refusal::reason`] says.
    pub(super) const REASONS: [&'static str; 5] =
        ["requests_in_flight", "long_running", "user_requests_in_flight", "user_long_running", "requests_per_second"];

    /// For metrics.
    pub(super) fn reason(self) -> usize {
        match self {
            Self::Tenant { long_running } => usize::from(long_running),
            Self::User { long_running } => 2 + usize::from(long_running),
            Self::Pace(_) => 4,
        }
    }

    /// 429 with the time after which to come again.
    pub(super) fn error(self) -> Error {
        let what = |long_running| if long_running { "watches and streams" } else { "requests" };
        let (message, wait) = match self {
            Self::Tenant { long_running } => {
                (format!("this cluster has too many {} in flight, please try again later", what(long_running)), SOON)
            }
            Self::User { long_running } => {
                let what = what(long_running);
                (
                    format!(
                        "you have too many {what} in flight beside the other users of this cluster, please try again later"
                    ),
                    SOON,
                )
            }
            Self::Pace(wait) => {
                ("this cluster is asked more often than it may be, please try again later".to_owned(), wait)
            }
        };
        too_many(message, wait)
    }
}

/// 429, and when to come again: in whole seconds, of which there is at least one and a minute at most.
pub(super) fn too_many(message: impl Into<String>, wait: Duration) -> Error {
    let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).clamp(1, 60);
    Error::from_status(Side::Client, Status::failure(429, "TooManyRequests", message).retry_after(seconds))
}

impl Seats {
    /// `Err` says whether it is for the user's share.
    fn take(self: &Arc<Self>, size: usize, user: &[u8]) -> Result<Seat, bool> {
        let mut taken = self.0.lock();
        let free = size.saturating_sub(taken.all);
        if free == 0 {
            return Err(false);
        }
        let user = match taken.by_user.entry(user) {
            Some((_, own)) if own >= free.saturating_mul(OF_THE_FREE) => return Err(true),
            Some((user, _)) => Arc::clone(user),
            None => user.into(),
        };
        taken.all += 1;
        taken.by_user.increase(Arc::clone(&user));
        Ok(Seat { seats: Arc::clone(self), user })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock();
        taken.all = taken.all.saturating_sub(1);
        taken.by_user.decrease(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(requests_in_flight: u32, requests_per_second: u32, request_burst: u32) -> GatewayLimits {
        GatewayLimits { connections: 1, requests_per_second, request_burst, requests_in_flight, long_running: 4 }
    }

    fn fill(limits: &Limits, granted: &GatewayLimits, user: &[u8]) -> (Vec<Seat>, Refusal) {
        let mut seats = Vec::new();
        loop {
            match limits.admit(granted, user, false, Instant::now()) {
                Ok(seat) => seats.push(seat),
                Err(refusal) => return (seats, refusal),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_user_takes_all_and_who_comes_next_finds_something_left() {
        let (limits, granted) = (Limits::default(), granted(400, 1_000_000, 1_000_000));
        let (first, refusal) = fill(&limits, &granted, b"first");
        assert_eq!((first.len(), refusal), (300, Refusal::User { long_running: false }));
        let (second, _) = fill(&limits, &granted, b"second");
        assert_eq!(second.len(), 75, "three quarters of what is left");
        let others: Vec<_> = (0_u8..20).map(|n| fill(&limits, &granted, &[n]).0).collect();
        assert!(others[..3].iter().all(|seats| !seats.is_empty()));
        assert_eq!(limits.in_use().0, 400, "none is kept free for nobody");
        assert_eq!(fill(&limits, &granted, b"late").1, Refusal::Tenant { long_running: false });
        drop((first, second, others));
        assert_eq!(limits.in_use(), (0, 0));
        assert!(limits.requests.0.lock().by_user.is_empty(), "who holds nothing takes no memory");
    }

    #[tokio::test(start_paused = true)]
    async fn long_running_ones_have_seats_of_their_own_and_one_seat_is_enough_for_one() {
        let (limits, granted) = (Limits::default(), granted(1, 100, 100));
        let seat = limits.admit(&granted, b"a", false, Instant::now()).expect("a seat");
        assert!(limits.admit(&granted, b"a", false, Instant::now()).is_err());
        assert!(limits.admit(&granted, b"a", true, Instant::now()).is_ok());
        drop(seat);
        assert!(limits.admit(&granted, b"b", false, Instant::now()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_so_many_a_second() {
        let (limits, granted) = (Limits::default(), granted(100, 10, 20));
        let passes = || limits.admit(&granted, b"a", false, Instant::now()).is_ok();
        assert_eq!((0..50).filter(|_| passes()).count(), 20);
        let refusal = limits.admit(&granted, b"a", false, Instant::now()).expect_err("too many");
        assert_eq!((refusal.error().retry_after(), limits.in_use()), (Some(1), (0, 0)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..50).filter(|_| passes()).count(), 10);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!((0..50).filter(|_| passes()).count(), 20, "and no more is saved");
    }
}
