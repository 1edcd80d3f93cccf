//! TLS building blocks: server and client configurations, and client certificates judged per request.
//!
//! Promises: one crypto provider (aws-lc-rs); no session is ever resumed (a ticket would carry one tenant's client
//! certificate past a change of its CA, rustls docs on `ServerConfig`); client certificates are only *requested* in
//! the handshake, with an empty hint list (client-go ignores hints, Java and browsers filter by them), and verified
//! per request against the tenant's current CA.

pub mod certificates;
mod der;
pub mod issued;
mod key_proof;
pub mod requests;
pub mod trust;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use self::key_proof::KeyProof;
use crate::error::{Error, Kind, Result};

/// The provider that everything uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A serving certificate, ready to accept with.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    not_after: Option<Timestamp>,
}

impl ServerTls {
    /// From a PEM chain (leaf first) and its PEM key. Offers h2 and http/1.1.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self> {
        let chain = certificates_from_pem(chain)?;
        let not_after = chain.first().and_then(|leaf| not_after(leaf));
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|e| Error::own(Kind::Tls, "a private key cannot be read").because(e))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::own(Kind::Tls, "no TLS version is usable").because(e))?
            .with_client_cert_verifier(Arc::new(RequestedNotJudged(KeyProof::new(provider()))))
            .with_single_cert(chain, key)
            .map_err(|e| Error::own(Kind::Tls, "certificate and key do not fit").because(e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), not_after })
    }

    /// For the acceptor.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// The last moment at which clients take the leaf, as far as it can be read.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.not_after
    }

    /// For an acceptor that speaks HTTP/1.1 only.
    pub fn http1_config(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerTls")
    }
}

/// The certificate of listeners that all tenants share; whoever makes or renews it sets it, handshakes take the newest.
#[derive(Debug, Clone, Default)]
pub struct SharedCertificate(Arc<ArcSwapOption<ServerTls>>);

impl SharedCertificate {
    /// Puts a certificate in force for the next handshakes.
    pub fn set(&self, certificate: ServerTls) {
        self.0.store(Some(Arc::new(certificate)));
    }

    /// The certificate in force.
    pub fn load(&self) -> Option<Arc<ServerTls>> {
        self.0.load_full()
    }
}

/// The CA that a tenant's client certificates must chain to.
#[derive(Debug, Clone)]
pub struct ClientTrust {
    anchors: Vec<TrustAnchor<'static>>,
}

impl ClientTrust {
    /// No certificate is valid.
    pub fn nobody() -> Self {
        Self { anchors: Vec::new() }
    }

    /// From PEM; at least one certificate.
    pub fn from_pem(ca: &[u8]) -> Result<Self> {
        let anchors = certificates_from_pem(ca)?
            .iter()
            .map(|der| webpki::anchor_from_trusted_cert(der).map(|a| a.to_owned()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| Error::own(Kind::Tls, "a client CA cannot be used").because(e))?;
        Ok(Self { anchors })
    }

    /// Verifies a chain as presented in the handshake (leaf first): signature path, validity at `now`, ClientAuth EKU.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<()> {
        let refuse = |e: webpki::Error| {
            Error::client(Kind::Unauthorized, "the client certificate is not valid for this cluster").because(e)
        };
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(Error::client(Kind::Unauthorized, "no client certificate"));
        };
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        webpki::EndEntityCert::try_from(leaf)
            .map_err(refuse)?
            .verify_for_usage(
                provider().signature_verification_algorithms.all,
                &self.anchors,
                intermediates,
                UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)),
                webpki::KeyUsage::client_auth(),
                None,
                None,
            )
            .map(|_| ())
            .map_err(refuse)
    }
}

/// A client configuration that trusts `roots` (PEM) and may present an identity (PEM chain and key). No ALPN is set.
pub fn client_config(roots: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<Arc<ClientConfig>> {
    let mut store = RootCertStore::empty();
    for root in certificates_from_pem(roots)? {
        store.add(root).map_err(|e| Error::own(Kind::Tls, "a server CA cannot be used").because(e))?;
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::own(Kind::Tls, "no TLS version is usable").because(e))?
        .with_root_certificates(store);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|e| Error::own(Kind::Tls, "a private key cannot be read").because(e))?;
            builder
                .with_client_auth_cert(certificates_from_pem(chain)?, key)
                .map_err(|e| Error::own(Kind::Tls, "certificate and key do not fit").because(e))?
        }
    };
    config.resumption = rustls::client::Resumption::in_memory_sessions(4);
    Ok(Arc::new(config))
}

/// One that trusts nobody: for connections without TLS.
pub fn client_config_without_roots() -> Result<Arc<ClientConfig>> {
    of_roots(RootCertStore::empty())
}

/// One that trusts whom browsers trust (Mozilla's list): for servers of the web.
pub fn client_config_of_the_web() -> Result<Arc<ClientConfig>> {
    of_roots(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
}

fn of_roots(roots: RootCertStore) -> Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::own(Kind::Tls, "no TLS version is usable").because(e))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// All certificates of a PEM text; an error when there is none.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let list = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::own(Kind::Tls, "a certificate cannot be read").because(e))?;
    if list.is_empty() {
        return Err(Error::own(Kind::Tls, "there is no certificate in the PEM text"));
    }
    Ok(list)
}

fn not_after(leaf: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    Timestamp::from_second(leaf.validity().not_after.timestamp()).ok()
}

/// Asks for a client certificate and proves only that the client holds its key. Whom it names is decided per request
/// by [`ClientTrust`], since by path routing the tenant is unknown at the handshake, and a bad certificate must be an
/// HTTP 401 with a Status as from a real API server.
#[derive(Debug)]
struct RequestedNotJudged(KeyProof);

impl ClientCertVerifier for RequestedNotJudged {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
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
