//! Events about host objects of a tenant become Events about the tenant's objects.
//!
//! One way, on demand: the key is the host event's name. An event may be seen before the object it is about; it is looked
//! at again for a minute.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::kind::{Action, Direction, HostScope, Lookup, ObjectKey, Plan, ResourceSyncer, TenantView};
use super::identity::virtual_key_of;
use super::projection::strip_metadata;
use crate::kubernetes::Resource;
use crate::kubernetes::resources::EVENTS;
use crate::names::Limit;
use crate::translate::event::{self, About};
use crate::translate::{identity, json, pod};

/// Kinds whose events cross, with the limit of their host names.
const KINDS: &[(&str, Limit)] = &[
    ("Pod", Limit::Subdomain),
    ("PersistentVolumeClaim", Limit::Subdomain),
    ("Service", Limit::Label),
    ("Ingress", Limit::Subdomain),
    ("ConfigMap", Limit::Subdomain),
    ("Secret", Limit::Subdomain),
    ("Endpoints", Limit::Label),
    ("EndpointSlice", Limit::Subdomain),
];
const PATIENCE: i64 = 60;
const RETRY: u64 = 2;

/// The kind.
#[derive(Debug)]
pub struct EventKind;

impl ResourceSyncer for EventKind {
    fn resource(&self) -> Resource {
        EVENTS
    }

    fn host_scope(&self) -> HostScope {
        HostScope::Namespace
    }

    fn watches_virtual(&self) -> bool {
        false
    }

    fn project(&self, object: Value, _side: Direction) -> Value {
        strip_metadata(object, &["labels", "annotations", "ownerReferences"])
    }

    /// Any event about an object in the host namespace; whose it is, the plan finds out.
    fn virtual_key(&self, host: &Value, view: &TenantView) -> Option<ObjectKey> {
        let kind = json::text(host, "/involvedObject/kind");
        (event::is_candidate(host, view) && KINDS.iter().any(|(known, _)| *known == kind))
            .then(|| ObjectKey { namespace: String::new(), name: json::name(host).to_owned() })
    }

    fn host_name(&self, key: &ObjectKey, _view: &TenantView) -> Option<String> {
        Some(key.name.clone())
    }

    fn plan(
        &self,
        _key: &ObjectKey,
        _virtual_object: Option<&Value>,
        host: Option<&Value>,
        view: &TenantView,
        lookup: &dyn Lookup,
    ) -> Plan {
        let Some(host) = host else { return Plan::default() };
        match about(host, view, lookup) {
            Found::Yes(about) => {
                let object = event::to_virtual(host, &about, view);
                let namespace = about.namespace;
                let actions = vec![Action::ApplyVirtual { resource: EVENTS, namespace, object }];
                Plan { actions, ..Plan::default() }
            }
            Found::Perhaps if event::last_seen(host).is_some_and(|at| lookup.now_unix() - at < PATIENCE) => {
                Plan { again_after: Some(RETRY), ..Plan::default() }
            }
            Found::Perhaps | Found::No => Plan::default(),
        }
    }
}

enum Found {
    Yes(About),
    /// Its name is one of ours, but the object is not known (yet).
    Perhaps,
    No,
}

fn about(host: &Value, view: &TenantView, lookup: &dyn Lookup) -> Found {
    let kind = json::text(host, "/involvedObject/kind");
    let Some((kind, limit)) = KINDS.iter().find(|(known, _)| *known == kind) else { return Found::No };
    let name = json::text(host, "/involvedObject/name");
    let host_object = lookup.host_object_named(kind, name);
    let recorded = host_object.as_ref().and_then(|object| virtual_key_of(kind, object, view, *limit));
    let readable = || {
        let (namespace, virtual_name) = event::readable(name, view)?;
        let same = identity::host_name(kind, namespace, virtual_name, view, *limit)?.as_str() == name;
        same.then(|| ObjectKey { namespace: namespace.to_owned(), name: virtual_name.to_owned() })
    };
    let Some(key) = recorded.or_else(readable) else {
        // A hashed name of an object that is not in the cache yet, or an object that is nobody's.
        return if host_object.is_none() && event::is_hashed(name) { Found::Perhaps } else { Found::No };
    };
    // An event about an earlier object of the same name belongs to that one.
    let of_this_host = host_object.filter(|o| json::uid(o) == json::text(host, "/involvedObject/uid"));
    let object = lookup.virtual_object(kind, &key);
    let recorded = of_this_host.as_ref().map(|o| identity::recorded_uid(o).to_owned()).filter(|uid| !uid.is_empty());
    let Some(uid) = recorded.or_else(|| object.as_ref().map(|o| json::uid(o).to_owned())) else {
        return Found::Perhaps;
    };
    let mut names: BTreeMap<String, String> = [(name.to_owned(), key.name.clone())].into();
    let host_pod = of_this_host.as_ref();
    if let Some(object) = object.filter(|_| *kind == "Pod") {
        names.extend(names_in_pod(&object, host_pod, view));
    }
    Found::Yes(About { namespace: key.namespace, name: key.name, uid, names })
}

