//! One watch of one kind in one place, kept alive: list (streamed when the server can), watch, reconnect, list again.
//!
//! Promises: the feed sees a complete list before it counts as synced; a 410, an overdue list or a newly accepted store
//! leads to a fresh list, and only the known store's lists reach the feed; a kind that may not be read is off until it may.
//! Must not know what objects mean.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::api::{Events, SharedCluster};
use crate::kubernetes::rights::Access;
use crate::kubernetes::{ListOptions, Resource, WatchEvent};
use crate::runtime::clock::Clock;
use crate::syncer::cache::{Entry, SourceState};
use crate::syncer::kind::ObjectKey;
use crate::syncer::store::StoreGuard;

/// An object on its way from the wire into a cache.
#[derive(Debug)]
pub struct Incoming {
    /// Namespace and name on its own side.
    pub key: ObjectKey,
    /// What is stored.
    pub entry: Entry,
    /// Projected object; None when the feed does not need it beyond the entry.
    pub value: Value,
}

/// Where a source's objects go.
pub trait Feed: Send + Sync + 'static {
    /// Projects and packs.
    fn pack(&self, object: Value) -> Incoming;
    /// ADDED or MODIFIED.
    fn applied(&self, incoming: Incoming);
    /// DELETED.
    fn deleted(&self, incoming: Incoming);
    /// Everything up to here was delivered.
    fn delivered(&self, version: u64);
    /// A whole list.
    fn replaced(&self, list: Vec<Incoming>, version: u64);
    /// Whether its objects are known.
    fn state(&self, state: SourceState);
}

/// Stands in for a source whose kind may not be read.
pub trait StandIn: Send + Sync + 'static {
    /// The kind may not be read: objects are made up from now on.
    fn begin(&self);
    /// It may: the real ones follow.
    fn end(&self);
}

/// One source.
pub struct Source {
    /// What is watched.
    pub resource: Resource,
    /// Where; None for cluster-scoped kinds or all namespaces.
    pub namespace: Option<String>,
    /// Selector.
    pub options: ListOptions,
    /// Objects go here.
    pub feed: Arc<dyn Feed>,
    /// The client of now; asked at every connect, since a tenant's may be swapped.
    pub cluster: Box<dyn Fn() -> SharedCluster + Send + Sync>,
    /// Wakes when the client was swapped: the watch goes on over the new one.
    pub swapped: tokio::sync::watch::Receiver<u64>,
    /// Whether the kind may be read there.
    pub access: Access,
    /// What there is while it may not; None: the kind rests.
    pub stand_in: Option<Arc<dyn StandIn>>,
    /// Whether the server has the store that is known; None for the host.
    pub store: Option<Arc<StoreGuard>>,
    /// Time and jitter.
    pub clock: Clock,
    /// A list older than this is made again, in case an event was lost.
    pub relist_after: Duration,
    /// For logs.
    pub owner: String,
}

#[derive(Default)]
struct Progress {
    version: Option<String>,
    listed_at: Option<Instant>,
    epoch: u64,
    streams_lists: bool,
}

/// A watch that says nothing for so long is dead: bookmarks come every minute, and servers end watches within ten.
const SILENCE: Duration = Duration::from_secs(720);
const FORBIDDEN_RETRY: Duration = Duration::from_secs(30);
const LONGEST_BACKOFF: Duration = Duration::from_secs(20);

impl Source {
    /// Runs until dropped.
    pub async fn run(mut self) {
        let mut progress = Progress { streams_lists: true, ..Progress::default() };
        let mut failures = 0_u32;
        let mut off = false;
        loop {
            self.await_right(&mut progress).await;
            let began = self.clock.instant();
            let outcome = self.follow(&mut progress).await;
            let wait = match outcome {
                Ok(()) => {
                    failures = 0;
                    off = false;
                    // A server that ends watches at once must not make us spin.
                    if began.elapsed() < Duration::from_secs(1) { Duration::from_secs(1) } else { Duration::ZERO }
                }
                Err(error) => {
                    if progress.listed_at.is_some_and(|at| at >= began) {
                        failures = 0;
                        off = false;
                    }
                    failures += 1;
                    self.judge(&error, &mut progress, &mut off, failures)
                }
            };
            if !wait.is_zero() {
                tokio::time::sleep(self.clock.jitter(wait)).await;
            }
            if let Some(store) = &self.store {
                store.until_believed().await;
            }
        }
    }

