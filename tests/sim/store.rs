//! A tenant's API server comes back with another store, with an older one, or without what it had: nothing on the host
//! goes because of it, the neighbour notices nothing, and a person decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use portico::config::{Span, SyncerConfig};
use portico::crd::OnLoss;
use portico::error::Side;
use portico::kubernetes::rights::Access;
use portico::names::keys;
use portico::runtime::clock::Clock;
use portico::syncer::kind::TenantView;
use portico::syncer::kinds::{self, Switches};
use portico::syncer::{Catalog, Member, OwnPlace, Running, Settings, Stats};
use serde_json::{Value, json};

use super::server::{Faults, Server};
use super::{run_paused, text, virtual_cluster};

const DRIFT: Duration = Duration::from_secs(20);
/// Longer than anything that is awaited here takes.
const LONG: Duration = Duration::from_secs(400);
const PODS: usize = 24;

struct World {
    faults: Arc<Faults>,
    host: Server,
    /// `lost` is the one with the misfortune, `near` its neighbour in the same host namespace.
    lost: (TenantView, Server),
    near: (TenantView, Server),
    on_loss: OnLoss,
    running: Option<Running>,
}

impl World {
    async fn new(on_loss: OnLoss) -> Self {
        let faults = Faults::new(7);
        faults.stop();
        let host = Server::new("host", Side::Host, Arc::clone(&faults));
        let tenant = |name: &str, ip: &str| {
            let uid = virtual_cluster(&host, "team-a", name);
            let view = super::kinds::view("team-a", name, &uid, ip.parse().unwrap());
            (view, Server::new(name, Side::Backend, Arc::clone(&faults)))
        };
        let (lost, near) = (tenant("lost", "10.96.0.10"), tenant("near", "10.96.0.11"));
        let mut world = Self { faults, host, lost, near, on_loss, running: None };
        for server in [&world.lost.1, &world.near.1] {
            fill(server);
        }
        world.start();
        tokio::time::sleep(LONG).await;
        assert_eq!(world.copies("lost", "pods").len(), PODS);
        assert_eq!(world.copies("near", "pods").len(), PODS);
        world
    }

    fn start(&mut self) {
        // Dropped first: one engine at a time, as under the lock.
        self.running = None;
        let disabled =
            ["Node", "StorageClass", "PriorityClass", "RuntimeClass", "IngressClass", "Event", "PersistentVolume"];
        let catalog = Catalog::new(kinds::all(&Switches { disabled: disabled.map(str::to_owned).into() }));
        let config = SyncerConfig { drift_interval: Span(DRIFT), ..SyncerConfig::default() };
        let running = Running::start(Settings {
            config,
            stats: Arc::new(Stats::new(&catalog)),
            catalog,
            host: Arc::new(self.host.clone()),
            clock: Clock::seeded("2026-01-01T00:00:00Z".parse().unwrap(), 7),
            access: Access::granted(),
            own_place: OwnPlace::default(),
            traces: portico::runtime::traces::Traces::off(),
        });
        running.set_members(self.members(&self.lost.1, ""));
        self.running = Some(running);
    }

    /// Both tenants, the first with this API server.
    fn members(&self, server: &Server, fingerprint: &str) -> Vec<Member> {
        let members = [(&self.lost.0, server), (&self.near.0, &self.near.1)].map(|(view, server)| Member {
            view: view.clone(),
            api: Arc::new(server.clone()),
            fingerprint: fingerprint.to_owned(),
            adopts: false,
            on_loss: self.on_loss,
            limits: portico::crd::Limits::default(),
            metrics_at_gateway: false,
        });
        members.into()
    }

    /// Name and uid of a tenant's copies.
    fn copies(&self, cluster: &str, plural: &'static str) -> BTreeMap<String, String> {
        let objects = self.host.objects(plural).into_iter();
        let own = objects.filter(|o| o["metadata"]["labels"][keys::CLUSTER] == cluster);
        own.map(|o| (text(&o, "name"), text(&o, "uid"))).collect()
    }

    fn all(&self, cluster: &str) -> Vec<BTreeMap<String, String>> {
        ["pods", "configmaps", "services", "persistentvolumeclaims"].map(|plural| self.copies(cluster, plural)).into()
    }

    fn hold(&self) -> Value {
        self.host.read("virtualclusters", "team-a", "lost").unwrap()["status"]["hold"].clone()
    }

