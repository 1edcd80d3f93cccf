//! Bounds of objects other than pods.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::event::{self, About};
use super::super::testing::{open_view, view};
use super::super::{endpoints, ingress, service};
use super::*;

fn many(number: usize, one: impl Fn(usize) -> Value) -> Value {
    (0..number).map(one).collect()
}

#[test]
fn messages_name_field_number_bound_and_remedy() {
    assert_eq!(Excess::beyond("spec.ports", "ports", (1, 1), "x"), None);
    let excess = Excess::beyond("spec.ports", "ports", (2, 1), "use fewer").expect("beyond");
    assert_eq!(excess.message(), "spec.ports: 2 ports, at most 1 cross to the host; use fewer");
    assert_eq!((cut("aé", 2), cut("aé", 3), cut("", 0)), ("a", "aé", ""));
}

#[test]
fn ports_of_a_service() {
    let of = |number| json!({"spec": {"ports": many(number, |n| json!({"port": n + 1}))}});
    assert_eq!(service::excess(&of(PORTS)), None);
    assert_eq!(service::excess(&of(PORTS + 1)).map(|e| e.found), Some(PORTS + 1));
}

#[test]
fn addresses_times_ports() {
    let slice = |addresses, ports| {
        let endpoint = |n| json!({"addresses": [format!("192.0.2.{n}")]});
        json!({"endpoints": many(addresses, endpoint), "ports": many(ports, |n| json!({"port": n + 1}))})
    };
    assert_eq!(endpoints::excess(&slice(1000, 20)), None);
    assert_eq!(endpoints::excess(&slice(1000, 1000)).map(|e| e.found), Some(1_000_000));
    let subset = |_| {
        json!({"addresses": many(100, |_| json!({"ip": "192.0.2.1"})), "notReadyAddresses": [{}],
        "ports": many(100, |n| json!({"port": n + 1}))})
    };
    assert_eq!(endpoints::excess(&json!({"subsets": many(1, subset)})), None);
    assert_eq!(endpoints::excess(&json!({"subsets": many(2, subset)})).map(|e| e.found), Some(20_200));
    assert_eq!(endpoints::excess(&json!({"subsets": [{"addresses": {}}], "endpoints": "x"})), None);
}

#[test]
fn rules_paths_and_tls_of_an_ingress() {
    let rule = |paths| move |_| json!({"http": {"paths": many(paths, |n| json!({"path": format!("/{n}")}))}});
    let ingress = |rules, tls| json!({"spec": {"rules": rules, "tls": many(tls, |_| json!({"secretName": "s"}))}});
    assert_eq!(ingress::refusal(&ingress(many(10, rule(100)), 1000), &open_view()), None);
    for (rules, tls, word) in
        [(many(11, rule(100)), 0, "1100 paths"), (many(1001, rule(0)), 0, "1001 rules"), (json!([]), 1001, "spec.tls")]
    {
        let why = ingress::refusal(&ingress(rules, tls), &open_view()).expect("refused");
        assert!(why.contains(word) && why.contains("at most"), "{why}");
    }
    let named =
        |hosts| json!({"spec": {"tls": many(2, |_| json!({"hosts": many(hosts, |n| json!(format!("{n}.a")))}))}});
    assert_eq!(ingress::refusal(&named(500), &open_view()), None);
    assert!(ingress::refusal(&named(501), &open_view()).is_some_and(|why| why.contains("1002 names")));
}

#[test]
fn a_message_in_which_names_grow_is_cut() {
    let names: BTreeMap<String, String> = [("a".to_owned(), "n".repeat(253))].into();
    let about = About { namespace: "é".repeat(30), name: "web".to_owned(), uid: "u".to_owned(), names };
    for text in ["a ".repeat(100_000), "team-a/".repeat(100_000), "é".repeat(100_000)] {
        let shown = event::message(&text, &about, &view());
        assert!(shown.len() <= MESSAGE_BYTES && shown.len() > MESSAGE_BYTES - 300, "{}", shown.len());
    }
    assert_eq!(event::message("a b", &about, &view()), format!("{} b", "n".repeat(253)));
}
