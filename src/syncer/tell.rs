//! Telling a tenant's users: Events about their objects, ours and those of the host that are shown to them.
//!
//! Promises: best effort, and within the tenant's rate of Events: what is beyond it is not said, and counted. Whoever floods
//! himself with refusals costs nobody else the writing of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::kubernetes::resources::EVENTS;
use crate::syncer::explain;
use crate::syncer::incoming::key_of;
use crate::syncer::kind::{Involved, ObjectKey};
use crate::syncer::queue::Item;
use crate::syncer::tenant::TenantState;
use crate::syncer::world::World;

/// Seconds' worth of Events at one moment: many pods that begin together have several each.
const BURST: u32 = 20;

/// Says something about an object, as long as it is there; a later try says it again.
pub async fn about(world: &Arc<World>, tenant: &Arc<TenantState>, item: &Item, reason: &'static str, message: &str) {
    let Some(uid) = tenant.kind(item.kind).objects.read().get(&item.key).map(|entry| entry.uid.to_string()) else {
        return;
    };
    let resource = world.catalog.kind(item.kind).resource();
    let key = ObjectKey { namespace: item.key.namespace.clone(), name: item.key.name.clone() };
    let involved = Involved { api_version: resource.api_version(), kind: resource.kind.to_owned(), key, uid };
    say(world, tenant, &involved, reason, message, true).await;
}

/// Says it of whatever is named.
pub async fn say(world: &World, tenant: &TenantState, involved: &Involved, reason: &str, message: &str, warning: bool) {
    let now = world.clock.instant();
    if !tenant.explained.is_due(involved, reason, message, now) {
        return;
    }
    if !has_room(world, tenant) {
        tenant.explained.failed(involved, reason, message, now);
        return;
    }
    let suffix = world.clock.random_below(u64::MAX);
    let event = explain::event(involved, reason, message, warning, world.clock.now(), suffix);
    let namespace = key_of(&event).namespace;
    if let Err(error) = tenant.bound().api.create(&EVENTS, Some(&namespace), ("", ""), &event).await {
        tracing::debug!(tenant = %tenant.id, %error, "an Event could not be written");
        tenant.explained.failed(involved, reason, message, world.clock.instant());
    }
}

/// Whether one more Event is within the tenant's rate.
pub fn has_room(world: &World, tenant: &TenantState) -> bool {
    let rate = tenant.bound().limits.in_syncer(&world.config).events_per_second;
    let passes = tenant.events.pass(rate, rate.saturating_mul(BURST), world.clock.instant()).is_ok();
    if !passes {
        tenant.unsaid.fetch_add(1, Ordering::Relaxed);
    }
    passes
}
