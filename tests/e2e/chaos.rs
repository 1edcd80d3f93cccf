//! Kills at random moments, under load, of whoever is there: nothing that was accepted is lost, nothing is twice, nothing is
//! left behind.
//!
//! Ignored by default, since every other test would notice: `tests/e2e/run` runs it behind the others, alone, with one kill
//! of each victim. `benches/chaos N [SEED]` is the long form: N kills, and memory is judged too. A seed gives the same
//! victims and the same order of steps in each worker; what meets what is still the machine's affair.

mod clusters;
mod daemon;
mod load;
mod model;
mod steps;
mod victims;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portico::names::keys;
use portico::runtime::task::{self, Task};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::harness::{Dump, SYSTEM, Tenant, eventually, host, host_kubeconfig, run_id};
use crate::percentile::percentile;
use clusters::Owner;
use load::{PREFIX, REVISION, Worker};
use model::{Key, Kind, Model, Seen, Verdict, Version};
use steps::{Steps, Tally};
use victims::Victim;

const WORKERS: usize = 2;
/// Between two kills, at most.
const PAUSE: Duration = Duration::from_secs(8);
/// After the last one everything has come to rest within this: a Service that the gateway began and did not end is taken
/// away after two minutes.
const REST: Duration = Duration::from_secs(420);
/// Memory may grow by this, of a hundred.
const GROWTH: u64 = 10;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number: {value}")))
}

#[test]
#[ignore = "kills Portico and the host's API server under every other test; tests/e2e/run runs it alone"]
fn kills_at_random_moments_lose_nothing_double_nothing_and_leave_nothing() {
    let kills = variable("PORTICO_CHAOS_KILLS");
    let seed = variable("PORTICO_CHAOS_SEED").unwrap_or_else(rand::random);
    eprintln!("chaos: seed {seed} (PORTICO_CHAOS_SEED)");
    let mut random = StdRng::seed_from_u64(seed);
    let namespace = format!("e2e-chaos-{}", run_id());
    let tenants = ["one", "two"].map(|name| &*Box::leak(Box::new(Tenant::create(name, &namespace, &[]))));
    let _dump = Dump(tenants.to_vec());
    if kills.is_some() {
        // So that fresh processes are compared with fresh ones.
        host(&["-n", SYSTEM, "rollout", "restart", "deployments"]).ok();
    }
    at_rest(&tenants, kills.is_some());
    let before = victims::memory();
    let run = Run::start(&tenants, &namespace, &mut random);
    let times = run.kill(kills.unwrap_or(Victim::ALL.len() as u64), &tenants, &mut random);
    let (verdict, clusters, steps, load) = run.end(&tenants, &namespace);
    let findings = steps.findings.lock().clone();
    host(&["-n", &namespace, "delete", "virtualclusters", "-l", "chaos-step", "--timeout=300s"]).ok();
    for tenant in tenants {
        tenant.kubectl(&["delete", "namespace", &load, "--timeout=300s"]).ok();
    }
    at_rest(&tenants, kills.is_some());
    let after = victims::memory();
    table(&times, &steps, &verdict, (&before, &after));
    assert!(
        verdict.is_clean() && clusters.is_empty() && findings.is_empty(),
        "seed {seed}\n{}\n{} of names and ports {clusters:#?}\n{} of steps {findings:#?}",
        verdict.words(),
        clusters.len(),
        findings.len()
    );
    if kills.is_some() {
        let (before, after): (u64, u64) = (before.iter().sum(), after.iter().sum());
        assert!(after * 100 <= before * (100 + GROWTH), "memory: {before} KiB before, {after} KiB after");
    }
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}

/// Everybody ready, and for a figure that counts the allocator's decay and a round over everything as well.
fn at_rest(tenants: &[&Tenant], is_counted: bool) {
    for deployment in host(&["-n", SYSTEM, "get", "deployments", "-o", "name"]).ok().lines() {
        host(&["-n", SYSTEM, "rollout", "status", deployment, "--timeout=180s"]).ok();
    }
    victims::whole(tenants).unwrap_or_else(|why| panic!("{why}"));
    if is_counted {
        std::thread::sleep(Duration::from_secs(75));
    }
}

/// The load, and what it was told.
struct Run {
    runtime: Runtime,
    workers: Vec<Task>,
    model: Arc<Mutex<Model>>,
    accepted: clusters::Accepted,
    tally: Arc<Tally>,
    over: Arc<AtomicBool>,
    /// The load's namespace in each tenant.
    load: String,
}

