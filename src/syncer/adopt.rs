//! Host objects that vcluster made for a tenant become Portico's, before anything is planned for it.
//!
//! Promises: no source of the tenant starts before this is over, so nothing is made a second time; every write is a patch
//! of metadata that names the object's uid; nothing is deleted here; broken off anywhere and begun again it goes on where
//! it was, since what is done no longer has the old marks alone. Whose an object is, [`legacy`] decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::resources::{CLAIMS, CONFIG_MAPS, ENDPOINTS, INGRESSES, PODS, SECRETS, SERVICES};
use crate::kubernetes::rights::Access;
use crate::kubernetes::{ListOptions, PatchKind, Resource};
use crate::names::keys;
use crate::syncer::cache::text;
use crate::syncer::kind::ObjectKey;
use crate::syncer::tenant::{Member, TenantState, identify};
use crate::syncer::world::World;
use crate::translate::legacy::{self, Around, Verdict};

/// Pods before Services: a Service that is given a selector must find them by their new labels.
const KINDS: &[Resource] = &[PODS, SERVICES, ENDPOINTS, CONFIG_MAPS, SECRETS, CLAIMS, INGRESSES];
/// Patches at a time.
const PARALLEL: usize = 8;
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// How soon kinds that were refused are tried again.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What has been done so far.
#[derive(Default)]
struct Tally {
    adopted: usize,
    left_over: usize,
    released: usize,
    /// Untouched host objects by kind and name, so that each is reported once.
    left: BTreeMap<(&'static str, String), &'static str>,
    /// Kinds of which something was, or may have been, written.
    written: BTreeSet<&'static str>,
}

/// One write.
struct Step {
    name: String,
    /// The virtual object that has this name on the host.
    key: Option<ObjectKey>,
    patch: Value,
    done: Done,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Adopted,
    LeftOver,
    Released,
}

/// Until every old object has been judged and written; at once for tenants that adopt nothing. Returns the kinds that there
/// is no right to, or that the host refused: they are held until [`follow`] has done them.
pub async fn settle(world: &World, tenant: &TenantState) -> Vec<Resource> {
    if !tenant.bound().adopts {
        return Vec::new();
    }
    let synced = |resource: &Resource| world.catalog.index_of(resource).is_some();
    let all = KINDS.iter().copied().filter(synced).collect();
    let later = possible(world, tenant, all, &world.access).await;
    for resource in &later {
        hold(world, tenant, resource, true);
    }
    later
}

/// The kinds that were held, as rights to them come.
pub async fn follow(world: &World, tenant: &TenantState, mut later: Vec<Resource>) {
    let mut access = world.access.clone();
    while !later.is_empty() {
        // A refusal need not show in the rights: a Role may have been deleted and made again between two looks at them.
        let _ = tokio::time::timeout(world.clock.jitter(ASK_AGAIN), access.changed()).await;
        tenant.store.until_believed().await;
        let held = later.clone();
        later = possible(world, tenant, later, &access).await;
        for resource in held.iter().filter(|resource| !later.contains(resource)) {
            hold(world, tenant, resource, false);
        }
    }
}

fn hold(world: &World, tenant: &TenantState, resource: &Resource, held: bool) {
    let Some(kind) = world.catalog.index_of(resource) else { return };
    tenant.kind(kind).held.store(held, Ordering::Release);
    if !held {
        world.push_kind(tenant, kind);
    }
}

/// Adopts what there is a right to and what is not refused; returns the rest.
async fn possible(world: &World, tenant: &TenantState, kinds: Vec<Resource>, access: &Access) -> Vec<Resource> {
    let mut tally = Tally::default();
    let mut later: Vec<Resource> = Vec::new();
    for resource in kinds {
        // Without its pods, a Service's new selector leads nowhere and nobody seems to use a Secret.
        let waits = later.contains(&PODS);
        if waits || !access.read(&resource) || !access.allow("patch", &resource, "") {
            later.push(resource);
            continue;
        }
        let mut failures = 0_u32;
        while let Err(error) = adopt_kind(world, tenant, &resource, &mut tally).await {
            if error.kind() == Kind::Forbidden {
                tracing::warn!(tenant = %tenant.id, kind = resource.kind, %error, "old objects cannot be listed; this kind waits");
                later.push(resource);
                break;
            }
            failures += 1;
            if failures == 3 {
                tracing::warn!(tenant = %tenant.id, kind = resource.kind, %error, "adoption keeps failing; nothing is synced before it is done");
            }
            tokio::time::sleep(world.clock.jitter(pause(&error, failures))).await;
        }
    }
    tally.report(tenant);
    later
}

fn pause(error: &Error, failures: u32) -> Duration {
    let asked = Duration::from_secs(u64::from(error.retry_after().unwrap_or(0)).min(60));
    let own = match error.kind() {
        // Somebody, a kubelet most likely, was faster.
        Kind::Conflict | Kind::NotFound => Duration::from_millis(50),
        _ => Duration::from_millis(200),
    };
    own.saturating_mul(1 << failures.min(6)).min(LONGEST_BACKOFF).max(asked)
}

/// One kind to its end, or to its first failure: then all of it again, from a fresh list.
async fn adopt_kind(world: &World, tenant: &TenantState, resource: &Resource, tally: &mut Tally) -> Result<()> {
    let member = tenant.bound();
    let namespace = Some(member.view.namespace().as_str());
    let selector = format!("{}={},!{}", legacy::MANAGED_BY, member.view.cluster(), keys::CLUSTER);
    let (old, version) = match world.host.list(resource, namespace, &selected(selector)).await {
        // The kind's source rests as well.
        Err(error) if is_off(&error) => {
            tracing::warn!(tenant = %tenant.id, kind = resource.kind, %error, "old host objects cannot be listed; none is adopted");
            return Ok(());
        }
        listed => listed?,
    };
    if !old.is_empty() {
        let Some(steps) = judge(tenant, &member, resource, &old, tally).await? else { return Ok(()) };
        // What another store does not have was not deleted by anybody.
        tenant.store.check(&*member.api, &world.clock).await?;
        write(world, tenant, resource, steps, tally).await?;
    }
    // The watch brings it too, perhaps later than the first plan; and some answers were lost. Or another syncer, one that
    // leaves at this moment, has written it since the watch began.
    if tally.written.contains(resource.kind) || is_behind(world, tenant, resource, &version) {
        let selector = format!("{}={}", keys::CLUSTER, member.view.cluster());
        for object in world.host.list(resource, namespace, &selected(selector)).await?.0 {
            learn(world, tenant, resource, object);
        }
    }
    Ok(())
}

/// Whether what is known of the host's objects is older than this list.
fn is_behind(world: &World, tenant: &TenantState, resource: &Resource, version: &str) -> bool {
    let store = world.catalog.index_of(resource).and_then(|kind| tenant.kind(kind).host.as_ref());
    let known = store.map_or(0, |store| store.objects.read().reached());
    version.parse::<u64>().is_ok_and(|version| known < version)
}

/// What is to be written. None: the tenant does not serve this kind.
async fn judge(
    tenant: &TenantState,
    member: &Member,
    resource: &Resource,
    old: &[Value],
    tally: &mut Tally,
) -> Result<Option<Vec<Step>>> {
    // After the host's list: what was there then and is not here now is gone.
    let all = ListOptions::default();
    let living = match member.api.list(resource, None, &all).await {
        Err(error) if error.side() == Side::Backend && error.kind() == Kind::NotFound => return Ok(None),
        listed => listed?.0,
    };
    let services = if *resource == ENDPOINTS { member.api.list(&SERVICES, None, &all).await?.0 } else { Vec::new() };
    let by_name = legacy::by_old_name(&living, &member.view);
    let waits = |object: &&Value| *resource == PODS && legacy::waits_for_old_labels(object);
    let around = Around { services: &services, keep_labels: old.iter().any(|object| waits(&object)) };
    // Those that need the old labels come last, so that a second beginning still sees them.
    let (last, first): (Vec<&Value>, Vec<&Value>) = old.iter().partition(waits);
    let mut steps = Vec::new();
    for host in first.into_iter().chain(last) {
        let name = text(host, "name").to_owned();
        let candidates = by_name.get(&name).map_or(&[][..], Vec::as_slice);
        let (key, patch, done) = match legacy::judge(resource.kind, host, candidates, around, &member.view) {
            Verdict::Adopt { key, patch } => (Some(key), patch, Done::Adopted),
            Verdict::LeftOver { key, patch } => (Some(key), patch, Done::LeftOver),
            Verdict::Release { patch } => (None, patch, Done::Released),
            Verdict::Leave { key, why } => {
                tally.leave(tenant, resource, key.map(object_key).as_ref(), name, why);
                continue;
            }
        };
        steps.push(Step { name, key: key.map(object_key), patch, done });
    }
    Ok(Some(steps))
}

/// All patches, some at a time; the first failure that another try can mend ends it.
async fn write(
    world: &World,
    tenant: &TenantState,
    resource: &Resource,
    steps: Vec<Step>,
    tally: &mut Tally,
) -> Result<()> {
    let member = tenant.bound();
    let namespace = Some(member.view.namespace().as_str());
    let mut steps = steps.into_iter().peekable();
    while steps.peek().is_some() {
        if world.queue.is_closed() {
            return Err(Error::own(Kind::Draining, "shutting down"));
        }
        tally.written.insert(resource.kind);
        let batch: Vec<Step> = steps.by_ref().take(PARALLEL).collect();
        let patches = batch
            .iter()
            .map(|step| world.host.patch(resource, namespace, (step.name.as_str(), ""), PatchKind::Merge, &step.patch));
        let mut failed = None;
        for (answer, step) in futures::future::join_all(patches).await.into_iter().zip(batch) {
            match answer {
                Ok(object) => {
                    tally.count(step.done);
                    if let Some(kind) = world.catalog.index_of(resource) {
                        world.stats.count_write(kind);
                    }
                    if step.done != Done::Released {
                        learn(world, tenant, resource, object);
                    }
                }
                Err(error) if is_refusal(&error) => {
                    tracing::warn!(tenant = %tenant.id, kind = resource.kind, object = %step.name, %error, "the host refuses an adoption");
                    tally.leave(
                        tenant,
                        resource,
                        step.key.as_ref(),
                        step.name,
                        "the host refuses a change of its metadata",
                    );
                }
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}

/// Puts one of our host objects where plans look for it, under the name that it has.
fn learn(world: &World, tenant: &TenantState, resource: &Resource, object: Value) {
    let Some(kind) = world.catalog.index_of(resource) else { return };
    let syncer = world.catalog.kind(kind);
    let view = &tenant.bound().view;
    let Some(key) = identify(syncer, &object, view) else { return };
    let name = text(&object, "name");
    if syncer.host_name(&key, view).as_deref() != Some(name) {
        tenant.remember_alias(resource.kind, &key, name);
    }
    world.learn_host(tenant, resource, object, true);
}

fn object_key((namespace, name): legacy::Key) -> ObjectKey {
    ObjectKey { namespace, name }
}

fn selected(label_selector: String) -> ListOptions {
    ListOptions { label_selector, ..ListOptions::default() }
}

/// Not served: a try later would say the same.
fn is_off(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::MethodNotAllowed)
}

/// The host says no to this object, and will again.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), Kind::Invalid | Kind::Forbidden | Kind::BadRequest | Kind::TooLarge)
}

impl Tally {
    fn count(&mut self, done: Done) {
        match done {
            Done::Adopted => self.adopted += 1,
            Done::LeftOver => self.left_over += 1,
            Done::Released => self.released += 1,
        }
    }

    /// Not touched. The virtual object keeps that name all the same: under today's, where it is another, a second copy
    /// would be made.
    fn leave(
        &mut self,
        tenant: &TenantState,
        resource: &Resource,
        key: Option<&ObjectKey>,
        name: String,
        why: &'static str,
    ) {
        if let Some(key) = key {
            tenant.remember_alias(resource.kind, key, &name);
        }
        if self.left.get(&(resource.kind, name.clone())) != Some(&why) {
            tracing::warn!(tenant = %tenant.id, kind = resource.kind, object = %name, why, "a host object of vcluster is left as it is");
            self.left.insert((resource.kind, name), why);
        }
    }

    fn report(&self, tenant: &TenantState) {
        let Self { adopted, left_over, released, left, written } = self;
        if !written.is_empty() || !left.is_empty() {
            tracing::info!(tenant = %tenant.id, adopted, left_over, released, left = left.len(), "host objects of vcluster were adopted");
        }
    }
}
