//! Services. The gateway makes the host Service first on a POST, so cluster IPs agree; this is the other half: adoption,
//! later changes, status, and the repair when the addresses of a Service that did not come through the gateway are taken.
//!
//! Repair: the host is asked for the tenant's own addresses; when it refuses, it chooses, and that is recorded in
//! [`REFUSED`]. Node ports are then changed in the tenant. A cluster IP cannot change, so the tenant's Service is made
//! again; the whole object is kept in [`RECREATE`] on the host meanwhile, so a crash between the two writes loses nothing.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::kind::{Action, Direction, HostScope, Lookup, ObjectKey, Plan, ResourceSyncer, TenantView};
use super::identity::{host_name, recorded_key};
use super::projection::{strip_last_applied, strip_metadata};
use super::writes::{delete_host, delete_virtual, explain, patch_virtual};
use crate::kubernetes::resources::SERVICES;
use crate::kubernetes::{PatchKind, Resource};
use crate::names::{Limit, keys};
pub use crate::translate::service::REFUSED;
use crate::translate::summary::{Exposure, ServiceSummary, Summary};
use crate::translate::{diff, identity, json, policy, service};

/// Annotation on the host: the tenant's Service while it is being made again.
pub const RECREATE: &str = "portico.dev/recreate";
/// How long a host Service may wait for the virtual one that the gateway is about to make.
const PENDING_SECONDS: i64 = 120;
/// Seconds after which a Service for which there was no room is looked at again.
const COUNT_AGAIN: u64 = 30;

/// Fields that are removed on the host when the tenant removes them; the API server has no defaults for them.
const NULLABLE: &[&str] = &[
    "selector",
    "sessionAffinityConfig",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "externalName",
    "trafficDistribution",
    "externalTrafficPolicy",
];

/// The kind.
#[derive(Debug)]
pub struct ServiceKind;

impl ResourceSyncer for ServiceKind {
    fn resource(&self) -> Resource {
        SERVICES
    }

    fn counted(&self) -> Option<&'static [&'static str]> {
        Some(&[])
    }

    fn host_scope(&self) -> HostScope {
        HostScope::Tenant
    }

    fn project(&self, object: Value, side: Direction) -> Value {
        let object = strip_metadata(object, &[]);
        // The virtual object may have to be made again, with everything that its user's tools rely on.
        if side == Direction::Up { strip_last_applied(object) } else { object }
    }

    fn summary(&self, object: &Value) -> Option<Summary> {
        Some(Summary::Service(Arc::new(ServiceSummary::of(object))))
    }

    fn virtual_key(&self, host: &Value, view: &TenantView) -> Option<ObjectKey> {
        recorded_key(&SERVICES, host, view, Limit::Label)
    }

    fn host_name(&self, key: &ObjectKey, view: &TenantView) -> Option<String> {
        host_name(&self.resource(), key, view, Limit::Label)
    }

    fn plan(
        &self,
        key: &ObjectKey,
        virtual_object: Option<&Value>,
        host: Option<&Value>,
        view: &TenantView,
        lookup: &dyn Lookup,
    ) -> Plan {
        if service::is_api_service(&key.namespace, &key.name)
            || virtual_object.is_some_and(|object| service::is_dns_service(object, view))
        {
            return deletion(host);
        }
        match (virtual_object, host) {
            (None, None) => Plan::default(),
            (None, Some(host)) => orphan(host, lookup.now_unix()),
            (Some(object), host) if json::is_deleting(object) => deletion(host),
            (Some(_), Some(host)) if json::is_deleting(host) => Plan::default(),
            (Some(object), host) if service::refusal(object, view).is_some() => refusal(object, host, view),
            (Some(object), host) => match beyond(key, object, host, view, lookup) {
                Some(plan) => plan,
                None => host.map_or_else(|| creation(object, view), |host| update(object, host, view)),
            },
        }
    }
}

fn deletion(host: Option<&Value>) -> Plan {
    Plan { actions: host.map(|h| delete_host(SERVICES, h, None)).unwrap_or_default(), ..Plan::default() }
}

/// More than crosses; what is on the host of it stays as it was.
/// What is on the host stays as it was, unless it is of a type that it may not be of.
fn refusal(object: &Value, host: Option<&Value>, view: &TenantView) -> Plan {
    let is_denied = |host: &&Value| {
        let of = |object| json::text(object, "/spec/type");
        !view.policy.service_type(of(host)) || (of(object) == "ExternalName" && !view.policy.service_type(of(object)))
    };
    let mut plan = deletion(host.filter(is_denied));
    plan.actions.extend(
        service::refusal(object, view)
            .map(|why| explain(&SERVICES, object, "SyncDenied", format!("not made on the host: {why}"))),
    );
    plan
}

