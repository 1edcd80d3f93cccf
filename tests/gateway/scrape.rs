//! Pages about virtual clusters: who may read them, what a hostile tenant makes of them, and what is shared.

mod hostile;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use portico::config::{GatewayConfig, ScrapeConfig, Span};
use portico::exposition::Line;
use portico::runtime::clock::Clock;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::support::fake::{Answer, FakeApi, Seen};
use crate::world::{Client, Cluster, INVENTED, World, status, text};

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const SUBJECT_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const SELF_REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const FLEET: &str = "/fleet/metrics";
const PROMETHEUS: &[(&str, &str)] = &[("authorization", "Bearer prometheus")];
const BODY: &str = "# TYPE apiserver_request_total counter\n\
    apiserver_request_total{verb=\"GET\",code=\"200\",resource=\"pods\"} 2\n\
    apiserver_request_total{verb=\"GET\",code=\"200\",resource=\"nodes\"} 3\n\
    apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1\n\
    apiserver_secret_words_total{word=\"x\"} 1\n";

type Headers = &'static [(&'static str, &'static str)];
/// What a backend shows.
type Shows = Box<dyn Fn(&Seen) -> Answer + Send + Sync>;

/// The host knows `prometheus`, who may read the fleet, `sharded`, who may read beta's part, and `jane`, who may not.
fn judge(seen: &Seen) -> Answer {
    let asked = seen.json();
    match seen.path.as_str() {
        TOKEN_REVIEWS => match asked["spec"]["token"].as_str().expect("a token") {
            name @ ("prometheus" | "sharded" | "jane") => {
                Answer::json(201, &json!({"status": {"authenticated": true, "user": {"username": name}}}))
            }
            _ => Answer::json(201, &json!({"status": {"error": "not known"}})),
        },
        SUBJECT_REVIEWS => {
            let path = asked["spec"]["nonResourceAttributes"]["path"].as_str().expect("a path");
            let allowed = match asked["spec"]["user"].as_str().expect("a user") {
                "prometheus" => ["/fleet/metrics", "/fleet/targets"].contains(&path),
                "sharded" => path == "/fleet/metrics/team/beta",
                _ => false,
            };
            Answer::json(201, &json!({"status": {"allowed": allowed}}))
        }
        // Figures of pods, of which this host knows nothing.
        _ => Answer::status(404, "NotFound", "not found"),
    }
}

fn config() -> GatewayConfig {
    // Long enough for a page, short enough for one that never comes.
    let scrape = ScrapeConfig { deadline: Span(Duration::from_secs(1)), ..ScrapeConfig::default() };
    GatewayConfig { scrape, ..GatewayConfig::default() }
}

async fn world(config: GatewayConfig) -> (World, FakeApi) {
    let host = FakeApi::start(|seen| async move { judge(&seen) }).await;
    let world = World::on_host(config, Clock::system(), Some(&host)).await;
    for cluster in [&world.a, &world.b] {
        shows(cluster, |_| Answer::text(200, BODY));
    }
    (world, host)
}

/// What a backend shows as its metrics from now on.
fn shows(cluster: &Cluster, metrics: impl Fn(&Seen) -> Answer + Send + Sync + 'static) {
    *cluster.metrics.lock() = Some(Arc::new(move |seen| (seen.path == "/metrics").then(|| metrics(seen))));
}

/// The backend lets whoever this says read the tenant's own page, and shows [`BODY`].
fn lets(cluster: &Cluster, may: fn(&Seen) -> bool) {
    *cluster.metrics.lock() = Some(Arc::new(move |seen| match seen.path.as_str() {
        "/metrics" => Some(Answer::text(200, BODY)),
        SELF_REVIEWS => {
            let spec = &seen.json()["spec"];
            assert_eq!(*spec, json!({"nonResourceAttributes": {"path": "/portico/metrics", "verb": "get"}}));
            Some(Answer::json(201, &json!({"status": {"allowed": may(seen), "reason": "because"}})))
        }
        SELF => Some(Answer::json(201, &json!({"status": {"userInfo": {"username": "somebody"}}}))),
        _ => None,
    }));
}

