use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::gateway::identity::Bearer;
use crate::gateway::identity::signed::{ISSUER, Key, but, by_secret, claims, documents, encode};

const NOW: i64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("a time")
}

fn published(keys: &[&Key]) -> Keys {
    let [configuration, set] = documents(keys);
    Keys::read(configuration.to_string().as_bytes(), set.to_string().as_bytes()).expect("keys")
}

/// As a control plane of ours; nothing: it cannot be read.
fn judged(keys: &Keys, token: &str) -> Option<Judgement> {
    Some(keys.judge(Token::read(token)?, Some(&[]), now()))
}

fn user(judgement: Option<Judgement>) -> String {
    match judgement {
        Some(Judgement::True(bearer)) => bearer.user,
        other => panic!("{other:?}"),
    }
}

fn is_false(fault: Fault) -> Option<Judgement> {
    Some(Judgement::False(fault))
}

#[test]
fn what_an_api_server_signs_is_true_with_every_kind_of_key() {
    let all = [Key::rsa(), Key::ec(), Key::long_ec()];
    let keys = published(&all.each_ref());
    for key in &all {
        let token = key.of(&claims("web", NOW));
        let Some(Judgement::True(bearer)) = judged(&keys, &token) else { panic!("{:?}", judged(&keys, &token)) };
        assert_eq!(bearer.user, "system:serviceaccount:default:web");
        assert_eq!(bearer.left(now()), Some(Duration::from_secs(3660)));
        assert!(!bearer.is_over(now()) && bearer.is_over(Timestamp::from_second(NOW + 3661).expect("a time")));
        assert_eq!(judged(&published(&[&Key::ec()]), &token), Some(Judgement::UnknownKey), "at another API server");
    }
    let [rsa, ..] = &all;
    let nameless = json!({"alg": "RS256"});
    assert_eq!(judged(&keys, &rsa.token(&nameless, &claims("web", NOW))), Some(Judgement::Foreign), "by any of three");
    let external = rsa.token(&nameless, &claims("web", NOW));
    let judgement = published(&[rsa]).judge(Token::read(&external).expect("readable"), None, now());
    assert_eq!(judgement, Judgement::Foreign, "it may publish not all of them");
    user(judged(&published(&[rsa]), &rsa.token(&nameless, &claims("web", NOW))));
}

#[test]
fn the_algorithm_is_the_keys_word() {
    let (rsa, ec) = (Key::rsa(), Key::ec());
    let (keys, good) = (published(&[&rsa, &ec]), claims("web", NOW));
    let head = |algorithm: &str, key: &Key| json!({"alg": algorithm, "kid": key.id});
    let unsigned = |head: &Value| format!("{}.{}.", encode(head.to_string()), encode(good.to_string()));
    for key in [&rsa, &ec] {
        for algorithm in ["none", "None", "", "HS256", "EdDSA", "rs256", "RS256 "] {
            let head = head(algorithm, key);
            assert_eq!(judged(&keys, &unsigned(&head)), is_false(Fault::Algorithm), "{head}");
            assert_eq!(judged(&keys, &key.token(&head, &good)), is_false(Fault::Algorithm), "{head}");
        }
        for secret in [key.public(), key.published().to_string().as_bytes()] {
            let token = by_secret(secret, &head("HS256", key), &good);
            assert_eq!(judged(&keys, &token), is_false(Fault::Algorithm));
        }
        assert_eq!(judged(&keys, &unsigned(&key.head())), is_false(Fault::Signature));
    }
    for (key, algorithm) in [(&rsa, "PS256"), (&rsa, "RS384"), (&ec, "ES384")] {
        let token = key.token(&head(algorithm, key), &good);
        assert_eq!(judged(&keys, &token), Some(Judgement::Foreign), "an API server looks at the family: {algorithm}");
    }
    assert_eq!(judged(&keys, &ec.token(&head("ES256", &rsa), &good)), is_false(Fault::Algorithm));
    assert_eq!(judged(&keys, &ec.token(&head("RS256", &rsa), &good)), is_false(Fault::Signature));
}

