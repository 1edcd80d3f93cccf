//! What is known of one tenant's admission rules, and how long that holds. Pure.
//!
//! Promises: nothing counts beyond [`SILENCE`] after the last word of a watch that is open, and beyond [`GAP`] without one;
//! of the objects only names are kept, of those that judge streams, so many bytes and no more, on the tenant's account.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::rules::{Judge, MUTATING, MUTATING_POLICIES, Part, VALIDATING, VALIDATING_POLICIES};
use crate::kubernetes::Resource;
use crate::tenant::memory::Account;

/// A watch that said nothing for so long may be stuck: an API server sends bookmarks every minute.
pub(super) const SILENCE: Duration = Duration::from_secs(90);
/// Between a watch and the next list, and between that and its watch: as long as an API server needs that is well.
pub(super) const GAP: Duration = Duration::from_secs(3);
/// Kept of one kind.
const MOST_BYTES: usize = 512 << 10;
/// What an object takes beside its names, and a judge of it likewise.
const ENTRY: usize = 64;

/// What is followed, each in the versions in which it may be served.
pub(super) const KINDS: [(Part, &[Resource]); 6] = [
    (Part::Webhooks, &[VALIDATING]),
    (Part::Webhooks, &[MUTATING]),
    (Part::Policies, &VALIDATING_POLICIES.policies),
    (Part::Bindings, &VALIDATING_POLICIES.bindings),
    (Part::Policies, &MUTATING_POLICIES.policies),
    (Part::Bindings, &MUTATING_POLICIES.bindings),
];
const WEBHOOKS: [usize; 2] = [0, 1];
/// Policies, their bindings, and how they are called.
const POLICIES: [(usize, usize, &str); 2] = [(2, 3, VALIDATING_POLICIES.kind), (4, 5, MUTATING_POLICIES.kind)];

/// All kinds, each at its place in [`KINDS`].
#[derive(Debug)]
pub(super) struct Known([Followed; KINDS.len()]);

#[derive(Debug)]
struct Followed {
    standing: Standing,
    objects: Objects,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The first list is under way.
    Awaited,
    /// A watch is open, and this was its last word.
    Open(Instant),
    /// Listed, and there is no watch since then.
    Shut(Instant),
    /// Whatever there is, it could not be read.
    Unknown,
    /// No version is served.
    Absent,
    /// It is more than is kept.
    TooMuch,
}

/// What is said of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Later,
    /// Nothing that is new enough.
    Unknown,
    /// There is more than is kept.
    TooMuch,
    /// Nobody judges it.
    Nobody,
    /// This one does.
    Judge(String),
}

/// Objects of one kind that judge streams.
#[derive(Debug)]
pub(super) struct Objects {
    by_name: BTreeMap<String, Box<[Judge]>>,
    bytes: usize,
    account: Arc<Account>,
}

impl Known {
    pub(super) fn new(account: &Arc<Account>) -> Self {
        let nothing = |_| Followed { standing: Standing::Awaited, objects: Objects::new(account) };
        Self(std::array::from_fn(nothing))
    }

    /// A list or watch of this kind is about to be opened: none is open.
    pub(super) fn opens(&mut self, at: usize, now: Instant) {
        let standing = &mut self.0[at].standing;
        if let Standing::Open(_) = standing {
            *standing = Standing::Shut(now);
        }
    }

    /// Something failed.
    pub(super) fn fails(&mut self, at: usize, now: Instant) {
        let standing = &mut self.0[at].standing;
        *standing = match *standing {
            Standing::Open(_) => Standing::Shut(now),
            Standing::Awaited | Standing::Absent => Standing::Unknown,
            other => other,
        };
    }

    /// A list is whole.
    pub(super) fn listed(&mut self, at: usize, objects: Objects, now: Instant) {
        self.0[at] = Followed { standing: Standing::Shut(now), objects };
    }

    /// The watch is open and said something.
    pub(super) fn told(&mut self, at: usize, now: Instant) {
        let standing = &mut self.0[at].standing;
        if let Standing::Open(_) | Standing::Shut(_) = standing {
            *standing = Standing::Open(now);
        }
    }

    /// The kind is not served.
    pub(super) fn absent(&mut self, at: usize) {
        self.only_stands(at, Standing::Absent);
    }

    /// More than is kept, until a list fits.
    pub(super) fn too_much(&mut self, at: usize) {
        self.only_stands(at, Standing::TooMuch);
    }

    pub(super) fn objects(&mut self, at: usize) -> &mut Objects {
        &mut self.0[at].objects
    }

    /// Who judges this stream.
    pub(super) fn verdict(&self, subresource: &str, now: Instant) -> Verdict {
        let standing = |wanted: fn(Standing, Instant) -> bool| self.0.iter().any(|kind| wanted(kind.standing, now));
        if standing(|standing, _| standing == Standing::TooMuch) {
            return Verdict::TooMuch;
        }
        if standing(|standing, now| !standing.may_count(now)) {
            return Verdict::Unknown;
        }
        if standing(|standing, _| standing == Standing::Awaited) {
            return Verdict::Later;
        }
        let mut webhooks = WEBHOOKS.iter().flat_map(|at| self.0[*at].objects.judges());
        if let Some(webhook) = webhooks.find(|judge| judge.covers.has(subresource)) {
            return Verdict::Judge(format!("the admission webhook \"{}\"", webhook.name));
        }
        for (policies, bindings, kind) in POLICIES {
            let policies = &self.0[policies].objects.by_name;
            let covers = |bound: &&Judge| {
                policies.get(&*bound.name).is_some_and(|policy| policy.iter().any(|p| p.covers.has(subresource)))
            };
            if let Some(bound) = self.0[bindings].objects.judges().find(covers) {
                return Verdict::Judge(format!("the {kind} \"{}\"", bound.name));
            }
        }
        Verdict::Nobody
    }

    fn only_stands(&mut self, at: usize, standing: Standing) {
        let objects = Objects::new(&self.0[at].objects.account);
        self.0[at] = Followed { standing, objects };
    }
}

impl Standing {
    fn may_count(self, now: Instant) -> bool {
        match self {
            Self::Awaited | Self::Absent | Self::TooMuch => true,
            Self::Open(told) => now.saturating_duration_since(told) <= SILENCE,
            Self::Shut(since) => now.saturating_duration_since(since) <= GAP,
            Self::Unknown => false,
        }
    }
}

impl Objects {
    pub(super) fn new(account: &Arc<Account>) -> Self {
        Self { by_name: BTreeMap::new(), bytes: 0, account: Arc::clone(account) }
    }

    /// Keeps what there is to keep of an object. False: there is no room.
    #[must_use]
    pub(super) fn put(&mut self, name: String, judges: Vec<Judge>) -> bool {
        self.remove(&name);
        if judges.is_empty() {
            return true;
        }
        let weight = weight(&name, &judges);
        if self.bytes + weight > MOST_BYTES {
            return false;
        }
        self.grows_to(self.bytes + weight);
        self.by_name.insert(name, judges.into());
        true
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(judges) = self.by_name.remove(name) {
            self.grows_to(self.bytes - weight(name, &judges));
        }
    }

    fn judges(&self) -> impl Iterator<Item = &Judge> {
        self.by_name.values().flatten()
    }

    fn grows_to(&mut self, bytes: usize) {
        self.account.kept(self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        self.grows_to(0);
    }
}

fn weight(name: &str, judges: &[Judge]) -> usize {
    judges.iter().fold(ENTRY + name.len(), |sum, judge| sum + ENTRY + judge.name.len())
}

#[cfg(test)]
mod tests;