async fn fleet(world: &World) -> String {
    let mut client = world.by_path().http(true).await;
    let answer = client.get_with(FLEET, PROMETHEUS).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let page = text(answer).await;
    is_well_formed(&page);
    page
}

/// Every line is one, every sample has its tenant's labels once, every family stands once.
fn is_well_formed(page: &str) {
    let mut families = std::collections::HashSet::new();
    for line in page.lines() {
        match Line::parse(line.as_bytes()) {
            Some(Line::Type { family, .. }) => assert!(families.insert(family.to_owned()), "{family} twice"),
            Some(Line::Sample(sample)) => {
                for name in ["namespace", "virtualcluster"] {
                    assert_eq!(sample.labels.iter().filter(|(label, _)| *label == name).count(), 1, "{line}");
                }
            }
            Some(Line::About { .. } | Line::End) => {}
            other => panic!("{other:?}: {line}"),
        }
    }
}

fn line(name: &str, cluster: &str, more: &str, value: &str) -> String {
    format!("\n{name}{{namespace=\"team\",virtualcluster=\"{cluster}\"{more}}} {value}\n")
}

fn is_up(page: &str, cluster: &str) -> bool {
    let up = |value: &str| page.contains(line("portico_tenant_up", cluster, "", value).trim_start());
    assert!(up("0") != up("1"), "{page}");
    up("1")
}

fn seen_metrics(cluster: &Cluster) -> Vec<Seen> {
    cluster.api.seen().into_iter().filter(|seen| seen.path == "/metrics").collect()
}

#[tokio::test]
async fn the_fleet_has_all_tenants_under_their_labels() {
    let (world, _host) = world(config()).await;
    for cluster in [&world.a, &world.b] {
        let mut client = world.by_name(cluster).user(cluster.user("jane")).http(true).await;
        assert_eq!(client.get("/version").await.status(), 200);
    }
    let page = fleet(&world).await;
    for cluster in ["alpha", "beta"] {
        assert!(is_up(&page, cluster));
        let requests = line("apiserver_request_total", cluster, ",verb=\"GET\",code=\"200\"", "5");
        assert!(page.contains(&requests), "{page}");
        assert!(
            page.contains(&line("portico_gateway_received_bytes_total", cluster, "", "0")),
            "Portico's own: {page}"
        );
    }
    assert!(!page.contains("secret_words"), "what is not listed: {page}");
    let seen = seen_metrics(&world.b);
    assert_eq!((seen.len(), seen[0].header("x-remote-user")), (1, Some("system:portico")));
    assert_eq!(seen[0].header("accept-encoding"), None, "nothing that is larger than it looks");
    assert_eq!(seen[0].header("authorization"), None, "the scraper's token is nobody else's");
    let mut client = world.by_path().http(false).await;
    let open = [PROMETHEUS, &[("accept", "application/openmetrics-text;version=1.0.0")]].concat();
    let answer = client.get_with(FLEET, &open).await;
    assert!(answer.headers()["content-type"].to_str().expect("text").starts_with("application/openmetrics-text"));
    let page = text(answer).await;
    assert!(page.contains("# TYPE apiserver_request counter\n") && page.ends_with("\n# EOF\n"), "{page}");
    let mut client = world.by_path().http(true).await;
    let head = client.send("HEAD", &client.host.clone(), FLEET, PROMETHEUS).await;
    assert_eq!((head.status().as_u16(), text(head).await.as_str()), (200, ""));
}

