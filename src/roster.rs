//! The virtual clusters that the configuration lists: `virtualClusters`, for a gateway that stands alone.
//!
//! Pure. Promises: the list is fit as a whole or refused, with a sentence that names the entry and the field; a field that nobody knows
//! is refused, also within what a VirtualCluster's spec has too; no two entries have one name, host name or port. Must not know what
//! is in the files that it names.

mod entry;
mod unknown;

use std::collections::BTreeMap;

use serde_json::Value;

pub use self::entry::{Entry, Expose, Route, Server};
use crate::audit::Asks;
use crate::config::{Config, JwtBounds};
use crate::crd::Limits;
use crate::crd::auth::JwtAuthenticator;
use crate::error::{Error, Kind, Result};
use crate::issuers::Issuers;
use crate::names::TenantId;
use crate::names::reserved::{For, Reserved, host_of, normal};

/// One of the list, understood.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Namespace and name: of its path, its default name and in metrics.
    pub id: TenantId,
    /// How its API server is reached.
    pub route: Route,
    /// Its names in TLS, in one spelling; the first is its default name.
    pub hosts: Vec<String>,
    /// The port that leads to it alone.
    pub port: Option<u16>,
    /// PEM file: who signs client certificates of its users. Empty: nobody.
    pub client_ca_file: String,
    /// PEM files of a certificate and its key, for its names and its port.
    pub serving: Option<(String, String)>,
    /// Names and addresses that a certificate made for it must have beside.
    pub names: Vec<String>,
    /// Whether callers without credentials pass as anonymous.
    pub anonymous: bool,
    /// Whose tokens it accepts beside its own. All of them are fit.
    pub issuers: Vec<JwtAuthenticator>,
    /// What it is limited to.
    pub limits: Limits,
    /// What is written of requests to it.
    pub audit: Option<Asks>,
    /// As it is written.
    pub written: Value,
}

/// All of them, in the order of the file.
pub fn read(config: &Config) -> Result<Vec<Listed>> {
    if config.virtual_clusters.is_empty() {
        return Err(bad("virtualClusters lists none".to_owned()));
    }
    let reserved = Reserved::new(config);
    let mut list = Vec::with_capacity(config.virtual_clusters.len());
    for (at, written) in config.virtual_clusters.iter().enumerate() {
        let one = one(written, &reserved, &config.auth.jwt).and_then(|one| {
            check_port(one.port, config)?;
            if one.audit.is_some() && !(config.audit.enabled && config.audit.tenants) {
                return Err("audit is of no use: audit.enabled of this file is false, or audit.tenants".to_owned());
            }
            Ok(one)
        });
        let named = written["name"].as_str().map(|name| format!(" ({name})")).unwrap_or_default();
        list.push(one.map_err(|why| bad(format!("virtualClusters[{at}]{named}: {why}")))?);
    }
    no_two(&list)?;
    Ok(list)
}

