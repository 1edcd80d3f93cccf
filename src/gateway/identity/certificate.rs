//! A client certificate's subject, read as kube-apiserver reads it.

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::user::Identity;
use crate::error::{Error, Kind, Result};

/// Subject attribute that carries a uid (`k8s.io/apiserver/pkg/authentication/request/x509`).
const UID_OID: &str = "1.3.6.1.4.1.57683.2";
const COMMON_NAME_OID: &str = "2.5.4.3";
const ORGANIZATION_OID: &str = "2.5.4.10";

impl Identity {
    /// From a verified leaf certificate (DER). `None` when it has no common name: such a certificate says nothing.
    pub fn from_certificate(der: &[u8]) -> Result<Option<Self>> {
        read(der)
    }
}

/// The first second in which a certificate (DER) is no longer valid (RFC 5280, 4.1.2.5: the last one is included). `None`
/// when it cannot be read or that is beyond the calendar.
pub fn end_of_validity(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp().checked_add(1)?).ok()
}

fn read(der: &[u8]) -> Result<Option<Identity>> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| refuse("cannot be read").because(e))?;
    let mut user = String::new();
    let mut groups = Vec::new();
    let mut uid = None;
    for attribute in certificate.subject().iter_attributes() {
        let text =
            || attribute.as_str().map(str::to_owned).map_err(|e| refuse("has a name in an unknown form").because(e));
        match attribute.attr_type().to_id_string().as_str() {
            // Go keeps the last common name
            COMMON_NAME_OID => user = text()?,
            ORGANIZATION_OID => groups.push(text()?),
            UID_OID => {
                let text = text()?;
                if text.is_empty() || uid.replace(text).is_some() {
                    return Err(refuse("must have exactly one uid that is not empty"));
                }
            }
            _ => {}
        }
    }
    if user.is_empty() {
        return Ok(None);
    }
    groups.retain(|group| !group.is_empty());
    let digest = HEXLOWER.encode(&Sha256::digest(der));
    let extra = vec![("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("X509SHA256={digest}")])];
    Ok(Some(Identity { user, groups, uid, extra }))
}

fn refuse(what: &str) -> Error {
    Error::client(Kind::Unauthorized, format!("the client certificate {what}"))
}
