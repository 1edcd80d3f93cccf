//! Telling a tenant's owner that objects of it are not synced for want of room: what its users read in Events, said once on
//! the VirtualCluster.

use std::sync::atomic::Ordering;

use crate::syncer::ledger;
use crate::syncer::tenant::TenantState;
use crate::syncer::world::World;

/// What the owner was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Told {
    /// By an earlier process, if at all.
    Unknown = 0,
    /// That all is synced.
    All = 1,
    /// That some are not.
    Some = 2,
}

/// Tells it when it is another than was told; a failure is made up for by the next call.
pub async fn tell(world: &World, tenant: &TenantState) {
    let cut = if tenant.is_ready() { tenant.cut_objects() } else { return };
    let now = if cut > 0 { Told::Some } else { Told::All };
    if tenant.told.load(Ordering::Acquire) == now as u8 {
        return;
    }
    let message = (cut > 0).then(|| {
        format!(
            "{cut} objects are not synced: more or larger ones than are kept for this virtual cluster ({} bytes are); Events \
             on them say so, syncer.maxCachedBytesPerTenant of the configuration decides",
            tenant.cached.held()
        )
    });
    match ledger::write_unsynced(world, &tenant.bound(), message.as_deref()).await {
        Ok(()) => tenant.told.store(now as u8, Ordering::Release),
        Err(error) => tracing::debug!(tenant = %tenant.id, %error, "what is not synced could not be said"),
    }
}
