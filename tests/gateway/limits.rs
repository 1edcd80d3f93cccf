//! Budgets of a tenant and of those whom nobody knows: who is over one gets a clear answer, and nobody else notices.

use std::sync::Arc;

use http::Response;
use hyper::body::Incoming;
use portico::config::GatewayConfig;
use portico::crd::Limits;
use portico::runtime::clock::Clock;

use crate::support::fake::Answer;
use crate::world::{Client, Cluster, World, status, text};

/// A list whose answer does not end.
async fn hold(cluster: &Cluster, client: &mut Client) -> (Response<Incoming>, impl Sized + use<>) {
    let (answer, rest) = Answer::stream();
    cluster.answer(answer);
    (client.get("/api/v1/pods").await, rest)
}

fn limited(world: &World, cluster: &Cluster, limit: &str) -> f64 {
    let series =
        format!("portico_gateway_limited_total{{namespace=\"team\",cluster=\"{}\",limit=\"{limit}\"}} ", cluster.name);
    let text = world.metrics.render().expect("metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(&series)).expect("a sample");
    value.parse().expect("a number")
}

#[tokio::test]
async fn one_user_cannot_take_the_seats_of_the_others() {
    let config = GatewayConfig { max_requests_per_tenant: 8, ..Default::default() };
    let world = World::with(config, Clock::system()).await;
    let mut mallory = world.by_name(&world.a).user(world.a.user("mallory")).http(true).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(hold(&world.a, &mut mallory).await);
    }
    let refused = mallory.get("/api").await;
    assert_eq!(refused.headers()["retry-after"], "1");
    let message = text(refused).await;
    assert!(message.contains("you have too many requests in flight"), "{message}");
    assert_eq!(limited(&world, &world.a, "user_requests_in_flight"), 1.0);
    let mut jane = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    assert_eq!(text(jane.get("/api").await).await, "alpha");
    let mut other = world.by_name(&world.b).user(world.b.user("mallory")).http(true).await;
    assert_eq!(text(other.get("/api").await).await, "beta");
    drop(held);
    world.metric_becomes("portico_gateway_requests_in_flight", &world.a, 0.0).await;
    assert_eq!(text(mallory.get("/api").await).await, "alpha");
}

/// Tighter than the configuration by `spec.limits`, and no other tenant's.
#[tokio::test]
async fn too_many_in_a_second_are_told_when_to_come_again() {
    let world = World::start().await;
    let mut tenant = world.a.tenant(2, &world.a.client_ca, &world.clock);
    tenant.limits = Limits { requests_per_second: Some(1), request_burst: Some(3), ..Limits::default() };
    world.registry.put(&Arc::new(tenant));
    let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    let mut other = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    let mut refused = Vec::new();
    for _ in 0..10 {
        let response = client.get("/api").await;
        if response.status() == 429 {
            refused.push(response);
        }
        assert_eq!(text(other.get("/api").await).await, "beta");
    }
    // All but the burst of three, on a machine that is not so slow that seconds pass.
    assert!((1..=7).contains(&refused.len()), "{}", refused.len());
    assert_eq!(limited(&world, &world.a, "requests_per_second"), refused.len() as f64);
    let last = refused.pop().expect("one");
    assert_eq!(last.headers()["retry-after"], "1");
    assert_eq!(status(last).await, (429, "TooManyRequests".to_owned()));
}

#[tokio::test]
async fn connections_on_which_nobody_asks_are_few_by_source_and_leave_the_others_alone() {
    let config = GatewayConfig { max_unknown_connections: 8, ..Default::default() };
    let world = World::with(config, Clock::system()).await;
    let jane = world.by_name(&world.a).user(world.a.user("jane")).from([127, 0, 0, 2]);
    let mut first = jane.http(true).await;
    assert_eq!(text(first.get("/api").await).await, "alpha");
    let attacker = world.by_name(&world.a).from([127, 0, 0, 2]);
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(attacker.tls(b"h2").await);
    }
    assert!(attacker.try_tls(b"h2").await.is_err(), "a quarter of the unknown ones is one source's at one tenant");
    let elsewhere = world.by_name(&world.b).from([127, 0, 0, 2]);
    for _ in 0..2 {
        silent.push(elsewhere.tls(b"h2").await);
    }
    assert!(world.by_path().from([127, 0, 0, 2]).try_tls(b"h2").await.is_err(), "and half of them altogether");
    assert_eq!(text(first.get("/api").await).await, "alpha", "one on which somebody known asked is none of them");
    let mut elsewhere = world.by_name(&world.a).user(world.a.user("jane")).from([127, 0, 0, 3]).http(true).await;
    assert_eq!(text(elsewhere.get("/api").await).await, "alpha");
    for _ in 0..3 {
        // Known ones make room again.
        let mut more = world.by_name(&world.b).user(world.b.user("jane")).from([127, 0, 0, 3]).http(true).await;
        assert_eq!(text(more.get("/api").await).await, "beta");
    }
    drop(silent);
    world.metric_becomes("portico_gateway_tenant_connections", &world.a, 2.0).await;
    assert_eq!(text(jane.http(false).await.get("/api").await).await, "alpha");
}

