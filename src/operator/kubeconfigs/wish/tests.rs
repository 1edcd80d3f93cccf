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

proptest! {
    /// Never before more than half of its life, and always while a third of it is left.
    #[test]
    fn it_is_renewed_at_about_two_thirds(began in 0_i64..4_000_000_000, life in 600_i64..315_360_000) {
        let at = |seconds: i64| Timestamp::from_second(seconds).expect("time");
        let life_of = Life { began: at(began), ends: at(began + life) };
        prop_assert!(!life_of.is_due(at(began)) && !life_of.is_due(at(began + life / 2)));
        prop_assert!(!life_of.is_due(at(began - 3600)), "a clock that went back");
        prop_assert!(life_of.is_due(at(began + life * 2 / 3 + 1)) && life_of.is_due(at(began + life)));
    }
}
