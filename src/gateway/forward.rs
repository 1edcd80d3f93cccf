//! To the backend and back: headers filtered, bodies streamed, nothing buffered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Body as _;
use hyper::body::Incoming;

use super::context::{Context, Who};
use super::record::Record;
use super::respond::Body;
use super::serve::Connection;
use super::upgrade;
use crate::error::{BoxError, Error, Kind, Result};
use crate::identity;
use crate::upstream::{self, Class, Meter};

/// Long-running requests have no deadline of ours; the backend ends them.
const NO_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// Watches end spread over this part of the drain, so that clients do not come back all at once.
const WATCH_SPREAD: f64 = 0.5;

/// Forwards a request that nobody intercepts.
pub(super) async fn forward(
    connection: &Connection,
    context: &Context,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    if context.upgrade.is_some() {
        return Box::pin(upgrade::forward(context, request)).await;
    }
    let long_running = context.info.is_long_running();
    let class = context.class(long_running);
    context.record.upstream(match class {
        Class::Unary => "unary",
        Class::Watch => "watch",
        Class::Token => "token",
        Class::TokenWatch => "token-watch",
    });
    let meter = Arc::new(BodyMeter::new(context));
    let request = upstream_request(context, request, &meter)?;
    let deadline = if long_running { NO_DEADLINE } else { context.config.request_timeout.0 };
    let sent = context.tenant.backend.pool.send(class, request, deadline).await;
    let response = match sent {
        Ok(response) => response,
        Err(_) if meter.is_exceeded() => return Err(meter.too_large()),
        Err(error) => return Err(error),
    };
    let (mut head, body) = response.into_parts();
    identity::clean_response(&mut head.headers, false);
    head.extensions.clear();
    rewrite_location(context, &mut head.headers)?;
    let mut body = Body::stream(body);
    if context.info.verb == "watch" {
        body = body.ends_on(watch_end(connection, context), is_json(&head.headers));
    }
    Ok(Response::from_parts(head, body))
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
    seen: AtomicU64,
    record: Arc<Record>,
}

impl BodyMeter {
    fn new(context: &Context) -> Self {
        let limit = (!context.info.is_long_running()).then_some(context.config.max_body as u64);
        Self { limit, seen: AtomicU64::new(0), record: Arc::clone(&context.record) }
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

/// Resolves when a watch should end although its backend goes on: the process drains, the tenant is gone, or its CA
/// no longer vouches for the caller. Clients watch again from where they were.
fn watch_end(connection: &Connection, context: &Context) -> impl Future<Output = ()> + Send + 'static {
    let mut drain = context.drain.clone();
    let (clock, tenant, caller) = (context.clock.clone(), Arc::clone(&context.tenant), Arc::clone(&context.caller));
    let registry = Arc::clone(&connection.gateway.registry);
    let chain = connection.certificates.clone_chain();
    let drained = async move {
        let left = drain.signaled().await.saturating_duration_since(clock.instant());
        let spread = u64::try_from(left.mul_f64(WATCH_SPREAD).as_millis()).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(clock.random_below(spread))).await;
    };
    let clock = context.clock.clone();
    let revoked = async move {
        let mut changes = registry.subscribe();
        let mut generation = tenant.generation;
        loop {
            let snapshot = registry.load();
            let Some(now) = snapshot.by_id(&tenant.id) else { return };
            if now.generation != generation {
                generation = now.generation;
                if matches!(caller.who, Who::Certificate(_)) && !chain.still_hold(now, &clock) {
                    return;
                }
            }
            drop(snapshot);
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    async move {
        tokio::select! {
            () = drained => {}
            () = revoked => {}
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let encoded = headers.contains_key(header::CONTENT_ENCODING);
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    !encoded && kind.starts_with("application/json")
}

/// A redirect stays within the tenant: paths regain the prefix they came with, other origins are refused
/// (CVE-2022-3172: an aggregated API server must not send our clients, and their credentials, elsewhere).
fn rewrite_location(context: &Context, headers: &mut HeaderMap) -> Result<()> {
    let Some(location) = headers.get(header::LOCATION) else { return Ok(()) };
    let refuse = || Error::backend(Kind::Protocol, "the cluster's API server redirects to another origin");
    let text = location.to_str().map_err(|_| refuse())?;
    let target = &context.tenant.backend.pool.target();
    let path = if text.starts_with("//") {
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
    } else if text.contains("://") {
        return if context.info.subresource == "proxy" { Ok(()) } else { Err(refuse()) };
    } else {
        return Ok(());
    };
    let value = HeaderValue::try_from(format!("{}{path}", context.prefix)).map_err(|_| refuse())?;
    headers.insert(header::LOCATION, value);
    Ok(())
}
