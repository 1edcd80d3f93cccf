//! Certificates: making CAs and leaves, and deciding when a leaf must be made anew. Pure but for fresh keys.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SubjectPublicKeyInfo, date_time_ymd,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::{Error, Kind, Result};
use crate::tls;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Lifetime of CAs.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Lifetime of leaves.
const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Clocks of the host's nodes may be behind ours by this.
const BACKDATED: Duration = Duration::from_secs(3600);

/// PEM certificate and key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// What a leaf is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
}

/// What a leaf must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    pub common_name: String,
    pub organization: Option<&'static str>,
    /// DNS names and IPs; order and duplicates do not matter.
    pub names: Vec<String>,
    pub usage: Usage,
    /// Renewed when less than this is left.
    pub renew_days: u32,
}

/// A self-signed CA.
pub fn new_ca(common_name: &str, now: Timestamp) -> Result<Pair> {
    let key = KeyPair::generate().map_err(broken)?;
    let mut params = params(common_name, None, now, CA_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&key).map_err(broken)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A leaf signed by a CA.
pub fn new_leaf(ca: &Pair, leaf: &Leaf, now: Timestamp) -> Result<Pair> {
    let ca_key = KeyPair::from_pem(&ca.key).map_err(broken)?;
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, ca_key).map_err(broken)?;
    let key = KeyPair::generate().map_err(broken)?;
    let mut params = params(&leaf.common_name, leaf.organization, now, LEAF_LIFE)?;
    params.subject_alt_names = CertificateParams::new(sorted(&leaf.names)).map_err(broken)?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match leaf.usage {
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer).map_err(broken)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The first group that the leaf of a PEM chain names, if any: Kubernetes takes organizations of client certificates for groups.
pub fn organization(chain: &[u8]) -> Option<String> {
    let chain = tls::certificates_from_pem(chain).ok()?;
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    let mut groups = leaf.subject().iter_organization();
    Some(groups.next()?.as_str().unwrap_or("?").to_owned())
}

/// A signing key for service-account tokens: `(private PEM, public PEM)`. The private one is in the form of RFC 5915
/// (`EC PRIVATE KEY`), since k3s gives it to the API server to verify with as well, which reads no EC key in PKCS #8.
pub fn new_signing_key() -> Result<(String, String)> {
    let unusable = || Error::own(Kind::Tls, "a signing key cannot be made");
    let key = KeyPair::generate().map_err(broken)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.serialize_der())
        .map_err(|e| unusable().because(e))?;
    let der: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().map_err(|e| unusable().because(e))?;
    Ok((pem("EC PRIVATE KEY", der.as_ref()), key.public_key_pem()))
}

/// PEM with lines of 64.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Whether a certificate is still what `leaf` says, signed by `ca`, fits its key and lives long enough.
pub fn is_current(pair: &Pair, ca: &Pair, leaf: &Leaf, now: Timestamp) -> bool {
    inspect(pair, ca, leaf, now).unwrap_or(false)
}

/// Whether a CA's certificate and key can sign: both parse, belong together, and the certificate has not expired.
pub fn is_usable_ca(ca: &Pair, now: Timestamp) -> bool {
    let Ok(der) = tls::certificates_from_pem(ca.certificate.as_bytes()) else { return false };
    let Some(der) = der.first() else { return false };
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    certificate.is_ca()
        && certificate.validity().not_after.timestamp() > now.as_second()
        && fits_key(&certificate, &ca.key)
}

/// Whether a private key and a public one, both PEM, belong together.
pub fn is_signing_pair(private: &str, public: &str) -> bool {
    let Ok(private) = KeyPair::from_pem(private) else { return false };
    let Ok(public) = SubjectPublicKeyInfo::from_pem(public) else { return false };
    rcgen::PublicKeyData::der_bytes(&private) == rcgen::PublicKeyData::der_bytes(&public)
}

fn inspect(pair: &Pair, ca: &Pair, leaf: &Leaf, now: Timestamp) -> Option<bool> {
    let ders = tls::certificates_from_pem(pair.certificate.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(ders.first()?).ok()?;
    let left = certificate.validity().not_after.timestamp() - now.as_second();
    if left < i64::from(leaf.renew_days) * DAY.as_secs() as i64 || !fits_key(&certificate, &pair.key) {
        return Some(false);
    }
    let common_name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    let organization = certificate.subject().iter_organization().next().and_then(|o| o.as_str().ok());
    if common_name != leaf.common_name || organization != leaf.organization {
        return Some(false);
    }
    if names_in(&certificate) != sorted(&leaf.names) {
        return Some(false);
    }
    let roots = tls::certificates_from_pem(ca.certificate.as_bytes()).ok()?;
    let anchor = webpki::anchor_from_trusted_cert(roots.first()?).ok()?;
    let usage = match leaf.usage {
        Usage::Server => webpki::KeyUsage::server_auth(),
        Usage::Client => webpki::KeyUsage::client_auth(),
    };
    let seconds = u64::try_from(now.as_second()).ok()?;
    let anchors = [anchor];
    let end_entity = webpki::EndEntityCert::try_from(ders.first()?).ok()?;
    let verified = end_entity.verify_for_usage(
        tls::provider().signature_verification_algorithms.all,
        &anchors,
        &[],
        rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        usage,
        None,
        None,
    );
    Some(verified.is_ok())
}

fn fits_key(certificate: &X509Certificate<'_>, key: &str) -> bool {
    KeyPair::from_pem(key)
        .is_ok_and(|key| *certificate.public_key().subject_public_key.data == *rcgen::PublicKeyData::der_bytes(&key))
}

fn names_in(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names: Vec<String> = extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            },
            _ => None,
        })
        .collect();
    sorted(&names)
}

