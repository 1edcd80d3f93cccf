//! The syncer's engine in a seeded world of faults: after any sequence of changes, crashes, lost events, lost answers
//! and lost servers, both sides agree, nothing is left over, nothing foreign was touched, and an idle world stays idle.
//!
//! `PORTICO_SIM_SEEDS=500` runs more; `PORTICO_SIM_SEED=17` runs one, with logs under `RUST_LOG`.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod adoption;
mod backends;
#[path = "../support/collector.rs"]
mod collector;
mod hostile;
mod journeys;
mod kinds;
mod life;
mod logs;
mod metrics;
mod panics;
#[path = "../support/api_server.rs"]
mod server;
mod store;
mod storm;
#[path = "../support/support.rs"]
mod support;
#[path = "../support/vcluster.rs"]
mod vcluster;
mod whole;

use std::sync::Arc;
use std::time::Duration;

use kinds::{belongs_to, host_name, secret_name};
use portico::config::{Span, SyncerConfig};
use portico::crd::OnLoss;
use portico::error::Side;
use portico::names::keys;
use portico::runtime::clock::Clock;
use portico::syncer::kind::{ObjectKey, TenantView};
use portico::syncer::{Catalog, Member, Running, Settings, Stats};
use portico::translate::identity;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use server::{Faults, Server};

struct Tenant {
    view: TenantView,
    server: Server,
}

struct World {
    seed: u64,
    random: StdRng,
    faults: Arc<Faults>,
    host: Server,
    tenants: Vec<Tenant>,
    catalog: Catalog,
    stats: Arc<Stats>,
    running: Option<Running>,
    /// Of rolling restarts: still runs for a while beside its successor.
    old: Option<Running>,
}

const DRIFT: Duration = Duration::from_secs(20);
const STEPS: u32 = 120;

impl World {
    fn new(seed: u64) -> Self {
        Self::with(seed, Faults::new(seed), kinds::catalog())
    }

    /// Without faults.
    fn quiet(catalog: Catalog) -> Self {
        Self::with(0, Faults::none(), catalog)
    }

    fn with(seed: u64, faults: Arc<Faults>, catalog: Catalog) -> Self {
        let host = Server::new("host", Side::Host, Arc::clone(&faults));
        for node in ["n1", "n2"] {
            host.put("nodes", json!({"metadata": {"name": node}, "capacity": 4}));
        }
        // Two clusters in one host namespace, and a namesake in another.
        let places = [("team-a", "one"), ("team-a", "two"), ("team-b", "one")];
        let tenants: Vec<Tenant> = places
            .iter()
            .enumerate()
            .map(|(n, (namespace, name))| Tenant {
                view: TenantView {
                    // The last one has one address for both, as a sidecar.
                    dns_service_ip: format!("10.96.0.{}", if n < 2 { n + 110 } else { n + 10 }).parse().unwrap(),
                    ..kinds::view(
                        namespace,
                        name,
                        &virtual_cluster(&host, namespace, name),
                        format!("10.96.0.{}", n + 10).parse().unwrap(),
                    )
                },
                server: Server::new(&format!("t{n}"), Side::Backend, Arc::clone(&faults)),
            })
            .collect();
        let stats = Arc::new(Stats::new(&catalog));
        let random = StdRng::seed_from_u64(seed);
        let mut world = Self { seed, random, faults, host, tenants, catalog, stats, running: None, old: None };
        for tenant in &world.tenants {
            wrong_service(&tenant.server);
            // What the copy of pod `taken` would be called is somebody else's already.
            let key = ObjectKey { namespace: "ns".to_owned(), name: "taken".to_owned() };
            let namespace = tenant.view.namespace().as_str();
            world.host.put(
                "pods",
                json!({"metadata": {"name": host_name(&key, &tenant.view), "namespace": namespace}, "spec": {"mine": true}}),
            );
        }
        world.start();
        world
    }

    fn start(&mut self) {
        self.restart_as(portico::kubernetes::rights::Access::granted());
    }

