//! What the gateway reads of strangers, over a mutated corpus: paths, hosts, headers, PROXY headers, certificates.

use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use super::api::{self, PathPrefix, RequestInfo};
use super::bind::{self, Host};
use super::identity::{self, Identity};
use super::{proxied, request};
use crate::runtime::fuzz;
use crate::tls::ClientTrust;

/// The path that is forwarded means what was judged, and is what was written.
#[test]
fn paths() {
    fuzz::bytes("paths", &[], |input| {
        let uri = std::str::from_utf8(input).ok()?.trim().parse::<Uri>().ok()?;
        let split = PathPrefix::split(uri.path())?;
        if !api::is_served_root(split.rest) {
            return None;
        }
        let info = RequestInfo::parse(&Method::GET, split.rest, uri.query()).ok()?;
        let forwarded = request::target(split.rest, uri.query()).expect("what was judged can be forwarded");
        assert_eq!((forwarded.path(), forwarded.query()), (split.rest, uri.query()));
        let again = RequestInfo::parse(&Method::GET, forwarded.path(), forwarded.query());
        assert_eq!(again.as_ref(), Ok(&info));
        let decoded =
            percent_encoding::percent_decode_str(forwarded.path()).decode_utf8().expect("judged").into_owned();
        assert!(decoded.split('/').all(|segment| segment != "." && segment != ".."), "{decoded:?}");
        assert!(!decoded.chars().any(char::is_control), "{decoded:?}");
        if info.is_exact && info.is_core_v1("pods") && !info.subresource.is_empty() {
            let meant = format!("/api/v1/namespaces/{}/pods/{}/{}", info.namespace, info.name, info.subresource);
            assert_eq!(decoded.trim_end_matches('/'), meant, "a stream is what its path says");
        }
        Some((
            info.verb,
            info.is_resource,
            info.is_exact,
            info.has_verb_prefix,
            info.subresource,
            split.tenant.is_some(),
        ))
    });
}

/// Request target and Host header, a line each.
#[test]
fn hosts() {
    fuzz::bytes("hosts", &[], |input| {
        let mut lines = input.split(|byte| *byte == b'\n');
        let target = std::str::from_utf8(lines.next()?).ok()?.parse::<Uri>().unwrap_or_else(|_| Uri::from_static("/"));
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::HOST, HeaderValue::from_bytes(line).ok()?);
        }
        let host = bind::host(&target, &headers).ok()?;
        if let Host::Name(name) = &host {
            assert_eq!(*name, name.to_ascii_lowercase());
            assert!(!name.ends_with('.') && name.len() <= 253, "{name:?}");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{name:?}");
            let said = HeaderMap::from_iter([(header::HOST, HeaderValue::try_from(name).expect("a header"))]);
            assert_eq!(bind::host(&Uri::from_static("/"), &said).expect("valid"), host, "it means itself");
        }
        Some((target.authority().is_some(), headers.len(), matches!(host, Host::Ip(_))))
    });
}

/// Lines of `name: value`.
#[test]
fn headers() {
    fuzz::bytes("headers", &[], |input| {
        let mut headers = HeaderMap::new();
        for line in input.split(|byte| *byte == b'\n') {
            let at = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(line[..at].trim_ascii()).ok()?;
            headers.append(name, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?);
        }
        let cleaned = identity::clean(&mut headers).ok()?;
        for name in headers.keys() {
            let dashed = name.as_str().replace('_', "-");
            let is_identity = ["x-remote", "impersonate", "x-portico-", "x-forwarded-"];
            assert!(!is_identity.iter().any(|prefix| dashed.starts_with(&format!("{prefix}-"))), "{name}");
            assert!(
                !["connection", "upgrade", "te", "trailer", "transfer-encoding"].contains(&name.as_str()),
                "{name}"
            );
        }
        assert!(cleaned.impersonate.keys().all(|name| name.as_str().starts_with("impersonate-")));
        assert!(cleaned.impersonate.is_empty() || cleaned.impersonate.contains_key("impersonate-user"));
        let credentials = identity::credentials(&mut headers, cleaned.upgrade.is_some()).ok()?;
        assert!(!headers.contains_key(header::AUTHORIZATION));
        if cleaned.upgrade.is_some() {
            let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
            let mut protocols = values.flat_map(|value| value.split(',')).map(str::trim);
            assert!(protocols.all(|one| !one.starts_with("base64url.bearer.authorization.k8s.io.")), "{headers:?}");
        }
        Some((format!("{credentials:?}"), headers.len(), cleaned.impersonate.len(), cleaned.upgrade.is_some()))
    });
}

/// Nothing behind the header is taken, whatever it says of its length.
#[test]
fn proxy_headers() {
    let signed = |rest: &[u8]| [b"\r\n\r\n\0\r\nQUIT\n", rest].concat();
    let to = [192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x67, 1, 0xbb];
    let seeds = [signed(&[0x20, 0, 0, 0]), signed(&[&[0x21, 0x11, 0, 12][..], &to].concat()), signed(&[0x21; 60])];
    fuzz::bytes("proxy", &seeds, |input| {
        let mut rest = input;
        let source = proxied::source(&mut rest).now_or_never()?.ok()?;
        let said = usize::from(u16::from_be_bytes([input[14], input[15]]));
        assert_eq!(input.len() - rest.len(), 16 + said);
        Some((source.is_some(), source.is_some_and(|source| source.is_ipv6())))
    });
}

/// Of all certificates that are like one of our CA's, only that one says who somebody is.
#[test]
fn certificates() {
    let now = rustls::pki_types::UnixTime::now();
    let ca_key = rcgen::KeyPair::generate().expect("key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).expect("CA").pem();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let mut leaf = rcgen::CertificateParams::default();
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    leaf.distinguished_name.push(rcgen::DnType::CommonName, "jane");
    leaf.distinguished_name.push(rcgen::DnType::OrganizationName, "devs");
    leaf.distinguished_name.push(rcgen::DnType::from_oid(&[1, 3, 6, 1, 4, 1, 57683, 2]), "u-1");
    let key = rcgen::KeyPair::generate().expect("key");
    let whole = leaf.signed_by(&key, &issuer).expect("certificate").der().to_vec();
    let known = Identity::from_certificate(&whole).expect("readable").expect("named");
    let trust = ClientTrust::from_pem(ca.as_bytes()).expect("trust");
    let now = jiff::Timestamp::from_second(i64::try_from(now.as_secs()).expect("now")).expect("now");
    fuzz::bytes("certificates", &[whole], |input| {
        let is_trusted = trust.verify(&[input.to_vec().into()], now).is_ok();
        let identity = Identity::from_certificate(input).ok()?;
        if is_trusted {
            let identity = identity.as_ref().expect("a name");
            assert_eq!((&identity.user, &identity.groups, &identity.uid), (&known.user, &known.groups, &known.uid));
        }
        if let Some(identity) = &identity {
            assert!(!identity.user.is_empty() && identity.groups.iter().all(|group| !group.is_empty()));
            if let Ok(headers) = identity.front_proxy_headers() {
                assert!(headers.keys().all(|name| name.as_str().starts_with("x-remote-")));
            }
        }
        Some((identity.map(|identity| (identity.groups.len(), identity.uid.is_some())), is_trusted))
    });
}
