//! Probes and metrics of Portico's own pods, also where pods of tenants reach them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Dump, Invocation, PORTICO, SYSTEM, alpha, beta, eventually_is, host, host_kubeconfig, raw, restarts, run_id,
};

/// Longer than the liveness probe's patience: six failures, ten seconds apart.
const SIEGE: Duration = Duration::from_secs(75);

fn pods() -> Vec<Value> {
    let pods = host(&["-n", SYSTEM, "get", "pods", "-l", PORTICO, "-o", "json"]).json();
    pods["items"].as_array().expect("pods").clone()
}

/// Name of the pod, and since when it has been in the state that it is in.
fn readiness(pod: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let conditions = pod["status"]["conditions"].as_array().expect("conditions");
    let ready = conditions.iter().find(|c| c["type"] == "Ready").expect("Ready");
    (text(&pod["metadata"]["name"]), text(&ready["status"]), text(&ready["lastTransitionTime"]))
}

/// While it lives, the network is one that enforces no policies towards Portico: policies only add up, so two that allow are
/// enough.
struct Opened(&'static str);

impl Opened {
    fn new(from: &'static str) -> Self {
        let policy = |namespace: &str, spec: Value| {
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "e2e-opened", "namespace": namespace}, "spec": spec})
        };
        let both = json!({"apiVersion": "v1", "kind": "List", "items": [
            policy(SYSTEM, json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]})),
            policy(from, json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]})),
        ]});
        let apply = Invocation::kubectl(&host_kubeconfig(), &["apply", "-f", "-"]);
        apply.stdin(both.to_string().as_bytes()).run().ok();
        Self(from)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        for namespace in [SYSTEM, self.0] {
            host(&["-n", namespace, "delete", "networkpolicy", "e2e-opened", "--ignore-not-found"]);
        }
    }
}

/// S6: before, 128 silent sockets on the admin port had every probe dropped.
#[test]
fn hostile_silent_sockets_to_health_and_metrics_fail_no_probe() {
    let space = beta().space("siege");
    let _dump = Dump(vec![alpha(), beta()]);
    space.pod("box");
    let _opened = Opened::new(&beta().namespace);
    eventually_is("every replica is ready", || pods().iter().all(|pod| readiness(pod).1 == "True"));
    let before: Vec<_> = pods().iter().map(readiness).collect();
    let restarted = restarts(SYSTEM, PORTICO);
    // Each loop holds a connection that says nothing, and opens another when it is closed: more than the port once
    // had places for, and with a pause, or the loops themselves would take the node.
    let mut targets = String::new();
    for pod in pods() {
        let ip = pod["status"]["podIP"].as_str().expect("an address").to_owned();
        targets.push_str(&format!(" {ip}:9090:140 {ip}:9091:40"));
    }
    let siege = format!(
        "mkfifo /tmp/silence; sleep 100000 >/tmp/silence 2>/dev/null & for at in {targets}; do many=${{at##*:}}; at=${{at%:*}}; for i in $(seq $many); do \
         (while true; do nc ${{at%:*}} ${{at#*:}} </tmp/silence; sleep 3; done >/dev/null 2>&1 &); done; done; echo begun"
    );
    assert!(space.sh("box", &siege).ok().contains("begun"));
    let began = Instant::now();
    while began.elapsed() < SIEGE {
        let now: Vec<_> = pods().iter().map(readiness).collect();
        assert_eq!(now, before, "Ready stays what it was");
        std::thread::sleep(Duration::from_secs(3));
    }
    let loops = space.sh("box", "ps | grep -c '[n]c\\|[s]leep 3'").ok();
    assert!(loops.trim().parse::<u32>().expect("a count") > 128, "besieged to the end, not by {loops}");
    assert_eq!(restarts(SYSTEM, PORTICO), restarted);
    // And a scraper still gets its metrics.
    let page = scrape(&token("default", true));
    assert!(page.0 == 200 && page.1.contains("portico_gateway_connections"), "{page:?}");
    space.kubectl(&["delete", "pod", "box", "--grace-period=0", "--force"]).ok();
}

/// A token of a new account of the host, which may read metrics or not.
pub(crate) fn token(namespace: &str, may: bool) -> String {
    let name = format!("scraper-{}-{may}", run_id());
    host(&["-n", namespace, "create", "serviceaccount", &name]);
    if may {
        let subject = format!("--serviceaccount={namespace}:{name}");
        host(&["create", "clusterrolebinding", &name, "--clusterrole=portico-metrics", &subject]);
    }
    host(&["-n", namespace, "create", "token", &name]).ok().trim().to_owned()
}

/// Code and body of one scrape through a forwarded port.
fn scrape(token: &str) -> (u16, String) {
    let pod = pods().first().expect("a replica")["metadata"]["name"].as_str().expect("a name").to_owned();
    let arguments = ["-n", SYSTEM, "port-forward", &format!("pod/{pod}"), ":9091"];
    let forward = Invocation::kubectl(&host_kubeconfig(), &arguments).start();
    let line = forward.line_with("Forwarding from 127.0.0.1:");
    let port = line.split(':').nth(1).and_then(|rest| rest.split(' ').next()).expect("a port").to_owned();
    let template = "go-template={{index .data \"ca.crt\" | base64decode}}";
    let ca = host(&["-n", SYSTEM, "get", "secret", "portico-gateway-tls", "-o", template]).ok();
    let headers: &[(&str, &str)] = &[("authorization", &format!("Bearer {token}"))];
    let answer = raw(&host_kubeconfig(), "/metrics", if token.is_empty() { &[] } else { headers }, |config| {
        config.cluster_url = format!("https://localhost:{port}").parse().expect("a URL");
        config.auth_info = kube::config::AuthInfo::default();
        let ca = portico::tls::certificates_from_pem(ca.as_bytes()).expect("a CA");
        config.root_cert = Some(ca.iter().map(|der| der.to_vec()).collect());
        config.tls_server_name = None;
    });
    let answer = answer.expect("an answer");
    (answer.code, answer.text())
}

#[test]
fn metrics_are_for_whom_the_host_allows_them() {
    for (token, code) in [
        (String::new(), 401),
        ("invented".to_owned(), 401),
        (token("default", false), 403),
        (token("default", true), 200),
    ] {
        let (got, body) = scrape(&token);
        assert_eq!(got, code, "{body}");
        assert_eq!(body.contains("portico_gateway_connections"), code == 200, "{body}");
    }
}