#[tokio::test]
async fn the_fleet_is_for_whom_the_host_lets() {
    let (world, _host) = world(config()).await;
    let cases: [(Headers, &str, u16); 12] = [
        (&[], FLEET, 401),
        (&[("authorization", INVENTED)], FLEET, 401),
        (&[("authorization", "Basic eDp5")], FLEET, 401),
        (&[("authorization", "Bearer jane")], FLEET, 403),
        (&[("authorization", "Bearer jane")], "/fleet/targets", 403),
        (&[("authorization", "Bearer sharded")], FLEET, 403),
        (&[("authorization", "Bearer sharded")], "/fleet/metrics/team/alpha", 403),
        (&[("authorization", "Bearer sharded")], "/fleet/metrics/team/beta", 200),
        (PROMETHEUS, "/fleet/metrics/team/alpha", 200),
        (PROMETHEUS, "/fleet/metrics/team/nobody", 404),
        (PROMETHEUS, "/fleet/targets", 200),
        (&[("authorization", "Bearer prometheus"), ("impersonate-user", "jane")], FLEET, 403),
    ];
    for (headers, path, code) in cases {
        let mut client = world.by_path().http(true).await;
        let answer = client.get_with(path, headers).await;
        assert_eq!(answer.status().as_u16(), code, "{headers:?} {path}");
        let body = text(answer).await;
        assert_eq!(body.contains("portico_tenant_up{"), code == 200 && path.contains("metrics"), "{path}: {body}");
        assert!(!path.ends_with("beta") || !body.contains("alpha"), "{body}");
    }
    let mut client = world.by_path().http(true).await;
    assert_eq!(client.send("POST", &client.host.clone(), FLEET, PROMETHEUS).await.status(), 405);
    let mut client = world.by_path().http(true).await;
    let list: Value =
        serde_json::from_str(&text(client.get_with("/fleet/targets", PROMETHEUS).await).await).expect("JSON");
    assert_eq!(list[1]["labels"]["__metrics_path__"], "/fleet/metrics/team/beta");
    assert_eq!(list[1]["targets"], json!([world.address.to_string()]));
    assert!(world.a.api.seen().iter().all(|seen| !seen.path.contains("fleet")), "nothing of it is forwarded");
}

/// Whoever may do everything in a tenant is nobody to the fleet, and the fleet is at no address of a tenant.
#[tokio::test]
async fn hostile_no_tenant_reaches_the_fleet() {
    let (world, host) = world(config()).await;
    for cluster in [&world.a, &world.b] {
        lets(cluster, |_| true);
    }
    for path in [FLEET, "/fleet/targets", "/fleet/metrics/team/beta"] {
        let by_name = world.by_name(&world.a);
        for dial in [by_name.user(world.a.user("admin")), world.by_port(&world.a).user(world.a.user("admin"))] {
            let mut client = dial.http(true).await;
            for headers in [PROMETHEUS, &[]] {
                assert_eq!(status(client.get_with(path, headers).await).await.0, 404, "{path}");
            }
        }
        let mut client = world.by_path().user(world.a.user("admin")).http(true).await;
        assert_eq!(status(client.get(path).await).await.0, 401, "a tenant's certificate says nothing here");
        let answer = client.get(&format!("/clusters/team/alpha{path}")).await;
        assert_eq!(status(answer).await.0, 404, "{path}");
        // A connection of the shared name that then names a tenant's.
        let mut client = world.by_path().http(true).await;
        assert_eq!(client.get_at(&world.a.host, path, PROMETHEUS).await.status(), 421);
    }
    assert!(host.seen().is_empty(), "nobody was asked about any of them");
    assert!(world.a.api.seen().is_empty(), "and nothing was forwarded");
}

