//! One object at a time: load both sides, let its kind plan, have the plan carried out, judge what went wrong.
//!
//! Promises: no plan before both lists are complete; nothing on the host is deleted on hearsay (a virtual object that
//! the cache misses is asked for first, of the store that is known; many at once wait, see [`mass_deletion`]); a panic
//! costs that object a retry and nothing else; what one object and the objects of one tenant take in memory while they
//! are planned is bounded ([`bounds::WEIGHT`]).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::SemaphorePermit;

use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::resources::PODS;
use crate::runtime::task;
use crate::syncer::apply::Execution;
use crate::syncer::attempt::{self, Pair, Stop};
use crate::syncer::cache::{Entry, SourceState, text};
use crate::syncer::explain::in_tenant_words;
use crate::syncer::incoming::pack_virtual;
use crate::syncer::journeys::{self, Look};
use crate::syncer::kind::{Direction, HostScope, Plan};
use crate::syncer::mass_deletion;
use crate::syncer::queue::{Item, Work};
use crate::syncer::tell;
use crate::syncer::tenant::{Member, TenantState, identify};
use crate::syncer::view::Caches;
use crate::syncer::world::World;
use crate::translate::bounds;

/// What the host refuses is tried again now and then: quotas and policies change.
const REFUSED_RETRY: Duration = Duration::from_secs(20);
/// Others of the tenant may have gone by then.
const LIMITED_RETRY: Duration = Duration::from_secs(30);
const FOREIGN_RETRY: Duration = Duration::from_secs(45);
/// Another large object of this tenant is in work.
const HEAVY_RETRY: Duration = Duration::from_millis(200);
/// One-way objects (Events) that the tenant refuses so often in a row are left.
const LAST_TRY: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Works until the queue is closed, then finishes what it began. Each object has a task of its own, so that waiting for one
/// tenant's API server takes nothing from another: they are bounded by each tenant's share of the queue, and what all of
/// them ask of the host by its [`Seats`](crate::kubernetes::seats::Seats).
pub async fn run(world: Arc<World>) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = running.next() => {}
            work = world.queue.next() => match work {
                Some(work) => running.push(task::spawn("sync-object", object(Arc::clone(&world), work)).join()),
                None => break,
            },
        }
    }
    while running.next().await.is_some() {}
}

async fn object(world: Arc<World>, work: Work) {
    let Some(tenant) = world.tenant(work.tenant()) else { return work.done(None) };
    let step = AssertUnwindSafe(one(&world, &tenant, &work)).catch_unwind();
    let outcome = tokio::select! {
        biased;
        () = tenant.closed.cancelled() => Ok(Next::Done(None)),
        outcome = step => outcome,
    };
    let next = outcome.unwrap_or_else(|_| {
        let item = work.item();
        tracing::error!(tenant = %tenant.id, kind = world.catalog.kind(item.kind).resource().kind,
            object = ?item.key, "the work on an object panicked; please report this");
        world.stats.count_error(item.kind);
        Next::Retry(REFUSED_RETRY)
    });
    match next {
        Next::Done(again) => work.done(again),
        Next::Retry(wait) => work.retry(wait),
    }
}

/// What becomes of an object after one look at it.
enum Next {
    /// Looked at again after so long, if at all.
    Done(Option<Duration>),
    /// It failed: after so long, and longer each time.
    Retry(Duration),
}

/// All that one look at an object may do; whatever panics in here costs that object a retry.
async fn one(world: &Arc<World>, tenant: &Arc<TenantState>, work: &Work) -> Next {
    match process(world, tenant, work).await {
        Ok(again) => {
            world.stats.count_done(work.item().kind, work.since().elapsed());
            Next::Done(again)
        }
        Err(stop) => conclude(world, tenant, work, stop).await,
    }
}

