//! Small kinds that use every feature of the contract, so that the engine is tested and not their translation.

use std::net::IpAddr;
use std::sync::Arc;

use portico::crd::policy::GrantedPolicy;
use portico::kubernetes::resources::{CONFIG_MAPS, NODES, PODS, SECRETS, SERVICES};
use portico::kubernetes::{PatchKind, Resource};
use portico::names::{Limit, TenantId, keys};
use portico::syncer::Catalog;
use portico::syncer::kind::{
    Action, Direction, HostScope, Lookup, ObjectKey, Plan, Reference, ResourceSyncer, TenantView, TokenSpec,
};
use portico::translate::identity;
use serde_json::{Value, json};

pub fn catalog() -> Catalog {
    Catalog::new(catalog_with(|kind| kind))
}

/// All of them, each as `change` makes it.
pub fn catalog_with(
    change: impl Fn(Arc<dyn ResourceSyncer>) -> Arc<dyn ResourceSyncer>,
) -> Vec<Arc<dyn ResourceSyncer>> {
    let kinds: Vec<Arc<dyn ResourceSyncer>> = vec![
        Arc::new(PodKind),
        Arc::new(ConfigKind),
        Arc::new(NodeKind),
        Arc::new(Plain(SERVICES, HostScope::None)),
        Arc::new(Plain(SECRETS, HostScope::Tenant)),
    ];
    kinds.into_iter().map(change).collect()
}

pub fn view(namespace: &str, name: &str, uid: &str, ip: IpAddr) -> TenantView {
    TenantView {
        id: TenantId::parse(namespace, name).expect("id"),
        uid: uid.to_owned(),
        owner: Some(portico::translate::Owner::virtual_cluster(name, uid)),
        placement: portico::translate::Placement::default(),
        api_service_ip: ip,
        dns_service_ip: ip,
        cluster_domain: "cluster.local".to_owned(),
        policy: GrantedPolicy::default(),
        translate_images: std::collections::BTreeMap::new(),
        node_selector: std::collections::BTreeMap::new(),
        api_ca: String::new(),
    }
}

/// No kind of the simulation has an older name, so none need be said.
pub fn host_name(key: &ObjectKey, view: &TenantView) -> String {
    identity::host_name("", &key.namespace, &key.name, view, Limit::Subdomain).expect("valid").to_string()
}

pub fn secret_name(key: &ObjectKey, view: &TenantView) -> String {
    format!("{}-tokens", host_name(key, view))
}

fn down(resource: &Resource, object: &Value, view: &TenantView, field: &str) -> Value {
    let metadata = identity::metadata(resource.kind, object, view, Limit::Subdomain).expect("valid");
    let mut host = json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": metadata});
    if !object[field].is_null() {
        host[field] = object[field].clone();
    }
    host
}

fn deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn delete(resource: Resource, host: &Value) -> Vec<Action> {
    if deleting(host) {
        return Vec::new();
    }
    let (name, uid) = (text(host, "name").to_owned(), text(host, "uid").to_owned());
    vec![Action::DeleteHost { resource, name, uid, grace: None }]
}

/// Down with a create, up with a status; binds, wants tokens, references a ConfigMap.
struct PodKind;

impl ResourceSyncer for PodKind {
    fn resource(&self) -> Resource {
        PODS
    }

    fn host_scope(&self) -> HostScope {
        HostScope::Tenant
    }

    fn project(&self, object: Value, _side: Direction) -> Value {
        object
    }

    fn virtual_key(&self, host: &Value, view: &TenantView) -> Option<ObjectKey> {
        let (namespace, name) = identity::virtual_key("Pod", host, view, Limit::Subdomain)?;
        Some(ObjectKey { namespace, name })
    }

    fn host_name(&self, key: &ObjectKey, view: &TenantView) -> Option<String> {
        Some(host_name(key, view))
    }

    fn references(&self, pod: &Value) -> Vec<Reference> {
        let Some(config) = pod["spec"]["config"].as_str() else { return Vec::new() };
        let key = ObjectKey { namespace: text(pod, "namespace").to_owned(), name: config.to_owned() };
        vec![Reference { kind: "ConfigMap", key }]
    }

    fn plan(
        &self,
        key: &ObjectKey,
        pod: Option<&Value>,
        host: Option<&Value>,
        view: &TenantView,
        _: &dyn Lookup,
    ) -> Plan {
        let mut actions = Vec::new();
        let tokens = |pod: &Value| Action::EnsureTokens {
            pod: key.clone(),
            pod_uid: text(pod, "uid").to_owned(),
            service_account: "default".to_owned(),
            secret: secret_name(key, view),
            tokens: vec![TokenSpec { key: "t".to_owned(), audience: String::new(), expiration_seconds: 3600 }],
        };
        let uid = |pod: &Value| text(pod, "uid").to_owned();
        match (pod, host) {
            (None, None) => {}
            (None, Some(host)) => actions = delete(PODS, host),
            (Some(pod), None) if deleting(pod) => {
                actions.push(Action::DeleteVirtual { resource: PODS, key: key.clone(), uid: uid(pod), grace: Some(0) });
            }
            (Some(pod), None) => {
                actions.push(tokens(pod));
                actions.push(Action::CreateHost { resource: PODS, object: down(&PODS, pod, view, "spec") });
            }
            (Some(pod), Some(host)) => {
                if deleting(pod) || identity::recorded_uid(host) != uid(pod) {
                    return Plan { actions: delete(PODS, host), ..Plan::default() };
                }
                if deleting(host) {
                    return Plan::default();
                }
                actions.push(tokens(pod));
                if pod["spec"]["config"] != host["spec"]["config"] {
                    let name = text(host, "name").to_owned();
                    let patch =
                        json!({"metadata": {"uid": text(host, "uid")}, "spec": {"config": pod["spec"]["config"]}});
                    actions.push(Action::PatchHost {
                        resource: PODS,
                        name,
                        subresource: "",
                        kind: PatchKind::Merge,
                        patch,
                    });
                }
                match (host["spec"]["nodeName"].as_str(), pod["spec"]["nodeName"].as_str()) {
                    (Some(node), None) => {
                        let node = node.to_owned();
                        actions.push(Action::BindVirtual { key: key.clone(), uid: uid(pod), node });
                    }
                    (a, b) if a != b => actions.push(Action::DeleteVirtual {
                        resource: PODS,
                        key: key.clone(),
                        uid: uid(pod),
                        grace: Some(0),
                    }),
                    _ => {}
                }
                if host["status"] != pod["status"] && !host["status"].is_null() {
                    let patch = json!({"metadata": {"uid": uid(pod)}, "status": host["status"]});
                    actions.push(Action::PatchVirtual {
                        resource: PODS,
                        key: key.clone(),
                        subresource: "status",
                        kind: PatchKind::Merge,
                        patch,
                    });
                }
            }
        }
        Plan { actions, ..Plan::default() }
    }
}

