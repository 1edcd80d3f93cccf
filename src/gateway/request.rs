//! One request through its phases.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::body::Incoming;

use super::authenticate::authenticate;
use super::bind::{self, Bound};
use super::context::{Context, Who};
use super::record::Record;
use super::respond::{self, Body};
use super::serve::Connection;
use super::{forward, service_create, stream};
use crate::api::{self, RequestInfo};
use crate::error::{Error, Kind, Result, Side};
use crate::identity;

const INTERCEPTED: [&str; 4] = ["exec", "attach", "portforward", "log"];

/// Answers one request, whatever happens, and accounts for it.
pub(super) async fn serve(connection: &Connection, request: Request<Incoming>) -> Response<Body> {
    let protocol = if connection.is_http2 { "h2" } else { "h1" };
    let started = connection.gateway.clock.instant();
    let record = Record::new(started, connection.peer, protocol, request.method().as_str(), request.uri().path());
    let outcome = phases(connection, &record, request).await;
    let mut response = outcome.unwrap_or_else(|error| {
        report(&error);
        record.flag(error.kind().flag());
        let mut response = respond::failure(&error);
        if !connection.is_http2 && matches!(error.kind(), Kind::Misdirected | Kind::BadRequest) {
            // nothing that follows on such a connection can be trusted to be what it seems
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    });
    record.code(response.status().as_u16());
    *response.version_mut() = if connection.is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    response.map(|body| body.accounted(record))
}

async fn phases(
    connection: &Connection,
    record: &Arc<Record>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>> {
    let gateway = &connection.gateway;
    let bound = bind_request(connection, record, &request)?;
    let state = gateway.metrics.tenant(&bound.tenant.id);
    record.tenant(bound.tenant.id.to_string(), Arc::clone(&state.metrics));

    check_framing(request.method(), request.headers())?;
    let cleaned = identity::clean(request.headers_mut())?;
    if !api::is_served_root(&bound.path) {
        return Err(Error::client(Kind::NotFound, "the server could not find the requested resource"));
    }
    let info = RequestInfo::parse(request.method(), &bound.path, request.uri().query())
        .map_err(|e| Error::client(Kind::BadRequest, e.to_string()))?;
    record.meaning(info.verb, info.resource_path(), info.is_long_running());

    let upgrade = cleaned.upgrade.clone();
    let (tenant, clock) = (&bound.tenant, &gateway.clock);
    let caller = authenticate(tenant, &connection.certificates, request.headers_mut(), cleaned, clock)?;
    record.user(match &caller.who {
        Who::Certificate(identity) => &identity.user,
        Who::Token(_) => "(token)",
        Who::Anonymous => "system:anonymous",
    });
    let permit = state.limits.admit(info.is_long_running()).inspect_err(|_| {
        state.metrics.limited.fetch_add(1, Ordering::Relaxed);
    })?;
    record.hold(permit);

    set_path(&mut request, &bound.path)?;
    request.headers_mut().remove(header::HOST);
    let context = Context {
        tenant: bound.tenant,
        info: Arc::new(info),
        caller: Arc::new(caller),
        upgrade,
        prefix: bound.prefix.into(),
        peer: connection.peer,
        host: gateway.host.clone(),
        config: Arc::clone(&gateway.config),
        clock: gateway.clock.clone(),
        registry: Arc::clone(&gateway.registry),
        drain: connection.drain.clone(),
        record: Arc::clone(record),
    };
    dispatch(connection, &context, request).await
}

/// Where a request is served: host, gateway or backend. `pods/proxy` and `services/proxy` go to the backend, which
/// dials the pods itself: pods share the host's network, so that works, and the backend authorizes as for any request.
async fn dispatch(connection: &Connection, context: &Context, request: Request<Incoming>) -> Result<Response<Body>> {
    let info = &context.info;
    if info.is_pod_subresource(&INTERCEPTED) {
        context.record.upstream("host");
        return Box::pin(stream::intercept(context, request)).await;
    }
    let creates = info.verb == "create" && info.name.is_empty() && !info.namespace.is_empty();
    if creates && info.is_core_v1("services") {
        return Box::pin(service_create::intercept(context, request)).await;
    }
    if info.is_resource && info.group.is_empty() && info.resource == "nodes" && info.subresource == "proxy" {
        // nodes are the host's: a kubelet behind this path would run commands in anyone's pods
        return Err(Error::client(Kind::Forbidden, "nodes/proxy is not available in a virtual cluster"));
    }
    forward::forward(connection, context, request).await
}

fn bind_request(connection: &Connection, record: &Record, request: &Request<Incoming>) -> Result<Bound> {
    let gateway = &connection.gateway;
    let snapshot = gateway.registry.load();
    let host = bind::host(request.uri(), request.headers())?;
    bind::bind(&snapshot, &gateway.names, &connection.binding, &host, request.uri().path()).inspect_err(|error| {
        match connection.binding.tenant().and_then(|id| snapshot.by_id(id)) {
            Some(tenant) => {
                let state = gateway.metrics.tenant(&tenant.id);
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

/// Origin form, prefix taken off, query byte for byte.
fn set_path(request: &mut Request<Incoming>, path: &str) -> Result<()> {
    let text = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let target = PathAndQuery::try_from(text)
        .map_err(|e| Error::client(Kind::BadRequest, "the request target is not valid").because(e))?;
    *request.uri_mut() = Uri::from(target);
    Ok(())
}

/// The client's faults are in the access log; others deserve a line of their own.
fn report(error: &Error) {
    match error.side() {
        Side::Client => tracing::debug!(%error, "request refused"),
        Side::Backend => tracing::info!(%error, "backend failed"),
        Side::Host | Side::Own => tracing::warn!(%error, "request failed"),
    }
}
