//! What all tests share: the programs, the tenants, waiting with patience, and a dump of both sides when one fails.

mod program;
mod raw;
pub(crate) mod sidecar;
mod tenant;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use program::{Answer, Invocation, Running, http_get, kubectl, portico};
pub(crate) use raw::{SlowPosts, raw};
pub(crate) use tenant::{
    Dump, Space, Tenant, alpha, beta, left, names, read, sleeper, system_services, user_of, with_user,
};

pub(crate) const BUSYBOX: &str = "docker.io/portico/busybox:1";
pub(crate) const AGNHOST: &str = "docker.io/portico/agnhost:1";
pub(crate) const SYSTEM: &str = "portico-system";

/// The host as its admin.
pub(crate) fn host(arguments: &[&str]) -> Answer {
    kubectl(&host_kubeconfig(), arguments)
}

pub(crate) fn host_kubeconfig() -> PathBuf {
    let default = target().join("cluster/kubeconfig");
    std::env::var_os("PORTICO_E2E_KUBECONFIG").map_or(default, PathBuf::from)
}

/// The containers of the host's pods with this label, as containerd names them.
fn containers(namespace: &str, label: &str) -> Vec<String> {
    let ids = "jsonpath={.items[*].status.containerStatuses[*].containerID}";
    let ids = host(&["-n", namespace, "get", "pods", "-l", label, "-o", ids]).ok();
    assert!(!ids.trim().is_empty(), "no container of {label} in {namespace}");
    ids.split_whitespace().map(|id| id.trim_start_matches("containerd://").to_owned()).collect()
}

/// Bytes that the containers of the host's pods with this label take now, by their control groups: each one's, in the
/// order of their names.
pub(crate) fn memory(namespace: &str, label: &str) -> BTreeMap<String, u64> {
    let of = |id: String| {
        let found = std::process::Command::new("find")
            .args(["/sys/fs/cgroup", "-type", "f", "-path", &format!("*/kubepods/*/{id}/*")])
            .args(["(", "-name", "memory.current", "-o", "-name", "memory.usage_in_bytes", ")"])
            .output()
            .expect("find runs");
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        let file = found.lines().next().unwrap_or_else(|| panic!("no control group of {id}"));
        let bytes = std::fs::read_to_string(file).expect("readable").trim().parse().expect("a number");
        (id, bytes)
    };
    containers(namespace, label).into_iter().map(of).collect()
}

/// SIGKILL for the first process of every container of the host's pods with this label; the kubelet starts them again in
/// the same pods.
pub(crate) fn kill_containers(namespace: &str, label: &str) {
    containers(namespace, label).iter().for_each(|id| kill_container(id));
}

/// SIGKILL for a container's first process.
pub(crate) fn kill_container(id: &str) {
    containerd(&["tasks", "kill", "-s", "SIGKILL", id]);
}

/// What containerd's own client says; it must succeed.
pub(crate) fn containerd(arguments: &[&str]) -> String {
    let socket = host_kubeconfig().with_file_name("run/containerd.sock");
    let mut command = std::process::Command::new("ctr");
    let said = command.arg("-a").arg(&socket).args(["-n", "k8s.io"]).args(arguments).output().expect("ctr runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8_lossy(&said.stdout).into_owned()
}

/// How often containers of pods with this label were started again.
pub(crate) fn restarts(namespace: &str, label: &str) -> u64 {
    let pods = host(&["-n", namespace, "get", "pods", "-l", label, "-o", "json"]).json();
    let statuses =
        pods["items"].as_array().expect("pods").iter().flat_map(|p| p["status"]["containerStatuses"].as_array());
    statuses.flatten().map(|c| c["restartCount"].as_u64().unwrap_or(0)).sum()
}

/// Portico's own pods.
pub(crate) const PORTICO: &str = "portico.dev/component=portico";

/// Waits until nothing of an earlier test moves Portico any more: every replica ready, none leaving, and what the Service
/// leads to is what answers.
pub(crate) fn settled() {
    host(&["-n", SYSTEM, "rollout", "status", "deployment/portico", "--timeout=180s"]).ok();
    let address = gateway_url().trim_start_matches("https://").to_owned();
    eventually("Portico is at rest", || {
        let pods = host(&["-n", SYSTEM, "get", "pods", "-l", PORTICO, "-o", "json"]).json();
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let is_ready = |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        if let Some(pod) = pods.iter().find(|pod| !is_ready(pod) || pod["metadata"]["deletionTimestamp"].is_string()) {
            return Err(format!("{} is not ready or leaves", pod["metadata"]["name"]));
        }
        // Behind each change kube-proxy follows by a second or two.
        for _ in 0..20 {
            std::net::TcpStream::connect(&address).map_err(|error| format!("{address}: {error}"))?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    });
}

/// Base URL of the gateway.
pub(crate) fn gateway_url() -> String {
    std::env::var("PORTICO_E2E_GATEWAY").unwrap_or_else(|_| "https://10.88.0.1:30443".to_owned())
}

/// Where pods of the node and this process both reach a port: its address.
pub(crate) fn node() -> String {
    let url: http::Uri = gateway_url().parse().expect("a URL");
    url.host().expect("a host").to_owned()
}

/// uid by kind and name of a list of objects.
pub(crate) fn uids(list: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().expect("a list").iter();
    items
        .map(|o| (format!("{}/{}", text(&o["kind"]), text(&o["metadata"]["name"])), text(&o["metadata"]["uid"])))
        .collect()
}

/// `target/` of the clone, wherever cargo builds.
pub(crate) fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target")
}

/// A folder for files of the tests.
pub(crate) fn work() -> PathBuf {
    let folder = target().join("e2e");
    std::fs::create_dir_all(&folder).expect("the folder for e2e files");
    folder
}

/// Distinguishes the objects of this run from those of runs before.
pub(crate) fn run_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        format!("{:x}", now & 0xff_ffff)
    })
}

/// How long anything may take; slow machines set `PORTICO_E2E_PATIENCE` (seconds).
fn patience() -> Duration {
    let seconds = std::env::var("PORTICO_E2E_PATIENCE").ok().and_then(|s| s.parse().ok()).unwrap_or(90);
    Duration::from_secs(seconds)
}

/// Asks again until the answer is `Ok`; the last refusal is the failure.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience();
    loop {
        match ask() {
            Ok(value) => return value,
            Err(why) if Instant::now() >= deadline => panic!("{what}: not within {:?}: {why}", patience()),
            Err(_) => std::thread::sleep(Duration::from_millis(250)),
        }
    }
}

/// Asks again until it is true.
pub(crate) fn eventually_is(what: &str, mut ask: impl FnMut() -> bool) {
    eventually(what, || if ask() { Ok(()) } else { Err("still not".to_owned()) });
}
