//! Endpoints and EndpointSlices of Services without a selector. Those of Services with one are made by the host from the
//! translated selector; slices that mirror Endpoints are made by the host from the synced Endpoints.

use std::cell::Cell;
use std::net::IpAddr;

use serde_json::Value;

use super::super::kind::{Direction, HostScope, Lookup, ObjectKey, Plan, Reference, ResourceSyncer, TenantView};
use super::identity::{host_name, recorded_key};
use super::projection::{strip_last_applied, strip_metadata};
use super::writes::{apply_down, explain};
use crate::kubernetes::Resource;
use crate::kubernetes::resources::{ENDPOINT_SLICES, ENDPOINTS};
use crate::names::Limit;
use crate::translate::endpoints::{self, Translated};
use crate::translate::summary::ServiceSummary;
use crate::translate::{bounds, identity, json, policy, service};

/// So many of the addresses that are left out are named, so much of each.
const SHOWN: usize = 10;
const LONGEST_ADDRESS: usize = 64;
/// Seconds after which addresses of pods are held against the pods again.
const POD_RECHECK: u64 = 30;
/// For so many of them; for more it takes as many times longer.
const PODS_AT_ONCE: usize = 8;

/// Either kind.
#[derive(Debug)]
pub struct EndpointsKind {
    resource: Resource,
    slices: bool,
}

impl EndpointsKind {
    /// Endpoints.
    pub fn endpoints() -> Self {
        Self { resource: ENDPOINTS, slices: false }
    }

    /// EndpointSlices.
    pub fn slices() -> Self {
        Self { resource: ENDPOINT_SLICES, slices: true }
    }

    /// Endpoints bear the Service's name, so their limit is its limit.
    fn limit(&self) -> Limit {
        if self.slices { Limit::Subdomain } else { Limit::Label }
    }

    fn service(&self, object: &Value) -> ObjectKey {
        let name = if self.slices { identity::label(object, endpoints::SERVICE_NAME) } else { json::name(object) };
        ObjectKey { namespace: json::namespace(object).to_owned(), name: name.to_owned() }
    }

    fn is_synced(&self, object: &Value, view: &TenantView, lookup: &dyn Lookup) -> bool {
        let key = self.service(object);
        if service::is_api_service(&key.namespace, &key.name) || (self.slices && endpoints::is_derived_slice(object)) {
            return false;
        }
        let is_bare = |service: &ServiceSummary| !service.has_selector && !service.is_external && !service.is_deleting;
        if !lookup.service(&key).is_some_and(|service| is_bare(&service)) {
            return false;
        }
        // Of two names only is more to be known than the summary tells.
        !service::is_named_as_porticos(&key.namespace, &key.name)
            || !lookup.virtual_object("Service", &key).is_some_and(|object| service::is_porticos(&object, view))
    }

    /// With how many addresses were held against pods.
    fn translate(&self, object: &Value, view: &TenantView, lookup: &dyn Lookup) -> Option<(Translated, usize)> {
        let held = Cell::new(0);
        let own_pod = |name: &str, address: IpAddr| {
            if held.get() == bounds::POD_ADDRESSES {
                return false;
            }
            held.set(held.get() + 1);
            let key = ObjectKey { namespace: json::namespace(object).to_owned(), name: name.to_owned() };
            lookup.host_object("Pod", &key).is_some_and(|pod| has_address(&pod, address))
        };
        let to_host = if self.slices { endpoints::slice_to_host } else { endpoints::endpoints_to_host };
        Some((to_host(object, view, &own_pod)?, held.get()))
    }
}

impl ResourceSyncer for EndpointsKind {
    fn resource(&self) -> Resource {
        self.resource
    }

    fn host_scope(&self) -> HostScope {
        HostScope::Tenant
    }

    fn project(&self, object: Value, _side: Direction) -> Value {
        strip_last_applied(strip_metadata(object, &["generation", "generateName"]))
    }

    fn virtual_key(&self, host: &Value, view: &TenantView) -> Option<ObjectKey> {
        recorded_key(&self.resource, host, view, self.limit())
    }

    fn host_name(&self, key: &ObjectKey, view: &TenantView) -> Option<String> {
        host_name(&self.resource(), key, view, self.limit())
    }

    /// Not to bring the Service to the host, but to be looked at again when it changes.
    fn references(&self, object: &Value) -> Vec<Reference> {
        vec![Reference { kind: "Service", key: self.service(object) }]
    }

    fn plan(
        &self,
        _key: &ObjectKey,
        virtual_object: Option<&Value>,
        host: Option<&Value>,
        view: &TenantView,
        lookup: &dyn Lookup,
    ) -> Plan {
        let synced = virtual_object.filter(|object| self.is_synced(object, view, lookup));
        let excess = synced.and_then(endpoints::excess);
        let translated = synced
            .filter(|_| excess.is_none())
            .and_then(|object| Some((object, self.translate(object, view, lookup)?)));
        let intent = |_: &Value| translated.as_ref().map(|(_, (t, _))| t.object.clone());
        let mut actions = apply_down(self.resource, virtual_object, host, intent, |object| object);
        if let Some((object, excess)) = synced.zip(excess) {
            let message = format!("not made on the host: {}", excess.message());
            actions.push(explain(&self.resource, object, "SyncDenied", message));
        }
        if let Some((object, (translated, _))) = translated.as_ref().filter(|(_, (t, _))| !t.refused.is_empty()) {
            let (shown, all) = (translated.refused.iter().take(SHOWN), translated.refused.len());
            let shown = shown.map(|address| bounds::cut(address, LONGEST_ADDRESS)).collect::<Vec<_>>().join(", ");
            let more = if all > SHOWN { format!(" and {} more", all - SHOWN) } else { String::new() };
            let message = format!(
                "left out: addresses that are not of this cluster's pods, or beyond the first {} of pods, {shown}{more} ({})",
                bounds::POD_ADDRESSES,
                policy::decides("endpoints")
            );
            actions.push(explain(&self.resource, object, "AddressRefused", message));
        }
        // Pods come and go, and their addresses with them, while what is written here stays. Many are looked at more rarely.
        let held = translated.as_ref().map_or(0, |(_, (_, held))| *held);
        let again_after = (held > 0).then(|| POD_RECHECK * held.div_ceil(PODS_AT_ONCE) as u64);
        Plan { actions, again_after, ..Plan::default() }
    }
}

fn has_address(host_pod: &Value, address: IpAddr) -> bool {
    let is_it = |text: &str| text.parse() == Ok(address);
    !json::is_deleting(host_pod)
        && (is_it(json::text(host_pod, "/status/podIP"))
            || json::items(host_pod, "/status/podIPs").iter().any(|ip| is_it(json::text(ip, "/ip"))))
}

#[cfg(test)]
mod tests;
