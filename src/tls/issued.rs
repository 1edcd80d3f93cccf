//! Client certificates for a user and any number of groups, signed by a CA of ours: what `rcgen` cannot write, since its names
//! hold one organization.
//!
//! Promises: a certificate names exactly whom it was asked for, is good for nothing but client authentication, and never outlives
//! its CA. Must not know who may have one.

use jiff::{Span, Timestamp};
use rcgen::{KeyPair, SigningKey};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificates::{Pair, pem};
use super::requests::PublicKey;
use super::{certificates_from_pem, der};
use crate::error::{Error, Kind, Result};

/// Clocks of whoever verifies may be behind ours by this.
const BACKDATED: i64 = 300;
/// From 2050 on times are written otherwise (RFC 5280, 4.1.2.5).
const YEAR_2050: i64 = 2_524_608_000;

const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
const ORGANIZATION: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x0a];
const KEY_USAGE: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x0f];
const EXTENDED_KEY_USAGE: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x25];
const BASIC_CONSTRAINTS: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x13];
const AUTHORITY_KEY: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x23];
const CLIENT_AUTH: [u8; 10] = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
const ECDSA_SHA256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_SHA384: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
const RSA_SHA256: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];

/// Whom a certificate names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
}

/// A certificate, and the last moment at which it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM.
    pub certificate: String,
    pub not_after: Timestamp,
}

/// Signs a key. `serial` is 16 random bytes; the certificate ends after `seconds`, or with its CA.
pub fn issue(
    ca: &Pair,
    subject: Subject<'_>,
    key: &PublicKey,
    (now, seconds): (Timestamp, i64),
    serial: [u8; 16],
) -> Result<Issued> {
    let ca_ders = certificates_from_pem(ca.certificate.as_bytes())?;
    let ca_der = ca_ders.first().ok_or_else(|| unusable("has no certificate"))?;
    let (_, issuer) = X509Certificate::from_der(ca_der).map_err(|_| unusable("cannot be read"))?;
    let signer = KeyPair::from_pem(&ca.key).map_err(|e| unusable("has no usable key").because(e))?;
    let algorithm = signature_algorithm(&signer)?;
    let ca_ends = issuer.validity().not_after.timestamp();
    let until = now.as_second().saturating_add(seconds).min(ca_ends);
    let not_after = Timestamp::from_second(until).map_err(|_| unusable("lives too long"))?;
    let from = now.checked_sub(Span::new().seconds(BACKDATED)).unwrap_or(now);
    // Positive, and of one length.
    let mut number = serial;
    number[0] = (number[0] & 0x7f) | 0x40;
    let certificate = der::sequence(&[
        &der::tagged(der::CONTEXT[0], &der::integer(&[2])),
        &der::integer(&number),
        &algorithm,
        issuer.subject().as_raw(),
        &der::sequence(&[&time(from), &time(not_after)]),
        &name(subject),
        &key.info(),
        &der::tagged(der::CONTEXT[3], &extensions(&issuer)),
    ]);
    let signature = signer.sign(&certificate).map_err(|e| unusable("cannot sign").because(e))?;
    let whole = der::sequence(&[&certificate, &algorithm, &der::bit_string(&signature)]);
    Ok(Issued { certificate: pem("CERTIFICATE", &whole), not_after })
}

/// A serial number. Not of the process's clock, whose randomness tests know.
pub fn serial() -> Result<[u8; 16]> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|e| Error::own(Kind::Internal, "there is no randomness").because(e))?;
    Ok(serial)
}

/// Makes a key and signs it: certificate and key.
pub fn issue_pair(
    ca: &Pair,
    subject: Subject<'_>,
    life: (Timestamp, i64),
    serial: [u8; 16],
) -> Result<(Pair, Timestamp)> {
    let key = KeyPair::generate().map_err(|e| Error::own(Kind::Tls, "a key cannot be made").because(e))?;
    let public = PublicKey::from_info(&rcgen::PublicKeyData::subject_public_key_info(&key))?;
    let issued = issue(ca, subject, &public, life, serial)?;
    Ok((Pair { certificate: issued.certificate, key: key.serialize_pem() }, issued.not_after))
}

/// A new key and a request for a certificate of it, both PEM. The key goes nowhere.
pub fn new_request() -> Result<(String, String)> {
    let broken = |e: rcgen::Error| Error::own(Kind::Tls, "a request for a certificate cannot be made").because(e);
    let key = KeyPair::generate().map_err(broken)?;
    let mut params = rcgen::CertificateParams::new(Vec::new()).map_err(broken)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(broken)?;
    Ok((key.serialize_pem(), request))
}

/// The last moment at which the first certificate of a PEM text is good.
pub fn ends(pem: &str) -> Option<Timestamp> {
    super::not_after(certificates_from_pem(pem.as_bytes()).ok()?.first()?)
}

fn signature_algorithm(signer: &KeyPair) -> Result<Vec<u8>> {
    let algorithm = signer.algorithm();
    if *algorithm == rcgen::PKCS_ECDSA_P256_SHA256 {
        Ok(der::sequence(&[&ECDSA_SHA256]))
    } else if *algorithm == rcgen::PKCS_ECDSA_P384_SHA384 {
        Ok(der::sequence(&[&ECDSA_SHA384]))
    } else if *algorithm == rcgen::PKCS_RSA_SHA256 {
        Ok(der::sequence(&[&RSA_SHA256, &der::NULL]))
    } else {
        Err(unusable("has a key of another kind than ECDSA P-256, P-384 or RSA"))
    }
}

/// Groups in their order, then the user: as `kubeadm` writes them, and as Go reads them.
fn name(subject: Subject<'_>) -> Vec<u8> {
    let part = |kind: &[u8], text: &str| der::set(&der::sequence(&[kind, &der::text(text)]));
    let mut parts: Vec<Vec<u8>> = subject.groups.iter().map(|group| part(&ORGANIZATION, group)).collect();
    parts.push(part(&COMMON_NAME, subject.user));
    der::sequence(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn time(at: Timestamp) -> Vec<u8> {
    let (tag, form) = if at.as_second() < YEAR_2050 { (0, "%y%m%d%H%M%SZ") } else { (1, "%Y%m%d%H%M%SZ") };
    der::tagged(der::TIMES[tag], at.strftime(form).to_string().as_bytes())
}

fn extensions(issuer: &X509Certificate<'_>) -> Vec<u8> {
    let critical = |id: &[u8], content: &[u8]| der::sequence(&[id, &der::TRUE, &der::octets(content)]);
    // digitalSignature is the first bit.
    let mut all = critical(&KEY_USAGE, &der::bits(7, &[0x80]));
    all.extend(der::sequence(&[&EXTENDED_KEY_USAGE, &der::octets(&der::sequence(&[&CLIENT_AUTH]))]));
    all.extend(critical(&BASIC_CONSTRAINTS, &der::sequence(&[])));
    let of_issuer = issuer.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    if let Some(id) = of_issuer {
        let content = der::sequence(&[&der::tagged(der::CONTEXT_BYTES, id)]);
        all.extend(der::sequence(&[&AUTHORITY_KEY, &der::octets(&content)]));
    }
    der::sequence(&[&all])
}

fn unusable(what: &str) -> Error {
    Error::own(Kind::Tls, format!("the client CA {what}"))
}

#[cfg(test)]
mod tests;