/// Host names of what a pod refers to, which messages of kubelets and schedulers name.
fn names_in_pod(object: &Value, host: Option<&Value>, view: &TenantView) -> BTreeMap<String, String> {
    let namespace = json::namespace(object);
    let references = pod::references::of(object).into_iter().filter_map(|(kind, name)| {
        let host = identity::host_name(kind.kind(), namespace, &name, view, Limit::Subdomain)?;
        Some((host.to_string(), name))
    });
    let token = pod::tokens(object, host, view).map(|tokens| (tokens.secret, "service-account-token".to_owned()));
    references.chain(token).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, hostile_plans};
    use super::*;
    use serde_json::json;

    fn host_event(name: &str, message: &str) -> Value {
        json!({
            "metadata": {"name": "e1", "namespace": "team-a", "uid": "event-uid"},
            "involvedObject": {"kind": "Pod", "namespace": "team-a", "name": name, "uid": "hu", "fieldPath": "spec.containers{c}"},
            "reason": "Failed", "message": message, "type": "Warning", "count": 3, "lastTimestamp": "2027-01-15T08:00:00Z",
            "source": {"component": "kubelet", "host": "n1"}, "reportingComponent": "kubelet", "reportingInstance": "n1",
        })
    }

    fn world() -> World {
        let mut world = World::new();
        world.now = json::unix("2027-01-15T08:00:10Z").expect("valid");
        world.put_virtual(
            "Pod",
            json!({"metadata": {"name": "web", "namespace": "default", "uid": "u1"},
            "spec": {"volumes": [{"name": "v", "secret": {"secretName": "a-x-b"}}]}}),
        );
        world
    }

    fn shown(world: &World) -> Vec<Value> {
        world.virtual_objects("Event", "")
    }

    #[test]
    fn an_event_speaks_of_the_tenants_objects() {
        let mut world = world();
        let hashed = identity::host_name("Secret", "default", "a-x-b", &world.view, Limit::Subdomain).expect("valid");
        let message = format!(
            "MountVolume: secret \"{hashed}\" not found for pod web-x-default-x-vc1_team-a (team-a/web-x-default-x-vc1). object \"team-a\"."
        );
        world.put_host("Event", host_event("web-x-default-x-vc1", &message));
        world.step(&EventKind, "", "e1");
        let events = shown(&world);
        let [event] = events.as_slice() else { panic!("one event: {events:?}") };
        assert_eq!(
            event["message"],
            "MountVolume: secret \"a-x-b\" not found for pod web_default (default/web). object \"default\"."
        );
        assert_eq!(
            event["involvedObject"],
            json!({"kind": "Pod", "namespace": "default", "name": "web", "uid": "u1", "fieldPath": "spec.containers{c}"})
        );
        assert_eq!(event["metadata"]["namespace"], "default");
        assert_eq!(event["source"]["component"], "kubelet");
        world.step(&EventKind, "", "e1");
        assert_eq!(shown(&world).len(), 1);
    }

    #[test]
    fn an_early_event_waits_and_a_foreign_one_is_ignored() {
        let mut world = world();
        world.put_host("Event", host_event("later-x-default-x-vc1", "m"));
        let plan = world.plan(&EventKind, "", "e1");
        assert_eq!((plan.actions.len(), plan.again_after), (0, Some(2)));
        world.now += 120;
        assert_eq!(world.plan(&EventKind, "", "e1"), Plan::default());
        world.put_host("Event", host_event("web-x-default-x-vc2", "m"));
        world.now += 120;
        assert_eq!(world.plan(&EventKind, "", "e1"), Plan::default());
        world.put_host("Pod", json!({"metadata": {"name": "plain", "namespace": "team-a"}}));
        world.put_host("Event", host_event("plain", "m"));
        assert_eq!(world.plan(&EventKind, "", "e1"), Plan::default());
    }

    #[test]
    fn hostile_input_never_panics() {
        hostile_plans(&EventKind, &host_event("web-x-default-x-vc1", "m"));
    }
}
