//! `metrics.k8s.io` for a tenant's own API server as aggregator: its own pods and nodes, for nobody else, nothing else by its
//! certificate, and never back to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use portico::config::GatewayConfig;
use portico::config::policy::{NodeUsage, PolicyBounds};
use portico::crd::pki::{AGGREGATOR_NAME, FRONT_PROXY_NAME};
use portico::crd::policy::{GrantedPolicy, Policy};
use portico::runtime::clock::Clock;
use serde_json::{Value, json};

use crate::support::fake::{Answer, parameters};
use crate::support::pki::Pki;
use crate::world::{Cluster, PATIENCE, World, status, text};

const PODS: &str = "/apis/metrics.k8s.io/v1beta1/pods";
const OF_DEFAULT: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";
const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";

fn pod(namespace: &str, name: &str, containers: &[&str]) -> Value {
    let containers: Vec<Value> = containers.iter().map(|name| json!({"name": name, "image": "x"})).collect();
    json!({"metadata": {"name": name, "namespace": namespace, "labels": {"app": name}}, "spec": {"containers": containers}})
}

fn list(kind: &str, items: &[Value], token: &str) -> Answer {
    Answer::json(200, &json!({"kind": kind, "apiVersion": "v1", "metadata": {"continue": token}, "items": items}))
}

async fn asked(world: &World, cluster: &Cluster, is_http2: bool, path: &str) -> (u16, Value) {
    let mut client = world.by_port(cluster).user(cluster.aggregator()).http(is_http2).await;
    let answer = client.get_with(path, &[("x-remote-user", "jane")]).await;
    assert_eq!(answer.headers()["content-type"], "application/json");
    let code = answer.status().as_u16();
    (code, serde_json::from_str(&text(answer).await).expect("json"))
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("items").iter();
    items
        .map(|item| format!("{}/{}", item["metadata"]["namespace"], item["metadata"]["name"]).replace('"', ""))
        .collect()
}

