//! One request through its phases.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;

use super::audit_id::{self, AUDIT_ID};
use super::audited;
use super::authenticate::{Who, authenticate};
use super::bind::{self, Bound};
use super::browser::{self, Asked};
use super::connection::Connection;
use super::context::Context;
use super::flag::Flag;
use super::intercept::{self, stream::Stream};
use super::reading::Reading;
use super::record::Record;
use super::respond::{self, Body};
use super::scrape::{fleet, own_page};
use super::{aggregator, entry, forward, issued, kubelet, metrics_api, review, scarce, upgrade};
use crate::error::{Error, Kind, Result, Side};
use crate::gateway::api::{self, RequestInfo};
use crate::gateway::identity;
use crate::runtime::task;
use crate::tenant::Nodes;

/// Answers one request, whatever happens, and accounts for it. A panic is answered too, so that nothing else on the
/// connection, of another tenant perhaps, ends with it.
pub(super) async fn serve(
    connection: &Arc<Connection>,
    reading: Arc<Reading>,
    request: Request<Incoming>,
) -> Response<Body> {
    let record = Record::new(connection, reading, request.method().as_str(), request.uri().path());
    let is_upgrade = request.headers().contains_key(header::UPGRADE);
    let is_head = request.method() == Method::HEAD;
    let outcome = task::caught(phases(connection, &record, request)).await;
    let mut must_close = false;
    let mut response = outcome.unwrap_or_else(|error| {
        report(&error);
        record.flag(Flag::Failed(error.kind()));
        // nothing that follows on such a connection can be trusted to be what it seems
        must_close = matches!(error.kind(), Kind::Misdirected | Kind::BadRequest);
        respond::failure(&error)
    });
    if is_head && response.body().is_whole() {
        response = respond::to_head(response);
    }
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        if response.body().is_whole() {
            record.leave_place();
        }
        // Behind a refused upgrade may stand bytes that were meant for a pod; they are never read as a request. And who is
        // sent away as we leave finds another replica.
        if !connection.is_http2 && (must_close || is_upgrade || connection.drain.is_leaving()) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
    record.code(response.status().as_u16());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS || !response.body().is_whole() {
        record.begins();
    }
    // As API servers do. What comes from one has its own, which is the same.
    if let Some(audit_id) = record.named() {
        response.headers_mut().entry(AUDIT_ID).or_insert(audit_id);
    }
    *response.version_mut() = if connection.is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    response.map(|body| body.accounted(record))
}

async fn phases(
    connection: &Arc<Connection>,
    record: &Arc<Record>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>> {
    let gateway = &connection.gateway;
    if let Some(asked) = fleet::asked(&connection.binding, request.uri().path()) {
        check_framing(request.method(), request.headers())?;
        return Box::pin(fleet::serve(connection, record, asked, request)).await;
    }
    let bound = bind_request(connection, record, &request)?;
    let state = gateway.tenants.of(&bound.tenant);
    record.tenant(bound.tenant.id.to_string(), Arc::clone(&state.metrics));

    check_framing(request.method(), request.headers())?;
    let audit_id = audit_id::of(request.headers(), &gateway.clock);
    record.audit_id(audit_id.clone());
    let said = metrics_api::said_user(request.headers());
    let cleaned = identity::clean(request.headers_mut())?;
    if !api::is_served_root(&bound.path) {
        return Err(Error::client(Kind::NotFound, "the server could not find the requested resource"));
    }
    let info = RequestInfo::parse(request.method(), &bound.path, request.uri().query())
        .map_err(|e| Error::client(Kind::BadRequest, e.to_string()))?;
    record.meaning(info.verb, info.resource_path(), info.is_long_running());
    record.reading().may_take_long(info.is_long_running());

    let (upgrade, is_relayed) = (cleaned.upgrade.clone(), cleaned.forwarded);
    let (tenant, clock) = (&bound.tenant, &gateway.clock);
    if connection.certificates.are_the_aggregators(tenant, clock) {
        let asked =
            aggregator::Asked { connection, tenant, state: &state, record, user: &said, path: &bound.path, info };
        return Box::pin(metrics_api::serve(asked, request, upgrade.is_some())).await;
    }
    record.counted_on(Arc::clone(&state.tab), &info.namespace);
    record.audited(audited::begin(&audited::Read {
        connection,
        tenant,
        state: &state,
        info: &info,
        path: &bound.path,
        query: request.uri().query().unwrap_or_default(),
        headers: request.headers(),
        audit_id: audit_id.to_str().unwrap_or_default(),
        impersonate: &cleaned.impersonate,
    }));
    let came = clock.instant();
    let caller = authenticate(tenant, &connection.certificates, request.headers_mut(), cleaned, clock)?;
    record.user(caller.who.name());
    record.audit(|audited| audited.is_of(&caller.who, None));
    let token = caller.who.token().map(|value| gateway.token_key.digest(tenant, value));
    let caller = issued::identify(connection, tenant, &state, (caller, token.as_ref()), record).await?;
    browser::check(bound.site, &caller.who, asked(&request, upgrade.is_some(), is_relayed))?;
    scarce::check(&state, &info, request.method())?;
    let is_long = info.is_long_running();
    let entry = entry::enter(connection, tenant, Arc::clone(&state), (&caller, token), is_long, record).await?;
    record
        .audit(|audited| {
            audited.is_of(&caller.who, entry.bearer());
            audited.promise(entry.is_known(), connection)
        })
        .transpose()?;
    // Of who is known only: nobody outside fills what is kept of it.
    let trace = entry.is_known().then(|| gateway.traces.of_request(request.headers(), &state.traces)).flatten();
    if let Some(trace) = &trace {
        trace.past("enter", came);
        record.traced(Arc::clone(trace));
    }

    set_path(&mut request, &bound.path)?;
    request.headers_mut().remove(header::HOST);
    // Once only, whatever a caller sent.
    request.headers_mut().remove(AUDIT_ID);
    browser::clean_request(bound.site, request.headers_mut());
    let context = Context {
        connection: Arc::clone(connection),
        tenant: bound.tenant,
        info,
        caller,
        audit_id,
        upgrade,
        prefix: bound.prefix,
        record: Arc::clone(record),
        entry,
        trace,
    };
    let mut answer = dispatch(&Arc::new(context), request).await?;
    browser::clean_answer(bound.site, answer.headers_mut());
    Ok(answer)
}

/// What matters of it where a browser has sent it; bound requests name one host.
fn asked(request: &Request<Incoming>, wants_upgrade: bool, is_relayed: bool) -> Asked<'_> {
    let named = || request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(Authority::as_str).or_else(named).unwrap_or_default();
    Asked { method: request.method(), headers: request.headers(), authority, wants_upgrade, is_relayed }
}

