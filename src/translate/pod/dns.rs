//! DNS of a pod: Portico's server for the tenant, with the search path that a kubelet of the tenant would give.

use serde_json::{Map, Value, json};

use super::super::{View, json};

/// Limits of the API server.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

/// Replaces the policies that mean "the cluster's DNS"; `None`, `Default` and ClusterFirst on the host network stay.
pub(super) fn translate(spec: &mut Map<String, Value>, namespace: &str, view: &View) {
    let policy = spec.get("dnsPolicy").and_then(Value::as_str).unwrap_or("ClusterFirst");
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    if !(policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !host_network)) {
        return;
    }
    let own = spec.get("dnsConfig").cloned().unwrap_or_default();
    let domain = &view.cluster_domain;
    let nameservers = merged(vec![view.dns_service_ip.to_string()], json::items(&own, "/nameservers"), MAX_NAMESERVERS);
    let searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    let searches = merged(searches, json::items(&own, "/searches"), MAX_SEARCHES);
    let mut options = json::items(&own, "/options").to_vec();
    if !options.iter().any(|option| json::text(option, "/name") == "ndots") {
        options.insert(0, json!({"name": "ndots", "value": "5"}));
    }
    spec.insert("dnsPolicy".to_owned(), json!("None"));
    spec.insert("dnsConfig".to_owned(), json!({"nameservers": nameservers, "searches": searches, "options": options}));
}

fn merged(mut list: Vec<String>, own: &[Value], limit: usize) -> Vec<String> {
    for item in own.iter().filter_map(Value::as_str) {
        if list.len() >= limit {
            break;
        }
        if !list.iter().any(|known| known == item) {
            list.push(item.to_owned());
        }
    }
    list
}
