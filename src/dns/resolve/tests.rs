//! The specification's examples and the borders of what a tenant may ask.

mod bounds;

use proptest::collection;
use proptest::prelude::{any, prop_compose};
use proptest::sample::select;

use super::record::{TTL, address_data};
use super::*;
use crate::dns::testing::{
    empty_zone, endpoint, hostile_slice, ip, list_services, list_slices, name, port, service, slice,
};
use crate::dns::zone::{Bounds, Service, Target};

/// What a message over TCP has, and over UDP.
const ROOM: usize = 65_535;
/// No record is shorter than an address under a compressed name.
const MOST_RECORDS: usize = ROOM / 16;
/// What a question may cost, in records made: all endpoints of a Service, pairs, and what fits a message.
const MOST_WORK: usize = 20_000;

fn external(to: &str) -> Service {
    service(Target::External(to.into()), vec![])
}

fn zone() -> Zone {
    let zone = empty_zone("cluster.local.", Bounds::default());
    let web = service(
        Target::ClusterIps(vec![ip("10.96.1.1"), ip("fd00::1:1")]),
        vec![port("http", "tcp", 80), port("quic", "udp", 443)],
    );
    let db = service(Target::Headless, vec![port("sql", "tcp", 5432)]);
    let starting = Service { publish_not_ready: true, ..service(Target::Headless, vec![]) };
    list_services(
        &zone,
        vec![
            ("shop", "web", web),
            ("shop", "db", db),
            ("shop", "starting", starting),
            ("shop", "empty", service(Target::Headless, vec![])),
            ("shop", "pending", service(Target::ClusterIps(vec![]), vec![])),
            ("shop", "out", external("Db.Example.com")),
            ("shop", "in", external("web.shop.svc.cluster.local")),
            ("shop", "gone", external("nope.shop.svc.cluster.local")),
            ("shop", "ring", external("ring.shop.svc.cluster.local")),
        ],
    );
    list_slices(
        &zone,
        vec![
            (
                "shop",
                "db-1",
                slice(
                    "db",
                    vec![
                        endpoint("10.0.0.1", Some("db-0"), true),
                        endpoint("10.0.0.2", None, true),
                        endpoint("10.0.0.3", Some("db-2"), false),
                    ],
                    vec![port("sql", "tcp", 5432)],
                ),
            ),
            ("shop", "db-2", slice("db", vec![endpoint("fd00::2", None, true)], vec![port("sql", "tcp", 5433)])),
            ("shop", "starting-1", slice("starting", vec![endpoint("10.0.0.9", None, false)], vec![])),
            ("shop", "web-1", slice("web", vec![endpoint("10.0.0.7", Some("w0"), true)], vec![])),
        ],
    );
    zone
}

fn ask(zone: &Zone, asked: &str, kind: RecordType) -> Outcome {
    within(zone, asked, kind, ROOM).0
}

fn within(zone: &Zone, asked: &str, kind: RecordType, room: usize) -> (Outcome, usize) {
    resolve(zone, &Asked { name: &name(asked), kind, room, turn: 0 }, &[name("cluster.corp.")])
}

/// The answer section as sorted `type data` lines.
fn lines(asked: &str, kind: RecordType) -> Vec<String> {
    match ask(&zone(), asked, kind) {
        Outcome::Found { answers, .. } => {
            let mut lines: Vec<_> = answers.iter().map(|r| format!("{} {}", r.record_type(), r.data)).collect();
            lines.sort();
            assert!(answers.iter().all(|r| r.ttl == TTL));
            lines
        }
        other => panic!("{asked} {kind}: {other:?}"),
    }
}

use RecordType::{
    A, AAAA, ANY, CNAME as ALIAS, NS as SERVERS, PTR as POINTER, SOA as START, SRV as SERVICES, TXT as TEXT,
};

