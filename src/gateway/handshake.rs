//! The TLS handshake: which certificate to show, and what the connection is bound to afterwards.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::Binding;
use super::connections::Pass;
use super::metrics::HandshakeFailure;
use super::shared::Gateway;
use crate::names::reserved::normal;
use crate::tenant::life::Follower;
use crate::tenant::{Snapshot, Tenant};
use crate::tls::ServerTls;

/// A connection behind its handshake.
pub(super) struct Shaken {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) binding: Binding,
    /// Of the tenant that the binding names.
    pub(super) life: Option<Follower>,
    pub(super) is_http2: bool,
    pub(super) chain: Vec<CertificateDer<'static>>,
}

struct Chosen {
    binding: Binding,
    tls: ServerTls,
    life: Option<Follower>,
}

/// Reads the ClientHello, chooses the certificate and finishes; both halves within one deadline.
pub(super) async fn shake(
    gateway: &Gateway,
    stream: TcpStream,
    port: Option<u16>,
    pass: &Pass,
) -> Result<Shaken, HandshakeFailure> {
    let deadline = gateway.config.handshake_timeout.0;
    tokio::time::timeout(deadline, both_halves(gateway, stream, port, pass))
        .await
        .unwrap_or(Err(HandshakeFailure::Timeout))
}

async fn both_halves(
    gateway: &Gateway,
    stream: TcpStream,
    port: Option<u16>,
    pass: &Pass,
) -> Result<Shaken, HandshakeFailure> {
    let protocol = |error: std::io::Error| {
        tracing::debug!(%error, "TLS handshake failed");
        HandshakeFailure::Protocol
    };
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await.map_err(protocol)?;
    let Chosen { binding, tls, life } = {
        let snapshot = gateway.registry.load();
        choose(gateway, &snapshot, port, hello.client_hello().server_name()).ok_or(HandshakeFailure::NoCertificate)?
    };
    binding.tenant().map_or(Ok(()), |tenant| pass.bind(tenant))?;
    let stream = hello.into_stream(Arc::clone(tls.config())).await.map_err(protocol)?;
    let session = stream.get_ref().1;
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let chain = session.peer_certificates().unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect();
    Ok(Shaken { stream, binding, life, is_http2, chain })
}

fn choose(gateway: &Gateway, snapshot: &Snapshot, port: Option<u16>, sni: Option<&str>) -> Option<Chosen> {
    let of = |binding, tenant: &Tenant| Chosen {
        binding,
        tls: tenant.server_tls.clone(),
        life: Some(tenant.life.follow(tenant.generation)),
    };
    if let Some(port) = port {
        let tenant = snapshot.by_port(port)?;
        return Some(of(Binding::Port(port, tenant.id.clone()), tenant));
    }
    if let Some(name) = sni.and_then(normal)
        && !gateway.names.has(&name)
        && let Some(tenant) = snapshot.by_host(&name)
    {
        return Some(of(Binding::Name(name, tenant.id.clone()), tenant));
    }
    Some(Chosen { binding: Binding::Shared, tls: ServerTls::clone(&*gateway.shared.load()?), life: None })
}
