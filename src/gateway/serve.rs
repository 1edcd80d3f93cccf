//! Serving one connection: from its handshake to its end, over h2 or h1 as agreed by ALPN.
//!
//! Extended CONNECT (RFC 8441) stays off: API servers do not speak it.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::authenticate::Certificates;
use super::connection::{Connection, too_late_to_begin};
use super::connections::Pass;
use super::metrics::HandshakeFailure;
use super::reading::{self, Reading, Streams};
use super::shared::Gateway;
use super::{handshake, proxied, request};
use crate::error::BoxError;
use crate::runtime::drain::Drain;

/// Clients open further connections by themselves beyond this.
const MAX_STREAMS: u32 = 1_000;
/// Nearly all objects fit into one window.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// OIDC tokens with many groups exceed hyper's 16 KiB.
const HEADER_LIST: u32 = 64 << 10;
const MAX_HEADERS: usize = 256;
/// This much waits for each slow reader.
const SEND_BUFFER: usize = 64 << 10;
/// Dead NAT paths would hold watches forever.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// For a whole h1 head, and for the next one on an idle connection.
const HEADER_READ: Duration = Duration::from_secs(60);
/// For an idle client to take note of our end.
const GOODBYE: Duration = Duration::from_secs(2);

/// A socket that was just accepted.
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// The tenant's port that it came to.
    pub(super) port: Option<u16>,
    pub(super) pass: Pass,
}

/// Serves one accepted socket to its end.
pub(super) async fn connection(gateway: Arc<Gateway>, socket: Socket, mut drain: Drain) {
    let Socket { mut stream, peer, port, pass } = socket;
    let peer = match origin(&gateway, &mut stream, peer, &pass).await {
        Ok(peer) => peer,
        Err(why) => return gateway.metrics.handshake_failed(why),
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let shaken = tokio::select! {
        shaken = handshake::shake(&gateway, stream, port, &pass) => shaken,
        () = too_late_to_begin(&mut drain) => return,
    };
    let shaken = match shaken {
        Ok(shaken) => shaken,
        Err(why) => return gateway.metrics.handshake_failed(why),
    };
    pass.shaken();
    let (certificates, is_http2) = (Certificates::new(shaken.chain), shaken.is_http2);
    let bound = (shaken.binding, shaken.life);
    let connection = Connection::new(gateway, bound, certificates, is_http2, (peer, pass), drain);
    let outcome = if is_http2 {
        Box::pin(serve_http2(connection, shaken.stream)).await
    } else {
        Box::pin(serve_http1(connection, shaken.stream)).await
    };
    if let Err(error) = outcome {
        tracing::debug!(%peer, error, "connection ended");
    }
}

/// Where it is from: what a load balancer says, else the peer.
async fn origin(
    gateway: &Gateway,
    stream: &mut TcpStream,
    peer: SocketAddr,
    pass: &Pass,
) -> Result<SocketAddr, HandshakeFailure> {
    if !proxied::is_relay(&gateway.config, peer.ip()) {
        return Ok(peer);
    }
    let header = tokio::time::timeout(gateway.config.handshake_timeout.0, proxied::source(stream)).await;
    let header = header.map_err(|_| HandshakeFailure::Timeout)?;
    let source = header.map_err(|error| {
        tracing::debug!(%peer, %error, "no PROXY header");
        HandshakeFailure::Protocol
    })?;
    let peer = source.unwrap_or(peer);
    pass.is_from(peer.ip())?;
    Ok(peer)
}

async fn serve_http2(connection: Arc<Connection>, stream: TlsStream<TcpStream>) -> Result<(), BoxError> {
    let shared = Arc::clone(&connection);
    let service = service_fn(move |request| {
        let connection = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(Box::pin(request::serve(&connection, Reading::current(), request)).await) }
    });
    let streams = Streams { patience: connection.gateway.config.standstill_timeout.0 };
    let serving = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    until_over(&connection, serving, http2::Connection::graceful_shutdown).await
}

async fn serve_http1(connection: Arc<Connection>, stream: TlsStream<TcpStream>) -> Result<(), BoxError> {
    let (shared, newest) = (Arc::clone(&connection), Arc::new(Mutex::new(Arc::<Reading>::default())));
    let begun = Arc::clone(&newest);
    let service = service_fn(move |request| {
        let (connection, reading) = (Arc::clone(&shared), Arc::<Reading>::default());
        *begun.lock() = Arc::clone(&reading);
        async move { Ok::<_, Infallible>(Box::pin(request::serve(&connection, reading, request)).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ)
        .max_headers(MAX_HEADERS)
        .max_header_size(HEADER_LIST as usize)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let serving = until_over(&connection, serving, http1::UpgradeableConnection::graceful_shutdown);
    tokio::select! {
        biased;
        outcome = serving => outcome,
        () = reading::stands_still(&newest, connection.gateway.config.standstill_timeout.0) => {
            Err("nothing was taken of its answer".into())
        }
    }
}

/// Drives a connection; once it is over no request more is taken, and past the drain's deadline it is cut. So it is soon
/// when no request runs.
async fn until_over<C, E>(connection: &Connection, serving: C, close: impl Fn(Pin<&mut C>)) -> Result<(), BoxError>
where
    C: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let mut serving = std::pin::pin!(serving);
    let mut drain = connection.drain.clone();
    tokio::select! {
        outcome = serving.as_mut() => return outcome.map_err(Into::into),
        () = connection.is_over() => {}
    }
    close(serving.as_mut());
    if connection.is_idle() {
        match tokio::time::timeout(GOODBYE, serving.as_mut()).await {
            Ok(outcome) => return outcome.map_err(Into::into),
            Err(_) if connection.is_idle() => return Err("it took no note of its end".into()),
            Err(_) => {}
        }
    }
    tokio::select! {
        outcome = serving.as_mut() => return outcome.map_err(Into::into),
        deadline = drain.signaled() => {
            if let Ok(outcome) = tokio::time::timeout_at(deadline, serving.as_mut()).await {
                return outcome.map_err(Into::into);
            }
        }
    }
    Err("cut at the end of the drain".into())
}
