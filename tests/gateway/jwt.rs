//! Tokens of other issuers: whom they make known, and everybody whom they do not.

mod keys;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use portico::config::{GatewayConfig, JwtBounds};
use portico::issuers::Issuers;
use portico::runtime::clock::Clock;
use portico::tenant::{Assertion, Tenant};
use serde_json::{Value, json};

use crate::support::fake::{Answer, FakeApi};
use crate::support::pki::Pki;
use crate::support::tokens::{self, Key, but, by_secret};
use crate::world::{Client, Cluster, World, piece, status, text};

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/keys";
const WATCH: &str = "/api/v1/pods?watch=1";

/// An issuer with its server.
struct Issuer {
    api: FakeApi,
    /// How each of its documents is answered, instead of what it is.
    instead: Arc<Mutex<Option<Document>>>,
    keys: Arc<Mutex<Vec<Value>>>,
}

type Document = Arc<dyn Fn(&str) -> Option<Answer> + Send + Sync>;

impl Issuer {
    async fn start(keys: &[&Key]) -> Self {
        let all = keys.iter().map(|key| key.published()).collect();
        let (keys, instead) = (Arc::new(Mutex::new(all)), Arc::<Mutex<Option<Document>>>::default());
        let (published, other) = (Arc::clone(&keys), Arc::clone(&instead));
        let url = Arc::<OnceLock<String>>::default();
        let at = Arc::clone(&url);
        let api = FakeApi::start(move |seen| {
            let own = other.lock().as_ref().and_then(|document| document(&seen.path));
            let url = at.get().cloned().unwrap_or_default();
            let answer = own.unwrap_or_else(|| match seen.path.as_str() {
                DISCOVERY => Answer::json(200, &json!({"issuer": url, "jwks_uri": format!("{url}{KEYS}")})),
                KEYS => Answer::json(200, &json!({"keys": *published.lock()})),
                _ => Answer::text(404, "nothing"),
            });
            async move { answer }
        })
        .await;
        url.set(format!("https://{}", api.address)).expect("once");
        Self { api, instead, keys }
    }

    fn url(&self) -> String {
        format!("https://{}", self.api.address)
    }

    fn entry(&self) -> Value {
        json!({
            "issuer": {"url": self.url(), "audiences": ["portico"], "certificateAuthority": self.api.pki.ca_pem()},
            "claimMappings": {"username": {"claim": "sub"}, "groups": {"claim": "groups"}},
        })
    }

    /// What a good one says.
    fn claims(&self, user: &str, now: i64) -> Value {
        json!({"iss": self.url(), "sub": user, "aud": "portico", "iat": now, "exp": now + 600, "groups": ["dev"]})
    }

    fn asked(&self) -> usize {
        self.api.seen().len()
    }

    fn answers(&self, document: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) {
        *self.instead.lock() = Some(Arc::new(document));
    }
}

fn bounds() -> JwtBounds {
    let loopback = "127.0.0.1/32".parse().expect("a network");
    JwtBounds { allowed_issuers: vec!["*".to_owned()], allowed_addresses: vec![loopback], allow_system_names: false }
}

fn issuers(entries: &[Value]) -> Arc<Issuers> {
    let entries: Vec<_> =
        entries.iter().map(|entry| serde_json::from_value(entry.clone()).expect("an entry")).collect();
    let issuers = Issuers::new(&entries, &bounds(), &Issuers::default());
    assert!(issuers.faults().is_empty(), "{:?}", issuers.faults());
    Arc::new(issuers)
}

