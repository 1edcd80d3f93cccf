//! CredentialRequests: whoever may make one in a host namespace gets a client certificate of a virtual cluster there, signed by that
//! cluster's client CA.
//!
//! Promises: a request is answered once, and the answer names nobody but whom its spec names; it goes some minutes later. Beside the
//! operator's rounds, with workers of its own: one step of a namespace at a time, so many answers and deletions in each, the namespace
//! that has waited the longest first. However many requests there are in one namespace, only so many are known of it, and no other waits
//! for it. Must not know who may make requests: that is the host's RBAC.

mod answer;
mod known;
mod step;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::kubernetes::follow::{Bounds, Event, Followed, Follower};
use crate::kubernetes::resources::CREDENTIAL_REQUESTS;
use crate::operator::context::Context;
use crate::operator::halt::Retry;
use crate::operator::schedule::Schedule;
use crate::runtime::drain::Drain;
use crate::runtime::task;

use known::{Known, Seen, Stepped};

/// Namespaces worked on at once.
const WORKERS: usize = 4;
/// Between two steps of one namespace.
const SPACING: Duration = Duration::from_secs(1);
/// Longest step; it is given up then, and begun again later.
const LONGEST: Duration = Duration::from_secs(30);
/// In case an event was lost, and for what had no room.
const RELIST: Duration = Duration::from_secs(300);
/// Between two lists for the sake of what had no room before.
const RELIST_FOR_ROOM: Duration = Duration::from_secs(60);
/// Objects and bytes of a page: each has 20 KiB at most, and metadata.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 16 << 20;

/// The watch at work: a list that lasts goes on whatever else happens meanwhile.
type Following = BoxFuture<'static, (Follower, Event)>;
/// A step that runs: of which namespace, and how it ended.
type Step = BoxFuture<'static, (String, Result<Stepped>)>;

/// Answers until the drain begins. A panic over an object begins the watch anew and forgets nothing.
pub(crate) async fn run(context: &Arc<Context>, drain: Drain) {
    let mut answering = Answering::new(context);
    let mut ending = drain;
    let work = async {
        loop {
            if let Err(error) = task::caught(answering.run().map(Ok)).await {
                tracing::error!(%error, "answering requests for credentials begins anew");
                tokio::time::sleep(SPACING).await;
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = ending.signaled() => {}
    }
}

struct Answering {
    context: Arc<Context>,
    known: Known,
    schedule: Schedule<String>,
    /// When the last step of a namespace ended.
    last: HashMap<String, Instant>,
    /// When it was last listed anew because there was room again.
    relisted: Option<Instant>,
    steps: FuturesUnordered<Step>,
}

impl Answering {
    fn new(context: &Arc<Context>) -> Self {
        Self {
            context: Arc::clone(context),
            known: Known::default(),
            schedule: Schedule::default(),
            last: HashMap::new(),
            relisted: None,
            steps: FuturesUnordered::new(),
        }
    }

    fn follower(&self) -> Follower {
        let bounds = Bounds { page: PAGE, page_bytes: LARGEST_PAGE, ..Bounds::default() };
        Follower::new(Followed::in_host(CREDENTIAL_REQUESTS, RELIST, bounds), self.context.clock.clone())
    }

    fn follow(&self, mut follower: Follower) -> Following {
        let cluster = Arc::clone(self.context.host.cluster());
        Box::pin(async move {
            let event = follower.next(&*cluster).await;
            (follower, event)
        })
    }

    async fn run(&mut self) {
        let mut following = self.follow(self.follower());
        loop {
            self.start_due();
            let wake = self.schedule.next(WORKERS, false, self.now());
            tokio::select! {
                (mut follower, event) = &mut following => {
                    self.take(&mut follower, event);
                    following = self.follow(follower);
                }
                Some((namespace, outcome)) = self.steps.next(), if !self.steps.is_empty() => self.ended(&namespace, outcome),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn now(&self) -> Instant {
        self.context.clock.instant()
    }

    fn take(&mut self, follower: &mut Follower, event: Event) {
        match event {
            Event::Opens | Event::Watches | Event::Bookmark(_) | Event::Broken(_) => {}
            Event::Lists => self.known.begin(),
            Event::Listed(_) => self.known.end(),
            Event::Applied(json) => match Seen::read(&json) {
                Ok(seen) => {
                    follower.reached(&seen.version);
                    let namespace = seen.namespace.clone();
                    if self.known.put(seen, self.context.clock.now()) {
                        // At once, but no more than one step in a second, whatever is asked.
                        let now = self.now();
                        let due = self.last.get(&namespace).map_or(now, |last| now.max(*last + SPACING));
                        self.schedule.at(&namespace, due);
                    }
                }
                Err(error) => tracing::warn!(%error, "a CredentialRequest cannot be read"),
            },
            Event::Deleted(json) => {
                if let Ok(seen) = Seen::read(&json) {
                    follower.reached(&seen.version);
                    self.known.remove(&seen.namespace, &seen.name);
                }
            }
        }
        let now = self.now();
        if self.known.has_room_again() && self.relisted.is_none_or(|last| now >= last + RELIST_FOR_ROOM) {
            self.relisted = Some(now);
            follower.relist();
        }
    }

    fn start_due(&mut self) {
        let now = self.now();
        while let Some((namespace, attempt)) = self.schedule.start(WORKERS, now) {
            let Some(work) = self.known.work(&namespace, self.context.clock.now()) else {
                self.last.remove(&namespace);
                self.schedule.forget(&namespace);
                self.schedule.finished(&namespace, now);
                continue;
            };
            let context = Arc::clone(&self.context);
            self.steps.push(Box::pin(async move {
                let step = task::caught(step::step(&context, &namespace, &work, attempt));
                let late = |_| Err(Error::own(Kind::Timeout, "it took too long"));
                let outcome = tokio::time::timeout(LONGEST, step).await.unwrap_or_else(late);
                (namespace, outcome)
            }));
        }
    }

    fn ended(&mut self, namespace: &str, outcome: Result<Stepped>) {
        let now = self.now();
        self.last.insert(namespace.to_owned(), now);
        let pause = match outcome {
            Ok(stepped) => {
                self.known.learn(namespace, &stepped);
                let due = self.known.due(namespace, self.context.clock.now());
                due.max(stepped.retry.unwrap_or_default())
            }
            Err(error) => {
                tracing::warn!(namespace, %error, "requests for credentials are answered later");
                Retry::Later.pause(u32::MAX)
            }
        };
        let key = namespace.to_owned();
        self.schedule.finished(&key, now + pause.max(SPACING));
        // News that came while it ran were spaced from the step before.
        self.schedule.not_before(&key, now + SPACING);
    }
}