#[test]
fn forged_ones_are_false_and_what_only_the_api_server_knows_is_left_to_it() {
    let (key, thief) = (Key::ec(), Key::ec());
    let (keys, good) = (published(&[&key, &Key::rsa()]), claims("web", NOW));
    let token = |others: Value| key.of(&but(good.clone(), &others));
    let stolen = |others: Value| thief.token(&key.head(), &but(good.clone(), &others));
    let mut with_a_key_of_its_own = key.head();
    with_a_key_of_its_own["jwk"] = thief.published();
    with_a_key_of_its_own["jku"] = json!("https://elsewhere.example.com/keys");
    let of = |mut head: Value, more: Value| {
        head.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        key.token(&head, &good)
    };
    let swapped = {
        let (good, other) = (key.of(&good), key.of(&claims("admin", NOW)));
        let (head_and_claims, _) = other.rsplit_once('.').expect("three");
        format!("{head_and_claims}.{}", good.rsplit_once('.').expect("three").1)
    };
    for (what, token, expected) in [
        ("another's signature", stolen(json!({})), is_false(Fault::Signature)),
        ("that of another issuer by this name of a key", stolen(json!({"iss": "https://x"})), Some(Judgement::Foreign)),
        ("another token's signature", swapped, is_false(Fault::Signature)),
        ("a key in its head", thief.token(&with_a_key_of_its_own, &good), is_false(Fault::Signature)),
        ("no name of ours", thief.of(&good), Some(Judgement::UnknownKey)),
        ("a name that is a path", of(key.head(), json!({"kid": "../../../../dev/null"})), Some(Judgement::UnknownKey)),
        ("a name without an end", of(key.head(), json!({"kid": "k".repeat(9000)})), Some(Judgement::UnknownKey)),
        (
            "another's, of another issuer",
            thief.of(&but(good.clone(), &json!({"iss": "https://x"}))),
            Some(Judgement::Foreign),
        ),
        (
            "another's, nobody's of ours",
            thief.of(&but(good.clone(), &json!({"sub": "jane"}))),
            Some(Judgement::Foreign),
        ),
        ("of an earlier issuer", token(json!({"iss": "https://x"})), Some(Judgement::Foreign)),
        (
            "of the form before",
            token(json!({"iss": "kubernetes/serviceaccount", "exp": null})),
            Some(Judgement::Foreign),
        ),
        ("of no account", token(json!({"sub": "system:admin"})), Some(Judgement::Foreign)),
        ("of half an account", token(json!({"sub": "system:serviceaccount:default"})), Some(Judgement::Foreign)),
        ("of too much", token(json!({"sub": "system:serviceaccount:a:b:c"})), Some(Judgement::Foreign)),
        ("of a name with a line", token(json!({"sub": "system:serviceaccount:a:b\nuser=x"})), Some(Judgement::Foreign)),
        ("of another kind", of(key.head(), json!({"typ": "at+jwt"})), Some(Judgement::Foreign)),
        ("with something critical", of(key.head(), json!({"crit": ["b64"], "b64": false})), Some(Judgement::Foreign)),
        ("not encoded", of(key.head(), json!({"b64": false})), Some(Judgement::Foreign)),
    ] {
        assert_eq!(judged(&keys, &token), expected, "{what}");
    }
    user(judged(&keys, &of(key.head(), json!({"typ": "jwt"}))));
}

#[test]
fn keys_that_only_an_api_server_takes_make_nothing_false() {
    let (key, other) = (Key::rsa(), Key::rsa());
    let mut written = key.published();
    let modulus = URL_SAFE_NO_PAD.decode(written["n"].as_str().expect("a number")).expect("encoded");
    let published = |keys: Value| {
        let [configuration, _] = documents(&[&key]);
        Keys::read(configuration.to_string().as_bytes(), json!({"keys": keys}).to_string().as_bytes()).expect("keys")
    };
    let token = key.of(&claims("web", NOW));
    let mut short = modulus.clone();
    short[0] >>= 1;
    let padded = [vec![0; 2], short.clone()].concat();
    for modulus in [&modulus[..128], &short, &padded] {
        written["n"] = json!(encode(modulus));
        assert_eq!(judged(&published(json!([written])), &token), Some(Judgement::Foreign), "{}", modulus.len());
    }
    let mut namesake = other.published();
    namesake["kid"] = json!(key.id);
    for keys in [json!([namesake, key.published()]), json!([key.published(), namesake])] {
        assert_eq!(judged(&published(keys), &token), Some(Judgement::Foreign), "it tries both");
    }
}

