//! Keys of issuers over time: withdrawn, listed anew, and read in the form in which API servers have them.

use portico::config::GatewayConfig;

use super::*;

/// In force behind what was before, as the registry's source does it.
fn follows(world: &World, generation: u64, entries: &[Value], bounds: &JwtBounds) {
    let entries: Vec<_> =
        entries.iter().map(|entry| serde_json::from_value(entry.clone()).expect("an entry")).collect();
    let before = Arc::clone(&world.registry.load().by_id(&world.a.id()).expect("served").issuers);
    let issuers = Arc::new(Issuers::new(&entries, bounds, &before));
    assert!(issuers.faults().is_empty(), "{:?}", issuers.faults());
    let tenant = world.a.tenant(generation, &world.a.client_ca, &world.clock);
    world.registry.put(&Arc::new(Tenant { issuers, ..tenant }));
}

fn lasting(world: &World, issuer: &Issuer, key: &Key, user: &str) -> String {
    let now = world.clock.now().as_second();
    key.of(&but(issuer.claims(user, now), &json!({"exp": now + 90_000})))
}

async fn going() -> World {
    World::with(GatewayConfig::default(), Clock::going("2030-01-01T00:00:00Z".parse().expect("a time"), 1)).await
}

/// Nobody comes who is judged anew; what the issuer says counts all the same.
#[tokio::test]
async fn a_withdrawn_key_ends_though_only_those_who_are_known_ask() {
    let (old, new, world) = (Key::ec(), Key::ec(), going().await);
    let issuer = Issuer::start(&[&old]).await;
    follows(&world, 2, &[issuer.entry()], &bounds());
    let mut client = world.by_name(&world.a).http(true).await;
    let token = lasting(&world, &issuer, &old, "jane");
    assert_eq!(text(get(&mut client, "/api", &token).await).await, "alpha");
    *issuer.keys.lock() = vec![new.published()];
    let mut codes = Vec::new();
    for _ in 0..8 {
        pass(140).await;
        codes.push(get(&mut client, "/api", &token).await.status().as_u16());
        // The answer of the issuer counts for whoever comes next.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((codes.first(), codes.last()), (Some(&200), Some(&401)), "{codes:?}");
}

#[tokio::test]
async fn the_hour_of_grace_begins_when_the_issuer_is_down_and_not_before() {
    let (key, world) = (Key::ec(), going().await);
    let issuer = Issuer::start(&[&key]).await;
    follows(&world, 2, &[issuer.entry()], &bounds());
    let mut client = world.by_name(&world.a).http(true).await;
    let token = lasting(&world, &issuer, &key, "jane");
    for _ in 0..25 {
        assert_eq!(text(get(&mut client, "/api", &token).await).await, "alpha");
        tokio::time::sleep(Duration::from_millis(50)).await;
        pass(140).await;
    }
    issuer.answers(|_| Some(Answer::text(503, "down")));
    for _ in 0..3 {
        pass(140).await;
        assert_eq!(text(get(&mut client, "/api", &token).await).await, "alpha");
    }
}

/// In an emergency the entry is taken away, the issuer gets another key, and the entry comes back: nobody showed a token meanwhile, or
/// somebody one of another issuer.
#[tokio::test]
async fn an_entry_that_is_listed_anew_has_none_of_its_keys_of_before() {
    for is_alone in [true, false] {
        let (stolen, key, world) = (Key::ec(), Key::ec(), World::start().await);
        let (issuer, other) = (Issuer::start(&[&stolen]).await, Issuer::start(&[&key]).await);
        let (a, b) = (issuer.entry(), other.entry());
        let mut client = world.by_name(&world.a).http(true).await;
        let token = stolen.of(&issuer.claims("mallory", now()));
        follows(&world, 2, std::slice::from_ref(&a), &bounds());
        assert_eq!(text(get(&mut client, "/api", &token).await).await, "alpha");
        let asked = issuer.asked();
        follows(&world, 3, &[a.clone(), b.clone()], &bounds());
        assert_eq!(text(get(&mut client, "/api", &token).await).await, "alpha");
        assert_eq!(issuer.asked(), asked, "an entry that did not change keeps what is known of it");
        follows(&world, 4, if is_alone { &[] } else { std::slice::from_ref(&b) }, &bounds());
        if !is_alone {
            let of_other = key.of(&other.claims("jane", now()));
            assert_eq!(text(get(&mut client, "/api", &of_other).await).await, "alpha");
        }
        *issuer.keys.lock() = vec![key.published()];
        follows(&world, 5, &[a, b], &bounds());
        let good = key.of(&issuer.claims("jane", now()));
        assert_eq!(text(get(&mut client, "/api", &good).await).await, "alpha");
        assert_eq!(status(get(&mut client, "/api", &token).await).await, unauthorized());
    }
}

#[tokio::test]
async fn keys_are_asked_for_in_kubernetes_form_and_all_of_a_name_are_tried() {
    let (first, second, world) = (Key::ec(), Key::ec(), World::start().await);
    let issuer = Issuer::start(&[]).await;
    let unnamed = |key: &Key| {
        let mut published = key.published();
        published.as_object_mut().expect("an object").remove("kid");
        published
    };
    *issuer.keys.lock() = vec![unnamed(&first), unnamed(&second)];
    let mut by_email = issuer.entry();
    by_email["claimMappings"]["username"]["claim"] = "email".into();
    follows(&world, 2, &[by_email], &bounds());
    let mut client = world.by_name(&world.a).http(true).await;
    for key in [&first, &second] {
        let (mut head, mut claims) = (key.head(), issuer.claims("jane", now()));
        head.as_object_mut().expect("an object").remove("kid");
        // Who is known by another claim need have no `sub`.
        claims.as_object_mut().expect("an object").remove("sub");
        claims["email"] = "jane@example.com".into();
        assert_eq!(text(get(&mut client, "/api", &key.token(&head, &claims)).await).await, "alpha");
    }
    let accepts = |path: &str| {
        let seen = issuer.api.seen().into_iter().find(|seen| seen.path == path).expect("asked");
        seen.header("accept").expect("a form").to_owned()
    };
    assert!(accepts(KEYS).contains("application/jwk-set+json"), "{}", accepts(KEYS));
}

/// Its configuration is at a server that the admin allows, its keys at another one.
#[tokio::test]
async fn keys_at_a_server_that_is_not_allowed_are_not_asked_for() {
    let (key, world) = (Key::ec(), World::start().await);
    let (issuer, elsewhere) = (Issuer::start(&[&key]).await, Issuer::start(&[&key]).await);
    let (url, away) = (issuer.url(), format!("{}{KEYS}", elsewhere.url()));
    issuer
        .answers(move |path| (path == DISCOVERY).then(|| Answer::json(200, &json!({"issuer": url, "jwks_uri": away}))));
    let only = JwtBounds { allowed_issuers: vec![issuer.api.address.to_string()], ..bounds() };
    follows(&world, 2, &[issuer.entry()], &only);
    let mut client = world.by_name(&world.a).http(true).await;
    let token = key.of(&issuer.claims("jane", now()));
    assert_eq!(status(get(&mut client, "/api", &token).await).await, unauthorized());
    assert_eq!((issuer.asked(), elsewhere.asked()), (1, 0));
}
