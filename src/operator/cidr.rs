//! Phase 4: the service CIDR, which tenant and host must share since ClusterIPs are.

use serde_json::json;

use crate::error::{Error, Kind, Result};
use crate::operator::cluster::{Cluster, Context, During, Halt, condition};
use crate::upstream::resources::{SERVICE_CIDRS, SERVICES};

/// Says the range in a refusal of API servers before 1.33.
const MARKER: &str = "The range of valid IPs is ";

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

/// Since 1.33 the range is an object and refusals no longer name it; before, it is only in the refusal.
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
    let probe = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "portico-service-cidr-probe"},
        "spec": {"clusterIP": "1.1.1.1", "ports": [{"port": 443}]},
    });
    let unknown = || {
        Error::own(
            Kind::Invalid,
            "the host's service CIDR cannot be found out; set operator.serviceCIDR in the configuration",
        )
    };
    match context.host.try_create(&SERVICES, context.system_namespace(), &probe).await {
        Ok(_) => Err(unknown()),
        Err(error) => parse(error.message()).ok_or_else(|| unknown().because(error)),
    }
}

fn parse(refusal: &str) -> Option<String> {
    let (_, rest) = refusal.split_once(MARKER)?;
    let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '/'))).unwrap_or(rest.len());
    let cidr = rest.get(..end)?.trim_end_matches(['.', ':']);
    cidr.contains('/').then(|| cidr.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_read_from_the_refusal() {
        let text = "Service \"x\" is invalid: spec.clusterIPs: Invalid value: [\"1.1.1.1\"]: failed to allocate IP \
                    1.1.1.1: the provided IP (1.1.1.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12";
        assert_eq!(parse(text).as_deref(), Some("10.96.0.0/12"));
        assert_eq!(parse("The range of valid IPs is fd00:1::/108.").as_deref(), Some("fd00:1::/108"));
        assert_eq!(parse("the provided network does not match the current range"), None);
    }
}