/// One object to its end. Some: look again after a while.
async fn process(world: &Arc<World>, tenant: &Arc<TenantState>, work: &Work) -> Result<Option<Duration>, Stop> {
    let item = work.item();
    let syncer = world.catalog.kind(item.kind);
    let state = tenant.kind(item.kind);
    let host_state = state.host.as_ref().map_or(SourceState::Synced, |host| host.state.get());
    let listed = state.state.get() == SourceState::Synced && host_state == SourceState::Synced;
    if !tenant.is_ready() || !listed || state.held.load(Ordering::Acquire) || !tenant.store.is_believed() {
        // Everything is pushed again when the lists are there, or the store is believed again.
        return Ok(None);
    }
    let member = tenant.bound();
    let cut = state.objects.read().get(&item.key).filter(|entry| entry.is_cut()).map(Entry::weight);
    if let Some(bytes) = cut {
        return recall(world, tenant, &member, item, bytes).await;
    }
    let Some(_turn) = weigh(world, tenant, item).await? else { return Ok(None) };
    let Some(pair) = load(world, tenant, &member, item).await? else { return Ok(None) };
    let host_version = pair.host.as_ref().map_or(0, |host| text(host, "resourceVersion").parse().unwrap_or(0));
    let one_way = !syncer.watches_virtual();
    if one_way && state.carried.lock().get(&item.key) == Some(&host_version) {
        return Ok(None);
    }
    let look = followed(world, tenant, work, &pair);
    let planned = look.as_ref().map(|look| look.part("plan"));
    let plan = plan(world, tenant, &member, item, &pair);
    drop(planned);
    if !one_way && plan.actions.iter().any(attempt::deletes_on_host) {
        mass_deletion::admit(world, tenant, &member, item, &pair)?;
        if pair.virtual_object.is_none() {
            confirm_gone(world, tenant, &member, item).await?;
        }
        // Last, so that it holds for the answer before it.
        tenant.store.check_recent(&*member.api, &world.clock).await?;
    }
    if pair.host.is_none() && pair.virtual_object.is_some() && plan.actions.iter().any(attempt::reports) {
        confirm_gone_on_host(world, tenant, &member, item).await?;
    }
    for reference in plan.requires {
        if let Some(item) = world.catalog.item(reference) {
            world.push(tenant, item);
        }
    }
    let mut execution = Execution::new(world, tenant, &member, item, &pair);
    for action in plan.actions {
        let _part = look.as_ref().map(|look| look.part(journeys::stage(&action)));
        execution.run(action).await?;
    }
    if look.is_some() {
        tenant.journeys.looked((&tenant.id, &item.key), &pair, world.clock.instant());
    }
    let again = execution.again_after(plan.again_after.map(Duration::from_secs));
    if one_way && again.is_none() {
        state.carried.lock().insert(item.key.clone(), host_version);
    }
    Ok(again)
}

fn followed(world: &World, tenant: &TenantState, work: &Work, pair: &Pair) -> Option<Look> {
    let item = work.item();
    if !world.traces.is_on() || world.catalog.kind(item.kind).resource() != PODS {
        return None;
    }
    let of = (&tenant.id, &item.key);
    tenant.journeys.look(&world.traces, of, pair, (work.since(), world.clock.instant()))
}

/// An object for which there was no room: read again when there is, and said so while there is not. Its copy stays as it is.
async fn recall(
    world: &Arc<World>,
    tenant: &Arc<TenantState>,
    member: &Member,
    item: &Item,
    bytes: usize,
) -> Result<Option<Duration>, Stop> {
    if bytes <= tenant.cached.room() {
        let resource = world.catalog.kind(item.kind).resource();
        let namespace = resource.namespaced.then_some(item.key.namespace.as_str());
        let found = member.api.get(&resource, namespace, &item.key.name).await?;
        world.answered(tenant);
        let Some(object) = found else { return Ok(None) };
        let incoming = pack_virtual(&world.catalog, item.kind, object);
        if incoming.entry.size() <= tenant.cached.room() {
            let touched = tenant.refill(item.kind, incoming);
            world.touched(tenant, item.clone(), touched);
            return Ok(None);
        }
    }
    let message = format!(
        "not synced: this virtual cluster has more or larger objects than are kept for it ({} bytes are); delete some that \
         you do not need",
        tenant.cached.held()
    );
    tell::about(world, tenant, item, "SyncDenied", &message).await;
    Ok(None)
}

/// What an object takes in memory is known before it is parsed: one that takes too much is not, of those that take much a
/// tenant has one in work at a time. None: nothing is to be done.
async fn weigh<'t>(
    world: &Arc<World>,
    tenant: &'t Arc<TenantState>,
    item: &Item,
) -> Result<Option<Option<SemaphorePermit<'t>>>, Stop> {
    let weight = tenant.kind(item.kind).objects.read().get(&item.key).map_or(0, Entry::weight);
    if weight > bounds::WEIGHT {
        let message = format!(
            "not synced: it has so many small fields that it takes {weight} bytes of memory, at most {} are spent on one \
             object; use fewer",
            bounds::WEIGHT
        );
        tell::about(world, tenant, item, "SyncDenied", &message).await;
        return Ok(None);
    }
    if weight <= bounds::LIGHT {
        return Ok(Some(None));
    }
    tenant.heavy.try_acquire().map(|turn| Some(Some(turn))).map_err(|_| Stop::Later(HEAVY_RETRY))
}

