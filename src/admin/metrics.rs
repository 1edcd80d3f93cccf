//! `/metrics` for Prometheus, on a listener of its own: over TLS for scrapers whom the host cluster knows and allows, or
//! open, where whoever reaches the port may read it.
//!
//! Promises: nobody is told anything before he is known; the page is made at most once a second, however many ask. Who may
//! is `questions`' business.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::answer::text;
use super::listener::{self, Known, Limits};
use super::questions::{Outcome, Questions};
use crate::error::Result;
use crate::kubernetes::Verdict;
use crate::runtime::telemetry::Metrics;
use crate::tls::SharedCertificate;

/// Some Prometheus servers of two replicas each; one scrape is one connection.
pub(super) const LIMITS: Limits =
    Limits { places: 32, per_source: 4, head: Duration::from_secs(2), whole: Duration::from_secs(30) };
pub(super) const PATH: &str = "/metrics";
/// A page this young is shown again.
const FRESH: Duration = Duration::from_secs(1);
/// Seconds until a bearer comes again for whom there was no room.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

pub(super) struct Scrapes {
    metrics: Metrics,
    page: Mutex<Option<(Instant, Bytes)>>,
    guard: Option<Guard>,
}

/// Whom the metrics are shown to.
pub(super) struct Guard {
    pub(super) questions: Questions,
    pub(super) certificate: SharedCertificate,
}

pub(super) async fn serve(listener: Arc<TcpListener>, scrapes: Arc<Scrapes>, limits: Limits) {
    let connection = |stream: TcpStream, known: Known| {
        let scrapes = Arc::clone(&scrapes);
        async move { scrapes.connection(stream, known, limits).await }
    };
    listener::accept(&listener, limits, connection).await;
}

impl Scrapes {
    pub(super) fn new(metrics: Metrics, guard: Option<Guard>) -> Self {
        Self { metrics, page: Mutex::default(), guard }
    }

    async fn connection(&self, stream: TcpStream, known: Known, limits: Limits) {
        if !listener::speaks(&stream, limits).await {
            return;
        }
        let Ok(peer) = stream.peer_addr().map(|peer| peer.ip()) else { return };
        let answer = |request| {
            let known = known.clone();
            async move { self.answer(&request, &known, peer).await }
        };
        let Some(guard) = &self.guard else {
            return listener::one_request(stream, limits, answer).await;
        };
        let Some(certificate) = guard.certificate.load() else {
            return tracing::debug!("metrics are not served before there is a certificate");
        };
        let acceptor = TlsAcceptor::from(certificate.http1_config());
        match tokio::time::timeout(limits.head, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => listener::one_request(stream, limits, answer).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake for metrics failed"),
            Err(_) => tracing::debug!("TLS handshake for metrics took too long"),
        }
    }

    pub(super) async fn answer<B>(&self, request: &Request<B>, known: &Known, peer: IpAddr) -> Response<Full<Bytes>> {
        if let Some(guard) = &self.guard
            && let Err(refusal) = guard.admit(request, peer).await
        {
            return refusal;
        }
        known.set();
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        }
        if request.uri().path() != PATH {
            return text(StatusCode::NOT_FOUND, "see /metrics\n");
        }
        match self.page().await {
            Ok(page) => text(StatusCode::OK, page),
            Err(error) => {
                tracing::warn!(%error, "cannot show metrics");
                text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n")
            }
        }
    }

    /// Whoever comes while it is being made waits for that one.
    async fn page(&self) -> Result<Bytes> {
        let mut page = self.page.lock().await;
        if let Some((made, text)) = &*page
            && made.elapsed() < FRESH
        {
            return Ok(text.clone());
        }
        let text = Bytes::from(self.metrics.render()?);
        *page = Some((Instant::now(), text.clone()));
        Ok(text)
    }
}

impl Guard {
    async fn admit<B>(&self, request: &Request<B>, peer: IpAddr) -> Result<(), Response<Full<Bytes>>> {
        let Some(token) = bearer(request) else { return Err(unauthorized("show a bearer token\n")) };
        match self.questions.judge(token, peer).await {
            Outcome::Judged(Verdict::Allowed) => Ok(()),
            Outcome::Judged(Verdict::Unknown) => Err(unauthorized("the host cluster does not know this token\n")),
            Outcome::Judged(Verdict::Forbidden) => {
                Err(text(StatusCode::FORBIDDEN, "this user may not get the nonresource URL /metrics\n"))
            }
            Outcome::Judged(Verdict::Hasty) => Err(later("this user shows too many new tokens\n")),
            Outcome::Full => Err(later("too many scrapers that are not known yet\n")),
            Outcome::Failed => {
                Err(text(StatusCode::SERVICE_UNAVAILABLE, "the host cluster cannot be asked about this token\n"))
            }
        }
    }
}

/// The token, if there is exactly one.
fn bearer<B>(request: &Request<B>) -> Option<&str> {
    let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn unauthorized(why: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::UNAUTHORIZED, why);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn later(why: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, why);
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    response
}