    /// Begins the syncer anew, with these rights on the host.
    fn restart_as(&mut self, access: portico::kubernetes::rights::Access) {
        self.running = None;
        let config =
            SyncerConfig { workers: 8, workers_per_tenant: 4, drift_interval: Span(DRIFT), ..SyncerConfig::default() };
        let running = Running::start(Settings {
            config,
            catalog: self.catalog.clone(),
            host: Arc::new(self.host.clone()),
            clock: Clock::seeded("2026-01-01T00:00:00Z".parse().unwrap(), self.random.random()),
            stats: Arc::clone(&self.stats),
            access,
            own_place: portico::syncer::OwnPlace::default(),
            traces: portico::runtime::traces::Traces::off(),
        });
        let members = self.tenants.iter().map(|tenant| Member {
            view: tenant.view.clone(),
            api: Arc::new(tenant.server.clone()),
            fingerprint: String::new(),
            adopts: false,
            on_loss: OnLoss::Discard,
            limits: portico::crd::Limits::default(),
            metrics_at_gateway: false,
        });
        running.set_members(members.collect());
        self.running = Some(running);
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    /// One thing that a user, a kubelet, an operator or fate does.
    fn step(&mut self) {
        let tenant = self.below(self.tenants.len());
        let name = ["a", "b", "c", "d", "taken"][self.below(5)];
        let server = self.tenants[tenant].server.clone();
        match self.below(100) {
            0..=24 if server.read("pods", "ns", name).is_some() => {}
            0..=24 => {
                let config = ["c1", "c2", "c3"][self.below(3)];
                server.put("pods", json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"config": config}}));
            }
            25..=34 => server.delete_gracefully("pods", "ns", name, None),
            35..=38 => {
                let config = ["c1", "c2", "c3"][self.below(3)];
                server.change("pods", "ns", name, |pod| pod["spec"]["config"] = json!(config));
            }
            39..=50 => {
                let (name, data) = (["c1", "c2", "c3"][self.below(3)], self.below(1000));
                let old = server
                    .read("configmaps", "ns", name)
                    .unwrap_or(json!({"metadata": {"name": name, "namespace": "ns"}}));
                let mut object = old;
                object["data"] = json!({"n": data});
                server.put("configmaps", object);
            }
            51..=54 => {
                let name = ["c1", "c2", "c3"][self.below(3)];
                server.delete_gracefully("configmaps", "ns", name, None);
            }
            55..=80 => self.kubelet(),
            81..=83 => {
                // Somebody on the host deletes or edits what is ours.
                let objects: Vec<Value> = self.host.objects("configmaps");
                let objects: Vec<Value> =
                    objects.into_iter().filter(|o| !o["metadata"]["labels"][keys::CLUSTER].is_null()).collect();
                if !objects.is_empty() {
                    let object = objects[self.below(objects.len())].clone();
                    let (namespace, name) = (text(&object, "namespace"), text(&object, "name"));
                    if self.below(2) == 0 {
                        self.host.delete_gracefully("configmaps", &namespace, &name, None);
                    } else {
                        self.host.change("configmaps", &namespace, &name, |o| o["data"] = json!({"n": -1}));
                    }
                }
            }
            84 => {
                let pods = self.host.objects("secrets");
                if !pods.is_empty() {
                    let object = pods[self.below(pods.len())].clone();
                    self.host.delete_gracefully("secrets", &text(&object, "namespace"), &text(&object, "name"), None);
                }
            }
            85..=86 => {
                let capacity = self.below(100);
                let node = ["n1", "n2", "n3"][self.below(3)];
                self.host.put("nodes", json!({"metadata": {"name": node}, "capacity": capacity}));
            }
            87 => wrong_service(&server),
            88..=89 => self.host.compact(),
            90..=91 => server.compact(),
            92 if self.below(4) == 0 => {
                server.reset();
                wrong_service(&server);
            }
            93..=94 => {
                self.running = None;
                self.old = None;
                self.start();
            }
            95 => {
                self.old = self.running.take();
                self.start();
            }
            96 => self.old = None,
            97 => {
                let (fingerprint, members) = (self.below(1000).to_string(), &self.tenants);
                let members = members.iter().map(|tenant| Member {
                    view: tenant.view.clone(),
                    api: Arc::new(tenant.server.clone()),
                    fingerprint: fingerprint.clone(),
                    adopts: false,
                    on_loss: OnLoss::Discard,
                    limits: portico::crd::Limits::default(),
                    metrics_at_gateway: false,
                });
                self.running.as_ref().unwrap().set_members(members.collect());
            }
            98 => {
                // A user takes the DNS Service away, and may put his own.
                server.delete_gracefully("services", "kube-system", "kube-dns", None);
                if self.below(2) == 0 {
                    let metadata = json!({"name": "kube-dns", "namespace": "kube-system"});
                    server.put("services", json!({"metadata": metadata, "spec": {"clusterIP": "10.96.7.7"}}));
                }
            }
            _ => {}
        }
    }

    /// Schedules, runs and ends host pods; collects what ended pods owned.
    fn kubelet(&mut self) {
        for pod in self.host.objects("pods") {
            if pod["spec"]["mine"] == true || self.below(2) == 0 {
                continue;
            }
            let (namespace, name) = (text(&pod, "namespace"), text(&pod, "name"));
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                self.host.delete_gracefully("pods", &namespace, &name, Some(0));
            } else if pod["spec"]["nodeName"].is_null() {
                let node = ["n1", "n2"][self.below(2)];
                self.host.change("pods", &namespace, &name, |pod| pod["spec"]["nodeName"] = json!(node));
            } else {
                let phase = ["Pending", "Running"][self.below(2)];
                self.host.change("pods", &namespace, &name, |pod| pod["status"] = json!({"phase": phase}));
            }
        }
        let alive: Vec<String> = self.host.objects("pods").iter().map(|pod| text(pod, "uid")).collect();
        for secret in self.host.objects("secrets") {
            let owner = secret["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap().to_owned();
            if !alive.contains(&owner) {
                self.host.delete_gracefully("secrets", &text(&secret, "namespace"), &text(&secret, "name"), None);
            }
        }
    }

    async fn run(mut self) {
        for _ in 0..STEPS {
            self.step();
            let millis = match self.below(10) {
                0 => self.random.random_range(0..30_000),
                1..=3 => self.random.random_range(0..1000),
                _ => self.random.random_range(0..30),
            };
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        self.old = None;
        self.faults.stop();
        // Longer than a lost event takes to be repaired by a fresh list, twice.
        for _ in 0..40 {
            self.kubelet();
            tokio::time::sleep(DRIFT).await;
        }
        self.kubelet();
        tokio::time::sleep(DRIFT * 4).await;
        self.check();
        self.is_idle().await;
    }

    async fn is_idle(&self) {
        let writes =
            || -> Vec<u64> { self.tenants.iter().map(|t| t.server.writes()).chain([self.host.writes()]).collect() };
        let before = writes();
        tokio::time::sleep(DRIFT * 4).await;
        assert_eq!(before, writes(), "seed {}: an idle world is written to", self.seed);
    }

    fn check(&self) {
        let seed = self.seed;
        for tenant in &self.tenants {
            let (view, server) = (&tenant.view, &tenant.server);
            let who = format!("seed {seed}, tenant {}", view.id);
            let namespace = view.namespace().as_str();
            let (mut pods, mut configs) = (Vec::new(), Vec::new());
            for pod in server.objects("pods") {
                let key = ObjectKey { namespace: text(&pod, "namespace"), name: text(&pod, "name") };
                assert!(pod["metadata"]["deletionTimestamp"].is_null(), "{who}: {key:?} does not end");
                let config = ObjectKey {
                    namespace: key.namespace.clone(),
                    name: pod["spec"]["config"].as_str().unwrap().to_owned(),
                };
                if let Some(map) = server.read("configmaps", "ns", &config.name) {
                    let name = host_name(&config, view);
                    let host = self.host.read("configmaps", namespace, &name);
                    let host = host.unwrap_or_else(|| panic!("{who}: {config:?} is not on the host"));
                    assert_eq!(host["data"], map["data"], "{who}: {config:?}");
                    configs.push(name);
                }
                let host = self.host.read("pods", namespace, &host_name(&key, view));
                let host = host.unwrap_or_else(|| panic!("{who}: {key:?} is not on the host"));
                if key.name == "taken" {
                    assert_eq!(host["spec"], json!({"mine": true}), "{who}: a foreign object was written over");
                    let said = server.objects("events").iter().any(|e| e["involvedObject"]["name"] == "taken");
                    assert!(said, "{who}: nobody was told about {key:?}");
                    continue;
                }
                assert_eq!(identity::recorded_uid(&host), text(&pod, "uid"), "{who}: {key:?}");
                assert_eq!(host["spec"], pod["spec"], "{who}: {key:?}");
                assert_eq!(host["status"], pod["status"], "{who}: {key:?}");
                let secret = self.host.read("secrets", namespace, &secret_name(&key, view));
                let secret = secret.unwrap_or_else(|| panic!("{who}: {key:?} has no tokens"));
                assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], host["metadata"]["uid"], "{who}: {key:?}");
                pods.push(text(&host, "name"));
            }
            for (plural, expected) in [("pods", &pods), ("configmaps", &configs)] {
                for object in self.host.objects(plural).iter().filter(|o| belongs_to(o, view)) {
                    let name = text(object, "name");
                    assert!(expected.contains(&name), "{who}: {plural} {name} is left over");
                }
            }
            let secrets = self.host.objects("secrets").iter().filter(|o| belongs_to(o, view)).count();
            assert_eq!(secrets, pods.len(), "{who}: token Secrets");
            let nodes = |s: &Server| -> Vec<(String, Value)> {
                s.objects("nodes").iter().map(|n| (text(n, "name"), n["capacity"].clone())).collect()
            };
            assert_eq!(nodes(server), nodes(&self.host), "{who}: nodes");
            let service = server.read("services", "default", "kubernetes").expect("the kubernetes Service");
            assert_eq!(service["spec"]["clusterIP"], view.api_service_ip.to_string(), "{who}");
            check_dns(server, view, &who);
        }
        let strangers = self.host.objects("pods").iter().filter(|p| p["spec"]["mine"] == true).count();
        assert_eq!(strangers, self.tenants.len(), "seed {seed}: foreign objects");
        let unmarked = self
            .host
            .objects("pods")
            .iter()
            .any(|p| p["spec"]["mine"].is_null() && p["metadata"]["labels"][keys::CLUSTER].is_null());
        assert!(!unmarked, "seed {seed}: an unmarked object");
    }
}

