//! How callers of virtual clusters may be known, beyond what each cluster's own API server knows.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Authentication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Tokens of other issuers: `spec.auth.jwt` of VirtualClusters.
    pub jwt: JwtBounds,
}

/// The most that `spec.auth.jwt` of a VirtualCluster may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct JwtBounds {
    /// Hosts of issuers that are asked for their keys: `accounts.example.com`, `issuer.example.com:8443`, `*.example.com` for all names
    /// below one, or `*`. Empty: none, since whoever may edit a VirtualCluster could have the gateway connect anywhere.
    pub allowed_issuers: Vec<String>,
    /// Networks (CIDR) to which the names of issuers may lead although they are private, or the machine's own: those of RFC 1918 and the like
    /// are closed otherwise.
    #[schemars(with = "Vec<String>")]
    pub allowed_addresses: Vec<IpNet>,
    /// Whether tokens may make somebody a user or member of a group whose name is Kubernetes' own (`system:` and those of distributions).
    pub allow_system_names: bool,
}

impl JwtBounds {
    /// Whether an issuer's server may be asked: its host in lower case, and its port.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        self.allowed_issuers.iter().any(|entry| {
            let (name, entry_port) =
                entry.rsplit_once(':').map_or((entry.as_str(), "443"), |(name, port)| (name, port));
            if entry == "*" {
                return true;
            }
            let is_host = match name.strip_prefix("*.") {
                Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
                None => name.eq_ignore_ascii_case(host),
            };
            is_host && entry_port.parse() == Ok(port)
        })
    }
}

impl AuthConfig {
    pub(super) fn check(&self) -> Result<()> {
        for entry in &self.jwt.allowed_issuers {
            let (name, port) = entry.rsplit_once(':').unwrap_or((entry, "443"));
            let bare = name.strip_prefix("*.").unwrap_or(name);
            let is_name = !bare.is_empty()
                && bare.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b));
            if entry != "*" && (!is_name || port.parse::<u16>().is_err()) {
                let message = format!(
                    "auth.jwt.allowedIssuers: {entry:?} is no host: write for instance accounts.example.com, \
                     issuer.example.com:8443, *.example.com or *"
                );
                return Err(Error::client(Kind::Invalid, message));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_allowed_exactly_or_below_a_name() {
        let bounds = |entries: &[&str]| JwtBounds {
            allowed_issuers: entries.iter().map(|entry| (*entry).to_owned()).collect(),
            ..JwtBounds::default()
        };
        let some = bounds(&["a.example.com", "b.example.com:8443", "*.sso.example.com"]);
        for (host, port, expected) in [
            ("a.example.com", 443, true),
            ("a.example.com", 8443, false),
            ("b.example.com", 8443, true),
            ("b.example.com", 443, false),
            ("x.sso.example.com", 443, true),
            ("x.y.sso.example.com", 443, true),
            ("sso.example.com", 443, false),
            (".sso.example.com", 443, false),
            ("evilsso.example.com", 443, false),
            ("a.example.com.evil.org", 443, false),
        ] {
            assert_eq!(some.allows(host, port), expected, "{host}:{port}");
        }
        assert!(!bounds(&[]).allows("a.example.com", 443), "none by default");
        assert!(bounds(&["*"]).allows("a.example.com", 8443));
        for bad in ["https://a.example.com", "a.example.com/x", "*.", "", "a:b", "A.example.com"] {
            assert!(AuthConfig { jwt: bounds(&[bad]) }.check().is_err(), "{bad}");
        }
        assert!(AuthConfig { jwt: some }.check().is_ok());
    }
}
