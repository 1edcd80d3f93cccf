use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_800_000_000;

fn bounds() -> JwtBounds {
    JwtBounds { allowed_issuers: vec!["*.example.com".to_owned()], ..JwtBounds::default() }
}

fn written(change: Value) -> JwtAuthenticator {
    let mut entry = json!({
        "issuer": {"url": "https://sso.example.com/realm", "audiences": ["portico"]},
        "claimMappings": {"username": {"claim": "sub"}, "groups": {"claim": "groups"}},
    });
    merge(&mut entry, change);
    serde_json::from_value(entry).expect("an entry")
}

fn merge(into: &mut Value, change: Value) {
    match change {
        Value::Object(fields) if into.is_object() => {
            fields.into_iter().for_each(|(name, value)| merge(&mut into[name.as_str()], value))
        }
        other => *into = other,
    }
}

fn of(entries: &[Value]) -> Issuers {
    let all: Vec<_> = entries.iter().cloned().map(written).collect();
    Issuers::new(&all, &bounds(), &Issuers::default())
}

fn one(change: Value) -> Arc<Issuer> {
    let issuers = of(&[change]);
    assert!(issuers.faults().is_empty(), "{:?}", issuers.faults());
    Arc::clone(issuers.iter().next().expect("one"))
}

/// A slip of the pen in a CA is said, and what was in force goes on.
#[test]
fn a_ca_that_cannot_be_read_is_a_fault_and_an_entry_that_did_not_change_is_the_same() {
    let before = of(&[json!({})]);
    let entry = |change: Value| written(change);
    let slip = Issuers::new(&[entry(json!({"issuer": {"certificateAuthority": "-----BEGIN"}}))], &bounds(), &before);
    assert!(slip.faults()[0].starts_with("jwt[0].issuer.certificateAuthority: "), "{:?}", slip.faults());
    assert!(Arc::ptr_eq(&slip.all[0], &before.all[0]), "as it was");
    let same = Issuers::new(&[entry(json!({}))], &bounds(), &before);
    assert!(Arc::ptr_eq(&same.all[0], &before.all[0]));
    let other = Issuers::new(&[entry(json!({"issuer": {"audiences": ["x"]}}))], &bounds(), &before);
    assert!(!Arc::ptr_eq(&other.all[0], &before.all[0]));
}

fn claims(change: Value) -> Claims {
    let mut all = json!({
        "iss": "https://sso.example.com/realm", "sub": "jane", "aud": "portico", "exp": NOW + 60, "groups": ["dev", "ops"],
    });
    merge(&mut all, change);
    Claims::parse(all.to_string().as_bytes()).expect("claims")
}

#[test]
fn a_token_says_who_somebody_is_behind_a_prefix() {
    let user = one(json!({})).user(&claims(json!({})), NOW).expect("a user");
    assert_eq!(
        (user.name.as_str(), user.groups.as_slice()),
        ("oidc:jane", &["oidc:dev".into(), "oidc:ops".into()][..])
    );
    assert_eq!((user.uid, user.ends), (None, NOW + 60));
    let all = one(json!({"claimMappings": {
        "username": {"claim": "email", "prefix": ""}, "groups": {"claim": "role", "prefix": "r:"}, "uid": {"claim": "sub"},
        "extra": [{"key": "example.com/team", "valueExpression": "claims.team"}, {"key": "example.com/none", "valueExpression": "claims.none"}],
    }}));
    let said =
        claims(json!({"email": "jane@example.com", "email_verified": true, "role": "admin", "team": ["a", "b"]}));
    let user = all.user(&said, NOW).expect("a user");
    assert_eq!((user.name.as_str(), user.groups.as_slice()), ("jane@example.com", &["r:admin".into()][..]));
    assert_eq!(user.uid.as_deref(), Some("jane"));
    assert_eq!(user.extra, vec![("example.com/team".to_owned(), vec!["a".to_owned(), "b".to_owned()])]);
}

