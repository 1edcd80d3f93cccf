//! Tokens of ServiceAccounts, judged by their tenant's keys: whose they are, and what is false, before anybody is asked.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use portico::config::GatewayConfig;
use portico::runtime::clock::Clock;
use portico::runtime::task::{self, Task};
use portico::tenant::Tenant;
use serde_json::{Value, json};

use crate::support::fake::{Answer, Seen};
use crate::support::tokens::{self, CONFIGURATION, Key, SET, but, by_secret, claims};
use crate::unknown::{Poster, slow};
use crate::world::{Client, Cluster, PATIENCE, World, piece, status, text};

const SEATS: &str = "portico_gateway_requests_in_flight";
const UNKNOWN: &str = "portico_gateway_unknown_in_flight";
const WATCH: &str = "/api/v1/pods?watch=1";

/// What a backend says of tokens.
#[derive(Default)]
struct Said {
    documents: Mutex<Option<[Value; 2]>>,
    /// How the set is answered first.
    sets: Mutex<VecDeque<Answer>>,
    /// Tokens that it took back.
    refused: Mutex<BTreeSet<String>>,
}

impl Said {
    /// As the backend of `cluster`, with these keys.
    fn by(cluster: &Cluster, keys: &[&Key]) -> Arc<Self> {
        let said = Arc::new(Self::default());
        said.publish(keys);
        let saying = Arc::clone(&said);
        *cluster.metrics.lock() = Some(Arc::new(move |seen: &Seen| saying.answer(seen)));
        said
    }

    fn publish(&self, keys: &[&Key]) {
        *self.documents.lock() = Some(tokens::documents(keys));
    }

