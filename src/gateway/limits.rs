//! How much one tenant may do at once: ordinary requests and long-running ones apart, as in the API server.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::GatewayConfig;
use crate::error::{Error, Kind, Result};

/// Seats of one tenant, kept over its generations.
#[derive(Debug)]
pub(super) struct Limits {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
    sizes: (usize, usize),
}

impl Limits {
    pub(super) fn new(config: &GatewayConfig) -> Self {
        let bounded = |count: usize| count.min(Semaphore::MAX_PERMITS);
        let sizes = (bounded(config.max_requests_per_tenant), bounded(config.max_long_running_per_tenant));
        Self { short: Arc::new(Semaphore::new(sizes.0)), long: Arc::new(Semaphore::new(sizes.1)), sizes }
    }

    /// Seats taken now: ordinary requests, long-running ones.
    pub(super) fn in_use(&self) -> (usize, usize) {
        (self.sizes.0 - self.short.available_permits(), self.sizes.1 - self.long.available_permits())
    }

    /// A seat until the answer's last byte, or 429: waiting here would only hide the overload from the client.
    pub(super) fn admit(&self, long_running: bool) -> Result<OwnedSemaphorePermit> {
        let (seats, what) = if long_running { (&self.long, "watches and streams") } else { (&self.short, "requests") };
        Arc::clone(seats).try_acquire_owned().map_err(|_| {
            Error::client(
                Kind::TooManyRequests,
                format!("this cluster has too many {what} in flight, please try again later"),
            )
        })
    }
}
