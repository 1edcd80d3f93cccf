//! Ingresses: down whole, the host's addresses up.

use serde_json::{Value, json};

use super::super::kind::{Direction, HostScope, Lookup, ObjectKey, Plan, Reference, ResourceSyncer, TenantView};
use super::identity::{host_name, is_for, recorded_key};
use super::projection::{strip_last_applied, strip_metadata};
use super::writes::{apply_down, explain, patch_virtual};
use crate::kubernetes::Resource;
use crate::kubernetes::resources::INGRESSES;
use crate::names::Limit;
use crate::translate::{ingress, json};

/// The kind.
#[derive(Debug)]
pub struct IngressKind;

impl ResourceSyncer for IngressKind {
    fn resource(&self) -> Resource {
        INGRESSES
    }

    fn host_scope(&self) -> HostScope {
        HostScope::Tenant
    }

    fn project(&self, object: Value, _side: Direction) -> Value {
        strip_last_applied(strip_metadata(object, &["generation"]))
    }

    fn virtual_key(&self, host: &Value, view: &TenantView) -> Option<ObjectKey> {
        recorded_key(&INGRESSES, host, view, Limit::Subdomain)
    }

    fn host_name(&self, key: &ObjectKey, view: &TenantView) -> Option<String> {
        host_name(&self.resource(), key, view, Limit::Subdomain)
    }

    fn references(&self, object: &Value) -> Vec<Reference> {
        if ingress::refusal(object).is_some() {
            return Vec::new();
        }
        let namespace = json::namespace(object);
        let reference = |name| Reference { kind: "Secret", key: ObjectKey { namespace: namespace.to_owned(), name } };
        ingress::secrets(object).into_iter().map(reference).collect()
    }

    fn plan(
        &self,
        _key: &ObjectKey,
        virtual_object: Option<&Value>,
        host: Option<&Value>,
        view: &TenantView,
        _lookup: &dyn Lookup,
    ) -> Plan {
        let refusal = virtual_object.and_then(ingress::refusal);
        let intent = |object: &Value| if refusal.is_none() { ingress::to_host(object, view) } else { None };
        let mut actions = apply_down(INGRESSES, virtual_object, host, intent, |object| object);
        if let (Some(object), Some(why)) = (virtual_object, &refusal) {
            actions.push(explain(&INGRESSES, object, "SyncDenied", format!("not made on the host: {why}")));
        }
        if let (Some(object), Some(host)) = (virtual_object, host.filter(|_| refusal.is_none()))
            && is_for(host, object)
        {
            let addresses = |object| json::items(object, "/status/loadBalancer/ingress");
            let wanted = addresses(host);
            if addresses(object) != wanted {
                let list = if wanted.is_empty() { Value::Null } else { json!(wanted) };
                let status = json!({"loadBalancer": {"ingress": list}});
                actions.push(patch_virtual(INGRESSES, object, "status", ("status", status)));
            }
        }
        Plan { actions, requires: virtual_object.map(|o| self.references(o)).unwrap_or_default(), ..Plan::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, hostile_plans};
    use super::*;

    const HOST: &str = "web-x-default-x-vc1";

    fn object(annotations: &Value) -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u1", "annotations": annotations},
            "spec": {"ingressClassName": "nginx", "tls": [{"hosts": ["a"], "secretName": "cert"}],
                "rules": [{"host": "a", "http": {"paths": [{"path": "/", "pathType": "Prefix",
                    "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]},
        })
    }

    #[test]
    fn names_are_mapped_and_the_address_comes_up() {
        let mut world = World::new();
        world.put_virtual("Ingress", object(&json!({"nginx.ingress.kubernetes.io/auth-secret": "users"})));
        let plan = world.plan(&IngressKind, "default", "web");
        assert_eq!(plan.requires.iter().map(|r| r.key.name.as_str()).collect::<Vec<_>>(), ["cert", "users"]);
        world.settle(&IngressKind, "default", "web");
        let host = world.host("Ingress", HOST).expect("made");
        assert_eq!(host["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"], "web-x-default-x-vc1");
        assert_eq!(host["spec"]["tls"][0]["secretName"], "cert-x-default-x-vc1");
        assert_eq!(
            host["metadata"]["annotations"]["nginx.ingress.kubernetes.io/auth-secret"],
            "team-a/users-x-default-x-vc1"
        );
        world.change_host("Ingress", HOST, |i| {
            i["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}})
        });
        world.settle(&IngressKind, "default", "web");
        let virtual_object = world.virtual_one("Ingress", "default", "web").expect("kept");
        assert_eq!(virtual_object["status"]["loadBalancer"]["ingress"], json!([{"ip": "192.0.2.1"}]));
    }

    #[test]
    fn injections_are_refused_whole() {
        for (key, value) in [
            ("nginx.ingress.kubernetes.io/configuration-snippet", "return 200;"),
            ("nginx.ingress.kubernetes.io/server-snippet", "x"),
            ("nginx.org/location-snippets", "x"),
            ("nginx.ingress.kubernetes.io/auth-url", "http://a/#;}"),
            ("nginx.ingress.kubernetes.io/auth-tls-match-cn", "CN=x"),
            ("nginx.ingress.kubernetes.io/mirror-target", "x"),
            ("nginx.ingress.kubernetes.io/rewrite-target", "/;}\nserver {"),
            ("nginx.ingress.kubernetes.io/auth-tls-secret", "kube-system/ca"),
        ] {
            let mut world = World::new();
            world.put_virtual("Ingress", object(&json!({})));
            world.settle(&IngressKind, "default", "web");
            assert!(world.host("Ingress", HOST).is_some());
            world.put_virtual("Ingress", object(&json!({key: value})));
            world.settle(&IngressKind, "default", "web");
            assert!(world.host("Ingress", HOST).is_none(), "{key}");
            assert!(world.explained.iter().any(|(_, m)| m.contains(key)), "{key}");
        }
    }

    #[test]
    fn hostile_input_never_panics() {
        hostile_plans(&IngressKind, &object(&json!({"nginx.ingress.kubernetes.io/auth-secret": "users"})));
    }
}
