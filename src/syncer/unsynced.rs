//! Telling a tenant's owner that objects of it are not synced for want of room: what its users read in Events, said once on
//! the VirtualCluster. How many there are changes all the time; metrics say it.

use crate::syncer::ledger;
use crate::syncer::tenant::TenantState;
use crate::syncer::world::World;

const MESSAGE: &str = "objects are not synced: more or larger ones than are kept for this virtual cluster; Events on them say so, \
                       syncer.maxCachedBytesPerTenant of the configuration decides";

/// Tells it when it is another than was told; a failure is made up for by the next call.
pub async fn tell(world: &World, tenant: &TenantState) {
    if !tenant.is_ready() {
        return;
    }
    let is_cut = tenant.cut_objects() > 0;
    if *tenant.told.lock() == Some(is_cut) {
        return;
    }
    match ledger::write_unsynced(world, &tenant.bound(), is_cut.then_some(MESSAGE)).await {
        Ok(()) => *tenant.told.lock() = Some(is_cut),
        Err(error) => tracing::debug!(tenant = %tenant.id, %error, "what is not synced could not be said"),
    }
}
