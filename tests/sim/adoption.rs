//! Two clusters of vcluster 0.3.0 in one host namespace become Portico's, with the real kinds, while users, kubelets and
//! misfortune go on: what runs keeps running under its uid, nothing is made twice, nothing of others is touched.

mod check;
mod tenant;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use portico::config::{Span, SyncerConfig};
use portico::error::Side;
use portico::kubernetes::rights::{Access, Rules};
use portico::names::keys;
use portico::runtime::clock::Clock;
use portico::syncer::kinds::{self, Switches};
use portico::syncer::{Catalog, Member, OwnPlace, Running, Settings, Stats};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::server::{Faults, Server};
use super::{DRIFT, run_paused, run_seeds, text};
use tenant::{LONG, Tenant, metadata, pod, started};

const STEPS: u32 = 60;
const OLD_LABEL: &str = "vcluster.loft.sh/managed-by";

struct World {
    seed: u64,
    random: StdRng,
    faults: Arc<Faults>,
    host: Server,
    tenants: Vec<Tenant>,
    /// Objects that are nobody's business, as they were.
    foreign: Vec<(&'static str, Value)>,
    catalog: Catalog,
    stats: Arc<Stats>,
    running: Option<Running>,
    old: Option<Running>,
    access: Access,
}

impl World {
    fn new(seed: u64) -> Self {
        Self::with_access(seed, Access::granted())
    }

    fn with_access(seed: u64, access: Access) -> Self {
        let faults = Faults::new(seed);
        let host = Server::new("host", Side::Host, Arc::clone(&faults));
        let mut tenants: Vec<Tenant> = (0..2).map(|n| Tenant::new(n, &faults)).collect();
        for tenant in &mut tenants {
            tenant.fill(&host);
        }
        let disabled = [
            "EndpointSlice",
            "PersistentVolume",
            "Node",
            "StorageClass",
            "PriorityClass",
            "RuntimeClass",
            "IngressClass",
            "Event",
        ];
        let switches = Switches { disabled: disabled.map(str::to_owned).into() };
        let catalog = Catalog::new(kinds::all(&switches));
        let stats = Arc::new(Stats::new(&catalog));
        let random = StdRng::seed_from_u64(seed);
        let mut world = Self {
            seed,
            random,
            faults,
            host,
            tenants,
            foreign: Vec::new(),
            catalog,
            stats,
            running: None,
            old: None,
            access,
        };
        world.forge();
        world.start();
        world
    }

