//! Deletions on the host that nobody asked for: few of them are repair, many at once are a fault somewhere.
//!
//! A copy's end was asked for when the end of its origin was seen, when it is ending already, or when it was left by a
//! deleted namesake. Everything else is a conclusion from what is missing, and a list can miss what is there: an API
//! server restored from an old backup, a broken answer, a fault of ours. Promises: such deletions of one tenant wait as
//! soon as they are [`SyncerConfig::mass_deletion_number`](crate::config::SyncerConfig) and that share of a kind; a second,
//! independent reading of the tenant decides about what can be made again; pods, claims and whole tenants wait for a
//! person, unless they are meant to be thrown away. Nothing else of the tenant waits with them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::crd::{HoldStatus, OnLoss};
use crate::error::Result;
use crate::kubernetes::ListOptions;
use crate::syncer::attempt::{Pair, Stop};
use crate::syncer::cache::text;
use crate::syncer::deletions::{Count, State};
use crate::syncer::hold;
use crate::syncer::incoming::key_of;
use crate::syncer::kind::{ObjectKey, TenantView};
use crate::syncer::ledger::{self, Decision, Ledger};
use crate::syncer::queue::Item;
use crate::syncer::recover;
use crate::syncer::tenant::{Member, TenantState};
use crate::syncer::world::World;
use crate::translate::identity;

/// `status.hold.reason` while a person is waited for.
pub const MASS_DELETION: &str = "MassDeletion";

/// A count holds so long; a burst must not count anew for each of its deletions.
const FRESH: Duration = Duration::from_secs(1);
/// Before the second reading: what made the first one wrong may be over by then.
const SECOND_READING: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_secs(5);
/// How soon a deletion that waits is looked at again.
const WAIT: Duration = Duration::from_secs(3);
/// A plan that was not made again for so long is no longer made.
const PLANNED: Duration = Duration::from_secs(60);
/// What was read twice may go for so long.
const CLEARED: Duration = Duration::from_secs(120);

/// Whether the copy of this object may be deleted now. Later, while it is not known whether it should.
pub fn admit(world: &World, tenant: &TenantState, member: &Member, item: &Item, pair: &Pair) -> Result<(), Stop> {
    let Some(host) = pair.host.as_ref() else { return Ok(()) };
    if is_asked_for(world, tenant, &member.view, item, pair.virtual_object.as_ref(), host) {
        return Ok(());
    }
    let deletions = &tenant.deletions;
    let now = world.clock.instant();
    let mut standing = deletions.standing(item.kind).lock();
    if pair.virtual_object.is_some() {
        standing.unwanted.insert(item.key.clone(), now);
        standing.counted = None;
    }
    match &standing.state {
        State::Cleared(keys, until) if now < *until => {
            if keys.contains(&item.key) {
                return Ok(());
            }
        }
        State::Cleared(..) => standing.state = State::Free,
        State::Suspect | State::Waiting => return Err(Stop::Later(WAIT)),
        State::Free => {}
    }
    let count = match standing.counted {
        Some((at, count)) if now.duration_since(at) < FRESH => count,
        _ => {
            let mut count = count(world, tenant, &member.view, item.kind);
            standing.unwanted.retain(|_, at| now.duration_since(*at) < PLANNED);
            count.missing = (count.missing + standing.unwanted.len()).max(1);
            standing.counted = Some((now, count));
            count
        }
    };
    if !count.is_mass(&world.config, deletions.is_rewound(world.clock.instant())) {
        return Ok(());
    }
    standing.state = State::Suspect;
    drop(standing);
    deletions.wake.notify_one();
    Err(Stop::Later(WAIT))
}

/// Whether a user, or what a user did, ends this copy.
fn is_asked_for(
    world: &World,
    tenant: &TenantState,
    view: &TenantView,
    item: &Item,
    virtual_object: Option<&Value>,
    host: &Value,
) -> bool {
    if !text(host, "deletionTimestamp").is_empty() || is_foreign(host, view) || tenant.saw_end(item.kind, &item.key) {
        return true;
    }
    match virtual_object {
        None => false,
        Some(object) if !text(object, "deletionTimestamp").is_empty() => true,
        // Another object of that name: the first one ended. What nobody uses any more is copied again when somebody does.
        Some(object) => {
            text(object, "uid") != identity::recorded_uid(host) || world.catalog.kind(item.kind).fetch_body_on_demand()
        }
    }
}

