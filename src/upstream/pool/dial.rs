//! Address, TCP, TLS and the HTTP preface.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri, Version, header};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::class::Class;
use super::open::{Connection, Http1, Http2, STREAM_CAP};
use crate::error::{Error, Kind, Result, Side};
use crate::runtime::task;
use crate::upstream::{Body, Reach, Target};

/// What an API server may send of one answer before it is read.
pub const STREAM_WINDOW: u32 = 256 << 10;
/// All streams stalled at once still leave room for none to block another (rust.md 0.3): a bound, not a use.
const fn connection_window(stream: u32) -> u32 {
    STREAM_CAP as u32 * stream
}
/// Of what stays long: a tenant has ten times as many of these, and of each that nobody reads so much waits here.
pub const LONG_STREAM_WINDOW: u32 = 64 << 10;
const SEND_BUFFER: usize = 64 << 10;
const HEADER_LIST: u32 = 128 << 10;
const MAX_HEADERS: usize = 256;
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(20);
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// Of a name, that are judged and tried.
const MAX_ADDRESSES: usize = 16;

/// The target as a request names it.
#[derive(Clone)]
pub(super) struct Address {
    authority: Option<Authority>,
    host: Option<HeaderValue>,
    prefix: String,
    side: Side,
}

impl Address {
    pub(super) fn new(target: &Target) -> Self {
        let host = if target.host.contains(':') && !target.host.starts_with('[') {
            format!("[{}]", target.host)
        } else {
            target.host.clone()
        };
        let text = if target.port == 443 { host } else { format!("{host}:{}", target.port) };
        Self {
            authority: Authority::try_from(text.as_str()).ok(),
            host: HeaderValue::try_from(text).ok(),
            prefix: target.path_prefix.clone(),
            side: target.side,
        }
    }

    /// Makes the URI full: scheme, authority, the server's path prefix.
    pub(super) fn prepare(&self, request: &mut Request<Body>) -> Result<()> {
        let bad = || Error::new(self.side, Kind::Internal, "the API server's address is not valid");
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.authority.clone().ok_or_else(bad)?);
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        parts.path_and_query = Some(if self.prefix.is_empty() {
            path
        } else {
            PathAndQuery::try_from(format!("{}{path}", self.prefix)).map_err(|_| bad())?
        });
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad())?;
        request.headers_mut().remove(header::HOST);
        Ok(())
    }

    /// Gives a prepared request the form of its connection's protocol; may be done again for another.
    pub(super) fn fit(&self, request: &mut Request<Body>, http2: bool) {
        if http2 {
            *request.version_mut() = Version::HTTP_2;
            request.headers_mut().remove(header::HOST);
            if request.uri().authority().is_none() {
                let mut parts = std::mem::take(request.uri_mut()).into_parts();
                parts.scheme = Some(Scheme::HTTPS);
                parts.authority = self.authority.clone();
                *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
            }
            return;
        }
        *request.version_mut() = Version::HTTP_11;
        if let Some(host) = &self.host {
            request.headers_mut().insert(header::HOST, host.clone());
        }
        if request.uri().authority().is_some() {
            let path = std::mem::take(request.uri_mut()).into_parts().path_and_query;
            *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
        }
    }
}

/// Opens connections to one target.
pub(super) struct Dialer {
    side: Side,
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    reach: Reach,
    pooled: [Arc<ClientConfig>; 2],
    upgrade: [Arc<ClientConfig>; 2],
}

impl Dialer {
    pub(super) fn new(target: &Target) -> Self {
        let with = |config: &Arc<ClientConfig>, protocols: &[&[u8]]| {
            let mut config = ClientConfig::clone(config);
            config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
            Arc::new(config)
        };
        let bare = &target.tls_without_identity;
        Self {
            side: target.side,
            host: target.host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: target.port,
            server_name: target.server_name.clone(),
            reach: target.reach.clone(),
            pooled: [with(bare, &[b"h2", b"http/1.1"]), with(&target.tls, &[b"h2", b"http/1.1"])],
            upgrade: [with(bare, &[b"http/1.1"]), with(&target.tls, &[b"http/1.1"])],
        }
    }

    /// A connection for many requests: HTTP/2, or HTTP/1.1 when the peer wants that.
    pub(super) async fn pooled(&self, class: Class) -> Result<Connection> {
        let stream = self.connect(&self.pooled[usize::from(class.has_identity())]).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        let window = if class.stays() { LONG_STREAM_WINDOW } else { STREAM_WINDOW };
        if http2 { self.http2(io, window).await } else { self.http1(io).await }
    }