    /// What a hostile neighbour may leave in the namespace to be taken for the first cluster's.
    fn forge(&mut self) {
        let (first, second) = (&self.tenants[0], &self.tenants[1]);
        // Its own object under the marker, the name and the namespace label of a pod that the first cluster has.
        first.server.put("pods", pod("stolen", "c1"));
        let stolen = first.server.read("pods", "ns", "stolen").unwrap();
        let mut forged = first.old.pod(&stolen, "t");
        forged["metadata"]["ownerReferences"][0] =
            json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "vc2", "uid": "sts-vc2"});
        forged["spec"]["nodeName"] = json!("n1");
        // A marker only; a marker and a label; all of it but in a shape that vcluster never gave.
        let bare = json!({"metadata": {"name": "somebodys", "namespace": "team-a", "labels": {OLD_LABEL: "vc1"}}});
        let mut shaped = second.old.copy(&json!({"metadata": metadata("theirs"), "data": {"mine": "1"}}));
        shaped["metadata"]["labels"][OLD_LABEL] = json!("vc1");
        let mut unowned = bare.clone();
        unowned["metadata"]["name"] = json!("x-x-ns-x-vc1-x-vc1");
        unowned["metadata"]["labels"]["vcluster.loft.sh/namespace"] = json!("elsewhere-x-vc1");
        for (plural, object) in [
            ("pods", forged),
            ("configmaps", bare.clone()),
            ("secrets", bare),
            ("configmaps", shaped),
            ("configmaps", unowned),
        ] {
            let name = text(&object, "name");
            self.host.put(plural, object);
            self.foreign.push((plural, self.host.read(plural, "team-a", &name).unwrap()));
        }
        // And what its tenant may put on its own objects, which Portico copies.
        second.server.change("configmaps", "ns", "kept", |c| c["metadata"]["labels"] = json!({OLD_LABEL: "vc1"}));
    }

    fn start(&mut self) {
        let config =
            SyncerConfig { workers: 8, workers_per_tenant: 4, drift_interval: Span(DRIFT), ..SyncerConfig::default() };
        let running = Running::start(Settings {
            config,
            catalog: self.catalog.clone(),
            host: Arc::new(self.host.clone()),
            clock: Clock::seeded("2026-01-01T00:00:00Z".parse().unwrap(), self.random.random()),
            stats: Arc::clone(&self.stats),
            access: self.access.clone(),
            own_place: OwnPlace::default(),
            traces: portico::runtime::traces::Traces::off(),
        });
        running.set_members(self.members(""));
        self.running = Some(running);
    }

    fn members(&self, fingerprint: &str) -> Vec<Member> {
        let members = self.tenants.iter().map(|tenant| Member {
            view: tenant.view.clone(),
            api: Arc::new(tenant.server.clone()),
            fingerprint: fingerprint.to_owned(),
            adopts: true,
            on_loss: portico::crd::OnLoss::Discard,
            limits: portico::crd::Limits::default(),
            metrics_at_gateway: false,
        });
        members.collect()
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    fn step(&mut self) {
        let tenant = self.below(2);
        let server = self.tenants[tenant].server.clone();
        let name = ["web-0", "web-1", "web-2", "again"][self.below(4)];
        match self.below(100) {
            0..=14 if server.read("pods", "ns", name).is_none() => {
                let config = ["c1", "c2", LONG][self.below(3)];
                server.put("pods", pod(name, config));
            }
            15..=22 => server.delete_gracefully("pods", "ns", name, None),
            23..=30 => {
                let (name, data) = (["c1", "c2"][self.below(2)], self.below(1000));
                server.put("configmaps", json!({"metadata": metadata(name), "data": {"n": data.to_string()}}));
            }
            31..=33 => server.delete_gracefully("configmaps", "ns", ["c1", "c2"][self.below(2)], None),
            34..=40 => {
                let tier = ["a", "b", "c"][self.below(3)];
                let name = ["anchor", name][self.below(2)];
                server.change("pods", "ns", name, |pod| pod["metadata"]["labels"]["tier"] = json!(tier));
            }
            41..=43 => {
                let ip = format!("192.0.2.{}", self.below(9));
                server.change("endpoints", "ns", "ext", |e| e["subsets"][0]["addresses"][0]["ip"] = json!(ip));
            }
            44..=74 => self.kubelet(),
            75..=77 => self.host.compact(),
            78..=80 => server.compact(),
            81..=88 => {
                self.running = None;
                self.old = None;
                self.start();
            }
            89..=91 => {
                self.old = self.running.take();
                self.start();
            }
            92..=93 => self.old = None,
            94..=95 => {
                let fingerprint = self.below(1000).to_string();
                self.running.as_ref().unwrap().set_members(self.members(&fingerprint));
            }
            _ => {}
        }
        self.nothing_runs_twice();
    }

    fn kubelet(&mut self) {
        for pod in self.host.objects("pods") {
            if self.is_foreign("pods", &pod) || self.below(2) == 0 {
                continue;
            }
            let (namespace, name) = (text(&pod, "namespace"), text(&pod, "name"));
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                self.host.delete_gracefully("pods", &namespace, &name, Some(0));
            } else if pod["spec"]["nodeName"].is_null() {
                self.host.change("pods", &namespace, &name, |pod| pod["spec"]["nodeName"] = json!("n1"));
            } else {
                self.host.change("pods", &namespace, &name, |pod| pod["status"] = started(json!({}))["status"].clone());
            }
        }
        let alive: BTreeSet<String> = self.host.objects("pods").iter().map(|pod| text(pod, "uid")).collect();
        for secret in self.host.objects("secrets") {
            let owner = &secret["metadata"]["ownerReferences"][0];
            if owner["kind"] == "Pod" && !alive.contains(owner["uid"].as_str().unwrap()) {
                self.host.delete_gracefully("secrets", &text(&secret, "namespace"), &text(&secret, "name"), None);
            }
        }
    }

    fn is_foreign(&self, plural: &str, object: &Value) -> bool {
        self.foreign.iter().any(|(p, o)| *p == plural && o["metadata"]["uid"] == object["metadata"]["uid"])
    }

    /// At no moment do two host pods stand for one virtual pod, adopted or not.
    fn nothing_runs_twice(&self) {
        let mut seen = BTreeMap::new();
        for pod in self.host.objects("pods") {
            let annotations = &pod["metadata"]["annotations"];
            let uid = [keys::OBJECT_UID, "vcluster.loft.sh/uid"].iter().find_map(|key| annotations[*key].as_str());
            let key = uid.unwrap_or_else(|| panic!("seed {}: a pod of nobody: {pod}", self.seed)).to_owned();
            if let Some(other) = seen.insert(key, text(&pod, "name")) {
                panic!("seed {}: {other} and {} are one virtual pod", self.seed, text(&pod, "name"));
            }
        }
    }

    async fn run(mut self) {
        for step in 0..STEPS {
            self.step();
            // Most of an adoption is over within a second: crash often in there.
            let millis = match (step < 15, self.below(10)) {
                (true, _) => self.random.random_range(0..150),
                (false, 0) => self.random.random_range(0..30_000),
                (false, 1..=3) => self.random.random_range(0..1000),
                (false, _) => self.random.random_range(0..30),
            };
            if step < 15 && self.below(4) == 0 {
                self.running = None;
                self.old = None;
                self.start();
            }
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        self.old = None;
        self.faults.stop();
        for _ in 0..40 {
            self.kubelet();
            self.nothing_runs_twice();
            tokio::time::sleep(DRIFT).await;
        }
        self.kubelet();
        tokio::time::sleep(DRIFT * 4).await;
        self.check();
        let writes =
            || -> Vec<u64> { self.tenants.iter().map(|t| t.server.writes()).chain([self.host.writes()]).collect() };
        let before = writes();
        tokio::time::sleep(DRIFT * 4).await;
        assert_eq!(before, writes(), "seed {}: an idle world is written to", self.seed);
    }
}

