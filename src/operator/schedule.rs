//! Which cluster (or whatever else has a key) is worked on when: one round of each at a time, a bounded number at once. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use crate::names::TenantId;

/// Never reached: there is always something due before.
const IDLE: Duration = Duration::from_secs(3600);

/// Due times and running rounds.
#[derive(Debug)]
pub(crate) struct Schedule<K = TenantId> {
    entries: HashMap<K, Entry>,
    running: usize,
    collect: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    due: Instant,
    attempt: u32,
    running: bool,
    /// News came while a round ran on the old state.
    again: bool,
    forgotten: bool,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self { entries: HashMap::new(), running: 0, collect: None }
    }
}

impl<K: Clone + Eq + Hash> Schedule<K> {
    /// Due at once, whatever was planned; the pauses start over.
    pub(crate) fn now(&mut self, id: &K, now: Instant) {
        self.at(id, now);
    }

    /// The same for a later time, unless something is due before.
    pub(crate) fn at(&mut self, id: &K, due: Instant) {
        let entry = self.entries.entry(id.clone()).or_insert(Entry {
            due,
            attempt: 0,
            running: false,
            again: false,
            forgotten: false,
        });
        let is_planned = !entry.running || entry.again;
        entry.due = if is_planned { entry.due.min(due) } else { due };
        entry.attempt = 0;
        entry.again = entry.running;
        entry.forgotten = false;
    }

    /// No further rounds. One that runs is still counted until it ends.
    pub(crate) fn forget(&mut self, id: &K) {
        match self.entries.get_mut(id) {
            Some(entry) if entry.running => entry.forgotten = true,
            Some(_) => {
                self.entries.remove(id);
            }
            None => {}
        }
    }

    /// Marks the longest-due cluster as running, when a worker is free.
    pub(crate) fn start(&mut self, workers: usize, now: Instant) -> Option<(K, u32)> {
        if self.running >= workers {
            return None;
        }
        let (id, entry) =
            self.entries.iter_mut().filter(|(_, e)| !e.running && e.due <= now).min_by_key(|(_, e)| e.due)?;
        entry.running = true;
        entry.again = false;
        let attempt = entry.attempt;
        entry.attempt = attempt.saturating_add(1);
        self.running += 1;
        Some((id.clone(), attempt))
    }

    /// A round has ended; the next is due at `due`, or at once when news came meanwhile.
    pub(crate) fn finished(&mut self, id: &K, due: Instant) {
        self.running = self.running.saturating_sub(1);
        let Some(entry) = self.entries.get_mut(id) else { return };
        if entry.forgotten {
            self.entries.remove(id);
            return;
        }
        entry.running = false;
        if !entry.again {
            entry.due = due;
        }
    }

    /// Puts off what is due before.
    pub(crate) fn not_before(&mut self, id: &K, earliest: Instant) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.due = entry.due.max(earliest);
        }
    }

    /// When to wake: the earliest due cluster (if a worker is free) or collection (if one can begin).
    pub(crate) fn next(&self, workers: usize, can_collect: bool, now: Instant) -> Instant {
        let cluster = self.entries.values().filter(|e| !e.running).map(|e| e.due).min();
        let cluster = cluster.filter(|_| self.running < workers);
        let collect = self.collect.filter(|_| can_collect);
        cluster.into_iter().chain(collect).min().unwrap_or(now + IDLE)
    }

    /// Plans a collection, unless one is planned earlier.
    pub(crate) fn collect_at(&mut self, at: Instant) {
        self.collect = Some(self.collect.map_or(at, |planned| planned.min(at)));
    }

    /// Whether a collection is due; the next is planned.
    pub(crate) fn take_collection(&mut self, now: Instant, every: Duration) -> bool {
        let due = self.collect.is_none_or(|at| at <= now);
        if due {
            self.collect = Some(now + every);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> TenantId {
        TenantId::parse("ns", name).expect("id")
    }

    #[tokio::test(start_paused = true)]
    async fn one_round_at_a_time_and_news_are_not_lost() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.now(&id("a"), now);
        assert_eq!(schedule.start(2, now), Some((id("a"), 0)));
        assert_eq!(schedule.start(2, now), None);
        schedule.now(&id("a"), now);
        assert_eq!(schedule.start(2, now), None, "still running");
        schedule.finished(&id("a"), now + Duration::from_secs(60));
        assert_eq!(schedule.start(2, now), Some((id("a"), 0)), "news came meanwhile");
        schedule.finished(&id("a"), now + Duration::from_secs(60));
        assert_eq!(schedule.start(2, now), None);
        assert_eq!(schedule.next(2, true, now), now + Duration::from_secs(60));
        assert_eq!(schedule.start(2, now + Duration::from_secs(60)), Some((id("a"), 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_planned_for_later_puts_nothing_off() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut schedule = Schedule::default();
        schedule.at(&id("a"), after(2));
        schedule.at(&id("a"), after(5));
        assert_eq!(schedule.start(2, after(1)), None);
        assert_eq!(schedule.start(2, after(2)), Some((id("a"), 0)));
        schedule.at(&id("a"), after(4));
        schedule.at(&id("a"), after(3));
        schedule.finished(&id("a"), after(60));
        assert_eq!(schedule.next(2, true, after(2)), after(3), "news while it ran");
        for (earliest, due) in [(1, 3), (4, 4)] {
            schedule.not_before(&id("a"), after(earliest));
            assert_eq!(schedule.next(2, true, after(2)), after(due), "put off, never brought forward");
        }
        schedule.not_before(&id("b"), after(4));
        assert_eq!(schedule.entries.len(), 1, "and who is unknown is not due");
    }

    #[tokio::test(start_paused = true)]
    async fn workers_are_bounded_and_forgotten_ones_free_theirs() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        for name in ["a", "b", "c"] {
            schedule.now(&id(name), now);
        }
        let (first, _) = schedule.start(2, now).expect("one");
        schedule.start(2, now).expect("two");
        assert_eq!(schedule.start(2, now), None);
        schedule.collect_at(now);
        assert_eq!(schedule.next(2, true, now), now);
        assert!(schedule.next(2, false, now) > now, "nothing to do until a worker is free and a collection has ended");
        schedule.forget(&first);
        schedule.finished(&first, now);
        assert!(schedule.start(2, now).is_some_and(|(id, _)| id != first));
        assert_eq!(schedule.entries.len(), 2);
    }
}
