//! Work that one replica does at a time, and the standing for it: both watched.

use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::error::Result;
use crate::kubernetes::election::{self, Candidate, Lock};
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::runtime::task::Task;
use crate::runtime::watched::{IfDown, Watched};

/// Who stands, for what, and what has to be known before.
pub(super) struct Standing<B> {
    pub(super) lock: Lock,
    pub(super) candidate: Candidate,
    pub(super) clock: Clock,
    /// Waited for each time before the standing begins.
    pub(super) before: B,
}

/// Stands until the drain begins; `work` runs whenever this process leads. `name` is of the work.
pub(super) fn stand<B, Waiting, F, Fut>(
    watched: &Watched,
    name: &'static str,
    standing: Standing<B>,
    drain: &Drain,
    work: F,
) -> Task
where
    B: Fn() -> Waiting + Send + Sync + 'static,
    Waiting: Future<Output = ()> + Send + 'static,
    F: Fn(Drain) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let (standing, work, during) = (Arc::new(standing), Arc::new(led(watched, name, work)), drain.clone());
    watched.keep("election", IfDown::Noted, drain, move || {
        let (standing, work, mut drain) = (Arc::clone(&standing), Arc::clone(&work), during.clone());
        async move {
            tokio::select! {
                () = (standing.before)() => {}
                _ = drain.leaving() => return Ok(()),
            }
            let (lock, candidate, clock) = (standing.lock.clone(), standing.candidate.clone(), standing.clock.clone());
            election::run(lock, candidate, clock, drain, move |drain| work(drain)).await
        }
    })
}

/// An election begins work anew that fails; that it did is told here.
fn led<F, Fut>(
    watched: &Watched,
    name: &'static str,
    work: F,
) -> impl Fn(Drain) -> BoxFuture<'static, Result<()>> + Send + Sync + 'static
where
    F: Fn(Drain) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let duty = Arc::new(watched.duty(name, IfDown::Noted));
    move |drain| {
        let (duty, work) = (Arc::clone(&duty), work(drain.clone()));
        Box::pin(async move { duty.run(&drain, work).await })
    }
}
