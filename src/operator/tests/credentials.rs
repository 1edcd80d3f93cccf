//! Requests for certificates: answered once and by the right cluster, whoever asks how often, and whatever breaks meanwhile.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::following::pass;
use super::*;
use crate::kubernetes::resources::CREDENTIAL_REQUESTS;
use crate::operator::credentials;
use crate::runtime::drain::{self, DrainTrigger};
use crate::runtime::task::{self, Task};
use crate::tls::{ClientTrust, certificates_from_pem, issued};

impl World {
    /// With a cluster that has its PKI, in each of these namespaces.
    async fn with_clusters(namespaces: &[&str]) -> Self {
        Self::with_clusters_on(FakeHost::default(), namespaces).await
    }

    async fn with_clusters_on(host: FakeHost, namespaces: &[&str]) -> Self {
        let (host, now) = (Arc::new(host), Self::new().now);
        let mut world = Self { context: Self::context(&host, now), host, now };
        world.context.clock = Clock::going(world.now, 1);
        for namespace in namespaces {
            world.add(namespace, "dev", json!({}));
            world.round(namespace, "dev").await;
        }
        world
    }

    /// Somebody asks.
    fn asks(&self, namespace: &str, name: &str, user: &str, change: impl FnOnce(&mut Value)) {
        let (_, request) = issued::new_request().expect("made");
        let created = self.context.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut object = json!({"apiVersion": "portico.dev/v1alpha1", "kind": "CredentialRequest",
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"virtualCluster": "dev", "request": request, "user": user}});
        change(&mut object);
        self.host.put(&CREDENTIAL_REQUESTS, namespace, object);
    }

    fn answer(&self, namespace: &str, name: &str) -> Value {
        self.host.find(&CREDENTIAL_REQUESTS, namespace, name).map_or(Value::Null, |object| object["status"].clone())
    }

    /// What belongs to VirtualClusters that are gone goes, as the host does it.
    fn collect_garbage(&self) {
        let living: BTreeSet<String> =
            self.host.all(&VIRTUAL_CLUSTERS).iter().map(|o| o["metadata"]["uid"].to_string()).collect();
        for (plural, object) in self.host.0.everything() {
            let metadata = &object["metadata"];
            let owner = &metadata["ownerReferences"][0];
            if owner["kind"] == "VirtualCluster" && !living.contains(&owner["uid"].to_string()) {
                let field = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
                self.host.0.delete_gracefully(plural, &field("namespace"), &field("name"), Some(0));
            }
        }
    }

    fn left(&self, namespace: &str) -> usize {
        self.host.all(&CREDENTIAL_REQUESTS).iter().filter(|o| o["metadata"]["namespace"] == namespace).count()
    }

    /// Whether the certificate of an answer is this cluster's.
    fn trusts(&self, namespace: &str, answer: &Value) -> bool {
        let secret = self.host.find(&SECRETS, namespace, "dev-pki").expect("PKI");
        let ca = STANDARD.decode(secret["data"][pki::CLIENT_CA].as_str().expect("CA")).expect("base64");
        let Some(pem) = answer["certificate"].as_str() else { return false };
        let chain = certificates_from_pem(pem.as_bytes()).expect("PEM");
        ClientTrust::from_pem(&ca).expect("CA").verify(&chain, self.context.clock.now()).is_ok()
    }
}

/// Answers until dropped, as an operator that was started now.
fn start(world: &World) -> (Task, DrainTrigger) {
    let mut context = World::context(&world.host, world.now);
    context.clock = world.context.clock.clone();
    let (trigger, drain) = drain::channel();
    context.shown = Arc::clone(&world.context.shown);
    let context = Arc::new(context);
    (task::spawn("credentials under test", async move { credentials::run(&context, drain).await }), trigger)
}

fn subject(answer: &Value) -> String {
    let ders = certificates_from_pem(answer["certificate"].as_str().expect("PEM").as_bytes()).expect("PEM");
    X509Certificate::from_der(&ders[0]).expect("reads").1.subject().to_string()
}

