use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::Config;

const SHARED: &str = "portico.example.com";

fn rules() -> Arc<Reserved> {
    let mut config = Config::default();
    config.gateway.public_url = format!("https://{SHARED}");
    config.gateway.extra_sans = vec!["shared.team-a.portico.local".to_owned()];
    config.host.system_namespace = "portico-system".to_owned();
    Arc::new(Reserved::new(&config))
}

fn id(text: &str) -> TenantId {
    let (namespace, name) = text.split_once('/').expect("namespace/name");
    TenantId::parse(namespace, name).expect("id")
}

fn object(of: &str, created: &str, hosts: &[&str], port: Option<u16>) -> Value {
    let id = id(of);
    let (namespace, name) = (id.namespace().as_str(), id.name().as_str());
    json!({"metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{of}"), "creationTimestamp": created},
        "spec": {"expose": {"hosts": hosts}}, "status": {"port": port}})
}

fn owners(objects: &[Value]) -> Owners {
    let mut claims = Claims::default();
    assert!(objects.is_empty() || claims.replace(objects));
    claims.owners(&rules())
}

#[test]
fn nobody_takes_a_default_or_a_shared_name() {
    let green = object("team-green/green", "2026-01-02T00:00:00Z", &[], None);
    let wanted =
        ["Green.team-green.portico.local.", SHARED, "kubernetes.default.svc", "x.portico.local", "ok.example.com"];
    let blue = object("team-blue/blue", "2026-01-01T00:00:00Z", &wanted, None);
    let owners = owners(&[blue, green]);
    assert_eq!(owners.host("green.team-green.portico.local"), Some(&id("team-green/green")));
    assert_eq!(owners.host(SHARED), None);
    assert_eq!(owners.host("KUBERNETES.default.svc"), None);
    let verdict = owners.judge(&id("team-blue/blue"), &wanted.map(str::to_owned));
    assert_eq!(verdict.accepted, ["ok.example.com"]);
    assert_eq!(verdict.reason(), "Reserved");
    let message = verdict.message();
    assert!(message.contains("Green.team-green.portico.local. is reserved for team-green/green"), "{message}");
    assert!(message.contains("portico.example.com is reserved for the shared listener"), "{message}");
    assert_eq!(verdict.refused.len(), 4);
}

#[test]
fn an_absent_tenants_default_name_is_reserved_as_well() {
    let owners = owners(&[object("a/a", "2026-01-01T00:00:00Z", &["b.b.portico.local"], None)]);
    assert_eq!(owners.host("b.b.portico.local"), None);
}

#[test]
fn the_oldest_has_it_and_the_next_when_it_goes() {
    let young = object("a/young", "2026-01-02T00:00:00Z", &["app.example.com"], None);
    let old = object("b/old", "2026-01-01T00:00:00Z", &["APP.example.com."], None);
    let rules = rules();
    let mut claims = Claims::default();
    assert!(claims.apply(&young));
    assert!(!claims.apply(&young));
    let before = claims.owners(&rules);
    assert!(claims.apply(&old));
    let now = claims.owners(&rules);
    assert_eq!(now.host("app.example.com"), Some(&id("b/old")));
    let verdict = now.judge(&id("a/young"), &["app.example.com".to_owned()]);
    assert_eq!((verdict.reason(), verdict.accepted.len()), ("Taken", 0));
    assert_eq!(verdict.message(), "app.example.com belongs to b/old, which is older");
    let mut affected = claims.affected(&before, &now);
    affected.sort();
    assert_eq!(affected, [id("a/young"), id("b/old")]);
    let mut going = old;
    going["metadata"]["deletionTimestamp"] = json!("2026-01-03T00:00:00Z");
    assert!(claims.apply(&going));
    let after = claims.owners(&rules);
    assert_eq!(after.host("app.example.com"), Some(&id("a/young")));
    assert_eq!(claims.affected(&now, &after), [id("a/young")]);
    assert!(!claims.remove(&id("b/old")));
}

#[test]
fn of_one_second_the_lower_uid_and_without_a_time_the_last() {
    let mut one = object("a/one", "2026-01-01T00:00:00Z", &["app.example.com"], Some(20_000));
    let mut two = object("z/two", "2026-01-01T00:00:00Z", &["app.example.com"], Some(20_000));
    (one["metadata"]["uid"], two["metadata"]["uid"]) = (json!("9"), json!("1"));
    let owned = owners(&[one.clone(), two.clone()]);
    assert_eq!(owned.host("app.example.com"), Some(&id("z/two")));
    assert_eq!(owned.port(20_000), Some(&id("z/two")));
    two["metadata"]["creationTimestamp"] = Value::Null;
    assert_eq!(owners(&[one, two]).host("app.example.com"), Some(&id("a/one")));
}

#[test]
fn a_port_is_a_pair_and_never_our_own() {
    let at = |of, created, port| object(of, created, &[], Some(port));
    let owners = owners(&[
        at("a/old", "2026-01-01T00:00:00Z", 20_000),
        at("a/same", "2026-01-02T00:00:00Z", 20_000),
        // The old one's DNS, and an API where the old one's would be DNS of this.
        at("a/next", "2026-01-03T00:00:00Z", 20_001),
        at("a/before", "2026-01-04T00:00:00Z", 19_999),
        at("a/free", "2026-01-05T00:00:00Z", 20_002),
        at("a/shared", "2026-01-01T00:00:00Z", 8443),
        at("a/beside", "2026-01-01T00:00:00Z", 8442),
        at("a/last", "2026-01-01T00:00:00Z", u16::MAX),
    ]);
    assert_eq!(owners.port(20_000), Some(&id("a/old")));
    assert_eq!(owners.port(20_002), Some(&id("a/free")));
    for lost in [20_001, 19_999, 8443, 8442, u16::MAX] {
        assert_eq!(owners.port(lost), None, "{lost}");
    }
}

