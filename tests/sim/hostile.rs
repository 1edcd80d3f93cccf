//! Two tenants with the real kinds, one of them hostile: what it multiplies is refused with an event and nothing of it comes
//! to the host, its ordinary pod runs, and the other tenant's pods go on.

use std::sync::Arc;
use std::time::Duration;

use portico::config::{PolicyBounds, Span, SyncerConfig};
use portico::crd::policy::{GrantedPolicy, Policy};
use portico::error::Side;
use portico::names::keys;
use portico::runtime::clock::Clock;
use portico::syncer::kind::TenantView;
use portico::syncer::kinds::{self, Switches};
use portico::syncer::{Catalog, Member, OwnPlace, Running, Settings, Stats};
use portico::translate::bounds;
use serde_json::{Value, json};

use super::server::{Faults, Link, Server};
use super::{DRIFT, run_paused, run_seeds, wrong_service};

const NAMESPACES: usize = 300;

pub struct Tenant {
    pub view: TenantView,
    pub server: Server,
}

fn many(number: usize, one: impl Fn(usize) -> Value) -> Value {
    (0..number).map(one).collect()
}

pub fn pod(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "c", "image": "i"}]);
    }
    json!({"metadata": {"name": name, "namespace": "ns", "labels": {"app": name}}, "spec": spec})
}

fn term(n: usize) -> Value {
    json!({"topologyKey": "t", "labelSelector": {"matchLabels": {"app": "web"}},
        "namespaceSelector": {"matchExpressions": [{"key": "n", "operator": "NotIn", "values": [n.to_string()]}]}})
}

/// Each multiplies something, by name.
fn bombs() -> Vec<(&'static str, Value)> {
    let terms = |number| json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": many(number, term)}}});
    let doubling = |n: usize| match n {
        0 => json!({"name": "V0", "value": "0123456789"}),
        n => json!({"name": format!("V{n}"), "value": format!("$(V{m})$(V{m})", m = n - 1)}),
    };
    let names = |n: usize| json!({"configMapRef": {"name": format!("config-{n}")}});
    let token = |n: usize| json!({"serviceAccountToken": {"path": n.to_string()}});
    vec![
        ("terms", terms(300)),
        ("names", terms(90)),
        ("containers", json!({"containers": many(400, |n| json!({"name": format!("c{n}"), "image": "i"}))})),
        ("doubling", json!({"containers": [{"name": "c", "image": "i", "env": many(50, doubling)}]})),
        ("references", json!({"containers": [{"name": "c", "image": "i", "envFrom": many(1100, names)}]})),
        ("tokens", json!({"volumes": [{"name": "v", "projected": {"sources": many(100, token)}}]})),
        ("small-fields", json!({"tolerations": many(40_000, |_| json!({"key": ""}))})),
    ]
}

fn tenants(host: &Server, faults: &Arc<Faults>) -> [Tenant; 2] {
    let tenant = |n: u8, name: &str| {
        let server = Server::new(name, Side::Backend, Arc::clone(faults));
        wrong_service(&server);
        server.put("configmaps", json!({"metadata": {"name": "config-1", "namespace": "ns"}, "data": {"a": "b"}}));
        let ip = format!("10.96.0.{}", n + 10).parse().unwrap();
        Tenant { view: super::kinds::view("team-a", name, &super::virtual_cluster(host, "team-a", name), ip), server }
    };
    let [hostile, quiet] = [tenant(0, "hostile"), tenant(1, "quiet")];
    for n in 0..NAMESPACES {
        let labels = json!({"n": n.to_string()});
        hostile.server.put("namespaces", json!({"metadata": {"name": format!("namespace-{n}"), "labels": labels}}));
    }
    for n in 0..600 {
        let spec = json!({"clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"], "ports": many(9, |p| json!({"port": p + 1}))});
        let metadata = json!({"name": format!("service-{n}"), "namespace": "ns"});
        hostile.server.put("services", json!({"metadata": metadata, "spec": spec}));
    }
    for (name, spec) in bombs() {
        hostile.server.put("pods", pod(name, spec));
    }
    hostile.server.put("pods", pod("ordinary", json!({})));
    [hostile, quiet]
}

pub fn start(host: &Server, config: SyncerConfig, seed: u64) -> Running {
    start_counted(host, config, seed).0
}

/// The real kinds, but for what is only shown.
pub fn catalog() -> Catalog {
    let disabled =
        ["PersistentVolume", "Node", "StorageClass", "PriorityClass", "RuntimeClass", "IngressClass", "Event"];
    Catalog::new(kinds::all(&Switches { disabled: disabled.map(str::to_owned).into() }))
}

