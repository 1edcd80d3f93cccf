//! Tests of `claim`.

use super::super::testing::{World, hostile_plans};
use super::*;
use crate::config::PolicyBounds;
use crate::crd::policy::{GrantedPolicy, Policy};

fn claim() -> Value {
    json!({
        "metadata": {"name": "data", "namespace": "default", "uid": "u1", "annotations": {"volume.kubernetes.io/selected-node": "n"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "",
            "dataSource": {"kind": "PersistentVolumeClaim", "name": "old"}},
        "status": {"phase": "Pending"},
    })
}

fn bound() -> World {
    let mut world = World::new();
    world.put_virtual("PersistentVolumeClaim", claim());
    world.settle(&ClaimKind, "default", "data");
    world.change_host("PersistentVolumeClaim", "data-x-default-x-vc1", |host| {
        host["spec"]["volumeName"] = json!("pvc-1");
        host["spec"]["storageClassName"] = json!("fast");
        host["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes");
        host["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]});
    });
    world.put_host("PersistentVolume", json!({
        "metadata": {"name": "pvc-1", "uid": "pv"},
        "spec": {"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/secret"}, "storageClassName": "fast",
            "claimRef": {"namespace": "team-a", "name": "data-x-default-x-vc1", "uid": "host-data-x-default-x-vc1"}},
        "status": {"phase": "Bound"},
    }));
    world.settle(&ClaimKind, "default", "data");
    world.settle(&VolumeKind, "", "pvc-1");
    world
}

#[test]
fn a_claim_is_bound_on_both_sides_and_its_volume_shown_bare() {
    let mut world = bound();
    let host = world.host("PersistentVolumeClaim", "data-x-default-x-vc1").expect("made");
    assert_eq!(host["spec"]["dataSource"]["name"], "old-x-default-x-vc1");
    assert!(host["metadata"]["annotations"].get(SELECTED_NODE).is_none());
    let object = world.virtual_one("PersistentVolumeClaim", "default", "data").expect("kept");
    assert_eq!(object["spec"]["volumeName"], "pvc-1");
    assert_eq!(object["spec"]["storageClassName"], "fast");
    assert_eq!(object["status"]["phase"], "Bound");
    assert_eq!(object["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"], "yes");
    let volume = world.virtual_one("PersistentVolume", "", "pvc-1").expect("shown");
    assert!(!volume.to_string().contains("/secret") && !volume.to_string().contains("team-a"), "{volume}");
    assert_eq!(volume["spec"]["claimRef"]["name"], "data");
    assert_eq!(volume["status"]["phase"], "Bound");
    world.remove_host("PersistentVolume", "pvc-1");
    world.settle(&VolumeKind, "", "pvc-1");
    assert!(world.virtual_one("PersistentVolume", "", "pvc-1").is_none());
}

#[test]
fn growth_goes_down_and_loss_comes_up() {
    let mut world = bound();
    world.change_virtual("PersistentVolumeClaim", "default", "data", |c| {
        c["spec"]["resources"]["requests"]["storage"] = json!("2Gi")
    });
    world.settle(&ClaimKind, "default", "data");
    let host = world.host("PersistentVolumeClaim", "data-x-default-x-vc1").expect("kept");
    assert_eq!(host["spec"]["resources"]["requests"]["storage"], "2Gi");
    world.remove_host("PersistentVolumeClaim", "data-x-default-x-vc1");
    world.settle(&ClaimKind, "default", "data");
    assert_eq!(world.virtual_one("PersistentVolumeClaim", "default", "data").expect("kept")["status"]["phase"], "Lost");
    assert!(world.host("PersistentVolumeClaim", "data-x-default-x-vc1").is_none());
}

#[test]
fn sources_that_could_be_anybodys_are_refused() {
    for source in [
        json!({"kind": "VolumeSnapshot", "apiGroup": "snapshot.storage.k8s.io", "name": "s"}),
        json!({"kind": "PersistentVolumeClaim", "name": "s", "namespace": "other"}),
    ] {
        let mut world = World::new();
        let mut object = claim();
        object["spec"]["dataSourceRef"] = source;
        world.put_virtual("PersistentVolumeClaim", object);
        world.settle(&ClaimKind, "default", "data");
        assert!(world.host("PersistentVolumeClaim", "data-x-default-x-vc1").is_none());
        assert_eq!(world.explained.len(), 1);
    }
}

const COPY: &str = "data-x-default-x-vc1";

fn phase(world: &World) -> String {
    let object = world.virtual_one("PersistentVolumeClaim", "default", "data").expect("kept");
    json::text(&object, "/status/phase").to_owned()
}

/// As a user who has volumes of his own writes it.
fn naming(volume: &str) -> Value {
    let mut object = claim();
    object["spec"]["volumeName"] = json!(volume);
    object["spec"]["storageClassName"] = json!("fast");
    object
}

#[test]
fn a_claim_that_names_its_volume_is_refused_and_nothing_is_bound() {
    let mut world = World::new();
    world.put_virtual("PersistentVolumeClaim", naming("mine"));
    world.settle(&ClaimKind, "default", "data");
    assert!(world.host("PersistentVolumeClaim", COPY).is_none());
    assert_eq!(phase(&world), "Pending");
    let (reason, message) = world.explained.first().expect("told");
    assert_eq!(reason, "SyncDenied");
    assert!(message.contains("\"mine\"") && message.contains("without spec.volumeName"), "{message}");
}

#[test]
fn a_claim_that_a_volume_inside_is_reserved_for_is_refused_while_that_is_there() {
    let mut world = World::new();
    let mut object = claim();
    object["spec"]["dataSource"] = json!(null);
    world.put_virtual("PersistentVolumeClaim", object);
    let volume = |uid: &str| {
        json!({"metadata": {"name": "mine", "uid": "pv"},
            "spec": {"hostPath": {"path": "/x"}, "claimRef": {"namespace": "default", "name": "data", "uid": uid}}})
    };
    let key = ObjectKey { namespace: "default".to_owned(), name: "data".to_owned() };
    let reference = Reference { kind: "PersistentVolumeClaim", key };
    assert_eq!(VolumeKind.references(&volume("")), [reference]);
    let by = ObjectKey { namespace: String::new(), name: "mine".to_owned() };
    world.refer_by("PersistentVolumeClaim", "default", "data", ("PersistentVolume", by));
    for uid in ["", "u1"] {
        world.explained.clear();
        world.put_virtual("PersistentVolume", volume(uid));
        world.settle(&ClaimKind, "default", "data");
        assert!(world.host("PersistentVolumeClaim", COPY).is_none());
        assert!(world.explained[0].1.contains("\"mine\""), "{:?}", world.explained);
    }
    world.settle(&VolumeKind, "", "mine");
    assert!(world.explained[1].1.contains("no claim is bound to it"), "{:?}", world.explained);
    assert!(world.virtual_one("PersistentVolume", "", "mine").is_some(), "the user's own stays");
    world.put_virtual("PersistentVolume", volume("of a claim that is gone"));
    world.settle(&ClaimKind, "default", "data");
    assert!(world.host("PersistentVolumeClaim", COPY).is_some());
}

/// Volumes that Portico shows refer to their claims too.
#[test]
fn volumes_of_the_host_are_not_reserved_for_anybody() {
    let world = bound();
    let shown = world.virtual_one("PersistentVolume", "", "pvc-1").expect("shown");
    assert_eq!(VolumeKind.references(&shown), []);
    assert!(world.explained.is_empty(), "{:?}", world.explained);
}

/// What earlier releases left: the claim says `Bound` to the volume that its user named, the data is elsewhere.
#[test]
fn a_claim_whose_data_is_on_another_volume_says_so_and_loses_nothing() {
    let mut world = bound();
    world.change_virtual("PersistentVolumeClaim", "default", "data", |c| c["spec"]["volumeName"] = json!("mine"));
    let before = world.host("PersistentVolumeClaim", COPY).expect("there");
    world.settle(&ClaimKind, "default", "data");
    let object = world.virtual_one("PersistentVolumeClaim", "default", "data").expect("kept");
    assert_eq!(object["status"], json!({"phase": "Pending"}));
    let (reason, message) = world.explained.last().expect("told");
    assert_eq!(reason, "SyncDenied");
    assert!(message.contains("\"mine\"") && message.contains("\"pvc-1\""), "{message}");
    let after = world.host("PersistentVolumeClaim", COPY).expect("kept");
    assert_eq!((&after["spec"], &after["status"]), (&before["spec"], &before["status"]));
    assert_eq!(world.host("PersistentVolume", "pvc-1").expect("kept")["status"]["phase"], "Bound");
}

/// A class that waits for a consumer: there is time to name a volume after the copy was made.
#[test]
fn a_volume_that_is_named_later_is_not_claimed_to_be_bound() {
    let mut world = World::new();
    world.put_virtual("PersistentVolumeClaim", claim());
    world.settle(&ClaimKind, "default", "data");
    world.change_virtual("PersistentVolumeClaim", "default", "data", |c| c["spec"]["volumeName"] = json!("mine"));
    world.settle(&ClaimKind, "default", "data");
    assert_eq!((phase(&world).as_str(), world.explained.len()), ("Pending", 1));
    assert!(world.host("PersistentVolumeClaim", COPY).is_some(), "it may be bound at this moment");
    world.change_host("PersistentVolumeClaim", COPY, |host| {
        host["spec"]["volumeName"] = json!("pvc-1");
        host["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
    });
    world.settle(&ClaimKind, "default", "data");
    assert_eq!(phase(&world), "Pending");
}

/// As a tenant's claims are written again from what stands on the host: with the host's volume, for another uid.
#[test]
fn a_claim_that_names_the_volume_of_its_own_copy_is_bound() {
    let mut world = bound();
    let mut again = naming("pvc-1");
    again["metadata"]["uid"] = json!("u2");
    world.put_virtual("PersistentVolumeClaim", again);
    world.change_host("PersistentVolumeClaim", COPY, |host| {
        host["metadata"]["annotations"]["portico.dev/object-uid"] = json!("u2");
    });
    world.settle(&ClaimKind, "default", "data");
    assert_eq!(phase(&world), "Bound");
    assert!(world.explained.is_empty(), "{:?}", world.explained);
    assert_eq!(world.host("PersistentVolumeClaim", COPY).expect("kept")["spec"]["volumeName"], "pvc-1");
}

#[test]
fn another_tenants_volume_is_not_shown() {
    let mut world = bound();
    world.put_host("PersistentVolume", json!({
        "metadata": {"name": "pvc-2"},
        "spec": {"claimRef": {"namespace": "team-a", "name": "data-x-default-x-vc2", "uid": "x"}}, "status": {"phase": "Bound"},
    }));
    world.settle(&VolumeKind, "", "pvc-2");
    assert!(world.virtual_one("PersistentVolume", "", "pvc-2").is_none());
}

#[test]
fn hostile_input_never_panics() {
    hostile_plans(&ClaimKind, &claim());
    hostile_plans(
        &VolumeKind,
        &json!({"metadata": {"name": "v"}, "spec": {"claimRef": {"namespace": "team-a", "name": "n"}}}),
    );
}

#[test]
fn volumes_that_were_made_for_others_are_not_bound() {
    for (field, value, annotations, setting) in [
        ("selector", json!({"matchLabels": {"a": "b"}}), json!({}), "staticVolumes"),
        ("storageClassName", json!(""), json!({}), "staticVolumes"),
        ("storageClassName", json!("gold"), json!({}), "storageClasses"),
        (
            "volumeMode",
            json!("Filesystem"),
            json!({"volume.beta.kubernetes.io/storage-class": "gold"}),
            "storageClasses",
        ),
    ] {
        let mut world = World::new();
        let bounds = PolicyBounds { storage_classes: vec!["fast".to_owned()], ..PolicyBounds::default() };
        world.view.policy = GrantedPolicy::of(bounds, Policy::default());
        let mut claim = claim();
        claim["spec"][field] = value;
        claim["metadata"]["annotations"] = annotations;
        world.put_virtual("PersistentVolumeClaim", claim);
        world.settle(&ClaimKind, "default", "data");
        assert!(world.host("PersistentVolumeClaim", "data-x-default-x-vc1").is_none(), "{field}");
        assert!(world.explained.iter().any(|(_, m)| m.contains(&format!("`{setting}`"))), "{field}");
        world.view = crate::translate::testing::open_view();
        world.settle(&ClaimKind, "default", "data");
        assert!(world.host("PersistentVolumeClaim", "data-x-default-x-vc1").is_some(), "{field}");
    }
}
