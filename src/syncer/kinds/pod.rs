//! Pods: when to make, follow, bind, report and delete; the translation is [`crate::translate::pod`].
//!
//! A pod that has run is never run again: if its host pod vanishes, it is reported as failed and its controller decides.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::kind::{
    Action, Direction, HostScope, Lookup, ObjectKey, Plan, Reference, ResourceSyncer, TenantView,
};
use super::identity::{host_name, is_for, key_of, recorded_key};
use super::projection::{strip_last_applied, strip_metadata};
use super::writes::{delete_host, delete_virtual, explain};
use crate::crd::policy::Annotated;
use crate::kubernetes::resources::PODS;
use crate::kubernetes::{PatchKind, Resource};
use crate::names::Limit;
use crate::translate::pod::env::has_links;
use crate::translate::pod::scheduling::selects_namespaces;
use crate::translate::pod::{self, Around, Refusal, ephemeral, status, update};
use crate::translate::summary::ServiceSummary;
use crate::translate::{bounds, identity, json, legacy, policy};

/// How long after the end of its grace period a host pod is deleted by force, when the tenant has let it go.
const FORCE_AFTER: i64 = 30;
/// Parts of the names of annotations by which people ask something of the host: that they have no effect is worth an event.
const ACTED_ON: &[&str] =
    &["cni.cncf.io", "istio.io", "linkerd.io", "amazonaws.com", "vault.hashicorp.com", "prometheus.io"];

/// The kind.
#[derive(Debug)]
pub struct PodKind;

/// The TokenRequests of a pod, wanted at its creation and as long as it runs; None when it mounts no token.
pub fn ensure_tokens(object: &Value, host: Option<&Value>, view: &TenantView) -> Option<Action> {
    let tokens = pod::tokens(object, host, view)?;
    Some(Action::EnsureTokens {
        pod: key_of(object),
        pod_uid: json::uid(object).to_owned(),
        service_account: tokens.service_account,
        secret: tokens.secret,
        tokens: tokens.tokens,
    })
}

impl ResourceSyncer for PodKind {
    fn resource(&self) -> Resource {
        PODS
    }

    fn counted(&self) -> Option<&'static [&'static str]> {
        Some(&["Pending", "Running", "Succeeded", "Failed", "Unknown"])
    }

    fn host_scope(&self) -> HostScope {
        HostScope::Tenant
    }

    fn project(&self, object: Value, side: Direction) -> Value {
        let object = strip_last_applied(strip_metadata(object, &["generateName"]));
        if side == Direction::Up { slim_host(object) } else { object }
    }

    fn virtual_key(&self, host: &Value, view: &TenantView) -> Option<ObjectKey> {
        recorded_key(&PODS, host, view, Limit::Subdomain)
    }

    fn host_name(&self, key: &ObjectKey, view: &TenantView) -> Option<String> {
        host_name(&self.resource(), key, view, Limit::Subdomain)
    }

    fn references(&self, object: &Value) -> Vec<Reference> {
        let namespace = json::namespace(object);
        let reference = |(kind, name): (pod::references::Referenced, String)| Reference {
            kind: kind.kind(),
            key: ObjectKey { namespace: namespace.to_owned(), name },
        };
        // What names a refused pod names stays in the tenant; one that ran before there was such a bound keeps them.
        let has_run =
            !json::text(object, "/spec/nodeName").is_empty() || !json::text(object, "/status/startTime").is_empty();
        if !has_run && pod::excess(object).is_some() {
            return Vec::new();
        }
        pod::references::of(object).into_iter().take(bounds::NAMES).map(reference).collect()
    }

    fn plan(
        &self,
        _key: &ObjectKey,
        virtual_object: Option<&Value>,
        host: Option<&Value>,
        view: &TenantView,
        lookup: &dyn Lookup,
    ) -> Plan {
        match (virtual_object, host) {
            (None, None) => Plan::default(),
            (None, Some(host)) => left_over(host, lookup.now_unix()),
            (Some(object), Some(host)) if !is_for(host, object) => left_over(host, lookup.now_unix()),
            (Some(object), None) if json::is_deleting(object) => gone_for_good(object),
            (Some(object), Some(host)) if json::is_deleting(object) => ending(object, host, view),
            (Some(object), None) => absent(self, object, view, lookup),
            (Some(object), Some(host)) => running(object, host, view, lookup),
        }
    }
}