    /// Until the kind may be read, it rests or is made up; no request is tried in vain.
    async fn await_right(&mut self, progress: &mut Progress) {
        if self.access.read(&self.resource) {
            return;
        }
        progress.version = None;
        match &self.stand_in {
            Some(stand_in) => stand_in.begin(),
            None => self.feed.state(SourceState::Off),
        }
        self.access.until_read(&self.resource, true).await;
        tracing::info!(owner = %self.owner, kind = self.resource.kind, "may be read now");
        if let Some(stand_in) = &self.stand_in {
            stand_in.end();
        }
    }

    /// What an error means for the next try: how long to wait.
    fn judge(&self, error: &Error, progress: &mut Progress, off: &mut bool, failures: u32) -> Duration {
        match error.kind() {
            Kind::Gone => {
                progress.version = None;
                Duration::from_millis(100)
            }
            Kind::Forbidden | Kind::NotFound | Kind::MethodNotAllowed => {
                if !*off {
                    tracing::warn!(owner = %self.owner, kind = self.resource.kind, %error, "cannot be read; the kind rests");
                }
                *off = true;
                progress.version = None;
                self.feed.state(SourceState::Off);
                FORBIDDEN_RETRY
            }
            _ => {
                if failures == 3 {
                    tracing::warn!(owner = %self.owner, kind = self.resource.kind, %error, "watch keeps failing");
                }
                let wait = Duration::from_millis(200).saturating_mul(1 << (failures - 1).min(7)).min(LONGEST_BACKOFF);
                wait.max(Duration::from_secs(u64::from(error.retry_after().unwrap_or(0)).min(60)))
            }
        }
    }

