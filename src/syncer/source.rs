//! One watch of one kind in one place, kept alive by the driver, and what is particular to the syncer: rights, stores, swaps.
//!
//! Promises: the feed sees a complete list before it counts as synced; a 410, an overdue list or a newly accepted store
//! leads to a fresh list, and only the known store's lists reach the feed; a kind that may not be read is off until it may.
//! Must not know what objects mean.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::follow::{Bounds, Event, Followed, Follower};
use crate::kubernetes::rights::Access;
use crate::kubernetes::{ListOptions, Resource};
use crate::runtime::clock::Clock;
use crate::runtime::task;
use crate::syncer::cache::SourceState;
use crate::syncer::guard;
use crate::syncer::incoming::{Incoming, bare, key_of};
use crate::syncer::kind::ObjectKey;
use crate::syncer::store::StoreGuard;

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
    /// What is known of an object.
    fn known(&self, key: &ObjectKey) -> Option<Incoming>;
    /// Takes room for an object of a list under way, beyond what is kept of it already: how much. None: there is not so
    /// much. [`Feed::unlist`] gives it back.
    fn list(&self, key: &ObjectKey, bytes: usize) -> Option<usize>;
    /// The list that took so much is over.
    fn unlist(&self, bytes: usize);
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

/// What the driver does not know of a source.
#[derive(Default)]
struct Progress {
    /// The list under way.
    list: Option<List>,
    /// Events up to here were delivered.
    version: u64,
    /// Which acceptance of a store is known.
    epoch: u64,
    /// The kind rests, and it was said.
    is_off: bool,
}

/// A list under way: what it takes is its tenant's, like what is known, and given back whatever becomes of it.
struct List {
    objects: BTreeMap<ObjectKey, Listed>,
    feed: Arc<dyn Feed>,
    bytes: usize,
}

impl List {
    fn new(feed: &Arc<dyn Feed>) -> Self {
        Self { objects: BTreeMap::new(), feed: Arc::clone(feed), bytes: 0 }
    }

    /// One that finds no room is cut. It is looked at when the list is whole: until then it takes no more than it will.
    fn add(&mut self, incoming: Incoming) {
        let incoming = match self.feed.list(&incoming.key, incoming.entry.size()) {
            Some(bytes) => {
                self.bytes += bytes;
                Incoming { value: Value::Null, ..incoming }
            }
            None => incoming.cut(),
        };
        self.objects.insert(incoming.key.clone(), Listed::Read(incoming));
    }
}

impl Drop for List {
    fn drop(&mut self) {
        self.feed.unlist(self.bytes);
    }
}

/// An object of a list.
enum Listed {
    Read(Incoming),
    /// It is there, and its kind cannot read it.
    Unreadable,
}

/// An event's object.
enum Parsed {
    Read(Incoming),
    /// The object as it came.
    Unreadable(Value),
}

/// First pause after a panic.
const AGAIN: Duration = Duration::from_secs(1);
const FORBIDDEN_RETRY: Duration = Duration::from_secs(30);
/// A server that restarts is away for a moment.
const PATIENCE: Duration = Duration::from_secs(3);

impl Source {
    /// Runs until dropped. Should it panic, it begins with a fresh list.
    pub async fn run(self) {
        let clock = self.clock.clone();
        let source = tokio::sync::Mutex::new(self);
        let source = &source;
        task::repeat("sync-source", &clock, AGAIN, || async move {
            source.lock().await.follow().await;
            Ok(())
        })
        .await;
    }

    async fn follow(&mut self) {
        let mut follower = Follower::new(self.plan(), self.clock.clone());
        let mut progress = Progress::default();
        let mut cluster = (self.cluster)();
        loop {
            if !self.access.read(&self.resource) {
                self.await_right().await;
                follower.relist();
            }
            let event = tokio::select! {
                biased;
                Ok(()) = self.swapped.changed() => {
                    follower.reopen();
                    continue;
                }
                () = self.access.until_read(&self.resource, false) => continue,
                event = follower.next(&*cluster) => event,
            };
            if matches!(event, Event::Opens) {
                self.swapped.mark_unchanged();
                cluster = (self.cluster)();
            }
            if let Err(error) = self.take(event, &cluster, &mut follower, &mut progress).await {
                self.failed(&error, &mut follower, &mut progress);
            }
        }
    }

    fn plan(&self) -> Followed {
        Followed {
            owner: self.owner.clone(),
            resource: self.resource,
            namespace: self.namespace.clone(),
            options: self.options.clone(),
            streams: true,
            resumes: true,
            relist_after: self.relist_after,
            patience: PATIENCE,
            bounds: Bounds::default(),
        }
    }

