//! SIGKILL at the worst moment, for every replica at once: what was being done is done to its end, once.
//!
//! Ignored by default, since every other test would notice: `tests/e2e/run` runs these behind the others, alone.

use std::collections::BTreeSet;

use crate::harness::{
    AGNHOST, Dump, PORTICO, SYSTEM, alpha, eventually, eventually_is, host, kill_containers, names, restarts, settled,
};

fn kill_portico() {
    kill_containers(SYSTEM, PORTICO);
}

#[test]
#[ignore = "kills Portico under every other test; tests/e2e/run runs it alone"]
fn a_kill_in_the_middle_of_a_burst_leaves_no_orphan_and_no_double() {
    settled();
    let space = alpha().space("crash");
    let _dump = Dump(vec![alpha()]);
    let image = format!("--image={AGNHOST}");
    let before = restarts(SYSTEM, PORTICO);
    space.kubectl(&["create", "deployment", "burst", "--replicas=12", &image, "--", "/agnhost", "pause"]).ok();
    eventually_is("the burst has begun", || !space.on_host("pods").is_empty());
    kill_portico();
    eventually_is("the kubelet has noticed", || restarts(SYSTEM, PORTICO) >= before + 2);
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
    let before = restarts(SYSTEM, PORTICO);
    kill_portico();
    eventually_is("nothing is left", || space.on_host("pods").is_empty());
    // Whoever comes next meets a Portico that is whole again: until the kubelet notices, the dead are said to be ready.
    eventually_is("the kubelet has noticed again", || restarts(SYSTEM, PORTICO) >= before + 2);
    host(&["-n", SYSTEM, "rollout", "status", "deployment/portico", "--timeout=120s"]).ok();
}
