//! SIGKILL at the worst moment, for every replica at once: what was being done is done to its end, once.
//!
//! Ignored by default, since every other test would notice: `tests/e2e/run` runs these behind the others, alone.

use std::collections::BTreeSet;
use std::process::Command;

use crate::harness::{AGNHOST, Dump, SYSTEM, alpha, eventually, eventually_is, host, host_kubeconfig, names};

/// Kills the process in every container of Portico; the kubelet starts them again in the same pods.
fn kill_portico() {
    let select = ["-n", SYSTEM, "get", "pods", "-l", "portico.dev/component=portico", "-o"];
    let ids = "jsonpath={.items[*].status.containerStatuses[*].containerID}";
    let ids = host(&[&select[..], &[ids]].concat()).ok();
    let socket = host_kubeconfig().with_file_name("run/containerd.sock");
    for id in ids.split_whitespace() {
        let id = id.trim_start_matches("containerd://");
        let killed = Command::new("ctr")
            .arg("-a")
            .arg(&socket)
            .args(["-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", id])
            .output()
            .expect("ctr runs");
        assert!(killed.status.success(), "{}", String::from_utf8_lossy(&killed.stderr));
    }
}

fn restarts() -> u64 {
    let pods = host(&["-n", SYSTEM, "get", "pods", "-l", "portico.dev/component=portico", "-o", "json"]).json();
    let statuses =
        pods["items"].as_array().expect("pods").iter().flat_map(|p| p["status"]["containerStatuses"].as_array());
    statuses.flatten().map(|c| c["restartCount"].as_u64().unwrap_or(0)).sum()
}

#[test]
#[ignore = "kills Portico under every other test; tests/e2e/run runs it alone"]
fn a_kill_in_the_middle_of_a_burst_leaves_no_orphan_and_no_double() {
    let space = alpha().space("crash");
    let _dump = Dump(vec![alpha()]);
    let image = format!("--image={AGNHOST}");
    let before = restarts();
    space.kubectl(&["create", "deployment", "burst", "--replicas=12", &image, "--", "/agnhost", "pause"]).ok();
    eventually_is("the burst has begun", || !space.on_host("pods").is_empty());
    kill_portico();
    eventually_is("the kubelet has noticed", || restarts() >= before + 2);
    host(&["-n", SYSTEM, "rollout", "status", "deployment/portico", "--timeout=120s"]).ok();
    eventually("the burst is through", || {
        space.kubectl(&["rollout", "status", "deployment/burst", "--timeout=20s"]).result()
    });
    let inside = names(&space.kubectl(&["get", "pods", "-o", "json"]).json());
    let wanted: BTreeSet<String> = inside.iter().map(|pod| space.host_name(pod)).collect();
    assert_eq!(wanted.len(), 12);
    eventually("both sides agree", || {
        let found = space.on_host("pods");
        if found == wanted { Ok(()) } else { Err(format!("host {found:?}, wanted {wanted:?}")) }
    });
    // And again while everything is being deleted.
    space.kubectl(&["delete", "deployment", "burst", "--wait=false"]).ok();
    kill_portico();
    eventually_is("nothing is left", || space.on_host("pods").is_empty());
    host(&["-n", SYSTEM, "rollout", "status", "deployment/portico", "--timeout=120s"]).ok();
}