#[tokio::test]
async fn an_aggregator_gets_the_tenants_pods_as_the_tenant_knows_them() {
    let world = World::start().await;
    let (a, id) = (&world.a, world.a.id());
    let sidecar = ("istio-proxy", 9_000_000, 9 << 20);
    world.figures.pod(&id, "web-x-default-x-alpha", "n1", &[("main", 1_500_000, 4096), ("log", 0, 5000), sidecar]);
    world.figures.pod(&id, "gone-x-default-x-alpha", "n1", &[("main", 1, 1)]);
    world.figures.pod(&id, "foreign", "n1", &[("main", 1, 1)]);
    for is_http2 in [false, true] {
        a.answer(list("PodList", &[pod("default", "web", &["main", "log"]), pod("default", "idle", &["main"])], ""));
        let path = format!("{OF_DEFAULT}?labelSelector=app%20in%20(web,idle)&fieldSelector=metadata.name!%3Dx&limit=1");
        let (code, mut metrics) = asked(&world, a, is_http2, &path).await;
        let seen = a.last_seen();
        assert_eq!((code, seen.path.as_str()), (200, "/api/v1/namespaces/default/pods"));
        let query = parameters(&seen.query);
        let has = |key: &str, value: &str| query.contains(&(key.to_owned(), value.to_owned()));
        assert!(has("labelSelector", "app in (web,idle)") && has("fieldSelector", "metadata.name!=x"), "{query:?}");
        assert!(has("resourceVersion", "0") && seen.header("x-remote-user") != Some("jane"), "{query:?}");
        let item = &mut metrics["items"][0];
        assert!(item["metadata"]["creationTimestamp"].is_string());
        item["metadata"].as_object_mut().expect("metadata").remove("creationTimestamp");
        let expected = json!({"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": [{
            "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
            "timestamp": "2026-01-02T03:04:05Z", "window": "15.250s",
            "containers": [{"name": "main", "usage": {"cpu": "1500000n", "memory": "4Ki"}},
                {"name": "log", "usage": {"cpu": "0", "memory": "5000"}}],
        }]});
        assert_eq!(metrics, expected);
        a.answer(Answer::json(200, &pod("default", "web", &["main"])));
        let (code, one) = asked(&world, a, is_http2, &format!("{OF_DEFAULT}/web")).await;
        assert_eq!(
            (code, &one["kind"], &one["apiVersion"]),
            (200, &json!("PodMetrics"), &json!("metrics.k8s.io/v1beta1"))
        );
        assert_eq!(one["containers"].as_array().map(Vec::len), Some(1), "{one}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_404_in_metrics_servers_words() {
    let world = World::start().await;
    let a = &world.a;
    a.answer(Answer::json(200, &pod("default", "idle", &["main"])));
    let (code, said) = asked(&world, a, true, &format!("{OF_DEFAULT}/idle")).await;
    assert_eq!((code, &said["message"]), (404, &json!("podmetrics.metrics.k8s.io \"default/idle\" not found")));
    a.answer(Answer::status(404, "NotFound", "pods \"none\" not found"));
    let (code, said) = asked(&world, a, true, &format!("{OF_DEFAULT}/none")).await;
    assert_eq!((code, &said["message"]), (404, &json!("pods \"none\" not found")));
    a.answer(Answer::status(404, "NotFound", "nodes \"none\" not found"));
    assert_eq!(asked(&world, a, true, &format!("{NODES}/none")).await.0, 404);
    a.answer(Answer::status(400, "BadRequest", "unable to parse requirement"));
    let (code, said) = asked(&world, a, true, &format!("{PODS}?labelSelector=%24")).await;
    assert_eq!((code, &said["message"]), (400, &json!("unable to parse requirement")), "as the API server says it");
}

/// The same namespace, name and container in both.
#[tokio::test]
async fn neither_of_two_tenants_sees_the_other() {
    let world = World::start().await;
    for (cluster, host_name, cpu) in [(&world.a, "web-x-default-x-alpha", 1), (&world.b, "web-x-default-x-beta", 2)] {
        world.figures.pod(&cluster.id(), host_name, "n1", &[("main", cpu, 1024)]);
    }
    for (cluster, cpu) in [(&world.a, "1n"), (&world.b, "2n")] {
        cluster.answer(list("PodList", &[pod("default", "web", &["main"])], ""));
        let (_, metrics) = asked(&world, cluster, true, PODS).await;
        assert_eq!(metrics["items"][0]["containers"][0]["usage"]["cpu"], cpu);
        cluster.answer(list("NodeList", &[json!({"metadata": {"name": "n1"}})], ""));
        let (_, metrics) = asked(&world, cluster, true, NODES).await;
        assert_eq!(metrics["items"][0]["usage"]["cpu"], cpu, "its own pods' part of the node");
    }
    // Hostile: a pod that is named as the neighbour's is on the host.
    world.a.answer(list("PodList", &[pod("default", "web-x-default-x-beta", &["main"])], ""));
    let (_, metrics) = asked(&world, &world.a, true, PODS).await;
    assert_eq!(names(&metrics), Vec::<String>::new());
}

#[tokio::test]
async fn nodes_have_the_tenants_own_part_unless_the_admin_shows_the_whole() {
    let world = World::start().await;
    let (a, id) = (&world.a, world.a.id());
    world.figures.pod(
        &id,
        "web-x-default-x-alpha",
        "n1",
        &[("main", 1_000_000, 1 << 20), ("istio-proxy", 500_000, 1 << 20)],
    );
    world.figures.pod(&id, "db-x-default-x-alpha", "n1", &[("main", 2_000_000, 2 << 20)]);
    for (name, cpu) in [("n1", 7_000_000_000), ("n2", 8_000_000_000), ("secret", 9_000_000_000)] {
        world.figures.node(name, cpu, 64 << 30);
    }
    let shown = [json!({"metadata": {"name": "n1", "labels": {"zone": "a"}}}), json!({"metadata": {"name": "n2"}})];
    let usage = |metrics: &Value, at: usize| metrics["items"][at]["usage"].clone();
    a.answer(list("NodeList", &shown, ""));
    let (_, own) = asked(&world, a, true, NODES).await;
    assert_eq!((names(&own).len(), &own["items"][0]["metadata"]["labels"]), (2, &json!({"zone": "a"})));
    assert_eq!(usage(&own, 0), json!({"cpu": "3500000n", "memory": "4096Ki"}));
    assert_eq!(usage(&own, 1), json!({"cpu": "0", "memory": "0"}), "nothing of its own runs there");
    for (generation, bound, cpu) in [(2, NodeUsage::Own, "3500000n"), (3, NodeUsage::Real, "7000000000n")] {
        let bounds = PolicyBounds { node_usage: bound, ..PolicyBounds::default() };
        let policy = GrantedPolicy::of(bounds, Policy { node_usage: Some(NodeUsage::Real), ..Policy::default() });
        world
            .registry
            .put(&Arc::new(portico::tenant::Tenant { policy, ..a.tenant(generation, &a.client_ca, &world.clock) }));
        a.answer(list("NodeList", &shown, ""));
        let (_, metrics) = asked(&world, a, true, NODES).await;
        assert_eq!(
            (names(&metrics).len(), usage(&metrics, 0)["cpu"].as_str()),
            (2, Some(cpu)),
            "no node that it does not see"
        );
    }
}

#[tokio::test]
async fn hostile_certificates_of_the_front_proxies_authority_open_nothing() {
    let world = World::start().await;
    let (a, b) = (&world.a, &world.b);
    let others = [
        a.front_proxy_ca.client(FRONT_PROXY_NAME, &[]),
        a.front_proxy_ca.client("jane", &["system:masters"]),
        a.front_proxy_ca.server(&[AGGREGATOR_NAME]),
        b.aggregator(),
        Pki::new("front-proxy CA").client(AGGREGATOR_NAME, &[]),
    ];
    for other in others {
        for is_http2 in [false, true] {
            for dial in [world.by_port(a), world.by_name(a)] {
                let mut client = dial.user(other.clone()).http(is_http2).await;
                for path in [PODS, "/apis/metrics.k8s.io", "/api"] {
                    let said = client.get_with(path, &[("x-remote-user", "root")]).await;
                    assert_eq!(status(said).await, (401, "Unauthorized".to_owned()), "{path}");
                }
            }
        }
    }
    assert!(a.api.seen().is_empty() && b.api.seen().is_empty());
}

#[tokio::test]
async fn an_aggregator_gets_nothing_else_and_never_its_own_question_back() {
    let world = World::start().await;
    let a = &world.a;
    for is_http2 in [false, true] {
        for path in
            ["/api", "/apis", "/version", "/api/v1/namespaces/default/secrets", "/openapi/v2", "/portico/store", NODES]
        {
            let mut client = world.by_port(a).user(a.aggregator()).http(is_http2).await;
            let headers =
                [("x-remote-user", "root"), ("x-remote-group", "system:masters"), ("authorization", "Bearer x")];
            let host = client.host.clone();
            let method = if path == NODES { "POST" } else { "GET" };
            let code = client.send(method, &host, path, &headers).await.status().as_u16();
            assert!(matches!(code, 403..=405), "{method} {path}: {code}");
        }
        let mut client = world.by_port(a).user(a.aggregator()).http(is_http2).await;
        let (group, resources) =
            (client.get("/apis/metrics.k8s.io").await, client.get("/apis/metrics.k8s.io/v1beta1").await);
        assert!(text(group).await.contains("\"APIGroup\"") && text(resources).await.contains("\"PodMetrics\""));
    }
    assert!(a.api.seen().is_empty(), "{:?}", a.api.seen());
    a.answer(list("PodList", &[], ""));
    assert_eq!(asked(&world, a, true, PODS).await.0, 200);
    let seen: Vec<String> = a.api.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(seen, ["/api/v1/pods"], "nothing of the group goes to its API server");
}

/// Whoever calls himself so is a user as any other: he asks the API server, which judges him.
#[tokio::test]
async fn hostile_users_are_no_aggregators_whatever_they_call_themselves() {
    let world = World::start().await;
    let a = &world.a;
    for is_http2 in [false, true] {
        let mut client = world.by_port(a).user(a.user(AGGREGATOR_NAME)).http(is_http2).await;
        assert_eq!(text(client.get_with(PODS, &[("x-remote-user", "root")]).await).await, "alpha");
        let seen = a.last_seen();
        assert_eq!((seen.path.as_str(), seen.header("x-remote-user")), (PODS, Some(AGGREGATOR_NAME)));
    }
}

#[tokio::test]
async fn neither_users_nor_the_aggregator_keep_the_other_out() {
    let config = GatewayConfig { max_requests_per_tenant: 4, max_connections_per_tenant: 4, ..Default::default() };
    let world = World::with(config, Clock::system()).await;
    let a = &world.a;
    let mut user = world.by_name(a).user(a.user("mallory")).http(true).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let (answer, rest) = Answer::stream();
        a.answer(answer);
        held.push((user.get("/api/v1/pods").await, rest));
    }
    assert_eq!(user.get("/api").await.status(), 429, "all that a user may have");
    a.answer(list("PodList", &[], ""));
    assert_eq!(asked(&world, a, true, PODS).await.0, 200);
    drop(held);
    world.metric_becomes("portico_gateway_requests_in_flight", a, 0.0).await;
    world.figures.silent.store(true, Ordering::SeqCst);
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let mut client = world.by_port(a).user(a.aggregator()).http(true).await;
        waiting.spawn(async move { client.get_with(PODS, &[("x-remote-user", "mallory")]).await.status() });
    }
    let all = async {
        while world.figures.waiting.load(Ordering::SeqCst) < 6 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("six ask");
    let mut client = world.by_port(a).user(a.aggregator()).http(true).await;
    assert_eq!(client.get_with(PODS, &[("x-remote-user", "mallory")]).await.status(), 429, "no more of one user");
    assert_eq!(user.get("/api").await.status(), 200, "its users' seats are free");
    world.figures.silent.store(false, Ordering::SeqCst);
    a.answer(list("PodList", &[], ""));
    assert_eq!(asked(&world, a, true, PODS).await.0, 200, "of another there is");
}

#[tokio::test]
async fn figures_that_nobody_has_are_503_as_kubernetes_says_it() {
    let world = World::start().await;
    world.figures.away.store(true, Ordering::SeqCst);
    for (path, resource) in [(PODS, "pods"), (NODES, "nodes")] {
        let mut client = world.by_port(&world.a).user(world.a.aggregator()).http(true).await;
        let said = client.get(path).await;
        assert!(!said.headers().contains_key("retry-after"), "nobody comes ten times before it is told");
        let said: Value = serde_json::from_str(&text(said).await).expect("json");
        let expected = format!(
            "the server is currently unable to handle the request (get {resource}.metrics.k8s.io): neither the host's metrics \
             API nor its kubelets can be asked"
        );
        assert_eq!((&said["code"], said["message"].as_str()), (&json!(503), Some(expected.as_str())));
    }
    assert!(world.a.api.seen().is_empty());
}

#[tokio::test]
async fn a_long_list_comes_in_pages_and_a_large_pod_hides_no_other() {
    let world = World::start().await;
    let (a, id) = (&world.a, world.a.id());
    for name in ["web", "db"] {
        world.figures.pod(&id, &format!("{name}-x-default-x-alpha"), "n1", &[("main", 1, 1024)]);
    }
    a.answer(Answer::text(200, &format!("{{\"items\":[],\"x\":\"{}\"}}", "y".repeat(3 << 20))));
    a.answer(list("PodList", &[pod("default", "web", &["main"])], "more"));
    a.answer(Answer::text(200, &"y".repeat(3 << 20)));
    a.answer(list("PodList", &[json!({"metadata": 7}), pod("default", "db", &["main"])], ""));
    let (code, metrics) = asked(&world, a, true, PODS).await;
    assert_eq!((code, names(&metrics)), (200, vec!["default/web".to_owned(), "default/db".to_owned()]));
    let limits: Vec<Option<String>> = a
        .api
        .seen()
        .iter()
        .map(|seen| parameters(&seen.query).into_iter().find(|(key, _)| key == "limit").map(|(_, value)| value))
        .collect();
    assert_eq!(limits, [None, Some("200".to_owned()), Some("200".to_owned()), Some("10".to_owned())]);
    a.answer(list("PodList", &vec![pod("default", "web", &["main"]); 10_001], ""));
    for page in 0..60 {
        a.answer(list("PodList", &vec![pod("default", "web", &["main"]); 200], &format!("{page}")));
    }
    assert_eq!(asked(&world, a, true, PODS).await.0, 413, "a list without an end has one");
}

#[tokio::test]
async fn an_object_that_is_too_large_by_itself_is_left_out_and_its_neighbours_are_there() {
    let world = World::start().await;
    let (a, id) = (&world.a, world.a.id());
    for name in ["web", "db"] {
        world.figures.pod(&id, &format!("{name}-x-default-x-alpha"), "n1", &[("main", 1, 1024)]);
    }
    let large = || Answer::text(200, &"y".repeat(3 << 20));
    for answer in [large(), large(), large(), list("PodList", &[pod("default", "web", &["main"])], "second")] {
        a.answer(answer);
    }
    for answer in [large(), large()] {
        a.answer(answer);
    }
    a.answer(Answer::json(200, &json!({"kind": "Table", "metadata": {"continue": "third"}, "rows": []})));
    a.answer(list("PodList", &[pod("default", "db", &["main"])], ""));
    let (code, metrics) = asked(&world, a, true, &format!("{PODS}?labelSelector=a")).await;
    assert_eq!((code, names(&metrics)), (200, vec!["default/web".to_owned(), "default/db".to_owned()]));
    let of = |query: &str, key: &str| {
        let found = parameters(query).into_iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value).unwrap_or_default()
    };
    let seen = a.api.seen();
    let pages: Vec<(String, String)> =
        seen.iter().map(|seen| (of(&seen.query, "limit"), of(&seen.query, "continue"))).collect();
    let page = |limit: &str, token: &str| (limit.to_owned(), token.to_owned());
    let expected = [
        page("", ""),
        page("200", ""),
        page("10", ""),
        page("1", ""),
        page("10", "second"),
        page("1", "second"),
        page("1", "second"),
        page("1", "third"),
    ];
    assert_eq!(pages, expected);
    assert_eq!((of(&seen[6].query, "includeObject"), of(&seen[6].query, "labelSelector")), ("None".into(), "a".into()));
}

