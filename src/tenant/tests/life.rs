//! What the registry keeps and forgets over broken watches, restarts of its task and slow Secrets.

use super::*;
use crate::names::reserved::Reserved;
use crate::runtime::drain::{self, DrainTrigger};
use crate::runtime::task::{self, Task};
use crate::tenant::source::{self, Parts};
use crate::tenant::testing::FakeHost;

/// A PKI that any tenant can be built from.
pub(super) fn secret() -> Value {
    use base64::Engine as _;
    let issued = rcgen::generate_simple_self_signed(vec!["tenant.test".to_owned()]).expect("certificate");
    let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
    let (cert, key) = (encode(issued.cert.pem()), encode(issued.signing_key.serialize_pem()));
    json!({"data": {"server-ca.crt": cert, "client-ca.crt": cert, "gateway.crt": cert, "gateway.key": key,
        "front-proxy.crt": cert, "front-proxy.key": key}})
}

/// A VirtualCluster that the operator has made ready.
pub(super) fn ready(id: &TenantId, uid: &str, created: i64, hosts: &[&str], port: u16) -> Value {
    let (namespace, name) = (id.namespace().as_str(), id.name().as_str());
    let created = jiff::Timestamp::from_second(created).expect("time").to_string();
    json!({"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster",
        "metadata": {"namespace": namespace, "name": name, "uid": uid, "creationTimestamp": created},
        "spec": {"expose": {"hosts": hosts}},
        "status": {"port": port, "pkiSecret": format!("{name}-pki"), "apiServiceIP": "10.96.0.2", "dnsServiceIP": "10.96.0.3",
            "backend": {"address": "10.96.0.9:443", "serverName": format!("{name}.{namespace}.svc")}}})
}

pub(super) fn id(text: &str) -> TenantId {
    let (namespace, name) = text.split_once('/').expect("namespace/name");
    TenantId::parse(namespace, name).expect("id")
}

/// One replica's registry and the task that fills it.
pub(super) struct Replica {
    pub(super) registry: Arc<Registry>,
    seed: u64,
    listed: Arc<std::sync::atomic::AtomicUsize>,
    running: Option<(Task, DrainTrigger)>,
}

impl Replica {
    pub(super) fn start(origin: &FakeHost, seed: u64) -> Self {
        let mut replica = Self { registry: Arc::default(), seed, listed: Arc::default(), running: None };
        replica.restart(origin);
        replica
    }

    /// The task is dropped wherever it is, and begins anew on the same registry.
    pub(super) fn restart(&mut self, origin: &FakeHost) {
        self.running.take();
        let mut config = crate::config::Config::default();
        config.gateway.public_url = "https://portico.example.com".to_owned();
        let clock = Clock::seeded("2026-01-01T00:00:00Z".parse().expect("time"), self.seed);
        let parts = Parts {
            host: origin.cluster(),
            registry: Arc::clone(&self.registry),
            policies: Arc::default(),
            reserved: Arc::new(Reserved::new(&config)),
            reaches: Arc::new(Reaches::new(&config, "")),
            jwt: Arc::default(),
            clock: clock.clone(),
        };
        let (trigger, drain) = drain::channel();
        let listed = Arc::clone(&self.listed);
        let work = {
            let drain = drain.clone();
            move || {
                let (parts, drain, listed) = (parts.clone(), drain.clone(), Arc::clone(&listed));
                async move {
                    let count = || {
                        listed.fetch_add(1, Ordering::Relaxed);
                    };
                    source::run(&parts, drain, count).await
                }
            }
        };
        let supervised = task::supervise("registry under test", clock, drain, Duration::from_millis(100), work);
        self.running = Some((task::spawn("registry under test", supervised), trigger));
    }

    pub(super) fn tenant(&self, of: &str) -> Option<Arc<Tenant>> {
        self.registry.load().by_id(&id(of)).cloned()
    }

