//! The keys that one tenant's API server publishes for its tokens, asked for when somebody shows one.
//!
//! Promises: asked once for all who wait, in a task of its own that nobody's leaving ends, and not again for ten seconds
//! whatever came of it; what is known is used on while the API server is away. A tenant at which nobody shows a token costs
//! nothing. Must not know tokens.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::gateway::buffer::Share;
use crate::gateway::identity::{Keys, LONGEST_DOCUMENT};
use crate::runtime::clock::Clock;
use crate::runtime::task::{self, Task};
use crate::runtime::telemetry::Families;
use crate::tenant::Tenant;

/// How often keys are asked for at most.
pub(super) const PAUSE: Duration = Duration::from_secs(10);
/// For both documents.
const DEADLINE: Duration = Duration::from_secs(3);
const CONFIGURATION: &str = "/.well-known/openid-configuration";
const SET: &str = "/openid/v1/jwks";
/// An API server refuses to show the set as anything else (406), `application/json` included.
const KEY_SET: &str = "application/jwk-set+json";

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Published {
    known: watch::Sender<Known>,
    flight: Mutex<Flight>,
}

/// Keys as they were published.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) keys: Keys,
    /// Of the tenant that was asked.
    pub(super) generation: u64,
    pub(super) since: Instant,
    /// Grows when they are others.
    pub(super) version: u64,
}

/// Somebody who waits for them.
#[derive(Debug)]
pub(crate) struct Asked {
    known: watch::Receiver<Known>,
    number: u64,
}

#[derive(Debug, Default)]
struct Known {
    held: Option<Arc<Held>>,
    /// The last flight that ended.
    answered: u64,
    read: u64,
    failed: u64,
}

#[derive(Debug, Default)]
struct Flight {
    number: u64,
    begun: Option<Instant>,
    task: Option<Task>,
}

impl Published {
    /// What is known now.
    pub(super) fn held(&self) -> Option<Arc<Held>> {
        self.known.borrow().held.clone()
    }

    /// Which keys those are.
    pub(super) fn version(&self) -> u64 {
        self.known.borrow().held.as_ref().map_or(0, |held| held.version)
    }

    /// Begins to ask, or joins who does. `None`: that was a moment ago.
    pub(super) fn ask(&self, tenant: &Arc<Tenant>, buffers: &Arc<Share>, clock: &Clock) -> Option<Asked> {
        let mut flight = self.flight.lock();
        let now = clock.instant();
        if flight.task.as_ref().is_none_or(Task::is_finished) {
            if flight.begun.is_some_and(|begun| now.saturating_duration_since(begun) < PAUSE) {
                return None;
            }
            flight.number += 1;
            flight.begun = Some(now);
            let (tenant, buffers) = (Arc::clone(tenant), Arc::clone(buffers));
            let asking = ask(self.known.clone(), flight.number, tenant, buffers, clock.clone());
            flight.task = Some(task::spawn("token keys", asking));
        }
        Some(Asked { known: self.known.subscribe(), number: flight.number })
    }

    /// As if they had been asked for.
    #[cfg(test)]
    pub(super) fn hold(&self, keys: Keys, generation: u64, now: Instant) {
        self.known.send_modify(|known| known.hold(keys, generation, now));
    }

    pub(super) fn collect(&self, families: &mut Families, tenant: &[(&'static str, &str)]) {
        let (read, failed) = {
            let known = self.known.borrow();
            (known.read, known.failed)
        };
        for (outcome, count) in [("read", read), ("failed", failed)] {
            families.counter(
                "portico_gateway_token_keys_total",
                "How often an API server was asked for the keys of its tokens.",
                &[tenant, &[("outcome", outcome)]].concat(),
                count,
            );
        }
    }
}

impl Known {
    fn hold(&mut self, keys: Keys, generation: u64, since: Instant) {
        let version = match &self.held {
            Some(held) if held.keys.is_same(&keys) => held.version,
            Some(held) => held.version + 1,
            None => 1,
        };
        self.held = Some(Arc::new(Held { keys, generation, since, version }));
    }
}

impl Asked {
    /// Waits for the answer, or for the end of its time.
    pub(crate) async fn answered(mut self) {
        let Self { known, number } = &mut self;
        let answered = known.wait_for(|known| known.answered >= *number);
        // The task has the same deadline and says so itself; a panic of it does not.
        drop(tokio::time::timeout(DEADLINE + Duration::from_secs(1), answered).await);
    }
}

async fn ask(known: watch::Sender<Known>, number: u64, tenant: Arc<Tenant>, buffers: Arc<Share>, clock: Clock) {
    let late = |_| Err(Error::backend(Kind::Timeout, "the keys of its tokens did not come in time"));
    let reading = task::caught(read(&tenant, &buffers));
    let read = tokio::time::timeout(DEADLINE, reading).await.unwrap_or_else(late);
    let (since, generation) = (clock.instant(), tenant.generation);
    known.send_modify(|known| {
        known.answered = number;
        match read {
            Ok(keys) => {
                known.read += 1;
                known.hold(keys, generation, since);
            }
            Err(error) => {
                known.failed += 1;
                tracing::debug!(tenant = %tenant.id, %error, "the keys of its tokens cannot be read");
            }
        }
    });
}

async fn read(tenant: &Tenant, buffers: &Arc<Share>) -> Result<Keys> {
    let _drawn = buffers.draw(2 * LONGEST_DOCUMENT)?;
    let configuration = tenant.api.get_bounded(CONFIGURATION, DEADLINE, LONGEST_DOCUMENT).await?;
    let set = tenant.api.get_as(SET, KEY_SET, DEADLINE, LONGEST_DOCUMENT).await?;
    Keys::read(&configuration, &set)
}