#[test]
fn what_a_token_does_not_say_makes_nobody_anybody() {
    let plain = json!({});
    let bare = json!({"claimMappings": {"username": {"claim": "sub", "prefix": ""}, "groups": {"claim": "groups", "prefix": ""}}});
    let email = json!({"claimMappings": {"username": {"claim": "email"}}});
    let ruled = json!({"claimValidationRules": [{"claim": "hd", "requiredValue": "example.com"}]});
    let with_uid = json!({"claimMappings": {"uid": {"claim": "oid"}}});
    let many: Vec<String> = (0..300).map(|n| format!("g{n}")).collect();
    let long: Vec<String> = (0..60).map(|n| format!("{n}{}", "g".repeat(200))).collect();
    for (entry, change, expected) in [
        (&plain, json!({"exp": NOW - 1}), Refusal::Expired),
        (&plain, json!({"exp": null}), Refusal::Expired),
        (&plain, json!({"exp": "tomorrow"}), Refusal::Expired),
        (&plain, json!({"nbf": NOW + 301}), Refusal::Early),
        (&plain, json!({"nbf": "now"}), Refusal::Early),
        (&plain, json!({"aud": "another"}), Refusal::Audience),
        (&plain, json!({"aud": null}), Refusal::Audience),
        (&plain, json!({"aud": ["a", "b"]}), Refusal::Audience),
        (&plain, json!({"aud": [1, "portico"]}), Refusal::Audience),
        (&plain, json!({"sub": ""}), Refusal::Username),
        (&plain, json!({"sub": 7}), Refusal::Username),
        (&plain, json!({"sub": "a\nb"}), Refusal::Username),
        (&plain, json!({"sub": "jane "}), Refusal::Username),
        (&plain, json!({"sub": "a".repeat(300)}), Refusal::Username),
        (&email, json!({"email": "j@example.com", "email_verified": false}), Refusal::Username),
        (&email, json!({"email": "j@example.com", "email_verified": "true"}), Refusal::Username),
        (&plain, json!({"groups": {"a": 1}}), Refusal::Values),
        (&plain, json!({"groups": ["a", 1]}), Refusal::Values),
        (&bare, json!({"groups": [""]}), Refusal::Values),
        (&plain, json!({"groups": many}), Refusal::Values),
        (&plain, json!({"groups": long}), Refusal::Values),
        (&with_uid, json!({}), Refusal::Values),
        (&ruled, json!({}), Refusal::Rule),
        (&ruled, json!({"hd": ["example.com"]}), Refusal::Rule),
        (&bare, json!({"sub": "system:admin"}), Refusal::Reserved),
        (&bare, json!({"groups": ["dev", "system:masters"]}), Refusal::Reserved),
    ] {
        let found = one(entry.clone()).user(&claims(change.clone()), NOW).expect_err(&change.to_string());
        assert_eq!(found, expected, "{change}");
    }
    assert!(one(ruled).user(&claims(json!({"hd": "example.com"})), NOW).is_ok());
    assert!(one(email).user(&claims(json!({"email": "j@example.com"})), NOW).is_ok());
    assert!(one(plain).user(&claims(json!({"nbf": NOW + 300, "aud": ["x", "portico"]})), NOW).is_ok());
}