#[test]
fn who_loses_a_port_is_told_at_once() {
    let victim = object("a/victim", "2026-01-02T00:00:00Z", &[], Some(20_000));
    let mut older = object("b/older", "2026-01-01T00:00:00Z", &[], Some(20_002));
    let (rules, mut claims) = (rules(), Claims::default());
    claims.replace(&[victim, older.clone()]);
    let before = claims.owners(&rules);
    older["status"]["port"] = json!(20_000);
    claims.apply(&older);
    assert_eq!(claims.affected(&before, &claims.owners(&rules)), [id("a/victim")]);
}

#[test]
fn the_admins_own_name_comes_before_a_default_one() {
    let owners = owners(&[object("team-a/shared", "2026-01-01T00:00:00Z", &[], None)]);
    assert_eq!(owners.host("shared.team-a.portico.local"), None);
    assert_eq!(owners.judge(&id("team-a/shared"), &[]).reason(), "Reserved");
}

#[test]
fn a_broken_object_keeps_its_names_and_too_many_do_not_count() {
    let mut broken = object("a/a", "2026-01-01T00:00:00Z", &["app.example.com"], None);
    broken["spec"]["replicas"] = json!("many");
    let hosts: Vec<String> = (0..40).map(|n| format!("h{n}.example.com")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let owners = owners(&[broken, object("b/b", "2026-01-02T00:00:00Z", &hosts, None)]);
    assert_eq!(owners.host("app.example.com"), Some(&id("a/a")));
    assert!(owners.host("h31.example.com").is_some() && owners.host("h32.example.com").is_none());
}

fn hosts() -> impl Strategy<Value = Vec<String>> {
    let one = prop_oneof![
        "[ab]\\.example\\.com\\.?",
        "[AB]\\.EXAMPLE\\.com",
        "[pq]\\.[mn]\\.portico\\.local",
        "[a-z]{0,2}\\.portico\\.local",
        Just(SHARED.to_owned()),
        Just("kubernetes.default.svc.cluster.local".to_owned()),
        "\\PC{0,12}",
    ];
    proptest::collection::vec(one, 0..4)
}

fn cluster() -> impl Strategy<Value = Value> {
    let port = proptest::option::of(prop_oneof![20_000_u16..20_006, Just(8443_u16), any::<u16>()]);
    ("[mn]", "[pqrs]", 0_i64..3, any::<u8>(), hosts(), port, any::<bool>()).prop_map(
        |(namespace, name, created, uid, hosts, port, deleting)| {
            let created = Timestamp::from_second(created).expect("time").to_string();
            let deleted = deleting.then_some("2026-01-01T00:00:00Z");
            json!({"metadata": {"namespace": namespace, "name": name, "uid": uid.to_string(),
                    "creationTimestamp": created, "deletionTimestamp": deleted},
                "spec": {"expose": {"hosts": hosts}}, "status": {"port": port}})
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Whatever is claimed and in whatever order it is learned, one at a time or as a list, the owners are the same;
    /// what is reserved is nobody's, and of all who ask the oldest has it.
    #[test]
    fn the_same_owners_in_any_order(
        (mut objects, shuffled) in proptest::collection::vec(cluster(), 0..7).prop_map(|mut all| {
            all.sort_by_key(|o| TenantId::of(o).map(|id| id.to_string()));
            all.dedup_by_key(|o| TenantId::of(o).map(|id| id.to_string()));
            all
        }).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
    ) {
        let rules = rules();
        let mut listed = Claims::default();
        listed.replace(&objects);
        let mut learned = Claims::default();
        for object in &shuffled {
            learned.apply(object);
        }
        let (owned, other) = (listed.owners(&rules), learned.owners(&rules));
        prop_assert_eq!(&owned.hosts, &other.hosts);
        prop_assert_eq!(&owned.ports, &other.ports);
        for (host, holder) in &owned.hosts {
            let own = rules.default_host(holder).as_ref() == Some(host);
            prop_assert!(own || rules.host(host).is_none(), "{host} is {holder}'s");
        }
        objects.retain(|object| object["metadata"]["deletionTimestamp"].is_null());
        objects.sort_by_key(|object| Age::of(object).expect("age"));
        for (at, object) in objects.iter().enumerate() {
            let id = TenantId::of(object).expect("id");
            let written: Vec<String> = serde_json::from_value(object["spec"]["expose"]["hosts"].clone()).expect("hosts");
            let verdict = owned.judge(&id, &written);
            for host in written.iter().filter_map(|host| normal(host)) {
                let is_default = rules.default_host(&id).as_ref() == Some(&host);
                let asked_before = objects[..at].iter().any(|older| {
                    let theirs = older["spec"]["expose"]["hosts"].as_array().expect("hosts").iter();
                    theirs.filter_map(|h| normal(h.as_str()?)).any(|h| h == host)
                });
                let expected = is_default || (rules.host(&host).is_none() && !asked_before);
                prop_assert_eq!(owned.host(&host) == Some(&id), expected, "{} for {}", &host, &id);
                prop_assert_eq!(verdict.accepted.contains(&host), expected);
            }
        }
    }
}
