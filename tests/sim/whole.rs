//! Two replicas with registry, operator, syncer and their elections, on one simulated host: VirtualClusters come, go and come
//! again, ask for each other's names, and their pods run; events get lost or come twice, watches break, Secrets are slow,
//! calls fail, replicas are killed. In the end both replicas serve the same, every cluster is ready and has what it wants,
//! exactly its exposed Services are opened to the outside, credentials are those that are wanted, and nothing is left of those that
//! are gone.
//!
//! Time goes on with the simulation, so that who came first is who was made first.

mod check;
mod credentials;
mod replica;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use portico::error::Side;
use portico::names::keys;
use portico::runtime::clock::Clock;
use portico::syncer::Catalog;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use self::replica::{Backends, Replica};
use super::server::{Faults, Server};
use super::{kinds, run_paused, run_seeds, text};

const CLUSTERS: [(&str, &str); 4] = [("team-a", "one"), ("team-a", "two"), ("team-b", "one"), ("team-c", "three")];
const HOSTS: [&str; 3] = ["app.example.com", "APP.example.com.", "web.example.com"];
const STEPS: u32 = 70;
const DRIFT: Duration = Duration::from_secs(20);
const VIRTUAL_CLUSTERS: &str = "virtualclusters";

pub struct World {
    seed: u64,
    random: StdRng,
    faults: Arc<Faults>,
    pub host: Server,
    pub backends: Backends,
    clock: Clock,
    catalog: fn() -> Catalog,
    replicas: Vec<Option<Replica>>,
    /// What requests for credentials were answered, by uid.
    answers: BTreeMap<String, Value>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self::with(seed, Faults::new(seed), kinds::catalog)
    }

    pub fn with(seed: u64, faults: Arc<Faults>, catalog: fn() -> Catalog) -> Self {
        let host = Server::new("host", Side::Host, Arc::clone(&faults));
        host.allocates_addresses();
        host.put("servicecidrs", json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}));
        for node in ["n1", "n2"] {
            host.put("nodes", json!({"metadata": {"name": node}, "capacity": 4}));
        }
        let backends = Backends::new(&faults);
        let clock = Clock::going("2026-01-01T00:00:00Z".parse().unwrap(), seed);
        let replicas = vec![None, None];
        let random = StdRng::seed_from_u64(seed);
        let mut world =
            Self { seed, random, faults, host, backends, clock, catalog, replicas, answers: BTreeMap::new() };
        world.restart(0);
        world.restart(1);
        world
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    /// Killed if it runs, and begun.
    pub fn restart(&mut self, at: usize) {
        self.replicas[at] = None;
        let clock = Clock::going(self.clock.now(), self.random.random());
        self.replicas[at] = Some(Replica::start(&self.host, &self.backends, &clock, self.catalog));
    }

    pub fn uid(&self, (namespace, name): (&str, &str)) -> Option<String> {
        Some(text(&self.host.read(VIRTUAL_CLUSTERS, namespace, name)?, "uid"))
    }

    fn hosts(&mut self) -> Vec<&'static str> {
        let count = self.below(3);
        (0..count).map(|_| HOSTS[self.below(HOSTS.len())]).collect()
    }

    /// One thing that a user, a tenant or fate does.
    fn step(&mut self) {
        let cluster = CLUSTERS[self.below(CLUSTERS.len())];
        match self.below(100) {
            0..=19 => self.create(cluster),
            20..=25 => self.host.delete_gracefully(VIRTUAL_CLUSTERS, cluster.0, cluster.1, None),
            26..=28 => {
                // Made again while nobody looks.
                self.host.delete_gracefully(VIRTUAL_CLUSTERS, cluster.0, cluster.1, None);
                self.create(cluster);
            }
            29..=34 => {
                let hosts = self.hosts();
                self.host.change(VIRTUAL_CLUSTERS, cluster.0, cluster.1, |object| {
                    object["spec"]["expose"]["hosts"] = json!(hosts);
                });
            }
            35..=64 => self.tenant(cluster),
            65..=68 => self.host.lose_events(1 + self.seed as usize % 2),
            69..=70 => self.host.repeat_events(true),
            71..=73 => self.host.compact(),
            74..=76 => self.host.cut_watches(self.seed.is_multiple_of(2)),
            77 => self.host.down(true),
            78..=82 => self.host.down(false),
            83..=84 => self.host.hang(cluster.0),
            85..=88 => self.host.heal(cluster.0),
            89..=93 => {
                let at = self.below(2);
                self.restart(at);
            }
            94 => self.replicas = vec![None, None],
            95..=97 => (0..2)
                .filter(|at| self.replicas[*at].is_none())
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|at| self.restart(at)),
            _ => {}
        }
        match self.below(12) {
            0 => self.ask(cluster),
            1 => self.want_kubeconfigs(cluster),
            _ => {}
        }
        self.observe_answers();
        if self.below(2) == 0 {
            self.host_controllers();
        }
    }

    fn create(&mut self, (namespace, name): (&str, &str)) {
        if self.host.read(VIRTUAL_CLUSTERS, namespace, name).is_some() {
            return;
        }
        let hosts = self.hosts();
        // Whole seconds, as an API server writes them: two may be of one age.
        let created = self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        self.host.put(
            VIRTUAL_CLUSTERS,
            json!({"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster",
                "metadata": {"namespace": namespace, "name": name, "creationTimestamp": created},
                "spec": {"expose": {"hosts": hosts}}}),
        );
    }

    /// What its users do.
    fn tenant(&mut self, cluster: (&str, &str)) {
        let Some(uid) = self.uid(cluster) else { return };
        let server = self.backends.of(&uid);
        if self.below(3) == 0 {
            return self.expose(cluster, &uid);
        }
        let name = ["a", "b", "c"][self.below(3)];
        match self.below(10) {
            0..=4 if server.read("pods", "ns", name).is_some() => {}
            0..=4 => {
                let metadata = json!({"name": name, "namespace": "ns"});
                server.put("pods", json!({"metadata": metadata, "spec": {"config": "c1"}}));
            }
            5..=7 => server.put(
                "configmaps",
                json!({"metadata": {"name": "c1", "namespace": "ns"}, "data": {"n": self.below(100)}}),
            ),
            _ => server.delete_gracefully("pods", "ns", name, None),
        }
    }

    /// Its Services and Ingresses change, as the host has them: policies go by nothing else.
    fn expose(&mut self, (namespace, cluster): (&str, &str), uid: &str) {
        let name = format!("{}-x-ns-x-{cluster}", ["web", "db"][self.below(2)]);
        let owner =
            json!([{"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster", "name": cluster, "uid": uid}]);
        let metadata = json!({"namespace": namespace, "name": name, "ownerReferences": owner,
            "labels": {keys::CLUSTER: cluster, keys::NAMESPACE: "ns"}});
        match self.below(10) {
            0 => self.host.delete_gracefully("services", namespace, &name, Some(0)),
            1 => self.host.delete_gracefully("ingresses", namespace, &name, Some(0)),
            2..=3 => {
                let number = [80, 81][self.below(2)];
                let port = json!({"number": number});
                let backend = json!({"service": {"name": name, "port": port}});
                self.host.put("ingresses", json!({"metadata": metadata, "spec": {"defaultBackend": backend}}));
            }
            _ => {
                let kind = ["ClusterIP", "NodePort", "LoadBalancer"][self.below(3)];
                let app = ["x", "y"][self.below(2)];
                let app = json!({"app": app, keys::CLUSTER: cluster, keys::NAMESPACE: "ns"});
                let selector = if self.below(6) == 0 { Value::Null } else { app };
                let ports = json!([{"port": 80, "targetPort": 8080 + self.below(2)}]);
                let spec = json!({"type": kind, "selector": selector, "ports": ports});
                self.host.put("services", json!({"metadata": metadata, "spec": spec}));
            }
        }
    }

    /// StatefulSets get ready, pods are scheduled, run and end, and what nobody owns is collected.
    pub fn host_controllers(&mut self) {
        for set in self.host.objects("statefulsets") {
            let ready = json!({"observedGeneration": set["metadata"]["generation"], "readyReplicas": 1});
            if set["status"] != ready {
                self.host
                    .change("statefulsets", &text(&set, "namespace"), &text(&set, "name"), |s| s["status"] = ready);
            }
        }
        for pod in self.host.objects("pods") {
            let (namespace, name) = (text(&pod, "namespace"), text(&pod, "name"));
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                self.host.delete_gracefully("pods", &namespace, &name, Some(0));
            } else if pod["spec"]["nodeName"].is_null() {
                let node = ["n1", "n2"][self.below(2)];
                self.host.change("pods", &namespace, &name, |pod| pod["spec"]["nodeName"] = json!(node));
            } else if pod["status"].is_null() {
                self.host.change("pods", &namespace, &name, |pod| pod["status"] = json!({"phase": "Running"}));
            }
        }
        self.collect_garbage();
    }

    fn collect_garbage(&self) {
        let everything = self.host.everything();
        let living: BTreeSet<String> = everything.iter().map(|(_, object)| text(object, "uid")).collect();
        for (plural, object) in everything {
            let owner = object["metadata"]["ownerReferences"][0]["uid"].as_str();
            if owner.is_some_and(|owner| !living.contains(owner)) {
                let (namespace, name) = (text(&object, "namespace"), text(&object, "name"));
                self.host.delete_gracefully(plural, &namespace, &name, Some(0));
            }
        }
    }

    async fn run(mut self) {
        for _ in 0..STEPS {
            self.step();
            let millis = [0, 1, 50, 700, 5000, 30_000][self.below(6)];
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        self.faults.stop();
        self.host.down(false);
        self.host.repeat_events(false);
        self.host.lose_events(0);
        for at in 0..2 {
            if self.replicas[at].is_none() {
                self.restart(at);
            }
        }
        for (namespace, _) in CLUSTERS {
            self.host.heal(namespace);
        }
        for _ in 0..90 {
            self.host_controllers();
            self.observe_answers();
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        self.check();
        let before = self.host.writes();
        tokio::time::sleep(DRIFT * 4).await;
        assert_eq!(before, self.host.writes(), "seed {}: an idle host is written to", self.seed);
    }
}

#[test]
fn two_replicas_agree_whatever_happens() {
    run_seeds("two_replicas", 12, |seed| run_paused(async { Box::pin(World::new(seed).run()).await }));
}
