//! Serving certificates of a gateway without a host cluster.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Serving certificates where there is no host cluster, whose Secrets hold them otherwise. Paths begin at the folder of this file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CertificatesConfig {
    /// Where Portico keeps the CA that it makes for itself: `ca.crt` there is what clients trust, and `ca.pem`, which has its key
    /// as well, nobody else's business. Not used with the next two.
    pub folder: String,
    /// A certificate (PEM, with its chain) for all names and ports instead. It is read again when it changes.
    pub certificate_file: String,
    /// Its key.
    pub key_file: String,
}

impl Default for CertificatesConfig {
    fn default() -> Self {
        Self { folder: "portico-certificates".to_owned(), certificate_file: String::new(), key_file: String::new() }
    }
}

impl CertificatesConfig {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |message: &str| Err(Error::client(Kind::Invalid, message));
        if self.certificate_file.is_empty() != self.key_file.is_empty() {
            return refuse("certificates.certificateFile and certificates.keyFile must come together");
        }
        if self.folder.is_empty() && self.certificate_file.is_empty() {
            return refuse("certificates.folder must be named, or certificates.certificateFile");
        }
        Ok(())
    }
}
