//! Follows the admission rules of one tenant, all kinds in one task.
//!
//! Promises: one list at a time, its page drawn on the tenant's budget before it is asked for, as is each object before it
//! is parsed; a list ends within a deadline; what cannot be read leaves the kind unknown, never without a rule. A watch is
//! never resumed: an API server may come back with another store, which only a list tells. A kind that is not served is
//! asked for again within a minute, and at once when anything fails: an API server that learns a new kind restarts. Must
//! not know who asks, or how long it goes on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::Instant;

use super::known::{KINDS, Known, Objects};
use super::rules::{self, Judge, Part};
use crate::error::{Error, Kind, Result};
use crate::gateway::buffer::{self, Drawn, Share};
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::follow::{Bounds, Event, Followed, Follower};
use crate::kubernetes::{ListOptions, Resource};
use crate::runtime::clock::Clock;
use crate::runtime::yielding;
use crate::tenant::memory::Account;

/// In case an event was lost.
const RELIST: Duration = Duration::from_secs(300);
/// A backend that restarts is away for a while; only longer is worth a warning.
const RESTARTING: Duration = Duration::from_secs(30);
/// Of a whole list.
const LIST_DEADLINE: Duration = Duration::from_secs(10);
/// Until a kind that is not served is asked for again.
const ABSENT: Duration = Duration::from_secs(60);
/// Objects of a page, where they fit in its bytes.
const PAGE: usize = 100;
/// Lists whose objects are so large that five do not fit are left to calls, which read them one by one.
const PAGE_BYTES: usize = 2 << 20;
/// Objects of a list. A list may have no end.
const LONGEST_LIST: usize = 10_000;
/// Reading so many bytes is as much work as making one record of DNS.
const BYTES_PER_WORK: usize = 128;

/// One tenant's rules, followed.
pub(super) struct Following {
    cluster: SharedCluster,
    owner: String,
    account: Arc<Account>,
    buffers: Arc<Share>,
    clock: Clock,
    told: watch::Sender<Known>,
    /// Whose turn it is to list.
    turn: Mutex<()>,
    /// Wakes when anything fails.
    failed: watch::Sender<()>,
}

/// A list under way.
struct Listing<'a> {
    objects: Objects,
    began: Instant,
    _turn: MutexGuard<'a, ()>,
    _drawn: Drawn,
}

impl Following {
    /// And where it is told.
    pub(super) fn new(
        cluster: SharedCluster,
        owner: String,
        account: Arc<Account>,
        buffers: Arc<Share>,
        clock: Clock,
    ) -> (Self, watch::Receiver<Known>) {
        let (told, known) = watch::channel(Known::new(&account));
        let (turn, failed) = (Mutex::default(), watch::Sender::default());
        (Self { cluster, owner, account, buffers, clock, told, turn, failed }, known)
    }

    /// Runs until dropped.
    pub(super) async fn run(self) {
        futures::future::join_all((0..KINDS.len()).map(|at| Box::pin(self.follow(at)))).await;
    }

    async fn follow(&self, at: usize) {
        let (_, versions) = KINDS[at];
        let mut missing = 0;
        for resource in versions.iter().cycle() {
            if self.follow_version(at, resource).await {
                missing = 0;
            }
            missing += 1;
            if missing == versions.len() {
                missing = 0;
                let mut failed = self.failed.subscribe();
                self.told.send_modify(|known| known.absent(at));
                tokio::select! {
                    () = tokio::time::sleep(ABSENT) => {}
                    _ = failed.changed() => {}
                }
            }
        }
    }

    /// Until the kind is not served in this version. Whether it was.
    async fn follow_version(&self, at: usize, resource: &Resource) -> bool {
        let mut follower = Follower::new(self.plan(resource), self.clock.clone());
        let (mut listing, mut was_served) = (None, false);
        loop {
            let event = self.next(&mut follower, listing.as_ref()).await;
            yielding::charge(1).await;
            let is_broken = matches!(event, Event::Broken(_));
            was_served |= matches!(event, Event::Listed(_));
            let Err(error) = self.take(at, event, &mut listing).await else { continue };
            listing = None;
            if is_broken && error.kind() == Kind::NotFound {
                return was_served;
            }
            if !is_broken {
                follower.reject(&error);
            }
            self.told.send_modify(|known| known.fails(at, self.clock.instant()));
            self.failed.send_replace(());
        }
    }

