//! To the backend and back: headers filtered, bodies streamed, nothing buffered but short refusals of callers
//! whom nobody knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Body as HttpBody;
use hyper::body::Incoming;

use super::authenticate::Who;
use super::buffer;
use super::context::Context;
use super::ending;
use super::record::Record;
use super::respond::{Body, Ending};
use crate::error::{BoxError, Error, Kind, Result};
use crate::gateway::identity;
use crate::upstream::{self, Meter};

/// Long-running requests have no deadline of ours; the backend ends them.
const NO_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// An unknown caller's body up to this length is forwarded before he is judged. An API server that does not accept him
/// answers without reading it.
const SMALL_BODY: u64 = 64 << 10;
/// For such a body to arrive.
const SMALL_BODY_DEADLINE: Duration = Duration::from_secs(10);
/// What answers an unknown caller without making him known is read up to this length, and not kept waiting by him: so
/// much for each of few places.
const LONGEST_REFUSAL: usize = 8 << 10;
const REFUSAL_DEADLINE: Duration = Duration::from_secs(5);

/// Forwards a request that nobody intercepts and that wants no upgrade.
pub(super) async fn forward(context: &Arc<Context>, request: Request<Incoming>) -> Result<Response<Body>> {
    let long_running = context.info.is_long_running();
    let class = context.class(long_running);
    context.record.upstream(class.name());
    let meter = Arc::new(BodyMeter::new(context, request.body()));
    let mut request = upstream_request(context, request, &meter)?;
    let known = context.entry.is_known();
    let deadline = if long_running && known { NO_DEADLINE } else { context.config().request_timeout.0 };
    let method = request.method().clone();
    let mut part = context.asked("API server", request.headers_mut());
    let sending = context.tenant.backend.pool.send(class, request, deadline);
    let sent = if known { sending.await } else { Box::pin(before_stall(sending, &meter)).await };
    let response = match sent {
        Ok(response) => response,
        Err(_) if meter.is_exceeded() => return Err(meter.too_large()),
        Err(error) => return Err(error),
    };
    if let Some(mut part) = part.take() {
        part.answered(response.status());
    }
    context.judged(&method, response.status())?;
    let (mut head, body) = response.into_parts();
    identity::clean_response(&mut head.headers, false);
    head.extensions.clear();
    rewrite_location(context, &mut head.headers)?;
    if is_read_here(context, &body) {
        return short(head, body).await;
    }
    let body = ending_with_its_right(context, &head, Body::stream(body));
    Ok(Response::from_parts(head, body))
}

/// A body that may take long ends with the right to it.
pub(super) fn ending_with_its_right(context: &Arc<Context>, head: &Parts, body: Body) -> Body {
    if context.info.verb == "watch" {
        let how = if is_json(&head.headers) { Ending::BehindALine } else { Ending::Anywhere };
        return body.ends_on(ending::of_watch(context), how);
    }
    if context.info.is_long_running() { body.ends_on(ending::of_stream(context), Ending::BrokenOff) } else { body }
}

/// Whether a body is too long, or may be, to be forwarded for a caller who is not known yet.
pub(super) fn is_large(body: &Incoming) -> bool {
    !body.is_end_stream() && body.size_hint().exact().is_none_or(|length| length > SMALL_BODY)
}

/// Whether an answer is read whole, so that neither the place nor the backend's connection waits for an unknown caller
/// to read: whatever a token gets that is not accepted, and short answers to callers without credentials.
pub(super) fn is_read_here(context: &Context, body: &impl HttpBody) -> bool {
    match context.caller.who {
        _ if context.entry.is_known() => false,
        Who::Certificate(_) | Who::Issued(_) | Who::Token(_) => true,
        Who::Anonymous => body.size_hint().upper().is_some_and(|length| length <= LONGEST_REFUSAL as u64),
    }
}

/// Such an answer.
pub(super) async fn short<B>(head: Parts, body: B) -> Result<Response<Body>>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let body = buffer::read_short(body, LONGEST_REFUSAL, REFUSAL_DEADLINE).await;
    let endless = || Error::backend(Kind::Protocol, format!("the API server answers with {} and no end", head.status));
    let body = body.ok_or_else(endless)?;
    Ok(Response::from_parts(head, Body::full(body)))
}

