//! The VirtualClusters of the host, followed without end.
//!
//! Promises: whoever keeps what was told before loses nothing by a broken watch, a 410 or a failed list, since the next
//! list says what is there and who is gone; the stream may be left waiting and taken up again at any time. Must not know
//! what becomes of the objects.

use std::time::Duration;

use futures::{Stream, StreamExt};
use serde_json::Value;

use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::follow::objects::{self, Key};
use crate::kubernetes::follow::{Bounds, Followed};
use crate::kubernetes::resources::VIRTUAL_CLUSTERS;
use crate::names::TenantId;
use crate::runtime::clock::Clock;

/// They are few, and an event that was lost would leave a tenant unserved, or served when it is gone.
const RELIST: Duration = Duration::from_secs(300);

/// What became known.
#[derive(Debug)]
pub enum Change {
    /// All that are there, and who of the known is not.
    Listed {
        /// All that can be read.
        live: Vec<Value>,
        /// Gone, perhaps unnoticed.
        gone: Vec<TenantId>,
    },
    /// One is new or changed.
    Applied(Value),
    /// One is gone.
    Deleted(TenantId),
}

/// All changes from now on; the first is a list. `known` are those that whoever reads has already.
pub fn changes(host: SharedCluster, known: &[TenantId], clock: Clock) -> impl Stream<Item = Change> + Send + use<> {
    let followed = Followed::in_host(VIRTUAL_CLUSTERS, RELIST, Bounds::default());
    let known: Vec<Key> = known.iter().map(key).collect();
    objects::changes(host, followed, known, clock).filter_map(|change| std::future::ready(named(change)))
}

fn named(change: objects::Change) -> Option<Change> {
    Some(match change {
        objects::Change::Reset { live, removed } => {
            Change::Listed { live, gone: removed.iter().filter_map(tenant).collect() }
        }
        objects::Change::Applied(object) => Change::Applied(object),
        objects::Change::Deleted(key) => Change::Deleted(tenant(&key)?),
    })
}

fn key(id: &TenantId) -> Key {
    Key { namespace: id.namespace().as_str().to_owned(), name: id.name().as_str().to_owned() }
}

/// One with an impossible name is nobody's.
fn tenant(key: &Key) -> Option<TenantId> {
    TenantId::parse(&key.namespace, &key.name).ok()
}