/// Only while used; its body is fetched when planned.
struct ConfigKind;

impl ResourceSyncer for ConfigKind {
    fn resource(&self) -> Resource {
        CONFIG_MAPS
    }

    fn host_scope(&self) -> HostScope {
        HostScope::Tenant
    }

    fn fetch_body_on_demand(&self) -> bool {
        true
    }

    fn project(&self, object: Value, _side: Direction) -> Value {
        object
    }

    fn virtual_key(&self, host: &Value, view: &TenantView) -> Option<ObjectKey> {
        let (namespace, name) = identity::virtual_key("ConfigMap", host, view, Limit::Subdomain)?;
        Some(ObjectKey { namespace, name })
    }

    fn host_name(&self, key: &ObjectKey, view: &TenantView) -> Option<String> {
        Some(host_name(key, view))
    }

    fn plan(
        &self,
        key: &ObjectKey,
        map: Option<&Value>,
        host: Option<&Value>,
        view: &TenantView,
        lookup: &dyn Lookup,
    ) -> Plan {
        let used = lookup.is_referenced("ConfigMap", key);
        let actions = match (map.filter(|_| used), host) {
            (None, None) => Vec::new(),
            (None, Some(host)) => delete(CONFIG_MAPS, host),
            (Some(map), Some(host)) if identity::recorded_uid(host) != text(map, "uid") => delete(CONFIG_MAPS, host),
            (Some(map), Some(host)) if host["data"] == map["data"] => Vec::new(),
            (Some(map), _) => {
                vec![Action::ApplyHost { resource: CONFIG_MAPS, object: down(&CONFIG_MAPS, map, view, "data") }]
            }
        };
        Plan { actions, ..Plan::default() }
    }
}

/// Host to tenant.
struct NodeKind;

impl ResourceSyncer for NodeKind {
    fn resource(&self) -> Resource {
        NODES
    }

    fn host_scope(&self) -> HostScope {
        HostScope::Cluster
    }

    fn project(&self, object: Value, _side: Direction) -> Value {
        object
    }

    fn virtual_key(&self, host: &Value, _view: &TenantView) -> Option<ObjectKey> {
        Some(ObjectKey { namespace: String::new(), name: text(host, "name").to_owned() })
    }

    fn host_name(&self, key: &ObjectKey, _view: &TenantView) -> Option<String> {
        Some(key.name.clone())
    }

    fn plan(
        &self,
        key: &ObjectKey,
        node: Option<&Value>,
        host: Option<&Value>,
        _: &TenantView,
        _: &dyn Lookup,
    ) -> Plan {
        let actions = match (node, host) {
            (Some(node), None) => {
                let uid = text(node, "uid").to_owned();
                vec![Action::DeleteVirtual { resource: NODES, key: key.clone(), uid, grace: None }]
            }
            (node, Some(host)) if node.is_none_or(|n| n["capacity"] != host["capacity"]) => {
                let object = json!({"metadata": {"name": key.name}, "capacity": host["capacity"]});
                vec![Action::ApplyVirtual { resource: NODES, namespace: String::new(), object }]
            }
            _ => Vec::new(),
        };
        Plan { actions, ..Plan::default() }
    }
}

/// Watched only.
struct Plain(Resource, HostScope);

impl ResourceSyncer for Plain {
    fn resource(&self) -> Resource {
        self.0
    }

    fn host_scope(&self) -> HostScope {
        self.1
    }

    fn project(&self, object: Value, _side: Direction) -> Value {
        object
    }

    fn virtual_key(&self, _host: &Value, _view: &TenantView) -> Option<ObjectKey> {
        None
    }

    fn host_name(&self, _key: &ObjectKey, _view: &TenantView) -> Option<String> {
        None
    }

    fn plan(&self, _: &ObjectKey, _: Option<&Value>, _: Option<&Value>, _: &TenantView, _: &dyn Lookup) -> Plan {
        Plan::default()
    }
}

/// Marks of a host object of this tenant.
pub fn belongs_to(object: &Value, view: &TenantView) -> bool {
    text(object, "namespace") == view.namespace().as_str()
        && object["metadata"]["labels"][keys::CLUSTER] == view.cluster().as_str()
}
