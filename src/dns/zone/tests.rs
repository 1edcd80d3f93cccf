//! What is kept, found and given back; bounds by counting, never by the clock.

use proptest::prelude::*;

use super::bounds::Refusal;
use super::*;
use crate::dns::testing::{empty_zone, endpoint, hostile_slice, ip, list_services, list_slices, port, service, slice};

fn zone() -> Zone {
    empty_zone("cluster.local.", Bounds::default())
}

fn cluster_ip(address: &str) -> Service {
    service(Target::ClusterIps(vec![ip(address)]), vec![port("http", "tcp", 80)])
}

#[test]
fn kubernetes_own_threshold_of_services_has_names() {
    let zone = zone();
    for i in 0..10_000_u32 {
        let (name, address) =
            (format!("service-of-some-name-{i}"), format!("10.{}.{}.{}", i >> 16, i >> 8 & 255, i & 255));
        zone.put_service(1, "a-namespace", &name, cluster_ip(&address)).expect("room");
        let endpoints = vec![endpoint(&address, None, true), endpoint("10.1.1.1", None, true)];
        let of = slice(&name, endpoints, vec![port("http", "tcp", 8080)]);
        zone.put_slice(1, "a-namespace", &format!("{name}-x7k2p"), of).expect("room");
    }
    assert!(zone.weight() < Bounds::default().weight * 4 / 5, "{}", zone.weight());
}

#[test]
fn a_tenant_fills_its_own_bound_and_no_more() {
    let bounds = Bounds { weight: 100_000, slices: 4, endpoints: 50 };
    let (zone, other) = (empty_zone("cluster.local.", bounds), empty_zone("cluster.local.", bounds));
    let mut refused = 0;
    for i in 0..10_000 {
        refused += usize::from(zone.put_service(1, "n", &format!("s{i}"), cluster_ip("10.0.0.1")).is_err());
        refused += usize::from(zone.put_slice(1, "n", &format!("e{i}"), hostile_slice("s", 10, 10)).is_err());
    }
    assert!(zone.weight() <= bounds.weight && refused > 19_000, "{} bytes, {refused} refused", zone.weight());
    assert!(zone.has_refused(Kind::Services) && zone.has_refused(Kind::Slices));
    assert_eq!(other.put_service(1, "n", "s", cluster_ip("10.0.0.1")), Ok(()));
    // Its API has its name all the same, and what goes makes room.
    assert!(zone.entry("default", "kubernetes").is_some());
    assert_eq!(zone.put_service(1, "m", "late", cluster_ip("10.0.0.1")), Err(Refusal::ZoneFull));
    for i in 0..10 {
        zone.remove_service("n", &format!("s{i}"));
    }
    assert_eq!(zone.put_service(1, "m", "late", cluster_ip("10.0.0.1")), Ok(()));
}

#[test]
fn a_service_has_bounds_of_its_own() {
    let bounds = Bounds { slices: 3, endpoints: 25, ..Bounds::default() };
    let zone = empty_zone("cluster.local.", bounds);
    zone.put_service(1, "n", "s", service(Target::Headless, vec![])).expect("room");
    for name in ["a", "b"] {
        zone.put_slice(1, "n", name, hostile_slice("s", 10, 1)).expect("room");
    }
    assert_eq!(zone.put_slice(1, "n", "c", hostile_slice("s", 10, 1)), Err(Refusal::ServiceFull));
    assert_eq!(zone.put_slice(1, "n", "c", hostile_slice("s", 5, 1)), Ok(()));
    assert_eq!(zone.put_slice(1, "n", "d", hostile_slice("s", 0, 1)), Err(Refusal::ServiceFull));
    assert_eq!(zone.put_slice(1, "n", "d", hostile_slice("other", 10, 1)), Ok(()));
    // One that grows beyond is not shown as it was before: those addresses may be others' by now.
    assert_eq!(zone.put_slice(1, "n", "a", hostile_slice("s", 20, 1)), Err(Refusal::ServiceFull));
    assert_eq!(zone.entry("n", "s").expect("known").endpoints(), 15);
    // One that moves to another Service counts there.
    assert_eq!(zone.put_slice(1, "n", "b", hostile_slice("other", 10, 1)), Ok(()));
    assert_eq!(zone.entry("n", "s").expect("known").endpoints(), 5);
}

#[test]
fn an_event_copies_nothing_of_its_neighbours() {
    let zone = zone();
    zone.put_service(1, "n", "s", service(Target::Headless, vec![])).expect("room");
    for name in ["a", "b"] {
        zone.put_slice(1, "n", name, hostile_slice("s", 100, 2)).expect("room");
    }
    let before = zone.entry("n", "s").expect("known");
    let serial = zone.serial();
    // The same again is no change; a pod that is not ready any more moves nothing in the index.
    zone.put_slice(1, "n", "a", hostile_slice("s", 100, 2)).expect("room");
    assert_eq!(zone.serial(), serial);
    let mut changed = hostile_slice("s", 100, 2);
    changed.endpoints[7].ready = false;
    zone.put_slice(1, "n", "a", changed).expect("room");
    let after = zone.entry("n", "s").expect("known");
    assert!(Arc::ptr_eq(&before.slices[1].1, &after.slices[1].1), "the other slice is shared");
    assert!(!Arc::ptr_eq(&before.slices[0].1, &after.slices[0].1));
    assert_eq!((before.shown(0).count(), after.shown(0).count()), (200, 199), "a snapshot stays as it was");
    assert_eq!(zone.endpoints_at(ip("10.9.0.7"), 10).len(), 1);
}