/// Left by a deleted namesake: its owner is another one.
fn is_foreign(host: &Value, view: &TenantView) -> bool {
    let Some(owner) = &view.owner else { return false };
    let owners = host.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.is_some_and(|owners| !owners.is_empty() && owners.iter().all(|o| o["uid"] != owner.uid.as_str()))
}

fn count(world: &World, tenant: &TenantState, view: &TenantView, kind: u16) -> Count {
    let state = tenant.kind(kind);
    let copies = tenant.copies(kind);
    let mut count = Count { missing: 0, all: copies.len() };
    let Some(host) = &state.host else { return count };
    let (virtual_objects, host_objects) = (state.objects.read(), host.objects.read());
    for (key, name) in copies {
        let Some(entry) = host_objects.get(&name) else { continue };
        // What is there is the origin's own affair; a plan that deletes its copy all the same counts when it comes.
        if virtual_objects.get(&key).is_none() {
            let item = Item { kind, key };
            count.missing += usize::from(!is_asked_for(world, tenant, view, &item, None, &entry.object()));
        }
    }
    count
}

/// Second readings, and the wait for a person, as long as the tenant is there.
pub async fn follow(world: &Arc<World>, tenant: &Arc<TenantState>) {
    let mut waiting: Option<HoldStatus> = None;
    loop {
        let poll = async {
            match waiting {
                Some(_) => tokio::time::sleep(world.clock.jitter(POLL)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tenant.deletions.wake.notified() => {}
            () = poll => {}
        }
        for kind in kinds_in(tenant, |state| *state == State::Suspect) {
            tokio::time::sleep(world.clock.jitter(SECOND_READING)).await;
            if let Err(error) = read_again(world, tenant, kind).await {
                tracing::info!(tenant = %tenant.id, %error, "deletions wait: the tenant cannot be read a second time");
                tenant.deletions.wake.notify_one();
            }
        }
        if let Err(error) = ask(world, tenant, &mut waiting).await {
            tracing::debug!(tenant = %tenant.id, %error, "deletions wait");
        }
    }
}

fn kinds_in(tenant: &TenantState, wanted: impl Fn(&State) -> bool) -> Vec<u16> {
    let kinds = tenant.deletions.kinds.iter().enumerate().filter(|(_, standing)| wanted(&standing.lock().state));
    kinds.filter_map(|(kind, _)| u16::try_from(kind).ok()).collect()
}

/// Lists the kind once more, past every cache, and decides what that means for its deletions.
async fn read_again(world: &Arc<World>, tenant: &Arc<TenantState>, kind: u16) -> Result<()> {
    let member = tenant.bound();
    let resource = world.catalog.kind(kind).resource();
    tenant.store.check(&*member.api, &world.clock).await?;
    let (items, _) = member.api.list(&resource, None, &ListOptions::default()).await?;
    tenant.store.check(&*member.api, &world.clock).await?;
    let there: HashSet<ObjectKey> = items.iter().map(key_of).collect();
    let missing = missing(world, tenant, kind);
    let mut overlooked = 0;
    for object in items {
        let key = key_of(&object);
        if missing.contains(&key) && tenant.kind(kind).objects.read().get(&key).is_none() {
            overlooked += 1;
            world.learn_virtual(tenant, &resource, object);
        }
    }
    let unwanted = tenant.deletions.standing(kind).lock().unwanted.len();
    let gone: HashSet<ObjectKey> = missing.difference(&there).cloned().collect();
    let found = Count { missing: gone.len() + unwanted, all: tenant.copies(kind).len() };
    let is_mass = found.is_mass(&world.config, tenant.deletions.is_rewound(world.clock.instant()));
    let state = if !is_mass {
        State::Free
    } else if unwanted > 0 || found.wants_a_person(resource.kind) && member.on_loss == OnLoss::Hold {
        State::Waiting
    } else {
        State::Cleared(gone, world.clock.instant() + CLEARED)
    };
    tracing::warn!(tenant = %tenant.id, kind = resource.kind, missing = found.missing, of = found.all, overlooked,
        waits = state == State::Waiting, "many objects vanished without having been deleted");
    tenant.deletions.set(kind, state);
    world.push_kind(tenant, kind);
    Ok(())
}

/// Says that a person is waited for, and looks whether he decided or the tenant has everything back.
async fn ask(world: &Arc<World>, tenant: &Arc<TenantState>, waiting: &mut Option<HoldStatus>) -> Result<()> {
    if !tenant.store.is_believed() {
        // Another hold is in force, and its word stands.
        return Ok(());
    }
    let member = tenant.bound();
    let rewound = tenant.deletions.is_rewound(world.clock.instant());
    for kind in kinds_in(tenant, |state| *state == State::Waiting) {
        let gone = missing(world, tenant, kind).len();
        if !(Count { missing: gone, all: tenant.copies(kind).len() }).is_mass(&world.config, rewound) {
            tenant.deletions.set(kind, State::Free);
            world.push_kind(tenant, kind);
        }
    }
    let kinds = kinds_in(tenant, |state| *state == State::Waiting);
    if kinds.is_empty() {
        if waiting.is_some() {
            ledger::write_hold(world, &member, None).await?;
            *waiting = None;
        }
        return Ok(());
    }
    let Some(said) = &*waiting else {
        let said = say(world, tenant, &member, &kinds);
        ledger::write_hold(world, &member, Some(&said)).await?;
        hold::announce(world, &member, MASS_DELETION, &said.message, true).await;
        *waiting = Some(said);
        return Ok(());
    };
    let decision = ledger::read(&*world.host, &member).await?.decision;
    match decision.filter(|decision| decision.about() == said.found) {
        None => return Ok(()),
        Some(decision @ Decision::Adopt(_)) => {
            if let Err(error) = recover::adopt(world, tenant).await {
                hold::say_failed(world, &member, said.clone(), &decision, &error).await?;
                return Err(error);
            }
        }
        Some(Decision::Discard(_)) => {
            let until = world.clock.instant() + CLEARED;
            for kind in &kinds {
                tenant.deletions.set(*kind, State::Cleared(missing(world, tenant, *kind), until));
            }
        }
    }
    *tenant.deletions.rewound.lock() = None;
    ledger::write_hold(world, &member, None).await?;
    *waiting = None;
    for kind in kinds {
        world.push_kind(tenant, kind);
    }
    Ok(())
}

/// Copies without an origin, and those that a plan would delete beside their origin.
fn missing(world: &World, tenant: &TenantState, kind: u16) -> HashSet<ObjectKey> {
    let now = world.clock.instant();
    let mut standing = tenant.deletions.standing(kind).lock();
    standing.unwanted.retain(|_, at| now.duration_since(*at) < PLANNED);
    let unwanted: Vec<ObjectKey> = standing.unwanted.keys().cloned().collect();
    drop(standing);
    let objects = tenant.kind(kind).objects.read();
    let copies = tenant.copies(kind).into_iter().map(|(key, _)| key);
    copies.filter(|key| objects.get(key).is_none()).chain(unwanted).collect()
}

fn say(world: &World, tenant: &TenantState, member: &Member, kinds: &[u16]) -> HoldStatus {
    let counts: Vec<String> = kinds
        .iter()
        .map(|kind| {
            let all = tenant.copies(*kind).len();
            format!("{} of {all} {}", missing(world, tenant, *kind).len(), world.catalog.kind(*kind).resource().plural)
        })
        .collect();
    let mut said = hold::beginning(world, MASS_DELETION, String::new(), "");
    // A decision is about this very wait, not about the next one.
    said.found = format!("deletions-{}", world.clock.now().as_second());
    let decide = Ledger::of(&member.view).how_to_decide(&member.view, &said.found);
    let rewound = if tenant.deletions.is_rewound(world.clock.instant()) {
        " (its versions went back, as after a restore from an older backup)"
    } else {
        ""
    };
    said.message = format!(
        "the API server no longer has {} that run or stand on the host, and nobody deleted them{rewound}; they stay until \
         somebody decides, everything else is synced. If they come back, all goes on by itself; else {decide}",
        counts.join(", ")
    );
    said
}
