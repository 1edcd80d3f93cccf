//! The audit log as it is on the node's disk: whose an exec was, and where it went.

use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Dump, alpha, eventually, target};

/// The events of all replicas, in the files of their pods' volumes.
fn events() -> Vec<Value> {
    let mut files: Vec<PathBuf> = Vec::new();
    let pods = std::fs::read_dir(target().join("cluster/kubelet/pods")).expect("the kubelet's pods");
    for pod in pods.flatten() {
        let volume = pod.path().join("volumes/kubernetes.io~empty-dir/audit");
        files.extend(std::fs::read_dir(volume).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    let texts = files.iter().filter(|file| file.is_file()).filter_map(|file| std::fs::read_to_string(file).ok());
    let lines: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
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
