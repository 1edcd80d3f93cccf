//! Which requests there are, in each namespace, and what is to be done about them. Pure.
//!
//! Promises: of one namespace at most [`MOST_KNOWN`] are known, whatever is there, and that there were more is; of those at most
//! [`MOST_KEPT`] stay, the oldest go first. None goes before it was known for its whole life, whatever the clock says.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use crate::error::{Error, Kind, Result};

/// Known of one namespace; what is beyond is seen again with the next list, which is due when half of them are gone.
pub(super) const MOST_KNOWN: usize = 1024;
/// Requests that stay in one namespace.
pub(super) const MOST_KEPT: usize = 64;
/// Answers and deletions of one step.
pub(super) const ANSWERS: usize = 8;
pub(super) const DELETIONS: usize = 64;
/// How old a request gets.
pub(super) const LIFE: Duration = Duration::from_secs(600);

/// A request as the watch shows it: nothing of its spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) version: String,
    created: Timestamp,
    is_answered: bool,
    /// It is deleted, but for its finalizers.
    is_going: bool,
}

/// One request, by name and uid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) name: String,
    pub(super) uid: String,
}

/// What is to be done in a namespace now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// To be answered, the oldest first.
    pub(super) open: Vec<Request>,
    /// To be removed.
    pub(super) over: Vec<Request>,
}

/// What came of a step.
#[derive(Debug, Default)]
pub(super) struct Stepped {
    /// Have an answer.
    pub(super) answered: Vec<Request>,
    /// Are not there any more.
    pub(super) gone: Vec<Request>,
    /// Could not be answered yet; others come before them the next time.
    pub(super) waiting: Vec<Request>,
    /// Something is to be tried again, after this.
    pub(super) retry: Option<Duration>,
}

/// All namespaces.
#[derive(Debug, Default)]
pub(super) struct Known {
    namespaces: HashMap<String, Space>,
    /// Grows with each list.
    list: u64,
    is_listing: bool,
}

#[derive(Debug, Default)]
struct Space {
    /// By age.
    requests: BTreeMap<(Timestamp, String), Entry>,
    ages: HashMap<String, Timestamp>,
    /// Since the list began, one was there for which there was no room.
    is_cut: bool,
}

#[derive(Debug)]
struct Entry {
    uid: String,
    is_answered: bool,
    /// When it was made or first seen here, whichever is later: two clocks.
    since: Timestamp,
    /// How often it was tried to answer it.
    tries: u32,
    /// The list that showed it last.
    list: u64,
}

impl Known {
    /// A list begins.
    pub(super) fn begin(&mut self) {
        self.list += 1;
        self.is_listing = true;
        for space in self.namespaces.values_mut() {
            space.is_cut = false;
        }
    }

    /// It is whole: what it did not show is gone.
    pub(super) fn end(&mut self) {
        let list = self.list;
        self.is_listing = false;
        for space in self.namespaces.values_mut() {
            space.requests.retain(|_, entry| entry.list == list);
            let requests = &space.requests;
            space.ages.retain(|name, age| requests.contains_key(&(*age, name.clone())));
        }
        self.namespaces.retain(|_, space| !space.ages.is_empty() || space.is_cut);
    }

    /// Whether a list would show what had no room before.
    pub(super) fn has_room_again(&self) -> bool {
        let has_room = |space: &Space| space.is_cut && space.ages.len() < MOST_KNOWN / 2;
        !self.is_listing && self.namespaces.values().any(has_room)
    }

    /// A request is there. Whether that is news.
    pub(super) fn put(&mut self, seen: Seen, now: Timestamp) -> bool {
        if seen.is_going {
            self.remove(&seen.namespace, &seen.name);
            return false;
        }
        let list = self.list;
        let space = self.namespaces.entry(seen.namespace).or_default();
        if let Some(age) = space.ages.get(&seen.name).copied() {
            let key = (age, seen.name.clone());
            if let Some(entry) = space.requests.get_mut(&key).filter(|entry| entry.uid == seen.uid) {
                let is_news = entry.is_answered != seen.is_answered;
                (entry.list, entry.is_answered) = (list, entry.is_answered || seen.is_answered);
                return is_news;
            }
            space.requests.remove(&key);
            space.ages.remove(&seen.name);
        }
        if space.ages.len() >= MOST_KNOWN {
            space.is_cut = true;
            return false;
        }
        space.ages.insert(seen.name.clone(), seen.created);
        let since = seen.created.max(now);
        let entry = Entry { uid: seen.uid, is_answered: seen.is_answered, since, tries: 0, list };
        space.requests.insert((seen.created, seen.name), entry);
        true
    }