pub fn start_counted(host: &Server, config: SyncerConfig, seed: u64) -> (Running, Arc<Stats>) {
    let catalog = catalog();
    let stats = Arc::new(Stats::new(&catalog));
    let running = Running::start(Settings {
        config,
        catalog,
        host: Arc::new(host.clone()),
        clock: Clock::seeded("2026-01-01T00:00:00Z".parse().unwrap(), seed),
        stats: Arc::clone(&stats),
        access: portico::kubernetes::rights::Access::granted(),
        own_place: OwnPlace::default(),
        traces: portico::runtime::traces::Traces::off(),
    });
    (running, stats)
}

pub fn member(tenant: &Tenant) -> Member {
    Member {
        view: tenant.view.clone(),
        api: Arc::new(tenant.server.clone()),
        fingerprint: String::new(),
        adopts: false,
        on_loss: portico::crd::OnLoss::Hold,
        limits: portico::crd::Limits::default(),
        metrics_at_gateway: false,
    }
}

/// A tenant's objects on the host.
pub fn copies(host: &Server, plural: &'static str, tenant: &Tenant) -> Vec<Value> {
    let mut all = host.objects(plural);
    all.retain(|o| o["metadata"]["labels"][keys::CLUSTER] == tenant.view.cluster().as_str());
    all
}

async fn simulate(seed: u64) {
    let faults = Faults::new(seed);
    let host = Server::new("host", Side::Host, Arc::clone(&faults));
    let [hostile, quiet] = tenants(&host, &faults);
    let running = start(&host, SyncerConfig { drift_interval: Span(DRIFT), ..SyncerConfig::default() }, seed);
    running.set_members(vec![member(&hostile), member(&quiet)]);
    for n in 0..10 {
        let spec =
            json!({"containers": [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "config-1"}}]}]});
        quiet.server.put("pods", pod(&format!("web-{n}"), spec));
        // The hostile one keeps its pods moving.
        for (name, _) in bombs() {
            hostile.server.change("pods", "ns", name, |p| p["metadata"]["annotations"]["n"] = json!(n.to_string()));
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    faults.stop();
    tokio::time::sleep(DRIFT * 20).await;
    check(seed, &host, &hostile, &quiet);
    running.stop().await;
}

fn check(seed: u64, host: &Server, hostile: &Tenant, quiet: &Tenant) {
    let of = |plural, tenant| copies(host, plural, tenant);
    let name =
        |object: &Value| object["metadata"]["annotations"]["portico.dev/object-name"].as_str().unwrap().to_owned();
    let names = |plural, tenant| of(plural, tenant).iter().map(name).collect::<Vec<_>>();
    let wanted: Vec<String> = (0..10).map(|n| format!("web-{n}")).collect();
    assert_eq!(names("pods", quiet), wanted, "seed {seed}: the neighbour's pods");
    assert_eq!(names("configmaps", quiet), ["config-1"], "seed {seed}");
    assert_eq!(names("pods", hostile), ["ordinary"], "seed {seed}: the rest is refused");
    assert_eq!(names("configmaps", hostile), [""; 0], "seed {seed}: nor does what refused pods name cross");
    let size = of("pods", hostile).iter().map(|pod| pod.to_string().len()).sum::<usize>();
    assert!(size < bounds::LINK_BYTES + 64 * 1024, "seed {seed}: {size} bytes");
    let events = hostile.server.objects("events");
    for (bomb, _) in bombs() {
        let told = events.iter().filter(|e| e["involvedObject"]["name"] == bomb && e["reason"] == "SyncDenied");
        let messages: Vec<&str> = told.map(|e| e["message"].as_str().unwrap()).collect();
        assert!(!messages.is_empty(), "seed {seed}: nobody was told about {bomb}");
        assert!(messages.iter().all(|m| m.contains("at most")), "seed {seed}: {messages:?}");
    }
    let cut = events.iter().any(|e| e["involvedObject"]["name"] == "ordinary" && e["reason"] == "SyncLimited");
    assert!(cut, "seed {seed}: service links were cut in silence");
}

#[test]
fn what_a_hostile_tenant_multiplies_is_refused_and_its_neighbour_goes_on() {
    run_seeds("hostile", 2, |seed| run_paused(async { Box::pin(simulate(seed)).await }));
}

