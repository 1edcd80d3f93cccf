//! `metrics.k8s.io` in virtual clusters, as people and autoscalers use it. The local cluster has a metrics-server on the host.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{
    BUSYBOX, Dump, Invocation, PORTICO, Running, SYSTEM, Space, Tenant, alpha, beta, eventually, eventually_is, host,
    host_kubeconfig, kubectl, read, run_id, settled, work,
};

const GROUP: &str = "/apis/metrics.k8s.io/v1beta1";
const API_SERVICE: &str = "v1beta1.metrics.k8s.io";

/// A pod of two containers, of which the first one is busy.
fn busy(name: &str, label: &str) -> String {
    let container = |name: &str, line: &str| json!({"name": name, "image": BUSYBOX, "command": ["sh", "-c", line], "resources": {"requests": {"cpu": "10m"}}});
    let work = "trap exit TERM; while true; do i=0; while [ $i -lt 4000 ]; do i=$((i+1)); done; sleep 0.1; done";
    let rest = "trap exit TERM; while true; do sleep 1; done";
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": label}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container("work", work), container("rest", rest)]}})
    .to_string()
}

fn figures(space: &Space, arguments: &[&str]) -> Result<String, String> {
    let said = space.kubectl(&[&["top", "pods", "--no-headers"], arguments].concat()).result()?;
    if said.trim().is_empty() { Err("no figures".to_owned()) } else { Ok(said) }
}

/// Until the tenant's API server serves the group by Portico.
fn served(tenant: &Tenant) {
    eventually("the APIService is available", || {
        let said = tenant.kubectl(&["get", "apiservice", API_SERVICE, "-o", "json"]).result()?;
        let object: Value = serde_json::from_str(&said).map_err(|e| e.to_string())?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_available = conditions.iter().any(|c| c["type"] == "Available" && c["status"] == "True");
        if is_available { Ok(()) } else { Err(object["status"].to_string()) }
    });
}

/// Portico without a replica; dropped, it has those back that it had.
struct Away(String);

impl Away {
    fn new() -> Self {
        let replicas = host(&["-n", SYSTEM, "get", "deployment", "portico", "-o", "jsonpath={.spec.replicas}"]).ok();
        host(&["-n", SYSTEM, "scale", "deployment/portico", "--replicas=0"]).ok();
        Self(replicas.trim().to_owned())
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        host(&["-n", SYSTEM, "scale", "deployment/portico", &format!("--replicas={}", self.0)]);
    }
}

/// A kubeconfig that leads to a control plane by the kubelet, as long as the other part lives.
fn past_the_gateway(tenant: &Tenant, pod: &str) -> (Running, PathBuf) {
    let arguments = ["-n", &tenant.namespace, "port-forward", &format!("pod/{pod}"), ":6443"];
    let forward = Invocation::kubectl(&host_kubeconfig(), &arguments).start();
    let line = forward.line_with("Forwarding from 127.0.0.1:");
    let port = line.split(':').nth(1).and_then(|rest| rest.split(' ').next()).expect("a port").to_owned();
    let mut document = read(&tenant.kubeconfig);
    // That of the API server itself: what the gateway shows is the host's.
    let secret = tenant.on_host(&["get", "secret", &format!("{}-pki", tenant.name), "-o", "json"]).json();
    let ca = secret["data"]["server-ca.crt"].as_str().expect("a CA");
    for cluster in document["clusters"].as_array_mut().expect("clusters") {
        cluster["cluster"]["server"] = json!(format!("https://127.0.0.1:{port}"));
        cluster["cluster"]["certificate-authority-data"] = json!(ca);
        cluster["cluster"]["tls-server-name"] = json!(format!("{}.{}.svc", tenant.name, tenant.namespace));
    }
    let path = work().join(format!("direct-{}.yaml", tenant.name));
    std::fs::write(&path, document.to_string()).expect("written");
    (forward, path)
}

