//! Phase 4: the service CIDR, which tenant and host must share since ClusterIPs are.

use crate::error::{Error, Kind, Result};
use crate::kubernetes::resources::{SERVICE_CIDRS, SERVICES};
use crate::kubernetes::service_range;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::{During, Halt, condition};

/// The CIDR for this cluster: its own wish, the configuration's, or the host's own (asked once).
pub(crate) async fn find(context: &Context, cluster: &Cluster) -> Result<String, Halt> {
    for wish in [&cluster.spec.network.service_cidr, &context.config.operator.service_cidr] {
        if !wish.is_empty() {
            return Ok(wish.clone());
        }
    }
    if let Some(known) = context.service_cidr.lock().clone() {
        return Ok(known);
    }
    let found = ask(context).await.during(condition::SERVICES)?;
    *context.service_cidr.lock() = Some(found.clone());
    Ok(found)
}

/// Since 1.33 the range is an object; where it may not be read, dry runs tell.
async fn ask(context: &Context) -> Result<String> {
    match context.host.get(&SERVICE_CIDRS, "", "kubernetes").await {
        Ok(Some(object)) => {
            let first = object["spec"]["cidrs"][0].as_str();
            if let Some(cidr) = first {
                return Ok(cidr.to_owned());
            }
        }
        Ok(None) => {}
        Err(error) if matches!(error.kind(), Kind::Forbidden | Kind::NotFound) => {}
        Err(error) => return Err(error),
    }
    let (host, namespace) = (&context.host, context.system_namespace());
    let found = service_range::find(|probe| async move { host.try_create(&SERVICES, namespace, &probe).await }).await;
    found.map_err(|error| match error.kind() {
        Kind::Invalid => {
            let message = "the host's service CIDR cannot be found out; set operator.serviceCIDR in the configuration";
            Error::own(Kind::Invalid, message).because(error)
        }
        _ => error,
    })
}