    fn plan(&self, resource: &Resource) -> Followed {
        Followed {
            owner: self.owner.clone(),
            resource: *resource,
            namespace: None,
            options: ListOptions::default(),
            // They are few, and only of a page it is known beforehand how much it takes.
            streams: false,
            resumes: false,
            relist_after: RELIST,
            patience: RESTARTING,
            bounds: Bounds { page: PAGE, page_bytes: PAGE_BYTES, objects: LONGEST_LIST },
        }
    }

    async fn next(&self, follower: &mut Follower, listing: Option<&Listing<'_>>) -> Event {
        let next = follower.next(&*self.cluster);
        let Some(listing) = listing else { return next.await };
        if let Ok(event) = tokio::time::timeout_at(listing.began + LIST_DEADLINE, next).await {
            return event;
        }
        let error = Error::backend(Kind::Timeout, "the admission rules could not be listed in time");
        follower.reject(&error);
        Event::Broken(error)
    }

    async fn take<'a>(&'a self, at: usize, event: Event, listing: &mut Option<Listing<'a>>) -> Result<()> {
        let now = self.clock.instant();
        match event {
            Event::Opens => self.told.send_modify(|known| known.opens(at, now)),
            Event::Lists => {
                // The turn of one that had no end comes first.
                *listing = None;
                *listing = Some(self.begin().await?);
            }
            Event::Applied(json) => {
                let (name, judges) = self.read(KINDS[at].0, &json).await?;
                self.put(at, listing, name, judges)?;
            }
            Event::Deleted(json) => {
                yielding::charge(json.len() / BYTES_PER_WORK).await;
                let name = named(rules::name(&json))?;
                self.change(at, listing, |objects| {
                    objects.remove(&name);
                    true
                });
            }
            Event::Listed(_) => {
                if let Some(Listing { objects, began, .. }) = listing.take() {
                    // It shows what was there then.
                    self.told.send_modify(|known| known.listed(at, objects, began));
                }
            }
            Event::Watches | Event::Bookmark(_) => self.told.send_modify(|known| known.told(at, now)),
            Event::Broken(error) => return Err(error),
        }
        Ok(())
    }

    async fn begin(&self) -> Result<Listing<'_>> {
        let turn = self.turn.lock().await;
        let drawn = self.buffers.draw(PAGE_BYTES)?;
        let began = self.clock.instant();
        Ok(Listing { objects: Objects::new(&self.account), began, _turn: turn, _drawn: drawn })
    }

    async fn read(&self, part: Part, json: &Bytes) -> Result<(String, Vec<Judge>)> {
        yielding::charge(json.len() / BYTES_PER_WORK).await;
        let _drawn = self.buffers.draw(buffer::weight(json))?;
        let (name, judges) = rules::project(part, json).map_err(unreadable)?;
        Ok((named(Ok(name))?, judges))
    }

    fn put(&self, at: usize, listing: &mut Option<Listing<'_>>, name: String, judges: Vec<Judge>) -> Result<()> {
        if self.change(at, listing, |objects| objects.put(name, judges)) {
            return Ok(());
        }
        self.told.send_modify(|known| known.too_much(at));
        Err(Error::backend(Kind::TooLarge, "there are more admission rules for streams than are kept"))
    }

    /// Changes the list under way, or what is known. Whether there was room for it.
    fn change(&self, at: usize, listing: &mut Option<Listing<'_>>, change: impl FnOnce(&mut Objects) -> bool) -> bool {
        if let Some(listing) = listing {
            return change(&mut listing.objects);
        }
        let (mut fits, now) = (false, self.clock.instant());
        self.told.send_modify(|known| {
            fits = change(known.objects(at));
            known.told(at, now);
        });
        fits
    }
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::backend(Kind::Protocol, "an admission rule cannot be read").because(error)
}

/// A name is what an object is kept by.
fn named(name: serde_json::Result<String>) -> Result<String> {
    let name = name.map_err(unreadable)?;
    if name.is_empty() {
        return Err(Error::backend(Kind::Protocol, "an admission rule has no name"));
    }
    Ok(name)
}
