//! Chains of client certificates that are made to cost time: judged with bounded work, refused, and nobody else notices.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::pki::{Pair, Pki};
use crate::world::{Dial, PATIENCE, World, text};

/// Longer than any path that is followed.
const DEEP: usize = 20;
/// As many as fit a handshake.
const FITTING: usize = 80;
const THOUSANDS: usize = 2000;

/// The code of an answer to a request with this certificate; none when there was no connection.
async fn asked(dial: Dial) -> Option<u16> {
    let mut tls = tokio::time::timeout(PATIENCE, dial.try_tls(b"http/1.1")).await.expect("in time").ok()?;
    let request = b"GET /api HTTP/1.1\r\nHost: alpha.example.com\r\nConnection: close\r\n\r\n";
    tls.write_all(request).await.ok()?;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, tls.read_to_end(&mut answer)).await.expect("in time");
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

/// A leaf with what is sent behind it.
fn with(leaf: Pair, others: &[String]) -> Pair {
    Pair { certificate: leaf.certificate + &others.concat(), key: leaf.key }
}

/// From the root to the leaf by so many CAs.
fn deep(root: &Pki, length: usize) -> Pair {
    let (mut chain, mut last) = (Vec::new(), None);
    for n in 0..length {
        let next = Pki::new(&format!("intermediate {n}"));
        chain.insert(0, next.signed_by(last.as_ref().unwrap_or(root)));
        last = Some(next);
    }
    with(last.as_ref().unwrap_or(root).client("mallory", &["devs"]), &chain)
}

/// RUSTSEC-2023-0052 and its kin.
#[tokio::test]
async fn chains_that_cost_time_are_refused_and_the_neighbour_is_served() {
    let world = World::start().await;
    let mut neighbour = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    let (x, y) = (Pki::new("x"), Pki::new("y"));
    // All of one name, so that each could have signed each; of another root, or of none.
    let alike: Vec<_> = (0..FITTING).map(|_| Pki::new("client CA")).collect();
    let alike: Vec<_> = alike.windows(2).map(|pair| pair[0].signed_by(&pair[1])).collect();
    let thousands = vec![x.ca_pem().to_owned(); THOUSANDS];
    let cases = [
        ("deep", deep(&world.a.client_ca, DEEP), Some(401)),
        ("cyclic", with(x.client("mallory", &[]), &[x.signed_by(&y), y.signed_by(&x)]), Some(401)),
        ("alike", with(Pki::new("client CA").client("mallory", &[]), &alike), Some(401)),
        ("thousands", with(world.a.user("mallory"), &thousands), None),
        ("long", Pki::new("client CA").large_client("mallory", 800), Some(401)),
        ("huge", with(world.a.user("mallory"), &[x.large_client("x", 20_000).certificate]), None),
        ("of a neighbour's intermediate", deep(&world.b.client_ca, 1), Some(401)),
        ("of an own intermediate", deep(&world.a.client_ca, 1), Some(200)),
    ];
    for (what, user, code) in cases {
        let before = world.a.api.seen().len();
        assert_eq!(asked(world.by_name(&world.a).user(user)).await, code, "{what}");
        assert_eq!(world.a.api.seen().len() - before, usize::from(code == Some(200)), "{what}");
        assert_eq!(text(neighbour.get("/api").await).await, "beta", "{what}");
    }
}
