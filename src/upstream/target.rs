//! Where an API server is and as whom we speak to it.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::reach::Reach;
use crate::error::Side;

/// One API server.
#[derive(Clone)]
pub struct Target {
    /// Who is to blame for its failures: [`Side::Backend`] or [`Side::Host`].
    pub side: Side,
    /// Name or IP to dial.
    pub host: String,
    /// Port to dial.
    pub port: u16,
    /// Name verified in its certificate (and sent as SNI when it is a DNS name).
    pub server_name: ServerName<'static>,
    /// Roots and client certificate. ALPN is set by the pool.
    pub tls: Arc<rustls::ClientConfig>,
    /// The same roots without a client certificate, for requests that carry the caller's own token.
    pub tls_without_identity: Arc<rustls::ClientConfig>,
    /// Added to every request of the identity classes that has no `Authorization` header.
    pub credential: Credential,
    /// Path prefix of the server's URL, without a trailing slash; usually empty.
    pub path_prefix: String,
    /// Which addresses `host` may lead to.
    pub reach: Reach,
}

/// Our own credential towards an API server, beside the client certificate in its TLS configuration.
#[derive(Clone)]
pub enum Credential {
    /// The certificate says it all.
    Certificate,
    /// A fixed bearer token.
    Token(Arc<str>),
    /// A token file, read again at least every minute (mounted ServiceAccount tokens rotate).
    TokenFile(PathBuf),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Certificate => "Certificate",
            Self::Token(_) => "Token(…)",
            Self::TokenFile(_) => "TokenFile(…)",
        })
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("side", &self.side)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("server_name", &self.server_name)
            .field("credential", &self.credential)
            .finish_non_exhaustive()
    }
}
