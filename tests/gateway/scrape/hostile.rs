//! Scrapers and tenants who leave early, ask for much, or were somebody else a moment ago.

use futures::future::join_all;
use portico::tenant::Tenant;

use super::*;

const SOURCES: [[u8; 4]; 3] = [[127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]];
const OWN_PAGE: &str = "/portico/metrics";

/// A host that judges, and knows one pod of each virtual cluster.
fn host_with_pods(seen: &Seen) -> Answer {
    let cluster = if seen.query.contains("alpha") { "alpha" } else { "beta" };
    let name = format!("web-x-default-x-{cluster}");
    match seen.path.as_str() {
        "/api/v1/namespaces/team/pods" => {
            let annotations = json!({"portico.dev/object-name": "web", "portico.dev/object-namespace": "default",
                "portico.dev/object-uid": "virtual"});
            let metadata = json!({"name": name, "namespace": "team", "uid": "host",
                "labels": {"portico.dev/cluster": cluster}, "annotations": annotations});
            let row = json!({"cells": [name, "node-1"], "object": {"metadata": metadata}});
            Answer::json(200, &json!({"columnDefinitions": [{"name": "Name"}, {"name": "Node"}], "rows": [row]}))
        }
        "/apis/metrics.k8s.io/v1beta1/namespaces/team/pods" => {
            let containers = json!([{"name": "main", "usage": {"cpu": "250m", "memory": "2Ki"}}]);
            let pod = json!({"metadata": {"name": name}, "timestamp": "2026-01-01T00:00:00Z", "window": "15s",
                "containers": containers});
            Answer::json(200, &json!({"items": [pod]}))
        }
        _ => judge(seen),
    }
}

