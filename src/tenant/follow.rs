//! The VirtualClusters of the host, followed without end: one list, the watch behind it, and again.
//!
//! Promises: whoever keeps what was told before loses nothing by a broken watch, a 410 or a failed list, since the next
//! list says what is there; a server that ends watches at once, or refuses, is asked with growing pauses; the stream may
//! be left waiting and taken up again at any time. Must not know what becomes of the objects.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::Value;
use tokio::time::Instant;

use super::origin::{Events, SharedOrigin};
use crate::error::{Error, Kind, Result};
use crate::kubernetes::WatchEvent;
use crate::names::TenantId;
use crate::runtime::clock::Clock;

/// A watch that lived so long was worth its list: the pauses begin anew.
const STEADY: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// What became known.
#[derive(Debug)]
pub enum Change {
    /// All that are there. What is not among them is gone.
    Listed(Vec<Value>),
    /// One is new or changed.
    Applied(Value),
    /// One is gone.
    Deleted(TenantId),
}

/// All changes from now on; the first is a list.
pub fn changes(origin: SharedOrigin, clock: Clock) -> impl Stream<Item = Change> + Send {
    let follower = Follower { origin, clock, listed: None, watch: None, failures: 0 };
    stream::unfold(follower, |mut follower| async move {
        let change = follower.next().await;
        Some((change, follower))
    })
}

struct Follower {
    origin: SharedOrigin,
    clock: Clock,
    /// Version of a list whose watch has not begun.
    listed: Option<String>,
    watch: Option<(Box<dyn Events>, Instant)>,
    failures: u32,
}

impl Follower {
    async fn next(&mut self) -> Change {
        loop {
            match self.step().await {
                Ok(Some(change)) => return change,
                Ok(None) => {}
                Err(error) => self.pause(&error).await,
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Change>> {
        if let Some((watch, _)) = &mut self.watch {
            let ended = || Error::host(Kind::Gone, "the watch ended");
            return Ok(read(watch.next().await?.ok_or_else(ended)?));
        }
        if let Some(version) = self.listed.take() {
            let watch = self.origin.watch(&version).await?;
            self.watch = Some((watch, self.clock.instant()));
            return Ok(None);
        }
        let (items, version) = self.origin.list().await?;
        self.listed = Some(version);
        Ok(Some(Change::Listed(items)))
    }

    /// Whatever ended the watch, the next thing is a list.
    async fn pause(&mut self, error: &Error) {
        self.listed = None;
        let lived = self.watch.take().map(|(_, since)| self.clock.instant().saturating_duration_since(since));
        if lived.is_some_and(|lived| lived >= STEADY) {
            self.failures = 0;
        }
        let wait = FIRST_PAUSE.saturating_mul(1 << self.failures.min(7)).min(LONGEST_PAUSE);
        self.failures += 1;
        if error.kind() == Kind::Gone {
            tracing::debug!(%error, "VirtualClusters are listed anew");
        } else {
            tracing::warn!(%error, retry_in = ?wait, "VirtualClusters cannot be followed");
        }
        tokio::time::sleep(self.clock.jitter(wait)).await;
    }
}

fn read(event: WatchEvent) -> Option<Change> {
    match event {
        WatchEvent::Applied(bytes) => parse(&bytes).map(Change::Applied),
        WatchEvent::Deleted(bytes) => TenantId::of(&parse(&bytes)?).map(Change::Deleted),
        WatchEvent::Bookmark { .. } => None,
    }
}

/// One malformed object must not end a watch.
fn parse(bytes: &Bytes) -> Option<Value> {
    serde_json::from_slice(bytes)
        .inspect_err(|error| tracing::warn!(%error, "a watch event of a VirtualCluster cannot be read"))
        .ok()
}
