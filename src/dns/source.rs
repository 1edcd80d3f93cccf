//! Fills one tenant's zone from its API server: a watch on Services and one on EndpointSlices.
//!
//! Promises: the zone keeps its last content while the backend is away, a watch goes on where it ended, a list
//! replaces whole. One malformed object is skipped, never fatal.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::clock::Clock;
use crate::dns::project::{self, Named};
use crate::dns::zone::{Service, Slice, Zone};
use crate::drain::Drain;
use crate::error::{Kind, Result};
use crate::task;
use crate::upstream::{ApiClient, ListOptions, Resource, WatchEvent, WatchStream, resources};

const BACKOFF: Duration = Duration::from_millis(200);
/// A server that ends watches at once, in good order, must not make us turn.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);
/// A backend that starts or restarts is away for a while; only longer is worth a warning.
const STARTING: Duration = Duration::from_secs(30);

/// Follows both kinds until the drain begins.
pub(crate) async fn follow(api: ApiClient, zone: Arc<RwLock<Zone>>, clock: Clock, drain: Drain) {
    tokio::join!(
        follow_kind::<Service>(&api, &zone, &clock, drain.clone()),
        follow_kind::<Slice>(&api, &zone, &clock, drain),
    );
}

/// A kind of object that the zone holds.
trait Held: Sized {
    const RESOURCE: &'static Resource;
    const TASK: &'static str;
    fn project(json: &[u8]) -> Result<Named<Self>, serde_json::Error>;
    fn put(zone: &mut Zone, object: Named<Self>);
    fn remove(zone: &mut Zone, namespace: &str, name: &str);
    fn replace(zone: &mut Zone, objects: Vec<(Box<str>, Box<str>, Self)>);
}

impl Held for Service {
    const RESOURCE: &'static Resource = &resources::SERVICES;
    const TASK: &'static str = "dns-services";

    fn project(json: &[u8]) -> Result<Named<Self>, serde_json::Error> {
        project::service(json)
    }

    fn put(zone: &mut Zone, object: Named<Self>) {
        zone.put_service(&object.namespace, &object.name, object.value);
    }

    fn remove(zone: &mut Zone, namespace: &str, name: &str) {
        zone.remove_service(namespace, name);
    }

    fn replace(zone: &mut Zone, objects: Vec<(Box<str>, Box<str>, Self)>) {
        zone.replace_services(objects);
    }
}

impl Held for Slice {
    const RESOURCE: &'static Resource = &resources::ENDPOINT_SLICES;
    const TASK: &'static str = "dns-endpoints";

    fn project(json: &[u8]) -> Result<Named<Self>, serde_json::Error> {
        project::slice(json)
    }

    fn put(zone: &mut Zone, object: Named<Self>) {
        zone.put_slice(&object.namespace, &object.name, object.value);
    }

    fn remove(zone: &mut Zone, namespace: &str, name: &str) {
        zone.remove_slice(namespace, name);
    }

    fn replace(zone: &mut Zone, objects: Vec<(Box<str>, Box<str>, Self)>) {
        zone.replace_slices(objects);
    }
}

async fn follow_kind<T: Held>(api: &ApiClient, zone: &RwLock<Zone>, clock: &Clock, drain: Drain) {
    // Empty: list first.
    let version = Mutex::new(String::new());
    let version = &version;
    let away_since = Mutex::new(None);
    let away_since = &away_since;
    task::supervise(T::TASK, clock.clone(), drain, BACKOFF, move || async move {
        loop {
            let started = clock.instant();
            let known = version.lock().clone();
            let outcome = if known.is_empty() {
                list::<T>(api, zone, version).await
            } else {
                match api.watch(T::RESOURCE, None, &ListOptions::default(), &known).await {
                    Ok(watch) => events::<T>(watch, zone, version).await,
                    Err(error) => Err(error),
                }
            };
            match outcome {
                Ok(()) => *away_since.lock() = None,
                Err(error) if error.kind() == Kind::Gone => version.lock().clear(),
                Err(error) => {
                    let now = clock.instant();
                    let mut since = away_since.lock();
                    // It answered before it broke off: a new absence begins.
                    if now.duration_since(started) > STARTING || *version.lock() != known {
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

/// The first list, as a stream where the server knows that; then its events.
async fn list<T: Held>(api: &ApiClient, zone: &RwLock<Zone>, version: &Mutex<String>) -> Result<()> {
    let options = ListOptions::default();
    let mut watch = match api.watch_list(T::RESOURCE, None, &options).await {
        Ok(watch) => watch,
        Err(error) if error.kind() == Kind::Invalid => {
            let (items, at) = api.list(T::RESOURCE, None, &options).await?;
            let objects = items.iter().filter_map(|i| read::<T>(i.to_string().as_bytes()));
            T::replace(&mut zone.write(), objects.map(|o| (o.namespace, o.name, o.value)).collect());
            *version.lock() = at;
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut objects = std::collections::HashMap::new();
    while let Some(event) = watch.next().await? {
        match event {
            WatchEvent::Applied(json) => {
                if let Some(object) = read::<T>(&json) {
                    objects.insert((object.namespace, object.name), object.value);
                }
            }
            WatchEvent::Deleted(json) => {
                if let Some(object) = read::<T>(&json) {
                    objects.remove(&(object.namespace, object.name));
                }
            }
            WatchEvent::Bookmark { resource_version, initial_events_end } => {
                if initial_events_end {
                    let all = objects.into_iter().map(|((namespace, name), value)| (namespace, name, value)).collect();
                    T::replace(&mut zone.write(), all);
                    *version.lock() = resource_version;
                    return events::<T>(watch, zone, version).await;
                }
            }
        }
    }
    Ok(())
}

/// Applies events until the server ends the watch.
async fn events<T: Held>(mut watch: WatchStream, zone: &RwLock<Zone>, version: &Mutex<String>) -> Result<()> {
    while let Some(event) = watch.next().await? {
        let at = match event {
            WatchEvent::Bookmark { resource_version, .. } => resource_version,
            WatchEvent::Applied(json) => {
                let Some(object) = read::<T>(&json) else { continue };
                let at = object.version.clone();
                T::put(&mut zone.write(), object);
                at
            }
            WatchEvent::Deleted(json) => {
                let Some(object) = read::<T>(&json) else { continue };
                T::remove(&mut zone.write(), &object.namespace, &object.name);
                object.version
            }
        };
        if !at.is_empty() {
            *version.lock() = at;
        }
    }
    Ok(())
}

fn read<T: Held>(json: &[u8]) -> Option<Named<T>> {
    match T::project(json) {
        Ok(object) if !object.name.is_empty() && !object.namespace.is_empty() => Some(object),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(kind = T::RESOURCE.kind, %error, "an object cannot be read and has no name in DNS");
            None
        }
    }
}
