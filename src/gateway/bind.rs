//! Which tenant a request is for: computed anew from the connection's binding, the authority and the path, which must
//! agree. What disagrees is 421 and never forwarded.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Uri, header};

use super::browser::Site;
use super::connection::Binding;
use super::shared::SharedNames;
use crate::error::{Error, Kind, Result};
use crate::gateway::api::PathPrefix;
use crate::names::TenantId;
use crate::tenant::{Snapshot, Tenant};

/// A bound request.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) tenant: Arc<Tenant>,
    /// `/clusters/…` when the path had it.
    pub(super) prefix: String,
    /// Path behind the prefix, as written.
    pub(super) path: String,
    /// Whose place the address is for a browser.
    pub(super) site: Site,
}

/// The host a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Ip(IpAddr),
    /// Lower case, without the final dot.
    Name(String),
}

/// The host named by the request target and the Host header, which must be one and well formed.
pub(super) fn host(uri: &Uri, headers: &HeaderMap) -> Result<Host> {
    let bad = |why: &str| Error::client(Kind::BadRequest, why);
    let mut lines = headers.get_all(header::HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(bad("there are several Host headers"));
    }
    let named = line
        .map(|value| value.to_str().map_err(|_| bad("the Host header has characters that no host has")))
        .transpose()?;
    match (uri.authority(), named) {
        (Some(target), Some(named)) if !target.as_str().eq_ignore_ascii_case(named) => {
            Err(bad("the request target and the Host header name different hosts"))
        }
        (Some(target), _) => parse_authority(target.as_str()),
        (None, Some(named)) => parse_authority(named),
        (None, None) => Err(bad("the request names no host")),
    }
}

/// Finds the tenant, or says why there is none.
pub(super) fn bind(
    snapshot: &Snapshot,
    names: &SharedNames,
    binding: &Binding,
    host: &Host,
    path: &str,
) -> Result<Bound> {
    let by_connection = match binding {
        Binding::Port(port, id) => Some(still(snapshot, snapshot.by_port(*port), id)?),
        Binding::Name(name, id) => Some(still(snapshot, snapshot.by_host(name), id)?),
        Binding::Shared => None,
    };
    let is_own_name = check_host(snapshot, names, binding, host, by_connection)?;
    let split = PathPrefix::split(path).ok_or_else(|| not_found("the path names no virtual cluster"))?;
    let by_path = match split.tenant {
        None => None,
        Some((namespace, name)) => {
            let id = TenantId::parse(namespace, name).ok();
            let found = id.as_ref().and_then(|id| snapshot.by_id(id));
            match (found, by_connection) {
                (Some(tenant), _) => Some(tenant),
                (None, Some(_)) => {
                    return Err(misdirected("the path names another virtual cluster than the connection"));
                }
                (None, None) if id.is_some_and(|id| snapshot.awaits(&id)) => return Err(not_yet()),
                (None, None) => {
                    return Err(not_found(format!(
                        "there is no virtual cluster {name:?} in the namespace {namespace:?}"
                    )));
                }
            }
        }
    };
    let tenant = match (by_connection, by_path) {
        (Some(connection), Some(path)) if connection.id != path.id => {
            return Err(misdirected("the path names another virtual cluster than the connection"));
        }
        (Some(tenant), _) | (None, Some(tenant)) => tenant,
        (None, None) if matches!(host, Host::Name(name) if snapshot.awaits_host(name)) => return Err(not_yet()),
        (None, None) => {
            return Err(not_found(
                "no virtual cluster is named: the path must begin with /clusters/{namespace}/{name}",
            ));
        }
    };
    let prefix = split.tenant.map(|_| tenant.id.path_prefix()).unwrap_or_default();
    let site = match binding {
        _ if is_own_name => Site::Own,
        Binding::Port(..) => Site::Port,
        Binding::Name(..) | Binding::Shared => Site::Shared,
    };
    Ok(Bound { tenant: Arc::clone(tenant), prefix, path: split.rest.to_owned(), site })
}

/// The tenant that holds the port or name now must be the one of the handshake, whose certificate the client saw.
fn still<'a>(snapshot: &Snapshot, holder: Option<&'a Arc<Tenant>>, id: &TenantId) -> Result<&'a Arc<Tenant>> {
    match holder {
        Some(tenant) if tenant.id == *id => Ok(tenant),
        Some(_) => Err(misdirected("this name belongs to another virtual cluster now")),
        None if snapshot.awaits(id) => Err(not_yet()),
        None => Err(not_found("this virtual cluster is gone")),
    }
}

/// Whether the host is a name of the tenant's own.
fn check_host(
    snapshot: &Snapshot,
    names: &SharedNames,
    binding: &Binding,
    host: &Host,
    bound: Option<&Arc<Tenant>>,
) -> Result<bool> {
    // an address says nothing: kubectl's --tls-server-name keeps it in the Host header
    let Host::Name(name) = host else { return Ok(false) };
    let named = if names.has(name) { None } else { snapshot.by_host(name) };
    match (bound, named) {
        (Some(bound), Some(named)) if bound.id == named.id => Ok(true),
        (_, Some(_)) => Err(misdirected("the request names another host than the TLS connection")),
        (None, None) => Ok(false),
        (Some(bound), None) => {
            let known = names.has(name) || is_in_cluster(name, &bound.cluster_domain);
            // pods reach a tenant's port by whatever name the host cluster gives its Service
            if known || matches!(binding, Binding::Port(..)) {
                Ok(false)
            } else {
                Err(misdirected("the request names another host than the TLS connection"))
            }
        }
    }
}

fn is_in_cluster(name: &str, domain: &str) -> bool {
    match name.strip_prefix("kubernetes") {
        Some("" | ".default" | ".default.svc") => true,
        Some(rest) => rest.strip_prefix(".default.svc.").is_some_and(|tail| tail.eq_ignore_ascii_case(domain)),
        None => false,
    }
}

fn parse_authority(text: &str) -> Result<Host> {
    let bad = || Error::client(Kind::BadRequest, "the host of the request is not valid");
    let (host, port) = match text.strip_prefix('[') {
        Some(tail) => {
            let (ip, port) = tail.split_once(']').ok_or_else(bad)?;
            let ip: std::net::Ipv6Addr = ip.parse().map_err(|_| bad())?;
            (Host::Ip(IpAddr::V6(ip)), port.strip_prefix(':').or((port.is_empty()).then_some("0")).ok_or_else(bad)?)
        }
        None => {
            let (name, port) = text.split_once(':').unwrap_or((text, "0"));
            (parse_name(name).ok_or_else(bad)?, port)
        }
    };
    port.parse::<u16>().map_err(|_| bad())?;
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    Ok(host)
}

fn parse_name(name: &str) -> Option<Host> {
    if let Ok(ip) = name.parse::<std::net::Ipv4Addr>() {
        return Some(Host::Ip(IpAddr::V4(ip)));
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (name.len() <= 253 && name.split('.').all(is_label)).then_some(Host::Name(name))
}

fn not_found(message: impl Into<String>) -> Error {
    Error::client(Kind::NotFound, message)
}

/// Not 404, which says of the object that the path names that it is gone. Nobody's fault; among the client's, so that nobody
/// fills the log with it.
fn not_yet() -> Error {
    Error::client(
        Kind::Unavailable,
        "this virtual cluster is not served yet: it is being prepared, or Portico has just begun",
    )
}

fn misdirected(message: &str) -> Error {
    Error::client(Kind::Misdirected, message)
}
