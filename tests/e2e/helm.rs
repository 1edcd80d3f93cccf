//! An ordinary chart, installed by helm as on any cluster.

use crate::harness::{Answer, Dump, Invocation, Space, alpha, eventually, eventually_is};

fn helm(space: &Space, arguments: &[&str]) -> Answer {
    Invocation::new("helm", &space.tenant.kubeconfig, &[&["-n", space.name.as_str()], arguments].concat()).run()
}

#[test]
fn a_chart_is_installed_upgraded_and_removed() {
    let space = alpha().space("helm");
    let _dump = Dump(vec![alpha()]);
    let chart = format!("{}/tests/e2e/chart", env!("CARGO_MANIFEST_DIR"));
    helm(&space, &["install", "shop", &chart, "--wait", "--timeout=120s"]).ok();
    space.wait("job/shop-migrate", "condition=Complete");
    let said = eventually("the web answers its database", || {
        space
            .kubectl(&[
                "exec",
                "deployment/shop-web",
                "--",
                "wget",
                "-q",
                "-O",
                "-",
                "-T",
                "5",
                "http://shop-db-0.shop-db:8080/hostname",
            ])
            .result()
    });
    assert_eq!(said, "shop-db-0");
    for object in ["cronjob/shop-sweep", "ingress/shop-web", "hpa/shop-web", "role/shop-web", "pvc/data-shop-db-0"] {
        space.kubectl(&["get", object]).ok();
    }
    // The chart's role, used by its own service account.
    let account = format!("--as=system:serviceaccount:{}:shop-web", space.name);
    assert_eq!(space.kubectl(&["auth", "can-i", "list", "pods", &account]).ok().trim(), "yes");
    assert_ne!(space.kubectl(&["auth", "can-i", "list", "secrets", &account]).code, 0);
    helm(&space, &["upgrade", "shop", &chart, "--set", "replicas=2", "--wait", "--timeout=120s"]).ok();
    let replicas = space.kubectl(&["get", "deployment", "shop-web", "-o", "jsonpath={.status.readyReplicas}"]).ok();
    assert_eq!(replicas, "2");
    helm(&space, &["uninstall", "shop", "--wait", "--timeout=120s"]).ok();
    let labels = format!("portico.dev/cluster=alpha,portico.dev/namespace={}", space.name);
    eventually_is("its pods leave the host", || {
        alpha().on_host(&["get", "pods,services,ingresses", "-l", &labels, "-o", "name"]).ok().is_empty()
    });
}