/// Names and addresses of the shared listener, for its certificate.
pub fn shared_names(config: &Config) -> Vec<String> {
    let gateway = &config.gateway;
    let address = Some(gateway.listen.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
    let fixed = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let all = gateway.extra_sans.iter().map(|name| name.trim().to_owned()).chain(host_of(&gateway.public_url));
    all.chain(address).chain(fixed).filter(|name| !name.is_empty()).collect()
}

fn one(written: &Value, reserved: &Reserved, bounds: &JwtBounds) -> Result<Listed, String> {
    let entry: Entry = serde_path_to_error::deserialize(written).map_err(|error| misread(&error))?;
    let known = serde_json::to_value(&entry).map_err(|error| error.to_string())?;
    if let Some(field) = unknown::field(written, &known) {
        return Err(format!("there is no field {field}"));
    }
    let id = TenantId::parse(&entry.namespace, &entry.name).map_err(|error| error.to_string())?;
    let issuers = Issuers::new(&entry.auth.jwt, bounds, &Issuers::default());
    if let Some(fault) = issuers.faults().first() {
        return Err(format!("auth.{fault}"));
    }
    check_limits(&entry.limits)?;
    let audit = entry.audit.as_ref().map(Asks::new).transpose().map_err(|fault| format!("audit.{fault}"))?;
    Ok(Listed {
        hosts: hosts(&entry, &id, reserved)?,
        serving: serving(&entry.expose)?,
        route: entry.backend.route()?,
        names: entry.expose.extra_sans.clone(),
        port: entry.expose.port,
        client_ca_file: entry.client_ca_file,
        anonymous: entry.auth.anonymous,
        limits: entry.limits,
        issuers: entry.auth.jwt,
        audit,
        id,
        written: written.clone(),
    })
}

/// Where, and not what stands there: somebody may have put a token in the wrong place, and whoever reaches the port of probes reads this.
fn misread(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let (path, why) = (error.path().to_string(), error.inner().to_string());
    let is_of_names = why.starts_with("unknown field") || why.starts_with("missing field");
    match (is_of_names, path.as_str()) {
        (true, ".") => why,
        (true, path) => format!("{path}: {why}"),
        (false, path) => {
            let expected = why.rsplit_once("expected ").map_or("another kind of value", |(_, expected)| expected);
            format!("{path}: expected {expected}")
        }
    }
}

fn hosts(entry: &Entry, id: &TenantId, reserved: &Reserved) -> Result<Vec<String>, String> {
    let mut hosts: Vec<String> = reserved.default_host(id).into_iter().collect();
    for written in &entry.expose.hosts {
        let refuse = |why: String| Err(format!("expose.hosts: {written:?} {why}"));
        let Some(host) = normal(written) else { return refuse("is no host name".to_owned()) };
        match reserved.host(&host) {
            None => {}
            Some(For::DefaultOf(of)) if of == *id => {}
            Some(For::DefaultOf(of)) => return refuse(format!("is the default name of {of}")),
            Some(For::Shared) => return refuse("is a name of the shared listener".to_owned()),
            Some(For::BaseDomain(base)) => {
                return refuse(format!("is below {base}, where there are only default names (NAME.NAMESPACE.{base})"));
            }
            Some(For::InCluster) => return refuse("means something else inside of clusters".to_owned()),
        }
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Ok(hosts)
}

fn serving(expose: &Expose) -> Result<Option<(String, String)>, String> {
    match (expose.certificate_file.as_str(), expose.key_file.as_str()) {
        ("", "") => Ok(None),
        ("", _) | (_, "") => Err("expose.certificateFile and expose.keyFile must come together".to_owned()),
        (certificate, key) => Ok(Some((certificate.to_owned(), key.to_owned()))),
    }
}

/// Nothing is allowed by a limit of 0.
fn check_limits(limits: &Limits) -> Result<(), String> {
    let all = serde_json::to_value(limits).unwrap_or_default();
    let zero = all.as_object().into_iter().flatten().find(|(_, value)| value.as_u64() == Some(0));
    zero.map_or(Ok(()), |(name, _)| Err(format!("limits.{name} must be at least 1")))
}

fn check_port(port: Option<u16>, config: &Config) -> Result<(), String> {
    let Some(port) = port else { return Ok(()) };
    let own = [
        ("gateway.listen", config.gateway.listen.port()),
        ("admin.listen", config.admin.listen.port()),
        ("admin.metricsListen", config.admin.metrics_listen.port()),
    ];
    match own.iter().find(|(_, own)| *own == port) {
        _ if port == 0 => Err("expose.port must be 1 to 65535, or absent".to_owned()),
        Some((whose, _)) => Err(format!("expose.port: {port} is the port of {whose}")),
        None => Ok(()),
    }
}

fn no_two(list: &[Listed]) -> Result<()> {
    let (mut ids, mut hosts, mut ports) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (at, one) in list.iter().enumerate() {
        let twice = |what: String, other: usize| {
            Err(bad(format!("virtualClusters[{at}] ({}): {what} is virtualClusters[{other}]'s too", one.id)))
        };
        if let Some(other) = ids.insert(&one.id, at) {
            return twice("its namespace and name".to_owned(), other);
        }
        for host in &one.hosts {
            if let Some(other) = hosts.insert(host, at) {
                return twice(format!("the host {host}"), other);
            }
        }
        if let Some(other) = one.port.and_then(|port| ports.insert(port, at)) {
            return twice(format!("the port {}", one.port.unwrap_or_default()), other);
        }
    }
    Ok(())
}

fn bad(message: String) -> Error {
    Error::client(Kind::Invalid, message)
}

#[cfg(test)]
mod tests;
