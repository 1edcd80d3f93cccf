//! Rounds against a host in memory: what is made, what survives a second round, and what a hostile or broken
//! neighbour can do (nothing).

mod credentials;
mod distros;
mod external;
mod fake;
mod following;
mod hosts;
mod kubeconfigs;
mod networks;
mod orphans;
mod recovery;
mod storage;
mod store_fill;
mod waves;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::crd::{Distro, pki};
use crate::kubernetes::resources::{CLAIMS, PODS, SECRETS, SERVICES, STATEFUL_SETS, VIRTUAL_CLUSTERS};
use crate::operator::halt::condition;
use fake::{Answers, FakeHost};

const SYSTEM: &str = "portico-system";
const PUBLIC: &str = "https://portico.example.com";

struct World {
    host: Arc<FakeHost>,
    context: Context,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let host = Arc::new(FakeHost::default());
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        Self { context: Self::context(&host, now), host, now }
    }

    fn context(host: &Arc<FakeHost>, now: Timestamp) -> Context {
        let mut config = Config::default();
        config.host.system_namespace = SYSTEM.to_owned();
        config.gateway.public_url = PUBLIC.to_owned();
        Context {
            policies: config.policies(),
            reserved: Arc::new(Reserved::new(&config)),
            owners: Mutex::default(),
            reaches: Arc::new(Reaches::new(&config, "10.96.0.1")),
            config: Arc::new(config),
            host: host.host(),
            backends: Arc::new(Answers::default()),
            clock: Clock::seeded(now, 1),
            ports: Ports::default(),
            waves: Waves::default(),
            service_cidr: Mutex::default(),
            enforcement: enforcement::Verdicts::default(),
            exposure: exposure::Exposure::default(),
            exposed: exposed::Exposed::default(),
            shown: Arc::default(),
        }
    }

    /// Makes a VirtualCluster; yields nothing, as a user would.
    fn add(&self, namespace: &str, name: &str, spec: impl Into<Value>) {
        let spec: Value = spec.into();
        self.host.put(
            &VIRTUAL_CLUSTERS,
            namespace,
            json!({"apiVersion": "portico.dev/v1alpha1", "kind": "VirtualCluster",
                   "metadata": {"name": name, "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec}),
        );
    }

    fn cluster(&self, namespace: &str, name: &str) -> Cluster {
        let object = self.host.find(&VIRTUAL_CLUSTERS, namespace, name).expect("there");
        let age = Age::of(&object).expect("age");
        let cluster = Cluster::new(&serde_json::from_value(object).expect("reads")).expect("valid");
        self.context.ports.observe(&age, cluster.status.port);
        self.context.waves.observe(&cluster, &self.context.config.operator.rollout, self.context.clock.now());
        let mut claims = Claims::default();
        claims.replace(&self.host.all(&VIRTUAL_CLUSTERS));
        *self.context.owners.lock() = Arc::new(claims.owners(&self.context.reserved));
        cluster
    }

    /// One round on what the host holds now; yields the status afterwards.
    async fn round(&self, namespace: &str, name: &str) -> (Duration, Value) {
        let cluster = self.cluster(namespace, name);
        let outcome = reconcile::reconcile(&self.context, &cluster, 0).await;
        let object = self.host.find(&VIRTUAL_CLUSTERS, namespace, name).expect("there");
        (outcome.pause, object["status"].clone())
    }

    fn pod_is_ready(&self, namespace: &str, name: &str) {
        self.host.edit(&STATEFUL_SETS, namespace, name, |set| {
            set["status"] = json!({"observedGeneration": set["metadata"]["generation"], "readyReplicas": 1});
        });
    }

    fn condition(status: &Value, kind: &str) -> (String, String) {
        let found =
            status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind).expect("condition");
        (
            found["status"].as_str().unwrap_or_default().to_owned(),
            found["reason"].as_str().unwrap_or_default().to_owned(),
        )
    }
}

#[tokio::test]
async fn a_cluster_becomes_ready_and_a_further_round_writes_nothing() {
    let world = World::new();
    world.add("team-a", "dev", json!({}));
    let (pause, status) = world.round("team-a", "dev").await;
    assert!(pause <= Duration::from_secs(1), "somebody waits: {pause:?}");
    assert_eq!(status["phase"], "Provisioning");
    assert_eq!(World::condition(&status, condition::CERTIFICATES).0, "True");
    assert_eq!(World::condition(&status, condition::CONTROL_PLANE).0, "False");

    world.pod_is_ready("team-a", "dev");
    let (pause, status) = world.round("team-a", "dev").await;
    assert!(pause >= Duration::from_secs(30));
    assert_eq!(status["phase"], "Ready", "{status}");
    assert_eq!(status["version"], "v1.34.4");
    assert_eq!(status["port"], 20_000);
    assert_eq!(status["serviceCIDR"], "10.96.0.0/16");
    assert_eq!(status["backend"]["serverName"], "dev.team-a.svc");
    assert_eq!(status["kubeconfigSecret"], "vc-dev");

    let id = TenantId::parse("team-a", "dev").expect("id");
    let api = world.host.find(&SERVICES, SYSTEM, &id.system_service("api")).expect("service");
    assert_eq!(api["spec"]["clusterIP"], status["apiServiceIP"]);
    assert_eq!(api["spec"]["ports"][0]["targetPort"], 20_000);
    let dns = world.host.find(&SERVICES, SYSTEM, &id.system_service("dns")).expect("service");
    assert_eq!(dns["spec"]["ports"][1]["targetPort"], 20_001);

    let before = world.host.writes();
    world.round("team-a", "dev").await;
    assert_eq!(world.host.writes(), before, "a quiet cluster causes no writes");
}

#[tokio::test]
async fn a_restarted_operator_keeps_ports_and_certificates() {
    let mut world = World::new();
    world.add("team-a", "dev", json!({}));
    world.round("team-a", "dev").await;
    let secret = world.host.find(&SECRETS, "team-a", "dev-pki").expect("secret");
    world.context = World::context(&world.host, world.now);
    world.add("team-b", "dev", json!({}));
    world.cluster("team-a", "dev");
    let (_, other) = world.round("team-b", "dev").await;
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(status["port"], 20_000);
    assert_eq!(other["port"], 20_002);
    assert_eq!(world.host.find(&SECRETS, "team-a", "dev-pki").expect("secret"), secret);
}

#[tokio::test]
async fn without_rights_nothing_is_made_and_the_message_says_what_to_do() {
    let world = World::new();
    world.host.forbid("team-b");
    world.add("team-b", "dev", json!({}));
    world.add("team-a", "dev", json!({}));
    let (_, status) = world.round("team-b", "dev").await;
    assert_eq!(World::condition(&status, condition::SERVICES), ("False".to_owned(), "NoRights".to_owned()));
    assert!(status["message"].as_str().is_some_and(|m| m.contains("portico create")), "{status}");
    assert_eq!(status["phase"], "Pending", "the binding may come any moment");
    assert!(world.host.find(&SECRETS, "team-b", "dev-pki").is_none());
    let (_, other) = world.round("team-a", "dev").await;
    assert_eq!(other["phase"], "Provisioning", "a neighbour is not held up");
}

#[tokio::test]
async fn objects_of_others_are_not_taken_over() {
    let world = World::new();
    let stranger =
        json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.9.9", "selector": {"app": "shop"}}});
    world.host.put(&SERVICES, "team-a", stranger);
    world.add("team-a", "web", json!({}));
    let (_, status) = world.round("team-a", "web").await;
    assert_eq!(status["phase"], "Failed");
    assert_eq!(World::condition(&status, condition::READY).1, "NameTaken");
    let service = world.host.find(&SERVICES, "team-a", "web").expect("there");
    assert_eq!(service["spec"]["selector"]["app"], "shop");
    assert!(world.host.find(&STATEFUL_SETS, "team-a", "web").is_none());
}

#[tokio::test]
async fn pod_and_volume_of_a_deleted_namesake_are_waited_out() {
    let world = World::new();
    let owner = json!([{"kind": "StatefulSet", "name": "dev", "uid": "earlier"}]);
    let labels = json!({"portico.dev/control-plane": "dev"});
    let left_behind = |name: &str| json!({"metadata": {"name": name, "labels": labels, "ownerReferences": owner}});
    world.host.put(&PODS, "team-a", left_behind("dev-1"));
    world.host.put(&CLAIMS, "team-a", left_behind("data-dev-0"));
    world.add("team-a", "dev", json!({"storage": {"volumeClaim": {"size": "1Gi"}}}));
    for (left, name) in [(&PODS, "dev-1"), (&CLAIMS, "data-dev-0")] {
        let (pause, status) = world.round("team-a", "dev").await;
        assert!(pause <= Duration::from_secs(1), "somebody waits: {pause:?}");
        assert!(status["message"].as_str().is_some_and(|m| m.contains(name)), "{status}");
        assert!(world.host.find(&SERVICES, "team-a", "dev").is_none(), "it would lead to the old pod");
        world.host.remove(left, "team-a", name);
    }
    world.round("team-a", "dev").await;
    assert!(world.host.find(&STATEFUL_SETS, "team-a", "dev").is_some());
}

#[tokio::test]
async fn a_pod_that_never_got_ready_makes_room_for_the_mended_one() {
    let world = World::new();
    world.add("team-a", "dev", json!({"image": "registry.example.com/wrong:1"}));
    world.round("team-a", "dev").await;
    let labels = json!({"portico.dev/control-plane": "dev", "controller-revision-hash": "one"});
    let owner = json!([{"kind": "StatefulSet", "name": "dev", "uid": "u"}]);
    world.host.put(&PODS, "team-a", json!({"metadata": {"name": "dev-0", "labels": labels, "ownerReferences": owner}}));
    let revision = |update: &str| {
        world.host.edit(&STATEFUL_SETS, "team-a", "dev", |set| {
            set["status"] = json!({"observedGeneration": set["metadata"]["generation"], "readyReplicas": 0,
                "currentRevision": "one", "updateRevision": update});
        });
    };
    revision("one");
    world.round("team-a", "dev").await;
    assert!(world.host.find(&PODS, "team-a", "dev-0").is_some(), "it may still get ready");
    revision("two");
    world.round("team-a", "dev").await;
    assert!(world.host.find(&PODS, "team-a", "dev-0").is_none(), "the StatefulSet would wait for it for ever");
}

#[tokio::test]
async fn a_volume_that_was_put_there_to_be_used_is_used() {
    let world = World::new();
    world.host.put(&CLAIMS, "team-a", json!({"metadata": {"name": "data-dev-0"}}));
    world.add("team-a", "dev", json!({"storage": {"volumeClaim": {"size": "1Gi"}}}));
    world.round("team-a", "dev").await;
    assert!(world.host.find(&STATEFUL_SETS, "team-a", "dev").is_some());
}

#[tokio::test]
async fn a_lost_ca_is_reported_and_not_replaced() {
    let world = World::new();
    world.add("team-a", "dev", json!({}));
    world.round("team-a", "dev").await;
    world.host.edit(&SECRETS, "team-a", "dev-pki", |secret| {
        secret["data"].as_object_mut().expect("data").remove(pki::SERVER_CA_KEY);
    });
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(World::condition(&status, condition::CERTIFICATES), ("False".to_owned(), "Damaged".to_owned()));
}

#[tokio::test]
async fn services_of_the_gone_are_collected_and_those_of_the_living_stay() {
    let world = World::new();
    world.add("team-a", "dev", json!({}));
    world.add("team-b", "dev", json!({}));
    world.round("team-a", "dev").await;
    world.round("team-b", "dev").await;
    // Somebody else's Service that only looks like one of ours.
    let labels = json!({"portico.dev/host-namespace": "team-a", "portico.dev/cluster": "dev"});
    world.host.put(&SERVICES, SYSTEM, json!({"metadata": {"name": "look-alike", "labels": labels}, "spec": {}}));
    world.host.remove(&VIRTUAL_CLUSTERS, "team-a", "dev");
    // The operator's own list is stale on purpose: it does not know team-b.
    let mut gone = BTreeSet::new();
    let deleted = system_services::collect(&world.context, &HashMap::new(), &mut gone).await.expect("collected");
    assert_eq!((deleted, gone.len()), (2, 1));
    let (one, two) = (TenantId::parse("team-a", "dev").expect("id"), TenantId::parse("team-b", "dev").expect("id"));
    assert!(world.host.find(&SERVICES, SYSTEM, &one.system_service("api")).is_none());
    assert!(world.host.find(&SERVICES, SYSTEM, &two.system_service("api")).is_some());
    assert!(world.host.find(&SERVICES, SYSTEM, "look-alike").is_some());
}

#[tokio::test]
async fn an_external_backend_needs_its_kubeconfig() {
    let world = World::new();
    let spec = json!({"distro": "external", "backend": {"kubeconfigSecret": {"name": "theirs"}}});
    world.add("team-a", "ext", spec);
    assert_eq!(world.cluster("team-a", "ext").spec.distro, Distro::External);
    let (_, status) = world.round("team-a", "ext").await;
    assert_eq!(World::condition(&status, condition::CONTROL_PLANE), ("False".to_owned(), "NoKubeconfig".to_owned()));
    assert!(world.host.find(&STATEFUL_SETS, "team-a", "ext").is_none());
    assert!(world.host.find(&SECRETS, "team-a", "ext-pki").is_some(), "the gateway serves it with its own certificate");
}

#[tokio::test]
async fn a_users_own_listener_certificate_is_left_alone() {
    let world = World::new();
    let own = json!({"metadata": {"name": listener::SECRET}, "data": {"tls.crt": "eA==", "tls.key": "eA=="}});
    world.host.put(&SECRETS, SYSTEM, own);
    let before = world.host.find(&SECRETS, SYSTEM, listener::SECRET);
    listener::ensure(&world.context).await.expect("fine");
    assert_eq!(world.host.find(&SECRETS, SYSTEM, listener::SECRET), before);
}

#[tokio::test]
async fn the_old_way_to_the_service_cidr_still_works() {
    let world = World::new();
    world.host.without_service_cidrs();
    world.add("team-a", "dev", json!({}));
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(status["serviceCIDR"], "10.43.0.0/16");
}

#[test]
fn the_annotated_configuration_is_the_default_one() {
    let text = include_str!("../../config/gateway.yaml");
    assert_eq!(Config::parse(text).expect("valid"), Config::default());
}

/// Here and not beside the types, since those are pure and this reads files.
#[test]
fn crd_files_are_the_generated_ones() {
    for folder in ["config/crd", "deploy/helm/portico/files"] {
        let of = |kind: &str| format!("{folder}/{kind}.yaml");
        crate::config::docs::is_committed(&of("virtualcluster"), &crate::crd::yaml());
        crate::config::docs::is_committed(&of("credentialrequest"), &crate::crd::credentials::yaml());
    }
}
