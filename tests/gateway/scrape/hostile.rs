//! Scrapers and tenants who leave early, ask for much, or were somebody else a moment ago.

use futures::future::join_all;

use super::*;

const SOURCES: [[u8; 4]; 3] = [[127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]];

async fn on(config: GatewayConfig, host: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> (World, FakeApi) {
    let host = FakeApi::start(move |seen| std::future::ready(host(&seen))).await;
    let world = World::on_host(config, Clock::system(), Some(&host)).await;
    for cluster in [&world.a, &world.b] {
        shows(cluster, |_| Answer::text(200, BODY));
    }
    (world, host)
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
