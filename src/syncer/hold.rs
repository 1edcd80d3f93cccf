//! Telling a person why a tenant, or a part of it, waits: the record of a hold, and an Event beside it.

use serde_json::json;

use crate::crd::HoldStatus;
use crate::error::{Error, Result};
use crate::kubernetes::resources::EVENTS;
use crate::syncer::explain;
use crate::syncer::ledger::{self, Decision, Ledger};
use crate::syncer::tenant::Member;
use crate::syncer::world::World;

/// A hold that begins now; `found` is what a decision must name.
pub fn beginning(world: &World, reason: &str, message: String, found: &str) -> HoldStatus {
    let since = world.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    HoldStatus { reason: reason.to_owned(), message, found: found.to_owned(), since }
}

/// Tells whoever waits for what he decided that it does not succeed; it is tried again.
pub async fn say_failed(
    world: &World,
    member: &Member,
    mut hold: HoldStatus,
    decision: &Decision,
    error: &Error,
) -> Result<()> {
    hold.message = format!("{}{} is tried again: {error}", HoldStatus::FAILED, decision.name());
    ledger::write_hold(world, member, Some(&hold)).await
}

/// An Event on the tenant's VirtualCluster. Best effort: the hold itself is recorded.
pub async fn announce(world: &World, member: &Member, reason: &str, message: &str, warning: bool) {
    let Some(involved) = Ledger::of(&member.view).involved(&member.view) else { return };
    if !world.access.allow("create", &EVENTS, "") {
        return;
    }
    let suffix = world.clock.random_below(u64::MAX);
    let mut event = explain::event(&involved, reason, message, warning, world.clock.now(), suffix);
    if let Some(about) = event.get_mut("involvedObject").and_then(serde_json::Value::as_object_mut) {
        about.insert("uid".to_owned(), json!(member.view.uid));
    }
    let namespace = member.view.namespace().as_str();
    if let Err(error) = world.host.create(&EVENTS, Some(namespace), ("", ""), &event).await {
        tracing::debug!(tenant = %member.view.id, %error, "an Event could not be written on the host");
    }
}
