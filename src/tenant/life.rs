//! The life of one virtual cluster: which of its generations is the newest, and that it is gone.
//!
//! Promises: one life for each identity (uid), however many generations it has; a cluster that is made again under the
//! same name has another; nobody else's changes wake who follows it; once it is over it stays over. Must not know tenants.

use parking_lot::Mutex;
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Newest(u64),
    Gone,
}

/// A tenant's part of it. Begins when the registry takes the tenant in.
#[derive(Debug, Default)]
pub struct Life(Mutex<Option<watch::Receiver<Stage>>>);

/// Follows a life.
#[derive(Debug, Clone)]
pub struct Follower {
    stage: watch::Receiver<Stage>,
    /// The generation that this follower knows.
    known: u64,
}

/// Tells a life. Dropped, the life is over.
#[derive(Debug)]
pub(super) struct Teller(watch::Sender<Stage>);

impl Life {
    /// Follows it from `generation` on. What was never taken in is as good as gone.
    pub fn follow(&self, generation: u64) -> Follower {
        let stage = self.0.lock().clone().unwrap_or_else(|| watch::Sender::new(Stage::Gone).subscribe());
        Follower { stage, known: generation }
    }
}

impl Follower {
    /// Resolves when the cluster is gone, however many generations come before that.
    pub async fn is_gone(&mut self) {
        while self.next_generation().await.is_some() {}
    }

    /// The newest generation, when it is not the known one any more: those between may be left out. `None`: gone.
    pub async fn next_generation(&mut self) -> Option<u64> {
        let known = self.known;
        let stage = *self.stage.wait_for(|stage| *stage != Stage::Newest(known)).await.ok()?;
        match stage {
            Stage::Newest(generation) => {
                self.known = generation;
                Some(generation)
            }
            Stage::Gone => None,
        }
    }
}

impl Teller {
    pub(super) fn new(generation: u64) -> Self {
        Self(watch::Sender::new(Stage::Newest(generation)))
    }

    /// From now on this tenant's life is the one that is told here.
    pub(super) fn adopt(&self, life: &Life) {
        *life.0.lock() = Some(self.0.subscribe());
    }

    pub(super) fn newest(&self, generation: u64) {
        self.0.send_replace(Stage::Newest(generation));
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.send_replace(Stage::Gone);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn generations_are_told_once_each_and_the_end_for_good() {
        let teller = Teller::new(1);
        let life = Life::default();
        assert_eq!(life.follow(1).is_gone().now_or_never(), Some(()), "as good as gone before it begins");
        teller.adopt(&life);
        let (mut follower, mut late) = (life.follow(1), life.follow(1));
        assert_eq!(follower.next_generation().now_or_never(), None, "nothing new");
        teller.newest(2);
        assert_eq!(follower.next_generation().now_or_never(), Some(Some(2)));
        assert_eq!(follower.next_generation().now_or_never(), None, "told already");
        teller.newest(3);
        assert_eq!(late.next_generation().now_or_never(), Some(Some(3)), "what is between may be left out");
        assert_eq!(late.is_gone().now_or_never(), None);
        drop(teller);
        assert_eq!(follower.next_generation().now_or_never(), Some(None));
        assert_eq!(late.is_gone().now_or_never(), Some(()));
        assert_eq!(life.follow(3).is_gone().now_or_never(), Some(()));
    }
}
