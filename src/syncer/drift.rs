//! The slow walk over everything known, so that whatever fell between is looked at again.
//!
//! Costs only processor time: plans from the caches, spread evenly. Lost events are another matter; sources list again
//! now and then for those.

use std::sync::Arc;
use std::time::Duration;

use crate::syncer::queue::{Item, Urgency};
use crate::syncer::unsynced;
use crate::syncer::world::World;

const BATCH: usize = 64;
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// Walks until dropped.
pub async fn run(world: Arc<World>) {
    let interval = world.config.drift_interval.0.max(Duration::from_secs(1));
    loop {
        let tenants = world.tenants();
        let kinds = world.catalog.len();
        let slots = u32::try_from(tenants.len() * kinds).unwrap_or(u32::MAX).max(1);
        if tenants.is_empty() {
            tokio::time::sleep(world.clock.jitter(interval)).await;
            continue;
        }
        let slot = (interval / slots).max(SHORTEST_PAUSE);
        for tenant in tenants {
            unsynced::tell(&world, &tenant).await;
            for (kind, _) in world.catalog.iter() {
                let keys = if tenant.is_ready() { tenant.keys(kind) } else { Vec::new() };
                let batches = u32::try_from(keys.len().div_ceil(BATCH)).unwrap_or(u32::MAX).max(1);
                let mut keys = keys.into_iter();
                for _ in 0..batches {
                    for key in keys.by_ref().take(BATCH) {
                        world.queue.push(tenant.number, Item { kind, key }, Urgency::Background);
                    }
                    tokio::time::sleep(slot / batches).await;
                }
            }
        }
    }
}