/// Nothing goes wrong, but the host's watch is slower than all that the tenants answer: plans must know what was adopted
/// all the same. Later starts find nothing more to do, and ask no more than they must.
async fn slow_watch() {
    let mut world = World::new(0);
    world.faults.stop();
    world.faults.delay_watches(Duration::from_secs(30));
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.nothing_runs_twice();
    }
    for tenant in &world.tenants {
        let anchor = tenant.server.read("pods", "ns", LONG).unwrap();
        assert_eq!(anchor["status"]["phase"], "Running", "its copy was there all the time");
        let of = |o: &&Value| o["metadata"]["annotations"][keys::OBJECT_NAME] == LONG;
        let copies = |plural| world.host.objects(plural).iter().filter(of).count();
        assert_eq!((copies("configmaps"), copies("persistentvolumeclaims")), (2, 2), "one for each tenant");
    }
    world.faults.delay_watches(Duration::ZERO);
    for _ in 0..40 {
        world.kubelet();
        tokio::time::sleep(DRIFT).await;
    }
    world.check();

    let (lists, writes) = (world.host.lists().len(), world.host.writes());
    let of_tenant: Vec<usize> = world.tenants.iter().map(|t| t.server.lists().len()).collect();
    world.running = None;
    world.start();
    tokio::time::sleep(DRIFT).await;
    let mut asked: Vec<(String, String)> = world.host.lists().split_off(lists);
    // Claims of a lost store are looked for too.
    asked.retain(|(_, selector)| !selector.starts_with(keys::ABANDONED));
    let old = asked.iter().filter(|(_, selector)| selector.starts_with(OLD_LABEL)).count();
    assert_eq!((asked.len(), old), (14, 14), "one list for each of seven kinds and two tenants: {asked:?}");
    assert_eq!(writes, world.host.writes());
    // Of what was left alone the tenant is asked whether it knows it by now.
    let again: Vec<usize> = world.tenants.iter().map(|t| t.server.lists().len()).collect();
    let left = ["pods", "secrets", "configmaps", "persistentvolumeclaims"].len();
    assert_eq!((again[0] - of_tenant[0], again[1] - of_tenant[1]), (left, 1));
}

/// The rights come after the syncer: until then nothing is known, so nothing may be said to be gone; then all is adopted.
async fn late_rights() {
    let (rights, access) = watch::channel(Arc::new(Rules::default()));
    let mut world = World::with_access(0, Access::followed(access));
    world.faults.stop();
    let writes = world.host.writes();
    tokio::time::sleep(DRIFT * 4).await;
    assert_eq!(writes, world.host.writes());
    let anchor = world.tenants[0].server.read("pods", "ns", "anchor").unwrap();
    assert_eq!(anchor["status"]["phase"], "Running");
    rights.send_replace(Arc::new(Rules::whole_namespace()));
    for _ in 0..40 {
        world.kubelet();
        world.nothing_runs_twice();
        tokio::time::sleep(DRIFT).await;
    }
    world.check();
}

/// The host's answer is no, though the rights that were asked for say yes: as while a Role is deleted and made again.
async fn refused_lists() {
    let mut world = World::new(0);
    world.faults.stop();
    world.faults.refuse_reads(true);
    // Which stores they have is recorded first.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let writes = world.host.writes();
    tokio::time::sleep(DRIFT * 2).await;
    assert_eq!(writes, world.host.writes());
    world.faults.refuse_reads(false);
    for _ in 0..40 {
        world.kubelet();
        world.nothing_runs_twice();
        tokio::time::sleep(DRIFT).await;
    }
    world.check();
}

#[test]
fn a_refused_list_is_not_an_empty_one() {
    run_paused(async { Box::pin(refused_lists()).await });
}

#[test]
fn rights_may_come_later() {
    run_paused(async { Box::pin(late_rights()).await });
}

#[test]
fn plans_know_what_was_adopted_before_the_watch_tells() {
    run_paused(async { Box::pin(slow_watch()).await });
}

#[test]
fn whatever_happens_adoption_makes_nothing_again() {
    run_seeds("adoption::whatever", 12, |seed| run_paused(async { Box::pin(World::new(seed).run()).await }));
}