/// Both sides from the caches; bodies that are not kept are fetched. None: nothing is there or to be done.
async fn load(world: &World, tenant: &TenantState, member: &Member, item: &Item) -> Result<Option<Pair>, Stop> {
    let syncer = world.catalog.kind(item.kind);
    let state = tenant.kind(item.kind);
    let host = match syncer.host_scope() {
        HostScope::None => None,
        _ => tenant.host_object(item.kind, &item.key),
    };
    let mut virtual_object = state.objects.read().get(&item.key).map(Entry::object);
    if host.is_none() && !syncer.watches_virtual() {
        state.carried.lock().remove(&item.key);
        return Ok(None);
    }
    if syncer.fetch_body_on_demand() && virtual_object.is_some() {
        if tenant.is_referenced(item) {
            let resource = syncer.resource();
            let namespace = resource.namespaced.then_some(item.key.namespace.as_str());
            let body = member.api.get(&resource, namespace, &item.key.name).await?;
            world.answered(tenant);
            virtual_object = body.map(|body| syncer.project(body, Direction::Down));
        } else if host.is_none() {
            return Ok(None);
        }
    }
    if virtual_object.is_none() && host.is_none() {
        return Ok(None);
    }
    Ok(Some(Pair { virtual_object, host }))
}

fn plan(world: &World, tenant: &TenantState, member: &Member, item: &Item, pair: &Pair) -> Plan {
    let lookup =
        Caches { catalog: &world.catalog, tenant, access: &world.access, now_unix: world.clock.now().as_second() };
    let syncer = world.catalog.kind(item.kind);
    syncer.plan(&item.key, pair.virtual_object.as_ref(), pair.host.as_ref(), &member.view, &lookup)
}

/// The cache misses the copy: is it really gone? What runs would be run a second time if it were reported as failed.
async fn confirm_gone_on_host(world: &World, tenant: &TenantState, member: &Member, item: &Item) -> Result<(), Stop> {
    let syncer = world.catalog.kind(item.kind);
    let Some(name) = syncer.host_name(&item.key, &member.view).filter(|_| syncer.host_scope() == HostScope::Tenant)
    else {
        return Ok(());
    };
    let resource = syncer.resource();
    let namespace = resource.namespaced.then(|| member.view.namespace().as_str());
    match world.host.get(&resource, namespace, &name).await? {
        Some(found) if identify(syncer, &found, &member.view).as_ref() == Some(&item.key) => {
            world.learn_host(tenant, &resource, found, false);
            Err(Stop::Later(Duration::from_millis(50)))
        }
        _ => Ok(()),
    }
}

/// The cache misses the virtual object: is it really gone?
async fn confirm_gone(world: &World, tenant: &TenantState, member: &Member, item: &Item) -> Result<(), Stop> {
    let resource = world.catalog.kind(item.kind).resource();
    let namespace = resource.namespaced.then_some(item.key.namespace.as_str());
    let found = member.api.get(&resource, namespace, &item.key.name).await?;
    world.answered(tenant);
    match found {
        None => Ok(()),
        Some(object) => {
            world.learn_virtual(tenant, &resource, object);
            Err(Stop::Later(Duration::from_millis(50)))
        }
    }
}

