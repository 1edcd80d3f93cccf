//! Which store a tenant's API server has, and what happens when it comes back with another one.
//!
//! A store is known by the uid of its Namespace `kube-system`. Promises: nothing of a tenant is synced before its store
//! is recorded on the host ([`ledger`]); nothing that another store says is believed, nothing on the host changes because
//! of it, and no cache forgets what the known one said; a person, or `storage.onLoss: discard`, decides, or the known
//! store comes back and all goes on. What a decision does, [`recover`](super::recover) knows.

pub mod ledger;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::crd::{HoldStatus, OnLoss};
use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::api::Cluster;
use crate::kubernetes::resources::{EVENTS, NAMESPACES};
use crate::runtime::clock::Clock;
use crate::syncer::cache::{SourceState, text};
use crate::syncer::engine::Engine;
use crate::syncer::recover;
use crate::syncer::tenant::{Member, TenantState};

pub use self::ledger::{Decision, Ledger, Record};

/// `status.hold.reason` and condition of a tenant whose store is another one.
pub const STORE_REPLACED: &str = "StoreReplaced";

/// So old may the last look at the store be when something is deleted on the host. A control plane takes longer to come
/// back, and deletions come in bursts.
const RECENT: Duration = Duration::from_secs(1);
/// How often a held tenant is looked at.
const POLL: Duration = Duration::from_secs(5);
/// So long the first message of a hold waits to know what stands on the host.
const COUNTING: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// Whether what a tenant's API server says is believed.
#[derive(Debug, Default)]
pub struct StoreGuard {
    known: Mutex<Known>,
    /// Grows when another store is accepted: all lists are made again.
    epoch: AtomicU64,
    belief: watch::Sender<Belief>,
}

/// What is thought of the store that answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Belief {
    /// It is the known one.
    #[default]
    Known,
    /// Another server may answer by now: nobody has looked yet.
    Doubted,
    /// It is another one, of this uid.
    Foreign(String),
}

#[derive(Debug, Default)]
struct Known {
    uid: String,
    looked: Option<Instant>,
}

impl StoreGuard {
    /// Whether the store is known and the known one answers, as far as anybody has looked.
    pub fn is_believed(&self) -> bool {
        *self.belief.borrow() == Belief::Known && !self.known.lock().uid.is_empty()
    }

    /// Which acceptance of a store this is.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Asks the server which store it has. An error of kind `Conflict` when it is not the known one; nothing that it said
    /// just before or says next may be used then.
    pub async fn check(&self, cluster: &dyn Cluster, clock: &Clock) -> Result<()> {
        let uid = uid_of(cluster).await?;
        let mut known = self.known.lock();
        if uid == known.uid {
            known.looked = Some(clock.instant());
            drop(known);
            self.belief.send_if_modified(|belief| {
                let doubted = *belief == Belief::Doubted;
                if doubted {
                    *belief = Belief::Known;
                }
                doubted
            });
            return Ok(());
        }
        known.looked = None;
        drop(known);
        self.found(uid);
        Err(Error::backend(Kind::Conflict, "the API server has another store than the one that is known"))
    }

    /// As [`Self::check`], unless somebody looked a moment ago.
    pub async fn check_recent(&self, cluster: &dyn Cluster, clock: &Clock) -> Result<()> {
        let looked = self.known.lock().looked;
        if looked.is_some_and(|at| clock.instant().duration_since(at) < RECENT) && self.is_believed() {
            return Ok(());
        }
        self.check(cluster, clock).await
    }

    /// Resolves when the known store, or a newly accepted one, is believed.
    pub async fn until_believed(&self) {
        let mut belief = self.belief.subscribe();
        // The sender lives as long as we do.
        let _ = belief.wait_for(|belief| *belief == Belief::Known).await;
    }

    /// Another server may answer from now on: nothing of it counts before its store has been looked at.
    pub fn doubt(&self) {
        self.known.lock().looked = None;
        self.belief.send_if_modified(|belief| {
            let known = *belief == Belief::Known;
            if known {
                *belief = Belief::Doubted;
            }
            known
        });
    }

