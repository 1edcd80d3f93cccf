//! ConfigMaps and Secrets: on the host only while something of the tenant that is synced uses them.
//!
//! The cache never holds host data: the projection keeps a fingerprint of it, which is all that a comparison needs.

use serde_json::{Map, Value, json};

use super::super::kind::{Direction, HostScope, Lookup, ObjectKey, Plan, ResourceSyncer, TenantView};
use super::identity::{host_name, is_for, kind_annotation, recorded_key};
use super::projection::{strip_last_applied, strip_metadata};
use super::writes::apply_down;
use crate::kubernetes::Resource;
use crate::kubernetes::resources::{CONFIG_MAPS, SECRETS};
use crate::names::{Limit, keys};
use crate::translate::{diff, identity, json, legacy};

/// ConfigMap by which an API server publishes its CA to every pod.
const ROOT_CA: &str = "kube-root-ca.crt";
const FINGERPRINT: &str = "dataFingerprint";
/// Seconds until an object that only adopted pods use is looked at again: nothing tells when the last of them ends.
const HELD_RECHECK: u64 = 120;

/// Either kind.
#[derive(Debug)]
pub struct ConfigKind(Resource);

impl ConfigKind {
    /// ConfigMaps.
    pub fn config_maps() -> Self {
        Self(CONFIG_MAPS)
    }

    /// Secrets.
    pub fn secrets() -> Self {
        Self(SECRETS)
    }

    fn intent(&self, object: &Value, view: &TenantView) -> Option<Value> {
        let mut metadata = identity::metadata(&kind_annotation(&self.0), object, view, Limit::Subdomain)?;
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            // They name the tenant's account; on the host they would name the host's.
            annotations.retain(|key, _| !keys::own(key).starts_with("kubernetes.io/service-account."));
        }
        let mut out = Map::new();
        out.insert("apiVersion".to_owned(), json!("v1"));
        out.insert("kind".to_owned(), json!(self.0.kind));
        out.insert("metadata".to_owned(), Value::Object(metadata));
        out.extend(json::pick(object, &["data", "binaryData", "immutable"]));
        if self.0.kind == "ConfigMap" && json::name(object) == ROOT_CA {
            trust_the_gateway(&mut out, &view.api_ca);
        }
        if self.0.kind == "Secret" {
            out.insert("type".to_owned(), json!(host_type(json::text(object, "/type"))));
        }
        Some(Value::Object(out))
    }
}

/// An external API server publishes its own CA, but its pods meet the gateway in its place.
fn trust_the_gateway(config_map: &mut Map<String, Value>, ca: &str) {
    let published = config_map.get_mut("data").and_then(|data| data.get_mut("ca.crt"));
    let Some(Value::String(published)) = published else { return };
    if ca.is_empty() || published.contains(ca.trim()) {
        return;
    }
    if !published.ends_with('\n') {
        published.push('\n');
    }
    published.push_str(ca);
}

/// Types that the host's controllers act on become opaque.
fn host_type(of_tenant: &str) -> &str {
    match of_tenant {
        "" | "kubernetes.io/service-account-token" | "bootstrap.kubernetes.io/token" => "Opaque",
        other => other,
    }
}

/// Replaces data by its fingerprint.
fn slim(mut object: Value) -> Value {
    if let Value::Object(map) = &mut object {
        let mut data = Map::new();
        for field in ["data", "binaryData"] {
            match map.remove(field) {
                Some(Value::Object(entries)) if !entries.is_empty() => {
                    data.insert(field.to_owned(), Value::Object(entries));
                }
                _ => {}
            }
        }
        if !data.is_empty() {
            map.insert(FINGERPRINT.to_owned(), Value::String(diff::fingerprint(&Value::Object(data))));
        }
    }
    object
}

/// Whether an adopted pod still runs that uses this object although no virtual pod names it: vcluster mounted token
/// Secrets of accounts in the place of projected tokens. Then it stays as it is; its body is not even at hand.
fn is_held(kind: &str, virtual_object: Option<&Value>, host: Option<&Value>, lookup: &dyn Lookup) -> bool {
    let (Some(object), Some(host)) = (virtual_object, host) else { return false };
    if identity::annotation(host, legacy::ADOPTED).is_empty() || !is_for(host, object) || json::is_deleting(object) {
        return false;
    }
    let pods = lookup.virtual_keys("Pod", json::namespace(object));
    pods.iter()
        .filter_map(|pod| lookup.host_object("Pod", pod))
        .any(|pod| legacy::is_also_used(&pod, kind, json::name(host)))
}

impl ResourceSyncer for ConfigKind {
    fn resource(&self) -> Resource {
        self.0
    }

    fn host_scope(&self) -> HostScope {
        HostScope::Tenant
    }

    fn fetch_body_on_demand(&self) -> bool {
        true
    }

    fn project(&self, object: Value, side: Direction) -> Value {
        let object = strip_last_applied(strip_metadata(object, &[]));
        if side == Direction::Up { slim(object) } else { object }
    }

    fn virtual_key(&self, host: &Value, view: &TenantView) -> Option<ObjectKey> {
        recorded_key(&self.0, host, view, Limit::Subdomain)
    }