#[test]
fn services_with_cluster_ips() {
    assert_eq!(lines("web.shop.svc.cluster.local.", A), ["A 10.96.1.1"]);
    assert_eq!(lines("WEB.Shop.SVC.Cluster.Local.", A), ["A 10.96.1.1"]);
    assert_eq!(lines("web.shop.svc.cluster.local.", AAAA), ["AAAA fd00::1:1"]);
    assert_eq!(lines("web.shop.svc.cluster.local.", ANY), ["A 10.96.1.1", "AAAA fd00::1:1"]);
    assert_eq!(lines("kubernetes.default.svc.cluster.local.", A), ["A 10.96.0.1"]);
    assert_eq!(
        lines("_https._tcp.kubernetes.default.svc.cluster.local.", SERVICES),
        ["SRV 0 100 443 kubernetes.default.svc.cluster.local."]
    );
    assert_eq!(lines("_http._tcp.web.shop.svc.cluster.local.", SERVICES), ["SRV 0 100 80 web.shop.svc.cluster.local."]);
    assert_eq!(lines("web.shop.svc.cluster.local.", SERVICES).len(), 2);
    // An endpoint's own name below an ordinary Service.
    assert_eq!(lines("w0.web.shop.svc.cluster.local.", A), ["A 10.0.0.7"]);
}

#[test]
fn headless_services() {
    assert_eq!(lines("db.shop.svc.cluster.local.", A), ["A 10.0.0.1", "A 10.0.0.2"]);
    assert_eq!(lines("db.shop.svc.cluster.local.", AAAA), ["AAAA fd00::2"]);
    assert_eq!(lines("db-0.db.shop.svc.cluster.local.", A), ["A 10.0.0.1"]);
    assert_eq!(lines("10-0-0-2.db.shop.svc.cluster.local.", A), ["A 10.0.0.2"]);
    assert_eq!(lines("fd00--2.db.shop.svc.cluster.local.", AAAA), ["AAAA fd00::2"]);
    assert_eq!(
        lines("_sql._tcp.db.shop.svc.cluster.local.", SERVICES),
        [
            "SRV 0 100 5432 10-0-0-2.db.shop.svc.cluster.local.",
            "SRV 0 100 5432 db-0.db.shop.svc.cluster.local.",
            "SRV 0 100 5433 fd00--2.db.shop.svc.cluster.local.",
        ]
    );
    let Outcome::Found { additionals, .. } = ask(&zone(), "_sql._tcp.db.shop.svc.cluster.local.", SERVICES) else {
        panic!("found")
    };
    assert_eq!(additionals.len(), 3);
    // Not ready, and published all the same.
    assert_eq!(lines("starting.shop.svc.cluster.local.", A), ["A 10.0.0.9"]);
}

#[test]
fn what_exists_without_records_is_no_data() {
    for (asked, kind) in [
        ("cluster.local.", A),
        ("svc.cluster.local.", A),
        ("pod.cluster.local.", A),
        ("shop.svc.cluster.local.", A),
        ("anything.pod.cluster.local.", A),
        ("web.shop.svc.cluster.local.", TEXT),
        ("empty.shop.svc.cluster.local.", A),
        ("empty.shop.svc.cluster.local.", SERVICES),
        ("pending.shop.svc.cluster.local.", A),
        ("_tcp.web.shop.svc.cluster.local.", A),
        ("_http._tcp.web.shop.svc.cluster.local.", A),
        ("db-0.db.shop.svc.cluster.local.", AAAA),
        ("10-0-0-1.shop.pod.cluster.local.", AAAA),
        ("1.1.96.10.in-addr.arpa.", A),
    ] {
        assert_eq!(ask(&zone(), asked, kind), Outcome::NoData, "{asked} {kind}");
    }
}

