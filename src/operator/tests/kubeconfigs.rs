//! Secrets of `spec.kubeconfigs`: made once, renewed in time, removed with their entry, and never somebody else's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::kubernetes::resources::{
    CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, NAMESPACES, ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS,
};
use crate::kubernetes::testing::Server;
use crate::operator::kubeconfigs;
use crate::tls::{ClientTrust, certificates_from_pem};

/// In seconds.
const DAY: i64 = 24 * 3600;

struct Made {
    world: World,
    answers: Arc<Answers>,
}

impl Made {
    /// With ready clusters `dev` in these namespaces.
    async fn with_clusters(namespaces: &[&str]) -> Self {
        let (mut world, answers) = (World::new(), Arc::new(Answers::default()));
        world.context.backends = Arc::clone(&answers) as Arc<dyn Backends>;
        let made = Self { world, answers };
        for namespace in namespaces {
            made.world.add(namespace, "dev", json!({}));
            made.round(namespace).await;
            made.world.pod_is_ready(namespace, "dev");
            let status = made.round(namespace).await;
            assert_eq!(status["phase"], "Ready", "{status}");
            made.store(namespace, json!({"uid": "store", "since": "2026-01-01T00:00:00Z"}));
        }
        made
    }

    async fn round(&self, namespace: &str) -> Value {
        self.world.round(namespace, "dev").await.1
    }

    /// Time passes.
    fn later(&mut self, seconds: i64) {
        self.world.now = Timestamp::from_second(self.world.now.as_second() + seconds).expect("time");
        self.world.context.clock = Clock::seeded(self.world.now, 1);
    }

    /// As the syncer says it.
    fn store(&self, namespace: &str, store: Value) {
        self.world.host.edit(&VIRTUAL_CLUSTERS, namespace, "dev", |object| object["status"]["store"] = store);
    }

    /// What a binding is called inside.
    fn binding(&self, namespace: &str, secret: &str) -> String {
        let uid = self.world.cluster(namespace, "dev").uid;
        format!("portico:kubeconfig:{secret}:{}", HEXLOWER.encode(&Sha256::digest(uid)[..8]))
    }

