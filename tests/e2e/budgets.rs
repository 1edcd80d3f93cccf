//! What one virtual cluster may use up: its store, its number of objects on the host. Whoever is at the end of it is told how
//! to go on, and goes on.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{Answer, Dump, Invocation, Tenant, eventually, eventually_is, host, run_id, sleeper, work};

/// 30 percent of what its pod may take.
const BOUND: &str = "60 MiB";

fn bounded(name: &str) -> &'static Tenant {
    let spec = json!({
        "storage": {"ephemeral": true},
        "resources": {"limits": {"ephemeral-storage": "200Mi"}},
        "policy": {"objects": {"pods": 2, "services.nodeports": 1}},
    });
    let file = work().join(format!("{name}-spec.yaml"));
    std::fs::write(&file, spec.to_string()).expect("written");
    let namespace = format!("e2e-{name}-{}", run_id());
    Box::leak(Box::new(Tenant::create(name, &namespace, &["-f", &file.display().to_string()])))
}

fn condition(tenant: &Tenant, field: &str) -> String {
    let path = format!("jsonpath={{.status.conditions[?(@.type=='StoreFull')].{field}}}");
    tenant.on_host(&["get", "virtualcluster", &tenant.name, "-o", &path]).out()
}

fn settings(tenant: &Tenant, name: &str, file: &str) -> Answer {
    tenant.kubectl(&["-n", "fill", "create", "configmap", name, &format!("--from-file=data={file}")])
}

#[test]
fn hostile_tenants_fill_their_own_store_and_are_told_before_the_wall() {
    let tenant = bounded("filler");
    let _dump = Dump(vec![tenant]);
    tenant.kubectl(&["create", "namespace", "fill"]).ok();
    let file = work().join("filling").display().to_string();
    std::fs::write(&file, "x".repeat(900_000)).expect("written");
    let refused = (0..200).map(|n| settings(tenant, &format!("large-{n:03}"), &file)).find(|answer| answer.code != 0);
    let refused = refused.expect("no end").to_string();
    assert!(refused.contains("is full") && refused.contains("delete objects"), "{refused}");
    eventually_is("the condition", || condition(tenant, "status") == "True");
    assert!(condition(tenant, "message").contains(BOUND), "{}", condition(tenant, "message"));
    // What is there is served, and whoever deletes can write again.
    tenant.kubectl(&["-n", "fill", "get", "configmap", "large-000"]).ok();
    tenant.kubectl(&["auth", "can-i", "create", "pods"]).ok();
    tenant.kubectl(&["delete", "namespace", "fill", "--wait=false"]).ok();
    eventually_is("it is gone", || tenant.kubectl(&["get", "namespace", "fill"]).code != 0);
    eventually("there is room", || tenant.kubectl(&["create", "namespace", "again"]).result());
    eventually_is("the condition says so", || condition(tenant, "status") == "False");
    // Nobody killed it.
    let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
    assert_eq!(tenant.on_host(&["get", "pod", "filler-0", "-o", restarts]).ok().trim(), "0");
    host(&["delete", "namespace", &tenant.namespace, "--wait=false"]).ok();
}

#[test]
fn objects_are_counted_and_follow_when_there_is_room() {
    let tenant = bounded("counted");
    let _dump = Dump(vec![tenant]);
    let space = tenant.space("count");
    let apply = |text: &str| space.apply(text);
    for name in ["one", "two", "three"] {
        apply(&sleeper(name));
    }
    let denied = |name: &str| space.events(name, "SyncDenied");
    let names = ["one", "two", "three"];
    let late = eventually("an event about one of them", || {
        names.into_iter().find(|name| denied(name).contains("`objects`")).ok_or_else(|| "none".to_owned())
    });
    eventually_is("the others are there", || space.on_host("pods").len() == 2);
    let first = names.into_iter().find(|name| *name != late).expect("another");
    space.kubectl(&["delete", "pod", first]).ok();
    space.wait(&format!("pod/{late}"), "condition=Ready");
    Invocation::kubectl(
        &tenant.kubeconfig,
        &["-n", &space.name, "create", "service", "nodeport", "wide", "--tcp=80", "--tcp=81"],
    )
    .run()
    .ok();
    eventually_is("an event about the Service", || denied("wide").contains("services.nodeports"));
    eventually_is("its copy goes", || space.on_host("services") == BTreeSet::new());
    space.kubectl(&["create", "service", "nodeport", "narrow", "--tcp=80"]).ok();
    eventually_is("one that fits", || space.on_host("services") == BTreeSet::from([space.host_name("narrow")]));
    host(&["delete", "namespace", &tenant.namespace, "--wait=false"]).ok();
}
