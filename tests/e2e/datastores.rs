//! Control planes that keep their data in a database outside of the pod, over TLS: one replica of two is killed and the
//! API goes on; then both, and nothing is lost.

pub(crate) mod servers;

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::harness::sidecar::STAND_IN;
use crate::harness::{Dump, Tenant, eventually, host, portico, run_id};
use servers::{PASSWORD, Server};

const NAME: &str = "twins";
const LABEL: &str = "portico.dev/control-plane=twins";
const FLAGS: [&str; 4] = ["--datastore-secret", "database", "--replicas", "2"];

/// Two control planes and a database at once are enough for a small machine.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock()
}

/// uid of a pod that is ready.
fn ready(tenant: &Tenant, pod: &str) -> Option<String> {
    let what = "jsonpath={.metadata.uid} {.status.conditions[?(@.type=='Ready')].status}";
    let answer = tenant.on_host(&["get", "pod", pod, "-o", what]);
    let text = answer.out();
    let (uid, is_ready) = text.split_once(' ')?;
    (answer.code == 0 && is_ready == "True").then(|| uid.to_owned())
}

/// Kills the first replica and reads until a new one is ready; yields how often that went well while there was only one.
fn reads_without_the_first_replica(tenant: &Tenant) -> u32 {
    let before = ready(tenant, "twins-0").expect("ready");
    tenant.on_host(&["delete", "pod", "twins-0", "--grace-period=0", "--force", "--wait=false"]).ok();
    let (began, mut reads) = (Instant::now(), 0);
    loop {
        let read = tenant.kubectl(&["get", "configmap", "kept", "--request-timeout=5s"]);
        // It began when there was one only, also where the other has come since.
        reads += u32::from(read.code == 0);
        if ready(tenant, "twins-0").is_some_and(|uid| uid != before) {
            return reads;
        }
        assert!(began.elapsed() < Duration::from_secs(180), "the replica does not come again; last: {read}");
        std::thread::sleep(Duration::from_millis(250));
    }
}

fn two_replicas_share(server: &Server, namespace: &str, flags: &[&str]) {
    let tenant: &'static Tenant = Box::leak(Box::new(Tenant::create(NAME, namespace, flags)));
    let _dump = Dump(vec![tenant]);
    tenant.on_host(&["rollout", "status", "statefulset/twins", "--timeout=180s"]).ok();
    tenant.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    // The password is in its Secret and nowhere else.
    assert!(server.endpoint.contains(PASSWORD) || server.endpoint.starts_with("https://"));
    let seen = tenant.on_host(&["get", "statefulsets,pods,virtualclusters,configmaps,events", "-o", "json"]).ok();
    assert!(!seen.contains(PASSWORD));

    assert!(reads_without_the_first_replica(tenant) > 0, "nobody answered in the meantime");
    eventually("writes", || tenant.kubectl(&["create", "configmap", "after"]).result());
    // Controllers work as well, whichever replica leads them.
    eventually("a namespace's account", || {
        let namespace = ["create", "namespace", "led"];
        let _ = tenant.kubectl(&namespace);
        tenant.kubectl(&["-n", "led", "get", "serviceaccount", "default"]).result()
    });

    // With no replica left, everything that comes again comes from the database.
    tenant.on_host(&["delete", "pods", "-l", LABEL, "--grace-period=0", "--force"]).ok();
    eventually("the data is there again", || {
        tenant.kubectl(&["get", "configmaps", "kept", "after", "--request-timeout=5s"]).result()
    });
    portico(&["delete", NAME, "-n", namespace]).ok();
    host(&["delete", "namespace", namespace, "--wait=false"]).ok();
}

fn namespace(topic: &str) -> String {
    let namespace = format!("e2e-{topic}-{}", run_id());
    host(&["create", "namespace", &namespace]).ok();
    namespace
}

#[test]
fn postgresql() {
    let _alone = alone();
    let (server, namespace) = (servers::postgres(), namespace("postgresql"));
    server.secret(&namespace);
    two_replicas_share(&server, &namespace, &FLAGS);
}

#[test]
fn mariadb() {
    let _alone = alone();
    let (server, namespace) = (servers::mariadb(), namespace("mariadb"));
    server.secret(&namespace);
    two_replicas_share(&server, &namespace, &FLAGS);
}

#[test]
fn etcd_and_a_secret_that_comes_late() {
    let _alone = alone();
    let (server, namespace) = (servers::etcd(), namespace("etcd"));
    let create = [&["create", NAME, "-n", &namespace], &FLAGS[..]].concat();
    let refused = portico(&create);
    assert!(refused.err.contains("create secret generic database"), "what to do: {refused}");
    assert_eq!(refused.code, 1);
    server.secret(&namespace);
    eventually("the Secret is seen", || portico(&create).result());
    two_replicas_share(&server, &namespace, &FLAGS);
}

#[test]
fn k3s_on_postgresql() {
    let _alone = alone();
    let (server, namespace) = (servers::postgres(), namespace("k3s-postgresql"));
    server.secret(&namespace);
    two_replicas_share(&server, &namespace, &[&FLAGS[..], &["--distro", "k3s", "--image", STAND_IN]].concat());
}