/// Of the host pod's spec only what plans compare with is kept.
fn slim_host(mut object: Value) -> Value {
    let Some(spec) = object.get("spec").filter(|s| s.is_object()) else { return object };
    let mut slim = json::pick(spec, &["nodeName", "tolerations", "schedulingGates", "activeDeadlineSeconds"]);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let containers: Vec<Value> = json::items(spec, &format!("/{list}"))
            .iter()
            .map(|c| Value::Object(json::pick(c, &["name", "image"])))
            .collect();
        if !containers.is_empty() {
            slim.insert(list.to_owned(), Value::Array(containers));
        }
    }
    if let Value::Object(map) = &mut object {
        map.insert("spec".to_owned(), Value::Object(slim));
    }
    object
}

/// A host pod whose virtual pod is gone (or is another one by now): deleted with its own grace; by force when its node
/// does not answer, since the tenant has let it go already.
fn left_over(host: &Value, now: i64) -> Plan {
    if !json::is_deleting(host) {
        return Plan { actions: delete_host(PODS, host, None), again_after: Some(60), ..Plan::default() };
    }
    // deletionTimestamp is the end of the grace period.
    let Some(end) = json::unix(json::text(host, "/metadata/deletionTimestamp")) else { return Plan::default() };
    if now <= end.saturating_add(FORCE_AFTER) {
        return Plan { again_after: Some(60), ..Plan::default() };
    }
    let (name, uid) = (json::name(host).to_owned(), json::uid(host).to_owned());
    Plan { actions: vec![Action::DeleteHost { resource: PODS, name, uid, grace: Some(0) }], ..Plan::default() }
}

/// The tenant deletes a pod and nothing of it is left on the host.
fn gone_for_good(object: &Value) -> Plan {
    let waits_for_finalizers = !json::items(object, "/metadata/finalizers").is_empty()
        && object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64) == Some(0);
    if waits_for_finalizers {
        return Plan::default();
    }
    let (key, uid) = (key_of(object), json::uid(object).to_owned());
    Plan { actions: vec![Action::DeleteVirtual { resource: PODS, key, uid, grace: Some(0) }], ..Plan::default() }
}

/// The tenant deletes a pod: the host pod ends with the same grace, its status still comes up.
fn ending(object: &Value, host: &Value, view: &TenantView) -> Plan {
    let grace = |pod: &Value| pod.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64);
    let mut actions: Vec<Action> = status_up(object, host, view).into_iter().collect();
    let wanted = grace(object).map(|seconds| seconds.min(view.policy.max_grace_period()));
    let shortened = json::is_deleting(host) && wanted.zip(grace(host)).is_some_and(|(wanted, has)| wanted < has);
    if !json::is_deleting(host) || shortened {
        let (name, uid) = (json::name(host).to_owned(), json::uid(host).to_owned());
        actions.push(Action::DeleteHost { resource: PODS, name, uid, grace: wanted });
    }
    Plan { actions, ..Plan::default() }
}

/// A virtual pod without a host pod: to be made, unless it has run or may not.
fn absent(kind: &PodKind, object: &Value, view: &TenantView, lookup: &dyn Lookup) -> Plan {
    if matches!(json::text(object, "/status/phase"), "Succeeded" | "Failed") {
        return Plan::default();
    }
    if !json::text(object, "/status/startTime").is_empty() {
        return Plan { actions: vec![patch_status(object, status::gone(object))], ..Plan::default() };
    }
    let refuse = |reason, message| Plan { actions: vec![explain(&PODS, object, reason, message)], ..Plan::default() };
    if let Some(excess) = pod::excess(object) {
        return refuse("SyncDenied", format!("not run on the host: {}", excess.message()));
    }
    if let Some(violation) = policy::check(object, &view.policy) {
        return refuse("SyncDenied", violation.message());
    }
    if let Some((field, rule)) = pod::unsupported(object) {
        return refuse("SyncDenied", format!("not run on the host: {field} {rule}"));
    }
    if let Some((reason, message)) = node_refusal(object, view, lookup) {
        return Plan { again_after: Some(15), ..refuse(reason, message) };
    }
    let made = match pod::to_host(object, &around(object, view, lookup), view) {
        Ok(made) => made,
        Err(Refusal::Name) => {
            return refuse("SyncDenied", "its name or namespace is not valid on the host".to_owned());
        }
        Err(Refusal::Excess(excess)) => {
            return refuse("SyncDenied", format!("not run on the host: {}", excess.message()));
        }
    };
    let cut = (made.links_left_out > 0).then(|| {
        let message = format!(
            "the environment holds variables of the first Services by name, {} have no room in it; \
             `enableServiceLinks: false` keeps them out altogether, DNS knows them all",
            made.links_left_out
        );
        explain(&PODS, object, "SyncLimited", message)
    });
    let create = Action::CreateHost { resource: PODS, object: made.pod };
    let limited = limits(object, view, lookup);
    let actions = ensure_tokens(object, None, view).into_iter().chain([create]).chain(cut).chain(limited).collect();
    Plan { actions, requires: kind.references(object), ..Plan::default() }
}