#[test]
fn top_shows_pods_containers_and_nodes() {
    let space = alpha().space("top");
    let _dump = Dump(vec![alpha()]);
    served(alpha());
    space.apply(&busy("busy", "a"));
    space.apply(&busy("other", "b"));
    let lines = eventually("figures of both", || {
        let said = figures(&space, &["--containers", "--sort-by=cpu"])?;
        if said.lines().count() == 4 { Ok(said) } else { Err(said) }
    });
    assert!(lines.lines().step_by(2).all(|line| line.contains("work")), "of each pod the busy one first: {lines}");
    let selected = figures(&space, &["-l", "app=b"]).expect("figures");
    assert!(selected.contains("other") && !selected.contains("busy"), "{selected}");
    assert!(figures(&space, &["busy"]).expect("figures").contains("busy"));
    space.kubectl(&["top", "pod", "none"]).fails(&["pods \"none\" not found"]);
    // Whoever may view the namespace, and nobody else.
    let viewer =
        space.account("viewer", &json!([{"apiGroups": ["metrics.k8s.io"], "resources": ["pods"], "verbs": ["list"]}]));
    kubectl(&viewer, &["-n", &space.name, "top", "pods"]).ok();
    let nobody = space.account("nobody", &json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]));
    kubectl(&nobody, &["-n", &space.name, "top", "pods"]).fails(&["pods.metrics.k8s.io is forbidden"]);
    // Its own part of the node.
    let own = |arguments: &[&str]| alpha().kubectl(arguments).json();
    let nodes = own(&["get", "--raw", &format!("{GROUP}/nodes")]);
    let names = alpha().kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]).ok();
    let shown: Vec<&str> =
        nodes["items"].as_array().expect("nodes").iter().filter_map(|n| n["metadata"]["name"].as_str()).collect();
    assert_eq!(shown, names.split_whitespace().collect::<Vec<_>>());
    alpha().kubectl(&["top", "nodes"]).ok();
    let all = own(&["get", "--raw", &format!("{GROUP}/pods")]);
    let whole = host(&["get", "--raw", &format!("{GROUP}/nodes")]).json();
    let bytes =
        |quantity: &Value| quantity.as_str().and_then(|q| q.trim_end_matches("Ki").parse::<u64>().ok()).unwrap_or(0);
    let (own_bytes, all_bytes) =
        (bytes(&nodes["items"][0]["usage"]["memory"]), bytes(&whole["items"][0]["usage"]["memory"]));
    assert!(0 < own_bytes && own_bytes < all_bytes, "{nodes} {whole}");
    assert!(!all.to_string().contains("-x-"), "no name of the host: {all}");
}

#[test]
fn hostile_tenants_see_nothing_of_others_under_the_same_names() {
    let (mine, theirs) = (alpha().space("figures"), beta().space("figures"));
    let _dump = Dump(vec![alpha(), beta()]);
    served(alpha());
    served(beta());
    mine.apply(&busy("busy", "a"));
    theirs.pod("busy");
    let own = eventually("figures of the victim", || figures(&mine, &["--containers"]));
    let other = eventually("figures of the other", || figures(&theirs, &["--containers"]));
    assert!(own.contains("work") && !other.contains("work"), "{own}{other}");
    let all = beta().kubectl(&["get", "--raw", &format!("{GROUP}/pods")]).ok();
    assert!(!all.contains(&mine.name) || mine.name == theirs.name, "{all}");
    for path in [
        format!("{GROUP}/namespaces/{}/pods/{}", alpha().namespace, mine.host_name("busy")),
        format!("{GROUP}/namespaces/kube-system/pods/coredns"),
    ] {
        beta().kubectl(&["get", "--raw", &path]).fails(&["not found"]);
    }
}