async fn on(config: GatewayConfig, host: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> (World, FakeApi) {
    let host = FakeApi::start(move |seen| std::future::ready(host(&seen))).await;
    let world = World::on_host(config, Clock::system(), Some(&host)).await;
    for cluster in [&world.a, &world.b] {
        shows(cluster, |_| Answer::text(200, BODY));
    }
    (world, host)
}

/// Bytes that pages take, wherever they are counted.
fn kept(world: &World) -> f64 {
    let text = world.metrics.render().expect("metrics");
    let own = text.lines().find_map(|line| line.strip_prefix("portico_scrape_kept_bytes "));
    let own: f64 = own.expect("the gauge").parse().expect("a value");
    own + world.metric("portico_gateway_buffered_bytes", &world.a)
}

/// Who leaves keeps his place for as long as his token is judged: other connections and other streams bring no more reviews.
#[tokio::test]
async fn hostile_strangers_have_their_places_whether_they_wait_or_not() {
    let (world, host) = on(config(), |_| Answer::Hang).await;
    let stranger = |from: [u8; 4]| {
        let dial = world.by_path().from(from);
        async move { dial.http(true).await.get_with(FLEET, &[("authorization", "Bearer invented")]).await }
    };
    for (at, from) in SOURCES.into_iter().take(2).enumerate() {
        tokio::select! {
            _ = join_all((0..8).map(|_| stranger(from))) => panic!("the host has not answered"),
            _ = host.wait_seen(8 * (at + 1)) => {}
        }
    }
    // One past the places of one source, and one past all.
    for answer in join_all(SOURCES.map(stranger)).await {
        assert_eq!(answer.status(), 429);
    }
    assert_eq!(host.seen().len(), 16);
}

#[tokio::test]
async fn hostile_who_leaves_early_leaves_the_flight_to_the_next() {
    let (world, _host) = world(GatewayConfig::default()).await;
    let (asked, open) = held(&world.a);
    let impatient = [PROMETHEUS, &[("x-prometheus-scrape-timeout-seconds", "1")]].concat();
    for _ in 0..3 {
        let page = text(world.by_path().http(true).await.get_with(FLEET, &impatient).await).await;
        assert!(!is_up(&page, "alpha") && is_up(&page, "beta"), "{page}");
    }
    open.send_replace(true);
    assert!(is_up(&fleet(&world).await, "alpha"));
    assert_eq!(asked.load(Ordering::SeqCst), 1, "one flight for all of them");
}

#[tokio::test]
async fn results_are_forgotten_though_whoever_asked_for_them_has_left() {
    let mut config = config();
    config.scrape.fresh = Span(Duration::from_secs(1));
    let (world, _host) = world(config).await;
    let (_asked, _open) = held(&world.a);
    let becomes = async |is_kept: bool| {
        while (kept(&world) > 0.0) != is_kept {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = fleet(&world) => panic!("alpha's API server has not answered"),
        () = becomes(true) => {}
    }
    tokio::time::timeout(Duration::from_secs(20), becomes(false)).await.expect("nothing is kept for nobody");
}

/// Alpha's API server keeps alpha's pages waiting, as many as alpha's users ask for at either door.
#[tokio::test]
async fn hostile_a_tenants_own_pages_take_no_room_of_the_fleet() {
    let mut config = config();
    // For a tenant's series, and those of three times its pods.
    (config.scrape.max_kept_bytes, config.scrape.deadline) = (1000, Span(Duration::from_secs(20)));
    let (world, _host) = on(config, host_with_pods).await;
    *world.a.metrics.lock() = Some(Arc::new(|seen| match seen.path.as_str() {
        "/metrics" => Some(Answer::Hang),
        SELF_REVIEWS => Some(Answer::json(201, &json!({"status": {"allowed": true}}))),
        _ => None,
    }));
    let own = || {
        let dial = world.by_name(&world.a).user(world.a.user("jane"));
        async move { dial.http(true).await.get(OWN_PAGE).await }
    };
    let of_the_team = || async {
        let patient = [PROMETHEUS, &[("x-prometheus-scrape-timeout-seconds", "60")]].concat();
        world.by_path().http(true).await.get_with("/fleet/metrics/team/alpha", &patient).await
    };
    let asked = async { tokio::join!(join_all((0..2).map(|_| own())), join_all((0..2).map(|_| of_the_team()))) };
    let taken = async {
        while kept(&world) < 800.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let patient = [PROMETHEUS, &[("x-prometheus-scrape-timeout-seconds", "2")]].concat();
        text(world.by_path().http(true).await.get_with(FLEET, &patient).await).await
    };
    tokio::select! {
        _ = asked => panic!("alpha's API server has not answered"),
        page = taken => {
            let series = line("apiserver_request_total", "beta", ",verb=\"GET\",code=\"200\"", "5");
            assert!(page.contains(&series) && !page.contains("no-room"), "{page}");
        }
    }
}

#[tokio::test]
async fn a_tenant_whose_pods_come_late_hides_nobodys() {
    let mut config = config();
    config.scrape.pods_in_fleet = true;
    let late = |seen: &Seen| {
        let is_alpha = seen.path.ends_with("/team/pods") && seen.query.contains("alpha");
        if is_alpha { Answer::Hang } else { host_with_pods(seen) }
    };
    let (world, _host) = on(config, late).await;
    let page = fleet(&world).await;
    let of_pod = ",exported_namespace=\"default\",pod=\"web\"";
    assert!(page.contains(&line("portico_pod_cpu_cores", "beta", of_pod, "0.25")), "{page}");
    assert!(!page.contains(line("portico_pod_cpu_cores", "alpha", of_pod, "0.25").trim_start()), "{page}");
}

#[tokio::test]
async fn a_cluster_made_again_shows_nothing_of_its_predecessor() {
    let (world, _host) = world(GatewayConfig::default()).await;
    let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    assert_eq!(text(client.get("/version").await).await, "alpha");
    world.metric_becomes("portico_gateway_sent_bytes_total", &world.a, 5.0).await;
    let sent = line("portico_gateway_sent_bytes_total", "alpha", "", "5");
    assert!(fleet(&world).await.contains(&sent));
    let again = world.a.tenant(2, &world.a.client_ca, &world.clock);
    world.registry.put(&Arc::new(Tenant { uid: "again".to_owned(), ..again }));
    world.metric_becomes("portico_gateway_sent_bytes_total", &world.a, 0.0).await;
    let page = fleet(&world).await;
    assert!(is_up(&page, "alpha") && !page.contains(&sent), "{page}");
}

#[tokio::test]
async fn who_may_by_one_right_is_let_in_whatever_becomes_of_the_other_question() {
    let host = |seen: &Seen| {
        let spec = &seen.json()["spec"];
        let asked = (spec["user"].as_str(), spec["nonResourceAttributes"]["path"].as_str());
        let fails = [("sharded", "/fleet/metrics"), ("prometheus", "/fleet/metrics/team/beta")];
        if fails.iter().any(|(user, path)| asked == (Some(user), Some(path))) {
            return Answer::status(403, "Forbidden", "Portico may not ask that");
        }
        judge(seen)
    };
    let (world, host) = on(config(), host).await;
    for (headers, code) in [(PROMETHEUS, 200), (&[("authorization", "Bearer sharded")], 200), (PROMETHEUS, 200)] {
        let answer = world.by_path().http(true).await.get_with("/fleet/metrics/team/beta", headers).await;
        assert_eq!(answer.status(), code, "{headers:?}");
    }
    let reviews = host.seen().iter().filter(|seen| seen.path == SUBJECT_REVIEWS).count();
    assert_eq!(reviews, 2 + 1, "who was believed by either right a moment ago is not asked about");
    let answer = world.by_path().http(true).await.get_with(FLEET, &[("authorization", "Bearer sharded")]).await;
    assert_eq!(answer.status(), 503, "of this one nobody knows");
}

/// Who may read whatever page he names asks the host for new names at a pace, and his neighbour notices nothing.
#[tokio::test]
async fn invented_pages_of_a_user_who_may_read_all_are_judged_at_a_pace() {
    let host = |seen: &Seen| match seen.path.as_str() {
        TOKEN_REVIEWS if seen.json()["spec"]["token"] == "wild" => {
            Answer::json(201, &json!({"status": {"authenticated": true, "user": {"username": "wild"}}}))
        }
        SUBJECT_REVIEWS if seen.json()["spec"]["user"] == "wild" => {
            let path = seen.json()["spec"]["nonResourceAttributes"]["path"].clone();
            let is_allowed = path.as_str().is_some_and(|path| path.starts_with("/fleet/metrics/team/"));
            Answer::json(201, &json!({"status": {"allowed": is_allowed}}))
        }
        _ => judge(seen),
    };
    let (world, host) = on(config(), host).await;
    let wild: Headers = &[("authorization", "Bearer wild")];
    let mut client = world.by_path().http(true).await;
    let mut codes = Vec::new();
    while !codes.contains(&429) {
        assert!(codes.len() < 2000, "nobody says that it is enough");
        let page = format!("/fleet/metrics/team/invented-{}", codes.len());
        codes.push(client.get_with(&page, wild).await.status().as_u16());
    }
    assert!(codes.len() > 64 && codes.iter().rev().skip(1).all(|code| *code == 404), "{codes:?}");
    let reviewed = host.seen().iter().filter(|seen| seen.path == SUBJECT_REVIEWS).count();
    assert_eq!(reviewed, codes.len() - 1, "of what is too much only the user is asked for");
    let remembered = client.get_with("/fleet/metrics/team/invented-0", wild).await;
    assert_eq!(remembered.status(), 404, "what is remembered has no pace");
    assert_eq!(client.get_with(FLEET, PROMETHEUS).await.status(), 200);
}
