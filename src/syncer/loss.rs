//! What happens when a tenant's API server comes back with another store.
//!
//! A store is known by the uid of its Namespace `kube-system`. Promises: nothing of a tenant is synced before its store
//! is recorded on the host ([`ledger`]); nothing that another store says is believed, nothing on the host changes because
//! of it, and no cache forgets what the known one said; a person, or `storage.onLoss: discard`, decides, or the known
//! store comes back and all goes on. What a decision does, [`recover`] knows.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::crd::{HoldStatus, OnLoss};
use crate::error::{Kind, Result};
use crate::syncer::cache::SourceState;
use crate::syncer::hold;
use crate::syncer::ledger::{self, Decision, Ledger};
use crate::syncer::recover;
use crate::syncer::store::{Belief, RECENT, uid_of};
use crate::syncer::tenant::TenantState;
use crate::syncer::world::World;

/// `status.hold.reason` and condition of a tenant whose store is another one.
pub const STORE_REPLACED: &str = "StoreReplaced";

/// How often a held tenant is looked at.
const POLL: Duration = Duration::from_secs(5);
/// So long the first message of a hold waits to know what stands on the host.
const COUNTING: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// Until the tenant's store is recorded and believed.
pub async fn settle(world: &Arc<World>, tenant: &Arc<TenantState>) {
    let mut access = world.access.clone();
    while !Ledger::of(&tenant.bound().view).may_write(&access) {
        access.changed().await;
    }
    let mut failures = 0_u32;
    while let Err(error) = begin(world, tenant).await {
        failures += 1;
        if failures == 5 {
            tracing::info!(tenant = %tenant.id, %error, "nothing is synced before its store is known");
        }
        let wait = Duration::from_millis(100).saturating_mul(1 << failures.min(7)).min(LONGEST_BACKOFF);
        tokio::time::sleep(world.clock.jitter(wait)).await;
    }
}

async fn begin(world: &Arc<World>, tenant: &Arc<TenantState>) -> Result<()> {
    let member = tenant.bound();
    let found = uid_of(&*member.api).await?;
    let record = ledger::read(&*world.host, &member).await?;
    if record.store.is_empty() {
        // The record first: from here on something of this store may stand on the host.
        ledger::write_store(world, &member, &found).await?;
        tenant.store.accept(&found);
        return Ok(());
    }
    tenant.store.accept(&record.store);
    if record.store != found {
        tenant.store.found(found);
        resolve(world, tenant).await;
    } else if record.hold.is_some_and(|hold| hold.reason == STORE_REPLACED) {
        ledger::write_hold(world, &member, None).await?;
    }
    Ok(())
}

/// Holds the tenant whenever another store is found, until that is settled.
pub async fn follow(world: &Arc<World>, tenant: &Arc<TenantState>) {
    let mut belief = tenant.store.belief.subscribe();
    // Counted, not seen: another task may have settled a doubt before this one came to look.
    let mut settled = 0;
    loop {
        // Together: a doubt that begins in between would be taken for one that is over.
        let (now, doubts) = {
            let now = belief.borrow_and_update();
            (now.clone(), tenant.store.doubts())
        };
        match now {
            Belief::Foreign(_) => {
                resolve(world, tenant).await;
                settled = doubts;
            }
            Belief::Doubted => {
                if tenant
                    .store
                    .check(&*tenant.bound().api, &world.clock)
                    .await
                    .is_err_and(|e| e.kind() != Kind::Conflict)
                {
                    tokio::time::sleep(world.clock.jitter(RECENT)).await;
                }
            }
            Belief::Known => {
                if std::mem::replace(&mut settled, doubts) != doubts {
                    world.push_all(tenant);
                    tenant.service_changed.notify_one();
                }
                if belief.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Until the known store answers again, or another one is accepted.
async fn resolve(world: &Arc<World>, tenant: &Arc<TenantState>) {
    let mut said = None;
    await_host_lists(tenant).await;
    loop {
        match round(world, tenant, &mut said).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => tracing::debug!(tenant = %tenant.id, %error, "a held tenant could not be looked at"),
        }
        tokio::time::sleep(world.clock.jitter(POLL)).await;
    }
    world.push_all(tenant);
    tenant.service_changed.notify_one();
}

/// One look at a held tenant. True: it is settled.
async fn round(world: &Arc<World>, tenant: &Arc<TenantState>, said: &mut Option<HoldStatus>) -> Result<bool> {
    let member = tenant.bound();
    let found = uid_of(&*member.api).await?;
    if found == tenant.store.uid() {
        ledger::write_hold(world, &member, None).await?;
        tenant.store.accept(&found);
        tracing::info!(tenant = %tenant.id, "the known store is back; it is synced again");
        hold::announce(
            world,
            &member,
            "StoreRestored",
            "the known store is back; the virtual cluster is synced again",
            false,
        )
        .await;
        return Ok(true);
    }
    let record = ledger::read(&*world.host, &member).await?;
    let decision = match (record.decision, member.on_loss) {
        (Some(decision), _) if decision.about() == found => Some(decision),
        (_, OnLoss::Discard) => Some(Decision::Discard(found.clone())),
        _ => None,
    };
    if said.as_ref().is_none_or(|hold| hold.found != found) {
        let message = explain(tenant, &found);
        tracing::warn!(tenant = %tenant.id, known = tenant.store.uid(), found, "another store answers; nothing is synced");
        let wait = hold::beginning(world, STORE_REPLACED, message.clone(), &found);
        ledger::write_hold(world, &member, Some(&wait)).await?;
        hold::announce(world, &member, STORE_REPLACED, &message, true).await;
        *said = Some(wait);
    }
    let Some(decision) = decision else { return Ok(false) };
    let done = match &decision {
        Decision::Adopt(_) => recover::adopt(world, tenant).await,
        Decision::Discard(_) => recover::discard(world, tenant).await,
    };
    if let Err(error) = done {
        hold::say_failed(
            world,
            &member,
            hold::beginning(world, STORE_REPLACED, String::new(), &found),
            &decision,
            &error,
        )
        .await?;
        return Err(error);
    }
    // Only now: whoever dies before this does it again.
    ledger::write_store(world, &member, &found).await?;
    tenant.begin_anew(&world.catalog);
    tenant.store.accept(&found);
    tracing::info!(tenant = %tenant.id, decision = decision.name(), "the new store is accepted");
    Ok(true)
}

/// What stands on the host and what to do, for a person.
fn explain(tenant: &TenantState, found: &str) -> String {
    let member = tenant.bound();
    let (name, namespace) = (member.view.cluster(), member.view.namespace());
    let known = tenant.store.uid();
    let standing = recover::standing(tenant);
    let decide = Ledger::of(&member.view).how_to_decide(&member.view, found);
    format!(
        "the API server came back with another store (uid of kube-system was {known}, is {found}), so nothing that it \
         says is carried to the host. There {standing}, all as before. Restore the store of {namespace}/{name} and all \
         goes on by itself; or {decide}"
    )
}

/// Counts want whole lists; those of the host do not depend on the tenant.
async fn await_host_lists(tenant: &TenantState) {
    let is_known = || {
        let mut hosts = tenant.kinds.iter().filter_map(|kind| kind.host.as_ref());
        hosts.all(|host| host.state.get() != SourceState::Starting)
    };
    let deadline = Instant::now() + COUNTING;
    while !is_known() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
