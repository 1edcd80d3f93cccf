//! What a tenant sees of the kubelets behind its nodes: its own containers, by `kubectl get --raw` and by a real Prometheus.

use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use portico::exposition::Line;
use serde_json::{Value, json};

use crate::harness::{Dump, Space, Tenant, alpha, beta, eventually, gateway_url, http_get, names, read, work};
use crate::port;

fn node(tenant: &Tenant) -> String {
    eventually("a node", || {
        let nodes = tenant.kubectl(&["get", "nodes", "-o", "json"]).json();
        names(&nodes).into_iter().next().ok_or_else(|| "none is there yet".to_owned())
    })
}

fn raw(tenant: &Tenant, rest: &str) -> Result<String, String> {
    tenant.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{}/proxy/{rest}", node(tenant))]).result()
}

/// Namespace and pod of each series. All have both.
fn pods_of(text: &str) -> Vec<(String, String)> {
    let series = text.lines().filter_map(|line| match Line::parse(line.as_bytes()) {
        Some(Line::Sample(sample)) => Some(sample),
        _ => None,
    });
    let label = |labels: portico::exposition::Labels<'_>, name| labels.get(name).expect("a pod's series").into_owned();
    series.map(|sample| (label(sample.labels, "namespace"), label(sample.labels, "pod"))).collect()
}

#[test]
fn hostile_a_tenant_sees_its_own_containers_and_nobody_elses() {
    let spaces = [alpha().space("kubelet-a"), beta().space("kubelet-b")];
    let _dump = Dump(vec![alpha(), beta()]);
    for space in &spaces {
        space.pod("box");
    }
    for (space, other) in [(&spaces[0], &spaces[1]), (&spaces[1], &spaces[0])] {
        for kind in ["metrics/cadvisor", "metrics/resource"] {
            let text = eventually(&format!("{kind} of {}", space.name), || {
                let text = raw(space.tenant, kind)?;
                let is_there = pods_of(&text).contains(&(space.name.clone(), "box".to_owned()));
                if is_there { Ok(text) } else { Err(text) }
            });
            let own = names(&space.tenant.kubectl(&["get", "namespaces", "-o", "json"]).json());
            for (namespace, pod) in pods_of(&text) {
                assert!(own.contains(&namespace) && !pod.contains("-x-"), "{kind}: {namespace}/{pod}");
            }
            assert!(!text.contains(&other.name) && !text.contains("-x-"), "{text}");
        }
        let uid = space.kubectl(&["get", "pod", "box", "-o", "jsonpath={.metadata.uid}"]).ok();
        let summary = eventually("a summary", || {
            let summary: Value =
                serde_json::from_str(&raw(space.tenant, "stats/summary")?).map_err(|e| e.to_string())?;
            let pods = summary["pods"].as_array().cloned().unwrap_or_default();
            let own = pods.iter().find(|pod| pod["podRef"]["namespace"] == json!(space.name)).cloned();
            own.map(|pod| (pod, summary.clone())).ok_or(summary.to_string())
        });
        assert_eq!(summary.0["podRef"], json!({"name": "box", "namespace": space.name, "uid": uid}));
        assert!(summary.1["node"]["cpu"].is_null() && !summary.1.to_string().contains(&other.name), "{}", summary.1);
        let pods: Value = serde_json::from_str(&raw(space.tenant, "pods").expect("pods")).expect("JSON");
        let listed = pods["items"].as_array().expect("pods").iter().any(|pod| pod["metadata"]["uid"] == json!(uid));
        assert!(listed && !pods.to_string().contains("-x-"));
        assert_eq!(raw(space.tenant, "healthz"), Ok("ok".to_owned()));
        for rest in ["configz", "runningpods/", "exec/healthz", "logs/", "run/kube-system/x/y"] {
            assert!(raw(space.tenant, rest).expect_err("refused").contains("nodes/proxy"), "{rest}");
        }
    }
}

#[test]
fn who_may_not_proxy_to_nodes_sees_nothing() {
    let space = alpha().space("kubelet-rights");
    let account = space.account("reader", &json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]));
    let path = format!("/api/v1/nodes/{}/proxy/metrics/cadvisor", node(alpha()));
    crate::harness::kubectl(&account, &["get", "--raw", &path]).fails(&["nodes/proxy"]);
}

/// A program that ends with the test.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian's, which cannot find the nodes of a cluster by itself: it is told.
fn prometheus(space: &Space, account: &std::path::Path) -> (Prometheus, String) {
    let folder = work().join(format!("prometheus-{}", space.name));
    std::fs::create_dir_all(&folder).expect("a folder");
    let document = read(account);
    let ca = document["clusters"][0]["cluster"]["certificate-authority-data"].as_str().expect("a CA").to_owned();
    let ca_file = folder.join("ca.crt");
    std::fs::write(&ca_file, base64::engine::general_purpose::STANDARD.decode(ca).expect("base64")).expect("written");
    let (url, tenant) = (gateway_url(), space.tenant);
    let config = json!({
        "global": {"scrape_interval": "5s", "scrape_timeout": "5s"},
        "scrape_configs": [{
            "job_name": "cadvisor",
            "scheme": "https",
            "static_configs": [{"targets": [url.trim_start_matches("https://")]}],
            "metrics_path": format!("{}/api/v1/nodes/{}/proxy/metrics/cadvisor", tenant.path(), node(tenant)),
            "authorization": {"credentials": document["users"][0]["user"]["token"]},
            "tls_config": {"ca_file": ca_file},
        }],
    });
    let file = folder.join("prometheus.yaml");
    std::fs::write(&file, config.to_string()).expect("written");
    let address = format!("127.0.0.1:{}", port::free([127, 0, 0, 1]));
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("Debian's package prometheus is installed: make databases");
    (Prometheus(child), address)
}

#[test]
fn a_prometheus_of_the_tenant_scrapes_its_kubelets() {
    let (space, other) = (alpha().space("prometheus"), beta().space("prometheus-b"));
    let _dump = Dump(vec![alpha(), beta()]);
    space.pod("box");
    other.pod("box");
    let account = space.account("prometheus", &json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]));
    let role = format!("prometheus-{}", space.name);
    let rights = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role},
         "rules": [{"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": role},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
         "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": space.name}]},
    ]});
    space.apply(&rights.to_string());
    let (_running, address) = prometheus(&space, &account);
    let found = eventually("Prometheus has the pod's memory", || {
        let answer = http_get(&address, "/api/v1/query?query=container_memory_working_set_bytes")?;
        let found = answer.contains(&format!("\"namespace\":\"{}\"", space.name)) && answer.contains("\"pod\":\"box\"");
        if found { Ok(answer) } else { Err(answer) }
    });
    assert!(!found.contains(&other.name) && !found.contains("-x-"), "{found}");
    space.tenant.kubectl(&["delete", "clusterrole,clusterrolebinding", &role]).ok();
}