/// Lower-case, IPs in their one spelling, sorted, no duplicates, nothing empty.
fn sorted(names: &[String]) -> Vec<String> {
    let mut names: Vec<String> = names
        .iter()
        .map(|name| name.trim().trim_end_matches('.').to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .map(|name| name.parse::<IpAddr>().map_or(name, |ip| ip.to_string()))
        .collect();
    names.sort();
    names.dedup();
    names
}

fn params(common_name: &str, organization: Option<&str>, now: Timestamp, life: Duration) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).map_err(broken)?;
    let mut subject = DistinguishedName::new();
    if let Some(organization) = organization {
        subject.push(DnType::OrganizationName, organization);
    }
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    let since_epoch = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch.saturating_sub(BACKDATED);
    params.not_after = epoch + since_epoch + life;
    Ok(params)
}

fn broken(error: rcgen::Error) -> Error {
    Error::own(Kind::Tls, "a certificate cannot be made").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("time")
    }

    fn leaf(names: &[&str]) -> Leaf {
        Leaf {
            common_name: "kube-apiserver".to_owned(),
            organization: None,
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            usage: Usage::Server,
            renew_days: 30,
        }
    }

    #[test]
    fn a_fresh_leaf_is_current_whatever_the_order_of_its_names() {
        let now = at("2026-01-01T00:00:00Z");
        let ca = new_ca("ca", now).expect("ca");
        assert!(is_usable_ca(&ca, now));
        let pair = new_leaf(&ca, &leaf(&["b.example", "10.0.0.1", "A.example", "::1"]), now).expect("leaf");
        assert!(is_current(&pair, &ca, &leaf(&["a.example", "0:0::1", "b.example", "10.0.0.1", "b.example"]), now));
    }

    #[test]
    fn a_server_knows_when_its_leaf_ends() {
        let now = at("2026-01-01T00:00:00Z");
        let ca = new_ca("ca", now).expect("ca");
        let pair = new_leaf(&ca, &leaf(&["a.example"]), now).expect("leaf");
        // As it is served: the CA, which lives longer, comes behind.
        let chain = format!("{}{}", pair.certificate, ca.certificate);
        let server = tls::ServerTls::from_pem(chain.as_bytes(), pair.key.as_bytes()).expect("tls");
        assert_eq!(server.not_after(), Some(at("2027-01-01T00:00:00Z")));
    }

    #[test]
    fn signing_keys_are_what_kubernetes_reads() {
        let (private, public) = new_signing_key().expect("key");
        assert!(private.starts_with("-----BEGIN EC PRIVATE KEY-----\n"), "not PKCS #8");
        assert!(private.lines().all(|line| line.len() <= 64));
        assert!(is_signing_pair(&private, &public));
        let (other, _) = new_signing_key().expect("key");
        assert!(!is_signing_pair(&other, &public) && !is_signing_pair(&private, ""));
        assert_eq!(KeyPair::from_pem(&private).expect("parses").public_key_pem(), public);
        // Go needs the curve inside, which PKCS #8 says outside: prime256v1.
        let body: String = private.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body).expect("base64");
        let curve = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        assert!(der.windows(curve.len()).any(|window| window == curve));
    }

    #[test]
    fn renewed_when_names_change_or_time_runs_out_or_the_ca_is_another() {
        let now = at("2026-01-01T00:00:00Z");
        let ca = new_ca("ca", now).expect("ca");
        let wanted = leaf(&["a.example"]);
        let pair = new_leaf(&ca, &wanted, now).expect("leaf");
        assert!(!is_current(&pair, &ca, &leaf(&["a.example", "b.example"]), now));
        assert!(!is_current(&pair, &ca, &Leaf { common_name: "x".to_owned(), ..wanted.clone() }, now));
        assert!(!is_current(&pair, &ca, &Leaf { organization: Some("o"), ..wanted.clone() }, now));
        assert!(!is_current(&pair, &ca, &Leaf { usage: Usage::Client, ..wanted.clone() }, now));
        assert!(is_current(&pair, &ca, &wanted, at("2026-11-30T00:00:00Z")));
        assert!(!is_current(&pair, &ca, &wanted, at("2026-12-05T00:00:00Z")));
        let other = new_ca("ca", now).expect("ca");
        assert!(!is_current(&pair, &other, &wanted, now));
        let mixed = Pair { certificate: pair.certificate, key: other.key.clone() };
        assert!(!is_current(&mixed, &ca, &wanted, now));
        assert!(!is_usable_ca(&Pair { certificate: ca.certificate.clone(), key: other.key }, now));
        assert!(!is_usable_ca(&ca, at("2036-06-01T00:00:00Z")));
    }
}
