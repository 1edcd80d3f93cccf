//! exec, attach, port-forward and log, served from the host pod.
//!
//! Promises: the backend decides whether the caller may, under its own identity; what the backend's admission would
//! judge is not served behind its back; the host pod is the virtual pod's by recorded identity, not by name; nothing of
//! the caller's credentials reaches the host and no host name reaches the caller; no byte is forwarded before a 101,
//! and without a 101 both connections end. Must not know SPDY or WebSocket frames.

mod admission;
mod authorize;
mod locate;
mod log;
mod refusal;
mod request;
mod tunnel;
mod upgrade;

use http::{HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;

use self::locate::Place;
use super::context::Context;
use super::respond::{self, Body};
use crate::error::{Error, Kind, Result};

/// Which stream is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Exec,
    Attach,
    PortForward,
    Log,
}

/// Serves `pods/{exec,attach,portforward,log}` of exact shape. `request` is clean: no credentials, no identity, no
/// hop-by-hop headers (the wanted protocol is `context.upgrade`), path without the tenant's prefix, raw query; its
/// extensions still hold hyper's upgrade.
pub async fn intercept(context: &Context, request: Request<Incoming>) -> Result<Response<Body>> {
    if context.upgrade.is_none() {
        return serve(context, request).await;
    }
    // Behind a refused upgrade may stand bytes that were meant for a pod; they are never read as a request.
    let mut response = serve(context, request).await.unwrap_or_else(|error| {
        tracing::debug!(tenant = %context.tenant.id, %error, "a stream was refused");
        context.record.flag(error.kind().flag());
        respond::failure(&error)
    });
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

async fn serve(context: &Context, request: Request<Incoming>) -> Result<Response<Body>> {
    let stream = Stream::of(context)?;
    stream.check_method(request.method())?;
    authorize::check(context, stream, request.method()).await?;
    let query = request.uri().query().unwrap_or_default();
    if crate::api::parameter(query, "dryRun").is_some_and(|value| !value.is_empty()) {
        return Err(Error::client(Kind::BadRequest, "the dryRun parameter is not supported here"));
    }
    if stream.is_connect() {
        admission::check(context, stream).await?;
    }
    let place = match locate::place(context, stream, query).await? {
        Some(place) => place,
        None => return Ok(nothing_yet()),
    };
    forward(context, stream, &place, request).await
}

async fn forward(
    context: &Context,
    stream: Stream,
    place: &Place,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    if stream == Stream::Log && context.upgrade.is_none() {
        return log::serve(context, place, request.uri().query().unwrap_or_default()).await;
    }
    Box::pin(upgrade::serve(context, stream, place, request)).await
}

/// The log of a pod without a node.
fn nothing_yet() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::NO_CONTENT;
    response
}

impl Stream {
    fn of(context: &Context) -> Result<Self> {
        match context.info.subresource.as_str() {
            "exec" => Ok(Self::Exec),
            "attach" => Ok(Self::Attach),
            "portforward" => Ok(Self::PortForward),
            "log" => Ok(Self::Log),
            other => Err(Error::own(Kind::Internal, format!("pods/{other} is not a stream"))),
        }
    }

    fn subresource(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Log => "log",
        }
    }

    /// Whether it is a CONNECT to the API server's admission.
    fn is_connect(self) -> bool {
        self != Self::Log
    }

    fn check_method(self, method: &Method) -> Result<()> {
        let served = method == Method::GET || (self.is_connect() && method == Method::POST);
        if served {
            return Ok(());
        }
        Err(Error::client(Kind::MethodNotAllowed, "the server does not allow this method on the requested resource"))
    }
}
