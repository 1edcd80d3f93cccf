//! What must be true when all is over.

use std::collections::BTreeSet;

use portico::names::keys;
use serde_json::Value;

use super::super::server::Server;
use super::super::text;
use super::tenant::Tenant;
use super::{OLD_LABEL, World};

impl World {
    pub fn check(&self) {
        let seed = self.seed;
        for (plural, object) in &self.foreign {
            let now = self.host.read(plural, "team-a", &text(object, "name"));
            assert_eq!(now.as_ref(), Some(object), "seed {seed}: {plural} of somebody else was touched");
        }
        let mut seen = BTreeSet::new();
        for plural in ["pods", "services", "endpoints", "configmaps", "secrets", "persistentvolumeclaims", "ingresses"]
        {
            for object in self.host.objects(plural) {
                let annotation =
                    |key: &str| object["metadata"]["annotations"][key].as_str().unwrap_or_default().to_owned();
                let of = (
                    object["metadata"]["labels"][keys::CLUSTER].as_str().unwrap_or_default().to_owned(),
                    [keys::OBJECT_KIND, keys::OBJECT_NAMESPACE, keys::OBJECT_NAME, keys::OBJECT_UID].map(annotation),
                );
                assert!(of.0.is_empty() || seen.insert((plural, of.clone())), "seed {seed}: two of {plural} {of:?}");
            }
        }
        for tenant in &self.tenants {
            self.check_tenant(tenant, &format!("seed {seed}, tenant {}", tenant.view.id));
        }
    }

    fn check_tenant(&self, tenant: &Tenant, who: &str) {
        for (plural, name, uid) in &tenant.kept {
            let now =
                self.host.read(plural, "team-a", name).unwrap_or_else(|| panic!("{who}: {plural} {name} is gone"));
            assert_eq!(text(&now, "uid"), *uid, "{who}: {plural} {name} was made again");
            let is_left = *plural == "persistentvolumeclaims" && name.starts_with("ghost");
            let is_marked = now["metadata"]["labels"][keys::CLUSTER] == tenant.view.cluster().as_str();
            // The host's controllers have these; they would bear the Service's labels.
            let is_hosts = *plural == "endpoints" && name.starts_with("web");
            assert_eq!(is_marked, !is_left && !is_hosts, "{who}: {plural} {name}");
            let marked_old = now["metadata"]["labels"][OLD_LABEL] == tenant.old.suffix.as_str();
            assert_eq!(marked_old, is_left, "{who}: old marks of {plural} {name}");
        }
        for plural in ["pods", "configmaps", "services"] {
            for object in self.host.objects(plural) {
                let name = text(&object, "name");
                assert!(!tenant.ended.contains(&text(&object, "uid")), "{who}: {plural} {name} is left over");
            }
        }
        let selector =
            self.host.read("services", "team-a", &tenant.old.name("ns", "web")).unwrap()["spec"]["selector"].clone();
        for pod in tenant.server.objects("pods") {
            let (namespace, name, uid) = (text(&pod, "namespace"), text(&pod, "name"), text(&pod, "uid"));
            if name == "stolen" && tenant.old.suffix == "vc1" {
                continue;
            }
            let of = |host: &Value| host["metadata"]["annotations"][keys::OBJECT_UID] == uid.as_str();
            let host = self.host.objects("pods").into_iter().find(of);
            let host = host.unwrap_or_else(|| panic!("{who}: {namespace}/{name} does not run"));
            assert_eq!(host["status"], pod["status"], "{who}: {namespace}/{name}");
            assert_eq!(pod["status"]["phase"], "Running", "{who}: {namespace}/{name}");
            assert_eq!(
                host["metadata"]["labels"]["tier"], pod["metadata"]["labels"]["tier"],
                "{who}: {namespace}/{name}"
            );
            if namespace == "ns" {
                let selected = selector.as_object().unwrap().iter().all(|(k, v)| host["metadata"]["labels"][k] == *v);
                assert!(selected, "{who}: the Service does not find {name}");
                self.check_config(tenant, &pod, who);
            }
        }
        let ext = |server: &Server, namespace: &str, name: &str| {
            server.read("endpoints", namespace, name).unwrap()["subsets"].clone()
        };
        assert_eq!(ext(&self.host, "team-a", &tenant.old.name("ns", "ext")), ext(&tenant.server, "ns", "ext"), "{who}");
    }

    fn check_config(&self, tenant: &Tenant, pod: &Value, who: &str) {
        let config = pod["spec"]["volumes"][1]["configMap"]["name"].as_str().unwrap();
        if let Some(wanted) = tenant.server.read("configmaps", "ns", config) {
            let host = self.host.read("configmaps", "team-a", &tenant.old.name("ns", config));
            let host = host.unwrap_or_else(|| panic!("{who}: {config} is not where adopted pods look for it"));
            assert_eq!(host["data"], wanted["data"], "{who}: {config}");
        }
    }
}
