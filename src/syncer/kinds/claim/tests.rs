//! Tests of `claim`.

use super::super::testing::{World, hostile_plans};
use super::*;

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
