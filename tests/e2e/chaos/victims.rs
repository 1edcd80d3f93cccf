//! Who is killed, and when he is whole again.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::Value;

use super::daemon;
use crate::harness::{SYSTEM, Tenant, containerd, host, host_kubeconfig, kill_container};

/// All of Portico's pods, however it is installed.
pub(crate) const PODS: &str = "portico.dev/metrics=true";
/// Whole again within this, or it is a finding.
const WHOLE: Duration = Duration::from_secs(300);
/// The kubelet starts a container that ends again and again later and later: then its pod is replaced, between two kills.
const RESTARTS: u64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    /// Any replica.
    Gateway,
    /// The replica with the syncer's Lease.
    Syncer,
    /// The replica with the operator's Lease.
    Operator,
    /// That of one of the tenants.
    ControlPlane,
    /// The host's own.
    ApiServer,
}

impl Victim {
    pub(crate) const ALL: [Self; 5] =
        [Self::Gateway, Self::Syncer, Self::Operator, Self::ControlPlane, Self::ApiServer];

    /// SIGKILL; then waits until everything is ready again. How long that took.
    pub(crate) fn kill(self, tenants: &[&Tenant], random: &mut StdRng) -> Result<Duration, String> {
        let (namespace, label) = match self {
            Self::Gateway | Self::Syncer | Self::Operator => (SYSTEM, PODS.to_owned()),
            Self::ControlPlane => {
                let tenant = tenants[random.random_range(0..tenants.len())];
                (tenant.namespace.as_str(), control_plane_of(tenant))
            }
            Self::ApiServer => {
                let began = Instant::now();
                kill_api_server(random)?;
                whole(tenants)?;
                return Ok(began.elapsed());
            }
        };
        let label = label.as_str();
        let all = pods(namespace, label)?;
        let pod = match self {
            Self::Syncer => holder("syncer", &all),
            Self::Operator => holder("operator", &all),
            _ => None,
        };
        let pod = pod.unwrap_or(&all[random.random_range(0..all.len())]);
        let id = container(pod).ok_or_else(|| format!("{} has no container", pod["metadata"]["name"]))?;
        let began = Instant::now();
        kill_container(&id);
        until(&format!("{self:?} is started again"), || {
            let now = pods(namespace, label)?;
            if now.iter().any(|pod| container(pod).as_ref() == Some(&id)) { Err(id.clone()) } else { Ok(()) }
        })?;
        ready(namespace, label)?;
        whole(tenants)?;
        let took = began.elapsed();
        refresh(namespace, label, tenants)?;
        Ok(took)
    }
}

/// Everything is ready: the host, Portico, and each tenant through it.
pub(crate) fn whole(tenants: &[&Tenant]) -> Result<(), String> {
    until("the host's API server", || host(&["get", "--raw", "/readyz"]).result())?;
    ready(SYSTEM, PODS)?;
    for tenant in tenants {
        ready(&tenant.namespace, &control_plane_of(tenant))?;
        until(&format!("{} answers", tenant.name), || tenant.kubectl(&["get", "--raw", "/readyz"]).result())?;
    }
    Ok(())
}

fn control_plane_of(tenant: &Tenant) -> String {
    format!("portico.dev/control-plane={}", tenant.name)
}

/// KiB resident of Portico's processes, each one's.
pub(crate) fn memory() -> Vec<u64> {
    let tasks = containerd(&["tasks", "ls"]);
    let pids = tasks.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?))
    });
    let of = |id: &str| pids.clone().find(|(task, _)| *task == id).map(|(_, pid)| resident(pid));
    let all = pods(SYSTEM, PODS).unwrap_or_default();
    all.iter().filter_map(container).filter_map(|id| of(&id)).collect()
}

