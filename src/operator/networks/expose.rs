//! The policies that open a virtual cluster's Services to the outside: one for each, beside the rounds, since a node port is to
//! be reached as soon as the host has it, and a round does much else.
//!
//! Promises: they are made from what the host has now and nothing else, so it does not matter what was lost before; one that
//! cannot be made keeps no other from being made; a step writes a bounded number of times, however much a tenant changes, and
//! asks for nothing again that the host has forbidden in it.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::failure::failure;
use super::{exactly, render};
use crate::error::{Kind, Result};
use crate::kubernetes::resources::NETWORK_POLICIES;
use crate::names::keys;
use crate::operator::apply::Mark;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::{Retry, Says};
use crate::operator::host::{name_of, uid_of};

/// How often what is there is compared again.
const DRIFT: Duration = Duration::from_secs(60);
/// Until what is not known yet is asked for again; news of it come before.
const UNKNOWN: Duration = Duration::from_secs(10);
/// So many writes in one step; the rest comes after other clusters' steps.
const MOST_WRITES: usize = 50;

/// How a step ended.
#[derive(Debug)]
pub(crate) struct Stepped {
    /// When to look again.
    pub pause: Duration,
    /// The condition has something else to say.
    pub is_news: bool,
}

/// Makes the policies of one cluster what they should be. `attempt` counts the steps since the last news of it.
pub(crate) async fn step(context: &Context, cluster: &Cluster, attempt: u32) -> Stepped {
    let again = Stepped { pause: Retry::Soon.pause(attempt), is_news: false };
    match work(context, cluster).await {
        Ok(Some(Done { is_whole: true, says })) => {
            let is_news = context.exposed.put(cluster, says);
            Stepped { pause: context.clock.jitter(DRIFT), is_news }
        }
        Ok(Some(_)) => again,
        Ok(None) => Stepped { pause: UNKNOWN, is_news: false },
        Err(error) => {
            tracing::debug!(tenant = %cluster.id, %error, "what opens its Services cannot be made");
            // Without anything to say the host only had a moment of trouble.
            let Some(says) = failure(cluster, &error) else { return again };
            let is_news = context.exposed.put(cluster, Some(says));
            Stepped { pause: Retry::Later.pause(attempt), is_news }
        }
    }
}

struct Done {
    /// All was written that is to be.
    is_whole: bool,
    says: Option<Says>,
}

/// `None` while it is not known what is to be opened.
async fn work(context: &Context, cluster: &Cluster) -> Result<Option<Done>> {
    let (desired, left_out) = match context.config.networks.enabled {
        true => match wanted(context, cluster).await? {
            Some(wanted) => wanted,
            None => return Ok(None),
        },
        false => (Vec::new(), 0),
    };
    let labels = format!("{}={},{}", keys::CONTROL_PLANE, cluster.name(), keys::EXPOSES);
    let found = match context.host.list(&NETWORK_POLICIES, cluster.namespace(), &labels).await {
        // Who may not even read them has made none.
        Err(error) if error.kind() == Kind::Forbidden && desired.is_empty() => Vec::new(),
        found => found?,
    };
    let mark = Mark::Owner(&cluster.uid);
    let mut found: HashMap<String, Value> = found
        .into_iter()
        .filter(|policy| mark.is_on(policy))
        .map(|policy| (name_of(&policy).to_owned(), policy))
        .collect();
    let (mut writes, mut fault) = (0, None);
    // Making new ones, and changing those that are there: a quota refuses the first alone.
    let mut may = [true; 2];
    // First what opens: a Service that changes its name or its type is not to be closed for long.
    for policy in desired {
        let existing = found.remove(name_of(&policy));
        if existing.as_ref().is_some_and(|existing| exactly::is_same(existing, &policy)) {
            continue;
        }
        let may_write = &mut may[usize::from(existing.is_some())];
        if !*may_write {
            continue;
        }
        if writes == MOST_WRITES {
            return Ok(Some(Done { is_whole: false, says: None }));
        }
        let made = match &existing {
            Some(_) => exactly::ensure(context, cluster, &policy, existing.as_ref()).await,
            None => exactly::ensure_unseen(context, cluster, &policy).await,
        };
        // What a person must solve would be in the way of all behind it at each step.
        writes += usize::from(made.as_ref().err().is_none_or(|error| failure(cluster, error).is_none()));
        if let Err(error) = made {
            *may_write = error.kind() != Kind::Forbidden;
            fault.get_or_insert(error);
        }
    }
    for policy in found.values() {
        if writes == MOST_WRITES {
            return Ok(Some(Done { is_whole: false, says: None }));
        }
        writes += 1;
        let deleted =
            context.host.delete(&NETWORK_POLICIES, cluster.namespace(), name_of(policy), uid_of(policy)).await;
        if let Err(error) = deleted.map(drop)
            && error.kind() != Kind::NotFound
        {
            let is_forbidden = error.kind() == Kind::Forbidden;
            fault.get_or_insert(error);
            if is_forbidden {
                break;
            }
        }
    }
    fault.map_or_else(|| Ok(Some(Done { is_whole: true, says: beyond(left_out) })), Err)
}

/// The policies, and how much more the tenant has than there may be; `None` while that is not known.
async fn wanted(context: &Context, cluster: &Cluster) -> Result<Option<(Vec<Value>, usize)>> {
    let Some(openings) = context.exposure.of(cluster) else { return Ok(None) };
    let network = context.reaches.network().get(context.host.cluster(), context.clock.instant()).await?;
    let plan = render::Plan { cluster, config: &context.config, host: &network };
    Ok(Some((render::exposed(&plan, &openings.all), openings.left_out)))
}

fn beyond(left_out: usize) -> Option<Says> {
    let message = || {
        format!(
            "{left_out} Services or Ingresses of this cluster are beyond what is opened to the outside for one virtual \
             cluster, or too large: the pods behind them are reached from inside only (docs/limits.md)"
        )
    };
    (left_out > 0).then(|| ("True", "NotAllExposed", message()))
}
