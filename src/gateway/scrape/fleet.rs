//! Pages about the whole fleet, on names of the shared listener: `/fleet/metrics`, one tenant's part of it below that, and
//! `/fleet/targets` for service discovery.
//!
//! Promises: served on no tenant's port or name, and to nobody whom a tenant knows as such; never forwarded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;

use super::door::{self, Door, METRICS, TARGETS};
use super::page::Format;
use super::targets;
use crate::error::{Error, Kind, Result};
use crate::gateway::bind::{self, Host};
use crate::gateway::connection::{Binding, Connection};
use crate::gateway::flag::Flag;
use crate::gateway::identity;
use crate::gateway::record::Record;
use crate::gateway::respond::{self, Body};
use crate::names::TenantId;
use crate::tenant::Tenant;

/// How long Prometheus waits, in seconds with a fraction.
const TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";
const LONGEST: Duration = Duration::from_secs(60);
/// For what comes before and behind the answers of the API servers.
const MARGIN: Duration = Duration::from_secs(3);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// All tenants' series.
    Metrics,
    /// One tenant's of them.
    One(TenantId),
    /// Where each tenant's are.
    Targets,
}

/// What a request asks for about the fleet; `None`: it is a tenant's, or nobody's.
pub(crate) fn asked(binding: &Binding, path: &str) -> Option<Asked> {
    if *binding != Binding::Shared {
        return None;
    }
    match path {
        METRICS => Some(Asked::Metrics),
        TARGETS => Some(Asked::Targets),
        _ => {
            let (namespace, name) = path.strip_prefix(METRICS)?.strip_prefix('/')?.split_once('/')?;
            TenantId::parse(namespace, name).ok().map(Asked::One)
        }
    }
}

/// Answers such a request.
pub(crate) async fn serve(
    connection: &Connection,
    record: &Arc<Record>,
    asked: Asked,
    mut request: Request<Incoming>,
) -> Result<Response<Body>> {
    record.meaning("get", "fleet".to_owned(), false);
    let door = door_of(connection, &request)?;
    let cleaned = identity::clean(request.headers_mut())?;
    if !cleaned.impersonate.is_empty() {
        return Err(Error::client(Kind::Forbidden, "nobody is impersonated here"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Error::client(Kind::MethodNotAllowed, "pages about the fleet are only read"));
    }
    let token = door::token(request.headers_mut())?;
    record.user("(token)");
    let mut paths = vec![request.uri().path().to_owned()];
    if matches!(asked, Asked::One(_)) {
        paths.push(METRICS.to_owned());
    }
    let place = door.enter(&token, &paths, connection.peer.ip()).await.inspect_err(|_| record.flag(Flag::Unknown))?;
    door.judge(token, paths, place).await?;
    let answer = match &asked {
        Asked::Targets => to_targets(connection, &request)?,
        Asked::Metrics | Asked::One(_) => to_metrics(connection, door, &asked, &request).await?,
    };
    Ok(answer)
}

/// Where there is no shared listener there is no door. A tenant's name leads to the tenant, by whatever connection.
fn door_of<'a, B>(connection: &'a Connection, request: &Request<B>) -> Result<&'a Door> {
    let gateway = &connection.gateway;
    let host = bind::host(request.uri(), request.headers())?;
    if let Host::Name(name) = &host
        && !gateway.names.has(name)
        && gateway.registry.load().by_host(name).is_some()
    {
        return Err(Error::client(Kind::Misdirected, "the request names another host than the TLS connection"));
    }
    gateway.door.as_ref().ok_or_else(|| Error::client(Kind::NotFound, "there is no fleet here"))
}

