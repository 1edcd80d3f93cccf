//! `/livez`, `/readyz` and `/healthz`, as plain HTTP: what kubelets ask, and a person through a forwarded port.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::net::{TcpListener, TcpStream};

use super::answer::text;
use super::listener::{self, Known, Limits};
use super::readiness::Readiness;
use crate::runtime::drain::Watch;

/// A kubelet asks twice in two seconds. A silent connection costs its socket and less than a kilobyte.
pub(super) const LIMITS: Limits =
    Limits { places: 128, per_source: 32, head: Duration::from_secs(2), whole: Duration::from_secs(5) };

#[derive(Clone)]
pub(super) struct Probes {
    pub(super) readiness: Readiness,
    pub(super) phase: Watch,
}

pub(super) async fn serve(listener: Arc<TcpListener>, probes: Probes, limits: Limits) {
    let connection = |stream: TcpStream, _: Known| {
        let probes = probes.clone();
        async move {
            if listener::speaks(&stream, limits).await {
                listener::one_request(stream, limits, |request| std::future::ready(probes.answer(&request))).await;
            }
        }
    };
    listener::accept(&listener, limits, connection).await;
}

impl Probes {
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        }
        match request.uri().path() {
            "/livez" | "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => {
                let query = request.uri().query().unwrap_or_default();
                self.readyz(query.split('&').any(|p| p.starts_with("verbose")))
            }
            _ => text(StatusCode::NOT_FOUND, "see /livez and /readyz?verbose; /metrics is on a port of its own\n"),
        }
    }

    fn readyz(&self, verbose: bool) -> Response<Full<Bytes>> {
        let report = self.readiness.report();
        let is_leaving = self.phase.is_leaving();
        let ready = report.is_ready && !is_leaving;
        let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if ready && !verbose {
            return text(code, "ok\n");
        }
        let shutdown = if is_leaving { "[-]shutdown the process is shutting down\n" } else { "[+]shutdown ok\n" };
        let end = if ready { "readyz check passed\n" } else { "readyz check failed\n" };
        text(code, [shutdown, &report.lines, end].concat())
    }
}
