//! Graceful shutdown as a type: whoever holds a [`Drain`] blocks the end, whoever waits on it learns of it.
//!
//! Three phases: running → draining (finish what runs, take nothing new) → past the deadline (stop at once).

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Held by everything that must finish before the process (or a listener, or a tenant) is gone.
#[derive(Clone, Debug)]
pub struct Drain {
    signal: watch::Receiver<Option<Instant>>,
    _alive: mpsc::Sender<()>,
}

/// Starts the drain and waits for all holders.
#[derive(Debug)]
pub struct DrainTrigger {
    signal: watch::Sender<Option<Instant>>,
    done: mpsc::Receiver<()>,
}

/// Sees the drain without holding it up: for what outlives it, such as probes.
#[derive(Clone, Debug)]
pub struct Watch(watch::Receiver<Option<Instant>>);

impl Watch {
    /// Whether draining has begun.
    pub fn is_draining(&self) -> bool {
        self.0.borrow().is_some()
    }
}

/// A fresh pair.
pub fn channel() -> (DrainTrigger, Drain) {
    let (signal, receiver) = watch::channel(None);
    let (alive, done) = mpsc::channel(1);
    (DrainTrigger { signal, done }, Drain { signal: receiver, _alive: alive })
}

impl DrainTrigger {
    /// Signals every holder and waits until all are dropped or `grace` is over. True when all finished in time.
    pub async fn drain(mut self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        self.signal.send_replace(Some(deadline));
        tokio::time::timeout_at(deadline, self.done.recv()).await.is_ok()
    }

    /// Signals without waiting.
    pub fn start(&self, grace: Duration) {
        self.signal.send_replace(Some(Instant::now() + grace));
    }
}

impl Drain {
    /// Resolves when draining begins (or its trigger is gone); yields the deadline.
    pub async fn signaled(&mut self) -> Instant {
        match self.signal.wait_for(Option::is_some).await {
            Ok(deadline) => deadline.unwrap_or_else(Instant::now),
            Err(_) => Instant::now(),
        }
    }

    /// A view that does not block the end.
    pub fn watch(&self) -> Watch {
        Watch(self.signal.clone())
    }

    /// Whether draining has begun.
    pub fn is_draining(&self) -> bool {
        self.signal.borrow().is_some()
    }

    /// When draining must be over, once it has begun.
    pub fn deadline(&self) -> Option<Instant> {
        *self.signal.borrow()
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
        let task = crate::task::spawn("holder", async move {
            drain.signaled().await;
        });
        assert!(trigger.drain(Duration::from_secs(500)).await);
        task.join().await.expect("joined");
    }
}