    /// A request is gone.
    pub(super) fn remove(&mut self, namespace: &str, name: &str) {
        let Some(space) = self.namespaces.get_mut(namespace) else { return };
        if let Some(age) = space.ages.remove(name) {
            space.requests.remove(&(age, name.to_owned()));
        }
        if space.ages.is_empty() && !space.is_cut {
            self.namespaces.remove(namespace);
        }
    }

    /// What a step has done.
    pub(super) fn learn(&mut self, namespace: &str, stepped: &Stepped) {
        let is_that = |space: &Space, request: &Request| {
            let age = space.ages.get(&request.name).copied()?;
            let key = (age, request.name.clone());
            space.requests.get(&key).is_some_and(|entry| entry.uid == request.uid).then_some(key)
        };
        let tried = stepped.answered.iter().map(|request| (request, true));
        for (request, is_answered) in tried.chain(stepped.waiting.iter().map(|request| (request, false))) {
            if let Some(space) = self.namespaces.get_mut(namespace)
                && let Some(key) = is_that(space, request)
                && let Some(entry) = space.requests.get_mut(&key)
            {
                entry.is_answered |= is_answered;
                entry.tries = entry.tries.saturating_add(1);
            }
        }
        for request in &stepped.gone {
            if self.namespaces.get(namespace).is_some_and(|space| is_that(space, request).is_some()) {
                self.remove(namespace, &request.name);
            }
        }
    }

    /// What is to be done there now; `None` when nothing is known of it.
    pub(super) fn work(&self, namespace: &str, now: Timestamp) -> Option<Work> {
        let space = self.namespaces.get(namespace)?;
        let too_many = space.requests.len().saturating_sub(MOST_KEPT);
        let (mut work, mut open) = (Work::default(), Vec::new());
        for (at, ((_, name), entry)) in space.requests.iter().enumerate() {
            let request = || Request { name: name.clone(), uid: entry.uid.clone() };
            if at < too_many || is_over(entry.since, now) {
                if work.over.len() < DELETIONS {
                    work.over.push(request());
                }
            } else if !entry.is_answered {
                open.push((entry.tries, request()));
            }
        }
        // What waits for its cluster holds up nothing of another one. The sort keeps the order of age.
        open.sort_by_key(|(tries, _)| *tries);
        work.open = open.into_iter().take(ANSWERS).map(|(_, request)| request).collect();
        Some(work)
    }

    /// Until something is to be done there.
    pub(super) fn due(&self, namespace: &str, now: Timestamp) -> Duration {
        let Some(space) = self.namespaces.get(namespace) else { return Duration::ZERO };
        if space.requests.len() > MOST_KEPT || space.requests.values().any(|entry| !entry.is_answered) {
            return Duration::ZERO;
        }
        // One of which nothing is known but that there was more waits for the list.
        let Some(oldest) = space.requests.values().map(|entry| entry.since).min() else { return LIFE };
        let age = now.duration_since(oldest);
        // A moment more, so that it is over then.
        let left = i64::try_from(LIFE.as_secs()).unwrap_or(i64::MAX).saturating_sub(age.as_secs()) + 1;
        Duration::from_secs(u64::try_from(left).unwrap_or(0)).min(LIFE)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.namespaces.values().map(|space| space.requests.len()).sum()
    }
}

fn is_over(since: Timestamp, now: Timestamp) -> bool {
    now.duration_since(since).as_secs() >= i64::try_from(LIFE.as_secs()).unwrap_or(i64::MAX)
}

impl Seen {
    /// From the watch, whatever else is in it.
    pub(super) fn read(json: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
            #[serde(default)]
            status: Status,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            namespace: String,
            name: String,
            uid: String,
            #[serde(default)]
            resource_version: String,
            creation_timestamp: Timestamp,
            #[serde(default)]
            deletion_timestamp: Option<serde::de::IgnoredAny>,
        }
        #[derive(Deserialize, Default)]
        struct Status {
            #[serde(default)]
            phase: String,
        }
        let broken = |e| Error::client(Kind::Invalid, "its metadata are not readable").because(e);
        let Object { metadata, status }: Object = serde_json::from_slice(json).map_err(broken)?;
        Ok(Self {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            version: metadata.resource_version,
            created: metadata.creation_timestamp,
            is_answered: !status.phase.is_empty(),
            is_going: metadata.deletion_timestamp.is_some(),
        })
    }
}

#[cfg(test)]
mod tests;