/// Node ports and load balancers are the whole cluster's: what is beyond the tenant's part of them is not made, nor kept when
/// the gateway, which counts nothing, has just made it. The same goes for the number of Services.
fn beyond(
    key: &ObjectKey,
    object: &Value,
    host: Option<&Value>,
    view: &TenantView,
    lookup: &dyn Lookup,
) -> Option<Plan> {
    let is_new = host.is_none_or(|host| !identity::annotation(host, keys::PENDING).is_empty());
    let (own, has) = (Exposure::of(object), host.map(Exposure::of).unwrap_or_default());
    let grows = own.node_ports > has.node_ports || own.load_balancers > has.load_balancers;
    let exposed = if own != Exposure::default() && (is_new || grows) { lookup.exposed(key).and(own) } else { own };
    let most = |what: &str| view.policy.most(what);
    let over = |number: u32, what| (number as usize > most(what)).then_some(what);
    let services = || (host.is_some() && is_new && lookup.copies("Service") > most("services")).then_some("services");
    let what = over(exposed.node_ports, "services.nodeports")
        .or_else(|| over(exposed.load_balancers, "services.loadbalancers"))
        .filter(|_| is_new || grows)
        .or_else(services)?;
    let mut plan = deletion(host.filter(|_| is_new));
    let message = format!(
        "not made on the host: this virtual cluster would have more than {} of {what} ({})",
        most(what),
        policy::decides("objects")
    );
    plan.actions.push(explain(&SERVICES, object, "SyncDenied", message));
    Some(Plan { again_after: Some(COUNT_AGAIN), ..plan })
}

/// A host Service without a virtual one: being made again, about to be made by the gateway, or left over.
fn orphan(host: &Value, now: i64) -> Plan {
    if json::is_deleting(host) {
        return Plan::default();
    }
    if let Ok(object @ Value::Object(_)) = serde_json::from_str::<Value>(identity::annotation(host, RECREATE)) {
        let namespace = json::namespace(&object).to_owned();
        let create = Action::CreateVirtual { resource: SERVICES, namespace, object };
        return Plan { actions: vec![create, annotate(host, RECREATE, &Value::Null)], ..Plan::default() };
    }
    if let Some(since) = json::unix(identity::annotation(host, keys::PENDING)) {
        let left = PENDING_SECONDS - (now - since).clamp(0, PENDING_SECONDS);
        if left > 0 {
            return Plan { again_after: u64::try_from(left).ok(), ..Plan::default() };
        }
    }
    deletion(Some(host))
}

fn creation(object: &Value, view: &TenantView) -> Plan {
    let Some(intent) = service::to_host(object, view) else { return Plan::default() };
    let mut fallback = service::without_addresses(&intent);
    let create = |object| Action::CreateHost { resource: SERVICES, object };
    let action = if fallback == intent {
        create(intent)
    } else {
        identity::set_annotation(&mut fallback, REFUSED, service::addresses(object));
        Action::OrElse { first: Box::new(create(intent)), otherwise: Box::new(create(fallback)) }
    };
    Plan { actions: std::iter::once(action).chain(warnings(object)).collect(), ..Plan::default() }
}

fn update(object: &Value, host: &Value, view: &TenantView) -> Plan {
    let Some(intent) = service::to_host(object, view) else { return Plan::default() };
    let refused = identity::annotation(host, REFUSED) == service::addresses(object);
    let (wanted, found) = (json::text(object, "/spec/clusterIP"), json::text(host, "/spec/clusterIP"));
    if !wanted.is_empty() && !found.is_empty() && wanted != found {
        return if refused { recreation(object, host) } else { deletion(Some(host)) };
    }
    let mut actions = Vec::new();
    actions.extend(down(object, host, &intent, refused));
    if refused && service::addresses(object) != service::addresses(host) {
        let ports = service::adopt_addresses(object, host).pointer("/spec/ports").cloned().unwrap_or_default();
        actions.push(patch_virtual(SERVICES, object, "", ("spec", json!({"ports": ports}))));
    }
    actions.extend(status(object, host));
    actions.extend(warnings(object));
    Plan { actions, ..Plan::default() }
}

