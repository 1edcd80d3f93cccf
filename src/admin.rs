//! Health and metrics over plain HTTP, for probes and Prometheus inside the cluster.
//!
//! Promises: `/livez` says only that the process turns; `/readyz` names what is still awaited or broken; nothing here
//! changes anything or shows a secret. Must not know tenants or planes: they hand in guards and metric sources.

mod readiness;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

pub use self::readiness::{Awaited, Readiness};
use crate::config::AdminConfig;
use crate::drain::Drain;
use crate::error::{Error, Kind, Result};
use crate::task::{self, Task};
use crate::telemetry::Metrics;

/// A probe or scraper that sends no request keeps no connection.
const HEADER_READ: Duration = Duration::from_secs(30);
const MAX_HEADER: usize = 16 << 10;
/// The kubelet, Prometheus and a person; more is a mistake.
const MAX_CONNECTIONS: usize = 128;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running server. Dropped, it stops; it serves through the drain, so that probes see it.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens.
    pub address: SocketAddr,
    _task: Task,
}

/// Listens and serves until dropped. `drain` turns `/readyz` to 503.
pub async fn run(config: &AdminConfig, readiness: Readiness, metrics: Metrics, drain: Drain) -> Result<Bound> {
    let failed = |e: std::io::Error| {
        Error::own(Kind::Unavailable, format!("cannot listen on {} for health and metrics", config.listen)).because(e)
    };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let draining = drain.watch();
    drop(drain);
    let task = task::spawn("admin listener", accept(listener, Shared { readiness, metrics, draining }));
    Ok(Bound { address, _task: task })
}

#[derive(Clone)]
struct Shared {
    readiness: Readiness,
    metrics: Metrics,
    draining: crate::drain::Watch,
}

async fn accept(listener: TcpListener, shared: Shared) {
    let mut open: Vec<Task> = Vec::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for health and metrics");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        open.retain(|task| !task.is_finished());
        if open.len() < MAX_CONNECTIONS {
            open.push(task::spawn("admin connection", serve(stream, shared.clone())));
        }
    }
}

async fn serve(stream: TcpStream, shared: Shared) {
    let service = service_fn(move |request| {
        let answer = answer(&shared, &request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ)
        .max_header_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "admin connection ended");
    }
}

fn answer<B>(shared: &Shared, request: &Request<B>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/livez" | "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => {
            let verbose = request.uri().query().is_some_and(|query| query.split('&').any(|p| p.starts_with("verbose")));
            readyz(shared, verbose)
        }
        "/metrics" => match shared.metrics.render() {
            Ok(metrics) => text(StatusCode::OK, metrics),
            Err(error) => {
                tracing::warn!(%error, "cannot show metrics");
                text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n")
            }
        },
        _ => text(StatusCode::NOT_FOUND, "see /livez, /readyz?verbose and /metrics\n"),
    }
}

fn readyz(shared: &Shared, verbose: bool) -> Response<Full<Bytes>> {
    let mut report = shared.readiness.report();
    report.push(("shutdown", shared.draining.is_draining().then(|| "the process is shutting down".to_owned())));
    let ready = report.iter().all(|(_, problem)| problem.is_none());
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if ready && !verbose {
        return text(code, "ok\n");
    }
    let mut lines = String::new();
    for (name, problem) in report {
        match problem {
            None => lines.push_str(&format!("[+]{name} ok\n")),
            Some(problem) => lines.push_str(&format!("[-]{name} {problem}\n")),
        }
    }
    for note in shared.readiness.notes() {
        lines.push_str(&format!("    {note}\n"));
    }
    lines.push_str(if ready { "readyz check passed\n" } else { "readyz check failed\n" });
    text(code, lines)
}

fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = code;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
