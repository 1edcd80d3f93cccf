//! How often something may be done: so many times a second in the long run, and so many at one moment.
//!
//! Promises: one instant is all that is kept, whatever the rate; another rate counts from the next time on. Time is the
//! caller's.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// When the next time would come if they came evenly (the theoretical arrival time of ATM's generic cell rate algorithm).
#[derive(Debug, Default)]
pub struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// So many a second in the long run, and so many at one moment; `Err` says how much too early it is.
    pub fn pass(&self, per_second: u32, burst: u32, now: Instant) -> Result<(), Duration> {
        let interval = interval(per_second);
        let mut due = self.0.lock();
        let next = due.map_or(now, |due| due.max(now));
        let early = (next - now).saturating_sub(interval.saturating_mul(burst.saturating_sub(1)));
        if !early.is_zero() {
            return Err(early);
        }
        *due = Some(next + interval);
        Ok(())
    }

    /// What passed counts as so many more. The caller bounds it: so much later the next one passes.
    pub fn draw(&self, per_second: u32, more: u32, now: Instant) {
        if more == 0 {
            return;
        }
        let mut due = self.0.lock();
        let next = due.map_or(now, |due| due.max(now));
        *due = next.checked_add(interval(per_second).saturating_mul(more)).or(Some(next));
    }
}

fn interval(per_second: u32) -> Duration {
    Duration::from_secs(1) / per_second.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(pace: &Pace, per_second: u32, burst: u32, now: Instant) -> usize {
        (0..50).filter(|_| pace.pass(per_second, burst, now).is_ok()).count()
    }

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let (pace, began) = (Pace::default(), Instant::now());
        assert_eq!(passes(&pace, 10, 20, began), 20);
        assert_eq!(pace.pass(10, 20, began), Err(Duration::from_millis(100)), "it says when to come again");
        let second = began + Duration::from_secs(1);
        assert_eq!(passes(&pace, 10, 20, second), 10);
        assert_eq!(passes(&pace, 10, 20, second + Duration::from_secs(3600)), 20, "and no more is saved");
    }

    #[test]
    fn what_is_drawn_passes_no_more() {
        let (pace, began) = (Pace::default(), Instant::now());
        pace.draw(10, 0, began);
        pace.draw(10, 5, began);
        assert_eq!(passes(&pace, 10, 20, began), 15);
        pace.draw(10, 10, began);
        assert_eq!(passes(&pace, 10, 20, began + Duration::from_secs(1)), 0);
        assert_eq!(passes(&pace, 10, 20, began + Duration::from_secs(2)), 10);
    }

    #[test]
    fn another_rate_counts_from_the_next_time_on() {
        let (pace, began) = (Pace::default(), Instant::now());
        assert_eq!(passes(&pace, 10, 20, began), 20);
        assert_eq!(passes(&pace, 10, 25, began), 5, "the wider burst has room at once");
        assert_eq!(
            passes(&pace, 1, 2, began + Duration::from_millis(1500)),
            1,
            "the tighter one when what passed is over"
        );
    }

    #[test]
    fn nothing_is_too_large_or_too_small() {
        let (pace, now) = (Pace::default(), Instant::now());
        assert_eq!(passes(&pace, 0, 0, now), 1, "as one");
        assert_eq!(passes(&pace, u32::MAX, u32::MAX, now + Duration::from_secs(2)), 50);
    }
}