    /// Lists if need be, then follows one watch to its end.
    async fn follow(&mut self, progress: &mut Progress) -> Result<()> {
        let cluster = (self.cluster)();
        self.swapped.mark_unchanged();
        if let Some(store) = &self.store {
            store.check_recent(&*cluster, &self.clock).await?;
            if store.epoch() != progress.epoch {
                progress.epoch = store.epoch();
                progress.version = None;
            }
        }
        let due = self.clock.jitter(self.relist_after);
        if progress.listed_at.is_none_or(|at| at.elapsed() > due) {
            progress.version = None;
        }
        let mut events = match progress.version.clone() {
            Some(version) => self.watch(&cluster, &version).await?,
            None => self.list(&cluster, progress).await?,
        };
        let relist = progress.listed_at.map_or(due, |at| due.saturating_sub(at.elapsed()));
        let relist = tokio::time::sleep(relist);
        tokio::pin!(relist);
        loop {
            let event = tokio::select! {
                biased;
                _ = self.swapped.changed() => return Ok(()),
                () = self.access.until_read(&self.resource, false) => return Ok(()),
                () = &mut relist => return Ok(()),
                event = tokio::time::timeout(SILENCE, events.next()) => event,
            };
            match event {
                Err(_) => return Err(Error::own(Kind::Timeout, "the watch said nothing for too long")),
                Ok(Ok(None)) => return Ok(()),
                Ok(Ok(Some(event))) => self.deliver(event, progress),
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    async fn watch(&self, cluster: &SharedCluster, version: &str) -> Result<Box<dyn Events>> {
        cluster.watch(&self.resource, self.namespace.as_deref(), &self.options, Some(version)).await
    }

    fn deliver(&self, event: WatchEvent, progress: &mut Progress) {
        match event {
            WatchEvent::Applied(bytes) => {
                if let Some(incoming) = self.parse(&bytes) {
                    advance(progress, incoming.entry.version);
                    self.feed.applied(incoming);
                }
            }
            WatchEvent::Deleted(bytes) => {
                if let Some(incoming) = self.parse(&bytes) {
                    advance(progress, incoming.entry.version);
                    self.feed.deleted(incoming);
                }
            }
            WatchEvent::Bookmark { resource_version, .. } => {
                self.feed.delivered(resource_version.parse().unwrap_or(0));
                progress.version = Some(resource_version);
            }
        }
    }

    /// One malformed object must not end a watch.
    fn parse(&self, bytes: &Bytes) -> Option<Incoming> {
        match serde_json::from_slice(bytes) {
            Ok(object) => Some(self.feed.pack(object)),
            Err(error) => {
                tracing::warn!(owner = %self.owner, kind = self.resource.kind, %error, "an event cannot be parsed");
                None
            }
        }
    }

    /// The whole list into the feed; returns the watch that goes on from it.
    async fn list(&self, cluster: &SharedCluster, progress: &mut Progress) -> Result<Box<dyn Events>> {
        if progress.streams_lists {
            match self.stream_list(cluster, progress).await {
                Err(error) if matches!(error.kind(), Kind::Invalid | Kind::BadRequest | Kind::Internal) => {
                    progress.streams_lists = false;
                }
                other => return other,
            }
        }
        let (items, version) = cluster.list(&self.resource, self.namespace.as_deref(), &self.options).await?;
        let list = items.into_iter().map(|object| self.feed.pack(object)).collect();
        self.confirm(cluster).await?;
        self.listed(list, version.clone(), progress);
        self.watch(cluster, &version).await
    }

    async fn stream_list(&self, cluster: &SharedCluster, progress: &mut Progress) -> Result<Box<dyn Events>> {
        let mut events = cluster.watch(&self.resource, self.namespace.as_deref(), &self.options, None).await?;
        let mut list = std::collections::BTreeMap::new();
        loop {
            let event = tokio::time::timeout(Duration::from_secs(60), events.next()).await;
            let event = event.map_err(|_| Error::own(Kind::Timeout, "the list stands still"))??;
            match event {
                Some(WatchEvent::Applied(bytes)) => {
                    if let Some(incoming) = self.parse(&bytes) {
                        list.insert(incoming.key.clone(), incoming);
                    }
                }
                Some(WatchEvent::Deleted(bytes)) => {
                    if let Some(incoming) = self.parse(&bytes) {
                        list.remove(&incoming.key);
                    }
                }
                Some(WatchEvent::Bookmark { resource_version, initial_events_end: true }) => {
                    self.confirm(cluster).await?;
                    self.listed(list.into_values().collect(), resource_version, progress);
                    return Ok(events);
                }
                Some(WatchEvent::Bookmark { .. }) => {}
                None => return Err(Error::new(Side::Own, Kind::Closed, "the list ended early")),
            }
        }
    }

    /// A list replaces all that is known: the server may have come back with another store since it was asked last.
    async fn confirm(&self, cluster: &SharedCluster) -> Result<()> {
        match &self.store {
            Some(store) => store.check(&**cluster, &self.clock).await,
            None => Ok(()),
        }
    }

    fn listed(&self, list: Vec<Incoming>, version: String, progress: &mut Progress) {
        self.feed.replaced(list, version.parse().unwrap_or(0));
        progress.version = Some(version);
        progress.listed_at = Some(self.clock.instant());
        self.feed.state(SourceState::Synced);
    }
}

/// Objects of the initial part of a streamed list come in no order; afterwards versions only grow.
fn advance(progress: &mut Progress, version: u64) {
    let known = progress.version.as_deref().and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
    if version > known {
        progress.version = Some(version.to_string());
    }
}
