//! Whoever may edit a VirtualCluster can tighten its policy and not widen it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{BUSYBOX, Dump, Space, beta, eventually, portico};

/// Makes a pod and waits for what is said of it.
fn denied(space: &Space, name: &str, mut spec: Value) -> String {
    spec["containers"] = json!([{"name": "main", "image": BUSYBOX, "command": ["sleep", "3600"]}]);
    space.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string());
    space.denied(name)
}

#[test]
fn hostile_editors_do_not_get_root_on_the_nodes() {
    let space = beta().space("editor");
    let _dump = Dump(vec![beta()]);
    let patch = |policy: Value| {
        let patch = json!({"spec": {"policy": policy}}).to_string();
        beta().on_host(&["patch", "virtualcluster", "beta", "--type", "merge", "-p", &patch]).ok();
    };
    patch(json!({"podSecurity": "privileged", "storageClasses": ["*"], "csiDrivers": ["*"]}));
    let describe = ["describe", "beta", "-n", beta().namespace.as_str()];
    eventually("what is in force", || {
        let said = portico(&describe).out();
        if said.contains("baseline (of privileged: the configuration allows no more)") { Ok(()) } else { Err(said) }
    });
    assert!(denied(&space, "root", json!({"hostPID": true})).contains("`podSecurity`"));
    let inline = json!({"volumes": [{"name": "v", "csi": {"driver": "secrets-store.csi.k8s.io"}}]});
    assert!(denied(&space, "driver", inline).contains("`csiDrivers`"));
    assert_eq!(space.on_host("pods"), BTreeSet::new());
    patch(json!({"podSecurity": null, "storageClasses": null, "csiDrivers": null}));
}