#[test]
fn what_does_not_exist_is_no_name() {
    for asked in [
        "nope.cluster.local.",
        "nope.svc.cluster.local.",
        "nope.shop.svc.cluster.local.",
        "google.com.shop.svc.cluster.local.",
        "db-2.db.shop.svc.cluster.local.",
        "nope.db.shop.svc.cluster.local.",
        "x.out.shop.svc.cluster.local.",
        "_sctp.web.shop.svc.cluster.local.",
        "_http._udp.web.shop.svc.cluster.local.",
        "http.tcp.web.shop.svc.cluster.local.",
        "nonsense.shop.pod.cluster.local.",
        "999-0-0-1.shop.pod.cluster.local.",
    ] {
        assert_eq!(ask(&zone(), asked, A), Outcome::NoName, "{asked}");
    }
}

#[test]
fn pods_version_and_apex() {
    assert_eq!(lines("10-1-2-3.any.pod.cluster.local.", A), ["A 10.1.2.3"]);
    assert_eq!(lines("2001-db8--1.any.pod.cluster.local.", AAAA), ["AAAA 2001:db8::1"]);
    assert_eq!(lines("dns-version.cluster.local.", TEXT), ["TXT 1.1.0"]);
    assert_eq!(lines("cluster.local.", SERVERS), ["NS ns.dns.cluster.local."]);
    assert_eq!(lines("ns.dns.cluster.local.", A), ["A 10.96.0.53"]);
    assert_eq!(lines("cluster.local.", START).len(), 1);
}

#[test]
fn pointers() {
    assert_eq!(lines("1.1.96.10.in-addr.arpa.", POINTER), ["PTR web.shop.svc.cluster.local."]);
    assert_eq!(lines("1.0.96.10.in-addr.arpa.", POINTER), ["PTR kubernetes.default.svc.cluster.local."]);
    assert_eq!(lines("1.0.0.10.in-addr.arpa.", POINTER), ["PTR db-0.db.shop.svc.cluster.local."]);
    assert_eq!(lines("2.0.0.10.in-addr.arpa.", POINTER), ["PTR 10-0-0-2.db.shop.svc.cluster.local."]);
    let v6 = "1.0.0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    assert_eq!(lines(v6, POINTER), ["PTR web.shop.svc.cluster.local."]);
    // Endpoints of ordinary Services have no pointer, and an unready endpoint has none.
    assert_eq!(ask(&zone(), "7.0.0.10.in-addr.arpa.", POINTER), Outcome::NoName);
    assert_eq!(ask(&zone(), "3.0.0.10.in-addr.arpa.", POINTER), Outcome::NoName);
}

#[test]
fn private_reverse_names_and_host_names_never_leave() {
    for asked in [
        "9.9.9.10.in-addr.arpa.",
        "9.10.in-addr.arpa.",
        "168.192.in-addr.arpa.",
        "192.in-addr.arpa.",
        "1.0.64.100.in-addr.arpa.",
        "254.169.254.169.in-addr.arpa.",
        "d.f.ip6.arpa.",
        "in-addr.arpa.",
        "x.shop.svc.cluster.corp.",
        "cluster.corp.",
    ] {
        assert_eq!(ask(&zone(), asked, POINTER), Outcome::NoName, "{asked}");
    }
    for asked in ["8.8.8.8.in-addr.arpa.", "example.com.", "mycluster.local.", "local.", "."] {
        assert_eq!(ask(&zone(), asked, POINTER), Outcome::Outside, "{asked}");
    }
    // The tenant's domain is another: the host's usual one stays closed.
    let other = empty_zone("tenant.test.", Bounds::default());
    list_services(&other, vec![]);
    list_slices(&other, vec![]);
    assert_eq!(ask(&other, "web.shop.svc.cluster.local.", A), Outcome::NoName);
}

#[test]
fn aliases() {
    let Outcome::Alias { chain, target } = ask(&zone(), "out.shop.svc.cluster.local.", A) else { panic!("alias") };
    assert_eq!((chain.len(), target), (1, name("db.example.com.")));
    assert_eq!(lines("out.shop.svc.cluster.local.", ALIAS), ["CNAME db.example.com."]);
    assert_eq!(lines("in.shop.svc.cluster.local.", A), ["A 10.96.1.1", "CNAME web.shop.svc.cluster.local."]);
    assert_eq!(lines("gone.shop.svc.cluster.local.", A), ["CNAME nope.shop.svc.cluster.local."]);
    assert_eq!(lines("ring.shop.svc.cluster.local.", A).len(), LONGEST_CHAIN);
}

