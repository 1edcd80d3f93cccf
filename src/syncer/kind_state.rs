//! All that the syncer holds of one kind of one tenant.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::syncer::cache::{SharedState, SourceState, Store};
use crate::syncer::host::HostStore;
use crate::syncer::index::HostIndex;
use crate::syncer::kind::{ObjectKey, ResourceSyncer};

/// One kind of one tenant.
pub struct KindState {
    /// For people.
    pub plural: &'static str,
    /// Virtual objects.
    pub objects: RwLock<Store<ObjectKey>>,
    /// Whether they are all known.
    pub state: SharedState,
    /// The host side, shared with other tenants.
    pub host: Option<Arc<HostStore>>,
    pub(super) index: RwLock<HostIndex>,
    /// Host objects of it that are being made.
    pub making: Unknown,
    /// Nothing of it is planned: what vcluster left of it could not be taken over yet.
    pub held: AtomicBool,
    /// Virtual objects whose end the watch has shown, as long as their copies stand.
    pub(super) ended: Mutex<HashSet<ObjectKey>>,
    /// For kinds without a virtual watch: host versions that were carried over completely.
    pub carried: Mutex<HashMap<ObjectKey, u64>>,
}

impl KindState {
    /// Nothing known yet.
    pub fn new(kind: &dyn ResourceSyncer, host: Option<Arc<HostStore>>) -> Self {
        let state = if kind.watches_virtual() { SourceState::Starting } else { SourceState::Synced };
        Self {
            plural: kind.resource().plural,
            objects: RwLock::default(),
            state: SharedState::new(state),
            host,
            index: RwLock::default(),
            making: Unknown::default(),
            held: AtomicBool::new(false),
            ended: Mutex::default(),
            carried: Mutex::default(),
        }
    }
}

/// Those of one kind that count although the host has not shown them.
#[derive(Debug, Default)]
pub struct Unknown(pub(super) Mutex<HashMap<ObjectKey, Being>>);

/// How one of them stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Being {
    /// The call is under way.
    Made,
    /// It broke off, and the host may have made it all the same: it counts until then.
    Lost(Instant),
}