    fn wants(&self, namespace: &str, kubeconfigs: Value) {
        self.world.host.edit(&VIRTUAL_CLUSTERS, namespace, "dev", |object| {
            object["spec"]["kubeconfigs"] = kubeconfigs;
        });
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<HashMap<String, String>> {
        let secret = self.world.host.find(&SECRETS, namespace, name)?;
        let data = secret["data"].as_object()?.clone();
        let text = |value: &Value| {
            String::from_utf8(STANDARD.decode(value.as_str().expect("text")).expect("base64")).expect("text")
        };
        Some(data.iter().map(|(key, value)| (key.clone(), text(value))).collect())
    }

    /// The API server inside.
    fn inside(&self, namespace: &str) -> Server {
        let cluster = self.world.cluster(namespace, "dev");
        self.answers.tenant(&cluster.id, &cluster.uid)
    }

    fn ready(status: &Value) -> (String, String) {
        World::condition(status, condition::KUBECONFIGS)
    }
}

fn robot() -> Value {
    json!([{"secretName": "ci", "user": "robot", "groups": ["ci", "bots"], "expirationSeconds": 30 * DAY}])
}

#[tokio::test]
async fn a_users_secret_is_made_kept_and_renewed_in_time() {
    let mut made = Made::with_clusters(&["team-a", "team-b"]).await;
    made.wants("team-a", robot());
    let status = made.round("team-a").await;
    assert_eq!(Made::ready(&status), ("True".to_owned(), "Made".to_owned()));
    assert_eq!(status["kubeconfigs"], json!([{"secretName": "ci", "expiration": "2026-01-31T00:00:00Z"}]));
    let first = made.secret("team-a", "ci").expect("made");
    let ders = certificates_from_pem(first["client-certificate"].as_bytes()).expect("PEM");
    let (_, certificate) = X509Certificate::from_der(&ders[0]).expect("reads");
    assert_eq!(certificate.subject().to_string(), "O=ci, O=bots, CN=robot");
    let trusts = |namespace: &str| {
        let ca = made.secret(namespace, "dev-pki").expect("PKI")[pki::CLIENT_CA].clone();
        ClientTrust::from_pem(ca.as_bytes()).expect("CA").verify(&ders, made.world.now).is_ok()
    };
    assert!(trusts("team-a") && !trusts("team-b"));
    let admin = kube::config::Kubeconfig::from_yaml(&made.secret("team-a", "vc-dev").expect("admin")["config"]);
    let own = kube::config::Kubeconfig::from_yaml(&first["config"]).expect("parses");
    assert_eq!(own.clusters.len(), admin.expect("parses").clusters.len(), "the same ways");

    let before = made.world.host.writes();
    made.round("team-a").await;
    assert_eq!(made.world.host.writes(), before, "quiet");
    made.later(15 * DAY);
    made.round("team-a").await;
    assert_eq!(made.secret("team-a", "ci").as_ref(), Some(&first), "half of its life is left");
    made.later(5 * DAY + 60);
    let status = made.round("team-a").await;
    assert_ne!(made.secret("team-a", "ci").expect("there")["client-certificate"], first["client-certificate"]);
    assert_eq!(status["kubeconfigs"][0]["expiration"], "2026-02-20T00:01:00Z");

    made.wants("team-a", json!([]));
    let status = made.round("team-a").await;
    assert!(made.secret("team-a", "ci").is_none() && status["kubeconfigs"].is_null(), "{status}");
    assert!(made.secret("team-a", "vc-dev").is_some() && made.secret("team-a", "dev-pki").is_some());
}

#[tokio::test]
async fn an_account_is_made_with_its_rights_and_both_go() {
    let made = Made::with_clusters(&["team-a"]).await;
    let inside = made.inside("team-a");
    inside.put("clusterroles", json!({"metadata": {"name": "view"}}));
    inside.put("roles", json!({"metadata": {"name": "deployer", "namespace": "shop"}}));
    assert_eq!([CLUSTER_ROLES.plural, ROLES.plural, NAMESPACES.plural], ["clusterroles", "roles", "namespaces"]);
    let account = json!({"namespace": "tools", "name": "ci"});
    made.wants("team-a", json!([{"secretName": "ci", "serviceAccount": account, "clusterRole": "view"}]));
    let status = made.round("team-a").await;
    assert_eq!(Made::ready(&status).0, "True", "{status}");
    assert_eq!(made.secret("team-a", "ci").expect("made")["token"], "planted-account-token");
    assert!(made.secret("team-a", "ci").expect("made")["config"].contains("planted-account-token"));
    assert!(inside.read(SERVICE_ACCOUNTS.plural, "tools", "ci").is_some());
    let binding = inside.read(CLUSTER_ROLE_BINDINGS.plural, "", &made.binding("team-a", "ci")).expect("bound");
    assert_eq!(binding["subjects"], json!([{"kind": "ServiceAccount", "namespace": "tools", "name": "ci"}]));
    assert_eq!(binding["roleRef"]["name"], "view");

    // Less rights: the wider binding goes before the narrower one comes.
    let role = json!({"namespace": "shop", "name": "deployer"});
    made.wants("team-a", json!([{"secretName": "ci", "serviceAccount": account, "role": role}]));
    let status = made.round("team-a").await;
    assert_eq!(status["kubeconfigs"][0]["boundIn"], "shop", "{status}");
    assert!(inside.read(CLUSTER_ROLE_BINDINGS.plural, "", &made.binding("team-a", "ci")).is_none());
    assert!(inside.read(ROLE_BINDINGS.plural, "shop", &made.binding("team-a", "ci")).is_some());

    // The cluster does not answer: what names nobody any more is remembered until it does.
    made.wants("team-a", json!([]));
    inside.down(true);
    let status = made.round("team-a").await;
    assert!(made.secret("team-a", "ci").is_none(), "the Secret goes at once");
    assert_eq!(status["kubeconfigs"][0]["boundIn"], "shop");
    inside.down(false);
    let status = made.round("team-a").await;
    assert!(status["kubeconfigs"].is_null() && inside.objects(ROLE_BINDINGS.plural).is_empty(), "{status}");
}

#[tokio::test]
async fn what_is_somebody_elses_is_left_alone_and_said() {
    let made = Made::with_clusters(&["team-a", "team-b"]).await;
    let theirs = json!({"metadata": {"name": "ci"}, "data": {"password": "eA=="}});
    made.world.host.put(&SECRETS, "team-a", theirs);
    let theirs = made.world.host.find(&SECRETS, "team-a", "ci");
    let pki = made.secret("team-a", "dev-pki");
    made.wants("team-a", robot());
    made.wants("team-b", robot());
    let status = made.round("team-a").await;
    assert_eq!(Made::ready(&status), ("False".to_owned(), "NameTaken".to_owned()));
    assert_eq!(status["phase"], "Ready", "the cluster is");
    assert_eq!(Made::ready(&made.round("team-b").await).0, "True", "and so is the neighbour's Secret");
    assert_eq!(made.world.host.find(&SECRETS, "team-a", "ci"), theirs);
    // One that Portico made for this very cluster, and for something else.
    let cluster = made.world.cluster("team-a", "dev");
    let own = json!({"metadata": cluster.metadata("own"), "data": {"password": "eA=="}});
    made.world.host.put(&SECRETS, "team-a", own);
    made.wants("team-a", json!([{"secretName": "own", "user": "robot"}]));
    assert_eq!(Made::ready(&made.round("team-a").await).1, "NameTaken");
    made.wants("team-a", json!([]));
    made.round("team-a").await;
    assert_eq!(made.secret("team-a", "own").expect("there").len(), 1, "nor removed");
    // An API server without the rule about names, and hostile ones.
    for name in ["dev-pki", "vc-dev", "vc-other"] {
        made.wants("team-a", json!([{"secretName": name, "user": "robot"}]));
        let status = made.round("team-a").await;
        assert_eq!(Made::ready(&status).1, "Refused", "{name}: {status}");
    }
    for wish in [
        json!({"secretName": "x", "user": "system:admin"}),
        json!({"secretName": "x", "user": "robot", "groups": ["system:masters"]}),
        json!({"secretName": "x", "user": "a\nb"}),
    ] {
        made.wants("team-a", json!([wish]));
        assert_eq!(Made::ready(&made.round("team-a").await).1, "Refused");
    }
    assert_eq!((made.secret("team-a", "dev-pki"), made.secret("team-a", "x")), (pki, None));
    made.wants("team-a", json!([]));
    let status = made.round("team-a").await;
    assert_eq!(Made::ready(&status).0, "True", "nothing is missing any more");
    assert_eq!(made.world.host.find(&SECRETS, "team-a", "ci"), theirs, "nor is it removed");

    // Inside, too.
    let (inside, name) = (made.inside("team-b"), made.binding("team-b", "ci"));
    assert_ne!(name, made.binding("team-a", "ci"), "two that share an API server");
    inside.put("clusterroles", json!({"metadata": {"name": "view"}}));
    inside.put("clusterrolebindings", json!({"metadata": {"name": name}, "roleRef": {"name": "x"}}));
    made.wants("team-b", json!([{"secretName": "ci", "user": "robot", "clusterRole": "view"}]));
    let status = made.round("team-b").await;
    assert_eq!(Made::ready(&status).1, "NameTaken", "{status}");
    made.wants("team-b", json!([]));
    made.round("team-b").await;
    let left = inside.read("clusterrolebindings", "", &name).expect("theirs");
    assert_eq!(left["roleRef"]["name"], "x");
    assert_eq!(CLUSTER_ROLE_BINDINGS.plural, "clusterrolebindings");
}

#[tokio::test]
async fn a_missing_role_and_a_silent_cluster_are_said_and_hold_up_no_other_entry() {
    let made = Made::with_clusters(&["team-a"]).await;
    let inside = made.inside("team-a");
    let both = json!([
        {"secretName": "bound", "user": "robot", "clusterRole": "absent"},
        {"secretName": "plain", "user": "robot"},
    ]);
    made.wants("team-a", both);
    let status = made.round("team-a").await;
    assert_eq!(Made::ready(&status), ("False".to_owned(), "NotFound".to_owned()));
    assert!(made.secret("team-a", "bound").is_none() && made.secret("team-a", "plain").is_some());
    inside.down(true);
    made.wants(
        "team-a",
        json!([
            {"secretName": "one", "serviceAccount": {"namespace": "a", "name": "b"}},
            {"secretName": "two", "serviceAccount": {"namespace": "a", "name": "b"}},
            {"secretName": "plain", "user": "robot"},
        ]),
    );
    let status = made.round("team-a").await;
    let ready = status["conditions"].as_array().expect("conditions").iter().find(|c| c["type"] == "KubeconfigsReady");
    let message = ready.expect("condition")["message"].as_str().expect("text").to_owned();
    assert!(message.starts_with("bound: ") || message.starts_with("one: "), "{message}");
    assert_eq!(status["phase"], "Ready");
    assert!(made.secret("team-a", "plain").is_some());
}

/// Killed between any two writes: whatever the next operator finds, in the end what is wanted is there and nothing else.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_write_leaves_nothing_unknown() {
    for stop_at in 0..6 {
        let made = Made::with_clusters(&["team-a"]).await;
        made.answers.slow.store(true, std::sync::atomic::Ordering::Relaxed);
        let inside = made.inside("team-a");
        inside.put("clusterroles", json!({"metadata": {"name": "view"}}));
        let account = json!({"namespace": "tools", "name": "ci"});
        made.wants("team-a", json!([{"secretName": "ci", "serviceAccount": account, "clusterRole": "view"}]));
        let host = made.world.host.writes();
        let cluster = made.world.cluster("team-a", "dev");
        let round = reconcile::reconcile(&made.world.context, &cluster, 0);
        tokio::select! {
            biased;
            () = until_writes(&made.world, host, &inside, stop_at) => {}
            _ = round => {}
        }
        // The owner changes his mind before anybody else looks.
        made.wants("team-a", json!([]));
        made.round("team-a").await;
        let status = made.round("team-a").await;
        assert!(made.secret("team-a", "ci").is_none() && status["kubeconfigs"].is_null(), "{stop_at}: {status}");
        assert!(inside.objects(CLUSTER_ROLE_BINDINGS.plural).is_empty(), "{stop_at}");
    }
}

