//! Phase 2: each tenant's two consecutive ports, unique over all VirtualClusters and written down before they are used.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;
use serde_json::json;

use crate::error::Result;
use crate::names::{TenantId, keys};
use crate::operator::cluster::{Cluster, Context, During, Halt, condition};
use crate::upstream::resources::{SERVICES, VIRTUAL_CLUSTERS};

/// Who holds which port: what the statuses say plus what was given out and is not yet seen there.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    held: Mutex<HashMap<TenantId, Holding>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Holding {
    uid: String,
    created: String,
    port: u16,
}

impl Ports {
    /// Takes in what a status says. What was given out in this process stands until the status shows it.
    pub(crate) fn observe(&self, id: &TenantId, uid: &str, created: &str, port: Option<u16>) {
        let mut held = self.held.lock();
        match port {
            Some(port) => {
                held.insert(id.clone(), Holding { uid: uid.to_owned(), created: created.to_owned(), port });
            }
            None => {
                if held.get(id).is_some_and(|holding| holding.uid != uid) {
                    held.remove(id);
                }
            }
        }
    }

    /// The cluster is gone.
    pub(crate) fn release(&self, id: &TenantId) {
        self.held.lock().remove(id);
    }

    /// The port a cluster may go on using: the one it holds, unless an older cluster holds the same (two operators
    /// gave it out at once) or it is outside the range.
    fn keep(&self, id: &TenantId, range: (u16, u16)) -> Option<u16> {
        let held = self.held.lock();
        let own = held.get(id)?;
        let contested = held.iter().any(|(other, holding)| {
            other != id && holding.port == own.port && (&holding.created, other) < (&own.created, id)
        });
        (!contested && is_in_range(own.port, range)).then_some(own.port)
    }

    /// The lowest free pair; it is held from now on.
    fn take(&self, id: &TenantId, uid: &str, range: (u16, u16), busy: &BTreeSet<u16>) -> Option<u16> {
        let mut held = self.held.lock();
        let taken: BTreeSet<u16> = held.iter().filter(|(other, _)| *other != id).map(|(_, h)| h.port).collect();
        let first = range.0.checked_next_multiple_of(2)?;
        let port = (first..range.1).step_by(2).find(|port| !taken.contains(port) && !busy.contains(port))?;
        // A newcomer is the youngest of all, whatever its status says later.
        let created = "9999".to_owned();
        held.insert(id.clone(), Holding { uid: uid.to_owned(), created, port });
        Some(port)
    }
}

fn is_in_range(port: u16, range: (u16, u16)) -> bool {
    port.is_multiple_of(2) && port >= range.0 && port < range.1
}

/// The cluster's port; a new one is in the status before anything uses it.
pub(crate) async fn ensure(context: &Context, cluster: &Cluster) -> Result<u16, Halt> {
    let operator = &context.config.operator;
    let range = (operator.first_port, operator.last_port);
    if let Some(port) = context.ports.keep(&cluster.id, range) {
        if cluster.status.port == Some(port) {
            return Ok(port);
        }
        record(context, cluster, port).await.during(condition::SERVICES)?;
        return Ok(port);
    }
    let busy = in_use_by_services(context, cluster).await.during(condition::SERVICES)?;
    let Some(port) = context.ports.take(&cluster.id, &cluster.uid, range, &busy) else {
        return Err(Halt::blocked(
            condition::SERVICES,
            "NoFreePort",
            format!("all ports from {} to {} are in use; widen operator.firstPort and lastPort", range.0, range.1),
        ));
    };
    record(context, cluster, port).await.during(condition::SERVICES)?;
    Ok(port)
}

async fn record(context: &Context, cluster: &Cluster, port: u16) -> Result<()> {
    let patch = json!({"metadata": {"uid": cluster.uid}, "status": {"port": port}});
    context.host.patch_status(&VIRTUAL_CLUSTERS, cluster.namespace(), cluster.name(), &patch).await?;
    Ok(())
}

/// Ports that Services of other (perhaps just deleted) tenants still lead to.
async fn in_use_by_services(context: &Context, cluster: &Cluster) -> Result<BTreeSet<u16>> {
    let services = context.host.list(&SERVICES, context.system_namespace(), keys::HOST_NAMESPACE).await?;
    let own = cluster.id.system_service("api");
    let mut ports = BTreeSet::new();
    for service in services.iter().filter(|s| s["metadata"]["name"] != own.as_str()) {
        for port in service["spec"]["ports"].as_array().into_iter().flatten() {
            if let Some(port) = port["targetPort"].as_u64().and_then(|p| u16::try_from(p).ok()) {
                ports.insert(port);
            }
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> TenantId {
        TenantId::parse("ns", name).expect("id")
    }

    #[test]
    fn pairs_are_even_unique_and_reused() {
        let ports = Ports::default();
        let range = (20_001, 20_007);
        let none = BTreeSet::new();
        assert_eq!(ports.take(&id("a"), "1", range, &none), Some(20_002));
        assert_eq!(ports.take(&id("b"), "2", range, &none), Some(20_004));
        assert_eq!(ports.take(&id("c"), "3", range, &none), Some(20_006));
        assert_eq!(ports.take(&id("d"), "4", range, &none), None);
        ports.release(&id("b"));
        assert_eq!(ports.take(&id("d"), "4", range, &BTreeSet::from([20_004])), None);
        assert_eq!(ports.take(&id("d"), "4", range, &none), Some(20_004));
        assert_eq!(ports.keep(&id("d"), range), Some(20_004));
    }

    #[test]
    fn a_stale_status_does_not_free_what_was_given_out() {
        let ports = Ports::default();
        let range = (20_000, 20_003);
        assert_eq!(ports.take(&id("a"), "1", range, &BTreeSet::new()), Some(20_000));
        ports.observe(&id("a"), "1", "2026", None);
        assert_eq!(ports.keep(&id("a"), range), Some(20_000));
        ports.observe(&id("a"), "2", "2027", None);
        assert_eq!(ports.keep(&id("a"), range), None);
    }

    #[test]
    fn of_two_holders_the_older_keeps_the_port() {
        let ports = Ports::default();
        let range = (20_000, 20_010);
        ports.observe(&id("old"), "1", "2026-01-01", Some(20_000));
        ports.observe(&id("new"), "2", "2026-01-02", Some(20_000));
        assert_eq!(ports.keep(&id("old"), range), Some(20_000));
        assert_eq!(ports.keep(&id("new"), range), None);
        assert_eq!(ports.take(&id("new"), "2", range, &BTreeSet::new()), Some(20_002));
        ports.observe(&id("far"), "3", "2026-01-02", Some(9_000));
        assert_eq!(ports.keep(&id("far"), range), None);
    }
}
