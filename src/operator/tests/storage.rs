//! Where a control plane's data is: on a volume wherever the host has one, decided once, and said.

use super::*;
use crate::kubernetes::resources::STORAGE_CLASSES;

impl World {
    fn class(&self, name: &str, is_default: bool, created: &str) {
        let annotations = json!({"storageclass.kubernetes.io/is-default-class": is_default.to_string()});
        let metadata = json!({"name": name, "annotations": annotations, "creationTimestamp": created});
        self.host.put(&STORAGE_CLASSES, "", json!({"metadata": metadata}));
    }

    fn set(&self, name: &str) -> Value {
        self.host.find(&STATEFUL_SETS, "team-a", name).expect("a StatefulSet")
    }
}

fn template(set: &Value) -> Value {
    set["spec"]["volumeClaimTemplates"][0]["spec"].clone()
}

fn is_in_the_pod(set: &Value) -> bool {
    let volumes = set["spec"]["template"]["spec"]["volumes"].as_array().expect("volumes");
    set["spec"]["volumeClaimTemplates"].is_null()
        && volumes.iter().any(|v| v["name"] == "data" && !v["emptyDir"].is_null())
}

fn durable(status: &Value) -> (String, String) {
    World::condition(status, condition::DURABLE)
}

fn is(value: &str, reason: &str) -> (String, String) {
    (value.to_owned(), reason.to_owned())
}

#[tokio::test]
async fn without_a_word_about_storage_the_data_is_on_a_volume_of_the_default_class() {
    for distro in ["k8s", "k3s"] {
        let world = World::new();
        world.class("slow", false, "2026-01-01T00:00:00Z");
        world.class("old", true, "2025-01-01T00:00:00Z");
        world.class("fast", true, "2025-06-01T00:00:00Z");
        world.add("team-a", "dev", json!({"distro": distro}));
        let (_, status) = world.round("team-a", "dev").await;
        let spec = template(&world.set("dev"));
        assert_eq!(spec["storageClassName"], "fast", "of two defaults the newer one, as the API server has it");
        assert_eq!(spec["resources"]["requests"]["storage"], "5Gi");
        assert!(!is_in_the_pod(&world.set("dev")));
        assert_eq!(status["storage"], json!({"kind": "Volume", "size": "5Gi", "class": "fast"}));
        assert_eq!(durable(&status), is("True", "Volume"));
    }
}

#[tokio::test]
async fn a_default_class_that_comes_or_goes_later_changes_nothing() {
    let mut world = World::new();
    world.add("team-a", "early", json!({}));
    let (_, status) = world.round("team-a", "early").await;
    assert_eq!(durable(&status), is("False", "NoDefaultStorageClass"));
    world.class("fast", true, "2026-01-01T00:00:00Z");
    world.add("team-a", "late", json!({}));
    world.round("team-a", "late").await;
    world.host.remove(&STORAGE_CLASSES, "", "fast");
    // Over a restart, and even when the StatefulSets are lost.
    world.context = World::context(&world.host, world.now);
    for name in ["early", "late"] {
        world.host.remove(&STATEFUL_SETS, "team-a", name);
        let (_, status) = world.round("team-a", name).await;
        assert_eq!(is_in_the_pod(&world.set(name)), name == "early", "{status}");
    }
    assert_eq!(template(&world.set("late"))["storageClassName"], "fast");
}

/// Who recorded a decision and ended before the StatefulSet was made is not asked again.
#[tokio::test]
async fn a_decision_that_only_the_host_knows_stands() {
    let world = World::new();
    world.class("fast", true, "2026-01-01T00:00:00Z");
    world.add("team-a", "dev", json!({}));
    let stale = world.cluster("team-a", "dev");
    let storage = json!({"kind": "Volume", "size": "5Gi", "class": "other"});
    world.host.edit(&VIRTUAL_CLUSTERS, "team-a", "dev", |object| object["status"]["storage"] = storage.clone());
    reconcile::reconcile(&world.context, &stale, 0).await;
    assert_eq!(template(&world.set("dev"))["storageClassName"], "other");
}

