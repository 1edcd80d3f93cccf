//! Fills one tenant's zone from its API server: a watch on Services and one on EndpointSlices.
//!
//! Promises: the zone keeps its last content while the backend is away, and while another store answers in its place; a
//! watch goes on where it ended; a list replaces whole. Objects go into the zone, which has a bound, as they are read: no
//! list is ever held, and one of endless length is given up. One malformed object is skipped, never fatal.

mod pages;
mod store;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::dns::pace;
use crate::dns::project::{self, Named};
use crate::dns::source::pages::Pages;
use crate::dns::source::store::Store;
use crate::dns::zone::{self, Put, Service, Slice, Unnamed, Zone};
use crate::error::{Error, Kind, Result};
use crate::kubernetes::{ApiClient, ListOptions, Resource, WatchEvent, WatchStream, resources};
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::runtime::task;

const BACKOFF: Duration = Duration::from_millis(200);
/// A server that ends watches at once, in good order, must not make us turn.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);
/// A backend that starts or restarts is away for a while; only longer is worth a warning.
const STARTING: Duration = Duration::from_secs(30);
/// Objects of one list: ten times as many as the zone names of the smallest. A list may have no end.
const LONGEST_LIST: usize = 500_000;
/// Reading this many bytes is as much work as making one record.
const BYTES_PER_WORK: usize = 128;

/// Follows both kinds until the drain begins. With `expected_store` nothing is listed from an API server whose namespace
/// `kube-system` has another uid: its store is not the one that the tenant's pods were made from.
pub(crate) async fn follow(
    api: ApiClient,
    zone: Arc<Zone>,
    expected_store: Option<String>,
    clock: Clock,
    drain: Drain,
) {
    let store = Store::new(expected_store);
    let followed = Followed { api: &api, zone: &zone, store: &store, clock: &clock };
    tokio::join!(follow_kind::<Service>(followed, drain.clone()), follow_kind::<Slice>(followed, drain));
}

/// A kind of object that the zone holds.
trait Held: Sized {
    const RESOURCE: &'static Resource;
    const TASK: &'static str;
    const KIND: zone::Kind;
    fn project(json: &[u8]) -> Result<Named<Self>, serde_json::Error>;
    fn put(zone: &Zone, listing: u64, object: Named<Self>) -> Put;
    fn remove(zone: &Zone, namespace: &str, name: &str);
}

impl Held for Service {
    const RESOURCE: &'static Resource = &resources::SERVICES;
    const TASK: &'static str = "dns-services";
    const KIND: zone::Kind = zone::Kind::Services;

    fn project(json: &[u8]) -> Result<Named<Self>, serde_json::Error> {
        project::service(json)
    }

    fn put(zone: &Zone, listing: u64, object: Named<Self>) -> Put {
        zone.put_service(listing, &object.namespace, &object.name, object.value)
    }

    fn remove(zone: &Zone, namespace: &str, name: &str) {
        zone.remove_service(namespace, name);
    }
}

impl Held for Slice {
    const RESOURCE: &'static Resource = &resources::ENDPOINT_SLICES;
    const TASK: &'static str = "dns-endpoints";
    const KIND: zone::Kind = zone::Kind::Slices;

    fn project(json: &[u8]) -> Result<Named<Self>, serde_json::Error> {
        project::slice(json)
    }

    fn put(zone: &Zone, listing: u64, object: Named<Self>) -> Put {
        zone.put_slice(listing, &object.namespace, &object.name, object.value)
    }

    fn remove(zone: &Zone, namespace: &str, name: &str) {
        zone.remove_slice(namespace, name);
    }
}

/// What one follower works with.
#[derive(Clone, Copy)]
struct Followed<'a> {
    api: &'a ApiClient,
    zone: &'a Zone,
    store: &'a Store,
    clock: &'a Clock,
}

/// Where a follower stands.
#[derive(Debug, Clone, Default)]
struct Position {
    /// From which the watch goes on; empty: list first.
    version: String,
    /// The listing that is in the zone.
    listing: u64,
}

async fn follow_kind<T: Held>(followed: Followed<'_>, drain: Drain) {
    let clock = followed.clock;
    let position = Mutex::new(Position::default());
    let position = &position;
    let away_since = Mutex::new(None);
    let away_since = &away_since;
    task::supervise(T::TASK, clock.clone(), drain, BACKOFF, move || async move {
        loop {
            let started = clock.instant();
            let known = position.lock().version.clone();
            let outcome = if known.is_empty() {
                list::<T>(followed, position).await
            } else {
                followed.store.wait_for(followed.api, clock).await?;
                match followed.api.watch(T::RESOURCE, None, &ListOptions::default(), &known).await {
                    Ok(watch) => events::<T>(watch, followed.zone, position).await,
                    Err(error) => Err(error),
                }
            };
            match outcome {
                Ok(()) => {
                    *away_since.lock() = None;
                    if followed.zone.has_refused(T::KIND) {
                        // What had no room may have it by now, and only a list shows it again.
                        position.lock().version.clear();
                    }
                }
                Err(error) if error.kind() == Kind::Gone => position.lock().version.clear(),
                Err(error) => {
                    let now = clock.instant();
                    let mut since = away_since.lock();
                    // It answered before it broke off: a new absence begins.
                    if now.duration_since(started) > STARTING || position.lock().version != known {
                        *since = None;
                    }
                    if now.duration_since(*since.get_or_insert(now)) >= STARTING {
                        return Err(error);
                    }
                    tracing::debug!(task = T::TASK, %error, "the backend does not answer yet");
                }
            }
            if started.elapsed() < SHORTEST_WATCH {
                tokio::time::sleep(clock.jitter(SHORTEST_WATCH)).await;
            }
        }
    })
    .await;
}

