//! What must hold in the end, found by other ways than the code's.

use std::collections::{BTreeMap, BTreeSet};

use portico::names::{TenantId, keys};
use portico::syncer::kind::ObjectKey;
use portico::tenant::Registry;
use portico::translate::identity;
use serde_json::{Value, json};

use super::super::kinds::{self, host_name};
use super::super::text;
use super::{VIRTUAL_CLUSTERS, World};

impl World {
    pub(super) fn check(&self) {
        let seed = self.seed;
        let living = self.host.objects(VIRTUAL_CLUSTERS);
        let mut ports = BTreeSet::new();
        for object in &living {
            assert_eq!(object["status"]["phase"], "Ready", "seed {seed}: {}", object["status"]);
            let port = object["status"]["port"].as_u64().expect("port");
            assert!(ports.insert(port), "seed {seed}: port {port} is given twice");
        }
        for replica in self.replicas.iter().flatten() {
            self.check_registry(&living, &replica.registry);
        }
        let registry = &self.replicas[0].as_ref().expect("runs").registry;
        for object in &living {
            self.check_objects(registry, object);
        }
        self.check_policies(&living);
        self.check_credentials(&living);
        self.check_nothing_is_left(&living);
    }

    /// By another way than the code's: what each exposed Service opens, and nothing beside.
    fn check_policies(&self, living: &[Value]) {
        let uids: BTreeSet<String> = living.iter().map(|object| text(object, "uid")).collect();
        let owner = |object: &Value| object["metadata"]["ownerReferences"][0]["uid"].as_str().map(str::to_owned);
        let ingresses = self.host.objects("ingresses");
        let is_named = |service: &Value| {
            ingresses.iter().any(|ingress| {
                let backend = &ingress["spec"]["defaultBackend"]["service"];
                text(ingress, "namespace") == text(service, "namespace")
                    && backend["name"] == service["metadata"]["name"]
                    && backend["port"]["number"] == 80
                    && owner(ingress) == owner(service)
            })
        };
        let of_tenants = self.host.objects("services").into_iter().filter(|service| {
            text(service, "name").contains("-x-ns-x-") && owner(service).is_some_and(|uid| uids.contains(&uid))
        });
        let wanted: BTreeMap<(String, String), Value> = of_tenants
            .filter(|service| service["spec"]["type"] != "ClusterIP" || is_named(service))
            .filter(|service| !service["spec"]["selector"].is_null())
            .map(|service| {
                let opens =
                    json!([owner(&service), service["spec"]["selector"], service["spec"]["ports"][0]["targetPort"]]);
                ((text(&service, "namespace"), format!("{}.exposed", text(&service, "name"))), opens)
            })
            .collect();
        let policies = self.host.objects("networkpolicies");
        let (of_services, own): (Vec<&Value>, Vec<&Value>) =
            policies.iter().partition(|policy| !policy["metadata"]["labels"][keys::EXPOSES].is_null());
        let found: BTreeMap<(String, String), Value> = of_services
            .into_iter()
            .map(|policy| {
                let (spec, rule) = (&policy["spec"], &policy["spec"]["ingress"][0]);
                assert_eq!(rule["ports"].as_array().map(Vec::len), Some(1), "seed {}: {policy}", self.seed);
                let is_of_pods =
                    |other: &&&Value| owner(other) == owner(policy) && text(other, "name").ends_with("-pods");
                let of_pods = own.iter().find(is_of_pods).map(|other| &other["spec"]["ingress"]);
                let beside = Value::from_iter(spec["ingress"].as_array().into_iter().flatten().skip(1).cloned());
                assert_eq!(of_pods, Some(&beside), "seed {}: whoever belongs to them: {policy}", self.seed);
                let opens = json!([owner(policy), spec["podSelector"]["matchLabels"], rule["ports"][0]["port"]]);
                ((text(policy, "namespace"), text(policy, "name")), opens)
            })
            .collect();
        assert_eq!(found, wanted, "seed {}", self.seed);
        assert_eq!(own.len(), living.len() * 2, "seed {}", self.seed);
        for policy in own {
            let ingress = policy["spec"]["ingress"].to_string();
            assert!(!ingress.contains("ipBlock"), "seed {}: open to the outside: {policy}", self.seed);
        }
    }

    /// Who is served and who has which name, found by another way than the code's.
    fn check_registry(&self, living: &[Value], registry: &Registry) {
        let (seed, snapshot) = (self.seed, registry.load());
        let served: BTreeMap<TenantId, String> = snapshot.tenants().map(|t| (t.id.clone(), t.uid.clone())).collect();
        let there = living.iter().map(|o| (TenantId::of(o).expect("id"), text(o, "uid"))).collect();
        assert_eq!(served, there, "seed {seed}");
        let mut by_age: Vec<&Value> = living.iter().collect();
        by_age
            .sort_by_key(|o| (text(o, "creationTimestamp").parse::<jiff::Timestamp>().expect("time"), text(o, "uid")));
        for host in ["app.example.com", "web.example.com"] {
            let asks = |object: &&&Value| {
                let hosts = object["spec"]["expose"]["hosts"].as_array().expect("hosts");
                hosts.iter().any(|h| h.as_str().is_some_and(|h| h.to_lowercase().trim_end_matches('.') == host))
            };
            let first = by_age.iter().find(asks).map(|object| TenantId::of(object).expect("id"));
            assert_eq!(snapshot.by_host(host).map(|tenant| tenant.id.clone()), first, "seed {seed}: {host}");
        }
        for tenant in snapshot.tenants() {
            assert_eq!(snapshot.by_port(tenant.port).map(|t| &t.id), Some(&tenant.id), "seed {seed}");
        }
    }

    fn check_objects(&self, registry: &Registry, object: &Value) {
        let id = TenantId::of(object).expect("id");
        let view = registry.load().by_id(&id).expect("served").view();
        let (server, who) = (self.backends.of(&text(object, "uid")), format!("seed {}, {id}", self.seed));
        let mine = |object: &&Value| kinds::belongs_to(object, &view);
        let pods = server.objects("pods");
        for pod in &pods {
            let key = ObjectKey { namespace: text(pod, "namespace"), name: text(pod, "name") };
            let host = self.host.read("pods", view.namespace().as_str(), &host_name(&key, &view));
            let host = host.unwrap_or_else(|| panic!("{who}: {key:?} is not on the host"));
            assert_eq!(identity::recorded_uid(&host), text(pod, "uid"), "{who}: {key:?}");
            assert_eq!(pod["status"]["phase"], "Running", "{who}: {key:?}");
        }
        assert_eq!(self.host.objects("pods").iter().filter(mine).count(), pods.len(), "{who}: pods");
        let service = server.read("services", "default", "kubernetes").expect("the kubernetes Service");
        assert_eq!(service["spec"]["clusterIP"], object["status"]["apiServiceIP"], "{who}");
    }

    fn check_nothing_is_left(&self, living: &[Value]) {
        let clusters: BTreeSet<(String, String)> =
            living.iter().map(|object| (text(object, "namespace"), text(object, "name"))).collect();
        for (plural, object) in self.host.everything() {
            let label = |key: &str| object["metadata"]["labels"][key].as_str().map(str::to_owned);
            let Some(cluster) = label(keys::CLUSTER) else { continue };
            let namespace = label("portico.dev/host-namespace").unwrap_or_else(|| text(&object, "namespace"));
            let of = (namespace, cluster);
            assert!(clusters.contains(&of), "seed {}: {plural} {} is left of {of:?}", self.seed, text(&object, "name"));
        }
    }
}
