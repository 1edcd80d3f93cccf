//! Readiness as guards: what is awaited holds one, dropping it is the report.
//!
//! Promises: a probe neither waits for a check nor for another probe, and asks the checks no more often than [`FRESH`],
//! however many ask; checks that hang are a problem of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::time::Instant;

/// A report this young is shown again, unless a guard has come or gone.
const FRESH: Duration = Duration::from_millis(250);
/// Checks that have not come back for this long are not well.
const HUNG: Duration = Duration::from_secs(10);
/// A report is cut behind this many bytes.
const LONGEST: usize = 16 << 10;

/// A condition that may come and go; says what is wrong, `None` while all is well.
type Check = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What a person should know although all is well.
type Notes = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// What the process waits for before it wants requests. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    last: ArcSwapOption<Last>,
    /// Held by whoever asks the checks.
    asking: Mutex<()>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Changes with everything else here.
    version: u64,
    awaited: BTreeMap<u64, (&'static str, String)>,
    reached: Vec<&'static str>,
    checks: Vec<(&'static str, Check)>,
    notes: Vec<Notes>,
}

/// What the checks said last.
struct Last {
    at: Instant,
    version: u64,
    report: Arc<Report>,
}

/// All conditions at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// Nothing is awaited and no check complains.
    pub(super) is_ready: bool,
    /// One line for each condition and note.
    pub(super) lines: String,
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
        let mut state = self.changed();
        let id = state.next;
        state.next += 1;
        state.awaited.insert(id, (name, reason.into()));
        Awaited { id, name, readiness: self.clone() }
    }

    /// Adds a condition that is asked at probes; it should not block.
    pub fn check(&self, name: &'static str, check: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.changed().checks.push((name, Arc::new(check)));
    }

    /// Adds lines for `/readyz?verbose` that say nothing of readiness; should not block.
    pub fn note(&self, notes: impl Fn() -> Vec<String> + Send + Sync + 'static) {
        self.changed().notes.push(Arc::new(notes));
    }

    /// Every known condition and its problem, if any.
    pub(super) fn report(&self) -> Arc<Report> {
        let version = self.0.state.lock().version;
        let now = Instant::now();
        let last = self.0.last.load_full();
        if let Some(last) = &last
            && last.version == version
            && now.saturating_duration_since(last.at) < FRESH
        {
            return Arc::clone(&last.report);
        }
        if let Some(_asking) = self.0.asking.try_lock() {
            let report = Arc::new(self.ask());
            self.0.last.store(Some(Arc::new(Last { at: now, version, report: Arc::clone(&report) })));
            return report;
        }
        match last {
            Some(last) if now.saturating_duration_since(last.at) < HUNG => Arc::clone(&last.report),
            _ => Arc::new(Report { is_ready: false, lines: "[-]checks do not come back\n".to_owned() }),
        }
    }

    fn ask(&self) -> Report {
        let (mut conditions, checks, notes) = {
            let state = self.0.state.lock();
            let reached = state.reached.iter().map(|name| (*name, None));
            let awaited = state.awaited.values().map(|(name, reason)| (*name, Some(reason.clone())));
            (reached.chain(awaited).collect::<Vec<_>>(), state.checks.clone(), state.notes.clone())
        };
        conditions.extend(checks.into_iter().map(|(name, check)| (name, check())));
        let is_ready = conditions.iter().all(|(_, problem)| problem.is_none());
        let conditions = conditions.into_iter().map(|(name, problem)| match problem {
            None => format!("[+]{name} ok\n"),
            Some(problem) => format!("[-]{name} {problem}\n"),
        });
        let notes = notes.iter().flat_map(|notes| notes()).map(|note| format!("    {note}\n"));
        let mut lines = String::new();
        for line in conditions.chain(notes) {
            if lines.len() + line.len() > LONGEST {
                lines.push_str("    and more\n");
                break;
            }
            lines.push_str(&line);
        }
        Report { is_ready, lines }
    }

    fn changed(&self) -> parking_lot::MutexGuard<'_, State> {
        let mut state = self.0.state.lock();
        state.version += 1;
        state
    }
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Readiness").field(&self.report()).finish()
    }
}

impl Awaited {
    /// Changes the reason shown.
    pub fn because(&self, reason: impl Into<String>) {
        if let Some((_, shown)) = self.readiness.changed().awaited.get_mut(&self.id) {
            *shown = reason.into();
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut state = self.readiness.changed();
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