    /// A connection for one upgrade. Its driver ends by itself: with the upgrade, or with the response.
    pub(super) async fn upgrade(&self, with_identity: bool) -> Result<http1::SendRequest<Body>> {
        let stream = self.connect(&self.upgrade[usize::from(with_identity)]).await?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| hyper_error(self.side, e))?;
        task::spawn("upstream upgrade", async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an upgrade connection ended");
            }
        })
        .ends_by_itself();
        Ok(sender)
    }

    async fn connect(&self, tls: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
        let stream = self.reached().await?;
        stream.set_nodelay(true).map_err(|e| self.unreachable(e))?;
        let keepalive = socket2::TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(PING_EVERY);
        if let Err(error) = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive) {
            tracing::debug!(%error, "TCP keepalive is not available");
        }
        TlsConnector::from(Arc::clone(tls)).connect(self.server_name.clone(), stream).await.map_err(|e| {
            // A TLS alert is carried in an io::Error of kind InvalidData; anything else is the network's.
            let kind = if e.kind() == std::io::ErrorKind::InvalidData { Kind::Tls } else { Kind::Unavailable };
            Error::new(self.side, kind, "no TLS connection to the API server").because(e)
        })
    }

    /// A name is resolved once: connected to is what was judged.
    async fn reached(&self) -> Result<TcpStream> {
        let to = (self.host.as_str(), self.port);
        if self.reach.is_anywhere() {
            return TcpStream::connect(to).await.map_err(|e| self.unreachable(e));
        }
        let (mut failed, mut refused) = (None, None);
        // How many a name has is its owner's choice, and each is judged.
        for address in tokio::net::lookup_host(to).await.map_err(|e| self.unreachable(e))?.take(MAX_ADDRESSES) {
            if let Some(refusal) = self.reach.refusal(address) {
                let message = "the address of this cluster's API server is not allowed";
                refused = Some(Error::new(self.side, Kind::Refused, message).because(refusal));
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Some(self.unreachable(error)),
            }
        }
        let nowhere = || Error::new(self.side, Kind::Unavailable, "the API server's name has no address");
        Err(failed.or(refused).unwrap_or_else(nowhere))
    }

    fn unreachable(&self, error: std::io::Error) -> Error {
        Error::new(self.side, Kind::Unavailable, "the API server cannot be reached").because(error)
    }

    async fn http2(&self, io: TokioIo<TlsStream<TcpStream>>, window: u32) -> Result<Connection> {
        let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(window)
            .initial_connection_window_size(connection_window(window))
            .initial_max_send_streams(STREAM_CAP)
            .max_header_list_size(HEADER_LIST)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER)
            .keep_alive_while_idle(true)
            .handshake(io)
            .await
            .map_err(|e| hyper_error(self.side, e))?;
        let limit = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        let published = Arc::clone(&limit);
        let driver = task::spawn("upstream connection", async move {
            let driven = std::future::poll_fn(|context| {
                let polled = std::pin::Pin::new(&mut connection).poll(context);
                published.store(connection.current_max_send_streams(), Ordering::Relaxed);
                polled
            });
            if let Err(error) = driven.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(Connection::Http2(Http2 {
            sender,
            active: AtomicUsize::new(0),
            limit,
            idle_since: Mutex::new(tokio::time::Instant::now()),
            _driver: driver,
        }))
    }

    async fn http1(&self, io: TokioIo<TlsStream<TcpStream>>) -> Result<Connection> {
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .handshake(io)
            .await
            .map_err(|e| hyper_error(self.side, e))?;
        let driver = task::spawn("upstream connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(Connection::Http1(Http1 { sender, idle_since: tokio::time::Instant::now(), _driver: driver }))
    }
}

/// Whose fault an HTTP failure is: our caller's when its body broke off, else the server's.
pub(super) fn hyper_error(side: Side, error: hyper::Error) -> Error {
    let (side, kind, message) = if error.is_user() {
        (Side::Client, Kind::Closed, "the request's body broke off")
    } else if error.is_timeout() {
        (side, Kind::Timeout, "the API server stopped answering")
    } else if error.is_parse() {
        (side, Kind::Protocol, "the API server answered with something that is not HTTP")
    } else {
        (side, Kind::Closed, "the API server closed the connection")
    };
    Error::new(side, kind, message).because(error)
}
