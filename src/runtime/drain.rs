//! Graceful shutdown as a type: whoever holds a [`Drain`] blocks the end, whoever waits on it learns of it.
//!
//! Four phases, in this order and never back: running → leaving (say that we go, hand over what others can do, serve all
//! that still comes) → draining (finish what runs, take nothing new) → past the deadline (stop at once). Who takes
//! requests from outside waits for [`Drain::signaled`], who holds what another replica waits for for [`Drain::leaving`].

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Until then at the latest.
    Leaving(Instant),
    /// To be over by then.
    Draining(Instant),
}

/// Held by everything that must finish before the process (or a listener, or a tenant) is gone.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: watch::Receiver<Phase>,
    _alive: mpsc::Sender<()>,
}

/// Ends the running phase: by [`DrainTrigger::leave`] first, where others must learn of it, or with the drain at once.
#[derive(Debug)]
pub struct DrainTrigger {
    phase: watch::Sender<Phase>,
    done: mpsc::Receiver<()>,
}

/// The trigger of a process that leaves. The drain is all that is left to it.
#[derive(Debug)]
#[must_use = "what leaves must drain"]
pub struct Leaving(DrainTrigger);

/// Sees the phases without holding them up: for what outlives the drain, such as probes.
#[derive(Clone, Debug)]
pub struct Watch(watch::Receiver<Phase>);

impl Watch {
    /// Whether the running phase is over.
    pub fn is_leaving(&self) -> bool {
        *self.0.borrow() != Phase::Running
    }
}

/// A fresh pair.
pub fn channel() -> (DrainTrigger, Drain) {
    let (phase, receiver) = watch::channel(Phase::Running);
    let (alive, done) = mpsc::channel(1);
    (DrainTrigger { phase, done }, Drain { phase: receiver, _alive: alive })
}

impl DrainTrigger {
    /// Begins to leave. The caller drains, `delay` from now at the latest.
    pub fn leave(self, delay: Duration) -> Leaving {
        self.phase.send_replace(Phase::Leaving(Instant::now() + delay));
        Leaving(self)
    }

    /// Signals every holder and waits until all are dropped or `grace` is over. True when all finished in time.
    pub async fn drain(mut self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        self.phase.send_replace(Phase::Draining(deadline));
        tokio::time::timeout_at(deadline, self.done.recv()).await.is_ok()
    }

    /// Signals without waiting.
    pub fn start(&self, grace: Duration) {
        self.phase.send_replace(Phase::Draining(Instant::now() + grace));
    }
}

impl Leaving {
    /// As [`DrainTrigger::drain`].
    pub async fn drain(self, grace: Duration) -> bool {
        self.0.drain(grace).await
    }
}

impl Drain {
    /// Resolves when leaving begins, or draining without it (or the trigger is gone); yields when draining begins at the
    /// latest.
    pub async fn leaving(&mut self) -> Instant {
        match self.phase.wait_for(|phase| *phase != Phase::Running).await.map(|phase| *phase) {
            Ok(Phase::Leaving(until)) => until,
            _ => Instant::now(),
        }
    }

    /// Resolves when draining begins (or its trigger is gone); yields the deadline.
    pub async fn signaled(&mut self) -> Instant {
        match self.phase.wait_for(|phase| matches!(phase, Phase::Draining(_))).await.map(|phase| *phase) {
            Ok(Phase::Draining(deadline)) => deadline,
            _ => Instant::now(),
        }
    }

    /// A view that does not block the end.
    pub fn watch(&self) -> Watch {
        Watch(self.phase.clone())
    }

    /// Whether the running phase is over.
    pub fn is_leaving(&self) -> bool {
        *self.phase.borrow() != Phase::Running
    }

    /// Whether draining has begun.
    pub fn is_draining(&self) -> bool {
        self.deadline().is_some()
    }

    /// When draining must be over, once it has begun.
    pub fn deadline(&self) -> Option<Instant> {
        match *self.phase.borrow() {
            Phase::Draining(deadline) => Some(deadline),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_holder_blocks_the_end_until_the_deadline() {
        let (trigger, drain) = channel();
        let held = drain.clone();
        drop(drain);
        assert!(!trigger.drain(Duration::from_secs(5)).await);
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn holders_that_leave_end_the_drain_at_once() {
        let (trigger, mut drain) = channel();
        let task = crate::runtime::task::spawn("holder", async move {
            drain.signaled().await;
        });
        assert!(trigger.drain(Duration::from_secs(500)).await);
        task.join().await.expect("joined");
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_does_not_drain_yet() {
        let (trigger, mut drain) = channel();
        assert!(!drain.is_leaving());
        let (began, delay) = (Instant::now(), Duration::from_secs(5));
        let leaving = trigger.leave(delay);
        assert!(drain.is_leaving() && drain.watch().is_leaving() && !drain.is_draining());
        assert_eq!(drain.leaving().await, began + delay);
        let mut other = drain.clone();
        assert!(tokio::time::timeout(delay * 9, other.signaled()).await.is_err(), "not by itself");
        drop(other);
        let drained = crate::runtime::task::spawn("drain", leaving.drain(delay));
        assert_eq!(drain.signaled().await, Instant::now() + delay);
        assert!(drain.is_leaving() && drain.is_draining());
        drop(drain);
        assert_eq!(drained.join().await, Some(true));
    }
}