#[test]
fn its_times_are_the_api_servers_a_minute_either_way() {
    let key = Key::ec();
    let keys = published(&[&key]);
    for (others, expected) in [
        (json!({"exp": NOW - 60}), None),
        (json!({"exp": NOW - 61}), Some(Fault::Expired)),
        (json!({"exp": -1e300}), Some(Fault::Expired)),
        (json!({"nbf": NOW + 60, "iat": NOW + 60}), None),
        (json!({"nbf": NOW + 61}), Some(Fault::Early)),
        (json!({"iat": NOW + 61}), Some(Fault::Early)),
        (json!({"iat": 1e300}), Some(Fault::Early)),
        (json!({"exp": NOW as f64 + 0.5, "nbf": null, "iat": null}), None),
        (json!({"exp": 1e300}), None),
        (json!({"exp": null}), None),
        (json!({"aud": "somebody"}), Some(Fault::Audience)),
        (json!({"aud": ["somebody", format!("{ISSUER}/")]}), Some(Fault::Audience)),
        (json!({"aud": ["somebody", ISSUER]}), None),
        (json!({"aud": ISSUER}), None),
        (json!({"aud": []}), None),
        (json!({"aud": null}), None),
    ] {
        let judgement = judged(&keys, &key.of(&but(claims("web", NOW), &others)));
        match expected {
            Some(fault) => assert_eq!(judgement, is_false(fault), "{others}"),
            None => assert_eq!(user(judgement), "system:serviceaccount:default:web", "{others}"),
        }
    }
    let endless = key.of(&but(claims("web", NOW), &json!({"exp": 1e300})));
    let Some(Judgement::True(bearer)) = judged(&keys, &endless) else { panic!("true") };
    assert_eq!((bearer.left(now()), bearer.is_over(Timestamp::MAX)), (None, false));
    for (beside, expected) in [
        (Some(["k3s"].as_slice()), Judgement::True(bearer_of(NOW + 3600))),
        (Some(&[]), Judgement::False(Fault::Audience)),
        (None, Judgement::Foreign),
    ] {
        let token = key.of(&but(claims("web", NOW), &json!({"aud": ["k3s"]})));
        assert_eq!(keys.judge(Token::read(&token).expect("readable"), beside, now()), expected, "{beside:?}");
    }
}

fn bearer_of(exp: i64) -> Bearer {
    Bearer::until("system:serviceaccount:default:web", Timestamp::from_second(exp + 60).expect("a time"))
}