/// API servers that accept and never answer, of as many tenants as it takes to hold every worker there ever was.
async fn silent_backends() {
    let faults = Faults::none();
    let host = Server::new("host", Side::Host, Arc::clone(&faults));
    let tenant = |n: usize| {
        let server = Server::new(&format!("t{n}"), Side::Backend, Arc::clone(&faults));
        wrong_service(&server);
        let name = format!("t{n}");
        let ip = format!("10.96.0.{}", n + 10).parse().unwrap();
        Tenant {
            view: super::kinds::view("team-a", &name, &super::virtual_cluster(&host, "team-a", &name), ip),
            server,
        }
    };
    let tenants: Vec<Tenant> = (0..4).map(tenant).collect();
    let running = start(&host, SyncerConfig { workers: 4, workers_per_tenant: 2, ..SyncerConfig::default() }, 0);
    running.set_members(tenants.iter().map(member).collect());
    let (quiet, silent) = tenants.split_last().unwrap();
    for tenant in silent {
        for n in 0..10 {
            tenant.server.put("pods", pod(&format!("web-{n}"), json!({})));
        }
    }
    tokio::time::sleep(DRIFT).await;
    assert_eq!(host.objects("pods").len(), 30);
    for tenant in silent {
        tenant.server.link(Link::Silent);
    }
    for pod in host.objects("pods") {
        let name = pod["metadata"]["name"].as_str().unwrap();
        host.change("pods", "team-a", name, |pod| pod["status"] = json!({"phase": "Running"}));
    }
    // While they hang, and long after that.
    for n in 0..20 {
        tokio::time::sleep(Duration::from_secs(n)).await;
        quiet.server.put("pods", pod(&format!("mine-{n}"), json!({})));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(copies(&host, "pods", quiet).len() as u64, n + 1, "a pod waits for other tenants' API servers");
    }
    for tenant in silent {
        tenant.server.link(Link::Up);
    }
    // The longest pause and the longest backoff of an object.
    tokio::time::sleep(Duration::from_secs(100)).await;
    for tenant in silent {
        let all = tenant.server.objects("pods");
        assert!(all.iter().all(|pod| pod["status"]["phase"] == "Running"), "{all:?}");
    }
    running.stop().await;
}

#[test]
fn silent_api_servers_hold_up_nobody_else() {
    run_paused(async { Box::pin(silent_backends()).await });
}

/// One tenant has far more than is kept of it; another, who comes later, has what he needs.
async fn more_than_is_kept(seed: u64) {
    const MOST: usize = 200_000;
    let faults = Faults::new(seed);
    let host = Server::new("host", Side::Host, Arc::clone(&faults));
    let tenant = |n: u8, name: &str| {
        let server = Server::new(name, Side::Backend, Arc::clone(&faults));
        wrong_service(&server);
        let ip = format!("10.96.0.{}", n + 10).parse().unwrap();
        Tenant { view: super::kinds::view("team-a", name, &super::virtual_cluster(&host, "team-a", name), ip), server }
    };
    let [greedy, quiet] = [tenant(0, "greedy"), tenant(1, "quiet")];
    let large = |n: usize| {
        let mut pod = pod(&format!("large-{n:02}"), json!({}));
        pod["metadata"]["annotations"] = json!({"notes": "x".repeat(20_000)});
        pod
    };
    for n in 0..20 {
        greedy.server.put("pods", large(n));
        // Of another kind, listed at the same time.
        let spec = json!({"clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"], "ports": [{"port": 1}]});
        let metadata =
            json!({"name": format!("large-{n:02}"), "namespace": "ns", "annotations": {"notes": "x".repeat(20_000)}});
        greedy.server.put("services", json!({"metadata": metadata, "spec": spec}));
    }
    let config = SyncerConfig {
        drift_interval: Span(DRIFT),
        max_cached_bytes_per_tenant: MOST,
        max_cached_bytes: MOST + MOST / 4,
        ..SyncerConfig::default()
    };
    let (running, stats) = start_counted(&host, config, seed);
    running.set_members(vec![member(&greedy), member(&quiet)]);
    let kept = || stats.snapshot().kept.into_iter().find(|kept| kept.id.name().as_str() == "greedy").unwrap();
    for _ in 0..200 {
        tokio::time::sleep(DRIFT / 200).await;
        assert!(kept().bytes <= MOST, "seed {seed}: {} bytes of lists", kept().bytes);
    }
    for object in greedy.server.objects("services") {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        if name.starts_with("large-") {
            greedy.server.delete_gracefully("services", "ns", &name, None);
        }
    }
    tokio::time::sleep(DRIFT * 2).await;
    for n in 20..40 {
        greedy.server.put("pods", large(n));
        quiet.server.put("pods", pod(&format!("web-{n}"), json!({})));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    faults.stop();
    tokio::time::sleep(DRIFT * 20).await;
    let (bytes, cut) = (kept().bytes, kept().cut);
    let synced = copies(&host, "pods", &greedy).len();
    assert!(bytes <= MOST && cut > 25 && synced >= 5, "seed {seed}: {bytes} bytes, {cut} cut, {synced} synced");
    assert_eq!((synced + cut, copies(&host, "pods", &quiet).len()), (40, 20), "seed {seed}");
    let events = greedy.server.objects("events");
    let told = events
        .iter()
        .filter(|e| e["reason"] == "SyncDenied" && e["message"].as_str().unwrap().contains("are kept for it"));
    assert!(told.count() >= cut, "seed {seed}: nobody was told");
    let unsynced = |tenant: &Tenant| {
        let name = tenant.view.cluster().as_str();
        let clusters = host.objects("virtualclusters");
        let found = clusters.iter().find(|c| c["metadata"]["name"] == name).expect("its VirtualCluster");
        found["status"]["unsynced"].as_str().unwrap_or_default().to_owned()
    };
    assert!(unsynced(&greedy).contains("objects are not synced"), "seed {seed}: its owner was not told");
    assert_eq!(unsynced(&quiet), "", "seed {seed}");
    // What is deleted makes room; the rest follows without being touched.
    for pod in greedy.server.objects("pods") {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        if name.as_str() >= "large-05" && name.as_str() < "large-37" {
            greedy.server.delete_gracefully("pods", "ns", &name, Some(0));
        }
    }
    tokio::time::sleep(DRIFT * 20).await;
    assert_eq!((kept().cut, copies(&host, "pods", &greedy).len()), (0, 8), "seed {seed}");
    assert_eq!(unsynced(&greedy), "", "seed {seed}: its owner was not told that there is room");
    running.stop().await;
}

