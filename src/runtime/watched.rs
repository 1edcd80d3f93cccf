//! The tasks that a process must have, and how they are.
//!
//! Promises: a task that ends before its time, fails or panics is begun anew, after a growing pause; until it runs again,
//! whoever asks is told which one does not and why; every failure is counted. Must not know what the tasks do.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::runtime::task::{self, Pauses, Task};
use crate::runtime::telemetry::{Families, Source};

/// First pause after a failure.
const BACKOFF: Duration = Duration::from_secs(1);

/// All tasks of one process. Cheap to clone.
#[derive(Clone)]
pub struct Watched {
    clock: Clock,
    tasks: Arc<Mutex<BTreeMap<&'static str, Known>>>,
}

/// What it means when a task does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfDown {
    /// Requests need it: the process is not ready.
    NotReady,
    /// What is served goes on: it is only said.
    Noted,
}

/// What is known of the tasks of one name: one, or one for each tenant.
struct Known {
    if_down: IfDown,
    failures: u64,
    down: usize,
    /// Of the last failure.
    reason: String,
}

/// One task's place, filled by one run after another. Dropped, nothing is expected of it any more.
#[derive(Debug)]
pub struct Duty {
    watched: Watched,
    name: &'static str,
    is_down: AtomicBool,
}

impl Watched {
    /// No task yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, tasks: Arc::default() }
    }

    /// Spawns `work`, which ends by itself when the drain begins; ended before, it is begun anew. What must outlive a run,
    /// such as a socket, is held outside of it.
    pub fn keep<F, Fut>(&self, name: &'static str, if_down: IfDown, drain: &Drain, mut work: F) -> Task
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let (duty, mut drain) = (self.duty(name, if_down), drain.clone());
        let mut pauses = Pauses::new(self.clock.clone(), BACKOFF);
        task::spawn(name, async move {
            while !drain.is_draining() {
                pauses.run_begins();
                let Err(error) = duty.run(&drain, work()).await else { return };
                let wait = pauses.run_ended();
                tracing::error!(task = name, %error, begun_anew_in = ?wait, "a task that must run does not");
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = drain.signaled() => return,
                }
            }
        })
    }

    /// A place for whoever begins runs by himself.
    pub fn duty(&self, name: &'static str, if_down: IfDown) -> Duty {
        let new = || Known { if_down, failures: 0, down: 0, reason: String::new() };
        self.tasks.lock().entry(name).or_insert_with(new);
        Duty { watched: self.clone(), name, is_down: AtomicBool::new(false) }
    }

    /// The tasks that do not run although requests need them.
    pub fn problem(&self) -> Option<String> {
        let down = self.down(IfDown::NotReady);
        (!down.is_empty()).then(|| down.join("; "))
    }

    /// The others that do not run.
    pub fn notes(&self) -> Vec<String> {
        self.down(IfDown::Noted)
    }

    fn down(&self, if_down: IfDown) -> Vec<String> {
        let tasks = self.tasks.lock();
        let down = tasks.iter().filter(|(_, known)| known.down > 0 && known.if_down == if_down);
        down.map(|(name, known)| match known.down {
            1 => format!("task {name:?} does not run: {}", known.reason),
            many => format!("{many} tasks {name:?} do not run: {}", known.reason),
        })
        .collect()
    }
}

impl Duty {
    /// One run. An end before the process (or what `drain` is of) leaves is a failure, and so is a panic.
    pub async fn run(&self, drain: &Drain, work: impl Future<Output = Result<()>>) -> Result<()> {
        self.change(false, |_| ());
        let mut outcome = task::caught(work).await;
        if outcome.is_ok() && !drain.is_leaving() {
            outcome = Err(Error::own(Kind::Internal, "it ended"));
        }
        if let Err(error) = &outcome {
            self.change(true, |known| {
                known.failures += 1;
                error.message().clone_into(&mut known.reason);
            });
        }
        outcome
    }

    fn change(&self, is_down: bool, more: impl FnOnce(&mut Known)) {
        if let Some(known) = self.watched.tasks.lock().get_mut(self.name) {
            let was_down = self.is_down.swap(is_down, Ordering::Relaxed);
            known.down += usize::from(is_down);
            known.down -= usize::from(was_down);
            more(known);
        }
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        self.change(false, |_| ());
    }
}

impl Source for Watched {
    fn collect(&self, families: &mut Families) {
        for (name, known) in &*self.tasks.lock() {
            let help = "Ends of tasks that should run for as long as the process, each begun anew.";
            families.counter("portico_task_failures_total", help, &[("task", name)], known.failures);
            let help = "Tasks that do not run at the moment.";
            families.gauge("portico_tasks_down", help, &[("task", name)], known.down as f64);
        }
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("problem", &self.problem()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::runtime::drain::{self, DrainTrigger};

    /// Fails in three ways, one run after the other, then runs.
    fn troubled(watched: &Watched, if_down: IfDown, drain: &Drain) -> (Task, Arc<AtomicUsize>) {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let ends = drain.clone();
        let task = watched.keep("test", if_down, drain, move || {
            let (run, mut drain) = (counted.fetch_add(1, Ordering::SeqCst), ends.clone());
            async move {
                match run {
                    0 => panic!("as the test wants it"),
                    1 => return Err(Error::own(Kind::Internal, "as the test wants it")),
                    2 => return Ok(()),
                    _ => drain.signaled().await,
                };
                Ok(())
            }
        });
        (task, runs)
    }

    fn watched() -> (Watched, DrainTrigger, Drain) {
        let (trigger, drain) = drain::channel();
        (Watched::new(Clock::system()), trigger, drain)
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_run_is_named_until_he_runs_again() {
        let (watched, trigger, drain) = watched();
        let (task, runs) = troubled(&watched, IfDown::NotReady, &drain);
        let mut seen = Vec::new();
        while runs.load(Ordering::SeqCst) < 4 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if let Some(problem) = watched.problem()
                && seen.last() != Some(&problem)
            {
                seen.push(problem);
            }
        }
        let said = |why| format!("task \"test\" does not run: {why}");
        assert_eq!(seen, ["it panicked", "as the test wants it", "it ended"].map(said));
        assert_eq!(watched.problem(), None);
        assert!(watched.notes().is_empty());
        let mut families = Families::default();
        watched.collect(&mut families);
        assert!(format!("{families:?}").contains("portico_task_failures_total"));
        drop(drain);
        assert!(trigger.drain(Duration::from_secs(5)).await);
        task.join().await.expect("joined");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_expected_of_a_task_that_was_given_up() {
        let (watched, _trigger, drain) = watched();
        let (task, _) = troubled(&watched, IfDown::Noted, &drain);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(watched.notes().len(), 1);
        assert_eq!(watched.problem(), None, "it is only said");
        drop(task);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(watched.notes().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_with_the_process_is_none_before_its_time() {
        let (watched, trigger, drain) = watched();
        let duty = watched.duty("test", IfDown::NotReady);
        let leaving = trigger.leave(Duration::from_secs(5));
        assert!(duty.run(&drain, async { Ok(()) }).await.is_ok());
        assert_eq!(watched.problem(), None);
        drop((drain, duty));
        assert!(leaving.drain(Duration::from_secs(5)).await);
    }
}
