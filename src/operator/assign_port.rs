//! Phase 2: each tenant's two consecutive ports, written down before they are used.

use std::collections::BTreeSet;

use serde_json::json;

use crate::error::Result;
use crate::kubernetes::resources::{SERVICES, VIRTUAL_CLUSTERS};
use crate::names::keys;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::{During, Halt, condition};

/// The cluster's port; a new one is in the status before anything uses it.
pub(crate) async fn ensure(context: &Context, cluster: &Cluster) -> Result<u16, Halt> {
    let operator = &context.config.operator;
    let range = (operator.first_port, operator.last_port);
    if let Some(port) = context.ports.keep(&cluster.id, range, &context.reserved) {
        if cluster.status.port == Some(port) {
            return Ok(port);
        }
        record(context, cluster, port).await.during(condition::SERVICES)?;
        return Ok(port);
    }
    let busy = in_use_by_services(context, cluster).await.during(condition::SERVICES)?;
    let newcomer = (&cluster.id, cluster.uid.as_str());
    let Some(port) = context.ports.take(newcomer, range, &context.reserved, &busy) else {
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
