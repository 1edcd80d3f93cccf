//! A virtual cluster that is deleted and created again under its name at once is a new one, with nothing of the old.

use crate::harness::{Dump, Invocation, SYSTEM, Tenant, eventually, host, portico, run_id, sleeper};

#[test]
fn created_again_at_once_is_a_new_cluster_with_new_keys_and_no_old_data() {
    let namespace = format!("e2e-again-{}", run_id());
    let began = host(&["create", "namespace", &namespace, "-o", "jsonpath={.metadata.creationTimestamp}"]).ok();
    let first: &'static Tenant = Box::leak(Box::new(Tenant::create("again", &namespace, &[])));
    let _dump = Dump(vec![first]);
    first.kubectl(&["create", "configmap", "old"]).ok();
    let run = |tenant: &Tenant| {
        eventually("account", || tenant.kubectl(&["get", "serviceaccount", "default"]).result());
        Invocation::kubectl(&tenant.kubeconfig, &["apply", "-f", "-"]).stdin(sleeper("web").as_bytes()).run().ok();
        tenant.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=90s"]).ok();
    };
    run(first);
    let delete = || first.on_host(&["delete", "virtualcluster", "again", "--wait=false"]).ok();
    let uid = |kind: &str, name: &str| first.on_host(&["get", kind, name, "-o", "jsonpath={.metadata.uid}"]).ok();
    let (secret, claim) = (uid("secret", "again-pki"), uid("pvc", "data-again-0"));

    delete();
    // And once more while the second is hardly begun.
    portico(&["create", "again", "-n", &namespace, "--no-wait"]).ok();
    delete();
    let again = Tenant::create("again", &namespace, &[]);
    assert_ne!(uid("secret", "again-pki"), secret);
    assert_ne!(uid("pvc", "data-again-0"), claim);
    again.kubectl(&["get", "configmap", "old"]).fails(&["not found"]);
    run(&again);
    again.kubectl(&["exec", "web", "--", "true"]).ok();
    let owner = uid("virtualcluster", "again");
    for (kind, name) in
        [("secret", "again-pki"), ("secret", "vc-again"), ("statefulset", "again"), ("service", "again")]
    {
        let owners = again.on_host(&["get", kind, name, "-o", "jsonpath={.metadata.ownerReferences[*].uid}"]).ok();
        assert_eq!(owners, owner, "{kind} {name}");
    }
    // Nobody was led to the old control plane with the new keys.
    let since = format!("--since-time={began}");
    let select = ["-n", SYSTEM, "logs", "-l", "portico.dev/component=portico", "--tail=-1", since.as_str()];
    let log = host(&select).ok();
    let own = format!("{namespace}/again");
    let confused: Vec<&str> = log.lines().filter(|l| l.contains("UnknownIssuer") && l.contains(&own)).collect();
    assert!(confused.is_empty(), "{confused:#?}");
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}
