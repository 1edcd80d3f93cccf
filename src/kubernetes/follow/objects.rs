//! Objects that are followed whole: few of them, each parsed, with the keys of all that are there.
//!
//! Promises: after a list it is said what is gone, also when it went unnoticed or before this began; an object that cannot
//! be read is there all the same; whoever keeps what was told loses nothing by a broken watch.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{Stream, stream};
use serde::Deserialize;
use serde_json::Value;

use super::{Event, Followed, Follower};
use crate::kubernetes::Resource;
use crate::kubernetes::api::SharedCluster;
use crate::runtime::clock::Clock;

/// Namespace (empty for cluster-scoped kinds) and name.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// What became known.
#[derive(Debug)]
pub enum Change {
    /// All that are there, and which of the known are not. Objects that cannot be read are in neither.
    Reset {
        /// All that are there.
        live: Vec<Value>,
        /// What was known before and is not there.
        removed: Vec<Key>,
    },
    /// One is new or changed.
    Applied(Value),
    /// One is gone.
    Deleted(Key),
}

/// All changes from now on; the first is a reset. `known` is what whoever reads already has.
pub fn changes(
    cluster: SharedCluster,
    followed: Followed,
    known: impl IntoIterator<Item = Key>,
    clock: Clock,
) -> impl Stream<Item = Change> + Send {
    let known = known.into_iter().collect();
    let resource = followed.resource;
    let objects =
        Objects { cluster, resource, follower: Follower::new(followed, clock), known, listing: Listing::default() };
    stream::unfold(objects, |mut objects| async move {
        let change = objects.next().await;
        Some((change, objects))
    })
}

struct Objects {
    cluster: SharedCluster,
    resource: Resource,
    follower: Follower,
    known: BTreeSet<Key>,
    listing: Listing,
}

/// A list under way.
#[derive(Default)]
struct Listing {
    is_open: bool,
    live: Vec<Value>,
    shown: BTreeSet<Key>,
    /// Something was shown whose very name cannot be read: nobody is gone by this list.
    is_doubtful: bool,
}

impl Objects {
    async fn next(&mut self) -> Change {
        loop {
            let event = self.follower.next(&*self.cluster).await;
            if let Some(change) = self.read(event) {
                return change;
            }
        }
    }

    fn read(&mut self, event: Event) -> Option<Change> {
        match event {
            Event::Opens | Event::Watches | Event::Bookmark(_) => None,
            Event::Broken(_) => {
                self.listing = Listing::default();
                None
            }
            Event::Lists => {
                self.listing = Listing { is_open: true, ..Listing::default() };
                None
            }
            Event::Applied(bytes) if self.listing.is_open => {
                self.shown(&bytes);
                None
            }
            Event::Applied(bytes) => {
                let (key, version) = key(&bytes)?;
                self.follower.reached(&version);
                self.known.insert(key);
                self.parse(&bytes).map(Change::Applied)
            }
            Event::Deleted(bytes) => {
                let (key, version) = key(&bytes)?;
                if self.listing.is_open {
                    self.listing.live.retain(|object| of(object) != key);
                    self.listing.shown.remove(&key);
                    return None;
                }
                self.follower.reached(&version);
                self.known.remove(&key);
                Some(Change::Deleted(key))
            }
            Event::Listed(_) => Some(self.reset()),
        }
    }

    fn shown(&mut self, bytes: &Bytes) {
        match key(bytes) {
            Some((key, _)) => {
                if !self.listing.shown.insert(key.clone()) {
                    // A streamed list shows one again when it changed meanwhile.
                    self.listing.live.retain(|object| of(object) != key);
                }
                self.listing.live.extend(self.parse(bytes));
            }
            None => self.listing.is_doubtful = true,
        }
    }

    fn reset(&mut self) -> Change {
        let Listing { live, mut shown, is_doubtful, .. } = std::mem::take(&mut self.listing);
        if is_doubtful {
            shown.extend(std::mem::take(&mut self.known));
        }
        let removed = self.known.difference(&shown).cloned().collect();
        self.known = shown;
        Change::Reset { live, removed }
    }

    /// One malformed object must not end a watch.
    fn parse(&self, bytes: &Bytes) -> Option<Value> {
        serde_json::from_slice(bytes)
            .inspect_err(|error| tracing::warn!(kind = self.resource.kind, %error, "an object cannot be read"))
            .ok()
            .map(|object| self.resource.complete(object))
    }
}

fn of(object: &Value) -> Key {
    let field = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    Key { namespace: field("namespace"), name: field("name") }
}

/// Key and version, whatever else is in the object.
fn key(bytes: &Bytes) -> Option<(Key, String)> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        #[serde(default)]
        namespace: String,
        name: String,
        #[serde(default)]
        resource_version: String,
    }
    let Metadata { namespace, name, resource_version } = serde_json::from_slice::<Object>(bytes)
        .inspect_err(|error| tracing::warn!(%error, "an object without a readable name is passed over"))
        .ok()?
        .metadata;
    Some((Key { namespace, name }, resource_version))
}