fn resident(pid: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Rss:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// Those that stay.
fn pods(namespace: &str, label: &str) -> Result<Vec<Value>, String> {
    let list = host(&["-n", namespace, "get", "pods", "-l", label, "-o", "json"]).result()?;
    let list: Value = serde_json::from_str(&list).map_err(|error| error.to_string())?;
    let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    let pods: Vec<Value> = list["items"].as_array().into_iter().flatten().filter(stays).cloned().collect();
    if pods.is_empty() { Err(format!("no pod of {label} in {namespace}")) } else { Ok(pods) }
}

/// As containerd names it.
fn container(pod: &Value) -> Option<String> {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str()?;
    Some(id.trim_start_matches("containerd://").to_owned())
}

/// The pod that has a Lease of Portico's.
fn holder<'a>(lease: &str, pods: &'a [Value]) -> Option<&'a Value> {
    let path = "jsonpath={.spec.holderIdentity}";
    let held = host(&["-n", SYSTEM, "get", "lease", &format!("portico-{lease}"), "-o", path]).out();
    pods.iter().find(|pod| pod["metadata"]["name"].as_str().is_some_and(|name| held.starts_with(name)))
}

/// All that stay are ready, and as many as somebody wants.
fn ready(namespace: &str, label: &str) -> Result<(), String> {
    until(&format!("{label} is ready"), || {
        let wanted = host(&["-n", namespace, "get", "deployments,statefulsets", "-o", "json"]).result()?;
        let wanted: Value = serde_json::from_str(&wanted).map_err(|error| error.to_string())?;
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        let makes = |set: &&Value| set["spec"]["template"]["metadata"]["labels"][key] == value;
        let sets = wanted["items"].as_array().into_iter().flatten().filter(makes);
        let wanted: u64 = sets.map(|set| set["spec"]["replicas"].as_u64().unwrap_or(1)).sum();
        let is_ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let all = pods(namespace, label)?;
        let now = all.iter().filter(is_ready).count();
        let is_all = now == all.len() && u64::try_from(now).is_ok_and(|now| now >= wanted);
        if is_all { Ok(()) } else { Err(format!("{now} of {} pods, {wanted} wanted", all.len())) }
    })
}

/// Replaces pods whose next start the kubelet would delay.
fn refresh(namespace: &str, label: &str, tenants: &[&Tenant]) -> Result<(), String> {
    let tired = |pod: &&Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(RESTARTS);
    for pod in pods(namespace, label)?.iter().filter(tired) {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        host(&["-n", namespace, "delete", "pod", name, "--wait=false"]).result()?;
        until("its successor", || {
            let now = pods(namespace, label)?;
            if now.iter().any(|other| other["metadata"]["uid"] == pod["metadata"]["uid"]) {
                return Err(format!("{name} is still there"));
            }
            Ok(())
        })?;
        ready(namespace, label)?;
    }
    whole(tenants)
}

/// Nobody supervises it here: it is started again with its own words, as `tests/cluster/up` would, and so is each other
/// daemon that did not outlive it.
fn kill_api_server(random: &mut StdRng) -> Result<(), String> {
    let cluster = host_kubeconfig();
    let daemons = daemon::all(cluster.parent().ok_or("the kubeconfig stands in no folder")?);
    let api_server = daemons.iter().find(|daemon| daemon.name == "kube-apiserver");
    let api_server = api_server.ok_or("the local cluster has no kube-apiserver with a pid file")?;
    api_server.kill()?;
    std::thread::sleep(Duration::from_millis(random.random_range(0..5_000)));
    api_server.start()?;
    until("the host's API server", || host(&["get", "--raw", "/readyz"]).result())?;
    for daemon in daemons.iter().filter(|daemon| daemon.name != api_server.name && !daemon.is_running()) {
        eprintln!("chaos: the cluster's {} did not outlive the API server: started again", daemon.name);
        daemon.start()?;
    }
    Ok(())
}

fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + WHOLE;
    loop {
        match ask() {
            Ok(value) => return Ok(value),
            Err(why) if Instant::now() >= deadline => return Err(format!("{what}: not within {WHOLE:?}: {why}")),
            Err(_) => std::thread::sleep(Duration::from_millis(250)),
        }
    }
}