/// The first list, as a stream where the server knows that, and the events after it until the server ends the watch.
async fn list<T: Held>(followed: Followed<'_>, position: &Mutex<Position>) -> Result<()> {
    let Followed { api, zone, store, clock } = followed;
    store.wait_for(api, clock).await?;
    let mut listing = Listing::<T>::begin(zone);
    let mut watch = match api.watch_list(T::RESOURCE, None, &ListOptions::default()).await {
        Ok(watch) => watch,
        Err(error) if error.kind() == Kind::Invalid => {
            let mut pages = Pages::of(T::RESOURCE);
            while let Some(objects) = pages.next(api).await? {
                for object in objects {
                    listing.show(&object).await?;
                }
            }
            store.confirm(api).await?;
            let (listing, version) = (listing.end().await, pages.into_version());
            *position.lock() = Position { version: version.clone(), listing };
            let watch = api.watch(T::RESOURCE, None, &ListOptions::default(), &version).await?;
            return events::<T>(watch, zone, position).await;
        }
        Err(error) => return Err(error),
    };
    while let Some(event) = watch.next().await? {
        match event {
            WatchEvent::Applied(json) => listing.show(&json).await?,
            WatchEvent::Deleted(json) => {
                pace::charge(json.len() / BYTES_PER_WORK).await;
                if let Some(object) = read::<T>(zone, &json) {
                    T::remove(zone, &object.namespace, &object.name);
                }
            }
            WatchEvent::Bookmark { resource_version, initial_events_end: true } => {
                store.confirm(api).await?;
                let listing = listing.end().await;
                *position.lock() = Position { version: resource_version, listing };
                return events::<T>(watch, zone, position).await;
            }
            WatchEvent::Bookmark { .. } => {}
        }
    }
    Ok(())
}

/// A list under way: each object goes into the zone as it is read, and what was not shown goes at the end.
struct Listing<'a, T> {
    zone: &'a Zone,
    number: u64,
    shown: usize,
    of: std::marker::PhantomData<fn() -> T>,
}

impl<'a, T: Held> Listing<'a, T> {
    fn begin(zone: &'a Zone) -> Self {
        Self { zone, number: zone.begin(T::KIND), shown: 0, of: std::marker::PhantomData }
    }

    async fn show(&mut self, json: &[u8]) -> Result<()> {
        self.shown += 1;
        if self.shown > LONGEST_LIST {
            return Err(Error::backend(Kind::TooLarge, format!("a list has more than {LONGEST_LIST} objects")));
        }
        put::<T>(self.zone, self.number, json);
        pace::charge(json.len() / BYTES_PER_WORK + 1).await;
        Ok(())
    }

    async fn end(self) -> u64 {
        for key in self.zone.unlisted(T::KIND, self.number) {
            let (namespace, name) = key.parts();
            T::remove(self.zone, namespace, name);
            pace::charge(1).await;
        }
        self.zone.listed(T::KIND);
        self.number
    }
}

/// Applies events until the server ends the watch.
async fn events<T: Held>(mut watch: WatchStream, zone: &Zone, position: &Mutex<Position>) -> Result<()> {
    let listing = position.lock().listing;
    while let Some(event) = watch.next().await? {
        let at = match event {
            WatchEvent::Bookmark { resource_version, .. } => resource_version,
            WatchEvent::Applied(json) => {
                pace::charge(json.len() / BYTES_PER_WORK + 1).await;
                put::<T>(zone, listing, &json).unwrap_or_default()
            }
            WatchEvent::Deleted(json) => {
                pace::charge(json.len() / BYTES_PER_WORK + 1).await;
                let Some(object) = read::<T>(zone, &json) else { continue };
                T::remove(zone, &object.namespace, &object.name);
                object.version
            }
        };
        if !at.is_empty() {
            position.lock().version = at;
        }
    }
    Ok(())
}

/// Puts an object in, as far as it has a name; its version.
fn put<T: Held>(zone: &Zone, listing: u64, json: &[u8]) -> Option<String> {
    let object = read::<T>(zone, json)?;
    let (namespace, name, version) = (object.namespace.clone(), object.name.clone(), object.version.clone());
    if let Err(refusal) = T::put(zone, listing, object) {
        zone.say(Unnamed::from(refusal), &namespace, &name);
    }
    Some(version)
}

fn read<T: Held>(zone: &Zone, json: &[u8]) -> Option<Named<T>> {
    match T::project(json) {
        Ok(object) if object.is_nameable() => {
            if object.is_cut {
                zone.say(Unnamed::Parts, &object.namespace, &object.name);
            }
            Some(object)
        }
        Ok(object) => {
            zone.say(Unnamed::Name, &object.namespace, &object.name);
            None
        }
        Err(error) => {
            tracing::debug!(kind = T::RESOURCE.kind, %error, "an object cannot be read");
            zone.say(Unnamed::Unreadable, "", "");
            None
        }
    }
}

#[cfg(test)]
mod tests;