    fn decide(&self, what: &str) {
        let found = self.hold()["found"].as_str().unwrap().to_owned();
        self.host.change("virtualclusters", "team-a", "lost", |cluster| {
            cluster["metadata"]["annotations"] = json!({keys::RECOVER: format!("{what}:{found}")});
        });
    }

    /// The neighbour's next pod reaches the host although the other is in trouble.
    async fn neighbour_goes_on(&self, name: &str) {
        self.near.1.put("pods", pod(name));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(self.copies("near", "pods").keys().any(|copy| copy.starts_with(&format!("{name}-x-"))), "{name}");
    }
}

fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "settings"}}]}],
        },
    })
}

/// As a user has filled it: pods with their configuration, a Service, a claim.
fn fill(server: &Server) {
    server.put("namespaces", json!({"metadata": {"name": "ns"}}));
    server.put("configmaps", json!({"metadata": {"name": "settings", "namespace": "ns"}, "data": {"k": "v"}}));
    for n in 0..PODS {
        server.put("pods", pod(&format!("web-{n}")));
    }
    let ports = json!([{"port": 80, "protocol": "TCP"}]);
    let spec = json!({"type": "ClusterIP", "clusterIP": "None", "selector": {"app": "web"}, "ports": ports});
    server.put("services", json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec}));
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    server.put("persistentvolumeclaims", json!({"metadata": {"name": "data", "namespace": "ns"}, "spec": spec}));
}

#[test]
fn a_lost_store_changes_nothing_on_the_host() {
    run_paused(async {
        let mut world = World::new(OnLoss::Hold).await;
        let (before, backup) = (world.all("lost"), world.lost.1.backup());
        world.lost.1.reset();
        tokio::time::sleep(LONG).await;
        assert_eq!(world.all("lost"), before, "something went because another store answers");
        let hold = world.hold();
        assert_eq!(hold["reason"], "StoreReplaced", "{hold}");
        let message = hold["message"].as_str().unwrap();
        for part in ["24 pods", "1 persistentvolumeclaims", "portico recover lost -n team-a --adopt", "--discard"] {
            assert!(message.contains(part), "{part:?} in {message}");
        }
        world.neighbour_goes_on("one").await;

        // Whoever takes over knows no more than the record.
        world.start();
        tokio::time::sleep(LONG).await;
        assert_eq!(world.all("lost"), before, "a restart believed the other store");
        // A decision about another store than this one is none.
        world.host.change("virtualclusters", "team-a", "lost", |cluster| {
            cluster["metadata"]["annotations"] = json!({keys::RECOVER: "discard:some-other"});
        });
        tokio::time::sleep(LONG).await;
        assert_eq!(world.all("lost"), before, "an old decision counted");
        world.neighbour_goes_on("two").await;

        // The known store comes back: all goes on, with the same objects.
        world.lost.1.restore(&backup);
        world.lost.1.put("pods", pod("after"));
        tokio::time::sleep(LONG).await;
        assert_eq!(world.hold(), Value::Null);
        let now = world.all("lost");
        assert!(before[0].iter().all(|(name, uid)| now[0].get(name) == Some(uid)), "the same pods");
        assert_eq!(now[0].len(), PODS + 1, "and the new one");
    });
}

/// What is looked at while the store is in doubt is laid aside, so all of it is looked at again, however short the doubt was:
/// another task may have settled it before whoever waits for that came to run.
#[test]
fn a_doubt_that_is_over_at_once_leaves_nothing_undone() {
    run_paused(async {
        let world = World::new(OnLoss::Hold).await;
        let known = world.running.as_ref().unwrap().world().upgrade().expect("it runs");
        let tenant = known.tenants().into_iter().find(|tenant| tenant.id.name().as_str() == "lost").expect("served");
        let looked_at = || known.stats.snapshot().kinds.iter().map(|kind| kind.done).sum::<u64>();
        let before = looked_at();
        world.faults.answer_at_once();
        tenant.store.doubt();
        let settled = tenant.store.check(&world.lost.1, &known.clock).now_or_never();
        settled.expect("at once").expect("the known store");
        // Shorter than what the drift takes for its next object.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let looked_at = looked_at() - before;
        assert!(looked_at >= PODS as u64, "{looked_at} objects were looked at again");
    });
}

