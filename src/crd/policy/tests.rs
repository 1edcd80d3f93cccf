use super::*;
use proptest::prelude::*;

fn entries(all: &[&str]) -> Option<Entries> {
    Some(Entries(all.iter().map(|entry| (*entry).to_owned()).collect()))
}

#[test]
fn a_virtual_cluster_tightens_and_never_widens() {
    let bounds = PolicyBounds { storage_classes: vec!["fast".into(), "slow-*".into()], ..PolicyBounds::default() };
    let nothing = GrantedPolicy::of(bounds.clone(), Policy::default());
    assert!(nothing.storage_class("fast") && nothing.storage_class("slow-1") && !nothing.storage_class("gold"));
    let asked = Policy {
        storage_classes: entries(&["slow-1", "gold", "*"]),
        pod_security: Some(PodSecurity::Privileged),
        static_volumes: Some(true),
        load_balancer_addresses: Some(true),
        max_grace_period_seconds: Some(u32::MAX),
        image_digests: Some(false),
        ..Policy::default()
    };
    let wider = GrantedPolicy::of(PolicyBounds { image_digests: true, ..bounds.clone() }, asked);
    assert!(!wider.storage_class("gold") && !wider.static_volumes() && !wider.load_balancer_addresses());
    assert_eq!((wider.pod_security(), wider.max_grace_period()), (PodSecurity::Baseline, 3600));
    assert!(wider.image_digests());
    let asked = Policy {
        storage_classes: entries(&["slow-1"]),
        pod_security: Some(PodSecurity::Restricted),
        max_grace_period_seconds: Some(30),
        ..Policy::default()
    };
    let tighter = GrantedPolicy::of(bounds, asked);
    assert!(tighter.storage_class("slow-1") && !tighter.storage_class("slow-2") && !tighter.storage_class("fast"));
    assert_eq!((tighter.pod_security(), tighter.max_grace_period()), (PodSecurity::Restricted, 30));
}

#[test]
fn figures_of_whole_nodes_are_the_admins_to_give_and_the_clusters_to_leave() {
    let usage = |bound, asked| {
        let bounds = PolicyBounds { node_usage: bound, ..PolicyBounds::default() };
        GrantedPolicy::of(bounds, Policy { node_usage: asked, ..Policy::default() }).node_usage()
    };
    assert_eq!(GrantedPolicy::default().node_usage(), NodeUsage::Own);
    assert_eq!(usage(NodeUsage::Own, Some(NodeUsage::Real)), NodeUsage::Own);
    assert_eq!(usage(NodeUsage::Real, None), NodeUsage::Real);
    assert_eq!(usage(NodeUsage::Real, Some(NodeUsage::Real)), NodeUsage::Real);
    assert_eq!(usage(NodeUsage::Real, Some(NodeUsage::Own)), NodeUsage::Own);
}

#[test]
fn root_on_the_nodes_takes_both_words() {
    let open = PolicyBounds { pod_security: PodSecurity::Privileged, ..PolicyBounds::default() };
    assert_eq!(GrantedPolicy::of(open.clone(), Policy::default()).pod_security(), PodSecurity::Baseline);
    let asked = Policy { pod_security: Some(PodSecurity::Privileged), ..Policy::default() };
    assert_eq!(GrantedPolicy::of(open, asked.clone()).pod_security(), PodSecurity::Privileged);
    assert_eq!(GrantedPolicy::of(PolicyBounds::default(), asked).pod_security(), PodSecurity::Baseline);
}

#[test]
fn domains_are_the_tenants_own() {
    let policies = |domains: &[&str]| {
        let ingress_domains = domains.iter().map(|d| (*d).to_owned()).collect();
        let general = Arc::new(PolicyBounds { ingress_domains, ..PolicyBounds::default() });
        GrantedPolicy::new(&Policies { general, ..Policies::default() }, ("team-a", "blue"), &Policy::default())
    };
    assert!(!policies(&[]).ingress_domain("a.example.com"));
    let own = policies(&["*.{cluster}.{namespace}.example.com"]);
    assert!(own.ingress_domain("Web.blue.team-a.example.com"));
    for foreign in ["web.green.team-a.example.com", "blue.team-a.example.com", "*.example.com", "", "x"] {
        assert!(!own.ingress_domain(foreign), "{foreign}");
    }
    assert!(own.ingress_domain("*.blue.team-a.example.com"), "a wildcard below its own");
    assert!(!policies(&["*.example.com"]).ingress_domain(""), "a rule without a host is for every name");
    assert!(policies(&["*"]).ingress_domain("") && policies(&["*"]).ingress_domain("a.b"));
}

#[test]
fn namespaces_may_have_bounds_of_their_own() {
    let open = Arc::new(PolicyBounds { pod_security: PodSecurity::Privileged, ..PolicyBounds::default() });
    let policies = Policies { namespaces: [("team-root".to_owned(), open)].into(), ..Policies::default() };
    let asked = Policy { pod_security: Some(PodSecurity::Privileged), ..Policy::default() };
    assert_eq!(GrantedPolicy::new(&policies, ("team-root", "a"), &asked).pod_security(), PodSecurity::Privileged);
    assert_eq!(GrantedPolicy::new(&policies, ("team-a", "a"), &asked).pod_security(), PodSecurity::Baseline);
}

#[test]
fn endpoints_are_by_network() {
    let bounds =
        PolicyBounds { endpoints: vec!["192.0.2.0/24".into(), "2001:db8::/32".into()], ..PolicyBounds::default() };
    let policy =
        GrantedPolicy::of(bounds, Policy { endpoints: entries(&["192.0.2.128/25", "0.0.0.0/0"]), ..Policy::default() });
    let allowed = |text: &str| policy.endpoint(text.parse().expect("address"));
    assert!(allowed("192.0.2.7") && allowed("::ffff:192.0.2.7") && !allowed("198.51.100.1"));
    assert!(!allowed("2001:db8::1"), "the VirtualCluster names no such network");
    assert!(!GrantedPolicy::default().endpoint("192.0.2.7".parse().expect("address")));
}

#[test]
fn entries_that_mean_nothing_are_refused() {
    for entry in ["", "a*b", "**"] {
        let bounds = PolicyBounds { images: vec![entry.into()], ..PolicyBounds::default() };
        assert!(bounds.fault().is_some_and(|fault| fault.starts_with("images")), "{entry}");
    }
    assert!(PolicyBounds { endpoints: vec!["10.0.0.1".into()], ..PolicyBounds::default() }.fault().is_some());
    assert_eq!(PolicyBounds::default().fault(), None);
}

proptest! {
    /// Whatever a VirtualCluster names, nothing passes that the bounds alone would not let pass.
    #[test]
    fn nothing_is_won_by_asking(bounds in prop::collection::vec("[a-c*]{1,3}", 0..4), asked in prop::collection::vec("[a-c*]{1,3}", 0..4), text in "[a-c]{1,4}") {
        let bounds = PolicyBounds { images: bounds, ..PolicyBounds::default() };
        let alone = GrantedPolicy::of(bounds.clone(), Policy::default());
        let both = GrantedPolicy::of(bounds, Policy { images: Some(Entries(asked)), ..Policy::default() });
        prop_assert!(!both.image(&text) || alone.image(&text));
    }
}
