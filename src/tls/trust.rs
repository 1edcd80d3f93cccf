//! The same client configuration with another opinion about whom it speaks to: kubelets, whose certificates may come from
//! elsewhere than the API server's.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::key_proof::KeyProof;
use super::{certificates_from_pem, provider};
use crate::error::{Error, Kind, Result};

/// Trusts the CAs of this PEM text instead.
pub fn trusting(config: &ClientConfig, roots: &[u8]) -> Result<Arc<ClientConfig>> {
    let mut store = RootCertStore::empty();
    for root in certificates_from_pem(roots)? {
        store.add(root).map_err(|e| Error::own(Kind::Tls, "a server CA cannot be used").because(e))?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
        .build()
        .map_err(|e| Error::own(Kind::Tls, "server CAs cannot be used").because(e))?;
    Ok(with(config, verifier))
}

/// Trusts whoever answers.
pub fn trusting_anybody(config: &ClientConfig) -> Arc<ClientConfig> {
    with(config, Arc::new(Anybody(KeyProof::new(provider()))))
}

/// No session that was begun under another opinion is resumed.
fn with(config: &ClientConfig, verifier: Arc<dyn ServerCertVerifier>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(config);
    config.dangerous().set_certificate_verifier(verifier);
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// The key of the certificate that it shows is all that is asked for.
#[derive(Debug)]
struct Anybody(KeyProof);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.schemes()
    }
}