#[tokio::test]
async fn what_the_spec_says_wins_and_is_said() {
    let world = World::new();
    world.class("fast", true, "2026-01-01T00:00:00Z");
    world.add("team-a", "thrown", json!({"storage": {"ephemeral": true}}));
    let (_, status) = world.round("team-a", "thrown").await;
    assert!(is_in_the_pod(&world.set("thrown")));
    assert_eq!(durable(&status), is("False", "Ephemeral"));
    assert_eq!(status["storage"], json!({"kind": "Pod", "reason": "Ephemeral"}));

    world.add("team-a", "big", json!({"storage": {"volumeClaim": {"size": "9Gi", "class": "slow"}}}));
    let (_, status) = world.round("team-a", "big").await;
    assert_eq!(template(&world.set("big"))["storageClassName"], "slow");
    assert_eq!(durable(&status), is("True", "Volume"));

    let external = json!({"distro": "external", "backend": {"kubeconfigSecret": {"name": "theirs"}}});
    world.add("team-a", "theirs", external);
    let (_, status) = world.round("team-a", "theirs").await;
    assert_eq!(durable(&status), is("True", "External"));
}

/// Its StatefulSet cannot get a volume, and must not be refused by the host for one that it is asked to get.
#[tokio::test]
async fn clusters_from_before_keep_what_they_have_with_the_condition() {
    let world = World::new();
    world.add("team-a", "plain", json!({"storage": {"ephemeral": true}}));
    world.add("team-a", "claimed", json!({"storage": {"volumeClaim": {"size": "1Gi"}}}));
    for name in ["plain", "claimed"] {
        world.round("team-a", name).await;
        // As an earlier Portico left it: no word in the spec, and none in the status.
        world.host.edit(&VIRTUAL_CLUSTERS, "team-a", name, |object| {
            object["spec"] = json!({});
            object["status"].as_object_mut().expect("a status").remove("storage");
        });
    }
    let before = ["plain", "claimed"].map(|name| world.set(name)["spec"].clone());
    world.class("fast", true, "2026-01-01T00:00:00Z");
    let (_, plain) = world.round("team-a", "plain").await;
    let (_, claimed) = world.round("team-a", "claimed").await;
    assert_eq!(durable(&plain), is("False", "BeforeDurableDefault"));
    assert_eq!(durable(&claimed), is("True", "Volume"));
    assert_eq!(["plain", "claimed"].map(|name| world.set(name)["spec"].clone()), before);
}

#[tokio::test]
async fn without_the_right_to_look_nothing_is_guessed() {
    let world = World::new();
    world.host.forbid_kind("storageclasses");
    world.add("team-a", "dev", json!({}));
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(durable(&status), is("Unknown", "StorageClassesUnknown"));
    assert_eq!(status["phase"], "Failed");
    assert!(
        status["message"].as_str().is_some_and(|m| m.contains("--ephemeral") && m.contains("--storage")),
        "{status}"
    );
    assert!(world.host.find(&STATEFUL_SETS, "team-a", "dev").is_none());
    // Who says what he wants needs no such right of Portico.
    world.add("team-a", "said", json!({"storage": {"ephemeral": true}}));
    let (_, status) = world.round("team-a", "said").await;
    assert_eq!(status["phase"], "Provisioning", "{status}");
}

#[tokio::test]
async fn a_claim_that_was_put_there_is_taken_without_being_asked_for() {
    let world = World::new();
    let spec = json!({"storageClassName": "slow", "volumeName": "kept", "resources": {"requests": {"storage": "3Gi"}}});
    world.host.put(&CLAIMS, "team-a", json!({"metadata": {"name": "data-dev-0"}, "spec": spec}));
    world.add("team-a", "dev", json!({}));
    let (_, status) = world.round("team-a", "dev").await;
    assert_eq!(status["storage"], json!({"kind": "Volume", "size": "3Gi", "class": "slow"}));
    assert!(!is_in_the_pod(&world.set("dev")));
}
