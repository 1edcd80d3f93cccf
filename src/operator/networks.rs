//! Phase 2: NetworkPolicies in the host namespace, before anything is made there that they protect. Beside the order of
//! phases: a cluster without them works, and a condition says that it is less apart from the others than it should be.

mod exactly;
pub(crate) mod expose;
mod failure;
mod ranges;
mod render;

use failure::failure;
use jiff::{SignedDuration, Timestamp};

use crate::crd::{Distro, VirtualClusterStatus};
use crate::error::{Kind, Result};
use crate::kubernetes::resources::NETWORK_POLICIES;
use crate::operator::apply::{self, Mark};
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::control_plane;
use crate::operator::enforcement::{self, Verdict};
use crate::operator::halt::{Says, condition};
use crate::operator::host::{name_of, uid_of};
use crate::operator::status;

/// How long policies must have been there before it is tried whether they hold.
const SETTLED: SignedDuration = SignedDuration::from_secs(30);
const NOT_ENFORCED: &str = "a connection to the control plane that its policy refuses came to be: the host's network plugin does not \
                            enforce NetworkPolicies, and pods of others reach this cluster's";
const NOT_PROBED: &str =
    "no control plane in this namespace answers the probe: those of distro k8s with an image of this version do";

/// Makes the policies, or takes them away, and says what became of it. That it cannot is no failure of the round.
pub(crate) async fn ensure(context: &Context, cluster: &Cluster, next: &mut VirtualClusterStatus) {
    let done =
        if context.config.networks.enabled { make(context, cluster).await } else { remove(context, cluster).await };
    let (value, reason, message) = match done {
        Ok(says) => says,
        Err(error) => match failure(cluster, &error) {
            Some(says) => says,
            None if next.conditions.iter().any(|c| c.r#type == condition::NETWORK_POLICIES) => return,
            None => ("Unknown", "Waiting", error.message().to_owned()),
        },
    };
    let says = (value, reason, message.as_str());
    status::note(next, condition::NETWORK_POLICIES, says, cluster.generation, context.clock.now());
}

/// Says whether the host's network does what the policies say, as far as that is known: for a cluster whose control plane runs.
pub(crate) async fn judge(context: &Context, cluster: &Cluster, next: &mut VirtualClusterStatus) {
    let now = context.clock.now();
    let applied = next.conditions.iter().find(|c| c.r#type == condition::NETWORK_POLICIES && c.status == "True");
    let since = applied.and_then(|condition| condition.last_transition_time.parse::<Timestamp>().ok());
    let says = match since {
        None => ("Unknown", "NoPolicies", ""),
        // The network plugin reads them in its own time.
        Some(since) if now.duration_since(since) < SETTLED => ("Unknown", "NotYet", ""),
        Some(_) => match verdict(context, cluster).await {
            Verdict::Enforced => ("True", "Probed", ""),
            Verdict::NotEnforced => ("False", "NotEnforced", NOT_ENFORCED),
            Verdict::Unknown => ("Unknown", "NotProbed", NOT_PROBED),
        },
    };
    status::note(next, condition::POLICIES_ENFORCED, says, cluster.generation, now);
}

/// One for all clusters of a namespace: by the first of them that tells.
async fn verdict(context: &Context, cluster: &Cluster) -> Verdict {
    let (namespace, now) = (cluster.namespace(), context.clock.instant());
    if let Some(known) = context.enforcement.get(namespace, now) {
        return known;
    }
    if cluster.spec.distro != Distro::K8s {
        return Verdict::Unknown;
    }
    // That its pod cannot be found says nothing, like one that does not answer.
    let Ok(Some(pod)) = control_plane::address(context, cluster).await else { return Verdict::Unknown };
    let found = enforcement::probe(context.backends.as_ref(), pod).await;
    if context.enforcement.put(namespace, found, now) && found == Verdict::NotEnforced {
        tracing::warn!(tenant = %cluster.id, "the host's network does not enforce NetworkPolicies");
    }
    found
}

async fn make(context: &Context, cluster: &Cluster) -> Result<Says> {
    let network = context.reaches.network().get(context.host.cluster(), context.clock.instant()).await?;
    let plan = render::Plan { cluster, config: &context.config, host: &network };
    let exposed = context.exposed.get(cluster);
    let mut is_held = false;
    for desired in render::policies(&plan) {
        let existing = context.host.get(&NETWORK_POLICIES, cluster.namespace(), name_of(&desired)).await?;
        if let Some(existing) = existing.as_ref().filter(|_| exposed.is_none() && render::is_of_pods(&plan, &desired)) {
            // What an earlier version opened in it stays until the policies of the Services, which open less, are there.
            apply::check_ours(&NETWORK_POLICIES, existing, Mark::Owner(&cluster.uid))?;
            is_held = !exactly::is_same(existing, &desired);
            continue;
        }
        exactly::ensure(context, cluster, &desired, existing.as_ref()).await?;
    }
    if exposed.is_none() && context.exposure.is_refused(cluster) {
        let message = "Portico may not list and watch Services and Ingresses in this namespace, so it does not know which \
                       pods are to be reached from outside (docs/security.md)";
        return Ok(("False", "NoRights", message.to_owned()));
    }
    if is_held {
        let message = "what of this cluster's Services is to be reached from outside is not known yet; until then its policy \
                       stays as it was";
        return Ok(("True", "ServicesUnknown", message.to_owned()));
    }
    let of_services = exposed.flatten();
    // Only a tenant's own excess comes last, or he could hide by it what is wrong with the host.
    if let Some(says) = of_services.as_ref().filter(|(value, ..)| *value == "False") {
        return Ok(says.clone());
    }
    Ok(if !render::are_pods_known(&plan) {
        let message = "which addresses the host's pods have is not known, so all private networks are closed to this \
                       cluster's pods; networks.podNetworks in Portico's configuration says it";
        ("True", "PodNetworksUnknown", message.to_owned())
    } else if network.api_server.is_none() {
        let message = "the addresses of the host's API server may not be read, so they are closed only where \
                       networks.closed in Portico's configuration names them";
        ("True", "ApiServerUnknown", message.to_owned())
    } else {
        of_services.unwrap_or(("True", "Applied", String::new()))
    })
}

async fn remove(context: &Context, cluster: &Cluster) -> Result<Says> {
    let (host, namespace) = (&context.host, cluster.namespace());
    for name in render::names(cluster) {
        let found = match host.get(&NETWORK_POLICIES, namespace, &name).await {
            // Who may not even read them has made none.
            Err(error) if error.kind() == Kind::Forbidden => break,
            found => found?,
        };
        if let Some(policy) = found.filter(|policy| Mark::Owner(&cluster.uid).is_on(policy)) {
            match host.delete(&NETWORK_POLICIES, namespace, name_of(&policy), uid_of(&policy)).await {
                Err(error) if error.kind() != Kind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(("False", "Disabled", "networks.enabled is false in Portico's configuration".to_owned()))
}
