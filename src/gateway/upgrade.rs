//! Upgrades that the backend itself serves: watches over WebSocket, and what pods and services behind `proxy` speak.
//!
//! Promises: nothing but the head goes upstream before the 101; without a 101 the answer is relayed, and neither
//! connection carries another request (CVE-2018-1002105).

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::context::Context;
use super::forward::{ending_with_its_right, is_read_here, rewrite_location, short};
use super::respond::Body;
use super::tunnel;
use crate::error::{Error, Kind, Result, Side};
use crate::gateway::identity;
use crate::upstream;

/// Forwards one upgrade request over a connection of its own.
pub(super) async fn forward(context: &Arc<Context>, mut request: Request<Incoming>) -> Result<Response<Body>> {
    let Some(protocol) = context.upgrade.clone() else {
        return Err(Error::own(Kind::Internal, "an upgrade without a protocol"));
    };
    if request.headers().contains_key(header::CONTENT_LENGTH) && request.headers()[header::CONTENT_LENGTH] != "0" {
        return Err(Error::client(Kind::BadRequest, "an upgrade request must not have a body"));
    }
    context.record.upstream("upgrade");
    let client = hyper::upgrade::on(&mut request);
    let mut onward = Request::new(upstream::Body::Empty);
    *onward.method_mut() = request.method().clone();
    *onward.uri_mut() = request.uri().clone();
    *onward.headers_mut() = std::mem::take(request.headers_mut());
    let headers = onward.headers_mut();
    headers.extend(context.backend_headers()?);
    set_upgrade(headers, protocol.clone());
    let mut part = context.asked("API server", headers);

    let deadline = context.config().request_timeout.0;
    let connection = context.tenant.backend.pool.dial_upgrade(context.with_identity(), deadline).await?;
    let method = onward.method().clone();
    let mut response = connection.send(onward, deadline).await?;
    if let Some(mut part) = part.take() {
        part.answered(response.status());
    }
    context.judged(&method, response.status())?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut head, body) = response.into_parts();
        rewrite_location(context, &mut head.headers)?;
        identity::clean_response(&mut head.headers, false);
        head.extensions.clear();
        if is_read_here(context, &body) {
            return short(head, body).await;
        }
        // Whoever asks for a protocol that the server does not know may get a stream all the same.
        let body = ending_with_its_right(context, &head, Body::incoming(body));
        return Ok(Response::from_parts(head, body));
    }
    check_switched(response.headers(), &protocol, Side::Backend)?;
    let backend = hyper::upgrade::on(&mut response);
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    identity::clean_response(answer.headers_mut(), true);
    tunnel::start(context, client, backend);
    Ok(answer)
}

/// Of a 101: nobody is led into a protocol that was not asked for.
pub(super) fn check_switched(headers: &HeaderMap, asked: &HeaderValue, side: Side) -> Result<()> {
    let switched = headers.get(header::UPGRADE).map(HeaderValue::as_bytes).unwrap_or_default();
    if switched.eq_ignore_ascii_case(asked.as_bytes()) {
        return Ok(());
    }
    let to = String::from_utf8_lossy(switched.get(..32).unwrap_or(switched));
    Err(Error::new(side, Kind::Protocol, format!("the server switched to {to:?} unasked")))
}

fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, protocol);
}