    fn answer(&self, seen: &Seen) -> Option<Answer> {
        let document = |at: usize| match &*self.documents.lock() {
            Some(documents) => Answer::json(200, &documents[at]),
            None => Answer::status(404, "NotFound", "nothing"),
        };
        match seen.path.as_str() {
            CONFIGURATION => return Some(document(0)),
            // As a real one does.
            SET if seen.header("accept") != Some("application/jwk-set+json") => return Some(Answer::text(406, "")),
            SET => return Some(self.sets.lock().pop_front().unwrap_or_else(|| document(1))),
            _ => {}
        }
        let is_refused = |token: &str| self.refused.lock().contains(token);
        seen.header("authorization")
            .filter(|token| is_refused(token))
            .map(|_| Answer::status(401, "Unauthorized", "Unauthorized"))
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn get(client: &mut Client, path: &str, token: &str) -> http::Response<hyper::body::Incoming> {
    client.get_with(path, &[("authorization", &bearer(token))]).await
}

/// Asks as `token` and is not answered.
async fn hang(world: &World, cluster: &Cluster, token: &str) -> Task {
    let seen = |cluster: &Cluster| cluster.api.seen().iter().filter(|seen| seen.path == "/api").count();
    let before = seen(cluster);
    cluster.answer(Answer::Hang);
    let (mut client, token) = (world.by_name(cluster).http(true).await, token.to_owned());
    let task = task::spawn("hanging", async move { drop(get(&mut client, "/api", &token).await) });
    let arrived = async {
        while seen(cluster) == before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.expect("it reaches the backend");
    task
}

/// So many seconds at once, on a clock that goes otherwise.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

/// Waits until the backend was asked so often whether it still takes a token.
async fn judged_again(cluster: &Cluster, often: usize) {
    let reviews = || cluster.api.seen().iter().filter(|seen| seen.path.contains("selfsubjectreviews")).count();
    let asked = async {
        while reviews() < often {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("it is asked");
}

fn asked(cluster: &Cluster) -> usize {
    cluster.api.seen().iter().filter(|seen| seen.path == CONFIGURATION).count()
}

fn judged(world: &World, cluster: &Cluster, outcome: &str) -> f64 {
    sample(world, cluster, "portico_gateway_tokens_judged_total", &format!("outcome=\"{outcome}\""))
}

/// Connections that are the tenant's.
fn connections(world: &World, cluster: &Cluster) -> f64 {
    sample(world, cluster, "portico_gateway_tenant_connections", "caller=\"known\"")
}

fn sample(world: &World, cluster: &Cluster, name: &str, label: &str) -> f64 {
    let line = format!("{name}{{namespace=\"team\",cluster=\"{}\",{label}}} ", cluster.name);
    let text = world.metrics.render().expect("metrics");
    text.lines().find_map(|sample| sample.strip_prefix(&line)).map_or(0.0, |value| value.parse().expect("a number"))
}

#[tokio::test]
async fn who_shows_a_good_token_is_known_before_his_backend_has_answered() {
    let config = GatewayConfig { max_requests_per_tenant: 4, ..Default::default() };
    let world = World::with(config, Clock::system()).await;
    for key in [Key::rsa(), Key::ec(), Key::long_ec()] {
        let cluster = if key.published()["alg"] == "RS256" { &world.b } else { &world.a };
        Said::by(cluster, &[&key]);
        let token = key.of(&claims("web", now()));
        // Keys are asked for once in ten seconds.
        pass(11).await;
        let first = hang(&world, cluster, &token).await;
        assert_eq!((world.metric(SEATS, cluster), world.metric(UNKNOWN, cluster)), (1.0, 0.0), "{}", key.published());
        let seen = cluster.last_seen();
        assert_eq!(
            seen.header("authorization"),
            Some(bearer(&token).as_str()),
            "it is the backend's to judge all the same"
        );
        assert!(!seen.has_certificate && seen.header("x-remote-user").is_none());
        // A user is an account, however many tokens it has: one of them leaves others a seat.
        let again = key.of(&but(claims("web", now()), &json!({"jti": "another"})));
        let all = [first, hang(&world, cluster, &token).await, hang(&world, cluster, &again).await];
        let mut client = world.by_name(cluster).http(true).await;
        assert_eq!(status(get(&mut client, "/api", &again).await).await.0, 429);
        assert_eq!(text(get(&mut client, "/api", &key.of(&claims("other", now()))).await).await, cluster.name);
        drop(all);
        world.metric_becomes(SEATS, cluster, 0.0).await;
    }
    assert_eq!((asked(&world.a), asked(&world.b)), (2, 1));
    assert_eq!((judged(&world, &world.a, "true"), judged(&world, &world.b, "true")), (6.0, 3.0));
}

/// They have no seat, no place, no connection: the only place is taken, and the backend hears nothing of them.
#[tokio::test]
async fn false_tokens_end_at_the_gateway_as_an_api_server_ends_them() {
    let config = GatewayConfig { max_unknown: 1, max_unknown_per_tenant: 1, ..Default::default() };
    let world = World::with(config, Clock::system()).await;
    let (key, thief) = (Key::ec(), Key::ec());
    Said::by(&world.a, &[&key]);
    let mut client = world.by_name(&world.a).http(true).await;
    let (now, good) = (now(), claims("web", now()));
    assert_eq!(text(get(&mut client, "/api", &key.of(&good)).await).await, "alpha");
    let stranger = hang(&world, &world.a, "opaque").await;
    let (before, accepted) = (world.a.api.seen().len(), world.a.api.accepted());
    let head = |algorithm: &str| json!({"alg": algorithm, "kid": key.id});
    let none = tokens::encode(head("none").to_string());
    for (outcome, token) in [
        ("signature", thief.token(&key.head(), &good)),
        ("algorithm", format!("{none}.{}.", tokens::encode(good.to_string()))),
        ("algorithm", by_secret(key.public(), &head("HS256"), &good)),
        ("expired", key.of(&claims("web", now - 9000))),
        ("early", key.of(&claims("web", now + 9000))),
        ("audience", key.of(&but(good.clone(), &json!({"aud": ["vault"]})))),
    ] {
        let counted = judged(&world, &world.a, outcome);
        for path in ["/api", WATCH, "/api/v1/namespaces/default/pods/web/exec?command=id"] {
            let answer = get(&mut client, path, &token).await;
            assert_eq!(answer.headers()["cache-control"], "no-cache, private");
            let expected = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "Unauthorized", "reason": "Unauthorized", "code": 401});
            let code = answer.status().as_u16();
            let body: Value = serde_json::from_str(&text(answer).await).expect("a Status");
            assert_eq!((code, body), (401, expected), "{outcome}: why is nobody's to know");
        }
        assert_eq!(judged(&world, &world.a, outcome), counted + 3.0, "{outcome}");
        assert_eq!(world.metric(SEATS, &world.a), 0.0);
    }
    assert_eq!((world.a.api.seen().len(), world.a.api.accepted()), (before, accepted));
    assert_eq!(text(get(&mut client, "/api", &key.of(&good)).await).await, "alpha", "whose is good needs no place");
    drop(stranger);
}

/// Both have the same issuer and the same names: only the key differs.
#[tokio::test]
async fn a_token_of_one_tenant_is_nothing_at_another() {
    let world = World::start().await;
    let (of_a, of_b) = (Key::ec(), Key::ec());
    Said::by(&world.a, &[&of_a]);
    Said::by(&world.b, &[&of_b]);
    let (token, own) = (of_a.of(&claims("web", now())), of_b.of(&claims("web", now())));
    for (at_a, at_b) in
        [(world.by_name(&world.a), world.by_name(&world.b)), (world.by_port(&world.a), world.by_port(&world.b))]
    {
        let (mut a, mut b) = (at_a.http(true).await, at_b.http(false).await);
        for _ in 0..3 {
            assert_eq!(text(get(&mut a, "/api", &token).await).await, "alpha");
            assert_eq!(status(get(&mut b, "/api", &token).await).await, (401, "Unauthorized".to_owned()));
            assert_eq!(status(get(&mut b, WATCH, &token).await).await, (401, "Unauthorized".to_owned()));
            assert_eq!(text(get(&mut b, "/api", &own).await).await, "beta");
        }
    }
    let seen = world.b.api.seen();
    assert!(seen.iter().all(|seen| seen.header("authorization") != Some(bearer(&token).as_str())));
    assert!(judged(&world, &world.b, "key") >= 12.0);
    // Of an API server whose arguments are its owner's, only it knows: as a stranger, and never on a seat.
    let external = Tenant { audiences: None, ..world.b.tenant(2, &world.b.client_ca, &world.clock) };
    world.registry.put(&Arc::new(external));
    let stranger = hang(&world, &world.b, &token).await;
    assert_eq!((world.metric(SEATS, &world.b), world.metric(UNKNOWN, &world.b)), (0.0, 1.0));
    drop(stranger);
}

#[tokio::test]
async fn what_the_backend_took_back_has_no_seat_until_it_accepts_it_again() {
    let world = World::start().await;
    let key = Key::ec();
    let said = Said::by(&world.a, &[&key]);
    let (token, other) = (key.of(&claims("web", now())), key.of(&claims("other", now())));
    let mut client = world.by_name(&world.a).http(true).await;
    assert_eq!(text(get(&mut client, "/api", &token).await).await, "alpha");
    said.refused.lock().insert(bearer(&token));
    assert_eq!(status(get(&mut client, "/api", &token).await).await.0, 401);
    said.refused.lock().clear();
    let stranger = hang(&world, &world.a, &token).await;
    assert_eq!((world.metric(SEATS, &world.a), world.metric(UNKNOWN, &world.a)), (0.0, 1.0));
    let known = hang(&world, &world.a, &other).await;
    assert_eq!((world.metric(SEATS, &world.a), world.metric(UNKNOWN, &world.a)), (1.0, 1.0), "nobody else's");
    assert_eq!(text(get(&mut client, "/api", &token).await).await, "alpha");
    let again = hang(&world, &world.a, &token).await;
    assert_eq!((world.metric(SEATS, &world.a), world.metric(UNKNOWN, &world.a)), (2.0, 1.0));
    assert_eq!(judged(&world, &world.a, "taken-back"), 1.0);
    drop((stranger, known, again));
}

/// A minute after its time, as API servers allow; and nobody else's.
#[tokio::test]
async fn what_takes_long_ends_with_the_time_of_its_users_token() {
    let clock = Clock::going("2030-01-01T00:00:00Z".parse().expect("a time"), 1);
    let (began, world) = (clock.now().as_second(), World::with(GatewayConfig::default(), clock).await);
    let key = Key::ec();
    Said::by(&world.a, &[&key]);
    let ending = key.of(&but(claims("web", began), &json!({"exp": began - 55})));
    let lasting = key.of(&claims("web", began));
    let mut kept = Vec::new();
    for (token, path) in
        [(&ending, WATCH), (&ending, "/api/v1/namespaces/a/services/b/proxy/events"), (&lasting, WATCH)]
    {
        let (answer, events) = Answer::stream();
        world.a.answer(answer);
        let mut client = world.by_name(&world.a).http(true).await;
        let answer = get(&mut client, path, token).await;
        assert_eq!(answer.status(), 200);
        kept.push((client, answer, events));
    }
    assert_eq!(piece(&mut kept[0].1).await, None, "it ends by itself");
    let proxied = tokio::time::timeout(PATIENCE, kept[1].1.body_mut().frame()).await.expect("in time");
    assert!(proxied.expect("no end that looks whole").is_err());
    let before = world.a.api.seen().len();
    assert_eq!(status(get(&mut kept[0].0, "/api", &ending).await).await.0, 401);
    assert_eq!(world.a.api.seen().len(), before);
    let (_, answer, events) = &mut kept[2];
    events.send("more".into()).await.expect("sent");
    assert_eq!(piece(answer).await.as_deref(), Some("more"));
}

/// The backend is asked again by and by.
#[tokio::test]
async fn a_watch_ends_when_the_backend_takes_its_users_token_back() {
    let world = World::start().await;
    let key = Key::ec();
    let said = Said::by(&world.a, &[&key]);
    let token = key.of(&but(claims("web", now()), &json!({"exp": now() + 90_000})));
    let (answer, events) = Answer::stream();
    world.a.answer(answer);
    let mut client = world.by_name(&world.a).http(true).await;
    let mut watch = get(&mut client, WATCH, &token).await;
    events.send("more".into()).await.expect("sent");
    assert_eq!(piece(&mut watch).await.as_deref(), Some("more"), "it is under way");
    // One answer is not enough: an API server that begins says 401 as well.
    said.refused.lock().insert(bearer(&token));
    pass(361).await;
    judged_again(&world.a, 1).await;
    said.refused.lock().clear();
    pass(13).await;
    judged_again(&world.a, 2).await;
    events.send("on".into()).await.expect("sent");
    assert_eq!(piece(&mut watch).await.as_deref(), Some("on"));
    said.refused.lock().insert(bearer(&token));
    pass(361).await;
    judged_again(&world.a, 3).await;
    pass(13).await;
    assert_eq!(piece(&mut watch).await, None);
}

/// Connections of an earlier generation end after a while; what is open by it does not.
#[tokio::test]
async fn what_is_open_over_a_new_generation_is_judged_again_all_the_same() {
    let world = World::start().await;
    let key = Key::ec();
    let said = Said::by(&world.a, &[&key]);
    let token = key.of(&but(claims("web", now()), &json!({"exp": now() + 90_000})));
    let (answer, events) = Answer::stream();
    world.a.answer(answer);
    let mut client = world.by_name(&world.a).http(true).await;
    let mut watch = get(&mut client, WATCH, &token).await;
    let before = world.registry.load().by_id(&world.a.id()).cloned().expect("served");
    world.registry.put(&Arc::new(world.a.tenant(2, &world.a.client_ca, &world.clock)));
    // As the source does, which makes generations.
    before.backend.pool.retire(Duration::from_secs(60));
    said.refused.lock().insert(bearer(&token));
    for (seconds, asked) in [(120, 0), (361, 1), (13, 2)] {
        events.send("more".into()).await.expect("sent");
        assert_eq!(piece(&mut watch).await.as_deref(), Some("more"), "after {asked} questions");
        pass(seconds).await;
        judged_again(&world.a, asked).await;
    }
    assert_eq!(piece(&mut watch).await, None);
}

/// Its signature is good, so it has a seat until the backend says 401: and nothing that is kept for it before.
#[tokio::test]
async fn of_a_token_that_was_taken_back_nothing_is_read_and_no_connection_is_the_tenants() {
    let world = World::start().await;
    let key = Key::ec();
    let said = Said::by(&world.a, &[&key]);
    let token = key.of(&claims("web", now()));
    said.refused.lock().insert(bearer(&token));
    let poster = Poster::connect(&world, &world.a, &world.by_path(), None).await;
    let headers = [("authorization", bearer(&token))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let post = async || poster.post("/api/v1/namespaces/default/services", &headers, slow(100)).await;
    assert_eq!(status(post().await).await.0, 401, "before its body has come");
    let mut client = world.by_name(&world.a).http(true).await;
    assert_eq!(status(get(&mut client, "/api", &token).await).await.0, 401);
    assert_eq!(connections(&world, &world.a), 0.0);
    said.refused.lock().clear();
    assert_eq!(text(get(&mut client, "/api", &token).await).await, "alpha");
    assert_eq!(connections(&world, &world.a), 1.0);
}

/// A pod behind a proxy may say what it likes.
#[tokio::test]
async fn a_401_from_behind_the_api_server_makes_nobody_a_stranger() {
    let world = World::start().await;
    let key = Key::ec();
    Said::by(&world.a, &[&key]);
    let token = key.of(&claims("web", now()));
    let mut client = world.by_name(&world.a).http(true).await;
    assert_eq!(text(get(&mut client, "/api", &token).await).await, "alpha");
    for path in ["/api/v1/namespaces/a/services/b/proxy/x", "/apis/example.com/v1/things"] {
        world.a.answer(Answer::status(401, "Unauthorized", "Unauthorized"));
        assert_eq!(status(get(&mut client, path, &token).await).await.0, 401);
    }
    let known = hang(&world, &world.a, &token).await;
    assert_eq!((world.metric(SEATS, &world.a), world.metric(UNKNOWN, &world.a)), (1.0, 0.0));
    assert_eq!(judged(&world, &world.a, "taken-back"), 0.0);
    drop(known);
}

#[tokio::test]
async fn keys_are_asked_for_once_for_all_and_whoever_leaves_takes_nothing_along() {
    let world = World::start().await;
    let key = Key::ec();
    let said = Said::by(&world.a, &[&key]);
    let mut by_certificate = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    assert_eq!(text(by_certificate.get("/api").await).await, "alpha");
    let mut opaque = world.by_name(&world.a).http(true).await;
    assert_eq!(text(get(&mut opaque, "/api", "opaque").await).await, "alpha");
    assert_eq!(asked(&world.a), 0, "nobody showed one that has keys");
    let (answer, set) = Answer::stream();
    said.sets.lock().push_back(answer);
    let asking = async |name: &str| {
        let (mut client, token) = (world.by_name(&world.a).http(true).await, key.of(&claims(name, now())));
        task::spawn("asking", async move { text(get(&mut client, "/api", &token).await).await })
    };
    let first = asking("first").await;
    world.metric_becomes(UNKNOWN, &world.a, 1.0).await;
    let others = [asking("second").await, asking("third").await];
    world.metric_becomes(UNKNOWN, &world.a, 3.0).await;
    drop(first);
    world.metric_becomes(UNKNOWN, &world.a, 2.0).await;
    let document = tokens::documents(&[&key])[1].to_string();
    set.send(Bytes::from(document)).await.expect("it is read on");
    drop(set);
    for other in others {
        assert_eq!(other.join().await.as_deref(), Some("alpha"));
    }
    assert_eq!((asked(&world.a), judged(&world, &world.a, "true")), (1, 2.0));
}

#[tokio::test]
async fn where_no_keys_are_known_the_backend_judges_as_ever() {
    let key = Key::ec();
    let endless = || Answer::Full(http::Response::new(Bytes::from(vec![b' '; (64 << 10) + 1])));
    for set in [Answer::status(403, "Forbidden", "no"), endless(), Answer::text(200, "{}"), Answer::Hang] {
        let world = World::start().await;
        let said = Said::by(&world.a, &[&key]);
        said.sets.lock().push_back(set);
        let token = key.of(&claims("web", now()));
        let mut client = world.by_name(&world.a).http(true).await;
        for _ in 0..3 {
            assert_eq!(text(get(&mut client, "/api", &token).await).await, "alpha");
        }
        said.refused.lock().insert(bearer("a.b.c"));
        assert_eq!(status(get(&mut client, "/api", "a.b.c").await).await.0, 401);
        assert_eq!((asked(&world.a), judged(&world, &world.a, "true")), (1, 0.0), "not again at once");
        let failed = "portico_gateway_token_keys_total{namespace=\"team\",cluster=\"alpha\",outcome=\"failed\"} 1";
        let metrics = world.metrics.render().expect("metrics");
        assert!(metrics.contains(failed), "{metrics}");
    }
}
