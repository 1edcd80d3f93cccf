//! One cluster as vcluster left it: its virtual objects and their copies on the host.

use std::sync::Arc;

use portico::config::PolicyBounds;
use portico::crd::policy::{GrantedPolicy, Policy};
use portico::error::Side;
use portico::syncer::kind::TenantView;
use portico::translate::Owner;
use serde_json::{Value, json};

use super::super::server::{Faults, Server};
use super::super::vcluster::Vcluster;
use super::super::{text, wrong_service};

/// Longer than vcluster's limit once it is joined, so the old host name is a cut one and today's is another.
pub const LONG: &str = "a-name-that-is-so-long-that-it-was-cut-on-the-host-by-vcluster";

pub struct Tenant {
    pub view: TenantView,
    pub server: Server,
    pub old: Vcluster,
    /// Host objects that nobody has a reason to make again: plural, name, uid.
    pub kept: Vec<(&'static str, String, String)>,
    /// uids of host objects that must end.
    pub ended: Vec<String>,
}

pub fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": "ns"})
}

pub fn pod(name: &str, config: &str) -> Value {
    let token = json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}, "name": "token"});
    let config = json!({"name": "config", "configMap": {"name": config}});
    let mut metadata = metadata(name);
    metadata["labels"] = json!({"app": "web", "tier": "a"});
    json!({"metadata": metadata, "spec": {
        "serviceAccountName": "default", "containers": [{"name": "c", "image": "i"}], "volumes": [token, config]}})
}

pub fn started(mut pod: Value) -> Value {
    pod["spec"]["nodeName"] = json!("n1");
    pod["status"] = json!({"phase": "Running", "startTime": "2026-01-01T00:00:00Z"});
    pod
}

pub fn service(name: &str, ip: &str, selector: Value) -> Value {
    let mut spec =
        json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80, "protocol": "TCP"}]});
    if !selector.is_null() {
        spec["selector"] = selector;
    }
    json!({"metadata": metadata(name), "spec": spec})
}

pub fn endpoints(name: &str, ip: &str) -> Value {
    json!({"metadata": metadata(name), "subsets": [{"addresses": [{"ip": ip}], "ports": [{"port": 80}]}]})
}

impl Tenant {
    pub fn new(n: usize, faults: &Arc<Faults>) -> Self {
        let name = ["vc1", "vc2"][n];
        let mut view = super::super::kinds::view(
            "team-a",
            name,
            &format!("vc-{n}"),
            format!("10.96.0.{}", n + 10).parse().unwrap(),
        );
        // What vcluster let pass; the policy's own tests say what becomes of what it does not list.
        let bounds = PolicyBounds {
            ingress_domains: vec!["*".to_owned()],
            endpoints: vec!["0.0.0.0/0".to_owned()],
            ..PolicyBounds::default()
        };
        view.policy = GrantedPolicy::of(bounds, Policy::default());
        view.owner = Some(Owner {
            api_version: "apps/v1".to_owned(),
            kind: "StatefulSet".to_owned(),
            name: name.to_owned(),
            uid: format!("sts-{name}"),
            controller: false,
        });
        let old = Vcluster {
            suffix: name.to_owned(),
            namespace: "team-a".to_owned(),
            stateful_set: (name.to_owned(), format!("sts-{name}")),
            api: view.api_service_ip.to_string(),
            dns: "10.96.0.99".to_owned(),
        };
        let server = Server::new(&format!("t{n}"), Side::Backend, Arc::clone(faults));
        server.put("namespaces", json!({"metadata": {"name": "ns"}}));
        wrong_service(&server);
        Self { view, server, old, kept: Vec::new(), ended: Vec::new() }
    }