    fn lists(&self) -> usize {
        self.listed.load(Ordering::Relaxed)
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// The recipe that was seen live: the connections to the host are cut, a cluster is deleted, the process goes on.
#[tokio::test(start_paused = true)]
async fn what_is_deleted_while_the_watch_is_broken_leaves_with_the_next_list() {
    for restarted in [false, true] {
        let origin = FakeHost::new(1, secret());
        origin.apply(ready(&id("a/kept"), "1", 1, &["app.example.com"], 20_000));
        origin.apply(ready(&id("a/gone"), "2", 0, &["app.example.com"], 20_002));
        let mut replica = Replica::start(&origin, 1);
        pass(5).await;
        let before = replica.tenant("a/kept").expect("served").generation;
        assert_eq!(holder(&replica.registry, "app.example.com").as_deref(), Some("gone"));
        origin.server.down(true);
        origin.delete(&id("a/gone"));
        origin.apply(ready(&id("a/new"), "3", 2, &[], 20_004));
        pass(30).await;
        if restarted {
            replica.restart(&origin);
        }
        pass(30).await;
        assert!(replica.tenant("a/gone").is_some(), "nobody can know yet");
        origin.server.down(false);
        pass(30).await;
        assert!(replica.tenant("a/gone").is_none());
        assert!(replica.registry.load().by_port(20_002).is_none());
        assert_eq!(holder(&replica.registry, "app.example.com").as_deref(), Some("kept"));
        assert_eq!(replica.tenant("a/kept").expect("served").generation, before, "nothing of it changed");
        assert!(replica.tenant("a/new").expect("served").generation > before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_successor_of_the_same_name_has_nothing_of_what_was_before() {
    let origin = FakeHost::new(1, secret());
    origin.apply(ready(&id("a/a"), "1", 1, &[], 20_000));
    let replica = Replica::start(&origin, 1);
    pass(5).await;
    let before = replica.tenant("a/a").expect("served");
    origin.server.down(true);
    origin.delete(&id("a/a"));
    let mut successor = ready(&id("a/a"), "2", 2, &[], 20_000);
    let status = successor["status"].take();
    origin.apply(successor);
    origin.server.down(false);
    pass(30).await;
    assert!(replica.tenant("a/a").is_none(), "it is not ready");
    origin.edit(&id("a/a"), |object| object["status"] = status);
    pass(30).await;
    let after = replica.tenant("a/a").expect("served");
    assert!(after.generation > before.generation && after.uid != before.uid);
    assert!(!Arc::ptr_eq(&after.backend.pool, &before.backend.pool));
}

#[tokio::test(start_paused = true)]
async fn secrets_that_hang_delay_nobody_else() {
    let origin = FakeHost::new(1, secret());
    origin.server.hang("bad");
    // More than may be built at once.
    for n in 0..40_u16 {
        origin.apply(ready(&id(&format!("bad/c{n}")), &n.to_string(), 1, &[], 20_000 + 2 * n));
    }
    let replica = Replica::start(&origin, 1);
    pass(1).await;
    assert_eq!(replica.lists(), 0, "not ready before every tenant was tried or half a minute passed");
    origin.apply(ready(&id("good/one"), "x", 1, &[], 21_000));
    pass(60).await;
    assert!(replica.tenant("good/one").is_some());
    assert_eq!(replica.lists(), 1);
    origin.apply(ready(&id("good/two"), "y", 1, &[], 21_002));
    pass(30).await;
    assert!(replica.tenant("good/two").is_some());
    origin.delete(&id("good/one"));
    pass(1).await;
    assert!(replica.tenant("good/one").is_none(), "events are handled while builds hang");
    origin.server.heal("bad");
    pass(60).await;
    assert_eq!(replica.registry.load().tenants().count(), 41);
}

#[tokio::test(start_paused = true)]
async fn what_was_built_from_an_old_state_is_dropped() {
    let origin = FakeHost::new(1, secret());
    origin.server.hang("a");
    origin.apply(ready(&id("a/a"), "1", 1, &[], 20_000));
    let replica = Replica::start(&origin, 1);
    pass(1).await;
    origin.edit(&id("a/a"), |object| object["status"]["port"] = json!(20_010));
    origin.server.heal("a");
    pass(30).await;
    assert_eq!(replica.tenant("a/a").expect("served").port, 20_010);
    assert!(replica.registry.load().by_port(20_000).is_none());
    origin.server.hang("a");
    origin.edit(&id("a/a"), |object| object["status"]["port"] = json!(20_020));
    pass(1).await;
    origin.delete(&id("a/a"));
    origin.server.heal("a");
    pass(30).await;
    assert!(replica.tenant("a/a").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_change_beside_the_backend_keeps_its_connections() {
    let origin = FakeHost::new(1, secret());
    origin.apply(ready(&id("a/a"), "1", 1, &[], 20_000));
    let mut replica = Replica::start(&origin, 1);
    pass(5).await;
    let before = replica.tenant("a/a").expect("served");
    replica.restart(&origin);
    origin.edit(&id("a/a"), |object| {
        object["spec"]["expose"]["hosts"] = json!(["app.example.com"]);
        object["spec"]["auth"] = json!({"anonymous": true});
    });
    pass(5).await;
    let after = replica.tenant("a/a").expect("served");
    assert!(after.generation > before.generation && after.anonymous);
    assert!(Arc::ptr_eq(&after.backend.pool, &before.backend.pool) && Arc::ptr_eq(after.api.pool(), before.api.pool()));
    assert_eq!(holder(&replica.registry, "app.example.com").as_deref(), Some("a"));
    origin.edit(&id("a/a"), |object| object["status"]["backend"]["address"] = json!("10.96.0.10:443"));
    pass(5).await;
    let moved = replica.tenant("a/a").expect("served");
    assert!(!Arc::ptr_eq(&moved.backend.pool, &before.backend.pool));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_watches_at_once_is_not_asked_without_end() {
    let origin = FakeHost::new(1, secret());
    origin.apply(ready(&id("a/a"), "1", 1, &[], 20_000));
    origin.server.short_watches(true);
    let replica = Replica::start(&origin, 1);
    pass(300).await;
    assert!(origin.server.counts().lists < 40, "{} lists in five minutes", origin.server.counts().lists);
    assert!(origin.server.counts().gets < 12, "{} reads of one Secret", origin.server.counts().gets);
    assert!(replica.tenant("a/a").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_changes_without_end_costs_a_bounded_number_of_reads() {
    let origin = FakeHost::new(1, secret());
    origin.apply(ready(&id("a/a"), "1", 1, &[], 20_000));
    let replica = Replica::start(&origin, 1);
    for n in 0..1000 {
        origin.edit(&id("a/a"), |object| object["metadata"]["annotations"] = json!({"n": n.to_string()}));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(replica.tenant("a/a").is_some());
    assert!(origin.server.counts().gets <= 50, "{} reads in ten seconds", origin.server.counts().gets);
}