#[test]
fn what_is_said_twice_is_nothing() {
    for twice in
        [r#"{"sub": "a", "sub": "b"}"#, r#"{"groups": [], "x": 1, "groups": ["system:masters"]}"#, "[]", "1", ""]
    {
        assert_eq!(Claims::parse(twice.as_bytes()), None, "{twice}");
    }
}

#[test]
fn an_unfit_entry_says_what_to_do() {
    for (change, said) in [
        (json!({"issuer": {"url": "http://sso.example.com"}}), "issuer.url: an https URL"),
        (json!({"issuer": {"url": "https://a@sso.example.com"}}), "issuer.url: an https URL"),
        (json!({"issuer": {"url": "https://sso.example.com?x"}}), "issuer.url: an https URL"),
        (json!({"issuer": {"url": "https://evil.org"}}), "auth.jwt.allowedIssuers"),
        (json!({"issuer": {"discoveryURL": "https://evil.org/x"}}), "auth.jwt.allowedIssuers"),
        (json!({"issuer": {"discoveryURL": "https://sso.example.com/realm"}}), "another one than url"),
        (json!({"issuer": {"audiences": []}}), "issuer.audiences: name one"),
        (json!({"issuer": {"audienceMatchPolicy": "MatchAll"}}), "only MatchAny"),
        (json!({"claimMappings": {"username": {"claim": ""}}}), "username.claim: name one"),
        (
            json!({"claimMappings": {"username": {"expression": "claims.sub"}}}),
            "username.expression: CEL is not evaluated",
        ),
        (json!({"claimMappings": {"groups": {"claim": "", "prefix": "x:"}}}), "groups.claim"),
        (json!({"claimMappings": {"extra": [{"key": "team", "valueExpression": "claims.team"}]}}), "extra[0].key"),
        (
            json!({"claimMappings": {"extra": [{"key": "a.k8s.io/x", "valueExpression": "claims.team"}]}}),
            "extra[0].key",
        ),
        (
            json!({"claimMappings": {"extra": [{"key": "a.com/x", "valueExpression": "claims.a + 'b'"}]}}),
            "valueExpression",
        ),
        (json!({"claimValidationRules": [{"expression": "true"}]}), "claimValidationRules[0].expression: CEL"),
        (json!({"claimValidationRules": [{"requiredValue": "x"}]}), "claimValidationRules[0].claim"),
        (json!({"userValidationRules": [{"expression": "true"}]}), "userValidationRules: CEL"),
        (json!({"userValidationRules": [{}]}), "userValidationRules: CEL"),
    ] {
        let issuers = of(std::slice::from_ref(&change));
        assert!(issuers.is_empty(), "{change}");
        let [fault] = issuers.faults() else { panic!("{change}: {:?}", issuers.faults()) };
        assert!(fault.starts_with("jwt[0].") && fault.contains(said), "{fault}");
    }
}

#[test]
fn an_unfit_edit_keeps_what_was_and_gives_up_what_was_taken_away() {
    let (a, b) = (json!({}), json!({"issuer": {"url": "https://b.example.com", "audiences": ["b"]}}));
    let before = of(&[a.clone(), b]);
    let unfit = json!({"issuer": {"audiences": []}});
    let edit = |entries: &[Value], bounds: &JwtBounds| {
        let all: Vec<_> = entries.iter().cloned().map(written).collect();
        Issuers::new(&all, bounds, &before)
    };
    let after = edit(std::slice::from_ref(&unfit), &bounds());
    assert_eq!(after.iter().collect::<Vec<_>>(), before.iter().take(1).collect::<Vec<_>>());
    assert!(after.of("https://b.example.com").is_none() && after.faults().len() == 1);
    // Not allowed any more, after a restart: off.
    assert!(edit(&[unfit], &JwtBounds::default()).is_empty());
    let other = json!({"issuer": {"audiences": ["other"]}});
    let twice = of(&[a, other]);
    assert!(twice.iter().count() == 1 && twice.faults()[0].contains("listed twice"), "{:?}", twice.faults());
    assert!(twice.iter().next().expect("the first").user(&claims(json!({})), NOW).is_ok());
    let many: Vec<Value> = (0..9).map(|n| json!({"issuer": {"url": format!("https://i{n}.example.com")}})).collect();
    let many = of(&many);
    assert!(many.iter().count() == 8 && many.faults().len() == 1);
}

#[test]
fn where_the_configuration_is() {
    let place = |change: Value| {
        let place = one(change).discovery.clone();
        format!("{}:{}{}", place.host, place.port, place.path)
    };
    assert_eq!(place(json!({})), "sso.example.com:443/realm/.well-known/openid-configuration");
    let slash = json!({"issuer": {"url": "https://SSO.example.com/"}});
    assert_eq!(place(slash), "sso.example.com:443/.well-known/openid-configuration");
    let own = json!({"issuer": {"discoveryURL": "https://keys.example.com/oidc"}});
    assert_eq!(place(own), "keys.example.com:443/oidc");
}