    fn host_name(&self, key: &ObjectKey, view: &TenantView) -> Option<String> {
        host_name(&self.resource(), key, view, Limit::Subdomain)
    }

    fn plan(
        &self,
        key: &ObjectKey,
        virtual_object: Option<&Value>,
        host: Option<&Value>,
        view: &TenantView,
        lookup: &dyn Lookup,
    ) -> Plan {
        let used = lookup.is_referenced(self.0.kind, key);
        if !used && is_held(self.0.kind, virtual_object, host, lookup) {
            return Plan { again_after: Some(HELD_RECHECK), ..Plan::default() };
        }
        let intent = |object: &Value| used.then(|| self.intent(object, view)).flatten();
        Plan { actions: apply_down(self.0, virtual_object, host, intent, slim), ..Plan::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, hostile_plans};
    use super::*;

    fn secret() -> Value {
        json!({
            "metadata": {"name": "creds", "namespace": "default", "uid": "u1",
                "annotations": {"kubernetes.io/service-account.name": "builder"}},
            "type": "kubernetes.io/service-account-token", "data": {"token": "c2VjcmV0"}, "immutable": true,
        })
    }

    #[test]
    fn only_used_objects_cross_and_leave_when_unused() {
        let kind = ConfigKind::secrets();
        let mut world = World::new();
        world.put_virtual("Secret", secret());
        world.settle(&kind, "default", "creds");
        assert!(world.host("Secret", "creds-x-default-x-vc1").is_none());
        world.refer("Secret", "default", "creds");
        world.settle(&kind, "default", "creds");
        let host = world.host("Secret", "creds-x-default-x-vc1").expect("made");
        assert_eq!(host["type"], "Opaque");
        assert_eq!(host["data"], json!({"token": "c2VjcmV0"}));
        assert_eq!(host["immutable"], true);
        assert!(host.pointer("/metadata/annotations/kubernetes.io~1service-account.name").is_none());
        world.forget_referrers();
        world.settle(&kind, "default", "creds");
        assert!(world.host("Secret", "creds-x-default-x-vc1").is_none());
    }

    #[test]
    fn changed_and_removed_data_is_noticed_without_holding_it() {
        let kind = ConfigKind::config_maps();
        let mut world = World::new();
        world.refer("ConfigMap", "default", "c");
        let object =
            json!({"metadata": {"name": "c", "namespace": "default", "uid": "u"}, "data": {"a": "1", "b": "2"}});
        world.put_virtual("ConfigMap", object.clone());
        world.settle(&kind, "default", "c");
        let projected = kind.project(world.host("ConfigMap", "c-x-default-x-vc1").expect("made"), Direction::Up);
        assert!(projected.get("data").is_none());
        let mut less = object;
        less["data"] = json!({"a": "1"});
        world.put_virtual("ConfigMap", less);
        world.settle(&kind, "default", "c");
        assert_eq!(world.host("ConfigMap", "c-x-default-x-vc1").expect("kept")["data"], json!({"a": "1"}));
        world.change_host("ConfigMap", "c-x-default-x-vc1", |host| host["data"] = json!({"a": "tampered"}));
        world.settle(&kind, "default", "c");
        assert_eq!(world.host("ConfigMap", "c-x-default-x-vc1").expect("kept")["data"], json!({"a": "1"}));
    }

    #[test]
    fn a_new_object_of_the_same_name_gets_a_new_host_object() {
        let kind = ConfigKind::secrets();
        let mut world = World::new();
        world.refer("Secret", "default", "creds");
        world.put_virtual("Secret", secret());
        world.settle(&kind, "default", "creds");
        let mut again = secret();
        again["metadata"]["uid"] = json!("u2");
        again["type"] = json!("Opaque");
        world.put_virtual("Secret", again);
        world.settle(&kind, "default", "creds");
        let host = world.host("Secret", "creds-x-default-x-vc1").expect("made");
        assert_eq!(identity::recorded_uid(&host), "u2");
        world.remove_virtual("Secret", "default", "creds");
        world.settle(&kind, "default", "creds");
        assert!(world.host("Secret", "creds-x-default-x-vc1").is_none());
    }

    #[test]
    fn pods_trust_the_gateway_beside_what_their_api_server_publishes() {
        let kind = ConfigKind::config_maps();
        let published = |world: &mut World, ca: &str| {
            world.refer("ConfigMap", "default", ROOT_CA);
            let metadata = json!({"name": ROOT_CA, "namespace": "default", "uid": "u"});
            world.put_virtual("ConfigMap", json!({"metadata": metadata, "data": {"ca.crt": ca}}));
            world.settle(&kind, "default", ROOT_CA);
            world.host("ConfigMap", "kube-root-ca.crt-x-default-x-vc1").expect("made")["data"]["ca.crt"].clone()
        };
        let mut world = World::new();
        assert_eq!(published(&mut world, "THEIRS"), "THEIRS");
        world.view.api_ca = "OURS\n".to_owned();
        assert_eq!(published(&mut world, "THEIRS"), "THEIRS\nOURS\n");
        assert_eq!(published(&mut world, "OURS"), "OURS");
    }

    #[test]
    fn hostile_input_never_panics() {
        hostile_plans(&ConfigKind::secrets(), &secret());
    }
}
