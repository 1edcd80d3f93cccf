//! The specification's examples and the borders of what a tenant may ask.

use super::*;
use crate::dns::zone::{Origin, Slice};

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("name")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("ip")
}

fn port(name: &str, protocol: &'static str, port: u16) -> Port {
    Port { name: name.into(), protocol, port }
}

fn endpoint(address: &str, hostname: Option<&str>, ready: bool) -> Endpoint {
    Endpoint { address: ip(address), hostname: hostname.map(Into::into), ready }
}

fn service(target: Target, ports: Vec<Port>) -> Service {
    Service { target, ports, publish_not_ready: false }
}

fn external(to: &str) -> Service {
    service(Target::External(to.into()), vec![])
}

fn zone() -> Zone {
    let origin = Origin { domain: name("cluster.local."), api: ip("10.96.0.1"), dns: ip("10.96.0.53") };
    let mut zone = Zone::new(origin);
    let web = service(
        Target::ClusterIps(vec![ip("10.96.1.1"), ip("fd00::1:1")]),
        vec![port("http", "tcp", 80), port("quic", "udp", 443)],
    );
    let db = service(Target::Headless, vec![port("sql", "tcp", 5432)]);
    let starting = Service { publish_not_ready: true, ..service(Target::Headless, vec![]) };
    zone.replace_services(vec![
        ("shop".into(), "web".into(), web),
        ("shop".into(), "db".into(), db),
        ("shop".into(), "starting".into(), starting),
        ("shop".into(), "empty".into(), service(Target::Headless, vec![])),
        ("shop".into(), "pending".into(), service(Target::ClusterIps(vec![]), vec![])),
        ("shop".into(), "out".into(), external("Db.Example.com")),
        ("shop".into(), "in".into(), external("web.shop.svc.cluster.local")),
        ("shop".into(), "gone".into(), external("nope.shop.svc.cluster.local")),
        ("shop".into(), "ring".into(), external("ring.shop.svc.cluster.local")),
    ]);
    let slice = |service: &str, endpoints, ports| Slice { service: service.into(), endpoints, ports };
    zone.replace_slices(vec![
        (
            "shop".into(),
            "db-1".into(),
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
        (
            "shop".into(),
            "db-2".into(),
            slice("db", vec![endpoint("fd00::2", None, true)], vec![port("sql", "tcp", 5433)]),
        ),
        ("shop".into(), "starting-1".into(), slice("starting", vec![endpoint("10.0.0.9", None, false)], vec![])),
        ("shop".into(), "web-1".into(), slice("web", vec![endpoint("10.0.0.7", Some("w0"), true)], vec![])),
    ]);
    zone
}

fn ask(zone: &Zone, asked: &str, kind: RecordType) -> Outcome {
    resolve(zone, &name(asked), kind, &[name("cluster.corp.")])
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
    let origin = Origin { domain: name("tenant.test."), ..zone().origin().clone() };
    let mut other = Zone::new(origin);
    other.replace_services(vec![]);
    other.replace_slices(vec![]);
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
    let mut young = Zone::new(zone().origin().clone());
    assert_eq!(ask(&young, "web.shop.svc.cluster.local.", A), Outcome::NotYet);
    assert_eq!(ask(&young, "1.1.96.10.in-addr.arpa.", POINTER), Outcome::NotYet);
    assert_eq!(ask(&young, "example.com.", A), Outcome::Outside);
    young.replace_services(vec![]);
    assert_eq!(ask(&young, "web.shop.svc.cluster.local.", A), Outcome::NotYet);
    young.replace_slices(vec![]);
    assert_eq!(ask(&young, "web.shop.svc.cluster.local.", A), Outcome::NoName);
}

#[test]
fn the_zone_follows_its_events() {
    let mut zone = zone();
    let before = zone.serial();
    zone.remove_service("shop", "web");
    assert_eq!(ask(&zone, "web.shop.svc.cluster.local.", A), Outcome::NoName);
    zone.put_slice("shop", "db-1", Slice { service: "db".into(), ..Slice::default() });
    assert_eq!(ask(&zone, "db-0.db.shop.svc.cluster.local.", A), Outcome::NoName);
    zone.remove_slice("shop", "db-2");
    assert_eq!(ask(&zone, "db.shop.svc.cluster.local.", AAAA), Outcome::NoData);
    // A tenant cannot move or remove the API's own name.
    let stolen = service(Target::ClusterIps(vec![ip("10.6.6.6")]), vec![]);
    zone.put_service("default", "kubernetes", stolen);
    zone.remove_service("default", "kubernetes");
    let Outcome::Found { answers, .. } = ask(&zone, "kubernetes.default.svc.cluster.local.", A) else {
        panic!("found")
    };
    assert_eq!(answers[0].data, address_data(ip("10.96.0.1")));
    assert!(zone.serial() > before);
}

proptest::proptest! {
    #[test]
    fn any_name_is_survived_and_the_zone_never_leaks(labels in proptest::collection::vec("[a-z0-9_.:-]{1,20}", 0..6)) {
        let labels = labels.iter().map(|l| l.as_bytes()).chain(["cluster".as_bytes(), b"local"]);
        let asked = Name::from_labels(labels).expect("labels");
        for kind in [A, AAAA, SERVICES, POINTER, ANY] {
            let outcome = resolve(&zone(), &asked, kind, &[]);
            proptest::prop_assert!(!matches!(outcome, Outcome::Outside), "{} {}", asked, kind);
        }
    }
}
