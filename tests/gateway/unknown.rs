//! Callers whom nobody knows: they hold little, nothing of their tenant's, and delay nobody who is known.

use std::convert::Infallible;
use std::pin::Pin;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, Stream};
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portico::config::GatewayConfig;
use portico::runtime::clock::Clock;
use portico::runtime::task::{self, Task};

use crate::support::fake::Answer;
use crate::world::{Client, Cluster, Dial, INVENTED, PATIENCE, World, piece, status, text};

const SEATS: &str = "portico_gateway_requests_in_flight";
const LONG: &str = "portico_gateway_long_running";
const UNKNOWN: &str = "portico_gateway_unknown_in_flight";
const BUFFERED: &str = "portico_gateway_buffered_bytes";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WHO_AM_I: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

pub type Slow = StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

/// Sends bodies that begin and do not end.
pub struct Poster {
    sender: http2::SendRequest<Slow>,
    base: String,
    _driver: Task,
}

/// So many bytes, and then nothing any more, nor an end.
pub fn slow(bytes: usize) -> Slow {
    let first = stream::iter((bytes > 0).then(|| Ok(Frame::data(Bytes::from(vec![b' '; bytes])))));
    StreamBody::new(Box::pin(first.chain(stream::pending())))
}

/// The same with its end.
fn whole(text: &'static str) -> Slow {
    StreamBody::new(Box::pin(stream::iter([Ok(Frame::data(Bytes::from_static(text.as_bytes())))])))
}

impl Poster {
    pub async fn connect(world: &World, cluster: &Cluster, dial: &Dial, window: Option<u32>) -> Self {
        let io = TokioIo::new(dial.tls(b"h2").await);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window);
        let (sender, connection) = builder.handshake(io).await.expect("h2");
        let driver = task::spawn("poster", async move {
            let _ = connection.await;
        });
        Self { sender, base: format!("https://{}/clusters/team/{}", world.address, cluster.name), _driver: driver }
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: Slow) -> Response<Incoming> {
        let mut request = Request::post(format!("{}{path}", self.base)).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.sender.clone().send_request(request.body(body).expect("request"));
        tokio::time::timeout(PATIENCE, answer).await.expect("in time").expect("answer")
    }

    /// As a task: the request stays open as long as it.
    fn posting(
        &self,
        path: &'static str,
        headers: &'static [(&'static str, &'static str)],
        body: Slow,
    ) -> Task<Response<Incoming>> {
        let poster =
            Self { sender: self.sender.clone(), base: self.base.clone(), _driver: task::spawn("none", async {}) };
        task::spawn("post", async move { poster.post(path, headers, body).await })
    }
}