/// What the tenant changed, as one merge patch; when the host refuses new node ports, the same without them.
fn down(object: &Value, host: &Value, intent: &Value, refused: bool) -> Option<Action> {
    let empty = Map::new();
    let mut metadata = intent.get("metadata").and_then(Value::as_object).unwrap_or(&empty).clone();
    if refused {
        json::object(&mut metadata, "annotations").insert(REFUSED.to_owned(), json!(service::addresses(object)));
    }
    let owners = identity::owners_moved(host, &metadata);
    let mut metadata = identity::metadata_patch(host, &metadata).unwrap_or_else(|| json!({}));
    if let (Some((owners, _)), Value::Object(map)) = (owners, &mut metadata) {
        map.insert("ownerReferences".to_owned(), Value::Array(owners));
    }
    for key in [REFUSED, RECREATE] {
        let kept = key == REFUSED && refused;
        if !kept
            && !identity::annotation(host, key).is_empty()
            && let Value::Object(map) = &mut metadata
        {
            json::object(map, "annotations").insert(key.to_owned(), Value::Null);
        }
    }
    let own = if refused { service::without_addresses(intent) } else { intent.clone() };
    let spec = spec_patch(host, &own);
    let patch = |metadata: &Value, spec: Option<&Value>| {
        let mut patch = json!({"metadata": metadata});
        if let (Some(spec), Value::Object(map)) = (spec, &mut patch) {
            map.insert("spec".to_owned(), spec.clone());
        }
        Action::PatchHost {
            resource: SERVICES,
            name: json::name(host).to_owned(),
            subresource: "",
            kind: PatchKind::Merge,
            patch,
        }
    };
    let Some(spec) = spec else {
        let differs = metadata.as_object().is_some_and(|map| !map.is_empty());
        return differs.then(|| patch(&metadata, None));
    };
    let first = patch(&metadata, Some(&spec));
    let chosen_by_host = spec_patch(host, &service::without_addresses(intent));
    if chosen_by_host.as_ref() == Some(&spec) {
        return Some(first);
    }
    if let Value::Object(map) = &mut metadata {
        json::object(map, "annotations").insert(REFUSED.to_owned(), json!(service::addresses(object)));
    }
    let otherwise = patch(&metadata, chosen_by_host.as_ref());
    Some(Action::OrElse { first: Box::new(first), otherwise: Box::new(otherwise) })
}

fn spec_patch(host: &Value, intent: &Value) -> Option<Value> {
    let mut wanted = intent.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    wanted.remove("healthCheckNodePort");
    let found = host.get("spec").unwrap_or(&Value::Null);
    let external = wanted.get("type").and_then(Value::as_str) == Some("ExternalName");
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if external && json::has(found, &format!("/{field}")) {
            wanted.insert(field.to_owned(), Value::Null);
        }
    }
    for field in NULLABLE {
        if !wanted.contains_key(*field) && json::has(found, &format!("/{field}")) {
            wanted.insert((*field).to_owned(), Value::Null);
        }
    }
    let mut patch = diff::changed(found, &wanted).unwrap_or_default();
    if let Some(selector @ Value::Object(_)) = wanted.get("selector").filter(|s| found.get("selector") != Some(s)) {
        patch.insert("selector".to_owned(), diff::replacing(selector, found.get("selector")));
    }
    if let Some(ports) = wanted.get("ports").filter(|_| lost_port_fields(&wanted, found)) {
        patch.insert("ports".to_owned(), ports.clone());
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Whether the tenant took an optional field from a port.
fn lost_port_fields(wanted: &Map<String, Value>, found: &Value) -> bool {
    let wanted = wanted.get("ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    wanted.iter().zip(json::items(found, "/ports")).any(|(wanted, found)| {
        ["name", "appProtocol"].iter().any(|field| wanted.get(*field).is_none() && found.get(*field).is_some())
    })
}

fn recreation(object: &Value, host: &Value) -> Plan {
    if !json::items(object, "/metadata/finalizers").is_empty() {
        let message = "the host has no free address like this Service's, and its finalizers keep it from being made \
                       again with another one: delete and create it"
            .to_owned();
        return Plan { actions: vec![explain(&SERVICES, object, "AddressUnavailable", message)], ..Plan::default() };
    }
    let mut again = service::adopt_addresses(object, host);
    if let Some(map) = again.as_object_mut() {
        map.remove("status");
        json::within(map, "metadata", |metadata| {
            for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
                metadata.remove(field);
            }
        });
    }
    let mut actions = vec![annotate(host, RECREATE, &Value::String(again.to_string()))];
    actions.extend(delete_virtual(SERVICES, object, None));
    let namespace = json::namespace(object).to_owned();
    actions.push(Action::CreateVirtual { resource: SERVICES, namespace, object: again });
    actions.push(annotate(host, RECREATE, &Value::Null));
    Plan { actions, ..Plan::default() }
}

fn annotate(host: &Value, key: &str, value: &Value) -> Action {
    Action::PatchHost {
        resource: SERVICES,
        name: json::name(host).to_owned(),
        subresource: "",
        kind: PatchKind::Merge,
        patch: json!({"metadata": {"annotations": {key: value}}}),
    }
}

fn status(object: &Value, host: &Value) -> Option<Action> {
    if json::text(object, "/spec/type") != "LoadBalancer" {
        return None;
    }
    let (found, wanted) =
        (json::items(object, "/status/loadBalancer/ingress"), json::items(host, "/status/loadBalancer/ingress"));
    let ingress = if wanted.is_empty() { Value::Null } else { json!(wanted) };
    (found != wanted)
        .then(|| patch_virtual(SERVICES, object, "status", ("status", json!({"loadBalancer": {"ingress": ingress}}))))
}

fn warnings(object: &Value) -> Option<Action> {
    (!json::items(object, "/spec/externalIPs").is_empty()).then(|| {
        let message = "spec.externalIPs is ignored: it would let one cluster take the traffic of another".to_owned();
        explain(&SERVICES, object, "ExternalIPsIgnored", message)
    })
}

#[cfg(test)]
mod tests;