    /// An object in the tenant, and its copy on the host.
    fn synced(&mut self, host: &Server, plural: &'static str, object: Value, is_kept: bool) {
        let (namespace, name) = (text(&object, "namespace"), text(&object, "name"));
        self.server.put(plural, object);
        let object = self.server.read(plural, &namespace, &name).unwrap();
        let mut copy = match plural {
            "pods" => self.old.pod(&object, "default-token-abcde"),
            "services" => self.old.service(&object),
            "endpoints" => self.old.endpoints(&object),
            "secrets" => self.old.secret(&object),
            "ingresses" => self.old.ingress(&object),
            _ => self.old.copy(&object),
        };
        if plural == "pods" {
            copy["status"] = object["status"].clone();
        }
        let name = text(&copy, "name");
        host.put(plural, copy);
        if is_kept {
            let uid = text(&host.read(plural, "team-a", &name).unwrap(), "uid");
            self.kept.push((plural, name, uid));
        }
    }

    /// The like of it, but its virtual object is gone.
    fn orphaned(&mut self, host: &Server, plural: &'static str, object: Value) {
        let (namespace, name) = (text(&object, "namespace"), text(&object, "name"));
        self.synced(host, plural, object, false);
        self.server.delete_gracefully(plural, &namespace, &name, Some(0));
        let copy = host.read(plural, "team-a", &self.old.name(&namespace, &name)).unwrap();
        self.ended.push(text(&copy, "uid"));
    }

    pub fn fill(&mut self, host: &Server) {
        let token = json!({"metadata": metadata("default-token-abcde"), "type": "kubernetes.io/service-account-token",
            "data": {"token": "dA=="}});
        self.synced(host, "secrets", token, true);
        for (pod_name, config) in [("anchor", "kept"), (LONG, LONG)] {
            self.synced(host, "configmaps", json!({"metadata": metadata(config), "data": {"of": config}}), true);
            self.synced(host, "pods", started(pod(pod_name, config)), true);
        }
        for name in ["c1", "c2"] {
            self.synced(host, "configmaps", json!({"metadata": metadata(name), "data": {"n": "0"}}), false);
        }
        for name in ["web-0", "web-1"] {
            self.synced(host, "pods", started(pod(name, "c1")), false);
        }
        self.synced(host, "services", service("web", "10.96.1.1", json!({"app": "web"})), true);
        self.synced(host, "services", service("ext", "10.96.1.2", Value::Null), true);
        self.synced(host, "endpoints", endpoints("web", "10.1.1.1"), true);
        self.synced(host, "endpoints", endpoints("ext", "192.0.2.1"), true);
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        for name in ["data", LONG] {
            self.synced(host, "persistentvolumeclaims", json!({"metadata": metadata(name), "spec": spec}), true);
        }
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let rules =
            json!([{"host": "a", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]);
        self.synced(host, "ingresses", json!({"metadata": metadata("web"), "spec": {"rules": rules}}), true);
        self.ambiguous(host);
        self.left_over(host);
    }

    /// Two pods with one old name: only the first has a copy.
    fn ambiguous(&mut self, host: &Server) {
        let mut first = started(pod("a-x-b", "c1"));
        first["metadata"]["namespace"] = json!("c");
        let mut second = pod("a", "c1");
        second["metadata"]["namespace"] = json!("b-x-c");
        self.synced(host, "pods", first, true);
        self.server.put("pods", second);
    }

    /// Copies of what is gone, and of a pod that was made again.
    fn left_over(&mut self, host: &Server) {
        self.orphaned(host, "pods", started(pod("ghost", "c1")));
        self.orphaned(host, "configmaps", json!({"metadata": metadata("ghost"), "data": {}}));
        self.orphaned(host, "services", service("ghost", "10.96.1.3", Value::Null));
        self.orphaned(host, "pods", started(pod("again", "c1")));
        self.synced(host, "persistentvolumeclaims", json!({"metadata": metadata("ghost"), "spec": {}}), true);
        self.server.delete_gracefully("persistentvolumeclaims", "ns", "ghost", None);
        self.server.put("pods", pod("again", "c1"));
    }
}