#[test]
fn addresses_are_found_by_address() {
    let zone = zone();
    zone.put_service(1, "n", "b", cluster_ip("10.0.0.9")).expect("room");
    zone.put_service(1, "n", "a", cluster_ip("10.0.0.9")).expect("room");
    assert_eq!(zone.service_at(ip("10.0.0.9")).map(|k| k.parts().1.to_owned()).as_deref(), Some("a"));
    zone.put_service(1, "n", "a", cluster_ip("10.0.0.8")).expect("room");
    assert_eq!(zone.service_at(ip("10.0.0.9")).map(|k| k.parts().1.to_owned()).as_deref(), Some("b"));
    zone.put_service(1, "n", "s", service(Target::Headless, vec![])).expect("room");
    let hosts = (0..1000).map(|i| endpoint("10.0.0.7", Some(&format!("h{i}")), true)).collect();
    zone.put_slice(1, "n", "e", slice("s", hosts, vec![])).expect("room");
    assert_eq!(zone.endpoints_at(ip("10.0.0.7"), 256).len(), 256);
    zone.remove_slice("n", "e");
    assert!(zone.endpoints_at(ip("10.0.0.7"), 256).is_empty());
}

#[test]
fn a_list_replaces_what_it_does_not_show() {
    let zone = zone();
    list_services(&zone, vec![("n", "a", cluster_ip("10.0.0.1")), ("n", "b", cluster_ip("10.0.0.2"))]);
    assert!(!zone.is_complete());
    list_slices(&zone, vec![("n", "x", hostile_slice("a", 3, 1))]);
    assert!(zone.is_complete());
    list_services(&zone, vec![("n", "b", cluster_ip("10.0.0.2")), ("m", "c", cluster_ip("10.0.0.3"))]);
    let has = |namespace: &str, name: &str| zone.entry(namespace, name).is_some_and(|e| e.service().is_some());
    assert!(!has("n", "a") && has("n", "b") && has("m", "c") && has("default", "kubernetes"));
    list_slices(&zone, vec![]);
    list_services(&zone, vec![]);
    assert!(!zone.has_services("n") && zone.has_services("default"));
}

#[test]
fn ports_are_found_by_name() {
    let ports: Ports = vec![port("b", "udp", 2), port("b", "tcp", 1), port("a", "udp", 3), port("b", "tcp", 9)].into();
    let numbers = |found: &[Port]| found.iter().map(|p| p.port).collect::<Vec<_>>();
    assert_eq!(numbers(ports.all()), [1, 3, 2]);
    assert_eq!(numbers(ports.named("tcp", "b")), [1]);
    assert!(ports.named("tcp", "a").is_empty() && ports.named("sctp", "b").is_empty());
    assert_eq!(["sctp", "tcp", "udp"].map(|p| ports.has_protocol(p)), [false, true, true]);
    assert!(!Ports::default().has_protocol("tcp"));
}

proptest! {
    /// Whatever comes and goes: when all is gone nothing is left, in no map and in no account.
    #[test]
    fn accounts_are_exact(events in proptest::collection::vec((0..3_u8, 0..4_u8, 0..3_u8, 0..30_u32), 1..60)) {
        let bounds = Bounds { weight: 20_000, slices: 2, endpoints: 40 };
        let zone = empty_zone("cluster.local.", bounds);
        let (empty, names) = (zone.weight(), |i: u8| format!("x{i}"));
        for (what, name, of, size) in events {
            match what {
                0 => {
                    let target = if of == 0 { Target::Headless } else { Target::ClusterIps(vec![ip("10.9.0.1")]) };
                    let _refused = zone.put_service(1, "n", &names(name), service(target, vec![port("p", "tcp", 1)]));
                }
                1 => {
                    let _refused = zone.put_slice(1, "n", &names(name), hostile_slice(&names(of), size, 2));
                }
                _ if size % 2 == 0 => zone.remove_service("n", &names(name)),
                _ => zone.remove_slice("n", &names(name)),
            }
            prop_assert!(zone.weight() <= bounds.weight);
        }
        for i in 0..4 {
            let names = names(i);
            if let Some(entry) = zone.entry("n", &names) {
                prop_assert!(entry.slices.len() <= 2 && entry.endpoints() <= 40);
                prop_assert_eq!(entry.endpoints(), entry.slices.iter().map(|(_, s)| s.endpoints.len()).sum::<usize>());
            }
            zone.remove_service("n", &names);
            zone.remove_slice("n", &names);
        }
        prop_assert_eq!(zone.weight(), empty);
        prop_assert!(!zone.has_services("n") && zone.service_at(ip("10.9.0.1")).is_none());
        prop_assert!(zone.content.read().is_empty_but_for(1), "{:?}", zone);
    }
}