/// A pod that names its node passes the scheduler by, so what the scheduler would ask is asked here.
fn node_refusal(object: &Value, view: &TenantView, lookup: &dyn Lookup) -> Option<(&'static str, String)> {
    let name = json::text(object, "/spec/nodeName");
    if name.is_empty() {
        return None;
    }
    let node = lookup.host_cluster_object("Node", name).filter(|node| super::cluster::is_shown(node, view));
    match node {
        None => Some(("NodeNotFound", format!("node {name} is not one of this cluster's"))),
        Some(node) if !pod::tolerates(object, json::items(&node, "/spec/taints"), view) => {
            let decides = policy::decides("tolerations");
            Some((
                "SyncDenied",
                format!("node {name} has a taint that the pod does not tolerate, or may not ({decides})"),
            ))
        }
        Some(_) => None,
    }
}

/// What of a pod stays inside while the rest of it runs.
fn limits(object: &Value, view: &TenantView, lookup: &dyn Lookup) -> Vec<Action> {
    let mut out = Vec::new();
    let mut note = |what: String| out.push(explain(&PODS, object, "SyncLimited", what));
    let fields = pod::unknown(object);
    if !fields.is_empty() {
        note(format!("fields that Portico does not know stay in the virtual cluster: {}", fields.join(", ")));
    }
    let tolerations = pod::tolerations_left_out(object, view);
    if !tolerations.is_empty() {
        note(format!("tolerations left out: {} ({})", tolerations.join(", "), policy::decides("tolerations")));
    }
    let class = json::text(object, "/spec/priorityClassName");
    if !class.is_empty() && !view.policy.priority_class(class) && has_class(class, lookup) {
        note(format!("it has no priority on the host: class {class} ({})", policy::decides("priorityClasses")));
    }
    let annotations = identity::tenant_annotations(object).into_keys();
    let crossing = |key: &String| view.policy.annotation(Annotated::Pods, key);
    let acted_on = |key: &String| ACTED_ON.iter().any(|known| key.contains(known));
    let left: Vec<String> = annotations.filter(|key| !crossing(key) && acted_on(key)).take(8).collect();
    if !left.is_empty() {
        note(format!(
            "annotations without effect on the host: {} ({})",
            left.join(", "),
            policy::decides("podAnnotations")
        ));
    }
    out
}

fn has_class(class: &str, lookup: &dyn Lookup) -> bool {
    lookup.host_cluster_object("PriorityClass", class).is_some()
}

fn around(object: &Value, view: &TenantView, lookup: &dyn Lookup) -> Around {
    let class = json::text(object, "/spec/priorityClassName");
    Around {
        services: services(object, lookup),
        namespaces: if selects_namespaces(object) { lookup.namespaces() } else { Vec::new() },
        priority_class: !class.is_empty() && view.policy.priority_class(class) && has_class(class, lookup),
    }
}

fn services(object: &Value, lookup: &dyn Lookup) -> Vec<Arc<ServiceSummary>> {
    if has_links(object) { lookup.services(json::namespace(object)) } else { Vec::new() }
}