impl Run {
    fn start(tenants: &[&'static Tenant], namespace: &str, random: &mut StdRng) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let load = format!("load-{}", run_id());
        let mut run = Self {
            runtime,
            workers: Vec::new(),
            model: Arc::default(),
            accepted: Arc::default(),
            tally: Arc::default(),
            over: Arc::default(),
            load,
        };
        for tenant in tenants {
            tenant.kubectl(&["create", "namespace", &run.load]).ok();
            eventually("the account", || {
                tenant.kubectl(&["-n", &run.load, "get", "serviceaccount", "default"]).result()
            });
        }
        for (number, tenant) in (0..tenants.len() * WORKERS).zip(tenants.iter().cycle()) {
            let steps = run.runtime.block_on(Steps::new(&tenant.kubeconfig, &run.tally));
            let worker = Worker {
                steps,
                tenant: tenant.name.clone(),
                namespace: run.load.clone(),
                number,
                random: StdRng::seed_from_u64(random.random()),
                model: Arc::clone(&run.model),
                over: Arc::clone(&run.over),
            };
            let _entered = run.runtime.enter();
            run.workers.push(task::spawn("worker", worker.run()));
        }
        let owner = Owner {
            steps: run.runtime.block_on(Steps::new(&host_kubeconfig(), &run.tally)),
            namespace: namespace.to_owned(),
            random: StdRng::seed_from_u64(random.random()),
            accepted: Arc::clone(&run.accepted),
            over: Arc::clone(&run.over),
        };
        let entered = run.runtime.enter();
        run.workers.push(task::spawn("owner", owner.run()));
        drop(entered);
        run
    }

    /// Each victim once in a row of as many as there are, in an order of chance. How long each kill was felt.
    fn kill(&self, count: u64, tenants: &[&Tenant], random: &mut StdRng) -> BTreeMap<Victim, Vec<Duration>> {
        let mut times: BTreeMap<Victim, Vec<Duration>> = BTreeMap::new();
        let mut row = Vec::new();
        for number in 1..=count {
            if row.is_empty() {
                row = Victim::ALL.to_vec();
            }
            let victim = row.swap_remove(random.random_range(0..row.len()));
            let pause = random.random_range(0..PAUSE.as_millis());
            std::thread::sleep(Duration::from_millis(u64::try_from(pause).expect("small")));
            let objects = self.model.lock().len();
            let took = victim.kill(tenants, random).unwrap_or_else(|why| panic!("kill {number} of {victim:?}: {why}"));
            eprintln!("chaos: kill {number} of {count}: {victim:?} with {objects} objects, whole after {took:.1?}");
            times.entry(victim).or_default().push(took);
        }
        times
    }

    /// Stops the load, waits until both sides agree, and says what they never agreed on: of objects, and of names and ports.
    fn end(mut self, tenants: &[&Tenant], namespace: &str) -> (Verdict, Vec<String>, Arc<Tally>, String) {
        self.over.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            let ended = self.runtime.block_on(worker.join());
            assert!(ended.is_some(), "a worker panicked");
        }
        let until = Instant::now() + REST;
        loop {
            let (objects, clusters) = (self.objects(tenants), self.clusters(tenants, namespace));
            let is_clean = objects.is_clean() && clusters.is_empty();
            if is_clean || Instant::now() >= until {
                return (objects, clusters, self.tally, self.load);
            }
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    fn objects(&self, tenants: &[&Tenant]) -> Verdict {
        let (mut inside, mut on_host) = (Vec::new(), Vec::new());
        for tenant in tenants {
            let list = tenant.kubectl(&["-n", &self.load, "get", "pods,services,configmaps", "-o", "json"]).json();
            inside.extend(list["items"].as_array().into_iter().flatten().filter_map(|object| seen(tenant, object)));
            let labels = format!("{}={},{}={}", keys::CLUSTER, tenant.name, keys::NAMESPACE, self.load);
            let list = tenant.on_host(&["get", "pods,services,configmaps", "-l", &labels, "-o", "json"]).json();
            on_host.extend(list["items"].as_array().into_iter().flatten().filter_map(|object| copy(tenant, object)));
        }
        self.model.lock().judge(&inside, &on_host)
    }

    fn clusters(&self, tenants: &[&Tenant], namespace: &str) -> Vec<String> {
        let accepted = self.accepted.lock().clone();
        let own: BTreeSet<String> = tenants.iter().map(|tenant| tenant.name.clone()).collect();
        let all = host(&["get", "virtualclusters", "-A", "-o", "json"]).json();
        let mut wrong = clusters::judge(&accepted, namespace, &all);
        let label = format!("{}={namespace}", keys::HOST_NAMESPACE);
        let services = host(&["-n", SYSTEM, "get", "services", "-l", &label, "-o", "json"]).json();
        wrong.extend(clusters::orphans(&accepted, &own, &services));
        // What is theirs in their own namespace goes with them.
        let there = host(&["-n", namespace, "get", "secrets,configmaps,services", "-o", "json"]).json();
        let uids: BTreeSet<String> =
            all["items"].as_array().into_iter().flatten().map(|c| text(&c["metadata"]["uid"])).collect();
        for object in there["items"].as_array().into_iter().flatten() {
            let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
            let mut lost = owners.filter(|o| o["kind"] == "VirtualCluster" && !uids.contains(&text(&o["uid"])));
            if lost.next().is_some() {
                wrong.push(format!("{} {} outlives its VirtualCluster", object["kind"], object["metadata"]["name"]));
            }
        }
        wrong
    }
}

/// An object inside.
fn seen(tenant: &Tenant, object: &Value) -> Option<Seen> {
    let name = text(&object["metadata"]["name"]);
    let version = Version { uid: text(&object["metadata"]["uid"]), revision: revision(object)? };
    of(tenant, &text(&object["kind"]), name, version, object)
}

/// A copy on the host, by its marks.
fn copy(tenant: &Tenant, object: &Value) -> Option<Seen> {
    let mark = |key: &str| text(&object["metadata"]["annotations"][key]);
    let name = mark(keys::OBJECT_NAME);
    // One without a revision is old as well.
    let version = Version { uid: mark(keys::OBJECT_UID), revision: revision(object).unwrap_or(u64::MAX) };
    of(tenant, &mark(keys::OBJECT_KIND), name, version, object)
}

fn of(tenant: &Tenant, kind: &str, name: String, version: Version, object: &Value) -> Option<Seen> {
    // Beside the load's there are those that every namespace has.
    let kind = Kind::of(kind).filter(|_| name.starts_with(PREFIX))?;
    let leaves = object["metadata"]["deletionTimestamp"].is_string();
    Some(Seen { key: Key { tenant: tenant.name.clone(), kind, name }, version, leaves })
}

/// What was last written into it: the label, under whichever key the host has it, and what a ConfigMap says.
fn revision(object: &Value) -> Option<u64> {
    let labels = object["metadata"]["labels"].as_object()?;
    let (_, label) = labels.iter().find(|(key, _)| keys::own(key) == REVISION)?;
    let revision: u64 = label.as_str()?.parse().ok()?;
    let is_whole = object["kind"] != "ConfigMap" || object["data"]["revision"] == *label;
    is_whole.then_some(revision)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn table(times: &BTreeMap<Victim, Vec<Duration>>, steps: &Tally, verdict: &Verdict, memory: (&[u64], &[u64])) {
    eprintln!("\n| victim | kills | whole again p50 | at most |\n|---|---|---|---|");
    for (victim, times) in times {
        let at = |share| percentile(times, share).unwrap_or_default();
        eprintln!("| {victim:?} | {} | {:.1?} | {:.1?} |", times.len(), at(50), at(100));
    }
    let (accepted, repeated) = (steps.accepted.load(Ordering::SeqCst), steps.repeated.load(Ordering::SeqCst));
    eprintln!(
        "\n| steps accepted | tried again | lost | doubled | orphans | stale | findings |\n|---|---|---|---|---|---|---|"
    );
    eprintln!(
        "| {accepted} | {repeated} | {} | {} | {} | {} | {} |",
        verdict.lost.len(),
        verdict.doubled.len(),
        verdict.orphans.len(),
        verdict.stale.len(),
        steps.findings.lock().len()
    );
    let mib = |list: &[u64]| list.iter().map(|kib| format!("{:.1}", *kib as f64 / 1024.0)).collect::<Vec<_>>();
    eprintln!("\nPortico's processes, MiB resident: before {:?}, after {:?}", mib(memory.0), mib(memory.1));
}
