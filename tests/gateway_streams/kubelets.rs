//! What tenants see below `nodes/{name}/proxy`: a fake kubelet over real TLS, behind it pods of two tenants and of nobody.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use portico::config::{HostConfig, KubeletsConfig, NodeUsage, PolicyBounds, Span};
use portico::crd::policy::{GrantedPolicy, Policy};
use portico::runtime::clock::Clock;
use serde_json::{Value, json};

use crate::support::fake::{Answer, FakeApi, Seen};
use crate::support::pki::Pki;
use crate::world::{Cluster, HOST_NAMESPACE, World};

pub const NODE: &str = "node-1";
const CADVISOR: &str = "/api/v1/nodes/node-1/proxy/metrics/cadvisor";

/// A world with one node, whose kubelet is a server of its own.
pub struct Stage {
    pub world: World,
    pub kubelet: FakeApi,
}

impl Stage {
    pub async fn new(kubelet: impl Fn(Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(|config, ca| config.ca = ca, |_| Answer::status(404, "NotFound", "no such group"), kubelet).await
    }

    /// `metrics` is what the host says below `metrics.k8s.io`.
    pub async fn with(
        config: impl FnOnce(&mut KubeletsConfig, String),
        metrics: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
        kubelet: impl Fn(Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let metrics = move |seen: &Seen| seen.path.starts_with("/apis/metrics.k8s.io/").then(|| metrics(seen));
        Self::beside(config, metrics, kubelet).await
    }

    /// `other` is what the host says otherwise than usual.
    pub async fn beside(
        config: impl FnOnce(&mut KubeletsConfig, String),
        other: impl Fn(&Seen) -> Option<Answer> + Send + Sync + 'static,
        kubelet: impl Fn(Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let kubelet = FakeApi::start(move |seen| {
            let answer = kubelet(seen);
            async move { answer }
        })
        .await;
        let mut kubelets = KubeletsConfig {
            enabled: true,
            request_timeout: Span(Duration::from_secs(2)),
            ..KubeletsConfig::default()
        };
        config(&mut kubelets, kubelet.pki.ca_pem().to_owned());
        let config = HostConfig { system_namespace: "portico-system".to_owned(), kubelets, ..HostConfig::default() };
        let port = kubelet.address.port();
        let host = move |seen: Seen| other(&seen).unwrap_or_else(|| host(&seen, port));
        let world = World::configured(&config, Clock::system(), host).await;
        for cluster in [&world.a, &world.b] {
            cluster.objects.put(&format!("/api/v1/nodes/{NODE}"), json!({"metadata": {"name": NODE}}));
        }
        Self { world, kubelet }
    }

    pub async fn get(&self, cluster: &Cluster, user: &str, path: &str) -> (u16, String) {
        let (mut wire, head) = self.world.ask(cluster, user, &format!("GET {path}\nconnection: close")).await;
        let body = String::from_utf8(wire.rest().await).expect("text");
        (head.code, body)
    }
}

/// The host: one Node, a table of all pods whatever is selected, tokens for kubelets.
fn host(seen: &Seen, port: u16) -> Answer {
    match seen.path.as_str() {
        "/api/v1/nodes/node-1" => Answer::json(200, &node(port)),
        "/api/v1/nodes" => Answer::json(200, &json!({"metadata": {}, "items": [node(port)]})),
        "/api/v1/namespaces/team/pods" => Answer::json(200, &table()),
        "/api/v1/namespaces/portico-system/serviceaccounts/portico-kubelets/token" => Answer::json(
            201,
            &json!({"status": {"token": "kubelet-token", "expirationTimestamp": "2100-01-01T00:00:00Z"}}),
        ),
        _ => Answer::status(404, "NotFound", "not found"),
    }
}

fn node(port: u16) -> Value {
    node_of(NODE, port)
}

/// As the host shows it.
pub fn node_of(name: &str, port: u16) -> Value {
    json!({"metadata": {"name": name}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }})
}

/// `web` of alpha and beta, one of alpha on another node, and one that calls itself alpha's without its label.
pub fn table() -> Value {
    let row = |name: &str, cluster: &str, own: &str, node: &str| {
        json!({"cells": [name, node], "object": {"metadata": {
            "name": name, "namespace": HOST_NAMESPACE, "uid": format!("host-{name}"),
            "labels": {"portico.dev/cluster": cluster},
            "annotations": {"portico.dev/object-name": own, "portico.dev/object-namespace": "default",
                "portico.dev/object-uid": format!("virtual-{own}")},
        }}})
    };
    json!({"columnDefinitions": [{"name": "Name"}, {"name": "Node"}], "rows": [
        row("web-x-default-x-alpha", "alpha", "web", NODE),
        row("web-x-default-x-beta", "beta", "web", NODE),
        row("away-x-default-x-alpha", "alpha", "away", "node-2"),
        row("forged-x-default-x-alpha", "", "forged", NODE),
    ]})
}

fn series(name: &str) -> String {
    let of = |namespace: &str, pod: &str, value: u32| {
        format!("{name}{{container=\"main\",namespace=\"{namespace}\",pod=\"{pod}\"}} {value}\n")
    };
    format!(
        "# HELP {name} What it is\n# TYPE {name} counter\n{name}{{container=\"\",namespace=\"\",pod=\"\"}} 99\n{}{}{}{}{}",
        of("team", "web-x-default-x-alpha", 1),
        of("team", "web-x-default-x-beta", 2),
        of("team", "away-x-default-x-alpha", 3),
        of("team", "forged-x-default-x-alpha", 4),
        of("kube-system", "etcd", 5),
    )
}

fn well(seen: Seen) -> Answer {
    match seen.path.as_str() {
        "/healthz" => Answer::text(200, "ok"),
        "/stats/summary" => {
            let pod = |name: &str| {
                json!({"podRef": {"namespace": "team", "name": name, "uid": format!("host-{name}")},
                    "cpu": {"usageNanoCores": name.len()}})
            };
            let pods =
                json!([pod("web-x-default-x-alpha"), pod("web-x-default-x-beta"), pod("forged-x-default-x-alpha")]);
            Answer::json(200, &json!({"node": {"nodeName": NODE, "cpu": {"usageNanoCores": 99}}, "pods": pods}))
        }
        path if path.starts_with("/metrics") => Answer::text(200, &series("container_x_total")),
        path => Answer::text(404, path),
    }
}

#[tokio::test]
async fn each_tenant_sees_its_own_pods_and_nobody_elses() {
    let stage = Stage::new(well).await;
    let (a, b) = (&stage.world.a, &stage.world.b);
    let shown = |value| {
        format!(
            "# HELP container_x_total What it is\n# TYPE container_x_total counter\n\
             container_x_total{{namespace=\"default\",pod=\"web\",container=\"main\"}} {value}\n"
        )
    };
    for kind in ["metrics", "metrics/cadvisor", "metrics/resource", "metrics/probes"] {
        let path = format!("/api/v1/nodes/{NODE}/proxy/{kind}");
        assert_eq!(stage.get(a, "jane", &path).await, (200, shown(1)), "{kind}");
        assert_eq!(stage.get(b, "jane", &path).await, (200, shown(2)), "{kind}");
    }
    let (code, summary) = stage.get(a, "jane", "/api/v1/nodes/node-1/proxy/stats/summary").await;
    let pod =
        json!({"podRef": {"namespace": "default", "name": "web", "uid": "virtual-web"}, "cpu": {"usageNanoCores": 21}});
    let expected = json!({"node": {"nodeName": NODE}, "pods": [pod]});
    assert_eq!((code, serde_json::from_str::<Value>(&summary).expect("json")), (200, expected));
    assert_eq!(stage.get(a, "jane", "/api/v1/nodes/node-1/proxy/healthz").await, (200, "ok".to_owned()));
    for seen in stage.kubelet.seen() {
        assert!(!seen.has_certificate && seen.header("authorization") == Some("Bearer kubelet-token"), "{seen:?}");
        let names: Vec<&str> = seen.headers.keys().map(http::HeaderName::as_str).collect();
        let ours = ["accept", "authorization", "host", "user-agent"];
        assert!(names.iter().all(|name| ours.contains(name)), "nothing of the caller: {names:?}");
    }
}

#[tokio::test]
async fn a_nodes_pods_are_those_of_the_tenants_own_server() {
    let stage = Stage::new(well).await;
    let list = json!({"kind": "PodList", "items": [{"metadata": {"name": "web"}}]});
    stage.world.a.objects.put("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1", list.clone());
    let (mut wire, head) =
        stage.world.ask(&stage.world.a, "jane", "GET /api/v1/nodes/node-1/proxy/pods\nconnection: close").await;
    let text = String::from_utf8(wire.rest().await).expect("text");
    assert!(head.code == 200 && text.contains("\"PodList\""), "{head:?} {text}");
    assert!(stage.kubelet.seen().is_empty());
    let asked = stage.world.a.api.seen().into_iter().find(|seen| seen.path == "/api/v1/pods").expect("asked");
    assert_eq!(asked.header("x-remote-user"), Some("system:portico"));
}

#[tokio::test]
async fn nothing_else_of_a_kubelet_is_reached_whatever_it_is_called() {
    let stage = Stage::new(well).await;
    let a = &stage.world.a;
    for rest in [
        "",
        "/",
        "/configz",
        "/runningpods/",
        "/run/team/web/main?cmd=id",
        "/exec/team/web/main?command=id&output=1",
        "/exec/healthz",
        "/exec/metrics/cadvisor",
        "/run/healthz",
        "/attach/team/web/main",
        "/portForward/team/web",
        "/containerLogs/team/web/main",
        "/logs/",
        "/debug/pprof/profile",
        "/cri/exec/token",
        "/checkpoint/team/web/main",
        "//metrics",
        "/metrics/",
        "/metrics//cadvisor",
        "/Metrics",
        "/metrics%2fcadvisor",
        "/%6detrics",
        "/metrics;/exec",
        "/pods/exec",
        "/healthz/exec",
        "/stats/container",
        "/stats/summary/",
    ] {
        let (code, _) =
            stage.world.refusal(a, "jane", &format!("GET /api/v1/nodes/{NODE}/proxy{rest}\nconnection: close")).await;
        assert_eq!(code, 403, "{rest}");
    }
    for rest in [
        "/../exec",
        "/exec%2f..%2fmetrics",
        "/metrics/../exec",
        "/metrics/%2e%2e/exec",
        "/metrics\\..\\exec",
        "/metrics%00",
    ] {
        let (code, _) =
            stage.world.refusal(a, "jane", &format!("GET /api/v1/nodes/{NODE}/proxy{rest}\nconnection: close")).await;
        assert!(matches!(code, 400 | 403), "{rest}: {code}");
    }
    for name in ["node-1:10255", "http:node-1:10255", "https:node-1", "node-1:", "node-1%3A10250", "NODE-1"] {
        let (code, _) =
            stage.world.refusal(a, "jane", &format!("GET /api/v1/nodes/{name}/proxy/metrics\nconnection: close")).await;
        assert_eq!(code, 403, "{name}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let request = format!("{method} {CADVISOR}\nconnection: close\ncontent-length: 0");
        assert_eq!(stage.world.refusal(a, "jane", &request).await.0, 403, "{method}");
    }
    let upgrade = format!(
        "GET {CADVISOR}\nconnection: Upgrade\nupgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: a2V5"
    );
    assert_eq!(stage.world.refusal(a, "jane", &upgrade).await.0, 403);
    assert!(stage.kubelet.seen().is_empty(), "{:?}", stage.kubelet.seen());
}

#[tokio::test]
async fn the_tenant_says_who_may_and_which_nodes_there_are() {
    let stage = Stage::new(well).await;
    let a = &stage.world.a;
    let (code, message) = stage.world.refusal(a, "eve", &format!("GET {CADVISOR}\nconnection: close")).await;
    let expected = "nodes \"node-1\" is forbidden: User \"eve\" cannot get resource \"nodes/proxy\" in API group \"\" at the \
                    cluster scope";
    assert_eq!((code, message.as_str()), (403, expected));
    assert!(stage.kubelet.seen().is_empty());
    assert_eq!(stage.get(a, "reader", CADVISOR).await.0, 200);
    let port = stage.kubelet.address.port();
    for name in [format!("{NODE}:{port}"), format!("https:{NODE}:{port}")] {
        let path = format!("/api/v1/nodes/{name}/proxy/metrics");
        assert_eq!(stage.get(a, "jane", &path).await.0, 200, "{name}");
        let review = a.api.seen().into_iter().rfind(|seen| seen.path.ends_with("/selfsubjectaccessreviews"));
        let attributes = review.expect("asked").json()["spec"]["resourceAttributes"].clone();
        assert_eq!(attributes["name"], json!(name), "as a plain API server names it");
        assert_eq!((&attributes["verb"], &attributes["subresource"]), (&json!("get"), &json!("proxy")));
    }
    a.objects.remove("/api/v1/nodes/node-1");
    assert_eq!(stage.world.refusal(a, "jane", &format!("GET {CADVISOR}\nconnection: close")).await.0, 404);
    // One that the tenant made up, and the host has not.
    a.objects.put("/api/v1/nodes/node-9", json!({"metadata": {"name": "node-9"}}));
    let made_up = "GET /api/v1/nodes/node-9/proxy/metrics\nconnection: close";
    assert_eq!(stage.world.refusal(a, "jane", made_up).await.0, 404);
}

#[tokio::test]
async fn who_judges_connect_in_the_tenant_is_not_passed_by() {
    let stage = Stage::new(well).await;
    let rule =
        json!({"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["nodes/proxy"]});
    let webhook = json!({"metadata": {"name": "c"}, "webhooks": [{"name": "guard.example.com", "rules": [rule]}]});
    stage.world.a.rules.put("validatingwebhookconfigurations", &webhook);
    let (code, message) =
        stage.world.refusal(&stage.world.a, "jane", &format!("GET {CADVISOR}\nconnection: close")).await;
    assert!(code == 403 && message.contains("guard.example.com"), "{message}");
    assert_eq!(stage.get(&stage.world.b, "jane", CADVISOR).await.0, 200);
}

#[tokio::test]
async fn figures_of_the_node_are_shown_where_the_policy_lets_them() {
    let stage = Stage::new(well).await;
    let mut tenant = stage.world.a.tenant(2, &Clock::system());
    let bounds = PolicyBounds { node_usage: NodeUsage::Real, ..PolicyBounds::default() };
    tenant.policy = GrantedPolicy::of(bounds, Policy::default());
    stage.world.registry.put(&Arc::new(tenant));
    let (_, text) = stage.get(&stage.world.a, "jane", CADVISOR).await;
    assert!(text.contains("container_x_total{container=\"\",namespace=\"\",pod=\"\"} 99\n"), "{text}");
    assert!(!text.contains("etcd") && !text.contains("-x-") && !text.contains("} 2\n"), "{text}");
    let (_, text) = stage.get(&stage.world.b, "jane", CADVISOR).await;
    assert!(!text.contains("99"), "{text}");
}

#[tokio::test]
async fn without_kubelets_it_is_said_who_can_switch_them_on() {
    let stage = Stage::with(|config, _| config.enabled = false, |_| Answer::Hang, well).await;
    let (code, message) =
        stage.world.refusal(&stage.world.a, "jane", &format!("GET {CADVISOR}\nconnection: close")).await;
    assert!(code == 503 && message.contains("kubelets.enabled"), "{code} {message}");
    assert!(stage.kubelet.seen().is_empty());
}

#[tokio::test]
async fn a_kubelet_that_is_not_the_nodes_gets_no_token_unless_the_admin_says_so() {
    let other = Pki::new("another CA");
    let stage = Stage::with(|config, _| config.ca = other.ca_pem().to_owned(), |_| Answer::Hang, well).await;
    let (code, message) =
        stage.world.refusal(&stage.world.a, "jane", &format!("GET {CADVISOR}\nconnection: close")).await;
    assert!(code == 503 && !message.contains("127.0.0.1"), "{message}");
    assert!(stage.kubelet.seen().is_empty());
    let stage = Stage::with(|config, _| config.insecure_skip_tls_verify = true, |_| Answer::Hang, well).await;
    assert_eq!(stage.get(&stage.world.a, "jane", CADVISOR).await.0, 200);
}

#[tokio::test]
async fn a_broken_kubelet_hurts_nobody() {
    let endless = |piece: &'static str| {
        let (answer, sender) = Answer::stream();
        let sending = async move { while sender.send(Bytes::from_static(piece.as_bytes())).await.is_ok() {} };
        portico::runtime::task::spawn("endless", sending).ends_by_itself();
        answer
    };
    let stage = Stage::new(move |seen| match seen.path.as_str() {
        "/metrics" => endless("container_x_total{namespace=\"kube-system\",pod=\"etcd\"} 1\n"),
        "/metrics/cadvisor" => endless("a line without end "),
        "/metrics/resource" => Answer::Hang,
        "/metrics/probes" => Answer::status(403, "Forbidden", "secret of the host"),
        "/stats/summary" => Answer::text(200, "{\"pods\": [[[["),
        _ => Answer::text(500, "[-]secret failed"),
    })
    .await;
    let (a, b) = (&stage.world.a, &stage.world.b);
    for kind in ["metrics", "metrics/cadvisor", "metrics/resource", "metrics/probes", "stats/summary"] {
        let request = format!("GET /api/v1/nodes/{NODE}/proxy/{kind}\nconnection: close");
        let (code, message) = stage.world.refusal(a, "jane", &request).await;
        assert!(code == 503 && !message.contains("secret"), "{kind}: {code} {message}");
    }
    let unwell = stage.get(b, "jane", "/api/v1/nodes/node-1/proxy/healthz").await;
    assert_eq!(unwell, (500, "healthz check failed".to_owned()));
    let metrics = stage.world.metrics.render().expect("metrics");
    let buffered: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("portico_gateway_buffered_bytes{")).collect();
    assert!(buffered.len() == 2 && buffered.iter().all(|line| line.ends_with(" 0")), "not given back: {buffered:?}");
}

#[tokio::test]
async fn garbage_is_nothing() {
    let stage = Stage::new(|_| {
        let mut body = b"\xff\xfe{}\n}{\nx{namespace=\"team\",pod=\"web-x-default-x-alpha\"\n".to_vec();
        body.extend(series("ok_total").into_bytes());
        body.extend(vec![b'y'; 100 << 10]);
        body.extend(b"\nx{namespace=\"team\",pod=\"web-x-default-x-alpha\"} 7");
        Answer::Full(http::Response::new(Bytes::from(body)))
    })
    .await;
    let (code, text) = stage.get(&stage.world.a, "jane", CADVISOR).await;
    let expected = "# HELP ok_total What it is\n# TYPE ok_total counter\n\
                    ok_total{namespace=\"default\",pod=\"web\",container=\"main\"} 1\nx{namespace=\"default\",pod=\"web\"} 7\n";
    assert_eq!((code, text.as_str()), (200, expected));
}

#[tokio::test]
async fn a_flood_of_one_tenant_is_one_question_and_the_other_is_served() {
    let stage = Stage::new(well).await;
    let (a, b) = (&stage.world.a, &stage.world.b);
    let flood = futures::future::join_all((0..12).map(|_| stage.get(a, "jane", CADVISOR)));
    let (answers, other) = futures::future::join(flood, stage.get(b, "jane", CADVISOR)).await;
    assert!(answers.iter().all(|(code, text)| *code == 200 && text.contains("} 1\n")), "{answers:?}");
    assert!(other.0 == 200 && other.1.contains("} 2\n"));
    assert_eq!(stage.kubelet.seen().len(), 2, "one for each tenant");
    let tokens = stage.world.host.seen().into_iter().filter(|seen| seen.path.ends_with("/token")).count();
    assert_eq!(tokens, 1);
}

#[tokio::test]
async fn one_who_asks_for_more_than_he_may_at_once_is_refused_and_nobody_else() {
    let held = Arc::new(Mutex::new(None));
    let holding = Arc::clone(&held);
    let longer = |config: &mut KubeletsConfig, ca: String| {
        (config.ca, config.request_timeout) = (ca, Span(crate::world::PATIENCE));
    };
    let kubelet = move |seen: Seen| {
        if seen.path != "/metrics/cadvisor" {
            return well(seen);
        }
        let (answer, sender) = Answer::stream();
        *holding.lock() = Some(sender);
        answer
    };
    let stage = Stage::with(longer, |_| Answer::Hang, kubelet).await;
    let (a, b) = (&stage.world.a, &stage.world.b);
    let mut asked: FuturesUnordered<_> = (0..20).map(|_| stage.get(a, "jane", CADVISOR)).collect();
    for _ in 0..4 {
        let (code, text) = asked.next().await.expect("an answer");
        assert!(code == 429 && text.contains("more often than it may"), "{code} {text}");
    }
    assert_eq!(stage.get(b, "jane", "/api/v1/nodes/node-1/proxy/metrics").await.0, 200);
    stage.kubelet.wait_seen(1).await;
    drop(held.lock().take());
    let rest: Vec<_> = asked.collect().await;
    assert!(rest.len() == 16 && rest.iter().all(|(code, _)| *code == 200), "{rest:?}");
}

#[tokio::test]
async fn nodes_that_a_tenant_made_up_are_not_asked_for_beyond_its_allowance() {
    let held: Arc<Mutex<Vec<_>>> = Arc::default();
    let holding = Arc::clone(&held);
    let host = move |seen: &Seen| {
        let name = seen.path.strip_prefix("/api/v1/nodes/made-up-")?;
        let (answer, sender) = Answer::stream();
        holding.lock().push((sender, json!({"metadata": {"name": name}}).to_string()));
        Some(answer)
    };
    let stage = Stage::beside(|config, ca| config.ca = ca, host, well).await;
    let (a, b) = (&stage.world.a, &stage.world.b);
    for n in 0..20 {
        a.objects.put(&format!("/api/v1/nodes/made-up-{n}"), json!({"metadata": {"name": n}}));
    }
    let paths: Vec<String> = (0..20).map(|n| format!("/api/v1/nodes/made-up-{n}/proxy/metrics")).collect();
    let mut asked: FuturesUnordered<_> = paths.iter().map(|path| stage.get(a, "jane", path)).collect();
    for _ in 0..4 {
        let (code, text) = asked.next().await.expect("an answer");
        assert!(code == 429 && text.contains("more often than it may"), "{code} {text}");
    }
    assert_eq!(stage.get(b, "jane", CADVISOR).await.0, 200);
    let release = async {
        for _ in 0..16 {
            while held.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let (sender, node) = held.lock().remove(0);
            sender.send(Bytes::from(node)).await.expect("sent");
        }
    };
    let (rest, ()) = futures::future::join(asked.collect::<Vec<_>>(), release).await;
    assert!(rest.len() == 16 && rest.iter().all(|(code, _)| *code == 404), "{rest:?}");
    let asked = stage.world.host.seen().into_iter().filter(|seen| seen.path.contains("/made-up-")).count();
    assert_eq!(asked, 16);
}

#[tokio::test]
async fn a_kubelet_that_knows_no_token_takes_nobody_elses() {
    let unknown = |_: Seen| Answer::status(401, "Unauthorized", "no");
    let stage = Stage::new(unknown).await;
    let tokens = || stage.world.host.seen().into_iter().filter(|seen| seen.path.ends_with("/token")).count();
    let (a, b) = (&stage.world.a, &stage.world.b);
    let ask = async |cluster, kind| {
        let path = format!("/api/v1/nodes/{NODE}/proxy/{kind}");
        assert_eq!(stage.get(cluster, "jane", &path).await.0, 503, "{kind}");
        tokens()
    };
    assert_eq!((ask(a, "metrics").await, ask(b, "metrics").await, ask(a, "healthz").await), (1, 1, 1));
    // One that was made a minute ago may be unknown by now, and then once.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!((ask(a, "metrics").await, ask(b, "metrics").await, ask(a, "healthz").await), (1, 2, 2));
}

#[tokio::test]
async fn a_token_that_cannot_be_had_is_not_asked_for_by_everybody() {
    let host = |seen: &Seen| seen.path.ends_with("/token").then(|| Answer::status(403, "Forbidden", "no"));
    let stage = Stage::beside(|config, ca| config.ca = ca, host, well).await;
    for cluster in [&stage.world.a, &stage.world.b] {
        for kind in ["metrics", "metrics/cadvisor"] {
            let path = format!("GET /api/v1/nodes/{NODE}/proxy/{kind}\nconnection: close");
            let (code, message) = stage.world.refusal(cluster, "jane", &path).await;
            assert!(code == 503 && message.contains("kubelets.enabled"), "{code} {message}");
        }
    }
    let asked = stage.world.host.seen().into_iter().filter(|seen| seen.path.ends_with("/token")).count();
    assert_eq!(asked, 1);
    assert!(stage.kubelet.seen().is_empty());
}