/// What a failure means: for this object, for its tenant, for its user.
async fn conclude(world: &Arc<World>, tenant: &Arc<TenantState>, work: &Work, stop: Stop) -> Next {
    let item = work.item().clone();
    let error = match stop {
        Stop::Closed => return Next::Done(None),
        Stop::Later(wait) => return Next::Retry(wait),
        Stop::Foreign => {
            let message =
                "an object that is not managed by this virtual cluster has the name that its copy on the host needs";
            tell::about(world, tenant, &item, "SyncFailed", message).await;
            return Next::Retry(FOREIGN_RETRY);
        }
        Stop::Limited(message) => {
            tell::about(world, tenant, &item, "SyncDenied", &message).await;
            return Next::Done(Some(LIMITED_RETRY));
        }
        Stop::Failed(error) => error,
    };
    world.stats.count_error(item.kind);
    let kind = world.catalog.kind(item.kind).resource().kind;
    tracing::debug!(tenant = %tenant.id, kind, object = ?item.key, %error, failures = work.failures(), "not done");
    let refused = matches!(error.kind(), Kind::NotFound | Kind::Invalid | Kind::Forbidden | Kind::BadRequest);
    if refused && work.failures() >= LAST_TRY && !world.catalog.kind(item.kind).watches_virtual() {
        // What it is about is gone in the tenant: nobody misses the rest.
        give_up(world, tenant, &item);
        return Next::Done(None);
    }
    let asked = Duration::from_secs(u64::from(error.retry_after().unwrap_or(0)).min(60));
    match (error.side(), error.kind()) {
        (_, Kind::Conflict | Kind::AlreadyExists | Kind::NotFound | Kind::Gone) => {
            let refreshed = refresh(world, tenant, &item).await;
            Next::Retry(if refreshed.is_ok() { Duration::ZERO } else { Duration::from_millis(500) })
        }
        (Side::Host, Kind::TooManyRequests) => {
            world.queue.pause_all(asked.clamp(Duration::from_millis(200), Duration::from_secs(5)));
            Next::Retry(Duration::ZERO)
        }
        (Side::Backend, Kind::TooManyRequests) => {
            world.queue.pause_tenant(tenant.number, asked.max(Duration::from_millis(500)));
            Next::Retry(Duration::ZERO)
        }
        (Side::Backend, kind) if kind.is_of_the_server() => {
            let failures = tenant.count_failure();
            let pause = Duration::from_millis(250).saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE);
            // One object at a time finds out whether it is back.
            world.queue.narrow_tenant(tenant.number, true);
            world.queue.pause_tenant(tenant.number, world.clock.jitter(pause));
            Next::Retry(Duration::ZERO)
        }
        (Side::Host, Kind::Invalid | Kind::BadRequest | Kind::Forbidden | Kind::TooLarge | Kind::MethodNotAllowed) => {
            explain_refusal(world, tenant, &item, &error).await;
            Next::Retry(REFUSED_RETRY)
        }
        (Side::Backend, Kind::Invalid | Kind::BadRequest | Kind::Forbidden | Kind::TooLarge) => {
            if work.failures() == 0 {
                tracing::warn!(tenant = %tenant.id, kind, object = ?item.key, %error, "the tenant's API server refuses");
            }
            Next::Retry(Duration::from_secs(5))
        }
        _ => Next::Retry(Duration::ZERO),
    }
}

/// Counts this state of a one-way object as carried over; its next change is tried again.
fn give_up(world: &World, tenant: &TenantState, item: &Item) {
    let host = tenant.host_object(item.kind, &item.key);
    let version = host.as_ref().map_or(0, |host| text(host, "resourceVersion").parse().unwrap_or(0));
    let kind = world.catalog.kind(item.kind).resource().kind;
    tracing::debug!(tenant = %tenant.id, kind, object = ?item.key, "left");
    tenant.kind(item.kind).carried.lock().insert(item.key.clone(), version);
}

/// Reads both sides again, since one of them was not as the caches said.
async fn refresh(world: &World, tenant: &TenantState, item: &Item) -> Result<()> {
    let syncer = world.catalog.kind(item.kind);
    let resource = syncer.resource();
    let member = tenant.bound();
    let state = tenant.kind(item.kind);
    if syncer.watches_virtual() {
        let known = state.objects.read().get(&item.key).map_or(0, |entry| entry.version);
        let namespace = resource.namespaced.then_some(item.key.namespace.as_str());
        match member.api.get(&resource, namespace, &item.key.name).await? {
            Some(object) => world.learn_virtual(tenant, &resource, object),
            None => world.learn_virtual_gone(tenant, item.kind, &item.key, known),
        }
    }
    if let Some(host) = &state.host
        && let Some(name) = tenant.host_name(item.kind, &item.key).or_else(|| syncer.host_name(&item.key, &member.view))
    {
        let known = host.objects.read().get(&name).map_or(0, |entry| entry.version);
        let namespace = resource.namespaced.then(|| member.view.namespace().as_str());
        match world.host.get(&resource, namespace, &name).await? {
            Some(object) => world.learn_host(tenant, &resource, object, false),
            None => world.learn_host_gone(tenant, item.kind, &name, known),
        }
    }
    Ok(())
}

async fn explain_refusal(world: &Arc<World>, tenant: &Arc<TenantState>, item: &Item, error: &Error) {
    let view = &tenant.bound().view;
    let host_name = world.catalog.kind(item.kind).host_name(&item.key, view).unwrap_or_default();
    let said = bounds::cut(error.message(), bounds::MESSAGE_BYTES);
    let said = in_tenant_words(said, &host_name, &item.key, view);
    tell::about(world, tenant, item, "SyncFailed", &format!("the host cluster refuses: {said}")).await;
}
