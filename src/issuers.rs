//! Issuers whose tokens a virtual cluster accepts beside its own: `spec.auth.jwt`, judged by the admin's bounds, and what a token of
//! theirs says of its bearer.
//!
//! Pure. Promises: nothing is in force that was not understood as a whole, entry by entry: one that is unfit is as it was before, while
//! its issuer is still listed and allowed, and off otherwise; an issuer that is no longer listed is off. Nobody becomes one of Kubernetes'
//! own names unless the admin allows it. As `k8s.io/apiserver/plugin/pkg/authenticator/token/oidc` reads tokens, but for CEL, which is refused.
//! Must not know keys, signatures, or how anybody is asked.

mod check;
mod claims;
mod user;

use std::sync::Arc;

use crate::config::JwtBounds;
use crate::crd::auth::{JwtAuthenticator, MOST_ISSUERS};

pub use claims::Claims;
pub use user::{LONGEST_NAME, Refusal, User};

/// All that one virtual cluster accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Issuers {
    all: Vec<Arc<Issuer>>,
    faults: Vec<String>,
}

/// One that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// What its tokens have as `iss`.
    pub url: String,
    /// Where its configuration is.
    pub discovery: Place,
    /// PEM; the system's when there is none.
    pub authority: Option<String>,
    /// Which other servers its configuration may name.
    pub bounds: JwtBounds,
    audiences: Vec<String>,
    rules: Vec<(String, String)>,
    username: (String, String),
    groups: Option<(String, String)>,
    uid: Option<String>,
    extra: Vec<(String, String)>,
}

/// A server, and a path there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// In lower case.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// From the first slash on.
    pub path: String,
}

impl Issuers {
    /// What is in force of what is written. `before` is what was in force of the same virtual cluster.
    pub fn new(written: &[JwtAuthenticator], bounds: &JwtBounds, before: &Self) -> Self {
        let mut issuers = Self::default();
        if written.len() > MOST_ISSUERS {
            issuers.faults.push(format!("only the first {MOST_ISSUERS} issuers count"));
        }
        for (at, entry) in written.iter().take(MOST_ISSUERS).enumerate() {
            let url = &entry.issuer.url;
            let issuer = match check::issuer(entry, bounds) {
                Ok(issuer) => Some(Arc::new(issuer)),
                Err(fault) => {
                    issuers.faults.push(format!("jwt[{at}].{fault}"));
                    before.of(url).filter(|old| old.is_allowed(bounds)).cloned()
                }
            };
            if issuers.of(url).is_some() {
                issuers.faults.push(format!("jwt[{at}].issuer.url: {url} is listed twice: the first one counts"));
                continue;
            }
            issuers.all.extend(issuer);
        }
        issuers
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.all.iter()
    }

    /// The one of this `iss`.
    pub fn of(&self, url: &str) -> Option<&Arc<Issuer>> {
        self.all.iter().find(|issuer| issuer.url == url)
    }

    /// What is not in force as it is written, each in a sentence.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

impl Issuer {
    /// Whether both have the same keys.
    pub fn has_keys_of(&self, other: &Self) -> bool {
        (&self.url, &self.discovery, &self.authority) == (&other.url, &other.discovery, &other.authority)
    }

    fn is_allowed(&self, bounds: &JwtBounds) -> bool {
        bounds.allows(&self.discovery.host, self.discovery.port)
    }
}

impl Place {
    /// Of an `https` URL without user, query and fragment.
    pub fn parse(url: &str) -> Option<Self> {
        Self::with_query(url).filter(|place| !place.path.contains(['?', '%']))
    }

    /// The same, where a query is part of the path.
    pub fn with_query(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("https://")?;
        if rest.contains(['#', '\\', '@']) || !rest.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
            None => (authority, 443),
        };
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let is_host = !host.is_empty() && host.len() <= 253 && host.bytes().all(is_name);
        is_host.then(|| Self { host: host.to_ascii_lowercase(), port, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests;
