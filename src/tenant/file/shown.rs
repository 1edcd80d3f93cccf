//! What is told of the list: how many are served by it, and whether the last change counted.

use parking_lot::Mutex;

use crate::runtime::telemetry::{Families, Source};

/// How it stands.
#[derive(Debug, Default)]
pub(super) struct Shown(Mutex<Standing>);

#[derive(Debug, Default)]
struct Standing {
    served: usize,
    applied: u64,
    refused: u64,
    /// Why the change that is there does not count.
    complaint: Option<String>,
    waits: bool,
}

impl Shown {
    pub(super) fn serves(&self, number: usize) {
        self.0.lock().served = number;
    }

    /// A change counts.
    pub(super) fn applied(&self) {
        let mut standing = self.0.lock();
        standing.applied += 1;
        standing.complaint = None;
    }

    /// There is no change (any more).
    pub(super) fn as_before(&self) {
        self.0.lock().complaint = None;
    }

    /// A change does not count; whether that is new.
    pub(super) fn refused(&self, why: &str) -> bool {
        let mut standing = self.0.lock();
        if standing.complaint.as_deref() == Some(why) {
            return false;
        }
        standing.refused += 1;
        standing.complaint = Some(why.to_owned());
        true
    }

    /// Whether other settings differ from those that the process runs by; whether that is new.
    pub(super) fn waits_for_restart(&self, waits: bool) -> bool {
        let before = std::mem::replace(&mut self.0.lock().waits, waits);
        waits && !before
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let standing = self.0.lock();
        let mut notes = vec![format!("virtualClusters: {} served", standing.served)];
        let refused = |why| format!("virtualClusters: a change is refused, what was before stays in force: {why}");
        notes.extend(standing.complaint.as_deref().map(refused));
        let waits = "settings beside virtualClusters have changed: they count with the next start";
        notes.extend(standing.waits.then(|| waits.to_owned()));
        notes
    }
}

impl Source for Shown {
    fn collect(&self, families: &mut Families) {
        let standing = self.0.lock();
        for (outcome, number) in [("applied", standing.applied), ("refused", standing.refused)] {
            families.counter(
                "portico_configuration_changes_total",
                "Changes of the list virtualClusters in the configuration file, or of the files that it names.",
                &[("outcome", outcome)],
                number,
            );
        }
        families.gauge(
            "portico_configuration_in_force",
            "1 while what the configuration file lists is what is served; 0 while a change is refused.",
            &[],
            f64::from(u8::from(standing.complaint.is_none())),
        );
    }
}

/// All that it ever shows.
#[cfg(test)]
pub(crate) fn example() -> std::sync::Arc<dyn Source> {
    std::sync::Arc::new(Shown::default())
}
