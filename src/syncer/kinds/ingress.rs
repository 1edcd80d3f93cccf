//! Ingresses: down whole, the host's addresses up.

use serde_json::{Value, json};

use super::super::kind::{
    Action, Direction, HostScope, Lookup, ObjectKey, Plan, Reference, ResourceSyncer, TenantView,
};
use super::identity::{host_name, is_for, recorded_key};
use super::projection::{strip_last_applied, strip_metadata};
use super::writes::{apply_down, explain, patch_virtual};
use crate::kubernetes::Resource;
use crate::kubernetes::resources::INGRESSES;
use crate::names::Limit;
use crate::translate::{ingress, json, policy};

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
        let refusal = virtual_object.and_then(|object| ingress::refusal(object, view));
        let intent = |object: &Value| if refusal.is_none() { ingress::to_host(object, view) } else { None };
        let mut actions = apply_down(INGRESSES, virtual_object, host, intent, |object| object);
        if let (Some(object), Some(why)) = (virtual_object, &refusal) {
            actions.push(explain(&INGRESSES, object, "SyncDenied", format!("not made on the host: {why}")));
        }
        if let Some(object) = virtual_object.filter(|_| refusal.is_none()) {
            actions.extend(left_out(object, view));
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
        let requires = virtual_object.filter(|_| refusal.is_none()).map(|o| self.references(o)).unwrap_or_default();
        Plan { actions, requires, ..Plan::default() }
    }
}

fn left_out(object: &Value, view: &TenantView) -> Option<Action> {
    let keys = ingress::left_out(object, view);
    let message = || {
        format!(
            "annotations without effect on the host: {} ({})",
            keys.join(", "),
            policy::decides("ingressAnnotations")
        )
    };
    (!keys.is_empty()).then(|| explain(&INGRESSES, object, "SyncLimited", message()))
}

#[cfg(test)]
mod tests;