#[tokio::test]
async fn hostile_a_tenants_body_is_its_own_concern() {
    let mut config = config();
    (config.scrape.max_body, config.scrape.max_series_per_tenant) = (1 << 20, 400);
    // No result is shared here: each case is scraped anew.
    config.scrape.fresh = Span(Duration::ZERO);
    let (world, _host) = world(config).await;
    let honest = |page: &str| {
        assert!(is_up(page, "beta"), "{page}");
        assert!(page.contains(&line("apiserver_request_total", "beta", ",verb=\"GET\",code=\"200\"", "5")), "{page}");
        assert!(!page.contains("forged"), "{page}");
    };
    // Series without end, of names that are listed and of others.
    for endless in ["apiserver_request_total{verb=\"forged\"} 1\n", "x{y=\"z\"} 1\n", "no line end "] {
        shows(&world.a, |_| {
            let (answer, sender) = Answer::stream();
            spew(sender, Bytes::from(endless.repeat(1000)));
            answer
        });
        let page = fleet(&world).await;
        honest(&page);
        assert!(!is_up(&page, "alpha") && page.contains("virtualcluster=\"alpha\",reason=\"too-long\""), "{page}");
    }
    // Many series within the bytes: as many as may be of one family are kept, and the rest is counted.
    let many: String = (0..10_000).map(|n| format!("apiserver_request_total{{verb=\"v{n}\"}} 1\n")).collect();
    shows(&world.a, move |_| Answer::text(200, &many));
    let page = fleet(&world).await;
    honest(&page);
    assert_eq!(page.matches("apiserver_request_total{namespace=\"team\",virtualcluster=\"alpha\"").count(), 100);
    assert!(page.contains(&line("portico_tenant_scrape_series_dropped", "alpha", "", "9900")), "{page}");
    // Words of others, heads of its own, names of every kind.
    shows(&world.a, |_| {
        Answer::text(
            200,
            "# TYPE apiserver_request_total gauge\n# TYPE apiserver_request_total histogram\n# HELP apiserver_request_total forged\n\
             apiserver_request_total{namespace=\"team\",virtualcluster=\"beta\",verb=\"GET\",code=\"200\"} 999\n\
             apiserver_request_total{verb=\"a\\\"} 5\\nforged{x=\\\"\"} 1\nportico_tenant_up{virtualcluster=\"beta\"} 0\n\
             portico_gateway_sent_bytes_total{virtualcluster=\"beta\"} 1\n{\"forged\"} 1\nforged 1\n\u{1F600} 1\n\
             apiserver_request_total{verb=\"\u{7}\"} 1\n# EOF\nprocess_cpu_seconds_total 4\n",
        )
    });
    let page = fleet(&world).await;
    honest(&page);
    assert!(is_up(&page, "alpha") && page.contains("# TYPE apiserver_request_total counter\n"), "{page}");
    assert!(page.contains(&line("apiserver_request_total", "alpha", ",verb=\"GET\",code=\"200\"", "999")), "{page}");
    assert!(page.contains(&line("process_cpu_seconds_total", "alpha", "", "4")), "{page}");
}

/// Sends the same again and again, until nobody takes it.
fn spew(sender: mpsc::Sender<Bytes>, piece: Bytes) {
    portico::runtime::task::spawn("endless body", async move { while sender.send(piece.clone()).await.is_ok() {} })
        .ends_by_itself();
}

#[tokio::test]
async fn a_tenant_that_does_not_answer_is_down_and_holds_up_nobody() {
    let held = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let cases: [(&str, Shows); 5] = [
        ("late", Box::new(|_| Answer::Hang)),
        ("late", {
            let held = Arc::clone(&held);
            Box::new(move |_| {
                let (answer, sender) = Answer::stream();
                let _ = sender.try_send(Bytes::from_static(b"apiserver_request_total{verb=\"half\"} 1\n"));
                held.lock().push(sender);
                answer
            })
        }),
        ("refused", Box::new(|_| Answer::status(500, "InternalError", "no"))),
        ("refused", Box::new(|_| Answer::status(403, "Forbidden", "no"))),
        ("refused", {
            let zipped = |bytes: &'static [u8]| {
                http::Response::builder().header("content-encoding", "gzip").body(Bytes::from_static(bytes))
            };
            Box::new(move |_| Answer::Full(zipped(b"\x1f\x8b").expect("response")))
        }),
    ];
    for (reason, answer) in cases {
        // Nothing is shared with the case before.
        let (world, _host) = world(config()).await;
        shows(&world.a, answer);
        let page = fleet(&world).await;
        assert!(is_up(&page, "beta") && !is_up(&page, "alpha"), "{reason}: {page}");
        assert!(page.contains(&format!("virtualcluster=\"alpha\",reason=\"{reason}\"}} 1")), "{page}");
        assert!(!page.contains("half"), "half a page is none: {page}");
    }
}

