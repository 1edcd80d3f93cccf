//! The one list-watch driver: all objects of a kind in a place, listed in pages or as a stream, then watched, without end.
//!
//! Promises: a list is whole before it counts, and counts only when whoever reads it has taken it; an event counts as
//! taken when the next one is asked for, so that whoever fails over one gets it again; what a watch cannot tell (410, too
//! long ago) is listed anew; a server that fails, or ends watches at once, is asked with growing pauses. Nothing is held
//! but one page, and each wait has an end. [`Follower::next`] may be dropped and called again. Must not know what objects
//! mean: who reads them says which version was reached, or leaves that to bookmarks and lists.

pub mod objects;
mod pause;
mod plan;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use self::pause::Pauses;
pub use self::plan::{Bounds, Followed};
use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::api::{Cluster, Events};
use crate::kubernetes::{PageOf, WatchEvent};
use crate::runtime::clock::Clock;

/// A watch that says nothing for so long is dead: bookmarks come every minute, and servers end watches within ten.
const SILENCE: Duration = Duration::from_secs(720);
/// Longest wait for the beginning of an answer, whatever the cluster promises.
const ANSWER: Duration = Duration::from_secs(120);
/// A streamed list that stands still for so long is no list.
const STILL: Duration = Duration::from_secs(60);
/// Objects of a page after one was too large: at etcd's limit of 1.5 MiB each they fit.
const SMALL_PAGE: usize = 5;

/// What became known.
#[derive(Debug)]
pub enum Event {
    /// A list or watch is about to be opened: time to doubt the server ([`Follower::reject`]) or what is known
    /// ([`Follower::relist`]).
    Opens,
    /// A list begins: what is applied until [`Event::Listed`] is all that there is. One that began before has no end.
    Lists,
    /// An object is there.
    Applied(Bytes),
    /// An object is gone; this is what it was.
    Deleted(Bytes),
    /// The list of this version is whole; what it did not show is gone. With the next call it counts, unless it is rejected.
    Listed(String),
    /// A watch is open: whatever changes is told from now on.
    Watches,
    /// Everything up to this version was told.
    Bookmark(String),
    /// Something failed, or a watch ended from which none goes on. The next call waits before it tries again.
    Broken(Error),
}

/// The driver. It holds the position, so whoever may fail keeps it outside of what fails.
pub struct Follower {
    followed: Followed,
    clock: Clock,
    stage: Stage,
    /// Where a watch can go on.
    version: Option<String>,
    /// When the next list is due; None before the first one counts.
    due: Option<Instant>,
    pauses: Pauses,
    streams: bool,
    page: usize,
    /// A continue token expired under a slow reader: the next list is asked for whole, as client-go does.
    is_whole: bool,
}

enum Stage {
    Closed,
    /// Whoever reads was asked for doubts.
    Opening,
    Streaming {
        events: Box<dyn Events>,
        shown: usize,
    },
    Paging(Paging),
    /// A list is whole and not taken yet; a streamed one goes on as a watch.
    Whole {
        version: String,
        events: Option<Box<dyn Events>>,
    },
    Watching {
        events: Box<dyn Events>,
        since: Instant,
    },
}

#[derive(Default)]
struct Paging {
    items: VecDeque<Bytes>,
    token: String,
    /// Of the list, once its last page is here.
    version: Option<String>,
    shown: usize,
}

impl Follower {
    /// Knows nothing: the first thing is a list.
    pub fn new(followed: Followed, clock: Clock) -> Self {
        Self {
            stage: Stage::Closed,
            version: None,
            due: None,
            pauses: Pauses::default(),
            streams: followed.streams,
            page: followed.bounds.page,
            is_whole: false,
            followed,
            clock,
        }
    }

    /// What is next, from the server of now.
    pub async fn next(&mut self, cluster: &dyn Cluster) -> Event {
        loop {
            self.pauses.wait().await;
            match self.step(cluster).await {
                Ok(Some(event)) => return event,
                Ok(None) => {}
                Err(error) => {
                    self.reject(&error);
                    return Event::Broken(error);
                }
            }
        }
    }

