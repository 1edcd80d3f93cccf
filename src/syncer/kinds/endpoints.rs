//! Endpoints and EndpointSlices of Services without a selector. Those of Services with one are made by the host from the
//! translated selector; slices that mirror Endpoints are made by the host from the synced Endpoints.

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
use crate::translate::{bounds, identity, json, service};

/// So many of the addresses that are left out are named, so much of each.
const SHOWN: usize = 10;
const LONGEST_ADDRESS: usize = 64;

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
        // Of one name only is more to be known than the summary tells.
        (key.namespace.as_str(), key.name.as_str()) != (service::DNS_NAMESPACE, service::DNS_NAME)
            || !lookup.virtual_object("Service", &key).is_some_and(|object| service::is_dns_service(&object, view))
    }

    fn translate(&self, object: &Value, view: &TenantView) -> Option<Translated> {
        if self.slices { endpoints::slice_to_host(object, view) } else { endpoints::endpoints_to_host(object, view) }
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
        let translated =
            synced.filter(|_| excess.is_none()).and_then(|object| Some((object, self.translate(object, view)?)));
        let intent = |_: &Value| translated.as_ref().map(|(_, t)| t.object.clone());
        let mut actions = apply_down(self.resource, virtual_object, host, intent, |object| object);
        if let Some((object, excess)) = synced.zip(excess) {
            let message = format!("not made on the host: {}", excess.message());
            actions.push(explain(&self.resource, object, "SyncDenied", message));
        }
        if let Some((object, translated)) = translated.as_ref().filter(|(_, t)| !t.refused.is_empty()) {
            let (shown, all) = (translated.refused.iter().take(SHOWN), translated.refused.len());
            let shown = shown.map(|address| bounds::cut(address, LONGEST_ADDRESS)).collect::<Vec<_>>().join(", ");
            let more = if all > SHOWN { format!(" and {} more", all - SHOWN) } else { String::new() };
            let message = format!("addresses of nodes themselves are left out: {shown}{more}");
            actions.push(explain(&self.resource, object, "AddressRefused", message));
        }
        Plan { actions, ..Plan::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::service::ServiceKind;
    use super::super::testing::{World, hostile_plans};
    use super::*;
    use serde_json::json;

    fn slice() -> Value {
        json!({
            "metadata": {"name": "ext-1", "namespace": "default", "uid": "u1", "labels": {"kubernetes.io/service-name": "ext"}},
            "addressType": "IPv4", "ports": [{"port": 5432}],
            "endpoints": [{"addresses": ["192.0.2.7"], "targetRef": {"kind": "Pod", "name": "p"}}, {"addresses": ["169.254.169.254"]}],
        })
    }

    fn world(selector: &Value) -> World {
        let mut world = World::new();
        world.put_virtual(
            "Service",
            json!({"metadata": {"name": "ext", "namespace": "default"}, "spec": {"selector": selector}}),
        );
        world.put_virtual("EndpointSlice", slice());
        world
    }

    #[test]
    fn slices_of_bare_services_cross_with_their_service_and_ports() {
        let kind = EndpointsKind::slices();
        let mut world = world(&Value::Null);
        world.settle(&kind, "default", "ext-1");
        let host = world.host("EndpointSlice", "ext-1-x-default-x-vc1").expect("made");
        assert_eq!(host["metadata"]["labels"]["kubernetes.io/service-name"], "ext-x-default-x-vc1");
        assert_eq!(host["endpoints"], json!([{"addresses": ["192.0.2.7"]}]));
        assert!(world.explained.iter().any(|(_, m)| m.contains("169.254.169.254")));
        world.change_virtual("EndpointSlice", "default", "ext-1", |s| s["ports"] = json!([{"port": 5433}]));
        world.settle(&kind, "default", "ext-1");
        assert_eq!(
            world.host("EndpointSlice", "ext-1-x-default-x-vc1").expect("kept")["ports"],
            json!([{"port": 5433}])
        );
        world.change_virtual("Service", "default", "ext", |s| s["spec"]["selector"] = json!({"a": "b"}));
        world.settle(&kind, "default", "ext-1");
        assert!(world.host("EndpointSlice", "ext-1-x-default-x-vc1").is_none());
    }

    /// Portico's own address inside a tenant; one that a user brings is like any other.
    #[test]
    fn the_dns_service_and_its_endpoints_stay_inside() {
        let labels = json!({"portico.dev/from-host": "true"});
        let metadata = json!({"name": "kube-dns", "namespace": "kube-system", "uid": "u1", "labels": labels});
        let service = |ip: &str| json!({"metadata": metadata, "spec": {"clusterIP": ip, "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}});
        let name = "kube-dns-x-kube-system-x-vc1";
        let own = World::new().view.dns_service_ip.to_string();
        for address in ["None", &own] {
            let mut world = World::new();
            world.put_virtual("Service", service(address));
            let subsets =
                json!([{"addresses": [{"ip": own}], "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}]);
            world.put_virtual("Endpoints", json!({"metadata": metadata, "subsets": subsets}));
            world.settle(&ServiceKind, "kube-system", "kube-dns");
            world.settle(&EndpointsKind::endpoints(), "kube-system", "kube-dns");
            assert!(world.host("Service", name).is_none() && world.host("Endpoints", name).is_none());
            world.change_virtual("Service", "kube-system", "kube-dns", |s| {
                s["metadata"]["labels"] = json!({"k8s-app": "kube-dns"});
                s["spec"]["clusterIP"] = json!("10.96.7.7");
            });
            world.settle(&ServiceKind, "kube-system", "kube-dns");
            world.settle(&EndpointsKind::endpoints(), "kube-system", "kube-dns");
            assert!(world.host("Service", name).is_some() && world.host("Endpoints", name).is_some());
        }
    }

    #[test]
    fn a_slice_cannot_join_a_service_with_a_selector() {
        let kind = EndpointsKind::slices();
        let mut world = world(&json!({"app": "web"}));
        world.settle(&kind, "default", "ext-1");
        assert!(world.host("EndpointSlice", "ext-1-x-default-x-vc1").is_none());
    }

    #[test]
    fn endpoints_take_the_services_name_and_no_node_addresses() {
        let kind = EndpointsKind::endpoints();
        let mut world = world(&Value::Null);
        world.put_virtual("Endpoints", json!({"metadata": {"name": "ext", "namespace": "default", "uid": "u2"},
            "subsets": [{"addresses": [{"ip": "127.0.0.1"}, {"ip": "::ffff:127.0.0.1"}, {"ip": "192.0.2.1"}], "ports": [{"port": 1}]}]}));
        world.settle(&kind, "default", "ext");
        let host = world.host("Endpoints", "ext-x-default-x-vc1").expect("made");
        assert_eq!(host["subsets"], json!([{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 1}]}]));
    }

    #[test]
    fn hostile_input_never_panics() {
        hostile_plans(&EndpointsKind::slices(), &slice());
        hostile_plans(&EndpointsKind::endpoints(), &slice());
    }
}