/// Where a request is served: host, gateway or backend; of a cluster with nodes of its own by the backend alone, but for Portico's
/// page about it. `pods/proxy` and `services/proxy` go to the backend, which
/// dials the pods itself: pods share the host's network, so that works, and the backend authorizes as for any request.
async fn dispatch(context: &Arc<Context>, request: Request<Incoming>) -> Result<Response<Body>> {
    let info = &context.info;
    if request.uri().path() == api::OWN_METRICS {
        return Box::pin(own_page::serve(context, &request)).await;
    }
    let is_on_host = context.tenant.nodes == Nodes::Host;
    if let Some(stream) = Stream::of(info).filter(|_| is_on_host) {
        context.record.upstream("host");
        return Box::pin(intercept::pods::serve(context, stream, request)).await;
    }
    if needs_judged_token(context, &request) {
        Box::pin(review::token(context)).await?;
    }
    if is_service_creation(context) {
        return Box::pin(intercept::service::create(context, request)).await;
    }
    let is_of_kubelet = info.is_resource && info.group.is_empty() && info.resource == "nodes";
    if is_on_host && is_of_kubelet && info.subresource == "proxy" {
        return Box::pin(kubelet::serve(context, &request)).await;
    }
    if context.upgrade.is_some() {
        return Box::pin(upgrade::forward(context, request)).await;
    }
    forward::forward(context, request).await
}

/// A caller without credentials has nothing buffered: his is forwarded, and the syncer settles the address.
fn is_service_creation(context: &Context) -> bool {
    let info = &context.info;
    let creates = info.verb == "create" && info.name.is_empty() && !info.namespace.is_empty();
    let is_on_host = context.tenant.nodes == Nodes::Host;
    creates && is_on_host && info.is_core_v1("services") && !matches!(context.caller.who, Who::Anonymous)
}

/// Whether a token must be judged before its request is: one whose body is buffered here, may take long, or whose
/// answer's head may. Any other is judged by its own answer, whose head comes before its body is read.
fn needs_judged_token(context: &Context, request: &Request<Incoming>) -> bool {
    let is_proxy = context.info.is_long_running() && context.info.verb != "watch";
    is_proxy || is_service_creation(context) || forward::is_large(request.body())
}

fn bind_request(connection: &Connection, record: &Record, request: &Request<Incoming>) -> Result<Bound> {
    let gateway = &connection.gateway;
    let snapshot = gateway.registry.load();
    let host = bind::host(request.uri(), request.headers())?;
    bind::bind(&snapshot, &gateway.names, &connection.binding, &host, request.uri().path()).inspect_err(|error| {
        match connection.binding.tenant().and_then(|id| snapshot.by_id(id)) {
            Some(tenant) => {
                let state = gateway.tenants.of(tenant);
                record.tenant(tenant.id.to_string(), Arc::clone(&state.metrics));
                if error.kind() == Kind::Misdirected {
                    state.metrics.misdirected.fetch_add(1, Ordering::Relaxed);
                }
            }
            None => {
                gateway.metrics.unbound.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
}

/// hyper settles lengths strictly; what it tolerates beyond that is refused here, and methods no API server has.
fn check_framing(method: &Method, headers: &HeaderMap) -> Result<()> {
    let bad = |why: &str| Err(Error::client(Kind::BadRequest, why));
    let codings = headers.get_all(header::TRANSFER_ENCODING).iter().collect::<Vec<_>>();
    match codings.as_slice() {
        [] => {}
        [coding] if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            if headers.contains_key(header::CONTENT_LENGTH) {
                return bad("Content-Length and Transfer-Encoding exclude each other");
            }
        }
        _ => return bad("only the transfer coding \"chunked\" is accepted"),
    }
    if headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return bad("there are several Content-Length headers");
    }
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    if !known.contains(method) {
        return Err(Error::client(Kind::MethodNotAllowed, format!("the method {method} is not served here")));
    }
    Ok(())
}

fn set_path(request: &mut Request<Incoming>, path: &str) -> Result<()> {
    *request.uri_mut() = Uri::from(target(path, request.uri().query())?);
    Ok(())
}

/// What is forwarded. Origin form, prefix taken off, query byte for byte.
pub(super) fn target(path: &str, query: Option<&str>) -> Result<PathAndQuery> {
    let text = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    PathAndQuery::try_from(text)
        .map_err(|e| Error::client(Kind::BadRequest, "the request target is not valid").because(e))
}

/// The client's faults are in the access log; others deserve a line of their own.
fn report(error: &Error) {
    match error.side() {
        Side::Client => tracing::debug!(%error, "request refused"),
        Side::Backend => tracing::info!(%error, "backend failed"),
        Side::Host | Side::Own => tracing::warn!(%error, "request failed"),
    }
}