    /// Everything up to this version was taken. Of no effect within a list, whose objects come in no order.
    pub fn reached(&mut self, version: &str) {
        if matches!(self.stage, Stage::Watching { .. }) && !version.is_empty() {
            self.version = Some(version.to_owned());
        }
    }

    /// The connection is given up: a list under way begins again, a watch goes on where it was.
    pub fn reopen(&mut self) {
        // What is about to open need not be told twice.
        if !matches!(self.stage, Stage::Opening) {
            self.stage = Stage::Closed;
        }
    }

    /// What is known is no good any more: the next thing is a list.
    pub fn relist(&mut self) {
        self.reopen();
        self.version = None;
    }

    /// What is under way does not count, for this reason: a pause, then again.
    pub fn reject(&mut self, error: &Error) {
        let lived = self.close();
        if error.kind() == Kind::Gone || !self.followed.resumes {
            self.version = None;
        }
        let pause = self.pauses.failed(&self.clock, lived, error);
        self.pauses.tell(&self.clock, &self.followed, error, pause);
    }

    /// Nothing is tried before this time has passed.
    pub fn rest(&mut self, pause: Duration) {
        self.stage = Stage::Closed;
        self.pauses.rest(&self.clock, pause);
    }

    async fn step(&mut self, cluster: &dyn Cluster) -> Result<Option<Event>> {
        match &self.stage {
            Stage::Closed => {
                self.stage = Stage::Opening;
                Ok(Some(Event::Opens))
            }
            Stage::Opening => self.open(cluster).await,
            Stage::Streaming { .. } => self.stream().await,
            Stage::Paging(_) => self.page(cluster).await,
            Stage::Whole { .. } => {
                self.take();
                Ok(matches!(self.stage, Stage::Watching { .. }).then_some(Event::Watches))
            }
            Stage::Watching { .. } => self.watch().await,
        }
    }

    async fn open(&mut self, cluster: &dyn Cluster) -> Result<Option<Event>> {
        if self.due.is_none_or(|due| due <= self.clock.instant()) {
            self.version = None;
        }
        let Followed { resource, namespace, options, .. } = &self.followed;
        if let Some(version) = &self.version {
            let events = answered(cluster.watch(resource, namespace.as_deref(), options, Some(version))).await?;
            self.stage = Stage::Watching { events, since: self.clock.instant() };
            return Ok(Some(Event::Watches));
        }
        if self.streams {
            match answered(cluster.watch(resource, namespace.as_deref(), options, None)).await {
                Ok(events) => {
                    self.stage = Stage::Streaming { events, shown: 0 };
                    return Ok(Some(Event::Lists));
                }
                Err(error) if matches!(error.kind(), Kind::Invalid | Kind::BadRequest | Kind::Internal) => {
                    self.streams = false;
                }
                Err(error) => return Err(error),
            }
        }
        self.stage = Stage::Paging(Paging::default());
        Ok(Some(Event::Lists))
    }

    /// One event of a streamed list.
    async fn stream(&mut self) -> Result<Option<Event>> {
        let Stage::Streaming { events, shown } = &mut self.stage else { return Ok(None) };
        let Ok(event) = timeout(STILL, events.next()).await else {
            // Perhaps the server passes over what it does not know, and watches from now on.
            self.streams = false;
            return Err(Error::new(Side::Own, Kind::Timeout, "the list stands still"));
        };
        match event? {
            Some(WatchEvent::Applied(object)) => {
                *shown += 1;
                self.followed.bounds.check(*shown)?;
                Ok(Some(Event::Applied(object)))
            }
            Some(WatchEvent::Deleted(object)) => Ok(Some(Event::Deleted(object))),
            Some(WatchEvent::Bookmark { resource_version: version, initial_events_end: true }) => {
                if let Stage::Streaming { events, .. } = std::mem::replace(&mut self.stage, Stage::Closed) {
                    self.stage = Stage::Whole { version: version.clone(), events: Some(events) };
                }
                Ok(Some(Event::Listed(version)))
            }
            Some(WatchEvent::Bookmark { .. }) => Ok(None),
            None => Err(Error::new(Side::Own, Kind::Closed, "the list ended early")),
        }
    }

