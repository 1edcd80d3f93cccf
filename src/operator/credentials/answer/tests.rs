use std::time::Duration;

use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::config::Span;

const NOW: &str = "2026-01-01T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().expect("time")
}

fn spec(user: &str, groups: &[&str]) -> CredentialRequestSpec {
    CredentialRequestSpec {
        virtual_cluster: "dev".to_owned(),
        request: issued::new_request().expect("made").1,
        user: user.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        expiration_seconds: 7 * 24 * 3600,
        ..CredentialRequestSpec::default()
    }
}

fn authority(uid: &str) -> Authority {
    let ca = certificates::new_ca("client-ca@a/dev", at("2026-01-01T00:00:00Z")).expect("CA");
    Authority::new(uid.to_owned(), Some(at("2026-01-01T11:00:00Z")), (ca, String::new()), at(NOW)).expect("usable")
}

fn answered(spec: &CredentialRequestSpec, bounds: &CredentialsConfig) -> Result<Issued, Denial> {
    let key = check(spec, bounds)?;
    match sign(&authority("u1"), spec, Some(at("2026-01-01T11:59:00Z")), &key, bounds, at(NOW))? {
        Answer::Issued(issued, _) => Ok(issued),
        Answer::Denied(denial) => Err(denial),
    }
}

#[test]
fn no_life_is_longer_than_the_admins() {
    let bounds = CredentialsConfig { longest: Span(Duration::from_secs(3600)), ..CredentialsConfig::default() };
    let issued = answered(&spec("jane", &["dev"]), &bounds).expect("issued");
    assert_eq!(issued.not_after, at("2026-01-01T13:00:00Z"));
    let hostile = CredentialRequestSpec { expiration_seconds: i64::MIN, ..spec("jane", &[]) };
    assert!(answered(&hostile, &bounds).expect("issued").not_after > at(NOW));
}

#[test]
fn names_are_those_of_the_spec_whatever_the_request_says() {
    let key = rcgen::KeyPair::generate().expect("key");
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("params");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "system:admin");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = params.serialize_request(&key).expect("request").pem().expect("PEM");
    let hostile = CredentialRequestSpec { request, ..spec("jane", &["dev"]) };
    let issued = answered(&hostile, &CredentialsConfig::default()).expect("issued");
    let ders = crate::tls::certificates_from_pem(issued.certificate.as_bytes()).expect("PEM");
    let (_, certificate) = X509Certificate::from_der(&ders[0]).expect("reads");
    assert_eq!(certificate.subject().to_string(), "O=dev, CN=jane");
    assert!(!certificate.is_ca());
}

#[test]
fn reserved_names_need_the_admins_word() {
    for hostile in [spec("system:admin", &[]), spec("jane", &["system:masters"]), spec("jane", &["k3s:server"])] {
        let refused = answered(&hostile, &CredentialsConfig::default()).expect_err("refused");
        assert_eq!(refused.reason, "ReservedName");
        let allowed = CredentialsConfig { allow_system_names: true, ..CredentialsConfig::default() };
        answered(&hostile, &allowed).expect("issued");
    }
    assert_eq!(answered(&spec("a\nb", &[]), &CredentialsConfig::default()).expect_err("refused").reason, "InvalidName");
}

#[test]
fn what_was_asked_of_a_predecessor_is_not_signed_by_its_successor() {
    let bounds = CredentialsConfig::default();
    let named = CredentialRequestSpec { virtual_cluster_uid: "u0".to_owned(), ..spec("jane", &[]) };
    assert_eq!(answered(&named, &bounds).expect_err("refused").reason, "Replaced");
    let unnamed = spec("jane", &[]);
    let key = check(&unnamed, &bounds).expect("a key");
    let early = Some(at("2026-01-01T10:00:00Z"));
    let refused = sign(&authority("u1"), &unnamed, early, &key, &bounds, at(NOW)).expect_err("refused");
    assert_eq!(refused.reason, "Replaced");
}

#[test]
fn without_a_key_of_the_ca_nothing_is_signed() {
    let ca = certificates::new_ca("ca", at("2026-01-01T00:00:00Z")).expect("CA");
    let other = certificates::new_ca("ca", at("2026-01-01T00:00:00Z")).expect("CA");
    for key in [String::new(), other.key] {
        let pair = Pair { certificate: ca.certificate.clone(), key };
        let refused = Authority::new("u".to_owned(), None, (pair, String::new()), at(NOW)).expect_err("refused");
        assert!(refused.reason == "NoAuthority" && refused.message.contains("--service-account"));
    }
}
