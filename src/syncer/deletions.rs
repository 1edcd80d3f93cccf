//! What is known of deletions on the host that nobody asked for, and how many of them are too many to be repair.
//!
//! What follows from it, [`mass_deletion`](super::mass_deletion) knows.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::SyncerConfig;
use crate::syncer::kind::ObjectKey;

/// What holds data or runs: never made again as it was.
const IRREPLACEABLE: [&str; 2] = ["Pod", "PersistentVolumeClaim"];
/// Of the others so many, and nearly all, are for a person too.
const WHOLE_NUMBER: usize = 50;
const WHOLE_SHARE: usize = 80;

/// So long after its versions went back every object that a tenant misses is suspect.
const REWOUND: Duration = Duration::from_secs(900);

/// What is known of a tenant's deletions, by kind.
pub struct Deletions {
    pub(super) kinds: Vec<Mutex<Standing>>,
    pub(super) wake: Notify,
    /// When its API server's versions went back although the store is the same: it was restored from a backup.
    pub(super) rewound: Mutex<Option<Instant>>,
}

#[derive(Default)]
pub(super) struct Standing {
    pub(super) counted: Option<(Instant, Count)>,
    /// Copies whose origin is there and whose plan is to delete them all the same, with the time of the last such plan.
    pub(super) unwanted: HashMap<ObjectKey, Instant>,
    pub(super) state: State,
}

#[derive(Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Free,
    /// To be read a second time.
    Suspect,
    /// A person must decide.
    Waiting,
    /// These may go until then.
    Cleared(HashSet<ObjectKey>, Instant),
}

/// Copies of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Whose origin is missing without anybody having asked for its end.
    pub(super) missing: usize,
    pub(super) all: usize,
}

impl Count {
    /// Too many to be repair.
    pub(super) fn is_mass(self, config: &SyncerConfig, rewound: bool) -> bool {
        let (number, share) = if rewound { (1, 0) } else { (config.mass_deletion_number, config.mass_deletion_share) };
        self.missing >= number.max(1) && self.missing * 100 >= self.all * usize::from(share)
    }

    /// Too many for a second reading alone.
    pub(super) fn wants_a_person(self, kind: &str) -> bool {
        IRREPLACEABLE.contains(&kind) || (self.missing >= WHOLE_NUMBER && self.missing * 100 >= self.all * WHOLE_SHARE)
    }
}

impl Deletions {
    /// Nothing suspected.
    pub fn new(kinds: usize) -> Self {
        let kinds = (0..kinds).map(|_| Mutex::default()).collect();
        Self { kinds, wake: Notify::new(), rewound: Mutex::default() }
    }

    /// The tenant's API server lists an older state than it has delivered.
    pub fn rewound(&self, now: Instant) {
        *self.rewound.lock() = Some(now);
    }

    pub(super) fn is_rewound(&self, now: Instant) -> bool {
        self.rewound.lock().is_some_and(|at| now.duration_since(at) < REWOUND)
    }

    pub(super) fn standing(&self, kind: u16) -> &Mutex<Standing> {
        &self.kinds[usize::from(kind)]
    }

    pub(super) fn set(&self, kind: u16, state: State) {
        let mut standing = self.standing(kind).lock();
        standing.counted = None;
        standing.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_repair_and_many_are_not() {
        let config = SyncerConfig::default();
        let mass = |missing, all| Count { missing, all }.is_mass(&config, false);
        assert!(!mass(9, 9) && !mass(10, 100) && mass(10, 30) && mass(300, 300));
        assert!(Count { missing: 1, all: 1000 }.is_mass(&config, true), "restored from a backup: not even one");
    }

    #[test]
    fn what_runs_or_holds_data_is_for_a_person() {
        let count = |missing, all| Count { missing, all };
        assert!(count(10, 20).wants_a_person("Pod") && count(10, 20).wants_a_person("PersistentVolumeClaim"));
        assert!(!count(49, 49).wants_a_person("Service") && count(50, 60).wants_a_person("Service"));
    }
}
