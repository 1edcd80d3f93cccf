//! Named tasks with an owner who joins them. The only place that calls `tokio::spawn`.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;

/// A running task; dropped means aborted, so no task outlives its owner by accident.
#[derive(Debug)]
#[must_use = "a task is aborted when its handle is dropped"]
pub struct Task<T = ()> {
    name: &'static str,
    handle: Option<JoinHandle<T>>,
}

impl<T> Task<T> {
    /// Waits for the end. `None` when the task panicked (logged) or was aborted.
    pub async fn join(mut self) -> Option<T> {
        // Not taken out before it ended: whoever stops waiting here gives the task up, as by dropping it.
        let outcome = self.handle.as_mut()?.await;
        self.handle = None;
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(task = self.name, %error, "task panicked");
                }
                None
            }
        }
    }

    /// Waits for the end, and brings it about after `patience`: what the task holds is given back either way. Whether it ended
    /// by itself.
    pub async fn ended_within(mut self, patience: Duration) -> bool {
        let Some(handle) = self.handle.as_mut() else { return true };
        let is_in_time = tokio::time::timeout(patience, &mut *handle).await.is_ok();
        if !is_in_time {
            handle.abort();
            let _ = handle.await;
        }
        self.handle = None;
        is_in_time
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets the task run to its own end without a joiner. Only for a driver of one connection, which ends with it.
    pub fn ends_by_itself(mut self) {
        self.handle.take();
    }

    /// Lets the task run to its own end without a joiner. Only for work that holds a [`Drain`], whose trigger is the joiner.
    pub fn owned_by_drain(mut self, _drain: &Drain) {
        self.handle.take();
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }
}

/// Spawns a named task.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn spawn<F>(name: &'static str, future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Task { name, handle: Some(tokio::spawn(future)) }
}

/// A panic of `work` as an error of ours, so that it ends nothing but this work. What it said is in the log.
pub async fn caught<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let panicked = |_| Err(Error::own(Kind::Internal, "it panicked"));
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(panicked)
}

/// Runs `work` again and again until it returns `Ok(())` or the drain begins; a panic is a failure like any other. Waits
/// between failures as [`Pauses`] says, beginning with `backoff`.
pub async fn supervise<F, Fut>(name: &'static str, clock: Clock, mut drain: Drain, backoff: Duration, work: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<()>>,
{
    tokio::select! {
        () = repeat(name, &clock, backoff, work) => {}
        _ = drain.signaled() => {}
    }
}

/// As [`supervise`], for work that ends by itself or with its owner.
pub async fn repeat<F, Fut>(name: &'static str, clock: &Clock, backoff: Duration, mut work: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let mut pauses = Pauses::new(clock.clone(), backoff);
    loop {
        pauses.run_begins();
        let Err(error) = caught(work()).await else { return };
        let wait = pauses.run_ended();
        tracing::warn!(task = name, %error, retry_in = ?wait, "task failed");
        tokio::time::sleep(wait).await;
    }
}

/// Waits between failed runs: doubling to 30 s, with jitter, and from the first one again after a run of at least a minute.
#[derive(Debug)]
pub struct Pauses {
    clock: Clock,
    first: Duration,
    next: Duration,
    began: Instant,
}

impl Pauses {
    const LONGEST: Duration = Duration::from_secs(30);
    const GOOD_RUN: Duration = Duration::from_secs(60);

    /// None was made yet.
    pub fn new(clock: Clock, first: Duration) -> Self {
        Self { began: clock.instant(), clock, first, next: first }
    }

    /// A run begins now.
    pub fn run_begins(&mut self) {
        self.began = self.clock.instant();
    }

    /// The run failed: how long to wait.
    pub fn run_ended(&mut self) -> Duration {
        if self.began.elapsed() > Self::GOOD_RUN {
            self.next = self.first;
        }
        let wait = self.clock.jitter(self.next);
        self.next = (self.next * 2).min(Self::LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::runtime::drain;

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_failure_like_any_other() {
        let runs = AtomicUsize::new(0);
        let (_trigger, drain) = drain::channel();
        let work = || async {
            match runs.fetch_add(1, Ordering::SeqCst) {
                0 => panic!("as the test wants it"),
                1 => Err(Error::own(Kind::Internal, "as the test wants it")),
                _ => Ok(()),
            }
        };
        supervise("test", Clock::system(), drain, Duration::from_secs(1), work).await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }
}