/// Both sides are there.
fn running(object: &Value, host: &Value, view: &TenantView, lookup: &dyn Lookup) -> Plan {
    let mut actions = Vec::new();
    let (own_node, node) = (json::text(object, "/spec/nodeName"), json::text(host, "/spec/nodeName"));
    if !own_node.is_empty() && !node.is_empty() && own_node != node {
        let message = format!("it was bound to node {own_node} while the host chose {node}; pods cannot move");
        actions.push(explain(&PODS, object, "NodeMismatch", message));
        actions.extend(delete_virtual(PODS, object, None));
        return Plan { actions, ..Plan::default() };
    }
    if own_node.is_empty() && !node.is_empty() {
        let (key, uid) = (key_of(object), json::uid(object).to_owned());
        actions.push(Action::BindVirtual { key, uid, node: node.to_owned() });
    }
    actions.extend(status_up(object, host, view));
    if json::is_deleting(host) {
        let grace = host.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64);
        actions.extend(delete_virtual(PODS, object, grace));
        return Plan { actions, ..Plan::default() };
    }
    actions.extend(changes_down(object, host, view, lookup));
    Plan { actions, ..Plan::default() }
}

fn changes_down(object: &Value, host: &Value, view: &TenantView, lookup: &dyn Lookup) -> Vec<Action> {
    let patch = |subresource, patch| Action::PatchHost {
        resource: PODS,
        name: json::name(host).to_owned(),
        subresource,
        kind: PatchKind::Strategic,
        patch,
    };
    let mut actions = Vec::new();
    let optional = |subresource, what: &str, action: Action| {
        if lookup.may("patch", &PODS, subresource) {
            return action;
        }
        let message = format!("{what}: Portico has no right to patch pods/{subresource} on the host");
        explain(&PODS, object, "SyncLimited", message)
    };
    let update = update::update(object, host, view);
    actions.extend(update.refused.map(|violation| explain(&PODS, object, "SyncDenied", violation.message())));
    actions.extend(update.patch.map(|p| patch("", p)));
    let gates =
        status::down(object, host).map(|p| optional("status", "conditions do not reach it", patch("status", p)));
    actions.extend(gates);
    let over = matches!(json::text(host, "/status/phase"), "Succeeded" | "Failed");
    if over {
        return actions;
    }
    let debug = ephemeral_containers(object, host, view, lookup, patch);
    actions.extend(debug.into_iter().map(|action| match action {
        Action::PatchHost { .. } => optional("ephemeralcontainers", "ephemeral containers cannot be added", action),
        other => other,
    }));
    if let Some((resize, record)) = update::resize(object, host, view) {
        let resize = optional("resize", "it cannot be resized in place", patch("resize", resize));
        let may = matches!(resize, Action::PatchHost { .. });
        actions.push(resize);
        actions.extend(may.then(|| patch("", record)));
    }
    // No write while they are good: the engine knows when they must be refreshed. A pod that vcluster made mounts others.
    if identity::annotation(host, legacy::ADOPTED).is_empty() {
        actions.extend(ensure_tokens(object, Some(host), view));
    }
    actions
}

fn ephemeral_containers(
    object: &Value,
    host: &Value,
    view: &TenantView,
    lookup: &dyn Lookup,
    patch: impl Fn(&'static str, Value) -> Action,
) -> Vec<Action> {
    if json::items(object, "/spec/ephemeralContainers").is_empty() {
        return Vec::new();
    }
    let ephemeral = ephemeral::containers(object, host, &services(object, lookup), view);
    let (mut actions, mut allowed) = (Vec::new(), Vec::new());
    if let Some(excess) = &ephemeral.beyond {
        actions.push(explain(&PODS, object, "SyncDenied", format!("not run on the host: {}", excess.message())));
    }
    for (index, container) in ephemeral.wanted {
        match policy::check_container(object, "ephemeralContainers", index, &view.policy) {
            None => allowed.push(container),
            Some(violation) => actions.push(explain(&PODS, object, "SyncDenied", violation.message())),
        }
    }
    if !allowed.is_empty() {
        actions.push(patch("ephemeralcontainers", json!({"spec": {"ephemeralContainers": allowed}})));
    }
    actions
}

fn status_up(object: &Value, host: &Value, view: &TenantView) -> Option<Action> {
    status::up(object, host, view).map(|patch| patch_status(object, patch))
}

fn patch_status(object: &Value, patch: Value) -> Action {
    Action::PatchVirtual {
        resource: PODS,
        key: key_of(object),
        subresource: "status",
        kind: PatchKind::Strategic,
        patch,
    }
}

#[cfg(test)]
mod growth_tests;
#[cfg(test)]
mod tests;
