//! The tenant's `metrics.k8s.io`: the APIService by which its API server asks Portico, the Service to which that leads, and the
//! ClusterRole by which those who may see pods see what they use, as metrics-server brings it.
//!
//! Promises: made where there is none, and written again only while it is as Portico made it; an APIService that somebody else
//! made or changed (a metrics-server or adapter of the tenant's own) is left alone, and nothing of ours stands beside it. Whoever
//! takes ours away has a minute to put his own. It is there only where the control plane says that it relays, or its aggregator asks
//! the gateway itself: an APIService that nobody serves keeps namespaces from being deleted. The Service never reaches the host
//! ([`crate::translate::service::is_metrics_service`]).

mod objects;

use std::net::IpAddr;

use serde::Deserialize;

use self::objects::{API_SERVICE, OBJECTS, Object, Way};
use crate::error::{Kind, Result};
use crate::kubernetes::PatchKind;
use crate::syncer::cache::text;
use crate::syncer::pauses::Pauses;
use crate::syncer::tenant::{Member, TenantState};
use crate::syncer::world::World;

/// Where a control plane says that it relays, and at which port. As in `deploy/control-plane/metrics_relay.go`.
const RELAY: &str = "/portico/metrics-relay";
/// It says no more than that.
const LONGEST_WORD: usize = 4 << 10;

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Nothing is known of what was there.
    Unknown,
    /// All is as it should be.
    Settled,
    /// Nobody would serve it, and there is nothing of ours.
    Absent,
    /// Something that was there is gone: it is for whoever took it to say what comes.
    TakenAway,
}

#[derive(Deserialize)]
struct Relay {
    port: u16,
}

/// Keeps it as long as the tenant is there.
pub async fn guard(world: &World, tenant: &TenantState) {
    let mut pauses = Pauses::new(world, tenant, "its metrics API");
    let mut last = Found::Unknown;
    loop {
        tenant.store.until_believed().await;
        match step(&tenant.bound(), last).await {
            Ok(Found::TakenAway) => {
                last = Found::Unknown;
                pauses.patience().await;
            }
            Ok(found) => {
                let is_changed = pauses.settled(&tenant.metrics_service_changed).await;
                last = if is_changed { Found::Unknown } else { found };
            }
            Err(error) => pauses.failed(&error).await,
        }
    }
}

async fn step(member: &Member, last: Found) -> Result<Found> {
    let way = way(member).await?;
    if way.is_none() && last == Found::Absent {
        return Ok(last);
    }
    let outcome = settle(member, way, last).await;
    match outcome {
        // Where nobody would serve it, nothing of ours was ever made by who may not even look.
        Err(error) if way.is_none() && error.kind() == Kind::Forbidden => Ok(Found::Absent),
        outcome => outcome,
    }
}

/// How its API server reaches the gateway; `None`: not at all (an external one, an image from before the relay).
async fn way(member: &Member) -> Result<Option<Way>> {
    if member.metrics_at_gateway {
        // An address that is a name, as far as a Service knows, is one with dots.
        return Ok(Some(member.view.api_service_ip).filter(IpAddr::is_ipv4).map(Way::Gateway));
    }
    match member.api.read_path(RELAY, LONGEST_WORD).await {
        // What says something else there (a proxy that answers every path) is no relay.
        Ok(said) => Ok(serde_json::from_slice::<Relay>(&said).ok().map(|relay| Way::Relay(relay.port))),
        Err(error) => match error.kind() {
            Kind::NotFound | Kind::Forbidden | Kind::MethodNotAllowed | Kind::TooLarge => Ok(None),
            _ => Err(error),
        },
    }
}

async fn settle(member: &Member, way: Option<Way>, last: Found) -> Result<Found> {
    let found = member.api.get(API_SERVICE.resource, API_SERVICE.namespace, API_SERVICE.name).await?;
    let is_anothers = found.as_ref().is_some_and(|found| !(API_SERVICE.is_ours)(found));
    let way = way.filter(|_| !is_anothers);
    // The APIService is the last to come and the first to go: one without its Service keeps namespaces from being deleted.
    let order: Vec<&Object> = if way.is_some() { OBJECTS.iter().collect() } else { OBJECTS.iter().rev().collect() };
    for object in order {
        let found = if object.name == API_SERVICE.name {
            found.clone()
        } else {
            member.api.get(object.resource, object.namespace, object.name).await?
        };
        match (found, way) {
            (Some(found), _) if !(object.is_ours)(&found) || !text(&found, "deletionTimestamp").is_empty() => {}
            (Some(found), Some(way)) => amend(member, object, &found, way).await?,
            (Some(found), None) => {
                member.api.delete(object.resource, object.namespace, object.name, text(&found, "uid"), None).await?;
            }
            (None, Some(_)) if last == Found::Settled => return Ok(Found::TakenAway),
            (None, Some(way)) => {
                let made = (object.made)(way, &member.view);
                member.api.create(object.resource, object.namespace, ("", ""), &made).await?;
            }
            (None, None) => {}
        }
    }
    Ok(if way.is_some() {
        Found::Settled
    } else if is_anothers {
        Found::Unknown
    } else {
        Found::Absent
    })
}

/// Where it leads and the CA may change while it is ours.
async fn amend(member: &Member, object: &Object, found: &serde_json::Value, way: Way) -> Result<()> {
    let made = (object.made)(way, &member.view);
    let Some(patch) = (object.amended)(found, &made) else { return Ok(()) };
    member.api.patch(object.resource, object.namespace, (object.name, ""), PatchKind::Merge, &patch).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
