//! The upgrade: ours to the host first, the caller's only when the host said 101.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};

use super::locate::Place;
use super::stream::Stream;
use super::{onward, refusal};
use crate::error::{Error, Kind, Result, Side};
use crate::gateway::context::Context;
use crate::gateway::respond::Body;
use crate::gateway::tunnel;
use crate::gateway::upgrade::check_switched;

const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// The host may first have to reach a kubelet; its own limit for that is 30 s.
const HEAD_DEADLINE: Duration = Duration::from_secs(40);

pub(super) async fn serve(
    context: &Arc<Context>,
    stream: Stream,
    place: &Place,
    mut request: Request<Incoming>,
) -> Result<Response<Body>> {
    let protocol = wanted(context, stream)?;
    if !request.body().is_end_stream() {
        return Err(Error::client(Kind::BadRequest, "an upgrade request has no body"));
    }
    let query = request.uri().query().unwrap_or_default();
    let mut onward = onward::upgrade(stream, place, request.method().clone(), query, request.headers(), &protocol)?;
    onward.headers_mut().extend(context.on_host());
    let mut part = place.asked(context, onward.headers_mut());
    context.record.upstream("upgrade");
    let connection = context.host()?.pool().dial_upgrade(true, DIAL_DEADLINE).await?;
    let response = connection.send(onward, HEAD_DEADLINE).await?;
    if let Some(mut part) = part.take() {
        part.answered(response.status());
    }
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return refusal::answer(place, response).await;
    }
    let head = switching(response.headers(), &protocol)?;
    tunnel::start(context, hyper::upgrade::on(&mut request), hyper::upgrade::on(response));
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = head;
    Ok(answer)
}

fn wanted(context: &Context, stream: Stream) -> Result<HeaderValue> {
    let offered = context.upgrade.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let websocket = offered.eq_ignore_ascii_case("websocket");
    let spdy = offered.eq_ignore_ascii_case("SPDY/3.1") && stream != Stream::Log;
    match &context.upgrade {
        Some(value) if websocket || spdy => Ok(value.clone()),
        _ => Err(Error::client(Kind::BadRequest, "Upgrade request required")),
    }
}

/// The host's 101 for the caller: all that the handshake needs (`Sec-WebSocket-Accept` depends on the caller's key),
/// nothing that tells of the host.
fn switching(headers: &HeaderMap, protocol: &HeaderValue) -> Result<HeaderMap> {
    check_switched(headers, protocol, Side::Host)?;
    let kept = |name: &HeaderName| {
        *name == header::UPGRADE
            || name.as_str() == "x-stream-protocol-version"
            || name.as_str().starts_with("sec-websocket-")
    };
    let mut out: HeaderMap =
        headers.iter().filter(|(name, _)| kept(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    Ok(out)
}
