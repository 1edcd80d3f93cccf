//! What of each virtual cluster is meant to be reached from outside: its host Services of type NodePort and LoadBalancer, and
//! those that its Ingresses name. Two watches in each host namespace that has virtual clusters.
//!
//! Promises: of a namespace nothing is said before both its lists were there, and nothing is forgotten while a watch is away;
//! who changed is told once it is known; what a tenant's objects take here is bounded, and what is beyond opens nothing. It
//! looks at host objects alone, so it knows of no tenant's API server. Must not know what becomes of it: policies are
//! `networks`' business.

mod follow;
mod project;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::operator::cluster::Cluster;
use crate::operator::host::Host;
use crate::runtime::clock::Clock;
use crate::runtime::task::Task;

pub(crate) use project::{Port, Target};
use store::{News, Store};
pub(crate) use store::{Opening, Openings};

/// All host namespaces that are followed.
#[derive(Default)]
pub(crate) struct Exposure {
    places: Mutex<BTreeMap<String, Place>>,
    news: Arc<News>,
}

struct Place {
    store: Arc<Store>,
    _tasks: [Task; 2],
}

impl Exposure {
    /// Follows these namespaces from now on, and no others.
    pub(crate) fn keep(&self, host: &Host, clock: &Clock, namespaces: &BTreeSet<&str>) {
        let mut places = self.places.lock();
        places.retain(|namespace, _| namespaces.contains(namespace.as_str()));
        for namespace in namespaces {
            if !places.contains_key(*namespace) {
                let store = Arc::new(Store::new(namespace, &self.news));
                let tasks = follow::both(host, namespace, &store, clock);
                places.insert((*namespace).to_owned(), Place { store, _tasks: tasks });
            }
        }
    }

    /// What of a cluster is to be reached; `None` while that is not known.
    pub(crate) fn of(&self, cluster: &Cluster) -> Option<Openings> {
        let store = Arc::clone(&self.places.lock().get(cluster.namespace())?.store);
        store.openings(&cluster.uid)
    }

    /// Whether Portico may not even ask.
    pub(crate) fn is_refused(&self, cluster: &Cluster) -> bool {
        self.places.lock().get(cluster.namespace()).is_some_and(|place| place.store.is_refused())
    }

    /// Namespaces, and names of virtual clusters in them, of which something changed; without a name: all of the namespace.
    /// May be dropped and called again.
    pub(crate) async fn news(&self) -> BTreeSet<(String, Option<String>)> {
        self.news.wait().await
    }
}
