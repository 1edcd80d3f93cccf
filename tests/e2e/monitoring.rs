//! Dashboards and alerts beside what the running system shows: a Prometheus scrapes every replica as docs/operations/monitoring.md says,
//! and is asked what each panel and each rule asks.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::boards::{Panel, dashboards, panels, rules};
use crate::harness::{
    Dump, Invocation, Running, SYSTEM, Space, Tenant, alpha, eventually, gateway_url, host, host_kubeconfig, raw,
    run_id, work,
};
use crate::health;
use crate::port;
use crate::scrape;

const PROMTOOL: &str = "/usr/bin/promtool";
/// Whatever runs Portico, in every topology.
const REPLICAS: &str = "portico.dev/metrics=true";

/// Panels that show what went wrong, or what somebody must wait for: empty on a day on which nothing did. They are asked as
/// well, and must be answered without an error.
const MAY_BE_EMPTY: [(&str, &str, &str); 9] = [
    ("Portico / Fleet", "Conditions that want a look", "every condition may be as it should"),
    ("Portico / Fleet", "Answers with an error, by virtual cluster", "no request may have failed"),
    ("Portico / Fleet", "Refused by a limit", "nobody may be at a limit"),
    ("Portico / Fleet", "Why", "all may be scraped, and whole"),
    ("Portico / Virtual cluster", "Store", "not every store says how large it is"),
    ("Portico / Virtual cluster", "Pods that use most CPU", "the fleet's page has pods with podsInFleet only"),
    ("Portico / Gateway", "API servers that do not answer", "all may answer"),
    ("Portico / Syncer, DNS and operator", "What is left out", "there may be room for all objects and events"),
    ("Portico / Syncer, DNS and operator", "Updates that wait or failed", "all may run with the newest image"),
];

/// A Prometheus of this machine, with what it needs to reach the replicas.
struct Prometheus {
    process: Child,
    url: String,
    replicas: usize,
    folder: PathBuf,
    _forwards: Vec<Running>,
}

impl Prometheus {
    /// Scrapes every second, with a token of an account of the host that may.
    fn start() -> Self {
        let folder = work().join(format!("prometheus-{}", run_id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let template = "go-template={{index .data \"ca.crt\" | base64decode}}";
        let ca = host(&["-n", SYSTEM, "get", "secret", "portico-gateway-tls", "-o", template]).ok();
        std::fs::write(folder.join("ca.crt"), ca).expect("written");
        std::fs::write(folder.join("token"), health::token("default", true)).expect("written");
        std::fs::write(folder.join("fleet-token"), scrape::token(true)).expect("written");
        let (targets, forwards): (Vec<Value>, Vec<Running>) =
            replicas().iter().map(String::as_str).map(forwarded).unzip();
        let rules = format!("{}/deploy/helm/portico/rules/portico.yaml", env!("CARGO_MANIFEST_DIR"));
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{
                "job_name": "portico-metrics", "honor_labels": true, "scheme": "https",
                "authorization": {"credentials_file": "token"},
                "tls_config": {"ca_file": "ca.crt", "server_name": format!("portico.{SYSTEM}.svc")},
                "static_configs": targets,
            }, {
                "job_name": "portico-fleet", "honor_labels": true, "scheme": "https", "metrics_path": "/fleet/metrics",
                "scrape_interval": "2s", "scrape_timeout": "2s",
                "authorization": {"credentials_file": "fleet-token"},
                "tls_config": {"ca_file": "ca.crt", "server_name": format!("portico.{SYSTEM}.svc")},
                "static_configs": [{"targets": [gateway_url().trim_start_matches("https://")]}],
                "metric_relabel_configs": [{
                    "source_labels": ["__name__"], "action": "drop",
                    "regex": "portico_(dns|gateway|memory|operator|syncer)_.*",
                }],
            }],
        });
        std::fs::write(folder.join("prometheus.yml"), config.to_string()).expect("written");
        let address = format!("127.0.0.1:{}", port::free([127, 0, 0, 1]));
        let log = std::fs::File::create(folder.join("log")).expect("a log");
        let process = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus runs ('make prometheus' installs it)");
        let url = format!("http://{address}");
        Self { process, url, replicas: forwards.len(), folder, _forwards: forwards }
    }

    /// Samples of an instant query; `Err` when it is not understood, or nobody answers.
    fn ask(&self, query: &str) -> Result<Vec<Value>, String> {
        let arguments = ["query", "instant", "--format=json", &self.url, query];
        let answer = Invocation::new(PROMTOOL, &host_kubeconfig(), &arguments).run().result()?;
        let value: Value = serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
        value.as_array().cloned().ok_or_else(|| format!("no samples: {answer}"))
    }

    /// The same, where there must be one that is a number.
    fn answers(&self, query: &str) -> Result<(), String> {
        let samples = self.ask(query)?;
        let is_number = |sample: &Value| sample["value"][1].as_str().is_some_and(|value| value != "NaN");
        if samples.iter().any(is_number) { Ok(()) } else { Err(format!("nothing but {samples:?}")) }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the log of Prometheus\n{}", self.log());
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn replicas() -> Vec<String> {
    let names = "jsonpath={.items[*].metadata.name}";
    let pods =
        host(&["-n", SYSTEM, "get", "pods", "-l", REPLICAS, "--field-selector=status.phase=Running", "-o", names]).ok();
    assert!(!pods.trim().is_empty(), "no replica");
    pods.split_whitespace().map(str::to_owned).collect()
}

/// A replica as a target of this machine, and what leads there.
fn forwarded(pod: &str) -> (Value, Running) {
    let arguments = ["-n", SYSTEM, "port-forward", &format!("pod/{pod}"), ":9091"];
    let forward = Invocation::kubectl(&host_kubeconfig(), &arguments).start();
    let line = forward.line_with("Forwarding from 127.0.0.1:");
    let port = line.split(':').nth(1).and_then(|rest| rest.split(' ').next()).expect("a port").to_owned();
    (json!({"targets": [format!("127.0.0.1:{port}")], "labels": {"instance": pod}}), forward)
}

/// A little of everything that users do, and two requests that are refused.
fn traffic(space: &Space, round: usize) {
    let name = format!("note-{round}");
    space.kubectl(&["create", "configmap", &name, "--from-literal=a=b"]).ok();
    space.kubectl(&["get", "pods,configmaps"]).ok();
    space.kubectl(&["annotate", "pod", "box", "--overwrite", &format!("e2e.test/round={round}")]).ok();
    space.kubectl(&["exec", "box", "--", "nslookup", "-type=a", "kubernetes.default.svc.cluster.local"]).ok();
    space.kubectl(&["exec", "box", "--", "nslookup", "-type=a", &format!("{name}.invalid")]);
    // A watch ends with its time.
    space
        .kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{}/pods?watch=true&timeoutSeconds=1", space.name)])
        .ok();
    space.kubectl(&["delete", "configmap", &name]).ok();
    for headers in [&[("authorization", "Bearer invented")][..], &[]] {
        let refused = raw(&alpha().kubeconfig, &format!("{}/api/v1/secrets", alpha().path()), headers, |config| {
            config.cluster_url = gateway_url().parse().expect("a URL");
            config.auth_info = kube::config::AuthInfo::default();
        });
        let code = refused.expect("an answer").code;
        assert!([401, 403, 429].contains(&code), "refused, not {code}");
    }
}

/// As Grafana would send it for this virtual cluster and all replicas.
fn filled(query: &str, tenant: &Tenant) -> String {
    let filled = query
        .replace("$__rate_interval", "1m")
        .replace("$namespace", &tenant.namespace)
        .replace("$cluster", &tenant.name)
        .replace("$instance", ".*");
    assert!(!filled.contains('$'), "a variable that nobody fills: {filled}");
    filled
}

/// `label_values(SERIES, LABEL)`, by which a dashboard offers what there is to choose.
fn choices(board: &Value) -> Vec<(String, String)> {
    let variables = board["templating"]["list"].as_array().expect("variables");
    let definitions = variables.iter().filter_map(|variable| variable["definition"].as_str());
    let parsed = definitions.map(|definition| {
        let inside =
            definition.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).expect(definition);
        let (series, label) = inside.rsplit_once(", ").expect(definition);
        (series.to_owned(), label.to_owned())
    });
    parsed.collect()
}