    /// One object of a page, or the next page.
    async fn page(&mut self, cluster: &dyn Cluster) -> Result<Option<Event>> {
        let Stage::Paging(paging) = &mut self.stage else { return Ok(None) };
        if let Some(object) = paging.items.pop_front() {
            return Ok(Some(Event::Applied(object)));
        }
        if let Some(version) = paging.version.take() {
            self.stage = Stage::Whole { version: version.clone(), events: None };
            return Ok(Some(Event::Listed(version)));
        }
        let Followed { resource, namespace, options, bounds, .. } = &self.followed;
        let (limit, most) = if self.is_whole { (0, bounds.objects) } else { (self.page, self.page) };
        let asked = PageOf { token: &paging.token, limit, most, bytes: bounds.page_bytes };
        let page = match answered(cluster.page(resource, namespace.as_deref(), options, asked)).await {
            Ok(page) => page,
            Err(error) if error.kind() == Kind::TooLarge && (self.is_whole || self.page > SMALL_PAGE) => {
                self.page = SMALL_PAGE;
                let begins_again = std::mem::take(&mut self.is_whole);
                return Ok(begins_again.then_some(Event::Lists));
            }
            Err(error) if error.kind() == Kind::Gone && !paging.token.is_empty() => {
                self.is_whole = true;
                *paging = Paging::default();
                return Ok(Some(Event::Lists));
            }
            Err(error) => return Err(error),
        };
        paging.shown += page.items.len().max(1);
        bounds.check(paging.shown)?;
        if self.is_whole && !page.token.is_empty() {
            self.is_whole = false;
            return Err(Error::new(Side::Own, Kind::Protocol, "a list that was asked for whole came in pages"));
        }
        paging.items = page.items.into();
        paging.version = page.token.is_empty().then_some(page.version);
        paging.token = page.token;
        Ok(None)
    }

    /// The list counts from now on.
    fn take(&mut self) {
        let Stage::Whole { version, events } = std::mem::replace(&mut self.stage, Stage::Opening) else { return };
        let now = self.clock.instant();
        self.version = Some(version);
        self.due = Some(now + self.clock.jitter(self.followed.relist_after));
        self.is_whole = false;
        self.page = self.followed.bounds.page;
        self.pauses.answered(&self.followed);
        if let Some(events) = events {
            self.stage = Stage::Watching { events, since: now };
        }
    }

    /// One event of a watch.
    async fn watch(&mut self) -> Result<Option<Event>> {
        let (Stage::Watching { events, .. }, Some(due)) = (&mut self.stage, self.due) else { return Ok(None) };
        let event = tokio::select! {
            biased;
            () = tokio::time::sleep_until(due) => {
                self.relist();
                return Ok(None);
            }
            event = timeout(SILENCE, events.next()) => event,
        };
        let event =
            event.map_err(|_| Error::new(Side::Own, Kind::Timeout, "the watch said nothing for too long"))??;
        if event.is_some() {
            self.pauses.answered(&self.followed);
        }
        match event {
            Some(WatchEvent::Applied(object)) => Ok(Some(Event::Applied(object))),
            Some(WatchEvent::Deleted(object)) => Ok(Some(Event::Deleted(object))),
            Some(WatchEvent::Bookmark { resource_version, .. }) => {
                self.version = Some(resource_version.clone());
                Ok(Some(Event::Bookmark(resource_version)))
            }
            None => self.ended().map(|()| None),
        }
    }

    /// The server ended the watch in good order.
    fn ended(&mut self) -> Result<()> {
        if !self.followed.resumes {
            return Err(Error::new(Side::Own, Kind::Gone, "the watch ended"));
        }
        let lived = self.close().unwrap_or_default();
        self.pauses.ended(&self.clock, lived);
        Ok(())
    }

    /// How long the watch lived that was closed.
    fn close(&mut self) -> Option<Duration> {
        match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Watching { since, .. } => Some(self.clock.instant().saturating_duration_since(since)),
            _ => None,
        }
    }
}

async fn answered<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Err(Error::new(Side::Own, Kind::Timeout, "a list or watch was not answered in time"));
    timeout(ANSWER, call).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests;
