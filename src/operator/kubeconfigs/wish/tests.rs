use proptest::prelude::*;

use super::*;

fn entry(more: impl Into<Value>) -> MachineKubeconfig {
    let more: Value = more.into();
    let mut entry = json!({"secretName": "ci", "user": "robot"});
    for (key, value) in more.as_object().expect("an object") {
        entry[key] = value.clone();
    }
    serde_json::from_value(entry).expect("reads")
}

fn pki() -> Data {
    [(pki::CLIENT_CA, "ca"), (pki::SERVICE_ACCOUNT_PUBLIC, "key")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

fn print(entry: &MachineKubeconfig, pki: &Data, store: &str) -> String {
    Wish::new(entry, &CredentialsConfig::default(), (pki, &[], store)).expect("a wish").print
}

fn refused(more: Value) -> String {
    let entry = entry(more);
    Wish::new(&entry, &CredentialsConfig::default(), (&pki(), &[], "")).expect_err("refused").message().to_owned()
}

#[test]
fn what_contradicts_itself_or_is_reserved_is_refused() {
    let account = json!({"namespace": "tools", "name": "ci"});
    assert!(refused(json!({"user": "system:admin"})).contains("system:"));
    assert!(refused(json!({"groups": ["system:masters"]})).contains("system:"));
    assert!(refused(json!({"user": ""})).contains("empty"));
    assert!(refused(json!({"serviceAccount": account})).contains("user and a serviceAccount"));
    assert!(refused(json!({"clusterRole": "view", "role": {"namespace": "a", "name": "b"}})).contains("clusterRole"));
    for name in [".", "..", "a/b", "a%2f"] {
        assert!(refused(json!({"clusterRole": name})).contains("that name"), "{name}");
        assert!(refused(json!({"role": {"namespace": "a", "name": name}})).contains("that name"), "{name}");
    }
    assert!(refused(json!({"secretName": "vc-dev"})).contains("its own"));
    assert!(refused(json!({"secretName": "dev-pki"})).contains("its own"));
}

#[test]
fn a_life_is_within_the_admins_bounds() {
    let bounds = CredentialsConfig::default();
    let long = entry(json!({"expirationSeconds": 10 * 365 * 24 * 3600}));
    let pki = pki();
    assert_eq!(Wish::new(&long, &bounds, (&pki, &[], "")).expect("a wish").seconds, 90 * 24 * 3600);
    let usual = entry(json!({}));
    assert_eq!(Wish::new(&usual, &bounds, (&pki, &[], "")).expect("a wish").seconds, 30 * 24 * 3600);
    let hostile = entry(json!({"expirationSeconds": i64::MIN}));
    assert_eq!(Wish::new(&hostile, &bounds, (&pki, &[], "")).expect("a wish").seconds, 600);
}

#[test]
fn what_a_credential_hangs_on_makes_another() {
    let (user, pki) = (entry(json!({})), pki());
    let first = print(&user, &pki, "store");
    assert_eq!(print(&user, &pki, "another"), first, "a certificate knows no store");
    assert_ne!(print(&entry(json!({"groups": ["a"]})), &pki, "store"), first);
    let mut renewed = pki.clone();
    renewed.insert(pki::CLIENT_CA.to_owned(), "another".to_owned());
    assert_ne!(print(&user, &renewed, "store"), first);
    let account = entry(json!({"user": "", "serviceAccount": {"namespace": "tools", "name": "ci"}}));
    assert_eq!(print(&account, &renewed, "store"), print(&account, &pki, "store"), "a token knows no client CA");
    assert_ne!(print(&account, &pki, "another"), print(&account, &pki, "store"));
    let bound = entry(json!({"clusterRole": "view"}));
    assert_ne!(print(&bound, &pki, "another"), print(&bound, &pki, "store"));
}

#[test]
fn what_somebody_changed_is_made_anew() {
    let (entry, pki) = (entry(json!({})), pki());
    let wish = Wish::new(&entry, &CredentialsConfig::default(), (&pki, &[], "")).expect("a wish");
    let data: Data = [("config".to_owned(), "ours".to_owned())].into();
    let life = Life { began: Timestamp::UNIX_EPOCH, ends: "2026-01-01T00:00:00Z".parse().expect("time") };
    let annotation = life.write(&wish, &data);
    assert_eq!(Life::read(&annotation.clone().into(), &wish, &data), Some(life));
    let changed: Data = [("config".to_owned(), "theirs".to_owned())].into();
    assert_eq!(Life::read(&annotation.clone().into(), &wish, &changed), None);
    let longer = annotation.replace("2026-", "2036-");
    for annotation in [json!(longer), json!(""), json!("a b c"), Value::Null, json!(7)] {
        assert_eq!(Life::read(&annotation, &wish, &data), None, "{annotation}");
    }
}

/// What is kept on hosts: a field that a later version adds must not make every credential anew.
#[test]
fn the_print_of_a_wish_stays_what_it_is() {
    let user = entry(json!({"groups": ["a", "b"], "role": {"namespace": "shop", "name": "deployer"}}));
    let account = json!({"user": "", "serviceAccount": {"namespace": "tools", "name": "ci"}, "clusterRole": "view"});
    let way = Way {
        context: "dev".to_owned(),
        server: "https://gateway".to_owned(),
        tls_server_name: Some("dev.example.com".to_owned()),
        authority: "CA".to_owned(),
    };
    let prints = [user, entry(account)].map(|entry| {
        let wish = Wish::new(&entry, &CredentialsConfig::default(), (&pki(), std::slice::from_ref(&way), "store"));
        wish.expect("a wish").print
    });
    assert_eq!(prints, ["bd0f89d2e5091489e024dcb2799d15c5", "1ee0c96d0ed5a694d6267d5954204463"]);
}

/// Two clocks: an API server's tokens may be over when they come, or last for ever.
#[test]
fn tokens_are_not_made_in_each_round_whatever_end_they_have() {
    let (pki, at) = (pki(), |seconds: i64| Timestamp::from_second(seconds).expect("time"));
    let account = entry(json!({"user": "", "serviceAccount": {"namespace": "tools", "name": "ci"}}));
    let wish = Wish::new(&account, &CredentialsConfig::default(), (&pki, &[], "store")).expect("a wish");
    for ends in [0, 999_999, 1_000_000, 1_000_001, 1_000_300] {
        let life = Life { began: at(1_000_000), ends: at(ends) };
        assert!(!life.is_due(at(1_000_599), &wish), "{ends}");
        assert!(life.is_due(at(1_000_600), &wish), "{ends}");
    }
    let endless = Life { began: at(1_000_000), ends: at(4_000_000_000) };
    assert!(endless.is_due(at(1_000_000 + wish.seconds * 2 / 3 + 1), &wish));
}

proptest! {
    /// Never before more than half of its life, and always while a third of it is left.
    #[test]
    fn it_is_renewed_at_about_two_thirds(began in 0_i64..4_000_000_000, life in 600_i64..315_360_000) {
        let at = |seconds: i64| Timestamp::from_second(seconds).expect("time");
        let (entry, pki) = (entry(json!({"expirationSeconds": life})), pki());
        let bounds = CredentialsConfig {
            longest_for_machines: crate::config::Span(std::time::Duration::from_secs(315_360_000)),
            ..CredentialsConfig::default()
        };
        let wish = Wish::new(&entry, &bounds, (&pki, &[], "")).expect("a wish");
        let life_of = Life { began: at(began), ends: at(began + life) };
        prop_assert!(!life_of.is_due(at(began), &wish) && !life_of.is_due(at(began + life / 2), &wish));
        prop_assert!(!life_of.is_due(at(began - 300), &wish), "a clock that went back a little");
        prop_assert!(life_of.is_due(at(began - 301), &wish), "its certificate is not good yet");
        prop_assert!(life_of.is_due(at(began + life * 2 / 3 + 1), &wish) && life_of.is_due(at(began + life), &wish));
    }
}
