//! Deletions on the host that nobody asked for: few of them are repair, many at once are a fault somewhere.
//!
//! A copy's end was asked for when the end of its origin was seen, when it is ending already, or when it was left by a
//! deleted namesake. Everything else is a conclusion from what is missing, and a list can miss what is there: an API
//! server restored from an old backup, a broken answer, a fault of ours. Promises: such deletions of one tenant wait as
//! soon as they are [`SyncerConfig::mass_deletion_number`](crate::config::SyncerConfig) and that share of a kind; a second,
//! independent reading of the tenant decides about what can be made again; pods, claims and whole tenants wait for a
//! person, unless they are meant to be thrown away. Nothing else of the tenant waits with them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::SyncerConfig;
use crate::crd::{HoldStatus, OnLoss};
use crate::error::Result;
use crate::kubernetes::ListOptions;
use crate::syncer::apply::Stop;
use crate::syncer::cache::text;
use crate::syncer::engine::Engine;
use crate::syncer::kind::{ObjectKey, TenantView};
use crate::syncer::queue::Item;
use crate::syncer::store::{Decision, Ledger, announce, hold, ledger, say_failed};
use crate::syncer::tenant::{Member, TenantState, key_of};
use crate::syncer::{recover, worker::Pair};
use crate::translate::identity;

/// `status.hold.reason` while a person is waited for.
pub const MASS_DELETION: &str = "MassDeletion";

/// What holds data or runs: never made again as it was.
const IRREPLACEABLE: [&str; 2] = ["Pod", "PersistentVolumeClaim"];
/// Of the others so many, and nearly all, are for a person too.
const WHOLE_NUMBER: usize = 50;
const WHOLE_SHARE: usize = 80;

/// A count holds so long; a burst must not count anew for each of its deletions.
const FRESH: Duration = Duration::from_secs(1);
/// Before the second reading: what made the first one wrong may be over by then.
const SECOND_READING: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_secs(5);
/// How soon a deletion that waits is looked at again.
const WAIT: Duration = Duration::from_secs(3);
/// So long after its versions went back every object that a tenant misses is suspect.
const REWOUND: Duration = Duration::from_secs(900);
/// A plan that was not made again for so long is no longer made.
const PLANNED: Duration = Duration::from_secs(60);
/// What was read twice may go for so long.
const CLEARED: Duration = Duration::from_secs(120);

/// What is known of a tenant's deletions, by kind.
pub struct Deletions {
    kinds: Vec<Mutex<Standing>>,
    wake: Notify,
    /// When its API server's versions went back although the store is the same: it was restored from a backup.
    rewound: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Standing {
    counted: Option<(Instant, Count)>,
    /// Copies whose origin is there and whose plan is to delete them all the same, with the time of the last such plan.
    unwanted: HashMap<ObjectKey, Instant>,
    state: State,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    /// To be read a second time.
    Suspect,
    /// A person must decide.
    Waiting,
    /// These may go until then.
    Cleared(HashSet<ObjectKey>, Instant),
}

/// Copies of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    /// Whose origin is missing without anybody having asked for its end.
    missing: usize,
    all: usize,
}

impl Count {
    /// Too many to be repair.
    fn is_mass(self, config: &SyncerConfig, rewound: bool) -> bool {
        let (number, share) = if rewound { (1, 0) } else { (config.mass_deletion_number, config.mass_deletion_share) };
        self.missing >= number.max(1) && self.missing * 100 >= self.all * usize::from(share)
    }

    /// Too many for a second reading alone.
    fn wants_a_person(self, kind: &str) -> bool {
        IRREPLACEABLE.contains(&kind) || (self.missing >= WHOLE_NUMBER && self.missing * 100 >= self.all * WHOLE_SHARE)
    }
}

impl Deletions {
    /// Nothing suspected.
    pub fn new(kinds: usize) -> Self {
        let kinds = (0..kinds).map(|_| Mutex::default()).collect();
        Self { kinds, wake: Notify::new(), rewound: Mutex::default() }
    }

    /// The tenant's API server lists an older state than it has delivered.
    pub fn rewound(&self, now: Instant) {
        *self.rewound.lock() = Some(now);
    }

    fn is_rewound(&self, now: Instant) -> bool {
        self.rewound.lock().is_some_and(|at| now.duration_since(at) < REWOUND)
    }

    fn standing(&self, kind: u16) -> &Mutex<Standing> {
        &self.kinds[usize::from(kind)]
    }

    fn set(&self, kind: u16, state: State) {
        let mut standing = self.standing(kind).lock();
        standing.counted = None;
        standing.state = state;
    }
}