/// The answer, unless the request's body stops to come.
async fn before_stall<T>(sending: impl Future<Output = Result<T>>, meter: &BodyMeter) -> Result<T> {
    let stalled = async {
        tokio::time::sleep(SMALL_BODY_DEADLINE).await;
        if meter.has_arrived() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        sent = sending => sent,
        () = stalled => Err(Error::client(Kind::Timeout, "the request body did not arrive in time")),
    }
}

fn upstream_request(
    context: &Context,
    request: Request<Incoming>,
    meter: &Arc<BodyMeter>,
) -> Result<Request<upstream::Body>> {
    let (head, body) = request.into_parts();
    let body = if body.is_end_stream() {
        upstream::Body::Empty
    } else {
        if let Some(length) = body.size_hint().exact()
            && meter.limit.is_some_and(|limit| length > limit)
        {
            return Err(meter.too_large());
        }
        upstream::Body::Metered(body, Arc::clone(meter) as Arc<dyn Meter>)
    };
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.headers_mut() = head.headers;
    // answered by hyper as soon as the body is asked for
    request.headers_mut().remove(header::EXPECT);
    request.headers_mut().extend(context.backend_headers()?);
    Ok(request)
}

/// Counts a request's body and ends it beyond the limit.
#[derive(Debug)]
struct BodyMeter {
    limit: Option<u64>,
    /// Its length, when that is known before.
    expected: u64,
    seen: AtomicU64,
    record: Arc<Record>,
}

impl BodyMeter {
    fn new(context: &Context, body: &Incoming) -> Self {
        let limit = (!context.info.is_long_running()).then_some(context.config().max_body as u64);
        let expected = body.size_hint().exact().unwrap_or_default();
        Self { limit, expected, seen: AtomicU64::new(0), record: Arc::clone(&context.record) }
    }

    fn has_arrived(&self) -> bool {
        self.seen.load(Ordering::Relaxed) >= self.expected
    }

    fn is_exceeded(&self) -> bool {
        self.limit.is_some_and(|limit| self.seen.load(Ordering::Relaxed) > limit)
    }

    fn too_large(&self) -> Error {
        let limit = self.limit.unwrap_or_default();
        Error::client(Kind::TooLarge, format!("Request entity too large: limit is {limit}"))
    }
}

impl Meter for BodyMeter {
    fn admit(&self, bytes: usize) -> Result<(), BoxError> {
        self.record.add_received(bytes);
        self.seen.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.is_exceeded() { Err(self.too_large().into()) } else { Ok(()) }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let encoded = headers.contains_key(header::CONTENT_ENCODING);
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    !encoded && kind.starts_with("application/json")
}

/// A redirect stays within the tenant: paths regain the prefix they came with, other origins are refused
/// (CVE-2022-3172: an aggregated API server must not send our clients, and their credentials, elsewhere).
pub(super) fn rewrite_location(context: &Context, headers: &mut HeaderMap) -> Result<()> {
    let Some(location) = headers.get(header::LOCATION) else { return Ok(()) };
    let refuse = || Error::backend(Kind::Protocol, "the cluster's API server redirects to another origin");
    let text = location.to_str().map_err(|_| refuse())?;
    let target = &context.tenant.backend.pool.target();
    let before_query = text.split(['?', '#']).next().unwrap_or_default();
    // Browsers take a backslash for a slash, and leave out tabs.
    let path = if text.starts_with("//") || before_query.contains(['\\', '\t']) {
        return Err(refuse());
    } else if text.starts_with('/') {
        text.to_owned()
    } else if let Some(rest) = text.strip_prefix("https://") {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let own = [target.host.clone(), format!("{}:{}", target.host, target.port)];
        if !own.iter().any(|own| own.eq_ignore_ascii_case(authority)) {
            return if context.info.subresource == "proxy" { Ok(()) } else { Err(refuse()) };
        }
        if path.is_empty() { "/".to_owned() } else { path.to_owned() }
    } else if text.contains("://") || before_query.split('/').next().is_some_and(|first| first.contains(':')) {
        return if context.info.subresource == "proxy" { Ok(()) } else { Err(refuse()) };
    } else {
        return Ok(());
    };
    let value = HeaderValue::try_from(format!("{}{path}", context.prefix)).map_err(|_| refuse())?;
    headers.insert(header::LOCATION, value);
    Ok(())
}