#[test]
fn a_kubeconfig_that_points_elsewhere_is_no_loss_either() {
    run_paused(async {
        let world = World::new(OnLoss::Hold).await;
        let before = world.all("lost");
        // Somebody else's cluster, with objects of the same names and other content.
        let other = Server::new("other", Side::Backend, Arc::clone(&world.faults));
        fill(&other);
        other.change("configmaps", "ns", "settings", |map| map["data"] = json!({"k": "theirs"}));
        let settings = |world: &World| {
            let maps = world.host.objects("configmaps");
            let own = maps.into_iter().find(|m| text(m, "name").starts_with("settings-x-ns-x-lost"));
            own.expect("a copy")["data"].clone()
        };
        world.running.as_ref().unwrap().set_members(world.members(&other, "swapped"));
        tokio::time::sleep(LONG).await;
        assert_eq!((world.all("lost"), settings(&world)), (before.clone(), json!({"k": "v"})));
        assert_eq!(world.hold()["reason"], "StoreReplaced");
        world.running.as_ref().unwrap().set_members(world.members(&world.lost.1, "back"));
        world.lost.1.put("pods", pod("after"));
        tokio::time::sleep(LONG).await;
        assert_eq!(world.hold(), Value::Null);
        assert_eq!(world.copies("lost", "pods").len(), PODS + 1);
    });
}

#[test]
fn a_lost_store_is_let_go_by_decision_and_claims_are_set_aside() {
    run_paused(async {
        let world = World::new(OnLoss::Hold).await;
        world.lost.1.reset();
        tokio::time::sleep(LONG).await;
        world.decide("discard");
        tokio::time::sleep(LONG).await;
        assert!(world.all("lost").iter().all(BTreeMap::is_empty), "{:?}", world.all("lost"));
        assert_eq!(world.hold(), Value::Null);
        let claims = world.host.objects("persistentvolumeclaims");
        let claim =
            claims.iter().find(|c| c["metadata"]["labels"][keys::ABANDONED] == "lost").expect("the claim stays");
        assert!(
            claim["metadata"]["annotations"][keys::DELETE_AFTER].as_str().is_some_and(|t| t.starts_with("2026-01-08"))
        );
        // What is made in the new store is synced.
        fill(&world.lost.1);
        tokio::time::sleep(LONG).await;
        assert_eq!(world.copies("lost", "pods").len(), PODS);
        world.neighbour_goes_on("one").await;
        // The calendar stands still here: that its time is over is said by hand.
        world.host.change("persistentvolumeclaims", "team-a", claim["metadata"]["name"].as_str().unwrap(), |claim| {
            claim["metadata"]["annotations"][keys::DELETE_AFTER] = json!("2025-12-31T00:00:00Z");
        });
        tokio::time::sleep(Duration::from_secs(4500)).await;
        let claims = world.host.objects("persistentvolumeclaims");
        assert!(claims.iter().all(|c| c["metadata"]["labels"][keys::ABANDONED].is_null()), "its time is over");
    });
}

#[test]
fn a_cluster_that_is_meant_to_be_thrown_away_asks_nobody() {
    run_paused(async {
        let world = World::new(OnLoss::Discard).await;
        world.lost.1.reset();
        tokio::time::sleep(LONG).await;
        assert!(world.all("lost").iter().all(BTreeMap::is_empty), "{:?}", world.all("lost"));
        let aside = world.host.objects("persistentvolumeclaims");
        assert!(aside.iter().any(|c| c["metadata"]["labels"][keys::ABANDONED] == "lost"), "not even then at once");
    });
}

#[test]
fn what_stands_on_the_host_is_written_back() {
    run_paused(async {
        let world = World::new(OnLoss::Hold).await;
        let before = world.all("lost");
        world.lost.1.reset();
        tokio::time::sleep(LONG).await;
        // A host that does not let itself be read: whoever waits for the decision is told, and it is tried again.
        world.faults.refuse_reads(true);
        world.decide("adopt");
        tokio::time::sleep(Duration::from_secs(30)).await;
        let hold = world.hold();
        let said = hold["message"].as_str().unwrap_or_default();
        assert!(said.starts_with(portico::crd::HoldStatus::FAILED), "{hold}");
        world.faults.refuse_reads(false);
        tokio::time::sleep(LONG).await;
        assert_eq!(world.hold(), Value::Null);
        assert_eq!(world.all("lost"), before, "the very same objects");
        assert_eq!(world.lost.1.objects("pods").len(), PODS);
        assert!(world.lost.1.read("persistentvolumeclaims", "ns", "data").is_some());
        let report = world.host.read("configmaps", "team-a", "lost-recovery").expect("a report");
        assert!(report["data"]["report"].as_str().is_some_and(|text| text.contains("Pod ns/web-0")), "{report}");
        // From here on they are its copies like any other.
        world.lost.1.delete_gracefully("pods", "ns", "web-0", None);
        tokio::time::sleep(LONG).await;
        assert_eq!(world.copies("lost", "pods").len(), PODS - 1);
    });
}