#[tokio::test(start_paused = true)]
async fn each_cluster_signs_for_its_own_namespace_and_once() {
    let world = World::with_clusters(&["team-a", "team-b"]).await;
    let _running = start(&world);
    world.asks("team-a", "one", "jane", |object| object["spec"]["groups"] = json!(["dev", "ops"]));
    world.asks("team-b", "one", "jane", |_| {});
    pass(5).await;
    let [a, b] = ["team-a", "team-b"].map(|namespace| world.answer(namespace, "one"));
    assert_eq!((a["phase"].as_str(), subject(&a).as_str()), (Some("Issued"), "O=dev, O=ops, CN=jane"));
    assert!(world.trusts("team-a", &a) && !world.trusts("team-b", &a) && world.trusts("team-b", &b));
    assert_eq!(a["expiration"], "2026-01-01T01:00:00Z");
    let ways = a["kubeconfig"].as_str().expect("the ways");
    assert!(ways.contains("https://portico.example.com/clusters/team-a/dev"), "{ways}");
    assert!(!ways.contains("client-key") && !ways.contains("client-certificate"), "nobody's credential: {ways}");
    pass(400).await;
    assert_eq!(world.answer("team-a", "one"), a, "and never again");
    pass(400).await;
    assert_eq!(world.left("team-a") + world.left("team-b"), 0, "some minutes later they are gone");
    assert_eq!(world.context.shown.credentials.issued.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_delay_nobody_else_and_are_bounded() {
    let world = World::with_clusters(&["team-a", "team-b"]).await;
    let _running = start(&world);
    for number in 0..1000 {
        world.asks("team-a", &format!("r{number}"), "mallory", |object| {
            object["spec"]["request"] = "x".repeat(8000).into();
        });
    }
    pass(1).await;
    world.asks("team-b", "one", "jane", |_| {});
    pass(2).await;
    assert_eq!(world.answer("team-b", "one")["phase"], "Issued", "the neighbour waits for nothing");
    assert!(world.left("team-a") > 500, "the flood is not worked off at once: {}", world.left("team-a"));
    pass(60).await;
    assert_eq!(world.left("team-a"), 64);
    assert!(
        world
            .host
            .all(&CREDENTIAL_REQUESTS)
            .iter()
            .all(|o| o["status"]["certificate"].is_null() || o["spec"]["user"] == "jane")
    );
    let before = world.host.writes();
    for number in 0..200 {
        world.asks("team-a", &format!("more-{number}"), "mallory", |object| object["spec"]["request"] = "x".into());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let writes = world.host.writes() - before;
    // Eight answers in each of six steps, and one that goes for each that comes.
    assert!(writes <= 6 * 8 + 200, "{writes} writes in five seconds");
    world.asks("team-a", "late", "jane", |_| {});
    pass(20).await;
    assert_eq!(world.answer("team-a", "late")["phase"], "Issued", "and whoever comes behind it is answered");
}

/// Something of another namespace is tried again all the time, and each page takes longer than that.
#[tokio::test(start_paused = true)]
async fn a_list_becomes_whole_whatever_happens_meanwhile() {
    let world = World::with_clusters(&["b-asks"]).await;
    world.add("a-waits", "dev", json!({}));
    world.asks("a-waits", "one", "jane", |_| {});
    world.asks("b-asks", "one", "jane", |_| {});
    world.host.0.page_size(1);
    world.host.0.page_takes(Duration::from_secs(100));
    let _running = start(&world);
    pass(150).await;
    assert_eq!((world.answer("a-waits", "one"), world.answer("b-asks", "one")), (Value::Null, Value::Null));
    pass(100).await;
    assert_eq!(world.answer("b-asks", "one")["phase"], "Issued");
}

/// More than are known of one namespace, before the operator begins.
#[tokio::test(start_paused = true)]
async fn what_had_no_room_is_seen_when_there_is_room() {
    let world = World::with_clusters(&["team-a"]).await;
    for number in 0..1100 {
        world.asks("team-a", &format!("r{number}"), "mallory", |object| object["spec"]["request"] = "x".into());
    }
    let _running = start(&world);
    pass(150).await;
    assert_eq!(world.left("team-a"), 64);
}

#[tokio::test(start_paused = true)]
async fn hostile_requests_are_refused_with_a_reason() {
    let world = World::with_clusters(&["team-a", "team-b"]).await;
    let _running = start(&world);
    type Change = fn(&mut Value);
    let hostile: [(&str, &str, Change); 9] = [
        ("masters", "ReservedName", |o| o["spec"]["groups"] = json!(["system:masters"])),
        ("node", "ReservedName", |o| o["spec"]["user"] = "system:node:n1".into()),
        ("supervisor", "ReservedName", |o| o["spec"]["groups"] = json!(["k3s:server"])),
        ("header", "InvalidName", |o| o["spec"]["user"] = "a\r\nX-Remote-Group: system:masters".into()),
        ("text", "InvalidRequest", |o| o["spec"]["request"] = "-----BEGIN CERTIFICATE REQUEST-----".into()),
        ("path", "NoVirtualCluster", |o| o["spec"]["virtualCluster"] = "../../team-b/virtualclusters/dev".into()),
        ("absent", "NoVirtualCluster", |o| o["spec"]["virtualCluster"] = "prod".into()),
        ("other", "Replaced", |o| o["spec"]["virtualClusterUID"] = "another".into()),
        ("shape", "Invalid", |o| o["spec"] = json!({"virtualCluster": 7})),
    ];
    for (name, _, change) in hostile {
        world.asks("team-a", name, "jane", change);
    }
    pass(10).await;
    for (name, reason, _) in hostile {
        let answer = world.answer("team-a", name);
        assert_eq!(
            (answer["phase"].as_str(), answer["reason"].as_str()),
            (Some("Denied"), Some(reason)),
            "{name}: {answer}"
        );
        assert!(answer["certificate"].is_null());
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_of_a_deleted_cluster_is_not_signed_by_its_successor() {
    let world = World::with_clusters(&["team-a"]).await;
    world.asks("team-a", "early", "jane", |_| {});
    pass(30).await;
    world.host.remove(&VIRTUAL_CLUSTERS, "team-a", "dev");
    world.add("team-a", "dev", json!({}));
    let now = world.context.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    world.host.edit(&VIRTUAL_CLUSTERS, "team-a", "dev", |object| object["metadata"]["creationTimestamp"] = json!(now));
    pass(2).await;
    world.asks("team-a", "mine", "jane", |_| {});
    let _running = start(&world);
    pass(5).await;
    // The PKI is still the old one's: nothing is signed with it for the new one.
    assert_eq!(world.answer("team-a", "mine"), Value::Null);
    world.collect_garbage();
    world.round("team-a", "dev").await;
    pass(60).await;
    assert_eq!(world.answer("team-a", "early")["reason"], "Replaced", "{}", world.answer("team-a", "early"));
    let mine = world.answer("team-a", "mine");
    assert!(mine["phase"] == "Issued" && world.trusts("team-a", &mine), "{mine}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_key_and_missing_rights_are_said() {
    let world = World::with_clusters(&["team-a", "team-b"]).await;
    world.host.edit(&SECRETS, "team-a", "dev-pki", |secret| {
        secret["data"].as_object_mut().expect("data").remove(pki::CLIENT_CA_KEY);
    });
    world.host.0.forbid(Some("team-b"), Some("secrets"));
    let _running = start(&world);
    world.asks("team-a", "one", "jane", |_| {});
    world.asks("team-b", "one", "jane", |_| {});
    pass(5).await;
    let answer = world.answer("team-a", "one");
    assert_eq!(answer["reason"], "NoAuthority");
    assert!(answer["message"].as_str().is_some_and(|text| text.contains("--service-account")), "{answer}");
    assert_eq!(world.answer("team-b", "one")["reason"], "NoRights");
}

/// Whatever breaks between signing and writing: in the end there is one answer, and it does not change.
#[tokio::test(start_paused = true)]
async fn operators_that_die_and_race_leave_one_answer() {
    let world = World::with_clusters_on(FakeHost::slow(), &["team-a"]).await;
    let (mut seen, mut wait) = (HashMap::new(), 0_u64);
    let mut running = [start(&world), start(&world)];
    for number in 0..40_u64 {
        world.asks("team-a", &format!("r{number}"), "jane", |_| {});
        // Killed at whatever it does.
        running[number as usize % 2] = start(&world);
        wait = (wait + 137) % 700;
        world.host.0.down(number % 7 == 3);
        // Looked at often, or a second answer would be taken for the first.
        for _ in 0..wait {
            tokio::time::sleep(Duration::from_millis(1)).await;
            observe(&world, &mut seen);
        }
    }
    world.host.0.down(false);
    for _ in 0..60_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        observe(&world, &mut seen);
    }
    for number in 0..40 {
        let answer = world.answer("team-a", &format!("r{number}"));
        assert!(answer["phase"] == "Issued" && world.trusts("team-a", &answer), "r{number}: {answer}");
    }
}

/// An answer that was seen stays what it is.
fn observe(world: &World, seen: &mut HashMap<String, Value>) {
    for object in world.host.all(&CREDENTIAL_REQUESTS) {
        let (name, answer) = (object["metadata"]["name"].to_string(), object["status"]["certificate"].clone());
        if !answer.is_null() {
            let before = seen.entry(name.clone()).or_insert_with(|| answer.clone());
            assert_eq!(*before, answer, "{name} was answered twice");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_over_one_namespace_answers_the_others() {
    let world = World::with_clusters(&["team-a", "team-b"]).await;
    world.host.0.panic_over("team-a");
    let (running, _trigger) = start(&world);
    world.asks("team-a", "one", "jane", |_| {});
    world.asks("team-b", "one", "jane", |_| {});
    pass(5).await;
    assert_eq!(world.answer("team-b", "one")["phase"], "Issued");
    assert!(!running.is_finished());
    world.host.0.heal("team-a");
    pass(60).await;
    assert_eq!(world.answer("team-a", "one")["phase"], "Issued");
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_operator() {
    let world = World::with_clusters(&["team-a"]).await;
    let (running, trigger) = start(&world);
    pass(5).await;
    trigger.drain(Duration::from_secs(1)).await;
    assert!(running.is_finished());
}
