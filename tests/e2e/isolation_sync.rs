//! What a hostile tenant multiplies in the syncer is refused with an event, and nobody else notices.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{BUSYBOX, Dump, SYSTEM, Space, Tenant, alpha, beta, host, run_id};

const NAMESPACES: usize = 600;
const TERMS: usize = 6000;

/// Deletes the namespaces behind the test, whatever became of it.
struct Crowd(String);

impl Crowd {
    fn of(tenant: &Tenant) -> Self {
        let crowd = format!("crowd-{}", run_id());
        let namespace = |n| {
            json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": format!("{crowd}-{n}"), "labels": {"crowd": crowd}}})
        };
        let list: Value =
            json!({"apiVersion": "v1", "kind": "List", "items": (0..NAMESPACES).map(namespace).collect::<Value>()});
        crate::harness::Invocation::kubectl(&tenant.kubeconfig, &["create", "-f", "-"])
            .stdin(list.to_string().as_bytes())
            .run()
            .ok();
        Self(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        beta().kubectl(&["delete", "namespaces", "-l", &format!("crowd={}", self.0), "--wait=false"]);
    }
}

fn pod(name: &str, spec: &Value) -> String {
    let mut spec = spec.clone();
    spec["terminationGracePeriodSeconds"] = json!(1);
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "main", "image": BUSYBOX, "command": ["sleep", "3600"]}]);
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}

fn terms(number: usize, crowd: &str) -> Value {
    let term = |_| {
        json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "none"}},
            "namespaceSelector": {"matchLabels": {"crowd": crowd}}})
    };
    let terms: Value = (0..number).map(term).collect();
    json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}})
}

/// Without the copy that `apply` keeps: its annotation would be too long.
fn create(space: &Space, manifest: &str) {
    space.invocation(&["create", "-f", "-"]).stdin(manifest.as_bytes()).run().ok();
}

/// Containers that the kernel ended for want of memory, of Portico and of control planes (with their sidecars).
fn killed() -> Vec<String> {
    let pods = [
        host(&["-n", SYSTEM, "get", "pods", "-o", "json"]).json(),
        beta().on_host(&["get", "pods", "-l", "!portico.dev/namespace", "-o", "json"]).json(),
    ];
    let statuses = pods.iter().flat_map(|list| list["items"].as_array().expect("pods")).flat_map(|pod| {
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        statuses.into_iter().map(|status| (pod["metadata"]["name"].to_string(), status))
    });
    statuses
        .filter(|(_, status)| {
            [&status["lastState"], &status["state"]].iter().any(|s| s["terminated"]["reason"] == "OOMKilled")
        })
        .map(|(pod, status)| format!("{pod} {}", status["name"]))
        .collect()
}

#[test]
fn hostile_terms_times_namespaces_are_refused_and_nobody_is_killed() {
    let (theirs, mine) = (beta().space("terms"), alpha().space("terms"));
    let _dump = Dump(vec![alpha(), beta()]);
    let before = killed();
    let crowd = Crowd::of(beta());
    for (name, number) in [("six-thousand", TERMS), ("three-hundred", 300), ("ninety", 90)] {
        create(&theirs, &pod(name, &terms(number, &crowd.0)));
    }
    assert!(theirs.denied("six-thousand").contains("at most"));
    let said = theirs.denied("three-hundred");
    assert!(said.contains("300 terms") && said.contains("at most 100"), "{said}");
    let said = theirs.denied("ninety");
    assert!(said.contains("namespaceSelector: {}"), "{said}");
    assert_eq!(theirs.on_host("pods"), BTreeSet::new());
    // The neighbour, and the hostile tenant's own ordinary pod, go on.
    mine.pod("box");
    theirs.pod("box");
    assert_eq!(theirs.on_host("pods"), BTreeSet::from([theirs.host_name("box")]));
    assert_eq!(killed(), before, "containers out of memory");
}

#[test]
fn hostile_pods_that_multiply_are_refused_by_name_number_and_bound() {
    let space = beta().space("multiply");
    let _dump = Dump(vec![beta()]);
    let container = |more: Value| {
        let mut container = json!({"name": "main", "image": BUSYBOX, "command": ["sleep", "3600"]});
        container.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!([container])
    };
    let doubling = |n: usize| match n {
        0 => json!({"name": "V0", "value": "0123456789"}),
        n => json!({"name": format!("V{n}"), "value": format!("$(V{m})$(V{m})", m = n - 1)}),
    };
    let reference = |n| json!({"configMapRef": {"name": format!("c{n}"), "optional": true}});
    let token = |n: usize| json!({"serviceAccountToken": {"path": format!("t{n}"), "expirationSeconds": 600}});
    let many = |number: usize, one: &dyn Fn(usize) -> Value| (0..number).map(one).collect::<Value>();
    let pods = [
        ("doubling", "$(NAME)", json!({"containers": container(json!({"env": many(30, &doubling)}))})),
        (
            "references",
            "names of ConfigMaps",
            json!({"containers": container(json!({"envFrom": many(1100, &reference)}))}),
        ),
        (
            "tokens",
            "tokens",
            json!({"containers": container(json!({})), "volumes": [
            {"name": "v", "projected": {"sources": many(40, &token)}}]}),
        ),
    ];
    for (name, _, spec) in &pods {
        create(&space, &pod(name, spec));
    }
    for (name, word, _) in &pods {
        let said = space.denied(name);
        assert!(said.contains(word) && said.contains("at most"), "{said}");
    }
    assert_eq!(space.on_host("pods"), BTreeSet::new());
}