/// Whether the copy of this object may be deleted now. Later, while it is not known whether it should.
pub fn admit(engine: &Engine, tenant: &TenantState, member: &Member, item: &Item, pair: &Pair) -> Result<(), Stop> {
    let Some(host) = pair.host.as_ref() else { return Ok(()) };
    if is_asked_for(engine, tenant, &member.view, item, pair.virtual_object.as_ref(), host) {
        return Ok(());
    }
    let deletions = &tenant.deletions;
    let now = engine.clock.instant();
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
            let mut count = count(engine, tenant, &member.view, item.kind);
            standing.unwanted.retain(|_, at| now.duration_since(*at) < PLANNED);
            count.missing = (count.missing + standing.unwanted.len()).max(1);
            standing.counted = Some((now, count));
            count
        }
    };
    if !count.is_mass(&engine.config, deletions.is_rewound(engine.clock.instant())) {
        return Ok(());
    }
    standing.state = State::Suspect;
    drop(standing);
    deletions.wake.notify_one();
    Err(Stop::Later(WAIT))
}

/// Whether a user, or what a user did, ends this copy.
fn is_asked_for(
    engine: &Engine,
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
            text(object, "uid") != identity::recorded_uid(host) || engine.catalog.kind(item.kind).fetch_body_on_demand()
        }
    }
}

/// Left by a deleted namesake: its owner is another one.
fn is_foreign(host: &Value, view: &TenantView) -> bool {
    let Some(owner) = &view.owner else { return false };
    let owners = host.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.is_some_and(|owners| !owners.is_empty() && owners.iter().all(|o| o["uid"] != owner.uid.as_str()))
}

fn count(engine: &Engine, tenant: &TenantState, view: &TenantView, kind: u16) -> Count {
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
            count.missing += usize::from(!is_asked_for(engine, tenant, view, &item, None, &entry.object()));
        }
    }
    count
}