async fn to_metrics(
    connection: &Connection,
    door: &Door,
    asked: &Asked,
    request: &Request<Incoming>,
) -> Result<Response<Body>> {
    let (gateway, format) = (&connection.gateway, Format::wanted(request.headers()));
    let snapshot = gateway.registry.load();
    let one = match asked {
        Asked::One(id) => {
            let missing = || Error::client(Kind::NotFound, format!("there is no virtual cluster {id}"));
            Some(Arc::clone(snapshot.by_id(id).ok_or_else(missing)?))
        }
        _ => None,
    };
    if *request.method() == Method::HEAD {
        return Ok(page(format, Body::empty()));
    }
    let all: Vec<Arc<Tenant>> = if one.is_none() { snapshot.tenants().cloned().collect() } else { Vec::new() };
    drop(snapshot);
    let scrapes = &gateway.scrapes;
    let until = gateway.clock.instant() + patience(request.headers(), scrapes.config.deadline.0);
    let body = if let Some(tenant) = one {
        // There may be as many scrapers of single ones as there are tenants, and some of them are the tenant's.
        let share = Arc::clone(&gateway.tenants.of(&tenant).buffers);
        Body::full(scrapes.one(tenant, until, format, &share).await?)
    } else {
        let turn = door.turn().inspect_err(|_| _ = scrapes.counts.refused.fetch_add(1, Ordering::Relaxed))?;
        Body::page(scrapes.fleet(all, until, format, turn).await?)
    };
    Ok(page(format, body))
}

fn to_targets(connection: &Connection, request: &Request<Incoming>) -> Result<Response<Body>> {
    let snapshot = connection.gateway.registry.load();
    let tenants = snapshot.tenants().map(|tenant| &tenant.id);
    let listed = targets::json(tenants, authority(request.uri(), request.headers()));
    let body = if *request.method() == Method::HEAD { Body::empty() } else { Body::full(listed.to_string()) };
    let mut answer = respond::json(StatusCode::OK, "");
    *answer.body_mut() = body;
    Ok(answer)
}

/// An answer in this format.
pub(super) fn page(format: Format, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, format.content_type());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// How long a page's API servers may take: four fifths of what the scraper says; where it says nothing, a moment longer than
/// one of them.
pub(super) fn patience(headers: &HeaderMap, deadline: Duration) -> Duration {
    let said = headers.get(TIMEOUT).and_then(|value| value.to_str().ok()?.parse::<f64>().ok());
    let said = said.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).filter(|said| !said.is_zero());
    said.map_or(deadline + MARGIN, |said| said.min(LONGEST).mul_f64(0.8))
}

/// How the scraper itself reached this address.
fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let named = || headers.get(header::HOST).and_then(|host| host.to_str().ok());
    uri.authority().map(http::uri::Authority::as_str).or_else(named).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_fleet() {
        let of = |path: &str| asked(&Binding::Shared, path);
        assert_eq!((of("/fleet/metrics"), of("/fleet/targets")), (Some(Asked::Metrics), Some(Asked::Targets)));
        assert_eq!(of("/fleet/metrics/n/x"), Some(Asked::One(TenantId::parse("n", "x").expect("id"))));
        for path in
            ["/fleet", "/fleet/", "/fleet/metrics/", "/fleet/metrics/n", "/fleet/metrics/n/x/", "/fleet/metrics/n/%78"]
        {
            assert_eq!(of(path), None, "{path}");
        }
        let id = TenantId::parse("n", "x").expect("id");
        for binding in [Binding::Port(1, id.clone()), Binding::Name("x".to_owned(), id)] {
            assert_eq!(asked(&binding, "/fleet/metrics"), None, "{binding:?}");
        }
    }

    #[test]
    fn patience_is_the_scrapers() {
        let of = |text: &str| {
            let headers = HeaderMap::from_iter([(TIMEOUT.parse().expect("name"), text.parse().expect("value"))]);
            patience(&headers, Duration::ZERO)
        };
        assert_eq!(of("10"), Duration::from_secs(8));
        assert_eq!(of("0.5"), Duration::from_millis(400));
        assert_eq!(of("1e9"), LONGEST.mul_f64(0.8));
        for nonsense in ["", "x", "-1", "0", "NaN", "inf"] {
            assert_eq!(of(nonsense), MARGIN, "{nonsense}");
        }
        assert_eq!(patience(&HeaderMap::new(), Duration::ZERO), MARGIN);
    }
}
