//! The syncer and its tenants as they come and go: what is left of a syncer that was stopped, and how the tenants' own Services
//! get their addresses.

use std::sync::{Arc, Weak};
use std::time::Duration;

use portico::config::{Span, SyncerConfig};
use portico::error::Side;
use portico::kubernetes::rights::{Access, Rules};
use portico::names::keys;
use portico::runtime::telemetry::Metrics;
use portico::syncer::world;
use portico::syncer::{Member, Running};
use portico::tenant::memory::Memory;
use serde_json::json;
use tokio::sync::watch;

use super::hostile::{self, Tenant, copies, member, pod};
use super::server::{Faults, Server};
use super::{DRIFT, World, kinds, run_paused, wrong_service};

/// Nothing may be read, so that what can be made up is.
fn limited() -> (watch::Sender<Arc<Rules>>, Access) {
    let (sender, rules) = watch::channel(Arc::default());
    (sender, Access::followed(rules))
}

async fn is_gone(world: &Weak<world::World>) -> bool {
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.upgrade().is_none()
}

#[test]
fn a_stopped_syncer_leaves_nothing_whatever_its_rights_were() {
    run_paused(async {
        let (_sender, access) = limited();
        for access in [Access::granted(), access] {
            let mut world = World::with(0, Faults::none(), kinds::catalog());
            world.restart_as(access);
            super::panics::put(&world, "a");
            tokio::time::sleep(DRIFT).await;
            let running: Running = world.running.take().expect("runs");
            let known = running.world();
            // A tenant that is made again, and one that goes.
            let member = |n: usize, uid: &str| {
                let mut view = world.tenants[n].view.clone();
                uid.clone_into(&mut view.uid);
                let api = Arc::new(world.tenants[n].server.clone());
                let on_loss = portico::crd::OnLoss::Discard;
                Member {
                    view,
                    api,
                    fingerprint: uid.to_owned(),
                    adopts: false,
                    on_loss,
                    limits: portico::crd::Limits::default(),
                    metrics_at_gateway: false,
                }
            };
            running.set_members(vec![member(0, "again"), member(1, "again")]);
            tokio::time::sleep(DRIFT).await;
            running.set_members(vec![member(0, "again")]);
            tokio::time::sleep(DRIFT).await;
            running.stop().await;
            assert!(is_gone(&known).await, "what it knew outlives its run");
        }
    });
}

fn kubernetes(world: &World) -> (String, String) {
    let service = world.tenants[0].server.read("services", "default", "kubernetes").expect("there");
    (service["spec"]["clusterIP"].as_str().unwrap().to_owned(), super::text(&service, "uid"))
}

/// The address of the API is somebody's, then it is outside of the range, then it is free.
#[test]
fn a_service_whose_successor_would_be_refused_stays() {
    run_paused(async {
        let mut world = World::with(0, Faults::none(), kinds::catalog());
        world.running = None;
        let server = world.tenants[0].server.clone();
        let wanted = world.tenants[0].view.api_service_ip.to_string();
        server.delete_gracefully("services", "default", "kubernetes", None);
        super::wrong_service(&server);
        let before = kubernetes(&world);
        let metadata = json!({"name": "web", "namespace": "ns"});
        server.put("services", json!({"metadata": metadata, "spec": {"clusterIP": wanted}}));
        world.start();
        tokio::time::sleep(DRIFT * 30).await;
        assert_eq!(kubernetes(&world), before, "taken");
        world.tenants[0].view.api_service_ip = "1.2.3.4".parse().unwrap();
        server.delete_gracefully("services", "ns", "web", None);
        world.start();
        tokio::time::sleep(DRIFT * 30).await;
        assert_eq!(kubernetes(&world), before, "outside of the range");
        world.tenants[0].view.api_service_ip = wanted.parse().unwrap();
        world.start();
        tokio::time::sleep(DRIFT).await;
        assert_eq!(kubernetes(&world).0, wanted);
    });
}

/// One with the real kinds.
fn tenant(host: &Server, faults: &Arc<Faults>, namespace: &str, name: &str) -> Tenant {
    let server = Server::new(name, Side::Backend, Arc::clone(faults));
    wrong_service(&server);
    let uid = super::virtual_cluster(host, namespace, name);
    Tenant { view: kinds::view(namespace, name, &uid, "10.96.0.10".parse().unwrap()), server }
}