/// Second readings, and the wait for a person, as long as the tenant is there.
pub async fn follow(engine: &Arc<Engine>, tenant: &Arc<TenantState>) {
    let mut waiting: Option<HoldStatus> = None;
    loop {
        let poll = async {
            match waiting {
                Some(_) => tokio::time::sleep(engine.clock.jitter(POLL)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tenant.deletions.wake.notified() => {}
            () = poll => {}
        }
        for kind in kinds_in(tenant, |state| *state == State::Suspect) {
            tokio::time::sleep(engine.clock.jitter(SECOND_READING)).await;
            if let Err(error) = read_again(engine, tenant, kind).await {
                tracing::info!(tenant = %tenant.id, %error, "deletions wait: the tenant cannot be read a second time");
                tenant.deletions.wake.notify_one();
            }
        }
        if let Err(error) = ask(engine, tenant, &mut waiting).await {
            tracing::debug!(tenant = %tenant.id, %error, "deletions wait");
        }
    }
}

fn kinds_in(tenant: &TenantState, wanted: impl Fn(&State) -> bool) -> Vec<u16> {
    let kinds = tenant.deletions.kinds.iter().enumerate().filter(|(_, standing)| wanted(&standing.lock().state));
    kinds.filter_map(|(kind, _)| u16::try_from(kind).ok()).collect()
}

/// Lists the kind once more, past every cache, and decides what that means for its deletions.
async fn read_again(engine: &Arc<Engine>, tenant: &Arc<TenantState>, kind: u16) -> Result<()> {
    let member = tenant.bound();
    let resource = engine.catalog.kind(kind).resource();
    tenant.store.check(&*member.api, &engine.clock).await?;
    let (items, _) = member.api.list(&resource, None, &ListOptions::default()).await?;
    tenant.store.check(&*member.api, &engine.clock).await?;
    let there: HashSet<ObjectKey> = items.iter().map(key_of).collect();
    let missing = missing(engine, tenant, kind);
    let mut overlooked = 0;
    for object in items {
        let key = key_of(&object);
        if missing.contains(&key) && tenant.kind(kind).objects.read().get(&key).is_none() {
            overlooked += 1;
            engine.learn_virtual(tenant, &resource, object);
        }
    }
    let unwanted = tenant.deletions.standing(kind).lock().unwanted.len();
    let gone: HashSet<ObjectKey> = missing.difference(&there).cloned().collect();
    let found = Count { missing: gone.len() + unwanted, all: tenant.copies(kind).len() };
    let is_mass = found.is_mass(&engine.config, tenant.deletions.is_rewound(engine.clock.instant()));
    let state = if !is_mass {
        State::Free
    } else if unwanted > 0 || found.wants_a_person(resource.kind) && member.on_loss == OnLoss::Hold {
        State::Waiting
    } else {
        State::Cleared(gone, engine.clock.instant() + CLEARED)
    };
    tracing::warn!(tenant = %tenant.id, kind = resource.kind, missing = found.missing, of = found.all, overlooked,
        waits = state == State::Waiting, "many objects vanished without having been deleted");
    tenant.deletions.set(kind, state);
    engine.push_kind(tenant, kind);
    Ok(())
}

/// Says that a person is waited for, and looks whether he decided or the tenant has everything back.
async fn ask(engine: &Arc<Engine>, tenant: &Arc<TenantState>, waiting: &mut Option<HoldStatus>) -> Result<()> {
    if !tenant.store.is_believed() {
        // Another hold is in force, and its word stands.
        return Ok(());
    }
    let member = tenant.bound();
    let rewound = tenant.deletions.is_rewound(engine.clock.instant());
    for kind in kinds_in(tenant, |state| *state == State::Waiting) {
        let gone = missing(engine, tenant, kind).len();
        if !(Count { missing: gone, all: tenant.copies(kind).len() }).is_mass(&engine.config, rewound) {
            tenant.deletions.set(kind, State::Free);
            engine.push_kind(tenant, kind);
        }
    }
    let kinds = kinds_in(tenant, |state| *state == State::Waiting);
    if kinds.is_empty() {
        if waiting.is_some() {
            ledger::write_hold(engine, &member, None).await?;
            *waiting = None;
        }
        return Ok(());
    }
    let Some(said) = &*waiting else {
        let said = say(engine, tenant, &member, &kinds);
        ledger::write_hold(engine, &member, Some(&said)).await?;
        announce(engine, &member, MASS_DELETION, &said.message, true).await;
        *waiting = Some(said);
        return Ok(());
    };
    let decision = ledger::read(&*engine.host, &member).await?.decision;
    match decision.filter(|decision| decision.about() == said.found) {
        None => return Ok(()),
        Some(decision @ Decision::Adopt(_)) => {
            if let Err(error) = recover::adopt(engine, tenant).await {
                say_failed(engine, &member, said.clone(), &decision, &error).await?;
                return Err(error);
            }
        }
        Some(Decision::Discard(_)) => {
            let until = engine.clock.instant() + CLEARED;
            for kind in &kinds {
                tenant.deletions.set(*kind, State::Cleared(missing(engine, tenant, *kind), until));
            }
        }
    }
    *tenant.deletions.rewound.lock() = None;
    ledger::write_hold(engine, &member, None).await?;
    *waiting = None;
    for kind in kinds {
        engine.push_kind(tenant, kind);
    }
    Ok(())
}

/// Copies without an origin, and those that a plan would delete beside their origin.
fn missing(engine: &Engine, tenant: &TenantState, kind: u16) -> HashSet<ObjectKey> {
    let now = engine.clock.instant();
    let mut standing = tenant.deletions.standing(kind).lock();
    standing.unwanted.retain(|_, at| now.duration_since(*at) < PLANNED);
    let unwanted: Vec<ObjectKey> = standing.unwanted.keys().cloned().collect();
    drop(standing);
    let objects = tenant.kind(kind).objects.read();
    let copies = tenant.copies(kind).into_iter().map(|(key, _)| key);
    copies.filter(|key| objects.get(key).is_none()).chain(unwanted).collect()
}

fn say(engine: &Engine, tenant: &TenantState, member: &Member, kinds: &[u16]) -> HoldStatus {
    let counts: Vec<String> = kinds
        .iter()
        .map(|kind| {
            let all = tenant.copies(*kind).len();
            format!(
                "{} of {all} {}",
                missing(engine, tenant, *kind).len(),
                engine.catalog.kind(*kind).resource().plural
            )
        })
        .collect();
    let mut said = hold(engine, String::new(), "");
    MASS_DELETION.clone_into(&mut said.reason);
    // A decision is about this very wait, not about the next one.
    said.found = format!("deletions-{}", engine.clock.now().as_second());
    let decide = Ledger::of(&member.view).how_to_decide(&member.view, &said.found);
    let rewound = if tenant.deletions.is_rewound(engine.clock.instant()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_repair_and_many_are_not() {
        let config = SyncerConfig::default();
        let mass = |missing, all| Count { missing, all }.is_mass(&config, false);
        assert!(!mass(9, 9) && !mass(10, 100) && mass(10, 30) && mass(300, 300));
        assert!(Count { missing: 1, all: 1000 }.is_mass(&config, true), "restored from a backup: not even one");
    }

    #[test]
    fn what_runs_or_holds_data_is_for_a_person() {
        let count = |missing, all| Count { missing, all };
        assert!(count(10, 20).wants_a_person("Pod") && count(10, 20).wants_a_person("PersistentVolumeClaim"));
        assert!(!count(49, 49).wants_a_person("Service") && count(50, 60).wants_a_person("Service"));
    }
}
