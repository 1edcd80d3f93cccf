//! Tests of `pki`.

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().expect("time")
}

fn wishes<'a>(id: &'a TenantId, ip: &str) -> Wishes<'a> {
    Wishes {
        id,
        distro: Distro::K8s,
        gateway_names: vec!["a.ns.portico.local".to_owned(), ip.to_owned()],
        backend_names: vec!["a.ns.svc".to_owned()],
    }
}

#[test]
fn made_once_then_stable_and_only_the_stale_leaf_is_renewed() {
    let id = TenantId::parse("ns", "a").expect("id");
    let now = at("2026-01-01T00:00:00Z");
    let first = plan(None, &wishes(&id, "10.0.0.1"), now).expect("plan");
    assert_eq!(first.len(), 18);
    assert_eq!(plan(Some(&first), &wishes(&id, "10.0.0.1"), now).expect("plan"), first);
    let moved = plan(Some(&first), &wishes(&id, "10.0.0.2"), now).expect("plan");
    let changed: Vec<&String> = first.keys().filter(|k| first.get(*k) != moved.get(*k)).collect();
    assert_eq!(changed, [pki::GATEWAY, pki::GATEWAY_KEY]);
    assert_eq!(digest(&first), digest(&moved));
    let later = plan(Some(&first), &wishes(&id, "10.0.0.1"), at("2026-12-15T00:00:00Z")).expect("plan");
    let changed = first.keys().filter(|k| first.get(*k) != later.get(*k)).count();
    assert_eq!(changed, 10, "five leaves with their keys");
}

/// A Secret of before gets the aggregator's pair and keeps the rest; the pods that run have no use for it.
#[test]
fn the_aggregators_pair_is_added_of_the_front_proxys_ca_under_a_name_of_its_own() {
    let id = TenantId::parse("ns", "a").expect("id");
    let now = at("2026-01-01T00:00:00Z");
    let mut before = plan(None, &wishes(&id, "10.0.0.1"), now).expect("plan");
    for key in [pki::AGGREGATOR, pki::AGGREGATOR_KEY] {
        assert!(before.remove(key).is_some(), "{key}");
    }
    let after = plan(Some(&before), &wishes(&id, "10.0.0.1"), now).expect("plan");
    let changed: Vec<&String> = after.keys().filter(|k| before.get(*k) != after.get(*k)).collect();
    assert_eq!(changed, [pki::AGGREGATOR, pki::AGGREGATOR_KEY]);
    assert_eq!(digest(&before), digest(&after));
    let ca = pair(&after, (pki::FRONT_PROXY_CA, pki::FRONT_PROXY_CA_KEY)).expect("CA");
    let shown = pair(&after, (pki::AGGREGATOR, pki::AGGREGATOR_KEY)).expect("pair");
    assert!(certificates::is_current(&shown, &ca, &client_leaf("front-proxy-client"), now));
    assert!(!certificates::is_current(&shown, &ca, &client_leaf(pki::FRONT_PROXY_NAME), now), "the gateway's name");
}

#[test]
fn a_ca_is_never_replaced_silently() {
    let id = TenantId::parse("ns", "a").expect("id");
    let now = at("2026-01-01T00:00:00Z");
    let mut data = plan(None, &wishes(&id, "10.0.0.1"), now).expect("plan");
    let key = data.remove(pki::CLIENT_CA_KEY).expect("there");
    assert!(plan(Some(&data), &wishes(&id, "10.0.0.1"), now).is_err());
    data.insert(pki::CLIENT_CA_KEY.to_owned(), key);
    data.remove(pki::SERVICE_ACCOUNT_KEY);
    assert!(plan(Some(&data), &wishes(&id, "10.0.0.1"), now).is_err());
}

#[test]
fn external_backends_get_no_control_plane_keys() {
    let id = TenantId::parse("ns", "a").expect("id");
    let wishes = Wishes { distro: Distro::External, ..wishes(&id, "10.0.0.1") };
    let data = plan(None, &wishes, at("2026-01-01T00:00:00Z")).expect("plan");
    assert!(!data.contains_key(pki::API_SERVER_KEY) && !data.contains_key(pki::SERVICE_ACCOUNT_KEY));
    assert!(data.contains_key(pki::GATEWAY) && data.contains_key(pki::CLIENT_CA));
}

#[test]
fn k3s_gets_a_token_and_its_front_proxy_name_and_signs_its_own_leaves() {
    let id = TenantId::parse("ns", "a").expect("id");
    let now = at("2026-01-01T00:00:00Z");
    let wishes = Wishes { distro: Distro::K3s, ..wishes(&id, "10.0.0.1") };
    let first = plan(None, &wishes, now).expect("plan");
    for key in [pki::API_SERVER_KEY, pki::CONTROLLER_MANAGER_KEY, pki::AGGREGATOR_KEY] {
        assert!(!first.contains_key(key), "{key}");
    }
    let text = |key: &str| first.get(key).cloned().unwrap_or_default();
    let ca = Pair { certificate: text(pki::FRONT_PROXY_CA), key: text(pki::FRONT_PROXY_CA_KEY) };
    let proxy = Pair { certificate: text(pki::FRONT_PROXY), key: text(pki::FRONT_PROXY_KEY) };
    assert!(certificates::is_current(&proxy, &ca, &client_leaf("system:auth-proxy"), now));
    assert_eq!(text(pki::K3S_TOKEN).len(), 64);
    assert_ne!(plan(None, &wishes, now).expect("another").get(pki::K3S_TOKEN), first.get(pki::K3S_TOKEN));
    assert_eq!(plan(Some(&first), &wishes, at("2026-06-01T00:00:00Z")).expect("plan"), first);
    let mut damaged = first;
    damaged.remove(pki::K3S_TOKEN);
    let refusal = plan(Some(&damaged), &wishes, now).expect_err("never a new one");
    assert!(refusal.message().contains("k3s token"), "{refusal}");
}
