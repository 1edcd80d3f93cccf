//! Addresses in all their forms, and which of several networks counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("network")).collect()
}

fn judged(allowed: &[&str], denied: &[&str], closed: &[&str]) -> Reach {
    let told = Closed::default();
    told.set(nets(closed));
    Reach::judged(&nets(allowed), &nets(denied), &told)
}

fn refuses(reach: &Reach, address: &str) -> bool {
    let ip: IpAddr = address.parse().expect("address");
    reach.refusal(SocketAddr::new(ip, 443)).is_some()
}

/// Every form in which an IPv4 address may be written as another one.
fn all_forms(v4: Ipv4Addr) -> Vec<IpAddr> {
    let [a, b, c, d] = v4.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let mut forms = vec![
        v4.into(),
        v4.to_ipv6_mapped().into(),
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low).into(),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into(),
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low).into(),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0x5efe, high, low).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0x200, 0x5efe, high, low).into(),
        Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, !high, !low).into(),
    ];
    if high != 0 {
        forms.push(Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low).into());
    }
    forms
}

fn octets_of(network: &str, random: u32) -> Ipv4Addr {
    let IpNet::V4(network) = network.parse().expect("network") else { panic!("{network} is not IPv4") };
    let mask = u32::from(network.netmask());
    Ipv4Addr::from(u32::from(network.network()) | (random & !mask))
}

#[test]
fn every_network_of_the_list_can_be_read() {
    let rules = Reach::judged(&[], &[], &Closed::default()).0.expect("rules");
    assert_eq!(rules.denied.len(), NOWHERE.len());
}

#[test]
fn what_means_the_machine_or_nobody_is_refused_and_the_rest_is_not() {
    let reach = judged(&[], &[], &[]);
    for address in [
        "127.0.0.1",
        "127.255.0.9",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "fe80::1",
        "ff02::1",
        "fec0::1",
        "::ffff:0:127.0.0.1",
        "64:ff9b:1::a00:1",
        "2001::1",
    ] {
        assert!(refuses(&reach, address), "{address}");
    }
    for address in ["10.96.0.1", "192.0.2.1", "100.64.0.1", "2001:db8::1", "64:ff9b::a60:1", "2002:a60:1::1", "fd00::1"]
    {
        assert!(!refuses(&reach, address), "{address}");
    }
    assert!(Reach::default().refusal(SocketAddr::from(([127, 0, 0, 1], 1))).is_none(), "what Portico chose");
}

#[test]
fn the_narrower_network_counts_and_an_allowed_one_of_two_that_are_equal() {
    let reach =
        judged(&["10.0.0.0/8", "127.0.0.1/32", "10.244.7.0/24"], &["0.0.0.0/0", "10.9.0.0/16"], &["10.244.0.0/16"]);
    for (address, refused) in [
        ("192.0.2.1", true),
        ("10.1.0.1", false),
        ("10.9.0.1", true),
        ("10.244.0.1", true),
        ("10.244.7.1", false),
        ("127.0.0.1", false),
        ("127.0.0.2", true),
        ("::ffff:10.9.0.1", true),
        ("2001:db8::1", false),
    ] {
        assert_eq!(refuses(&reach, address), refused, "{address}");
    }
    let equal = judged(&["169.254.0.0/16"], &[], &[]);
    assert!(!refuses(&equal, "169.254.1.1"), "the admin says so");
}

#[test]
fn what_is_told_later_counts_from_then_on() {
    let told = Closed::default();
    let reach = Reach::judged(&[], &[], &told);
    assert!(!refuses(&reach, "192.0.2.10"));
    told.set(nets(&["192.0.2.10/32"]));
    assert!(refuses(&reach, "192.0.2.10") && refuses(&reach, "64:ff9b::c000:20a"));
    told.set(Vec::new());
    assert!(!refuses(&reach, "192.0.2.10"));
}

/// A machine's own address is none of another's, whichever network it is in.
#[test]
fn own_addresses_are_known_without_being_told() {
    let here = SocketAddr::from(([127, 0, 0, 1], 443));
    assert!(is_own(here));
    assert!(!is_own(SocketAddr::from(([192, 0, 2, 1], 443))));
    let around = judged(&["127.0.0.0/8"], &[], &[]);
    assert!(around.refusal(here).is_some(), "a network around it does not name it");
    assert!(judged(&["127.0.0.1/32"], &[], &[]).refusal(here).is_none());
}

proptest! {
    #[test]
    fn no_form_leads_to_what_is_refused(network in 0_usize..7, random in any::<u32>()) {
        let denied = ["203.0.113.0/24"];
        let closed = ["10.244.0.0/16"];
        let reach = judged(&[], &denied, &closed);
        let of = ["127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "0.0.0.0/8", "255.255.255.255/32", denied[0], closed[0]];
        for form in all_forms(octets_of(of[network], random)) {
            prop_assert!(reach.refusal(SocketAddr::new(form, 443)).is_some(), "{form}");
        }
    }

    #[test]
    fn an_allowed_address_is_allowed_in_the_forms_that_tell_it(random in any::<u32>()) {
        let v4 = octets_of("198.18.0.0/15", random);
        let reach = judged(&["198.18.0.0/15", "::/0"], &["0.0.0.0/0"], &[]);
        for form in [IpAddr::from(v4), v4.to_ipv6_mapped().into()] {
            prop_assert!(reach.refusal(SocketAddr::new(form, 443)).is_none(), "{form}");
        }
    }
}