/// By token and by certificate, each at A and at B.
async fn callers(world: &World) -> Vec<(Client, &'static str, &'static [(&'static str, &'static str)])> {
    const TOKEN: &[(&str, &str)] = &[("authorization", "Bearer of-jane")];
    let mut all = Vec::new();
    for cluster in [&world.a, &world.b] {
        all.push((world.by_name(cluster).http(true).await, cluster.name, TOKEN));
        all.push((world.by_name(cluster).user(cluster.user("jane")).http(true).await, cluster.name, &[]));
    }
    for (client, name, headers) in &mut all {
        assert_eq!(text(client.get_with("/api", headers).await).await, *name);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_invented_tokens_holds_nothing_and_delays_no_known_caller() {
    let world = World::start().await;
    let mut known = callers(&world).await;
    let before = world.a.api.seen().len();
    let mut posters = Vec::new();
    for source in 1..=6 {
        let dial = world.by_path().from([127, 0, 0, source]);
        posters.push(Poster::connect(&world, &world.a, &dial, None).await);
    }
    let token: &[(&str, &str)] = &[("authorization", INVENTED)];
    let flood: Vec<_> =
        posters.iter().flat_map(|p| (0..50).map(|_| p.posting(SERVICES, token, slow(64 << 10)))).collect();
    let mut rounds = 0;
    while rounds < 20 || flood.iter().any(|post| !post.is_finished()) {
        rounds += 1;
        for (client, name, headers) in &mut known {
            assert_eq!(text(client.get_with("/api", headers).await).await, *name);
        }
        // Of the known ones at most, whose ends are just being noted.
        assert!(world.metric(SEATS, &world.a) <= 2.0, "{}", world.metric(SEATS, &world.a));
        assert_eq!(world.metric(BUFFERED, &world.a), 0.0);
        assert!(world.metric(UNKNOWN, &world.a) <= 32.0);
    }
    let mut refused = 0;
    for post in flood {
        let code = post.join().await.expect("an answer").status().as_u16();
        assert!([401, 429].contains(&code), "{code}");
        refused += usize::from(code == 401);
    }
    assert!(refused > 0, "somebody was judged");
    world.metric_becomes(UNKNOWN, &world.a, 0.0).await;
    let of_the_flood =
        world.a.api.seen().split_off(before).into_iter().filter(|s| s.header("authorization") == Some(INVENTED));
    assert!(of_the_flood.map(|seen| seen.path).all(|path| path == WHO_AM_I));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_are_shared_by_source_and_tenant() {
    let config = GatewayConfig { max_unknown: 16, max_unknown_per_tenant: 4, ..Default::default() };
    let world = World::with(config, Clock::system()).await;
    let mut known = callers(&world).await;
    let before = world.a.api.seen().len();
    let held = (0..2).map(|_| world.a.answer(Answer::Hang)).count();
    let mut hanging = Vec::new();
    for _ in 0..held {
        let mut client = world.by_name(&world.a).http(true).await;
        let hang = async move { client.get_with("/api", &[("authorization", "Bearer slow")]).await };
        hanging.push(task::spawn("hanging", hang));
    }
    world.a.api.wait_seen(before + held).await;
    assert_eq!((world.metric(UNKNOWN, &world.a), world.metric(SEATS, &world.a)), (2.0, 0.0));
    let new: &[(&str, &str)] = &[("authorization", "Bearer new")];
    let mut same = world.by_name(&world.a).http(true).await;
    let refused = same.get_with("/api", new).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(status(refused).await, (429, "TooManyRequests".to_owned()));
    let metrics = world.metrics.render().expect("metrics");
    assert!(
        metrics.contains("portico_gateway_unknown_refused_total{namespace=\"team\",cluster=\"alpha\"} 1"),
        "{metrics}"
    );
    for (client, name, headers) in &mut known {
        assert_eq!(text(client.get_with("/api", headers).await).await, *name);
    }
    let mut elsewhere = world.by_name(&world.a).from([127, 0, 0, 2]).http(true).await;
    assert_eq!(text(elsewhere.get_with("/api", new).await).await, "alpha");
    let mut other = world.by_name(&world.b).http(true).await;
    assert_eq!(text(other.get_with("/api", new).await).await, "beta");
    // Who waits gets the place that comes back.
    let mut waiting = world.by_name(&world.a).http(true).await;
    let waiting = task::spawn("waiting", async move {
        text(waiting.get_with("/api", &[("authorization", "Bearer patient")]).await).await
    });
    hanging.pop();
    assert_eq!(waiting.join().await.as_deref(), Some("alpha"));
    drop(hanging);
    world.metric_becomes(UNKNOWN, &world.a, 0.0).await;
}

#[tokio::test]
async fn an_accepted_watch_moves_to_a_seat_and_is_refused_when_there_is_none() {
    let config = GatewayConfig { max_long_running_per_tenant: 1, ..Default::default() };
    let world = World::with(config, Clock::system()).await;
    let (answer, events) = Answer::stream();
    world.a.answer(answer);
    let mut client = world.by_name(&world.a).http(true).await;
    let watch = |token: &'static str| [("authorization", token)];
    let mut running = client.get_with("/api/v1/pods?watch=1", &watch("Bearer one")).await;
    assert_eq!((world.metric(UNKNOWN, &world.a), world.metric(LONG, &world.a)), (0.0, 1.0));
    let (answer, none) = Answer::stream();
    world.a.answer(answer);
    let refused = client.get_with("/api/v1/pods?watch=1", &watch("Bearer two")).await;
    assert_eq!(status(refused).await.0, 429);
    none.closed().await;
    assert_eq!(world.metric(UNKNOWN, &world.a), 0.0);
    drop(events);
    assert_eq!(piece(&mut running).await, None);
}

/// A write that the backend did is never answered as if it were not.
#[tokio::test]
async fn a_write_that_was_done_is_not_refused_for_want_of_a_seat() {
    let config = GatewayConfig { max_requests_per_tenant: 1, ..Default::default() };
    let world = World::with(config, Clock::system()).await;
    let (answer, rest) = Answer::stream();
    world.a.answer(answer);
    let mut lister = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    let list = lister.get("/api/v1/pods").await;
    let poster = Poster::connect(&world, &world.a, &world.by_path(), None).await;
    let headers = [("authorization", "Bearer one"), ("content-length", "2")];
    assert_eq!(text(poster.post(CONFIG_MAPS, &headers, whole("{}")).await).await, "alpha");
    let mut reader = world.by_name(&world.a).http(true).await;
    assert_eq!(status(reader.get_with("/api", &[("authorization", "Bearer two")]).await).await.0, 429);
    drop((list, rest));
}

#[tokio::test]
async fn acceptance_moves_a_token_to_other_connections_and_a_refusal_moves_it_back() {
    let world = World::start().await;
    let mut client = world.by_name(&world.a).http(true).await;
    let mut ask = async |token: &str, answer: Option<Answer>| {
        if let Some(answer) = answer {
            world.a.answer(answer);
        }
        let code = client.get_with("/api", &[("authorization", token)]).await.status().as_u16();
        (code, world.a.last_seen().connection)
    };
    let failing = || Some(Answer::status(503, "ServiceUnavailable", "not yet"));
    let (code, unknown) = ask("Bearer one", failing()).await;
    assert_eq!((code, ask("Bearer one", None).await), (503, (200, unknown)), "a failure proves nothing");
    let (code, known) = ask("Bearer one", failing()).await;
    assert_eq!(code, 503);
    assert_ne!(known, unknown);
    assert_eq!(ask(INVENTED, None).await, (401, unknown));
    assert_eq!(ask("Bearer one", Some(Answer::status(401, "Unauthorized", "no more"))).await, (401, known));
    assert_eq!(ask("Bearer one", Some(Answer::status(403, "Forbidden", "no"))).await, (403, unknown));
    assert_eq!(ask("Bearer one", None).await, (200, known), "who is forbidden is known");
    let mut other = world.by_name(&world.b).http(true).await;
    text(other.get_with("/api", &[("authorization", "Bearer one")]).await).await;
    assert_eq!(world.b.last_seen().connection, 0, "at one tenant only");
}

/// A client that lets no byte of an answer come holds its own streams and nothing else.
#[tokio::test]
async fn answers_that_nobody_reads_hold_no_place() {
    let world = World::start().await;
    let poster = Poster::connect(&world, &world.a, &world.by_path(), Some(0)).await;
    let mut unread = Vec::new();
    for _ in 0..40 {
        let answer =
            poster.post(CONFIG_MAPS, &[("authorization", INVENTED), ("content-length", "2")], whole("{}")).await;
        assert_eq!(answer.status(), 401);
        unread.push(answer);
    }
    assert_eq!(world.metric(UNKNOWN, &world.a), 0.0);
    assert_eq!(world.a.api.seen().len(), 40);
}

#[tokio::test]
async fn bodies_of_unknown_callers_are_judged_before_they_are_long_or_slow() {
    let world = World::start().await;
    let poster = Poster::connect(&world, &world.a, &world.by_path(), None).await;
    // Long, or who knows how long: the token first.
    for headers in [&[("authorization", INVENTED)][..], &[("authorization", INVENTED), ("content-length", "100000")]] {
        assert_eq!(poster.post(CONFIG_MAPS, headers, slow(1000)).await.status(), 401);
    }
    assert!(world.a.api.seen().iter().all(|seen| seen.path == WHO_AM_I && seen.body.len() < 100));
    // Short, but it does not come, and this backend waits for it.
    let headers = [("authorization", "Bearer one"), ("content-length", "10")];
    assert_eq!(status(poster.post(CONFIG_MAPS, &headers, slow(5)).await).await, (504, "Timeout".to_owned()));
    world.metric_becomes(UNKNOWN, &world.a, 0.0).await;
}

#[tokio::test]
async fn whole_bodies_draw_on_one_budget_and_a_tenant_has_its_share() {
    let config = GatewayConfig { max_body: 1000, max_buffered_bytes: 16_000, ..Default::default() };
    let world = World::with(config, Clock::system()).await;
    let dry = "/api/v1/namespaces/default/services?dryRun=All";
    let of_a = Poster::connect(&world, &world.a, &world.by_path().user(world.a.user("jane")), None).await;
    let of_b = Poster::connect(&world, &world.b, &world.by_path().user(world.b.user("jane")), None).await;
    let slow_ones: Vec<_> = (0..4).map(|_| of_a.posting(SERVICES, &[], slow(1))).collect();
    world.metric_becomes(BUFFERED, &world.a, 4000.0).await;
    let refused = of_a.post(dry, &[], whole("{}")).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(status(refused).await, (429, "TooManyRequests".to_owned()));
    assert_eq!(text(of_b.post(dry, &[], whole("{}")).await).await, "beta");
    drop(slow_ones);
    world.metric_becomes(BUFFERED, &world.a, 0.0).await;
    assert_eq!(text(of_a.post(dry, &[], whole("{}")).await).await, "alpha");
    world.metric_becomes(BUFFERED, &world.a, 0.0).await;
    world.metric_becomes(BUFFERED, &world.b, 0.0).await;
}

/// Where a tenant lets anonymous callers in, they have places of their own, and keep out nobody but each other.
#[tokio::test]
async fn anonymous_callers_never_get_a_seat() {
    let config = GatewayConfig { max_unknown: 4, max_unknown_per_tenant: 2, ..Default::default() };
    let world = World::with(config, Clock::system()).await;
    let open = portico::tenant::Tenant { anonymous: true, ..world.a.tenant(2, &world.a.client_ca, &world.clock) };
    world.registry.put(&std::sync::Arc::new(open));
    let (answer, events) = Answer::stream();
    world.a.answer(answer);
    let mut client = world.by_name(&world.a).http(true).await;
    let mut running = client.get("/api/v1/pods?watch=1").await;
    let (unknown, long) = (world.metric(UNKNOWN, &world.a), world.metric(LONG, &world.a));
    assert_eq!((unknown, long), (1.0, 0.0));
    assert_eq!(status(client.get("/api").await).await.0, 429);
    assert_eq!(text(client.get_with("/api", &[("authorization", "Bearer one")]).await).await, "alpha");
    drop(events);
    assert_eq!(piece(&mut running).await, None);
    drop(running);
    world.metric_becomes(UNKNOWN, &world.a, 0.0).await;
    assert_eq!(text(client.get("/api").await).await, "alpha");
    // Nothing of theirs is buffered: a Service is forwarded as it comes.
    let poster = Poster::connect(&world, &world.a, &world.by_path(), None).await;
    assert_eq!(text(poster.post(SERVICES, &[("content-length", "2")], whole("{}")).await).await, "alpha");
    assert_eq!(world.a.last_seen().path, SERVICES);
}