    fn uid(&self) -> String {
        self.known.lock().uid.clone()
    }

    fn found(&self, uid: String) {
        self.belief.send_if_modified(|belief| {
            let found = Belief::Foreign(uid);
            let is_news = *belief != found;
            *belief = found;
            is_news
        });
    }

    /// This store is the one to believe.
    fn accept(&self, uid: &str) {
        let mut known = self.known.lock();
        if !known.uid.is_empty() && known.uid != uid {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        uid.clone_into(&mut known.uid);
        known.looked = None;
        drop(known);
        self.belief.send_replace(Belief::Known);
    }
}

/// uid of the store behind an API server.
async fn uid_of(cluster: &dyn Cluster) -> Result<String> {
    let namespace = cluster.get(&NAMESPACES, None, "kube-system").await?;
    let uid = namespace.as_ref().map(|namespace| text(namespace, "uid")).unwrap_or_default();
    if uid.is_empty() {
        // An API server makes it within its first seconds; before that, an empty store proves nothing.
        return Err(Error::backend(Kind::Unavailable, "the API server has no Namespace kube-system yet"));
    }
    Ok(uid.to_owned())
}

/// Until the tenant's store is recorded and believed.
pub async fn settle(engine: &Arc<Engine>, tenant: &Arc<TenantState>) {
    let mut access = engine.access.clone();
    while !Ledger::of(&tenant.bound().view).may_write(&access) {
        access.changed().await;
    }
    let mut failures = 0_u32;
    while let Err(error) = begin(engine, tenant).await {
        failures += 1;
        if failures == 5 {
            tracing::info!(tenant = %tenant.id, %error, "nothing is synced before its store is known");
        }
        let wait = Duration::from_millis(100).saturating_mul(1 << failures.min(7)).min(LONGEST_BACKOFF);
        tokio::time::sleep(engine.clock.jitter(wait)).await;
    }
}

async fn begin(engine: &Arc<Engine>, tenant: &Arc<TenantState>) -> Result<()> {
    let member = tenant.bound();
    let found = uid_of(&*member.api).await?;
    let record = ledger::read(&*engine.host, &member).await?;
    if record.store.is_empty() {
        // The record first: from here on something of this store may stand on the host.
        ledger::write_store(engine, &member, &found).await?;
        tenant.store.accept(&found);
        return Ok(());
    }
    tenant.store.accept(&record.store);
    if record.store != found {
        tenant.store.found(found);
        resolve(engine, tenant).await;
    } else if record.hold.is_some_and(|hold| hold.reason == STORE_REPLACED) {
        ledger::write_hold(engine, &member, None).await?;
    }
    Ok(())
}

/// Holds the tenant whenever another store is found, until that is settled.
pub async fn follow(engine: &Arc<Engine>, tenant: &Arc<TenantState>) {
    let mut belief = tenant.store.belief.subscribe();
    let mut doubted = false;
    loop {
        let now = belief.borrow_and_update().clone();
        match now {
            Belief::Foreign(_) => {
                resolve(engine, tenant).await;
                doubted = false;
            }
            Belief::Doubted => {
                doubted = true;
                if tenant
                    .store
                    .check(&*tenant.bound().api, &engine.clock)
                    .await
                    .is_err_and(|e| e.kind() != Kind::Conflict)
                {
                    tokio::time::sleep(engine.clock.jitter(RECENT)).await;
                }
            }
            Belief::Known => {
                if std::mem::take(&mut doubted) {
                    engine.push_all(tenant);
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
async fn resolve(engine: &Arc<Engine>, tenant: &Arc<TenantState>) {
    let mut said = None;
    await_host_lists(tenant).await;
    loop {
        match round(engine, tenant, &mut said).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => tracing::debug!(tenant = %tenant.id, %error, "a held tenant could not be looked at"),
        }
        tokio::time::sleep(engine.clock.jitter(POLL)).await;
    }
    engine.push_all(tenant);
    tenant.service_changed.notify_one();
}

/// One look at a held tenant. True: it is settled.
async fn round(engine: &Arc<Engine>, tenant: &Arc<TenantState>, said: &mut Option<HoldStatus>) -> Result<bool> {
    let member = tenant.bound();
    let found = uid_of(&*member.api).await?;
    if found == tenant.store.uid() {
        ledger::write_hold(engine, &member, None).await?;
        tenant.store.accept(&found);
        tracing::info!(tenant = %tenant.id, "the known store is back; it is synced again");
        announce(
            engine,
            &member,
            "StoreRestored",
            "the known store is back; the virtual cluster is synced again",
            false,
        )
        .await;
        return Ok(true);
    }
    let record = ledger::read(&*engine.host, &member).await?;
    let decision = match (record.decision, member.on_loss) {
        (Some(decision), _) if decision.about() == found => Some(decision),
        (_, OnLoss::Discard) => Some(Decision::Discard(found.clone())),
        _ => None,
    };
    if said.as_ref().is_none_or(|hold| hold.found != found) {
        let message = explain(tenant, &found);
        tracing::warn!(tenant = %tenant.id, known = tenant.store.uid(), found, "another store answers; nothing is synced");
        let hold = hold(engine, message.clone(), &found);
        ledger::write_hold(engine, &member, Some(&hold)).await?;
        announce(engine, &member, STORE_REPLACED, &message, true).await;
        *said = Some(hold);
    }
    let Some(decision) = decision else { return Ok(false) };
    let done = match &decision {
        Decision::Adopt(_) => recover::adopt(engine, tenant).await,
        Decision::Discard(_) => recover::discard(engine, tenant).await,
    };
    if let Err(error) = done {
        say_failed(engine, &member, hold(engine, String::new(), &found), &decision, &error).await?;
        return Err(error);
    }
    // Only now: whoever dies before this does it again.
    ledger::write_store(engine, &member, &found).await?;
    tenant.begin_anew(&engine.catalog);
    tenant.store.accept(&found);
    tracing::info!(tenant = %tenant.id, decision = decision.name(), "the new store is accepted");
    Ok(true)
}

pub(super) fn hold(engine: &Engine, message: String, found: &str) -> HoldStatus {
    let since = engine.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    HoldStatus { reason: STORE_REPLACED.to_owned(), message, found: found.to_owned(), since }
}

/// Tells whoever waits for what he decided that it does not succeed; it is tried again.
pub(super) async fn say_failed(
    engine: &Engine,
    member: &Member,
    mut hold: HoldStatus,
    decision: &Decision,
    error: &Error,
) -> Result<()> {
    hold.message = format!("{}{} is tried again: {error}", HoldStatus::FAILED, decision.name());
    ledger::write_hold(engine, member, Some(&hold)).await
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

/// An Event on the tenant's VirtualCluster. Best effort: the hold itself is recorded.
pub(super) async fn announce(engine: &Engine, member: &Member, reason: &str, message: &str, warning: bool) {
    let Some(involved) = Ledger::of(&member.view).involved(&member.view) else { return };
    if !engine.access.allow("create", &EVENTS, "") {
        return;
    }
    let suffix = engine.clock.random_below(u64::MAX);
    let mut event = super::explain::event(&involved, reason, message, warning, engine.clock.now(), suffix);
    if let Some(about) = event.get_mut("involvedObject").and_then(serde_json::Value::as_object_mut) {
        about.insert("uid".to_owned(), json!(member.view.uid));
    }
    let namespace = member.view.namespace().as_str();
    if let Err(error) = engine.host.create(&EVENTS, Some(namespace), ("", ""), &event).await {
        tracing::debug!(tenant = %member.view.id, %error, "an Event could not be written on the host");
    }
}

/// For errors that only say: wait.
pub(super) fn waiting(for_what: &str) -> Error {
    Error::new(Side::Own, Kind::Unavailable, for_what)
}