    /// Until the kind may be read, it rests or is made up; no request is tried in vain.
    async fn await_right(&mut self) {
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

    async fn take(
        &self,
        event: Event,
        cluster: &SharedCluster,
        follower: &mut Follower,
        progress: &mut Progress,
    ) -> Result<()> {
        match event {
            Event::Opens => {
                let doubts = self.doubts(cluster, follower, progress).await;
                return doubts.inspect_err(|error| follower.reject(error));
            }
            Event::Lists => progress.list = Some(List::new(&self.feed)),
            Event::Applied(bytes) => {
                let Some(parsed) = self.parse(&bytes) else { return Ok(()) };
                match (&mut progress.list, parsed) {
                    (Some(list), Parsed::Read(incoming)) => list.add(incoming),
                    (Some(list), Parsed::Unreadable(object)) => {
                        list.objects.insert(key_of(&object), Listed::Unreadable);
                    }
                    (None, Parsed::Read(incoming)) => {
                        advance(follower, progress, incoming.entry.version);
                        self.feed.applied(incoming);
                    }
                    // What is known stays, until there is a state that can be read.
                    (None, Parsed::Unreadable(_)) => {}
                }
            }
            Event::Deleted(bytes) => {
                let Some(parsed) = self.parse(&bytes) else { return Ok(()) };
                let incoming = match parsed {
                    Parsed::Read(incoming) => incoming,
                    Parsed::Unreadable(object) => bare(&object),
                };
                match &mut progress.list {
                    Some(list) => {
                        list.objects.remove(&incoming.key);
                    }
                    None => {
                        advance(follower, progress, incoming.entry.version);
                        self.feed.deleted(incoming);
                    }
                }
            }
            Event::Listed(version) => {
                let mut list = progress.list.take().unwrap_or_else(|| List::new(&self.feed));
                // A list replaces all that is known: the server may have come back with another store since it was asked.
                if let Some(store) = &self.store {
                    store.check(&**cluster, &self.clock).await.inspect_err(|error| follower.reject(error))?;
                }
                progress.version = version.parse().unwrap_or(0);
                progress.is_off = false;
                let objects = std::mem::take(&mut list.objects);
                // What it took is what is kept of it from now on.
                drop(list);
                let objects = objects.into_iter().filter_map(|(key, listed)| match listed {
                    Listed::Read(incoming) => Some(incoming),
                    // Left out, it would be taken for gone.
                    Listed::Unreadable => self.feed.known(&key),
                });
                self.feed.replaced(objects.collect(), progress.version);
                self.feed.state(SourceState::Synced);
            }
            Event::Watches => {}
            Event::Bookmark(version) => {
                progress.version = version.parse().unwrap_or(0);
                self.feed.delivered(progress.version);
            }
            Event::Broken(error) => {
                progress.list = None;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether the server has the store that is known. One that was accepted since is listed anew.
    async fn doubts(&self, cluster: &SharedCluster, follower: &mut Follower, progress: &mut Progress) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        store.until_believed().await;
        store.check_recent(&**cluster, &self.clock).await?;
        if store.epoch() != progress.epoch {
            progress.epoch = store.epoch();
            follower.relist();
        }
        Ok(())
    }

    /// A kind that is not there, or may not be read, rests.
    fn failed(&self, error: &Error, follower: &mut Follower, progress: &mut Progress) {
        if !matches!(error.kind(), Kind::Forbidden | Kind::NotFound | Kind::MethodNotAllowed) {
            return;
        }
        if !std::mem::replace(&mut progress.is_off, true) {
            tracing::warn!(owner = %self.owner, kind = self.resource.kind, %error, "cannot be read; the kind rests");
        }
        self.feed.state(SourceState::Off);
        follower.relist();
        follower.rest(FORBIDDEN_RETRY);
    }

    /// One malformed object must not end a watch, nor one that its kind panics over.
    fn parse(&self, bytes: &Bytes) -> Option<Parsed> {
        let object: Value = match serde_json::from_slice(bytes) {
            Ok(object) => self.resource.complete(object),
            Err(error) => {
                tracing::warn!(owner = %self.owner, kind = self.resource.kind, %error, "an event cannot be parsed");
                return None;
            }
        };
        let again = || self.resource.complete(serde_json::from_slice(bytes).unwrap_or_default());
        let name = || guard::name(&again());
        let read = guard::caught("reading it", self.resource.kind, name, || self.feed.pack(object));
        Some(read.map_or_else(|| Parsed::Unreadable(again()), Parsed::Read))
    }
}

/// Versions only grow, whatever order the server's events have.
fn advance(follower: &mut Follower, progress: &mut Progress, version: u64) {
    if version > progress.version {
        progress.version = version;
        follower.reached(&version.to_string());
    }
}