#[tokio::test]
async fn a_tenant_has_so_many_connections_and_more_are_told_so() {
    let config = GatewayConfig { max_connections_per_tenant: 1, ..Default::default() };
    let world = World::with(config, Clock::system()).await;
    let jane = world.by_name(&world.a).user(world.a.user("jane"));
    let mut first = jane.http(true).await;
    assert_eq!(text(first.get("/api").await).await, "alpha");
    // By path the tenant is known from the request alone.
    let by_path = world.by_path().user(world.a.user("jane"));
    let paths = [(jane, "/api"), (by_path, "/clusters/team/alpha/api")];
    for (dial, path) in paths {
        for is_http2 in [false, true] {
            let mut second = dial.http(is_http2).await;
            let refused = second.get(path).await;
            assert_eq!(refused.status(), 429, "{path}");
            let message = text(refused).await;
            assert!(message.contains("too many connections"), "{message}");
        }
    }
    assert_eq!(limited(&world, &world.a, "connections"), 4.0);
    let mut other = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    assert_eq!(text(other.get("/api").await).await, "beta");
    drop(first);
    world.metric_becomes("portico_gateway_tenant_connections", &world.a, 0.0).await;
    let mut third = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    assert_eq!(text(third.get("/api").await).await, "alpha");
}

/// Behind a load balancer each client counts as itself; nobody else can say where he is from.
#[tokio::test]
async fn a_load_balancer_says_where_its_clients_are_from() {
    let config = GatewayConfig {
        max_unknown_connections: 8,
        proxy_protocol_from: vec!["127.0.0.8/32".parse().expect("range")],
        ..Default::default()
    };
    let world = World::with(config, Clock::system()).await;
    let header = |last: u8| {
        let addresses = [192, 0, 2, last, 192, 0, 2, 200, 1, 2, 1, 187];
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &addresses].concat()
    };
    let dial = |from: u8, header: Vec<u8>| {
        world.by_name(&world.a).user(world.a.user("jane")).from([127, 0, 0, from]).begin_with(header)
    };
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(dial(8, header(1)).tls(b"h2").await);
    }
    assert!(dial(8, header(1)).try_tls(b"h2").await.is_err(), "one client has its share of the unknown ones");
    let mut other = dial(8, header(2)).http(true).await;
    assert_eq!(text(other.get("/api").await).await, "alpha");
    assert!(dial(8, Vec::new()).try_tls(b"h2").await.is_err(), "a load balancer that says nothing");
    assert!(dial(7, header(3)).try_tls(b"h2").await.is_err(), "somebody who is none");
    let mut direct = dial(7, Vec::new()).http(true).await;
    assert_eq!(text(direct.get("/api").await).await, "alpha");
}

/// Requests without credentials cost no more disk than so many lines, and are counted; those of known callers are all logged.
#[tokio::test]
async fn callers_who_are_not_known_leave_few_log_lines() {
    let config = GatewayConfig { max_unknown_log_lines_per_second: 1, ..Default::default() };
    let world = World::with(config, Clock::system()).await;
    let unlogged = || {
        let text = world.metrics.render().expect("metrics");
        let value =
            text.lines().find_map(|l| l.strip_prefix("portico_gateway_unlogged_requests_total ")).expect("a sample");
        value.parse::<f64>().expect("a number")
    };
    let mut nobody = world.by_name(&world.a).http(true).await;
    let mut jane = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    for _ in 0..30 {
        assert_eq!(status(nobody.get("/api").await).await.0, 401);
        assert_eq!(text(jane.get("/api").await).await, "alpha");
    }
    // All but the burst of five, on a machine that is not so slow that many seconds pass.
    let unlogged = unlogged();
    assert!((1.0..=25.0).contains(&unlogged), "{unlogged}");
}