/// A backend whose page comes when it may; how often it was asked for.
fn held(cluster: &Cluster) -> (Arc<AtomicUsize>, watch::Sender<bool>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let (open, opens) = watch::channel(false);
    let count = Arc::clone(&asked);
    shows(cluster, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let (answer, sender) = Answer::stream();
        let mut opens = opens.clone();
        portico::runtime::task::spawn("held page", async move {
            let _ = opens.wait_for(|open| *open).await;
            let _ = sender.send(Bytes::from_static(BODY.as_bytes())).await;
        })
        .ends_by_itself();
        answer
    });
    (asked, open)
}

#[tokio::test]
async fn scrapers_share_one_flight() {
    let (world, host) = world(GatewayConfig::default()).await;
    let (asked, open) = held(&world.a);
    let both = async { tokio::join!(fleet(&world), fleet(&world)) };
    let opener = async {
        world.a.api.wait_seen(1).await;
        // Both scrapers were let in before it answers.
        host.wait_seen(4).await;
        open.send_replace(true);
    };
    let ((first, second), ()) = tokio::join!(both, opener);
    assert!(is_up(&first, "alpha") && is_up(&second, "alpha"));
    fleet(&world).await;
    assert_eq!(
        (asked.load(Ordering::SeqCst), seen_metrics(&world.b).len()),
        (1, 1),
        "and whoever comes within seconds"
    );
}

#[tokio::test]
async fn a_tenants_own_page_is_for_whom_the_tenant_lets() {
    let (world, _host) = world(config()).await;
    lets(&world.a, |seen| {
        seen.header("x-remote-user") == Some("jane") || seen.header("authorization") == Some("Bearer good")
    });
    let by_path = "/clusters/team/alpha/portico/metrics";
    let page = |client: Client, path: &'static str, headers: &'static [(&'static str, &'static str)]| async move {
        let mut client = client;
        let answer = client.get_with(path, headers).await;
        (answer.status().as_u16(), text(answer).await)
    };
    let jane = || world.a.user("jane");
    let good: &[(&str, &str)] = &[("authorization", "Bearer good")];
    for (dial, path, headers) in [
        (world.by_name(&world.a).user(jane()), "/portico/metrics", &[] as &[(&str, &str)]),
        (world.by_port(&world.a).user(jane()), "/portico/metrics", &[]),
        (world.by_path().user(jane()), by_path, &[]),
        (world.by_path(), by_path, good),
        (world.by_name(&world.a), "/portico/metrics", good),
    ] {
        let (code, body) = page(dial.http(true).await, path, headers).await;
        assert_eq!(code, 200, "{body}");
        is_well_formed(&body);
        assert!(is_up(&body, "alpha") && !body.contains("beta"), "{body}");
        assert!(body.contains(&line("portico_gateway_received_bytes_total", "alpha", "", "0")), "{body}");
    }
    for (dial, headers, code) in [
        (world.by_name(&world.a).user(world.a.user("joe")), &[] as &[(&str, &str)], 403),
        (world.by_name(&world.a), &[("authorization", "Bearer other")], 403),
        (world.by_name(&world.a), &[("authorization", INVENTED)], 401),
        (world.by_name(&world.a), &[], 401),
        (world.by_name(&world.a), PROMETHEUS, 403),
    ] {
        let mut client = dial.http(true).await;
        assert_eq!(status(client.get_with("/portico/metrics", headers).await).await.0, code, "{headers:?}");
    }
    let mut client = world.by_name(&world.a).user(jane()).http(true).await;
    for path in
        ["/portico", "/portico/", "/portico/metrics/", "/portico/metrics/x", "/portico/%6detrics", "/%70ortico/metrics"]
    {
        assert_eq!(client.get(path).await.status(), 404, "{path}");
    }
    assert_eq!(client.send("POST", &world.a.host, "/portico/metrics", &[]).await.status(), 405);
    assert!(world.a.api.seen().iter().all(|seen| !seen.path.contains("ortico")), "it is never forwarded");
    // What the API server shows of itself is still its own.
    let own = client.get("/metrics").await;
    assert_eq!((own.status().as_u16(), text(own).await.as_str()), (200, BODY));
}
