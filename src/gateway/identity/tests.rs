use http::{HeaderMap, HeaderName, HeaderValue, header};
use proptest::prelude::*;

use super::*;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(n, v)| (n.parse::<HeaderName>().expect("name"), HeaderValue::from_bytes(v.as_bytes()).expect("value")))
        .fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        })
}

fn certificate(build: impl FnOnce(&mut rcgen::DistinguishedName)) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("key");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    build(&mut params.distinguished_name);
    params.self_signed(&key).expect("certificate").der().to_vec()
}

#[test]
fn subjects_become_users() {
    let der = certificate(|dn| {
        dn.push(rcgen::DnType::CommonName, "jane");
        dn.push(rcgen::DnType::OrganizationName, "devs");
        dn.push(rcgen::DnType::from_oid(&[1, 3, 6, 1, 4, 1, 57683, 2]), "u-1");
    });
    let identity = Identity::from_certificate(&der).expect("readable").expect("named");
    assert_eq!((identity.user.as_str(), identity.groups.as_slice()), ("jane", ["devs".to_owned()].as_slice()));
    assert_eq!(identity.uid.as_deref(), Some("u-1"));
    let headers = identity.front_proxy_headers().expect("headers");
    let id = &headers["x-remote-extra-authentication.kubernetes.io%2fcredential-id"];
    assert!(id.to_str().expect("text").starts_with("X509SHA256="));
    assert_eq!(headers["x-remote-uid"], "u-1");
}

#[test]
fn nameless_and_unspeakable_certificates_are_nobody() {
    let nameless = certificate(|dn| dn.push(rcgen::DnType::OrganizationName, "system:masters"));
    assert_eq!(Identity::from_certificate(&nameless).expect("readable"), None);
    assert!(Identity::from_certificate(b"no der").is_err());
    for user in ["admin ", " admin", "a\nb", ""] {
        let identity = Identity { user: user.to_owned(), ..Identity::anonymous() };
        assert!(identity.front_proxy_headers().is_err(), "{user:?}");
    }
}

#[test]
fn connection_cannot_name_identity_away() {
    let mut headers = map(&[
        ("connection", "keep-alive, X-Remote-User, Impersonate-User, authorization, host"),
        ("authorization", "Bearer abc"),
        ("host", "x"),
        ("x-custom", "kept"),
    ]);
    clean(&mut headers).expect("clean");
    assert!(headers.contains_key("authorization") && headers.contains_key("host") && headers.contains_key("x-custom"));
    headers.extend(Identity::anonymous().front_proxy_headers().expect("headers"));
    assert_eq!(headers["x-remote-user"], "system:anonymous");
}

#[test]
fn spoofed_headers_never_pass() {
    let mut headers = map(&[
        ("X-Remote-User", "root"),
        ("x-REMOTE-group", "system:masters"),
        ("X-Remote-Extra-Scopes", "all"),
        ("X-Remote-Uid", "0"),
        ("X-Remote-Anything", "new"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Host", "evil"),
        ("Forwarded", "for=127.0.0.1"),
        ("X-Real-Ip", "127.0.0.1"),
        ("Te", "trailers"),
        ("Proxy-Authorization", "x"),
        ("Accept", "application/json"),
    ]);
    clean(&mut headers).expect("clean");
    assert_eq!(headers, map(&[("accept", "application/json")]));
    for name in [
        "X_Remote_User",
        "x-remote_user",
        "Impersonate_User",
        "Impersonate-Everything",
        "Impersonate",
        "Impersonate-Extra-",
    ] {
        assert!(clean(&mut map(&[(name, "root"), ("impersonate-user", "x")])).is_err(), "{name}");
    }
    assert!(clean(&mut map(&[("impersonate-group", "system:masters")])).is_err());
}

#[test]
fn impersonation_and_upgrades_are_taken_aside() {
    let mut headers = map(&[
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("impersonate-user", "jane"),
        ("impersonate-group", "a"),
        ("impersonate-group", "b"),
    ]);
    let cleaned = clean(&mut headers).expect("clean");
    assert!(headers.is_empty());
    assert_eq!(cleaned.upgrade.expect("upgrade"), "websocket");
    assert_eq!(cleaned.impersonate.get_all("impersonate-group").iter().count(), 2);
}

#[test]
fn malformed_credentials_are_refused_never_ignored() {
    for value in ["", " ", "Bearer", "Bearer ", "bearer  x", "Basic abc", "Bearer\u{e9}", "Bearerabc"] {
        assert!(credentials(&mut map(&[("authorization", value)]), false).is_err(), "{value:?}");
    }
    let two = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
    assert!(credentials(&mut map(&two), false).is_err());
    let mut headers = map(&[("authorization", "bEaReR abc ignored")]);
    assert_eq!(
        credentials(&mut headers, false).expect("token"),
        Credentials::Bearer(HeaderValue::from_static("Bearer abc"))
    );
    assert!(headers.is_empty());
    assert_eq!(credentials(&mut headers, false).expect("none"), Credentials::None);
}

#[test]
fn websocket_bearer_is_taken_out() {
    let protocols = "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj";
    let mut headers = map(&[("sec-websocket-protocol", protocols)]);
    assert_eq!(
        credentials(&mut headers, true).expect("token"),
        Credentials::Bearer(HeaderValue::from_static("Bearer abc"))
    );
    assert_eq!(headers[header::SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
    for bad in [
        "base64url.bearer.authorization.k8s.io.YWJj",
        "v5, base64url.bearer.authorization.k8s.io.",
        "v5, base64url.bearer.authorization.k8s.io.!!",
        "v5, base64url.bearer.authorization.k8s.io.YQ, base64url.bearer.authorization.k8s.io.Yg",
    ] {
        assert!(credentials(&mut map(&[("sec-websocket-protocol", bad)]), true).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn extra_keys_survive_the_way(key in "[ -~]{1,40}") {
        let identity = Identity { extra: vec![(key.clone(), vec!["v".to_owned()])], ..Identity::anonymous() };
        let headers = identity.front_proxy_headers().expect("headers");
        let name = headers.keys().find_map(|n| n.as_str().strip_prefix("x-remote-extra-")).expect("extra");
        let decoded = percent_encoding::percent_decode_str(name).decode_utf8().expect("text").into_owned();
        prop_assert_eq!(decoded, key.to_ascii_lowercase());
    }

    #[test]
    fn nothing_reserved_survives(
        name in "(x[-_]remote|impersonate|x[-_]forwarded|X[-_]Remote|IMPERSONATE)[-_a-zA-Z0-9%.]{0,12}",
        also in "[a-zA-Z-]{1,10}",
    ) {
        let mut headers = map(&[(name.as_str(), "evil"), ("impersonate-user", "u")]);
        headers.append(header::CONNECTION, HeaderValue::try_from(also).expect("value"));
        if clean(&mut headers).is_ok() {
            for name in headers.keys() {
                let name = name.as_str().replace('_', "-");
                prop_assert!(!name.starts_with("x-remote-") && !name.starts_with("impersonate"), "{}", name);
            }
        }
    }
}
