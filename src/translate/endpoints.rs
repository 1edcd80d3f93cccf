//! Endpoints and EndpointSlices that a tenant writes by hand, for Services without a selector.
//!
//! Controllers of the host connect to endpoints on a tenant's behalf (CVE-2021-25740), so only addresses of the tenant's own
//! pods reach the host, and those of the networks that the policy lists. What means the node itself never does.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::bounds::{self, Excess};
use super::{View, identity, json};
use crate::names::Limit;

/// Label that ties a slice to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// A host object, and the addresses that were left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Translated {
    /// For the host.
    pub object: Value,
    /// Not allowed.
    pub refused: Vec<String>,
}

/// Whether a slice is made by a controller from something that is synced itself.
pub fn is_derived_slice(slice: &Value) -> bool {
    let by = identity::label(slice, MANAGED_BY);
    by.starts_with("endpointslice-controller") || by.starts_with("endpointslicemirroring-controller")
}

/// What of Endpoints or a slice is more than crosses to the host.
pub fn excess(object: &Value) -> Option<Excess> {
    let list = |value: &Value, pointer: &str| json::items(value, pointer).len();
    let subset = |subset: &Value| {
        let addresses = list(subset, "/addresses") + list(subset, "/notReadyAddresses");
        addresses.saturating_mul(list(subset, "/ports").max(1))
    };
    let subsets = json::items(object, "/subsets").iter().map(subset).fold(0, usize::saturating_add);
    let addresses: usize = json::items(object, "/endpoints").iter().map(|e| list(e, "/addresses").max(1)).sum();
    let slice = addresses.saturating_mul(list(object, "/ports").max(1));
    let pairs = (subsets.saturating_add(slice), bounds::ENDPOINTS);
    Excess::beyond("addresses times ports", "pairs", pairs, "use fewer ports or addresses")
}

/// Whether a pod of this name in the object's namespace has this address, for what is written with a `targetRef`.
pub type OwnPod<'a> = &'a dyn Fn(&str, IpAddr) -> bool;

/// Who may stand behind a Service.
#[derive(Clone, Copy)]
struct Allowed<'a> {
    view: &'a View,
    own_pod: OwnPod<'a>,
}

impl Allowed<'_> {
    /// Notes the address when it is not.
    fn admits(self, address: &str, holder: &Value, refused: &mut Vec<String>) -> bool {
        let of_pod = json::text(holder, "/targetRef/kind") == "Pod";
        let pod = json::text(holder, "/targetRef/name");
        let fine = address
            .parse::<IpAddr>()
            .is_ok_and(|ip| !is_the_node(ip) && (self.view.policy.endpoint(ip) || (of_pod && (self.own_pod)(pod, ip))));
        if !fine {
            refused.push(address.to_owned());
        }
        fine
    }
}

/// The host Endpoints.
pub fn endpoints_to_host(object: &Value, view: &View, own_pod: OwnPod<'_>) -> Option<Translated> {
    let allowed = Allowed { view, own_pod };
    let metadata = identity::metadata("Endpoints", object, view, Limit::Label)?;
    let mut refused = Vec::new();
    let subsets: Vec<Value> = json::items(object, "/subsets")
        .iter()
        .map(|subset| {
            let mut out = json::pick(subset, &["ports"]);
            for field in ["addresses", "notReadyAddresses"] {
                let kept: Vec<Value> = json::items(subset, &format!("/{field}"))
                    .iter()
                    .filter(|address| allowed.admits(json::text(address, "/ip"), address, &mut refused))
                    .map(|address| Value::Object(json::pick(address, &["ip", "hostname", "nodeName"])))
                    .collect();
                if !kept.is_empty() {
                    out.insert(field.to_owned(), Value::Array(kept));
                }
            }
            Value::Object(out)
        })
        .filter(|subset| subset.get("addresses").is_some() || subset.get("notReadyAddresses").is_some())
        .collect();
    let object = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets});
    Some(Translated { object, refused })
}

/// The host EndpointSlice.
pub fn slice_to_host(object: &Value, view: &View, own_pod: OwnPod<'_>) -> Option<Translated> {
    let allowed = Allowed { view, own_pod };
    let kind = "discovery.k8s.io/EndpointSlice";
    let mut metadata = identity::metadata(kind, object, view, Limit::Subdomain)?;
    let service = identity::label(object, SERVICE_NAME);
    let service = identity::host_name("Service", json::namespace(object), service, view, Limit::Label)?;
    json::object(&mut metadata, "labels").insert(SERVICE_NAME.to_owned(), json!(service.as_str()));
    let mut refused = Vec::new();
    let by_name = json::text(object, "/addressType") == "FQDN" && view.policy.service_type("ExternalName");
    let endpoints: Vec<Value> = json::items(object, "/endpoints")
        .iter()
        .filter_map(|endpoint| endpoint_to_host(endpoint, by_name, allowed, &mut refused))
        .map(Value::Object)
        .collect();
    let mut out = json::pick(object, &["addressType", "ports"]);
    out.insert("apiVersion".to_owned(), json!("discovery.k8s.io/v1"));
    out.insert("kind".to_owned(), json!("EndpointSlice"));
    out.insert("metadata".to_owned(), Value::Object(metadata));
    out.insert("endpoints".to_owned(), Value::Array(endpoints));
    Some(Translated { object: Value::Object(out), refused })
}

fn endpoint_to_host(
    endpoint: &Value,
    by_name: bool,
    allowed: Allowed<'_>,
    refused: &mut Vec<String>,
) -> Option<Map<String, Value>> {
    let addresses = json::items(endpoint, "/addresses").iter().filter_map(Value::as_str);
    let kept: Vec<&str> = addresses.filter(|address| by_name || allowed.admits(address, endpoint, refused)).collect();
    let mut out = json::pick(endpoint, &["conditions", "hostname", "nodeName", "zone"]);
    out.insert("addresses".to_owned(), json!(kept));
    (!kept.is_empty()).then_some(out)
}

/// Loopback, link-local (cloud metadata among it), multicast and what is no address of one machine.
fn is_the_node(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_unspecified() || ip.is_broadcast()
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast() || ip.is_unspecified(),
    }
}
