//! Container logs: an ordinary GET on the host, its body passed on as it comes.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::locate::Place;
use super::stream::Stream;
use super::{onward, refusal};
use crate::error::Result;
use crate::gateway::context::Context;
use crate::gateway::ending;
use crate::gateway::respond::{Body, Ending};
use crate::upstream::{self, Class};

/// Heads come at once, or when the kubelet has answered.
const HEAD_DEADLINE: Duration = Duration::from_secs(60);

pub(super) async fn serve(context: &Arc<Context>, place: &Place, query: &str) -> Result<Response<Body>> {
    let follow = crate::gateway::api::is_truthy(query, "follow");
    let mut request = Request::new(upstream::Body::Empty);
    *request.method_mut() = Method::GET;
    *request.uri_mut() = onward::uri(Stream::Log, place, query)?;
    *request.headers_mut() = context.on_host();
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    let mut part = place.asked(context, request.headers_mut());
    context.record.upstream("host");
    // Without a deadline for the body either way: even a finished log may be long and its reader slow.
    let class = if follow { Class::Watch } else { Class::Unary };
    let response = context.host()?.pool().send(class, request, HEAD_DEADLINE).await?;
    if let Some(mut part) = part.take() {
        part.answered(response.status());
    }
    if response.status() != StatusCode::OK {
        return refusal::answer(place, response).await;
    }
    let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
    let mut body = Body::stream(response.into_body());
    if follow {
        body = body.ends_on(ending::of_stream(context), Ending::Anywhere);
    }
    let mut answer = Response::new(body);
    let plain = HeaderValue::from_static("text/plain");
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type.unwrap_or(plain));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(answer)
}
