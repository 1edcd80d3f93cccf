//! One tenant's control plane dies: the others notice nothing, and its own clients are told to come again.

use std::time::{Duration, Instant};

use crate::harness::{Dump, Tenant, alpha, eventually, host, kill_containers, raw, restarts, run_id};

#[test]
fn a_dying_control_plane_is_its_own_tenants_trouble_only_and_comes_back_with_its_data() {
    let namespace = format!("e2e-outage-{}", run_id());
    let dying: &'static Tenant = Box::leak(Box::new(Tenant::create("dying", &namespace, &["--storage", "1Gi"])));
    let space = alpha().space("bystander");
    let _dump = Dump(vec![alpha(), dying]);
    dying.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    space.pod("box");
    let watch = space.invocation(&["get", "configmaps", "-w", "-o", "name"]).start();
    let mut exec = space.invocation(&["exec", "-i", "box", "--", "cat"]).start();
    exec.write(b"before\n");
    exec.line_with("before");
    space.kubectl(&["create", "configmap", "before"]).ok();
    watch.line_with("configmap/before");

    let label = "portico.dev/control-plane=dying";
    let before = restarts(&namespace, label);
    kill_containers(&namespace, label);
    let began = Instant::now();
    let mut told_to_retry = 0_u32;
    loop {
        let answer = raw(&dying.kubeconfig, "/api/v1/namespaces/default/configmaps/kept", &[], |_| {})
            .expect("the gateway itself is there");
        if answer.code == 200 && told_to_retry > 0 {
            break;
        }
        if answer.code != 200 {
            answer.is_status(503);
            assert!(answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
            told_to_retry += 1;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{told_to_retry} refusals, then {}", answer.text());
        // While it is away, the neighbour's stream goes on.
        let word = format!("during-{told_to_retry}-{}", began.elapsed().as_millis());
        exec.write(format!("{word}\n").as_bytes());
        exec.line_with(&word);
    }
    space.kubectl(&["create", "configmap", "after"]).ok();
    watch.line_with("configmap/after");
    eventually("the kubelet has noticed", || match restarts(&namespace, label) {
        now if now == before + 1 => Ok(()),
        now => Err(format!("{before} restarts before, {now} now")),
    });
    // Writes and the syncer are back too.
    dying.kubectl(&["create", "configmap", "new"]).ok();
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}