fn series(metrics: &Metrics) -> Vec<String> {
    let text = metrics.render().expect("renders");
    let names = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// kcp#4071 and its kin: what was kept of tenants, and of host namespaces that nobody is in any more, is gone with them.
#[test]
fn tenants_that_come_and_go_leave_nothing_in_the_syncer() {
    const COME: usize = 150;
    run_paused(async {
        let faults = Faults::none();
        let host = Server::new("host", Side::Host, Arc::clone(&faults));
        let (memory, metrics) = (Memory::default(), Metrics::default());
        let config = SyncerConfig { drift_interval: Span(DRIFT), ..SyncerConfig::default() };
        let (running, stats) = hostile::start_counted(&host, config, 0);
        let running = running.accounted(&memory);
        metrics.register(stats);
        metrics.register(Arc::new(memory.clone()));
        let world = running.world().upgrade().expect("runs");
        let stays = tenant(&host, &faults, "team-a", "stays");
        stays.server.put("pods", pod("first", json!({})));
        running.set_members(vec![member(&stays)]);
        tokio::time::sleep(DRIFT * 2).await;
        memory.measured(1, 1 << 30);
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let (tasks_before, series_before) = (tasks(), series(&metrics));
        let mut known = Vec::new();
        for n in 0..COME {
            // Beside the one that stays, in namespaces of their own, and some under the name of one before.
            let (namespace, name) = (format!("team-{}", ["a", "b", "c"][n % 3]), format!("t{}", n % 50));
            let comes = tenant(&host, &faults, &namespace, &name);
            comes.server.put("pods", pod("web", json!({})));
            // Refused, so that there is something to try again and to tell.
            comes.server.put("pods", pod("refused", json!({"hostNetwork": true})));
            running.set_members(vec![member(&stays), member(&comes)]);
            tokio::time::sleep(DRIFT / 4).await;
            assert_eq!(copies(&host, "pods", &comes).len(), 1, "{namespace}/{name} is synced");
            memory.measured(1, 1 << 30);
            assert!(series(&metrics).len() > series_before.len() && tasks() > tasks_before, "it is kept meanwhile");
            known.extend(world.tenants().iter().map(Arc::downgrade));
            if n % 5 == 0 {
                // It goes while its API server does not answer.
                comes.server.link(super::server::Link::Silent);
                host.change("pods", &namespace, &super::text(&copies(&host, "pods", &comes)[0], "name"), |pod| {
                    pod["status"] = json!({"phase": "Running"});
                });
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            running.set_members(vec![member(&stays)]);
            for (plural, object) in host.everything() {
                if object["metadata"]["labels"][keys::CLUSTER] == name.as_str() {
                    let (namespace, name) = (super::text(&object, "namespace"), super::text(&object, "name"));
                    host.delete_gracefully(plural, &namespace, &name, Some(0));
                }
            }
        }
        tokio::time::sleep(DRIFT * 2).await;
        memory.measured(1, 1 << 30);
        assert_eq!((tasks(), series(&metrics)), (tasks_before, series_before));
        let left: Vec<String> = known.iter().filter_map(Weak::upgrade).map(|state| state.id.to_string()).collect();
        assert!(left.iter().all(|id| id == "team-a/stays"), "{left:?} are held by somebody");
        assert_eq!((world.tenants().len(), world.queue.depth()), (1, (0, 0, 0)));
        stays.server.put("pods", pod("last", json!({})));
        tokio::time::sleep(DRIFT).await;
        assert_eq!(copies(&host, "pods", &stays).len(), 2);
        drop(world);
        running.stop().await;
    });
}

/// A replica takes the work over while its process is above the watermark: what it reads of a large tenant is no growth.
#[test]
fn what_a_syncer_reads_at_first_counts_against_nobody() {
    const LARGE: usize = 60;
    run_paused(async {
        let faults = Faults::none();
        let host = Server::new("host", Side::Host, Arc::clone(&faults));
        let [large, growing] = ["large", "growing"].map(|name| tenant(&host, &faults, "team-a", name));
        let noted = |name: &str| {
            let mut pod = pod(name, json!({}));
            pod["metadata"]["annotations"] = json!({"notes": "x".repeat(20_000)});
            pod
        };
        (0..LARGE).for_each(|n| large.server.put("pods", noted(&format!("web-{n}"))));
        let memory = Memory::default();
        let accounts = [&large, &growing].map(|tenant| memory.account(&tenant.view.id, &tenant.view.uid));
        // A third of what is large would be enough to be refused.
        let watermark = (LARGE / 3 * 20_000 * 32) as u64;
        for _ in 0..2 {
            let (running, stats) = hostile::start_counted(&host, SyncerConfig::default(), 0);
            let running = running.accounted(&memory);
            running.set_members(vec![member(&large), member(&growing)]);
            for _ in 0..30 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                memory.measured(watermark + 1, watermark);
                assert!(!accounts[0].is_refused(), "it stands still");
            }
            let kept = stats.snapshot().kept.iter().map(|kept| kept.bytes).max().expect("two");
            assert!(kept as u64 > watermark / 32 * 2, "{kept} bytes are kept");
            running.stop().await;
        }
        let running = hostile::start(&host, SyncerConfig::default(), 0).accounted(&memory);
        running.set_members(vec![member(&large), member(&growing)]);
        tokio::time::sleep(DRIFT).await;
        (0..LARGE).for_each(|n| growing.server.put("pods", noted(&format!("web-{n}"))));
        tokio::time::sleep(DRIFT).await;
        memory.measured(watermark + 1, watermark);
        assert_eq!(accounts.map(|account| account.is_refused()), [false, true]);
        running.stop().await;
    });
}
