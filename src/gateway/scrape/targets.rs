//! Every virtual cluster as a target of Prometheus' HTTP service discovery (`http_sd_configs`). Pure.

use serde_json::{Value, json};

use super::door::METRICS;
use crate::names::TenantId;

const PORT: &str = "443";

/// One group of targets for each, at the address by which the list was asked for.
pub(super) fn json<'a>(tenants: impl Iterator<Item = &'a TenantId>, authority: &str) -> Value {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let address = if has_port { authority.to_owned() } else { format!("{authority}:{PORT}") };
    let mut tenants: Vec<&TenantId> = tenants.collect();
    tenants.sort();
    let group = |id: &&TenantId| {
        json!({
            "targets": [address],
            "labels": {
                "__scheme__": "https",
                "__metrics_path__": format!("{METRICS}/{}/{}", id.namespace(), id.name()),
                "__meta_portico_namespace": id.namespace().as_str(),
                "__meta_portico_virtualcluster": id.name().as_str(),
                "__meta_portico_path": id.path_prefix(),
            },
        })
    };
    tenants.iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_for_each_in_order() {
        let ids = ["b", "a"].map(|name| TenantId::parse("team", name).expect("id"));
        let list = json(ids.iter(), "portico.example.com");
        assert_eq!(list[0]["targets"], json!(["portico.example.com:443"]));
        assert_eq!(list[0]["labels"]["__metrics_path__"], "/fleet/metrics/team/a");
        assert_eq!(list[1]["labels"]["__meta_portico_virtualcluster"], "b");
        assert_eq!(json(ids.iter(), "10.0.0.1:8443")[0]["targets"], json!(["10.0.0.1:8443"]));
        assert_eq!(json(ids.iter(), "[fd00::1]")[0]["targets"], json!(["[fd00::1]:443"]));
        assert_eq!(json(std::iter::empty(), "x"), json!([]));
    }
}
