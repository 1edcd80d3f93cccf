//! exec by the token of an issuer: who is asked for, what the host is told, and when it ends.

use std::sync::Arc;

use portico::config::JwtBounds;
use portico::issuers::Issuers;
use portico::runtime::clock::Clock;
use portico::tenant::Tenant;
use serde_json::json;

use crate::support::fake::{Answer, FakeApi};
use crate::support::tokens::Key;
use crate::world::{World, echoing, websocket};

/// Its server, with the key that it publishes.
async fn issuer(key: &Key) -> FakeApi {
    let (keys, at) = (json!({"keys": [key.published()]}), Arc::<std::sync::OnceLock<String>>::default());
    let url = Arc::clone(&at);
    let api = FakeApi::start(move |seen| {
        let url = url.get().cloned().unwrap_or_default();
        let answer = match seen.path.as_str() {
            "/keys" => Answer::json(200, &keys),
            _ => Answer::json(200, &json!({"issuer": url, "jwks_uri": format!("{url}/keys")})),
        };
        async move { answer }
    })
    .await;
    at.set(format!("https://{}", api.address)).expect("once");
    api
}

#[tokio::test]
async fn an_exec_is_the_users_and_ends_when_his_issuer_goes() {
    let (key, world) = (Key::ec(), World::start(echoing).await);
    let issuer = issuer(&key).await;
    let url = format!("https://{}", issuer.address);
    let entry = serde_json::from_value(json!({
        "issuer": {"url": url, "audiences": ["portico"], "certificateAuthority": issuer.pki.ca_pem()},
        "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
    }));
    let own = "127.0.0.1/32".parse().expect("a network");
    let bounds =
        JwtBounds { allowed_issuers: vec!["*".to_owned()], allowed_addresses: vec![own], allow_system_names: false };
    let issuers = Issuers::new(&[entry.expect("an entry")], &bounds, &Issuers::default());
    assert!(issuers.faults().is_empty(), "{:?}", issuers.faults());
    let clock = Clock::system();
    let with = |generation, issuers| {
        world.registry.put(&Arc::new(Tenant { issuers: Arc::new(issuers), ..world.a.tenant(generation, &clock) }));
    };
    with(2, issuers);
    world.pod(&world.a, "web");
    let now = clock.now().as_second();
    let token = key.of(&json!({"iss": url, "sub": "jane", "aud": "portico", "exp": now + 600}));
    let request = format!("{}\nauthorization: Bearer {token}", websocket("web"));
    let mut wire = world.connect(&world.a, None).await;
    wire.send(&request, &world.a).await;
    let head = wire.head().await;
    assert_eq!(head.code, 101, "{head:?}");
    let reviews = world.a.api.seen().into_iter().filter(|seen| seen.path.ends_with("/selfsubjectaccessreviews"));
    let asked: Vec<_> = reviews.map(|seen| seen.header("x-remote-user").map(str::to_owned)).collect();
    assert!(!asked.is_empty() && asked.iter().all(|user| user.as_deref() == Some("jane")), "{asked:?}");
    let told = world.streams().remove(0);
    assert_eq!(told.header("authorization"), None);
    assert!(told.header("user-agent").is_some_and(|agent| agent.contains("; jane)")), "{told:?}");
    wire.write(b"still").await;
    assert_eq!(wire.read(5).await, b"still");
    with(3, Issuers::default());
    wire.rest().await;
    // And the neighbour never knew him.
    world.pod(&world.b, "web");
    let before = world.streams().len();
    let mut other = world.connect(&world.b, None).await;
    other.send(&request, &world.b).await;
    assert_ne!(other.head().await.code, 101);
    assert_eq!(world.streams().len(), before);
}
