//! Readiness as guards: what is awaited holds one, dropping it is the report.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// A condition that may come and go; says what is wrong, `None` while all is well.
type Check = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What a person should know although all is well.
type Notes = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// What the process waits for before it wants requests. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    next: u64,
    awaited: BTreeMap<u64, (&'static str, String)>,
    reached: Vec<&'static str>,
    checks: Vec<(&'static str, Check)>,
    notes: Vec<Notes>,
}

/// Held until something is done; dropped, that is ready.
#[must_use = "dropping it means: ready"]
pub struct Awaited {
    id: u64,
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Not ready until the guard is dropped; `reason` is shown meanwhile.
    pub fn await_for(&self, name: &'static str, reason: impl Into<String>) -> Awaited {
        let mut state = self.0.lock();
        let id = state.next;
        state.next += 1;
        state.awaited.insert(id, (name, reason.into()));
        Awaited { id, name, readiness: self.clone() }
    }

    /// Adds a condition that is asked at every probe; it must not block.
    pub fn check(&self, name: &'static str, check: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.0.lock().checks.push((name, Arc::new(check)));
    }

    /// Adds lines for `/readyz?verbose` that say nothing of readiness; must not block.
    pub fn note(&self, notes: impl Fn() -> Vec<String> + Send + Sync + 'static) {
        self.0.lock().notes.push(Arc::new(notes));
    }

    /// The notes of now.
    pub(super) fn notes(&self) -> Vec<String> {
        let notes = self.0.lock().notes.clone();
        notes.into_iter().flat_map(|notes| notes()).collect()
    }

    /// Whether nothing is awaited and no check complains.
    pub fn is_ready(&self) -> bool {
        self.report().iter().all(|(_, problem)| problem.is_none())
    }

    /// Every known condition and its problem, if any.
    pub(super) fn report(&self) -> Vec<(&'static str, Option<String>)> {
        let (mut report, checks) = {
            let state = self.0.lock();
            let reached = state.reached.iter().map(|name| (*name, None));
            let awaited = state.awaited.values().map(|(name, reason)| (*name, Some(reason.clone())));
            (reached.chain(awaited).collect::<Vec<_>>(), state.checks.clone())
        };
        report.extend(checks.into_iter().map(|(name, check)| (name, check())));
        report
    }
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.report()).finish()
    }
}

impl Awaited {
    /// Changes the reason shown.
    pub fn because(&self, reason: impl Into<String>) {
        if let Some((_, shown)) = self.readiness.0.lock().awaited.get_mut(&self.id) {
            *shown = reason.into();
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut state = self.readiness.0.lock();
        state.awaited.remove(&self.id);
        if !state.reached.contains(&self.name) {
            state.reached.push(self.name);
        }
    }
}

impl std::fmt::Debug for Awaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Awaited").field(&self.name).finish()
    }
}
