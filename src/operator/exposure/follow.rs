//! Fills the store of one host namespace: a watch on the Services of virtual clusters and one on their Ingresses.
//!
//! Promises: objects go into the store as they are read, no list is ever held; one that cannot be read opens nothing and stops
//! nobody; a panic begins the list anew and forgets nothing.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Error as JsonError;

use super::project::{self, Backends, Read, Service};
use super::store::{Kept, Store};
use crate::error::{Kind, Result};
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::follow::{Bounds, Event, Followed, Follower};
use crate::kubernetes::resources::{INGRESSES, SERVICES};
use crate::kubernetes::{ListOptions, Resource};
use crate::names::keys;
use crate::operator::host::Host;
use crate::runtime::clock::Clock;
use crate::runtime::task::{self, Task};

/// In case an event was lost, as for VirtualClusters.
const RELIST: Duration = Duration::from_secs(300);
const BACKOFF: Duration = Duration::from_millis(200);
/// Objects and bytes of a page, where lists cannot be streamed.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 16 << 20;

/// Both watches of a namespace, until dropped.
pub(crate) fn both(host: &Host, namespace: &str, store: &Arc<Store>, clock: &Clock) -> [Task; 2] {
    [one::<Service>(host, namespace, store, clock), one::<Backends>(host, namespace, store, clock)]
}

/// A kind that is followed.
trait Watched: Kept + Send + 'static {
    const RESOURCE: &'static Resource;
    const TASK: &'static str;
    fn read(json: &[u8]) -> Result<Read<Self>, JsonError>;
}

impl Watched for Service {
    const RESOURCE: &'static Resource = &SERVICES;
    const TASK: &'static str = "operator-exposed-services";

    fn read(json: &[u8]) -> Result<Read<Self>, JsonError> {
        project::service(json)
    }
}

impl Watched for Backends {
    const RESOURCE: &'static Resource = &INGRESSES;
    const TASK: &'static str = "operator-exposed-ingresses";

    fn read(json: &[u8]) -> Result<Read<Self>, JsonError> {
        project::ingress(json)
    }
}

fn one<T: Watched>(host: &Host, namespace: &str, store: &Arc<Store>, clock: &Clock) -> Task {
    let (cluster, store, clock) = (Arc::clone(host.cluster()), Arc::clone(store), clock.clone());
    let followed = Followed {
        owner: format!("host namespace {namespace}"),
        resource: *T::RESOURCE,
        namespace: Some(namespace.to_owned()),
        options: ListOptions { label_selector: keys::CLUSTER.to_owned(), ..ListOptions::default() },
        streams: true,
        resumes: true,
        relist_after: RELIST,
        patience: Duration::ZERO,
        bounds: Bounds { page: PAGE, page_bytes: LARGEST_PAGE, ..Bounds::default() },
    };
    task::spawn(T::TASK, async move {
        let work = || follow::<T>(&cluster, Follower::new(followed.clone(), clock.clone()), &store);
        task::repeat(T::TASK, &clock, BACKOFF, work).await;
    })
}

async fn follow<T: Watched>(cluster: &SharedCluster, mut follower: Follower, store: &Store) -> Result<()> {
    // The list that is whole, and one under way.
    let (mut last, mut listing) = (0, None);
    loop {
        match follower.next(&**cluster).await {
            // What had no room may have it by now, and only a list shows it again.
            Event::Opens if store.has_cut::<T>() => follower.relist(),
            Event::Opens | Event::Watches | Event::Bookmark(_) => {}
            Event::Lists => listing = Some(store.begin::<T>()),
            Event::Applied(json) => match T::read(&json) {
                Ok(object) => {
                    follower.reached(&object.version);
                    store.put(listing.unwrap_or(last), object);
                }
                Err(error) => {
                    tracing::warn!(kind = T::RESOURCE.kind, %error, "an object cannot be read: it opens nothing");
                    forget::<T>(store, &json);
                }
            },
            Event::Deleted(json) => forget::<T>(store, &json),
            Event::Listed(_) => {
                if let Some(number) = listing.take() {
                    store.end::<T>(number);
                    last = number;
                }
            }
            Event::Broken(error) => {
                listing = None;
                if error.kind() == Kind::Forbidden {
                    store.refused::<T>();
                }
            }
        }
    }
}

fn forget<T: Watched>(store: &Store, json: &[u8]) {
    if let Some(name) = project::name(json) {
        store.remove::<T>(&name);
    }
}
