//! Host objects of one kind in one place (a host namespace, or the whole cluster), shared by the tenants there.
//!
//! Does no IO; whom a change concerns, `routes` knows.

use parking_lot::RwLock;

use crate::names::HostNamespace;
use crate::syncer::cache::{SharedState, SourceState, Store};

/// Where host objects of a kind are watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Index of the kind.
    pub kind: u16,
    /// None for the whole cluster.
    pub namespace: Option<HostNamespace>,
}

/// Objects of one place.
pub struct HostStore {
    /// Kind and host namespace.
    pub place: Place,
    /// By host name.
    pub objects: RwLock<Store<String>>,
    /// Whether they are all known.
    pub state: SharedState,
}

impl HostStore {
    /// Empty.
    pub fn new(place: Place) -> Self {
        Self { place, objects: RwLock::default(), state: SharedState::new(SourceState::Starting) }
    }
}