/// Until so many writes were made, on the host and inside together.
async fn until_writes(world: &World, before: usize, inside: &Server, count: usize) {
    let inside_before = inside.counts().writes;
    while world.host.writes() - before + inside.counts().writes - inside_before < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn nothing_is_asked_for_clusters_without_any() {
    let made = Made::with_clusters(&["team-a"]).await;
    let cluster = made.world.cluster("team-a", "dev");
    let gets = made.world.host.0.counts().gets;
    let mut next = cluster.status.clone();
    kubeconfigs::ensure(&made.world.context, &cluster, &HashMap::new().into_iter().collect(), &[], &mut next).await;
    assert_eq!((made.world.host.0.counts().gets, next), (gets, cluster.status));
}

/// Whoever edits the spec again and again while the inside refuses every change.
#[tokio::test]
async fn what_is_remembered_of_earlier_entries_is_bounded() {
    let made = Made::with_clusters(&["team-a"]).await;
    let inside = made.inside("team-a");
    inside.put("clusterroles", json!({"metadata": {"name": "view"}}));
    inside.forbid(None, Some("clusterrolebindings"));
    let entry = |name: String| json!({"secretName": name, "user": "robot", "clusterRole": "view"});
    for turn in 0..8 {
        made.wants("team-a", (0..16).map(|number| entry(format!("s-{turn}-{number}"))).collect());
        made.round("team-a").await;
    }
    let status = made.round("team-a").await;
    assert_eq!(status["kubeconfigs"].as_array().expect("some").len(), 64);
    let failed = inside.counts().gets;
    made.wants("team-a", json!([]));
    made.round("team-a").await;
    assert!(inside.counts().gets <= failed + 1, "one is refused, so none of the others is tried in this round");
}

#[tokio::test]
async fn a_cluster_that_is_not_ready_keeps_no_secret_that_is_not_wanted() {
    let made = Made::with_clusters(&["team-a"]).await;
    made.wants("team-a", robot());
    made.round("team-a").await;
    assert!(made.secret("team-a", "ci").is_some());
    made.world.host.edit(&STATEFUL_SETS, "team-a", "dev", |set| set["status"] = json!({}));
    made.wants("team-a", json!([]));
    let status = made.round("team-a").await;
    assert_ne!(status["phase"], "Ready");
    assert!(made.secret("team-a", "ci").is_none() && status["kubeconfigs"].is_null(), "{status}");
}

/// `allowSystemNames` is taken back.
#[tokio::test]
async fn an_entry_that_is_refused_by_now_loses_what_was_made_for_it() {
    let mut made = Made::with_clusters(&["team-a"]).await;
    let allow = |made: &mut Made, allow: bool| {
        let mut config = Config::clone(&made.world.context.config);
        config.operator.credentials.allow_system_names = allow;
        made.world.context.config = Arc::new(config);
    };
    let inside = made.inside("team-a");
    inside.put("clusterroles", json!({"metadata": {"name": "view"}}));
    allow(&mut made, true);
    made.wants("team-a", json!([{"secretName": "ci", "user": "system:x", "clusterRole": "view"}]));
    made.round("team-a").await;
    assert!(made.secret("team-a", "ci").is_some());
    assert!(inside.read("clusterrolebindings", "", &made.binding("team-a", "ci")).is_some());
    allow(&mut made, false);
    let status = made.round("team-a").await;
    assert_eq!(Made::ready(&status).1, "Refused");
    assert!(made.secret("team-a", "ci").is_none() && status["kubeconfigs"].is_null(), "{status}");
    assert!(inside.objects("clusterrolebindings").is_empty());
}

#[tokio::test]
async fn a_new_clusters_tokens_are_made_once() {
    let made = Made::with_clusters(&["team-a"]).await;
    made.store("team-a", Value::Null);
    let account = json!({"secretName": "ci", "serviceAccount": {"namespace": "tools", "name": "ci"}});
    made.wants("team-a", json!([account, {"secretName": "robot", "user": "robot"}]));
    let status = made.round("team-a").await;
    assert_eq!(Made::ready(&status).1, "Waiting");
    assert!(made.secret("team-a", "ci").is_none(), "what hangs on the store waits for it");
    assert!(made.secret("team-a", "robot").is_some(), "nothing else does");
    made.store("team-a", json!({"uid": "store"}));
    made.round("team-a").await;
    assert!(made.secret("team-a", "ci").is_some());
    let before = made.world.host.writes();
    made.round("team-a").await;
    assert_eq!(made.world.host.writes(), before);
}

/// An API server with an earlier CRD.
#[tokio::test]
async fn entries_beyond_the_bound_are_said_and_not_made() {
    let made = Made::with_clusters(&["team-a"]).await;
    let entries = |count: usize| -> Vec<Value> {
        (0..count).map(|n| json!({"secretName": format!("s{n:02}"), "user": "robot"})).collect()
    };
    made.wants("team-a", json!(entries(18)));
    let status = made.round("team-a").await;
    assert_eq!(Made::ready(&status), ("False".to_owned(), "Refused".to_owned()), "{status}");
    assert!(made.secret("team-a", "s15").is_some() && made.secret("team-a", "s16").is_none());
    // What an earlier list had within the bound goes when it is beyond.
    let mut moved = entries(17);
    moved.rotate_left(1);
    made.wants("team-a", json!(moved));
    made.round("team-a").await;
    assert!(made.secret("team-a", "s16").is_some() && made.secret("team-a", "s00").is_none());
}
