//! Tests of `cluster`.

use super::super::testing::{World, hostile_plans, writes};
use super::*;

fn node() -> Value {
    json!({
        "metadata": {"name": "n1", "uid": "h", "labels": {"kubernetes.io/hostname": "n1", "pool": "a", "portico.dev/x": "y"},
            "annotations": {"secret": "s"}},
        "spec": {"podCIDR": "10.0.0.0/24", "providerID": "cloud://1", "taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {
            "capacity": {"cpu": "2", "gpu": "1"}, "allocatable": {"cpu": "2"}, "images": [{"names": ["i"]}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "ExternalIP", "address": "203.0.113.1"}],
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:10:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "nodeInfo": {"kubeletVersion": "v1.34.4", "machineID": "m"},
        },
    })
}

#[test]
fn nodes_come_up_without_the_hosts_private_parts() {
    let mut world = World::new();
    world.put_host("Node", node());
    world.settle(&NodeKind, "", "n1");
    let shown = world.virtual_one("Node", "", "n1").expect("shown");
    assert_eq!(
        shown["metadata"]["labels"],
        json!({"kubernetes.io/hostname": "n1", "pool": "a", "portico.dev/from-host": "true"})
    );
    assert_eq!(shown["spec"], json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}));
    assert_eq!(shown["status"]["addresses"], json!([{"type": "InternalIP", "address": "10.0.0.1"}]));
    assert_eq!(shown["status"]["nodeInfo"]["kubeletVersion"], "v1.34.4");
    assert_eq!(shown["status"]["nodeInfo"]["machineID"], "");
    let text = shown.to_string();
    assert!(!text.contains("cloud://") && !text.contains("images") && !text.contains("secret"), "{text}");
}

/// Admission gives a new Node a taint that on a plain cluster the node lifecycle controller removes; here it is off.
#[test]
fn a_new_node_has_the_hosts_taints_and_no_other() {
    for taints in [json!(null), json!([]), json!([{"key": "k", "effect": "NoSchedule"}])] {
        let mut world = World::new();
        let mut host = node();
        host["spec"] = json!({"taints": taints});
        world.put_host("Node", host);
        world.step(&NodeKind, "", "n1");
        let made = world.virtual_one("Node", "", "n1").expect("made");
        assert!(made.to_string().contains("not-ready"), "the API server of this test does what a real one does");
        world.settle(&NodeKind, "", "n1");
        let shown = world.virtual_one("Node", "", "n1").expect("shown");
        assert_eq!(json::items(&shown, "/spec/taints"), json::items(&json!({"taints": taints}), "/taints"));
    }
}

/// Only the host's scheduler places pods, and it heeds the host's node.
#[test]
fn what_keeps_pods_off_a_node_is_the_hosts_word_alone() {
    let mut world = World::new();
    let mut host = node();
    host["spec"] = json!({"taints": [{"key": "k", "effect": "NoSchedule"}], "unschedulable": true});
    world.put_host("Node", host);
    world.settle(&NodeKind, "", "n1");
    assert_eq!(world.virtual_one("Node", "", "n1").expect("shown")["spec"]["unschedulable"], true);
    world.change_host("Node", "n1", |n| n["spec"] = json!({}));
    world.settle(&NodeKind, "", "n1");
    assert_eq!(world.virtual_one("Node", "", "n1").expect("shown")["spec"], json!({}));
    world.change_virtual("Node", "", "n1", |n| {
        n["spec"] = json!({"unschedulable": true, "taints": [{"key": "own", "effect": "NoExecute"}]});
    });
    let plan = world.step(&NodeKind, "", "n1");
    assert_eq!(writes(&plan).len(), 1, "one write for one of the user's");
    assert_eq!(world.virtual_one("Node", "", "n1").expect("shown")["spec"], json!({}));
    assert!(writes(&world.plan(&NodeKind, "", "n1")).is_empty());
}