fn may_be_empty(panel: &Panel) -> bool {
    MAY_BE_EMPTY.iter().any(|(board, title, _)| (*board, *title) == (&*panel.board, &*panel.title))
}

#[test]
fn every_panel_shows_something_and_every_rule_is_understood() {
    let space = alpha().space("boards");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    let prometheus = Prometheus::start();
    eventually("every replica is scraped", || {
        let up = prometheus.ask("up == 1")?;
        // And the fleet's page.
        if up.len() == prometheus.replicas + 1 { Ok(()) } else { Err(format!("up: {up:?}; {}", prometheus.log())) }
    });
    let boards = dashboards();
    let mut open: Vec<Panel> = boards.values().flat_map(panels).collect();
    assert!(open.len() > 100, "{} panels are asked", open.len());
    let mut round = 0;
    // Rates are of what happened between two scrapes, so it happens more than once.
    eventually("every panel has an answer", || {
        traffic(&space, round);
        round += 1;
        std::thread::sleep(Duration::from_secs(2));
        let mut why = Vec::new();
        open.retain(|panel| {
            let query = filled(&panel.query, alpha());
            let answered =
                if may_be_empty(panel) { prometheus.ask(&query).map(|_| ()) } else { prometheus.answers(&query) };
            let Err(error) = answered else { return false };
            why.push(format!("{}, {}: {query}: {error}", panel.board, panel.title));
            true
        });
        if why.is_empty() { Ok(()) } else { Err(format!("{} panels: {why:#?}", why.len())) }
    });
    for (series, label) in boards.values().flat_map(choices) {
        let samples = prometheus.ask(&filled(&series, alpha())).expect("understood");
        assert!(samples.iter().any(|sample| sample["metric"][&label].is_string()), "{label} of {series}: {samples:?}");
    }
    for rule in rules() {
        let samples = prometheus.ask(&rule.query).unwrap_or_else(|error| panic!("{}: {error}", rule.name));
        // Of errors that nobody had nothing is recorded.
        if rule.alert.is_none() && !samples.is_empty() {
            eventually(&rule.name, || prometheus.answers(&rule.name));
        }
        // One that fires while Portico runs and is scraped is wrong, or tells of a fault that the others would find too.
        let is_of_all = ["PorticoDown", "PorticoReplicaDown", "PorticoHostUnreachable", "PorticoSharedCertificateEnds"];
        assert!(!is_of_all.contains(&&*rule.name) || samples.is_empty(), "{}: {samples:?}", rule.name);
    }
}