#[test]
fn nothing_is_said_before_both_lists_are_complete() {
    let young = empty_zone("cluster.local.", Bounds::default());
    assert_eq!(ask(&young, "web.shop.svc.cluster.local.", A), Outcome::NotYet);
    assert_eq!(ask(&young, "1.1.96.10.in-addr.arpa.", POINTER), Outcome::NotYet);
    assert_eq!(ask(&young, "example.com.", A), Outcome::Outside);
    list_services(&young, vec![]);
    assert_eq!(ask(&young, "web.shop.svc.cluster.local.", A), Outcome::NotYet);
    list_slices(&young, vec![]);
    assert_eq!(ask(&young, "web.shop.svc.cluster.local.", A), Outcome::NoName);
}

#[test]
fn the_zone_follows_its_events() {
    let zone = zone();
    let before = zone.serial();
    zone.remove_service("shop", "web");
    assert_eq!(ask(&zone, "web.shop.svc.cluster.local.", A), Outcome::NoName);
    zone.put_slice(9, "shop", "db-1", slice("db", vec![], vec![])).expect("room");
    assert_eq!(ask(&zone, "db-0.db.shop.svc.cluster.local.", A), Outcome::NoName);
    zone.remove_slice("shop", "db-2");
    assert_eq!(ask(&zone, "db.shop.svc.cluster.local.", AAAA), Outcome::NoData);
    // A tenant cannot move or remove the API's own name.
    let stolen = service(Target::ClusterIps(vec![ip("10.6.6.6")]), vec![]);
    zone.put_service(9, "default", "kubernetes", stolen).expect("room");
    zone.remove_service("default", "kubernetes");
    let Outcome::Found { answers, .. } = ask(&zone, "kubernetes.default.svc.cluster.local.", A) else {
        panic!("found")
    };
    assert_eq!(answers[0].data, address_data(ip("10.96.0.1")));
    assert!(zone.serial() > before);
}

#[test]
fn every_endpoint_has_its_turn_to_be_first() {
    let zone = zone();
    zone.put_slice(9, "shop", "empty-1", hostile_slice("empty", 300, 1)).expect("room");
    zone.put_slice(9, "shop", "empty-2", slice("empty", vec![endpoint("10.8.0.1", None, true)], vec![])).expect("room");
    let asked = name("empty.shop.svc.cluster.local.");
    let first = |turn| match resolve(&zone, &Asked { name: &asked, kind: A, room: 512, turn }, &[]).0 {
        Outcome::Found { answers, .. } => answers[0].data.clone(),
        other => panic!("{other:?}"),
    };
    let seen: std::collections::HashSet<_> = (0..602).map(first).collect();
    assert_eq!(seen.len(), 301);
}

#[test]
fn labels_of_addresses_are_read_as_they_are_written() {
    for address in ["10.0.0.1", "fd00::2", "::1", "2001:db8::1:2", "::ffff:10.0.0.1", "::"] {
        let zone = zone();
        zone.put_slice(9, "shop", "empty-1", slice("empty", vec![endpoint(address, None, true)], vec![]))
            .expect("room");
        let label = address.replace(['.', ':'], "-");
        let asked = below(&[&label, "empty", "shop", "svc"], &name("cluster.local.")).expect("name");
        let question = Asked { name: &asked, kind: ANY, room: ROOM, turn: 0 };
        let Outcome::Found { answers, .. } = resolve(&zone, &question, &[]).0 else { panic!("{asked}") };
        assert_eq!(answers[0].data, address_data(ip(address)));
    }
    let zone = zone();
    zone.put_slice(9, "shop", "empty-1", slice("empty", vec![endpoint("fd00::2", None, true)], vec![])).expect("room");
    assert_eq!(ask(&zone, "fd00-0-0-0-0-0-0-2.empty.shop.svc.cluster.local.", AAAA), Outcome::NoName);
}