/// The object that the record of a tenant's store is in; returns its uid.
fn virtual_cluster(host: &Server, namespace: &str, name: &str) -> String {
    host.put("virtualclusters", json!({"metadata": {"name": name, "namespace": namespace}}));
    text(&host.read("virtualclusters", namespace, name).unwrap(), "uid")
}

/// One that a user brought stays as he wrote it; else there is ours.
fn check_dns(server: &Server, view: &TenantView, who: &str) {
    let service = server.read("services", "kube-system", "kube-dns").unwrap_or_else(|| panic!("{who}: no kube-dns"));
    let (address, dns) = (&service["spec"]["clusterIP"], view.dns_service_ip.to_string());
    if service["metadata"]["labels"].is_null() {
        assert_eq!(*address, "10.96.7.7", "{who}: a user's own");
        return;
    }
    let wanted = if view.dns_service_ip == view.api_service_ip { "None" } else { dns.as_str() };
    assert_eq!(*address, wanted, "{who}: kube-dns");
    let endpoints = server.read("endpoints", "kube-system", "kube-dns").unwrap_or_default();
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], dns, "{who}: kube-dns' endpoints");
}

/// As an API server makes it by itself.
fn wrong_service(server: &Server) {
    server.delete_gracefully("services", "default", "kubernetes", None);
    let metadata = json!({"name": "kubernetes", "namespace": "default"});
    server.put("services", json!({"metadata": metadata, "spec": {"clusterIP": "10.96.0.1"}}));
}

fn text(object: &Value, field: &str) -> String {
    object["metadata"][field].as_str().unwrap_or_default().to_owned()
}

/// Runs it to its end in a world where time passes only while nothing else is to do.
fn run_paused(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work);
}

/// Runs the seeds that the environment asks for, else `default` of them; one that fails says how to run it again.
fn run_seeds(filter: &str, default: u64, simulate: impl Fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let chosen = number("PORTICO_SIM_SEED");
    if chosen.is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    }
    let seeds = chosen.map_or(0..number("PORTICO_SIM_SEEDS").unwrap_or(default), |seed| seed..seed + 1);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| simulate(seed)));
        if let Err(panic) = outcome {
            eprintln!("failing seed: PORTICO_SIM_SEED={seed} cargo test --test sim {filter}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn any_misfortune_converges() {
    run_seeds("any_misfortune", 50, |seed| run_paused(async { Box::pin(World::new(seed).run()).await }));
}