#[test]
fn a_tenant_with_more_than_is_kept_of_it_costs_the_others_nothing() {
    run_seeds("more_than_is_kept", 5, |seed| run_paused(async { Box::pin(more_than_is_kept(seed)).await }));
}

/// One tenant wants more pods than it may have, all at once, and to be told of each.
async fn more_than_it_may_have(seed: u64) {
    const MOST: usize = 7;
    let faults = Faults::new(seed);
    let host = Server::new("host", Side::Host, Arc::clone(&faults));
    let tenant = |n: u8, name: &str, policy: Policy| {
        let server = Server::new(name, Side::Backend, Arc::clone(&faults));
        wrong_service(&server);
        let ip = format!("10.96.0.{}", n + 10).parse().unwrap();
        let mut view = super::kinds::view("team-a", name, &super::virtual_cluster(&host, "team-a", name), ip);
        view.policy = GrantedPolicy::of(PolicyBounds::default(), policy);
        Tenant { view, server }
    };
    let few = Policy { objects: [("pods".to_owned(), MOST as u32)].into(), ..Policy::default() };
    let [greedy, quiet] = [tenant(0, "greedy", few), tenant(1, "quiet", Policy::default())];
    for n in 0..40 {
        greedy.server.put("pods", pod(&format!("web-{n:02}"), json!({})));
        quiet.server.put("pods", pod(&format!("web-{n:02}"), json!({})));
    }
    let config = SyncerConfig { drift_interval: Span(DRIFT), ..SyncerConfig::default() };
    // By its own word, beside a configuration that allows a hundred.
    let limits = portico::crd::Limits { events_per_second: Some(1), ..portico::crd::Limits::default() };
    let (running, stats) = start_counted(&host, config, seed);
    running.set_members(vec![Member { limits, ..member(&greedy) }, member(&quiet)]);
    let copied = |tenant: &Tenant| copies(&host, "pods", tenant).len();
    for round in 0..400 {
        tokio::time::sleep(DRIFT / 100).await;
        assert!(copied(&greedy) <= MOST, "seed {seed}: {} pods", copied(&greedy));
        if round == 300 {
            faults.stop();
        }
    }
    tokio::time::sleep(DRIFT * 5).await;
    assert_eq!((copied(&greedy), copied(&quiet)), (MOST, 40), "seed {seed}");
    let events = greedy.server.objects("events");
    let told = events.iter().filter(|e| e["message"].as_str().unwrap().contains("`objects`")).count();
    let unsaid = stats.snapshot().kept.iter().find(|kept| kept.id.name().as_str() == "greedy").unwrap().unsaid;
    assert!(told >= 5 && unsaid > 0, "seed {seed}: {told} told, {unsaid} not");
    // What is deleted makes room; the rest follows without being touched.
    for host_pod in copies(&host, "pods", &greedy) {
        let name = host_pod["metadata"]["annotations"][keys::OBJECT_NAME].as_str().unwrap().to_owned();
        greedy.server.delete_gracefully("pods", "ns", &name, Some(0));
    }
    tokio::time::sleep(DRIFT * 20).await;
    assert_eq!(copied(&greedy), MOST, "seed {seed}");
    running.stop().await;
}

#[test]
fn a_tenant_has_no_more_objects_than_it_may_and_its_neighbour_all() {
    run_seeds("more_than_it_may_have", 5, |seed| run_paused(async { Box::pin(more_than_it_may_have(seed)).await }));
}
