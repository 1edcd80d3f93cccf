//! Lists as they are read; the network is in `tests/dns`.

use serde_json::json;

use super::*;
use crate::dns::testing::empty_zone;
use crate::dns::zone::Bounds;

fn service(name: &str) -> Vec<u8> {
    json!({"metadata": {"namespace": "n", "name": name, "resourceVersion": "7"}, "spec": {"clusterIP": "10.0.0.1"}})
        .to_string()
        .into_bytes()
}

fn has(zone: &Zone, name: &str) -> bool {
    zone.entry("n", name).is_some()
}

#[tokio::test]
async fn a_list_goes_into_the_zone_as_it_is_read_and_takes_out_the_rest_at_its_end() {
    let zone = empty_zone("cluster.local.", Bounds::default());
    let mut first = Listing::<Service>::begin(&zone);
    for name in ["old", "kept"] {
        first.show(&service(name)).await.expect("shown");
    }
    first.end().await;
    let mut second = Listing::<Service>::begin(&zone);
    for name in ["new", "kept"] {
        second.show(&service(name)).await.expect("shown");
    }
    second.show(b"{").await.expect("one that cannot be read is passed over");
    second.show(&service("a/b")).await.expect("one without a name of DNS is passed over");
    assert!(has(&zone, "old") && has(&zone, "new"), "nothing goes before the list is complete");
    second.end().await;
    assert!(!has(&zone, "old") && has(&zone, "new") && has(&zone, "kept") && !has(&zone, "a/b"));
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let zone = empty_zone("cluster.local.", Bounds::default());
    let mut listing = Listing::<Service> { shown: LONGEST_LIST - 1, ..Listing::begin(&zone) };
    listing.show(&service("last")).await.expect("shown");
    let error = listing.show(&service("more")).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::TooLarge);
}

#[tokio::test]
async fn a_list_beyond_the_zones_bound_is_remembered_as_such() {
    let zone = empty_zone("cluster.local.", Bounds { weight: 5000, ..Bounds::default() });
    let mut listing = Listing::<Service>::begin(&zone);
    for i in 0..100 {
        listing.show(&service(&format!("s{i}"))).await.expect("read all the same");
    }
    listing.end().await;
    assert!(zone.has_refused(zone::Kind::Services) && zone.weight() <= 5000);
    Listing::<Service>::begin(&zone).show(&service("s1")).await.expect("shown");
    assert!(!zone.has_refused(zone::Kind::Services), "a new list, a new judgement");
}
