//! An issuer that is in force, and where its servers are.

use crate::config::JwtBounds;

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
    pub(super) audiences: Vec<String>,
    pub(super) rules: Vec<(String, String)>,
    pub(super) username: (String, String),
    pub(super) groups: Option<(String, String)>,
    pub(super) uid: Option<String>,
    pub(super) extra: Vec<(String, String)>,
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

impl Issuer {
    /// Whether its server may be asked still.
    pub(super) fn is_allowed(&self, bounds: &JwtBounds) -> bool {
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
