//! What virtual clusters used, as `portico usage` tells it.

use serde_json::{Value, json};

use crate::harness::{
    BUSYBOX, Dump, PORTICO, SYSTEM, Space, Tenant, alpha, beta, eventually, eventually_is, host, kill_containers,
    portico, restarts, run_id, settled,
};

/// Rows of the last day, by namespace inside.
fn used(tenant: &Tenant, within: &str) -> Value {
    let arguments = ["usage", &tenant.name, "-n", &tenant.namespace, "--namespaces", "-o", "json"];
    let whole = portico(&arguments).json();
    let items = whole["items"].as_array().cloned().unwrap_or_default();
    assert!(items.iter().all(|item| item["namespace"] == json!(tenant.namespace)), "nobody else's: {whole}");
    items.into_iter().find(|item| item["virtualNamespace"] == within).unwrap_or_default()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_default()
}

fn busy(space: &Space) {
    let line = "trap exit TERM; while true; do i=0; while [ $i -lt 4000 ]; do i=$((i+1)); done; sleep 0.1; done";
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "busy", "labels": {"app": "busy"}}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "work", "image": BUSYBOX, "command": ["sh", "-c", line],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}});
    space.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [claim, pod]}).to_string());
}

#[test]
fn pods_volumes_calls_and_streams_are_told_by_namespace() {
    let (space, other) = (alpha().space("used"), beta().space("used"));
    let _dump = Dump(vec![alpha()]);
    busy(&space);
    space.wait("pod/busy", "condition=Ready");
    other.kubectl(&["get", "pods"]).ok();
    space.sh("busy", "head -c 300000 /dev/zero").ok();
    let row = eventually("all of it is measured", || {
        let row = used(alpha(), &space.name);
        let measured =
            ["podSeconds", "cpuCoreSeconds", "memoryByteSeconds", "volumeByteSeconds", "apiCalls", "apiBytes"];
        let is_whole = measured.iter().all(|key| number(&row, key) > 0.0) && number(&row, "streamBytes") >= 300_000.0;
        if is_whole { Ok(row) } else { Err(row.to_string()) }
    });
    // One core at most, and the claim as long as the pod, or about that.
    assert!(number(&row, "cpuCoreSeconds") <= 2.0 * number(&row, "podSeconds"), "{row}");
    assert!(number(&row, "memoryByteSeconds") < number(&row, "podSeconds") * f64::from(1 << 30), "{row}");
    let of_other = eventually("the other tenant's calls", || {
        let row = used(beta(), &other.name);
        if number(&row, "apiCalls") > 0.0 { Ok(row) } else { Err(row.to_string()) }
    });
    assert_eq!((number(&of_other, "podSeconds"), number(&of_other, "streamBytes")), (0.0, 0.0), "{of_other}");
    // For people, for machines, and bad input.
    let table = portico(&["usage", "-A"]).ok();
    assert!(table.lines().next().is_some_and(|header| header.contains("CPU CORE HOURS")), "{table}");
    let csv = portico(&["usage", "-A", "-o", "csv", "--since", "2026-01-01"]).ok();
    let mine = format!("{},{},,", alpha().namespace, alpha().name);
    assert!(csv.lines().any(|line| line.starts_with(&mine)), "{csv}");
    portico(&["usage", "-A", "--since", "yesterday"]).fails(&["write 90m, 24h or 7d"]);
    portico(&["usage", "-A", "--since", "1h", "--until", "2020-01-01"]).fails(&["--since must be before --until"]);
    // Labels by which OpenCost and kube-state-metrics tell tenants apart.
    let labels = alpha().on_host(&["get", "pod", &space.host_name("busy"), "-o", "jsonpath={.metadata.labels}"]).ok();
    let labels: Value = serde_json::from_str(&labels).expect("labels");
    assert_eq!(labels["portico.dev/cluster"], json!(alpha().name));
    assert_eq!(labels["portico.dev/namespace"], json!(space.name));
}

#[test]
#[ignore = "kills Portico under every other test; tests/e2e/run runs it alone"]
fn what_was_told_outlives_kills_and_the_cluster_itself() {
    settled();
    let namespace = format!("e2e-usage-{}", run_id());
    let tenant = Tenant::create("billed", &namespace, &["--ephemeral"]);
    // An API server that has just begun may ask kubectl to come again, and that is a call as well.
    let calls = |number: usize| -> f64 {
        let path = "/api/v1/namespaces/metered/configmaps";
        let answered = |line: &&str| line.contains("\"Response\"") && line.contains(path);
        let answers = (0..number).map(|_| {
            let asked = tenant.kubectl(&["get", "--raw", path, "--v=6"]);
            asked.err.lines().filter(answered).count()
        });
        let answers: usize = answers.sum();
        assert!(answers >= number, "kubectl tells each answer: {answers} of {number}");
        answers as f64
    };
    let told = |expected: f64| {
        eventually("the calls are told", || {
            let row = used(&tenant, "metered");
            if number(&row, "apiCalls") == expected { Ok(()) } else { Err(row.to_string()) }
        });
    };
    let mut total = calls(20);
    told(total);
    for _ in 0..2 {
        let before = restarts(SYSTEM, PORTICO);
        kill_containers(SYSTEM, PORTICO);
        eventually_is("the kubelet has noticed", || restarts(SYSTEM, PORTICO) >= before + 2);
        host(&["-n", SYSTEM, "rollout", "status", "deployment/portico", "--timeout=120s"]).ok();
        told(total);
        eventually("the tenant answers", || tenant.kubectl(&["get", "--raw", "/readyz"]).result());
        total += calls(10);
        told(total);
    }
    portico(&["delete", &tenant.name, "-n", &namespace, "--delete-namespace"]).ok();
    told(total);
    // A replica that leaves writes what it counted last; what its successors find is the same.
    host(&["-n", SYSTEM, "rollout", "restart", "deployment/portico"]).ok();
    host(&["-n", SYSTEM, "rollout", "status", "deployment/portico", "--timeout=180s"]).ok();
    told(total);
}