#[test]
fn many_objects_that_vanish_without_a_word_wait_for_a_person() {
    run_paused(async {
        let mut world = World::new(OnLoss::Hold).await;
        let before = world.copies("lost", "pods");
        let backup = world.lost.1.backup();
        world.lost.1.lose("pods", |pod| text(pod, "name") != "web-0");
        tokio::time::sleep(LONG).await;
        assert_eq!(world.copies("lost", "pods"), before, "pods went although nobody deleted them");
        let hold = world.hold();
        assert_eq!(hold["reason"], "MassDeletion", "{hold}");
        assert!(hold["message"].as_str().is_some_and(|m| m.contains("23 of 24 pods")), "{hold}");
        world.lost.1.restore(&backup);
        tokio::time::sleep(LONG).await;
        assert_eq!(world.hold(), Value::Null, "they came back");
        assert_eq!(world.copies("lost", "pods"), before);

        world.lost.1.lose("pods", |pod| text(pod, "name") != "web-0");
        tokio::time::sleep(LONG).await;
        // Everything else of the tenant goes on, what was deleted goes.
        world.lost.1.put("pods", pod("new"));
        world.lost.1.delete_gracefully("pods", "ns", "web-0", None);
        tokio::time::sleep(LONG).await;
        assert_eq!(world.copies("lost", "pods").len(), PODS, "one came, one went");
        world.start();
        tokio::time::sleep(LONG).await;
        assert_eq!(world.copies("lost", "pods").len(), PODS, "also for whoever takes over");
        world.neighbour_goes_on("one").await;
        world.lost.1.delete_gracefully("pods", "ns", "new", None);
        tokio::time::sleep(LONG).await;
        world.decide("discard");
        tokio::time::sleep(LONG).await;
        assert!(world.copies("lost", "pods").is_empty());
        assert_eq!(world.hold(), Value::Null);
    });
}

#[test]
fn a_store_of_an_older_backup_ends_nothing_by_itself() {
    run_paused(async {
        let world = World::new(OnLoss::Hold).await;
        let backup = world.lost.1.backup();
        for n in 0..3 {
            world.lost.1.put("pods", pod(&format!("late-{n}")));
        }
        tokio::time::sleep(LONG).await;
        let before = world.copies("lost", "pods");
        assert_eq!(before.len(), PODS + 3);
        world.lost.1.restore(&backup);
        tokio::time::sleep(LONG).await;
        assert_eq!(world.copies("lost", "pods"), before, "three are few, but nobody deleted them");
        assert_eq!(world.hold()["reason"], "MassDeletion");
    });
}

#[test]
fn what_users_delete_goes_however_much_it_is() {
    run_paused(async {
        let world = World::new(OnLoss::Hold).await;
        for n in 0..PODS {
            world.lost.1.delete_gracefully("pods", "ns", &format!("web-{n}"), None);
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(world.copies("lost", "pods").is_empty());
        assert_eq!(world.hold(), Value::Null);
    });
}

#[test]
fn an_empty_list_of_the_host_is_no_end_of_what_runs() {
    run_paused(async {
        let mut world = World::new(OnLoss::Hold).await;
        let status = json!({"phase": "Running", "startTime": "2026-01-01T00:00:00Z"});
        for name in world.copies("lost", "pods").keys() {
            world.host.change("pods", "team-a", name, |pod| pod["status"] = status.clone());
        }
        tokio::time::sleep(LONG).await;
        let running = |world: &World| {
            let pods = world.lost.1.objects("pods");
            pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count()
        };
        assert_eq!(running(&world), PODS);
        let before = world.all("lost");
        world.faults.empty_lists(true);
        world.start();
        tokio::time::sleep(LONG).await;
        assert_eq!(running(&world), PODS, "a pod that runs was reported as failed");
        world.faults.empty_lists(false);
        world.start();
        tokio::time::sleep(LONG).await;
        assert_eq!((running(&world), world.all("lost")), (PODS, before));
    });
}
