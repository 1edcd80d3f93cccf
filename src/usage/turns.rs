//! Turns at the host: so many readings at once, since each holds a page of what it says.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, Kind, Result};

const AT_ONCE: usize = 4;
/// For a turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// The seats.
#[derive(Debug)]
pub(super) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

impl Turns {
    /// One, until it is dropped.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        let closed = |e| Error::own(Kind::Internal, "the seats for figures were closed").because(e);
        let late =
            |_| Error::client(Kind::Unavailable, "too many ask for figures at the moment, please try again later");
        tokio::time::timeout(PATIENCE, self.0.acquire()).await.map_err(late)?.map_err(closed)
    }
}