proptest::proptest! {
    #[test]
    fn any_name_is_survived_and_the_zone_never_leaks(labels in proptest::collection::vec("[a-z0-9_.:-]{1,20}", 0..6)) {
        let labels = labels.iter().map(|l| l.as_bytes()).chain(["cluster".as_bytes(), b"local"]);
        let asked = Name::from_labels(labels).expect("labels");
        for kind in [A, AAAA, SERVICES, POINTER, ANY] {
            let question = Asked { name: &asked, kind, room: ROOM, turn: 7 };
            let (outcome, _) = resolve(&zone(), &question, &[]);
            proptest::prop_assert!(!matches!(outcome, Outcome::Outside), "{} {}", asked, kind);
        }
    }

    #[test]
    fn no_zone_makes_an_answer_beyond_its_bounds(zone in any_zone(), turn in proptest::num::u64::ANY) {
        for asked in QUESTIONS {
            for kind in [A, AAAA, SERVICES, POINTER, ANY, ALIAS] {
                for room in [512, 1232, ROOM] {
                    let question = Asked { name: &name(asked), kind, room, turn };
                    let (outcome, work) = resolve(&zone, &question, &[]);
                    let records = match outcome {
                        Outcome::Found { answers, additionals } => answers.len() + additionals.len(),
                        Outcome::Alias { chain, .. } => chain.len(),
                        _ => 0,
                    };
                    let most = MOST_RECORDS.min(room / 14) + LONGEST_CHAIN;
                    proptest::prop_assert!(records <= most, "{} {}: {} records in {}", asked, kind, records, room);
                    proptest::prop_assert!(work <= MOST_WORK, "{} {}: work {}", asked, kind, work);
                }
            }
        }
    }
}

/// Names that [`any_zone`] may have.
const QUESTIONS: [&str; 9] = [
    "a.n.svc.cluster.local.",
    "b.n.svc.cluster.local.",
    "_p1._tcp.a.n.svc.cluster.local.",
    "_tcp.a.n.svc.cluster.local.",
    "h.a.n.svc.cluster.local.",
    "10-9-0-1.a.n.svc.cluster.local.",
    "1.0.9.10.in-addr.arpa.",
    "n.svc.cluster.local.",
    "cluster.local.",
];

prop_compose! {
    /// Few names, so that they meet: Services of all kinds, and slices of all sizes that repeat each other or not.
    fn any_zone()(
        services in collection::vec((select(vec!["a", "b", "c"]), 0..4_u8, 0..50_u16), 0..6),
        slices in collection::vec((select(vec!["a", "b", "c"]), 0..400_u32, 0..300_u16, any::<bool>()), 0..6),
    ) -> Zone {
        let zone = empty_zone("cluster.local.", Bounds::default());
        let ports = |count: u16| (0..count).map(|i| port(&format!("p{i}"), "tcp", i)).collect::<Vec<_>>();
        for (to, kind, count) in services {
            let target = match kind {
                0 => Target::Headless,
                1 => Target::External(format!("{to}.n.svc.cluster.local").into()),
                2 => Target::External("b.n.svc.cluster.local".into()),
                _ => Target::ClusterIps(vec![ip("10.9.0.1")]),
            };
            zone.put_service(1, "n", to, service(target, ports(count))).expect("room");
        }
        for (i, (of, endpoints, count, is_named)) in slices.into_iter().enumerate() {
            let mut slice = hostile_slice(of, endpoints, count);
            if is_named {
                slice.endpoints.iter_mut().for_each(|e| e.hostname = Some("h".into()));
            }
            zone.put_slice(1, "n", &format!("s{i}"), slice).expect("room");
        }
        zone.listed(crate::dns::zone::Kind::Services);
        zone.listed(crate::dns::zone::Kind::Slices);
        zone
    }
}
