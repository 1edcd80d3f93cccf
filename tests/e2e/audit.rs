//! The audit log as it is on the node's disk: whose an exec was, and where it went.

use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{
    Dump, PORTICO, SYSTEM, alpha, eventually, eventually_is, kill_containers, restarts, settled, target,
};

/// The events of all replicas, in the files of their pods' volumes.
fn events() -> Vec<Value> {
    lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Lines that are none.
fn unreadable() -> usize {
    lines().iter().filter(|line| serde_json::from_str::<Value>(line).is_err()).count()
}

fn lines() -> Vec<String> {
    let mut files: Vec<PathBuf> = Vec::new();
    let pods = std::fs::read_dir(target().join("cluster/kubelet/pods")).expect("the kubelet's pods");
    for pod in pods.flatten() {
        let volume = pod.path().join("volumes/kubernetes.io~empty-dir/audit");
        files.extend(std::fs::read_dir(volume).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    let texts = files.iter().filter(|file| file.is_file()).filter_map(|file| std::fs::read_to_string(file).ok());
    texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn an_exec_is_in_the_audit_log_with_its_user_and_the_host_pod() {
    let space = alpha().space("audited");
    let _dump = Dump(vec![alpha()]);
    space.pod("web");
    space.kubectl(&["exec", "web", "--", "echo", "not-to-be-written"]).ok();
    let is_it = |event: &&Value| {
        let object = &event["objectRef"];
        object["namespace"] == space.name.as_str()
            && object["subresource"] == "exec"
            && event["stage"] == "ResponseComplete"
    };
    let event = eventually("the exec is there", || {
        let all = events();
        all.iter().find(is_it).cloned().ok_or_else(|| format!("{} events", all.len()))
    });
    assert_eq!((&event["kind"], &event["apiVersion"]), (&"Event".into(), &"audit.k8s.io/v1".into()), "{event}");
    assert_eq!(event["user"]["username"], "kubernetes-admin", "{event}");
    assert_eq!(event["responseStatus"]["code"], 101, "{event}");
    let said = |name: &str| event["annotations"][format!("portico.dev/{name}")].as_str().unwrap_or_default().to_owned();
    assert_eq!(said("cluster"), format!("{}/{}", alpha().namespace, alpha().name), "{event}");
    assert_eq!(said("host-pod"), space.host_name("web"), "{event}");
    assert!(!said("host-node").is_empty() && said("credential") == "certificate", "{event}");
    let written = serde_json::to_string(&events()).expect("JSON");
    assert!(!written.contains("not-to-be-written"), "the command is nobody's here");
}

/// What was answered a while before is there, whole, whatever ends the process; and the file goes on.
#[test]
#[ignore = "kills Portico under every other test; tests/e2e/run runs it alone"]
fn sigkill_costs_nothing_that_was_written_and_tears_no_line_for_long() {
    settled();
    let space = alpha().space("killed");
    let _dump = Dump(vec![alpha()]);
    // An event of what is created has no name: that stands in the body, which is not read.
    let delete = |n: usize| space.kubectl(&["delete", "configmap", &format!("c{n}"), "--ignore-not-found"]);
    let has = |all: &[Value], n: usize| {
        let name = format!("c{n}");
        all.iter().any(|event| {
            let object = &event["objectRef"];
            object["namespace"] == space.name.as_str() && object["name"] == name.as_str() && event["verb"] == "delete"
        })
    };
    (0..20).for_each(|n| drop(delete(n).ok()));
    eventually("the last one is written", || if has(&events(), 19) { Ok(()) } else { Err("not yet".to_owned()) });
    let before = restarts(SYSTEM, PORTICO);
    // In the middle of others.
    let burst = std::thread::scope(|scope| {
        let burst = scope.spawn(|| (20..60).filter(|n| delete(*n).code == 0).count());
        std::thread::sleep(std::time::Duration::from_millis(500));
        kill_containers(SYSTEM, PORTICO);
        burst.join().expect("the burst ends")
    });
    eventually_is("the kubelet has noticed", || restarts(SYSTEM, PORTICO) >= before + 2);
    settled();
    delete(60).ok();
    eventually("the file goes on", || if has(&events(), 60) { Ok(()) } else { Err("not yet".to_owned()) });
    let all = events();
    assert!((0..20).all(|n| has(&all, n)), "what was written before; {burst} of 40 were done in the burst");
    eventually_is("whoever reads the file finds whole lines", || unreadable() == 0);
}
