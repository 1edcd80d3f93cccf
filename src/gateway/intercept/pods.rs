//! exec, attach, port-forward and log, served from the host pod.
//!
//! Promises: the backend decides whether the caller may, under its own identity; what the backend's admission would
//! judge is not served behind its back; the host pod is the virtual pod's by recorded identity, not by name; nothing of
//! the caller's credentials reaches the host and no host name reaches the caller; no byte is forwarded before a 101,
//! and without a 101 both connections end. Must not know SPDY or WebSocket frames.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::stream::Stream;
use super::{access, admission, locate, log, upgrade};
use crate::error::{Error, Kind, Result};
use crate::gateway::context::Context;
use crate::gateway::respond::Body;
use crate::gateway::{api, review};

/// Serves one of them. `request` is clean: no credentials, no identity, no hop-by-hop headers (the wanted protocol is
/// `context.upgrade`), path without the tenant's prefix, raw query; its extensions still hold hyper's upgrade.
pub(crate) async fn serve(
    context: &Arc<Context>,
    stream: Stream,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    stream.check_method(request.method())?;
    Box::pin(review::token(context)).await?;
    let authorizing = context.part("authorize");
    access::check(context, stream, request.method()).await?;
    drop(authorizing);
    let query = request.uri().query().unwrap_or_default();
    if api::parameter(query, "dryRun").is_some_and(|value| !value.is_empty()) {
        return Err(Error::client(Kind::BadRequest, "the dryRun parameter is not supported here"));
    }
    if stream.is_connect() {
        let _admitting = context.part("admit");
        admission::check(context, stream).await?;
    }
    let locating = context.part("locate");
    let place = locate::place(context, stream, query).await?;
    drop(locating);
    let Some(place) = place else { return Ok(nothing_yet()) };
    if stream == Stream::Log && context.upgrade.is_none() {
        return log::serve(context, &place, query).await;
    }
    Box::pin(upgrade::serve(context, stream, &place, request)).await
}

/// The log of a pod without a node.
fn nothing_yet() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