#[tokio::test]
async fn nothing_is_asked_for_that_cannot_be_kept() {
    let config = GatewayConfig { max_buffered_bytes: 4 << 20, ..Default::default() };
    let world = World::with(config, Clock::system()).await;
    for path in [&format!("{OF_DEFAULT}/web"), PODS, &format!("{NODES}/n1")] {
        assert_eq!(asked(&world, &world.a, true, path).await.0, 413, "{path}");
    }
    assert!(world.a.api.seen().is_empty());
}

#[tokio::test]
async fn figures_that_do_not_come_are_503_as_those_that_nobody_has() {
    let world = World::start().await;
    world.figures.silent.store(true, Ordering::SeqCst);
    let passed = async {
        while world.figures.waiting.load(Ordering::SeqCst) < 1 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(11)).await;
        tokio::time::resume();
    };
    let ((code, said), ()) = tokio::join!(asked(&world, &world.a, true, PODS), passed);
    let message = said["message"].as_str().unwrap_or_default();
    assert!(code == 503 && message.contains("(get pods.metrics.k8s.io)"), "{code} {message}");
}

#[tokio::test]
async fn a_flood_of_what_is_refused_is_refused_sooner_and_what_there_is_can_be_asked_all_the_same() {
    let world = World::start().await;
    let a = &world.a;
    let mut client = world.by_port(a).user(a.aggregator()).http(true).await;
    let mut codes = std::collections::BTreeSet::new();
    for _ in 0..300 {
        codes.insert(client.get("/api").await.status().as_u16());
    }
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), [403, 429]);
    for _ in 0..50 {
        assert_eq!(client.get("/apis/metrics.k8s.io/v1beta1").await.status(), 200);
    }
    assert!(a.api.seen().is_empty());
}
