use super::*;
use crate::tls::ClientTrust;
use crate::tls::certificates::new_ca;

fn at(text: &str) -> Timestamp {
    text.parse().expect("time")
}

fn groups(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const NOW: &str = "2026-01-01T00:00:00Z";

fn signed(ca: &Pair, user: &str, groups: &[String], seconds: i64) -> Issued {
    let (_, request) = new_request().expect("made");
    let key = PublicKey::requested(&request).expect("taken");
    issue(ca, Subject { user, groups }, &key, (at(NOW), seconds), [0xff; 16]).expect("issued")
}

#[test]
fn a_certificate_names_its_user_and_all_its_groups_and_nothing_else() {
    let ca = new_ca("client-ca@team-a/dev", at(NOW)).expect("ca");
    let many = groups(&["one", "two", "three"]);
    let issued = signed(&ca, "jane", &many, 3600);
    let ders = certificates_from_pem(issued.certificate.as_bytes()).expect("PEM");
    let (rest, certificate) = X509Certificate::from_der(&ders[0]).expect("reads");
    assert!(rest.is_empty());
    let named: Vec<&str> = certificate.subject().iter_organization().map(|o| o.as_str().expect("text")).collect();
    assert_eq!(named, ["one", "two", "three"]);
    let users: Vec<&str> = certificate.subject().iter_common_name().map(|o| o.as_str().expect("text")).collect();
    assert_eq!(users, ["jane"]);
    assert!(certificate.subject_alternative_name().expect("reads").is_none() && !certificate.is_ca());
    assert_eq!(certificate.issuer().to_string(), "CN=client-ca@team-a/dev");
    assert_eq!(issued.not_after, at("2026-01-01T01:00:00Z"));
    assert_eq!(ends(&issued.certificate), Some(issued.not_after));
}

#[test]
fn it_is_good_for_its_own_cluster_and_its_own_time() {
    let (ca, other) =
        (new_ca("client-ca@a/dev", at(NOW)).expect("ca"), new_ca("client-ca@b/dev", at(NOW)).expect("ca"));
    let ders = certificates_from_pem(signed(&ca, "jane", &[], 3600).certificate.as_bytes()).expect("PEM");
    let trust = |ca: &Pair| ClientTrust::from_pem(ca.certificate.as_bytes()).expect("CA");
    trust(&ca).verify(&ders, at(NOW)).expect("good");
    trust(&ca).verify(&ders, at("2026-01-01T01:00:01Z")).expect_err("over");
    trust(&ca).verify(&ders, at("2025-12-31T23:00:00Z")).expect_err("not yet");
    trust(&other).verify(&ders, at(NOW)).expect_err("of another cluster");
    let anchors =
        [webpki::anchor_from_trusted_cert(&certificates_from_pem(ca.certificate.as_bytes()).expect("PEM")[0])
            .expect("anchor")
            .to_owned()];
    let now = rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_767_225_600));
    let certificate = webpki::EndEntityCert::try_from(&ders[0]).expect("reads");
    let as_server = certificate.verify_for_usage(
        crate::tls::provider().signature_verification_algorithms.all,
        &anchors,
        &[],
        now,
        webpki::KeyUsage::server_auth(),
        None,
        None,
    );
    assert!(as_server.is_err(), "it opens no servers");
}

#[test]
fn it_ends_with_its_ca() {
    let ca = new_ca("ca", at("2016-06-01T00:00:00Z")).expect("ca");
    let ends_at = ends(&ca.certificate).expect("an end");
    assert_eq!(signed(&ca, "jane", &[], 365 * 24 * 3600).not_after, ends_at);
}

#[test]
fn a_pair_fits_and_times_beyond_2050_are_written() {
    let ca = new_ca("ca", at("2049-01-01T00:00:00Z")).expect("ca");
    let life = (at("2049-12-31T00:00:00Z"), 30 * 24 * 3600);
    let subject = Subject { user: "robot", groups: &groups(&["ci"]) };
    let (pair, until) = issue_pair(&ca, subject, life, [0; 16]).expect("issued");
    assert_eq!(until, at("2050-01-30T00:00:00Z"));
    let chain = certificates_from_pem(pair.certificate.as_bytes()).expect("PEM");
    ClientTrust::from_pem(ca.certificate.as_bytes()).expect("CA").verify(&chain, life.0).expect("good");
    crate::tls::client_config(ca.certificate.as_bytes(), Some((pair.certificate.as_bytes(), pair.key.as_bytes())))
        .expect("certificate and key fit");
}
