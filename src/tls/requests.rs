//! Requests for certificates (PKCS#10), judged: whether whoever sends one holds its key, and whether that key is of a kind that we sign.
//!
//! Promises: what is read is bounded by [`LONGEST`]; nothing of a request is taken but its key, written anew. Must not know whom a
//! certificate will name.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::der;
use crate::error::{Error, Kind, Result};

/// The longest request in PEM.
pub const LONGEST: usize = 8 << 10;
/// Bits of RSA keys.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// Bytes of an RSA exponent: those beyond 33 bits cost whoever verifies.
const LONGEST_EXPONENT: usize = 4;

const EC: &str = "1.2.840.10045.2.1";
const RSA: &str = "1.2.840.113549.1.1.1";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";

/// A public key of a kind that we sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// A point of the curve P-256, uncompressed.
    P256(Vec<u8>),
    /// The same of P-384.
    P384(Vec<u8>),
    /// Modulus and exponent, without leading zeros.
    Rsa(Vec<u8>, Vec<u8>),
}

impl PublicKey {
    /// The key of a request whose signature proves that its sender holds it. Errors say what is wrong with it, for its sender.
    pub fn requested(pem: &str) -> Result<Self> {
        if pem.len() > LONGEST {
            return Err(refused("is longer than 8 KiB"));
        }
        let mut found = CertificateSigningRequestDer::pem_slice_iter(pem.as_bytes());
        let der = match (found.next(), found.next()) {
            (Some(Ok(der)), None) => der,
            _ => return Err(refused("is not exactly one block CERTIFICATE REQUEST of PEM")),
        };
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| refused("cannot be read"))?;
        if !rest.is_empty() {
            return Err(refused("is followed by something"));
        }
        let key = Self::parse(&request.certification_request_info.subject_pki)?;
        let by = request.signature_algorithm.algorithm.to_id_string();
        let algorithm = key.algorithm(&by).ok_or_else(|| refused("is not signed with SHA-256, SHA-384 or SHA-512"))?;
        let signed = UnparsedPublicKey::new(algorithm, key.bytes())
            .verify(request.certification_request_info.raw, &request.signature_value.data);
        signed.map_err(|_| refused("is not signed by its own key"))?;
        Ok(key)
    }

    /// Of a key in a `SubjectPublicKeyInfo` (DER).
    pub fn from_info(der: &[u8]) -> Result<Self> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| refused("has a key that cannot be read"))?;
        Self::parse(&info)
    }

    fn parse(info: &SubjectPublicKeyInfo<'_>) -> Result<Self> {
        let kind = info.algorithm.algorithm.to_id_string();
        let parsed = info.parsed().map_err(|_| refused("has a key that cannot be read"))?;
        match (kind.as_str(), parsed) {
            (EC, Parsed::EC(point)) => {
                let curve = info.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|p| p.to_id_string());
                let point = point.data();
                match (curve.as_deref(), point.first(), point.len()) {
                    (Some(P256), Some(4), 65) => Ok(Self::P256(point.to_vec())),
                    (Some(P384), Some(4), 97) => Ok(Self::P384(point.to_vec())),
                    _ => Err(unknown_key()),
                }
            }
            (RSA, Parsed::RSA(key)) => {
                let (modulus, exponent) = (significant(key.modulus), significant(key.exponent));
                let bits = modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
                let is_sound = exponent.len() <= LONGEST_EXPONENT && exponent.last().is_some_and(|last| last % 2 == 1);
                if RSA_BITS.contains(&bits) && is_sound {
                    Ok(Self::Rsa(modulus.to_vec(), exponent.to_vec()))
                } else {
                    Err(unknown_key())
                }
            }
            _ => Err(unknown_key()),
        }
    }

    /// As what comes over the key's algorithm, which is the key's word and not the signature's.
    fn algorithm(&self, signed_by: &str) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match (self, signed_by) {
            (Self::P256(_), "1.2.840.10045.4.3.2") => &signature::ECDSA_P256_SHA256_ASN1,
            (Self::P256(_), "1.2.840.10045.4.3.3") => &signature::ECDSA_P256_SHA384_ASN1,
            (Self::P384(_), "1.2.840.10045.4.3.2") => &signature::ECDSA_P384_SHA256_ASN1,
            (Self::P384(_), "1.2.840.10045.4.3.3") => &signature::ECDSA_P384_SHA384_ASN1,
            (Self::Rsa(..), "1.2.840.113549.1.1.11") => &signature::RSA_PKCS1_2048_8192_SHA256,
            (Self::Rsa(..), "1.2.840.113549.1.1.12") => &signature::RSA_PKCS1_2048_8192_SHA384,
            (Self::Rsa(..), "1.2.840.113549.1.1.13") => &signature::RSA_PKCS1_2048_8192_SHA512,
            _ => return None,
        })
    }

    /// The content of the bit string.
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::P256(point) | Self::P384(point) => point.clone(),
            Self::Rsa(modulus, exponent) => der::sequence(&[&der::integer(modulus), &der::integer(exponent)]),
        }
    }

    /// `SubjectPublicKeyInfo`, in its one form.
    pub(super) fn info(&self) -> Vec<u8> {
        const EC_ID: [u8; 9] = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
        const P256_ID: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        const P384_ID: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
        const RSA_ID: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
        let algorithm = match self {
            Self::P256(_) => der::sequence(&[&EC_ID, &P256_ID]),
            Self::P384(_) => der::sequence(&[&EC_ID, &P384_ID]),
            Self::Rsa(..) => der::sequence(&[&RSA_ID, &der::NULL]),
        };
        der::sequence(&[&algorithm, &der::bit_string(&self.bytes())])
    }
}

fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn unknown_key() -> Error {
    refused("has a key of a kind that is not signed: take ECDSA P-256 or P-384, or RSA of 2048 to 4096 bits")
}

fn refused(what: &str) -> Error {
    Error::client(Kind::Invalid, format!("the request for a certificate {what}"))
}

#[cfg(test)]
mod tests;