#[test]
fn an_autoscaler_follows_what_pods_use() {
    let space = alpha().space("scaled");
    let _dump = Dump(vec![alpha()]);
    served(alpha());
    let line = "trap exit TERM; while true; do if [ -e /tmp/work ]; then i=0; while [ $i -lt 4000 ]; do i=$((i+1)); done; else sleep 1; fi; done";
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", line], "resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "200m"}}}]}}}});
    let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 2,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}]}});
    space.apply(&deployment.to_string());
    space.apply(&scaler.to_string());
    space.wait("deployment/web", "condition=Available");
    let replicas = || space.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.status.replicas}"]).out();
    space.kubectl(&["exec", "deployment/web", "--", "touch", "/tmp/work"]).ok();
    eventually_is("it scales up under load", || replicas().trim() == "2");
    let pods = space.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"]).ok();
    for pod in pods.split_whitespace() {
        space.sh(pod, "rm -f /tmp/work");
    }
    eventually_is("and down without", || replicas().trim() == "1");
}

/// A cluster's own metrics-server or adapter.
#[test]
fn an_api_service_of_the_tenants_own_is_kept() {
    // Its own tenant: ours is back some minutes after the last of its own.
    let namespace = format!("e2e-own-metrics-{}", run_id());
    let tenant: &'static Tenant = Box::leak(Box::new(Tenant::create("own", &namespace, &["--ephemeral"])));
    let space = tenant.space("own-metrics");
    let _dump = Dump(vec![tenant]);
    served(tenant);
    let own = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": API_SERVICE}, "spec": {
        "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": true,
        "service": {"namespace": space.name, "name": "own", "port": 443}}});
    space.apply(&own.to_string());
    eventually_is("nothing of ours stands beside it", || {
        tenant.kubectl(&["-n", "kube-system", "get", "service", "portico-metrics"]).result().is_err()
            || tenant.kubectl(&["get", "apiservice", API_SERVICE, "-o", "jsonpath={.spec.service.name}"]).out() == "own"
    });
    std::thread::sleep(std::time::Duration::from_secs(10));
    assert_eq!(tenant.kubectl(&["get", "apiservice", API_SERVICE, "-o", "jsonpath={.spec.service.name}"]).ok(), "own");
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}

#[test]
#[ignore = "takes Portico away; tests/e2e/run runs it alone"]
fn a_portico_that_is_away_keeps_no_namespace_from_being_deleted() {
    settled();
    let space = alpha().space("ends");
    let _dump = Dump(vec![alpha()]);
    served(alpha());
    let planes = format!("portico.dev/control-plane={}", alpha().name);
    let pod = alpha().on_host(&["get", "pods", "-l", &planes, "-o", "jsonpath={.items[0].metadata.name}"]).ok();
    let away = Away::new();
    eventually_is("Portico is away", || {
        host(&["-n", SYSTEM, "get", "pods", "-l", PORTICO, "-o", "name"]).out().trim().is_empty()
    });
    let (_forward, direct) = past_the_gateway(alpha(), pod.trim());
    kubectl(&direct, &["delete", "namespace", &space.name, "--timeout=60s"]).ok();
    kubectl(&direct, &["top", "pods", "-A"]).fails(&["unable to handle the request (get pods.metrics.k8s.io)"]);
    drop(away);
    settled();
    served(alpha());
}

#[test]
#[ignore = "takes the host's metrics API away; tests/e2e/run runs it alone"]
fn without_the_hosts_metrics_api_figures_are_the_kubelets() {
    let space = alpha().space("without");
    let _dump = Dump(vec![alpha()]);
    served(alpha());
    space.pod("box");
    eventually("figures", || figures(&space, &[]));
    let object = host(&["get", "apiservice", API_SERVICE, "-o", "json"]).ok();
    host(&["delete", "apiservice", API_SERVICE]).ok();
    // Longer than what was known is shown; kubelets need two readings.
    std::thread::sleep(std::time::Duration::from_secs(15));
    let said = eventually("figures of the kubelets", || figures(&space, &[]));
    assert!(said.contains("box"), "{said}");
    let mut object: Value = serde_json::from_str(&object).expect("JSON");
    object["metadata"] = json!({"name": API_SERVICE});
    object.as_object_mut().expect("an object").remove("status");
    let path = work().join("metrics-apiservice.json");
    std::fs::write(&path, object.to_string()).expect("written");
    host(&["create", "-f", path.to_str().expect("a path")]).ok();
    eventually("figures again", || figures(&space, &[]));
}
