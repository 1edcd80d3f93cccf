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

fn show(listing: &Listing<'_, Service>, json: &[u8]) {
    put::<Service>(listing.zone, listing.number, json);
}

fn has(zone: &Zone, name: &str) -> bool {
    zone.entry("n", name).is_some()
}

#[tokio::test]
async fn a_list_goes_into_the_zone_as_it_is_read_and_takes_out_the_rest_at_its_end() {
    let zone = empty_zone("cluster.local.", Bounds::default());
    let first = Listing::<Service>::begin(&zone);
    for name in ["old", "kept"] {
        show(&first, &service(name));
    }
    first.end().await;
    let second = Listing::<Service>::begin(&zone);
    for name in ["new", "kept"] {
        show(&second, &service(name));
    }
    // What cannot be read, or has no name of DNS, is passed over.
    show(&second, b"{");
    show(&second, &service("a/b"));
    assert!(has(&zone, "old") && has(&zone, "new"), "nothing goes before the list is complete");
    second.end().await;
    assert!(!has(&zone, "old") && has(&zone, "new") && has(&zone, "kept") && !has(&zone, "a/b"));
}

#[tokio::test]
async fn a_list_beyond_the_zones_bound_is_remembered_as_such() {
    let zone = empty_zone("cluster.local.", Bounds { weight: 5000, ..Bounds::default() });
    let listing = Listing::<Service>::begin(&zone);
    for i in 0..100 {
        show(&listing, &service(&format!("s{i}")));
    }
    listing.end().await;
    assert!(zone.has_refused(zone::Kind::Services) && zone.weight() <= 5000);
    show(&Listing::begin(&zone), &service("s1"));
    assert!(!zone.has_refused(zone::Kind::Services), "a new list, a new judgement");
}