#[test]
fn what_says_something_twice_or_is_too_much_is_not_read() {
    let key = Key::ec();
    let keys = published(&[&key]);
    let (head, good) = (key.head().to_string(), claims("web", NOW).to_string());
    let twice = |text: &str, more: &str| text.replacen('{', &format!("{{{more},"), 1);
    let mut many = claims("web", NOW);
    (0..200).for_each(|n| many[format!("c{n}")] = json!(n));
    user(judged(&keys, &key.of(&many)));
    let deep = format!("\"x\":{}{}", "[".repeat(3000), "]".repeat(3000));
    user(judged(&keys, &key.written(&head, &twice(&good, &deep))));
    for (what, token) in [
        ("two keys", key.written(&twice(&head, "\"kid\":\"x\""), &good)),
        ("two algorithms", key.written(&twice(&head, "\"alg\":\"none\""), &good)),
        ("two issuers", key.written(&head, &twice(&good, "\"iss\":\"x\""))),
        ("two users", key.written(&head, &twice(&good, "\"sub\":\"system:admin\""))),
        ("two ends", key.written(&head, &twice(&good, "\"exp\":1"))),
        ("two audiences", key.written(&head, &twice(&good, "\"aud\":\"x\""))),
        ("an end that is no number", key.of(&but(claims("web", NOW), &json!({"exp": "4000000000"})))),
        ("a key that is none", key.token(&json!({"alg": "ES256", "kid": {"a": 1}}), &claims("web", NOW))),
        ("depth", key.written(&head, &good.replacen("[", &"[".repeat(500), 1))),
        ("length", key.of(&but(claims("web", NOW), &json!({"x": "x".repeat(17_000)})))),
        ("a list", key.written(&head, "[]")),
        ("no claims", key.written(&head, "")),
        ("no JSON", key.written("x", "y")),
        ("four parts", format!("{}.x", key.of(&claims("web", NOW)))),
        ("two parts", key.of(&claims("web", NOW)).rsplit_once('.').expect("three").0.to_owned()),
        ("padding", key.of(&claims("web", NOW)).replacen('.', "=.", 1)),
        ("nothing", "..".to_owned()),
    ] {
        assert_eq!(judged(&keys, &token), None, "{what}");
    }
}

#[test]
fn keys_are_few_and_of_kinds_that_are_understood() {
    let key = Key::ec();
    let [configuration, set] = documents(&[&key]).map(|document| document.to_string());
    let read = |configuration: &str, set: &str| Keys::read(configuration.as_bytes(), set.as_bytes());
    let thousand = json!({"keys": vec![key.published(); 1000]}).to_string();
    let long = json!({"keys": [{"kid": "k".repeat(2000)}]}).to_string();
    for (configuration, set) in [
        ("", set.as_str()),
        ("{}", &set),
        ("{\"issuer\":\"\"}", &set),
        (&configuration, ""),
        (&configuration, "{\"keys\":[]}"),
        (&configuration, "{\"keys\":[{\"kid\":7}]}"),
        (&configuration, &thousand),
        (&configuration, &long),
    ] {
        assert!(read(configuration, set).is_err(), "{configuration:.40} {set:.40}");
    }
    let rsa = Key::rsa();
    for (key, others) in [
        (&key, json!({"kty": "oct", "k": encode("secret")})),
        (&key, json!({"use": "enc"})),
        (&key, json!({"alg": "ES512", "crv": "P-521"})),
        (&key, json!({"crv": "P-384"})),
        (&key, json!({"x": encode([1; 31])})),
        (&key, json!({"alg": "HS256"})),
        (&rsa, json!({"alg": "PS256"})),
        (&rsa, json!({"n": encode([0xff; 1024])})),
        (&rsa, json!({"e": encode([0xff; 8])})),
        (&rsa, json!({"n": "?"})),
    ] {
        let set = json!({"keys": [but(key.published(), &others)]}).to_string();
        let keys = read(&configuration, &set).expect("keys");
        assert_eq!(judged(&keys, &key.of(&claims("web", NOW))), Some(Judgement::Foreign), "{others}");
    }
    let without = json!({"keys": [but(key.published(), &json!({"alg": null, "use": null}))]}).to_string();
    user(judged(&read(&configuration, &without).expect("keys"), &key.of(&claims("web", NOW))));
    assert!(published(&[&key]).is_same(&published(&[&key])) && !published(&[&key]).is_same(&published(&[&rsa])));
}

proptest! {
    /// No character of a good token can be another one.
    #[test]
    fn a_changed_token_is_never_true(at in 0_usize..2000, other in "[A-Za-z0-9_.-]") {
        let key = Key::ec();
        let (keys, mut token) = (published(&[&key]), key.of(&claims("web", NOW)));
        let at = at % token.len();
        prop_assume!(token[at..=at] != other);
        token.replace_range(at..=at, &other);
        prop_assert!(!matches!(judged(&keys, &token), Some(Judgement::True(_))), "{token}");
    }
}