#[test]
fn heartbeats_are_no_change() {
    let mut world = World::new();
    world.put_host("Node", node());
    world.settle(&NodeKind, "", "n1");
    let before = NodeKind.project(node(), Direction::Up);
    world.change_host("Node", "n1", |n| {
        n["status"]["conditions"][0]["lastHeartbeatTime"] = json!("2026-01-01T09:00:00Z")
    });
    assert_eq!(NodeKind.project(world.host("Node", "n1").expect("node"), Direction::Up), before);
    assert!(writes(&world.plan(&NodeKind, "", "n1")).is_empty());
    world.change_host("Node", "n1", |n| {
        n["status"]["capacity"] = json!({"cpu": "2"});
        n["status"]["conditions"][0] =
            json!({"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T10:00:00Z"});
    });
    world.settle(&NodeKind, "", "n1");
    let shown = world.virtual_one("Node", "", "n1").expect("shown");
    assert_eq!(shown["status"]["capacity"], json!({"cpu": "2"}));
    assert_eq!(shown["status"]["conditions"][0]["status"], "False");
}

#[test]
fn only_selected_nodes_are_shown_and_leave_when_not() {
    let mut world = World::new();
    world.view.node_selector = [("pool".to_owned(), "a".to_owned())].into();
    world.put_host("Node", node());
    world.settle(&NodeKind, "", "n1");
    assert!(world.virtual_one("Node", "", "n1").is_some());
    world.change_host("Node", "n1", |n| n["metadata"]["labels"]["pool"] = json!("b"));
    world.settle(&NodeKind, "", "n1");
    assert!(world.virtual_one("Node", "", "n1").is_none());
}

#[test]
fn classes_come_up_and_the_tenants_own_stay() {
    let kind = ClassKind::storage();
    let mut world = World::new();
    let class = json!({"metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true", "x": "y"}},
        "provisioner": "p", "parameters": {"secret": "s"}, "reclaimPolicy": "Delete"});
    world.put_host("StorageClass", class);
    world.put_host("StorageClass", json!({"metadata": {"name": "own"}, "provisioner": "p"}));
    world.put_virtual("StorageClass", json!({"metadata": {"name": "own", "uid": "u"}, "provisioner": "tenant"}));
    world.settle(&kind, "", "fast");
    world.settle(&kind, "", "own");
    let shown = world.virtual_one("StorageClass", "", "fast").expect("shown");
    assert!(shown.get("parameters").is_none());
    assert_eq!(shown["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"], "true");
    assert_eq!(world.virtual_one("StorageClass", "", "own").expect("kept")["provisioner"], "tenant");
    // A fixed field cannot be patched: made again.
    world.change_host("StorageClass", "fast", |c| c["provisioner"] = json!("q"));
    world.settle(&kind, "", "fast");
    assert_eq!(world.virtual_one("StorageClass", "", "fast").expect("made again")["provisioner"], "q");
    world.remove_host("StorageClass", "fast");
    world.settle(&kind, "", "fast");
    assert!(world.virtual_one("StorageClass", "", "fast").is_none());
}

#[test]
fn system_priority_classes_are_every_clusters_own() {
    let kind = ClassKind::priority();
    let world = World::new();
    assert_eq!(kind.virtual_key(&json!({"metadata": {"name": "system-node-critical"}}), &world.view), None);
    let mut world = World::new();
    world.put_host("PriorityClass", json!({"metadata": {"name": "high"}, "value": 5, "globalDefault": true}));
    world.settle(&kind, "", "high");
    let shown = world.virtual_one("PriorityClass", "", "high").expect("shown");
    assert!(shown.get("globalDefault").is_none());
}

#[test]
fn hostile_input_never_panics() {
    hostile_plans(&NodeKind, &node());
    for kind in [ClassKind::storage(), ClassKind::priority(), ClassKind::runtime(), ClassKind::ingress()] {
        hostile_plans(&kind, &node());
    }
}
