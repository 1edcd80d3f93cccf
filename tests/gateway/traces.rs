//! Traces of requests: whose part they are, what they say and do not say, and that nobody waits for them.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use portico::config::GatewayConfig;
use portico::error::Side;
use portico::runtime::clock::Clock;
use portico::upstream::{Pool, Target};

use crate::collector::{Collector, says};
use crate::support::fake::Answer;
use crate::support::port;
use crate::world::{Cluster, World, text};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

async fn traced(collector: &Collector) -> World {
    World::whole(GatewayConfig::default(), Clock::system(), None, collector.traces.clone()).await
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

fn told(cluster: &Cluster) -> Option<String> {
    cluster.last_seen().header("traceparent").map(str::to_owned)
}

#[tokio::test]
async fn a_request_is_a_part_of_its_callers_trace_and_the_backend_of_it() {
    let collector = Collector::start(|config| config.sampling_rate_per_million = 0).await;
    let world = traced(&collector).await;
    for is_http2 in [false, true] {
        let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(is_http2).await;
        let path = if is_http2 { "/api/v1/pods?secret=1" } else { "/api/v1/nodes?secret=1" };
        let said = parent("01");
        let headers = [("traceparent", said.as_str()), ("tracestate", "vendor=1"), ("authorization-not", "hidden")];
        text(client.get_with(path, &headers).await).await;
        let seen = told(&world.a).expect("a part of it");
        let (root, parts) = collector.trace(if is_http2 { "list pods" } else { "list nodes" }).await;
        assert_eq!(HEXLOWER.encode(&root.trace_id), TRACE);
        assert_eq!(HEXLOWER.encode(&root.parent_span_id), SPAN);
        assert_eq!(root.trace_state, "vendor=1");
        assert_eq!((says(&root, "enduser.id"), says(&root, "portico.cluster")), (Some("jane"), Some("team/alpha")));
        assert_eq!(says(&root, "http.response.status_code"), Some("200"));
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["enter", "API server"]);
        assert!(parts.iter().all(|part| part.parent_span_id == root.span_id));
        assert_eq!(seen, format!("00-{TRACE}-{}-01", HEXLOWER.encode(&parts[1].span_id)));
        assert_eq!(world.a.last_seen().header("tracestate"), Some("vendor=1"));
        assert!(root.start_time_unix_nano <= parts[0].start_time_unix_nano);
        assert!(parts[1].end_time_unix_nano <= root.end_time_unix_nano);
        let all = format!("{:?}", collector.spans());
        assert!(!all.contains("secret") && !all.contains("hidden"), "{all}");
    }
}

#[tokio::test]
async fn what_is_not_sampled_goes_on_as_it_came() {
    let collector = Collector::start(|config| config.sampling_rate_per_million = 1_000_000).await;
    let world = traced(&collector).await;
    let mut jane = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    let said = parent("00");
    text(jane.get_with("/api/v1/pods", &[("traceparent", &said)]).await).await;
    assert_eq!(told(&world.a), Some(said), "its caller does not trace it");
    // Nobody knows who that is.
    let mut stranger = world.by_name(&world.a).http(true).await;
    let said = parent("01");
    text(stranger.get_with("/api/v1/pods", &[("traceparent", &said), ("authorization", "Bearer abc")]).await).await;
    assert_eq!(told(&world.a), Some(said));
    // What cannot be read is none: it begins a trace of its own.
    text(jane.get_with("/api/v1/nodes", &[("traceparent", "00-zz")]).await).await;
    let (root, _) = collector.trace("list nodes").await;
    assert!(root.parent_span_id.is_empty() && HEXLOWER.encode(&root.trace_id) != TRACE);
    assert!(collector.close().await.iter().all(|span| span.name != "list pods"));
}

#[tokio::test]
async fn callers_are_not_trusted_where_that_is_configured() {
    let collector = Collector::start(|config| config.trust_parents = false).await;
    let world = traced(&collector).await;
    let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    text(client.get_with("/api/v1/pods", &[("traceparent", &parent("00"))]).await).await;
    let (root, _) = collector.trace("list pods").await;
    assert!(HEXLOWER.encode(&root.trace_id) != TRACE && root.parent_span_id.is_empty());
}

/// A hostile tenant that has everything traced uses up its own budget.
#[tokio::test]
async fn a_flood_of_traces_takes_nobody_elses_budget() {
    let collector = Collector::start(|config| {
        config.sampling_rate_per_million = 0;
        config.max_traces_per_second_per_tenant = 1;
    })
    .await;
    let world = traced(&collector).await;
    let said = parent("01");
    let mut hostile = world.by_name(&world.a).user(world.a.user("mallory")).http(true).await;
    for _ in 0..50 {
        text(hostile.get_with("/api/v1/pods", &[("traceparent", &said)]).await).await;
    }
    let mut other = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    text(other.get_with("/api/v1/nodes", &[("traceparent", &said)]).await).await;
    collector.trace("list nodes").await;
    let traced = collector.close().await.iter().filter(|span| span.name == "list pods").count();
    assert!((1..50).contains(&traced), "{traced}");
}

/// Requests go on, and what is not taken is counted.
#[tokio::test]
async fn nobody_waits_for_a_collector() {
    let collector = Collector::start(|_| {}).await;
    let world = traced(&collector).await;
    world.metrics.register(Arc::new(collector.traces.clone()));
    *collector.code.lock() = None;
    let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    for _ in 0..700 {
        text(client.get("/api/v1/pods").await).await;
    }
    let page = world.metrics.render().expect("metrics");
    let dropped = page.lines().find_map(|line| line.strip_prefix("portico_traces_spans_total{outcome=\"dropped\"} "));
    assert!(dropped.and_then(|number| number.parse::<f64>().ok()).is_some_and(|number| number > 0.0), "{page}");
    *collector.code.lock() = Some(400);
    collector.close().await;
}

#[tokio::test]
async fn a_fault_of_the_backend_is_a_fault_of_its_part_and_of_the_whole() {
    let collector = Collector::start(|_| {}).await;
    let world = traced(&collector).await;
    world.a.answer(Answer::text(503, "not now"));
    let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    text(client.get("/api/v1/pods").await).await;
    let (root, parts) = collector.trace("list pods").await;
    let code = |span: &opentelemetry_proto::tonic::trace::v1::Span| span.status.as_ref().map(|status| status.code);
    assert_eq!((code(&root), code(&parts[1])), (Some(2), Some(2)));
}

/// Off, as by default.
#[tokio::test]
async fn without_traces_nothing_is_added() {
    let world = World::start().await;
    let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    text(client.get("/api").await).await;
    assert_eq!(told(&world.a), None);
    let said = parent("01");
    text(client.get_with("/api", &[("traceparent", &said)]).await).await;
    assert_eq!(told(&world.a), Some(said));
}

/// An API server that is not there.
#[tokio::test]
async fn a_part_that_nobody_answers_has_failed() {
    let collector = Collector::start(|_| {}).await;
    let world = traced(&collector).await;
    let mut tenant = world.a.tenant(2, &world.a.client_ca, &world.clock);
    let target = Target { port: port::free([127, 0, 0, 1]), ..world.a.api.target(Side::Backend) };
    tenant.backend.pool = Arc::new(Pool::new(target, world.clock.clone()));
    world.registry.put(&Arc::new(tenant));
    let mut client = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    text(client.get("/api/v1/pods").await).await;
    let (_, parts) = collector.trace("list pods").await;
    let backend = parts.iter().find(|part| part.name == "API server").expect("a part");
    assert_eq!(backend.status.as_ref().map(|status| status.code), Some(2));
}
