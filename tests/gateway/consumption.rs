//! What a tenant used of its API: calls of those whom it knows, by namespace, and nothing of others.

use jiff::Timestamp;
use portico::consumption::{Hour, Rows};

use crate::support::fake::Answer;
use crate::world::{INVENTED, World, text};

type Seen = (String, String, u64, u64);

/// What was counted since the last time: tenant, namespace, calls, bytes.
fn counted(world: &World) -> Vec<Seen> {
    let mut rows = Rows::default();
    world.consumption.take(Hour::of(Timestamp::UNIX_EPOCH), &mut rows);
    let rows = rows.iter().map(|(tenant, _, within, amounts)| {
        (tenant.name().to_string(), within.to_string(), amounts.calls, amounts.call_bytes)
    });
    rows.collect()
}

/// An answer is counted when its last byte is written, which is after its reader has it.
async fn becomes(world: &World, expected: &[(&str, &str, u64, u64)]) {
    let (mut sums, mut tries) = (std::collections::BTreeMap::<(String, String), (u64, u64)>::new(), 0);
    loop {
        for (tenant, within, calls, bytes) in counted(world) {
            let sum = sums.entry((tenant, within)).or_default();
            *sum = (sum.0 + calls, sum.1 + bytes);
        }
        let seen: Vec<_> = sums.iter().map(|((a, b), (c, d))| (a.as_str(), b.as_str(), *c, *d)).collect();
        if seen == expected {
            return;
        }
        tries += 1;
        assert!(tries < 2000, "{seen:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn calls_are_counted_by_namespace_and_only_of_those_who_are_known() {
    let world = World::start().await;
    let mut jane = world.by_name(&world.a).user(world.a.user("jane")).http(true).await;
    for path in ["/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/pods/x", "/api/v1/nodes", "/version"] {
        text(jane.get(path).await).await;
    }
    world.a.answer(Answer::text(200, &"x".repeat(200_000)));
    text(jane.get("/api/v1/namespaces/other/pods").await).await;
    let mut stranger = world.by_name(&world.a).http(false).await;
    let refused = stranger.get_with("/api/v1/namespaces/default/pods", &[("authorization", INVENTED)]).await;
    assert_eq!(refused.status(), 401);
    text(refused).await;
    text(stranger.get("/healthz").await).await;
    let mut of_b = world.by_name(&world.b).user(world.b.user("kim")).http(true).await;
    // The names that a hostile tenant invents are its own rows, and few.
    for n in 0..200 {
        text(of_b.get(&format!("/api/v1/namespaces/invented-{n}/pods")).await).await;
    }
    let mut expected = vec![("alpha", "-", 2, 10), ("alpha", "default", 2, 10), ("alpha", "other", 1, 200_000)];
    let names: Vec<String> = (0..128).map(|n| format!("invented-{n}")).collect();
    let mut of_b: Vec<_> = names.iter().map(|name| ("beta", name.as_str(), 1, 4)).collect();
    of_b.push(("beta", "*", 72, 72 * 4));
    of_b.sort_by_key(|row| row.1);
    expected.extend(of_b);
    becomes(&world, &expected).await;
}