fn accepts(world: &World, cluster: &Cluster, generation: u64, entries: &[Value]) {
    let tenant = cluster.tenant(generation, &cluster.client_ca, &world.clock);
    world.registry.put(&Arc::new(Tenant { issuers: issuers(entries), ..tenant }));
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

async fn get(client: &mut Client, path: &str, token: &str) -> http::Response<hyper::body::Incoming> {
    client.get_with(path, &[("authorization", &format!("Bearer {token}"))]).await
}

fn unauthorized() -> (u16, String) {
    (401, "Unauthorized".to_owned())
}

#[tokio::test]
async fn a_user_of_an_issuer_is_asserted_and_judged_once() {
    let (key, world) = (Key::ec(), World::start().await);
    let issuer = Issuer::start(&[&key]).await;
    accepts(&world, &world.a, 2, &[issuer.entry()]);
    let token = key.of(&issuer.claims("jane", now()));
    for is_http2 in [false, true] {
        let mut client = world.by_name(&world.a).http(is_http2).await;
        for _ in 0..3 {
            let headers = [("authorization", format!("Bearer {token}")), ("x-remote-user", "root".to_owned())];
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(text(client.get_with("/api", &headers).await).await, "alpha");
        }
        let seen = world.a.last_seen();
        assert!(seen.has_certificate);
        assert_eq!(
            (seen.header("x-remote-user"), seen.header("x-remote-group")),
            (Some("oidc:jane"), Some("oidc:dev"))
        );
        assert_eq!(seen.header("authorization"), None, "the token stays here");
    }
    assert_eq!(issuer.asked(), 2, "its configuration and its keys, once");
    // An issuer of alpha's is nobody's at beta.
    let mut other = world.by_name(&world.b).http(true).await;
    text(get(&mut other, "/api", &token).await).await;
    let seen = world.b.last_seen();
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {token}").as_str()), "its API server's to judge");
    assert_eq!((seen.header("x-remote-user"), seen.has_certificate), (None, false));
}

#[tokio::test]
async fn hostile_tokens_make_nobody_anybody() {
    let (ec, rsa, forger, world) = (Key::ec(), Key::rsa(), Key::ec(), World::start().await);
    let (issuer, other) = (Issuer::start(&[&ec, &rsa]).await, Issuer::start(&[&forger]).await);
    accepts(&world, &world.a, 2, &[issuer.entry(), other.entry()]);
    let good = issuer.claims("jane", now());
    let mut client = world.by_name(&world.a).http(true).await;
    for key in [&ec, &rsa] {
        assert_eq!(text(get(&mut client, "/api", &key.of(&good)).await).await, "alpha");
    }
    let with = |change: Value| ec.of(&but(good.clone(), &change));
    let head = |change: Value| ec.token(&but(ec.head(), &change), &good);
    let none = format!("{}.{}.", tokens::encode(r#"{"alg":"none"}"#), tokens::encode(good.to_string()));
    let twice = good.to_string().replacen('{', r#"{"sub":"root","#, 1);
    let other_issuer = good.to_string().replacen('{', &format!(r#"{{"iss":"{}","#, other.url()), 1);
    let cut = ec.of(&good);
    let hostile = [
        ("none", none),
        ("a secret", by_secret(ec.public(), &json!({"alg": "HS256", "kid": ec.id}), &good)),
        ("a secret of RSA", by_secret(rsa.public(), &json!({"alg": "HS256", "kid": rsa.id}), &good)),
        ("another's key", forger.of(&good)),
        ("another's key by this name", forger.token(&json!({"alg": "ES256", "kid": ec.id}), &good)),
        ("no name of a key", forger.token(&json!({"alg": "ES256"}), &good)),
        ("another algorithm", head(json!({"alg": "ES384"}))),
        ("another kind's", head(json!({"alg": "RS256"}))),
        ("a path", head(json!({"kid": "../../etc/passwd"}))),
        ("a type", head(json!({"typ": "at+jwt"}))),
        ("critical", head(json!({"crit": ["x"]}))),
        ("over", with(json!({"exp": now() - 1}))),
        ("endless", with(json!({"exp": null}))),
        ("early", with(json!({"nbf": now() + 600}))),
        ("for another", with(json!({"aud": "another"}))),
        ("for nobody", with(json!({"aud": null}))),
        ("nameless", with(json!({"sub": ""}))),
        ("long", with(json!({"sub": "a".repeat(300)}))),
        ("many groups", with(json!({"groups": (0..300).map(|n| format!("g{n}")).collect::<Vec<_>>()}))),
        ("groups of numbers", with(json!({"groups": [1]}))),
        ("cut", cut[..cut.len() - 2].to_owned()),
    ];
    let before = world.a.api.seen().len();
    for (what, token) in &hostile {
        assert_eq!(status(get(&mut client, "/api", token).await).await, unauthorized(), "{what}");
        assert_eq!(status(get(&mut client, WATCH, token).await).await, unauthorized(), "{what}");
    }
    assert_eq!(world.a.api.seen().len(), before, "none of them reached the API server");
    // What cannot be read is no issuer's: with its owner's token it goes to the API server, which knows no such issuer.
    for (what, token) in [
        ("twice", ec.written(&ec.head().to_string(), &twice)),
        ("huge", with(json!({"x": "a".repeat(16 << 10)}))),
        ("of two", ec.written(&ec.head().to_string(), &other_issuer)),
    ] {
        drop(get(&mut client, "/api", &token).await);
        let seen = world.a.last_seen();
        assert_eq!((seen.header("x-remote-user"), seen.has_certificate), (None, false), "{what}");
    }
    assert_eq!(text(get(&mut client, "/api", &ec.of(&good)).await).await, "alpha");
}

/// Who is called alike by two issuers is two users, where their prefixes say so.
#[tokio::test]
async fn nobody_gets_a_name_of_kubernetes_or_of_another_issuers_user() {
    let (key, second, world) = (Key::ec(), Key::ec(), World::start().await);
    let (issuer, other) = (Issuer::start(&[&key]).await, Issuer::start(&[&second]).await);
    let bare = but(
        issuer.entry(),
        &json!({"claimMappings": {
        "username": {"claim": "sub", "prefix": ""}, "groups": {"claim": "groups", "prefix": ""}}}),
    );
    let theirs = but(other.entry(), &json!({"claimMappings": {"username": {"claim": "sub", "prefix": "other:"}}}));
    accepts(&world, &world.a, 2, &[bare, theirs]);
    let mut client = world.by_name(&world.a).http(true).await;
    for (claims, user) in
        [(key.of(&issuer.claims("jane", now())), "jane"), (second.of(&other.claims("jane", now())), "other:jane")]
    {
        text(get(&mut client, "/api", &claims).await).await;
        assert_eq!(world.a.last_seen().header("x-remote-user"), Some(user));
    }
    let before = world.a.api.seen().len();
    for change in [json!({"sub": "system:admin"}), json!({"groups": ["dev", "system:masters"]})] {
        let token = key.of(&but(issuer.claims("jane", now()), &change));
        assert_eq!(status(get(&mut client, "/api", &token).await).await, unauthorized(), "{change}");
    }
    assert_eq!(world.a.api.seen().len(), before);
}

#[tokio::test]
async fn keys_change_under_way_and_an_issuer_that_is_down_shuts_nobody_out_who_is_known_by_its_keys() {
    let clock = Clock::going("2030-01-01T00:00:00Z".parse().expect("a time"), 1);
    let (old, new) = (Key::ec(), Key::ec());
    let world = World::with(GatewayConfig::default(), clock).await;
    let now = || world.clock.now().as_second();
    let issuer = Issuer::start(&[&old]).await;
    accepts(&world, &world.a, 2, &[issuer.entry()]);
    let mut client = world.by_name(&world.a).http(true).await;
    let long = |key: &Key, user: &str| key.of(&but(issuer.claims(user, now()), &json!({"exp": now() + 90_000})));
    let (first, second) = (long(&old, "jane"), long(&new, "jane"));
    assert_eq!(text(get(&mut client, "/api", &first).await).await, "alpha");
    assert_eq!(status(get(&mut client, "/api", &second).await).await, unauthorized(), "asked a moment ago");
    *issuer.keys.lock() = vec![new.published()];
    pass(3).await;
    assert_eq!(text(get(&mut client, "/api", &second).await).await, "alpha", "a new key is asked for");
    assert_eq!(status(get(&mut client, "/api", &first).await).await, unauthorized(), "and the old one is none");
    issuer.answers(|_| Some(Answer::text(503, "down")));
    pass(1800).await;
    assert_eq!(text(get(&mut client, "/api", &second).await).await, "alpha");
    assert_eq!(text(get(&mut client, "/api", &long(&new, "joe")).await).await, "alpha");
    pass(3600).await;
    assert_eq!(status(get(&mut client, "/api", &second).await).await, unauthorized(), "for an hour and no longer");
    *issuer.instead.lock() = None;
    pass(3).await;
    assert_eq!(text(get(&mut client, "/api", &second).await).await, "alpha");
}

/// So many seconds at once, on a clock that goes otherwise.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn hostile_issuers_are_bounded_and_lead_nowhere_else() {
    let (key, honest, world) = (Key::ec(), Key::ec(), World::start().await);
    let (elsewhere, good) = (Issuer::start(&[&key]).await, Issuer::start(&[&honest]).await);
    let away = format!("https://{}{KEYS}", elsewhere.api.address);
    let plain = away.replace("https", "http");
    let thousand: Vec<Value> = (0..1000).map(|n| json!({"kid": n.to_string(), "kty": "EC"})).collect();
    let redirect = |to: &str| {
        let mut answer = http::Response::new(bytes::Bytes::new());
        *answer.status_mut() = http::StatusCode::FOUND;
        answer.headers_mut().insert("location", to.parse().expect("a value"));
        Answer::Full(answer)
    };
    type Case = Arc<dyn Fn(&str, &str) -> Option<Answer> + Send + Sync>;
    let cases: Vec<(&str, Case)> = vec![
        ("never", Arc::new(|_, _| Some(Answer::Hang))),
        (
            "another's",
            Arc::new(|_, _| Some(Answer::json(200, &json!({"issuer": "https://b", "jwks_uri": "https://b/k"})))),
        ),
        (
            "not by https",
            Arc::new(move |path, url| {
                let keys = plain.clone();
                (path == DISCOVERY).then(|| Answer::json(200, &json!({"issuer": url, "jwks_uri": keys})))
            }),
        ),
        (
            "long",
            Arc::new(|path, url| {
                let good = json!({"issuer": url, "jwks_uri": format!("{url}{KEYS}")}).to_string();
                (path == DISCOVERY).then(|| Answer::text(200, &format!("{good}{}", " ".repeat(1 << 20))))
            }),
        ),
        (
            "a thousand keys",
            Arc::new(move |path, _| (path == KEYS).then(|| Answer::json(200, &json!({"keys": thousand})))),
        ),
        ("none", Arc::new(|path, _| (path == KEYS).then(|| Answer::json(200, &json!({"keys": []}))))),
        ("redirected", Arc::new(move |_, _| Some(redirect(&away)))),
        (
            "endless",
            Arc::new(|_, _| {
                let (answer, pieces) = Answer::stream();
                portico::runtime::task::spawn("endless", async move {
                    while pieces.send(vec![b' '; 1 << 10].into()).await.is_ok() {}
                })
                .ends_by_itself();
                Some(answer)
            }),
        ),
    ];
    for (what, document) in cases {
        let issuer = Issuer::start(&[&key]).await;
        let url = issuer.url();
        issuer.answers(move |path| document(path, &url));
        accepts(&world, &world.a, 2, &[issuer.entry(), good.entry()]);
        let mut client = world.by_name(&world.a).http(true).await;
        let token = key.of(&issuer.claims("jane", now()));
        assert_eq!(status(get(&mut client, "/api", &token).await).await, unauthorized(), "{what}");
        let token = honest.of(&good.claims("jane", now()));
        assert_eq!(text(get(&mut client, "/api", &token).await).await, "alpha", "{what}: the other issuer's");
    }
    assert_eq!(elsewhere.asked(), 0);
}

#[tokio::test]
async fn private_addresses_and_a_wrong_ca_are_closed() {
    let (key, world) = (Key::ec(), World::start().await);
    let issuer = Issuer::start(&[&key]).await;
    let of = |entry: &Value, bounds: &JwtBounds| {
        let entry = serde_json::from_value(entry.clone()).expect("an entry");
        Arc::new(Issuers::new(&[entry], bounds, &Issuers::default()))
    };
    let closed = JwtBounds { allowed_addresses: Vec::new(), ..bounds() };
    let other_ca = but(
        issuer.entry(),
        &json!({"issuer": {
        "url": issuer.url(), "audiences": ["portico"], "certificateAuthority": Pki::new("another CA").ca_pem()}}),
    );
    let of_the_web = but(issuer.entry(), &json!({"issuer": {"url": issuer.url(), "audiences": ["portico"]}}));
    for (generation, issuers) in
        (2..).zip([of(&issuer.entry(), &closed), of(&other_ca, &bounds()), of(&of_the_web, &bounds())])
    {
        let tenant = world.a.tenant(generation, &world.a.client_ca, &world.clock);
        world.registry.put(&Arc::new(Tenant { issuers, ..tenant }));
        let mut client = world.by_name(&world.a).http(true).await;
        let token = key.of(&issuer.claims("jane", now()));
        assert_eq!(status(get(&mut client, "/api", &token).await).await, unauthorized());
    }
    assert_eq!(issuer.asked(), 0);
}

#[tokio::test]
async fn what_is_open_ends_with_the_token_and_with_its_issuers_entry() {
    let clock = Clock::going("2030-01-01T00:00:00Z".parse().expect("a time"), 1);
    let (key, world) = (Key::ec(), World::with(GatewayConfig::default(), clock).await);
    let (issuer, now) = (Issuer::start(&[&key]).await, world.clock.now().as_second());
    accepts(&world, &world.a, 2, &[issuer.entry()]);
    let watch = async |token: &str| {
        let (answer, events) = Answer::stream();
        world.a.answer(answer);
        let mut client = world.by_name(&world.a).http(true).await;
        let answer = get(&mut client, WATCH, token).await;
        assert_eq!(answer.status(), 200);
        (client, answer, events)
    };
    let ending = key.of(&but(issuer.claims("jane", now), &json!({"exp": now + 4})));
    let lasting = key.of(&issuer.claims("jane", now));
    let (mut short, mut long) = (watch(&ending).await, watch(&lasting).await);
    assert_eq!(piece(&mut short.1).await, None, "its token's time is over");
    assert_eq!(status(get(&mut short.0, "/api", &ending).await).await, unauthorized());
    // Another generation with the same entry ends nothing, and neither does another issuer beside it.
    let second = Issuer::start(&[&key]).await;
    accepts(&world, &world.a, 3, &[second.entry(), issuer.entry()]);
    long.2.send("more".into()).await.expect("sent");
    assert_eq!(piece(&mut long.1).await.as_deref(), Some("more"));
    let changed = but(issuer.entry(), &json!({"claimMappings": {"username": {"claim": "sub", "prefix": "new:"}}}));
    accepts(&world, &world.a, 4, &[changed]);
    assert_eq!(piece(&mut long.1).await, None, "he is somebody else now");
    let mut client = world.by_name(&world.a).http(true).await;
    text(get(&mut client, "/api", &lasting).await).await;
    assert_eq!(world.a.last_seen().header("x-remote-user"), Some("new:jane"));
    let mut watch = watch(&lasting).await;
    accepts(&world, &world.a, 5, &[]);
    assert_eq!(piece(&mut watch.1).await, None, "the issuer is gone");
    drop(get(&mut client, "/api", &lasting).await);
    assert_eq!(world.a.last_seen().header("x-remote-user"), None);
}

/// An external API server is told by impersonation: there nobody impersonates anybody else by such a token.
#[tokio::test]
async fn an_external_backend_is_told_by_impersonation() {
    let (key, world) = (Key::ec(), World::start().await);
    let issuer = Issuer::start(&[&key]).await;
    let mut tenant = world.a.tenant(2, &world.a.client_ca, &world.clock);
    tenant.backend.assertion = Assertion::Impersonate;
    world.registry.put(&Arc::new(Tenant { issuers: issuers(&[issuer.entry()]), ..tenant }));
    let mut client = world.by_name(&world.a).http(true).await;
    let token = format!("Bearer {}", key.of(&issuer.claims("jane", now())));
    text(client.get_with("/api", &[("authorization", &token)]).await).await;
    assert_eq!(world.a.last_seen().header("impersonate-user"), Some("oidc:jane"));
    let before = world.a.api.seen().len();
    let headers = [("authorization", token.as_str()), ("impersonate-user", "root")];
    assert_eq!(status(client.get_with("/api", &headers).await).await, (403, "Forbidden".to_owned()));
    assert_eq!(world.a.api.seen().len(), before);
}

/// Whoever is outside takes no seat and no refresh from who is in use.
#[tokio::test]
async fn rubbish_makes_no_stranger_of_who_is_known() {
    let (key, forger, world) = (Key::ec(), Key::ec(), World::start().await);
    let issuer = Issuer::start(&[&key]).await;
    accepts(&world, &world.a, 2, &[issuer.entry()]);
    let good = key.of(&issuer.claims("jane", now()));
    let mut jane = world.by_name(&world.a).http(true).await;
    assert_eq!(text(get(&mut jane, "/api", &good).await).await, "alpha");
    let mut outsider = world.by_name(&world.a).http(true).await;
    let mut codes = std::collections::BTreeSet::new();
    for n in 0..400 {
        let token = forger.of(&issuer.claims(&format!("u{n}"), now()));
        codes.insert(get(&mut outsider, "/api", &token).await.status().as_u16());
    }
    assert!(codes.is_subset(&[401, 429].into()), "{codes:?}");
    assert_eq!(text(get(&mut jane, "/api", &good).await).await, "alpha");
    assert!(issuer.asked() <= 8, "{}", issuer.asked());
    let forged = world.metric("portico_gateway_jwt_judged_total", &world.a);
    assert!(forged >= 100.0, "{forged}");
}
