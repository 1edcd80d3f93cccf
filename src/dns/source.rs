//! Fills one tenant's zone from its API server: a watch on Services and one on EndpointSlices.
//!
//! Promises: the zone keeps its last content while the backend is away, and while another store answers in its place; a
//! watch goes on where it ended; a list replaces whole. Objects go into the zone, which has a bound, as they are read: no
//! list is ever held, and one of endless length is given up. One malformed object is skipped, never fatal.

mod store;

use std::sync::Arc;
use std::time::Duration;

use crate::dns::project::{self, Named};
use crate::dns::source::store::Store;
use crate::dns::zone::{self, Put, Service, Slice, Unnamed, Zone};
use crate::error::Result;
use crate::kubernetes::follow::{self, Bounds, Event, Follower};
use crate::kubernetes::{ApiClient, ListOptions, Resource, resources};
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::runtime::task;
use crate::runtime::yielding;

const BACKOFF: Duration = Duration::from_millis(200);
/// In case an event was lost; a list costs the tenant's API server more than a name that is old costs anybody.
const RELIST: Duration = Duration::from_secs(3600);
/// A backend that starts or restarts is away for a while; only longer is worth a warning.
const STARTING: Duration = Duration::from_secs(30);
/// Objects of one list: ten times as many as the zone names of the smallest. A list may have no end.
const LONGEST_LIST: usize = 500_000;
/// Objects of a page, where lists cannot be streamed. Half a megabyte, if they are as most are.
const PAGE: usize = 100;
/// Bytes of a page.
const LARGEST_PAGE: usize = 16 << 20;
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

/// Where a follower stands; outlives a panic over one object.
struct Position {
    follower: Follower,
    /// The listing that is in the zone.
    listing: u64,
}

fn plan<T: Held>() -> follow::Followed {
    follow::Followed {
        owner: T::TASK.to_owned(),
        resource: *T::RESOURCE,
        namespace: None,
        options: ListOptions::default(),
        streams: true,
        resumes: true,
        relist_after: RELIST,
        patience: STARTING,
        bounds: Bounds { page: PAGE, page_bytes: LARGEST_PAGE, objects: LONGEST_LIST },
    }
}

async fn follow_kind<T: Held>(followed: Followed<'_>, drain: Drain) {
    let clock = followed.clock;
    let position =
        tokio::sync::Mutex::new(Position { follower: Follower::new(plan::<T>(), clock.clone()), listing: 0 });
    let position = &position;
    task::supervise(T::TASK, clock.clone(), drain, BACKOFF, move || async move {
        let mut position = position.lock().await;
        // What was told before a panic does not count.
        position.follower.reopen();
        follow_on::<T>(followed, &mut position).await
    })
    .await;
}

async fn follow_on<T: Held>(followed: Followed<'_>, position: &mut Position) -> Result<()> {
    let Followed { api, zone, store, clock } = followed;
    let Position { follower, listing: in_zone } = position;
    let mut listing: Option<Listing<'_, T>> = None;
    loop {
        match follower.next(api).await {
            Event::Opens => {
                if zone.has_refused(T::KIND) {
                    // What had no room may have it by now, and only a list shows it again.
                    follower.relist();
                }
                if let Err(error) = store.wait_for(api, clock).await {
                    follower.reject(&error);
                }
            }
            Event::Lists => listing = Some(Listing::begin(zone)),
            Event::Applied(json) => {
                let number = listing.as_ref().map_or(*in_zone, |listing| listing.number);
                yielding::charge(json.len() / BYTES_PER_WORK + 1).await;
                if let Some(version) = put::<T>(zone, number, &json) {
                    follower.reached(&version);
                }
            }
            Event::Deleted(json) => {
                yielding::charge(json.len() / BYTES_PER_WORK + 1).await;
                if let Some(object) = read::<T>(zone, &json) {
                    T::remove(zone, &object.namespace, &object.name);
                    follower.reached(&object.version);
                }
            }
            Event::Listed(_) => match (store.confirm(api).await, listing.take()) {
                (Ok(()), Some(listing)) => *in_zone = listing.end().await,
                (Ok(()), None) => {}
                (Err(error), _) => follower.reject(&error),
            },
            Event::Watches | Event::Bookmark(_) => {}
            Event::Broken(_) => listing = None,
        }
    }
}

/// A list under way: each object goes into the zone as it is read, and what was not shown goes at the end.
struct Listing<'a, T> {
    zone: &'a Zone,
    number: u64,
    of: std::marker::PhantomData<fn() -> T>,
}

impl<'a, T: Held> Listing<'a, T> {
    fn begin(zone: &'a Zone) -> Self {
        Self { zone, number: zone.begin(T::KIND), of: std::marker::PhantomData }
    }

    async fn end(self) -> u64 {
        for key in self.zone.unlisted(T::KIND, self.number) {
            let (namespace, name) = key.parts();
            T::remove(self.zone, namespace, name);
            yielding::charge(1).await;
        }
        self.zone.listed(T::KIND);
        self.number
    }
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
