//! A trace at a collector, from a request to the host pod.

use std::path::Path;

use crate::gateway::at_root;
use crate::harness::{BUSYBOX, Dump, Invocation, alpha, node, raw};

/// As `tests/e2e/run` has it configured: only who brings a trace of his own is traced.
const COLLECTOR: &str = "12950";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const OF_POD: &str = "0af7651916cd43dd8448eb211c80319c";

#[test]
fn a_request_with_a_trace_of_its_own_is_a_part_of_it_at_the_collector() {
    let space = alpha().space("traced");
    let _dump = Dump(vec![alpha()]);
    space.pod("web");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/collector.py").display().to_string();
    let collector = Invocation::new("/usr/bin/python3", &alpha().kubeconfig, &[&script, &node(), COLLECTOR]).start();
    collector.line_with("ready");
    let path = format!("{}/api/v1/namespaces/{}/pods/web/log", alpha().path(), space.name);
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let answer = raw(&alpha().kubeconfig, &path, &[("traceparent", &parent)], at_root).expect("an answer");
    assert_eq!(answer.code, 200, "{}", answer.text());
    let told = collector.line_with(TRACE);
    for part in ["get pods/log", "authorize", "locate", "host", &space.host_name("web")] {
        assert!(told.contains(part), "{part:?} of {told}");
    }

    // A pod's way, as a part of a trace that it names.
    let said = format!("portico.dev/traceparent=00-{OF_POD}-00f067aa0ba902b7-01");
    space
        .kubectl(&["run", "followed", &format!("--image={BUSYBOX}"), "--annotations", &said, "--", "sleep", "600"])
        .ok();
    let told = collector.line_with(OF_POD);
    let stages = ["queue", "plan", "write on the host", "schedule", "start", "tell the tenant", "ready"];
    for part in stages.into_iter().chain([space.host_name("followed").as_str()]) {
        assert!(told.contains(part), "{part:?} of {told}");
    }
    let annotations = "jsonpath={.metadata.annotations}";
    let copy = alpha().on_host(&["get", "pod", &space.host_name("followed"), "-o", annotations]).ok();
    assert!(!copy.contains("traceparent"), "{copy}");
}
