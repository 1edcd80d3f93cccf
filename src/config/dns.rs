//! Where tenant DNS asks for what it does not know itself, and how often one tenant may ask.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Beyond it nothing would be limited: no process reads so many from a socket.
const HIGHEST_RATE: usize = 1_000_000;

/// Tenant DNS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DnsConfig {
    /// `ip:port` of the resolvers for names outside the tenant; empty means those of /etc/resolv.conf.
    pub upstream: Vec<String>,
    /// Questions a second of one tenant on each replica, in the long run, and twice as many at one moment. A name outside
    /// costs a pod about eight, by its search path. An answer that takes the work of several counts as several. A
    /// VirtualCluster can tighten it in `spec.limits`.
    pub max_questions_per_second_per_tenant: usize,
    /// Questions a second of one tenant that go on to the resolvers, which all tenants share; likewise on each replica, twice
    /// as many at one moment, and tighter by `spec.limits`.
    pub max_forwarded_per_second_per_tenant: usize,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            upstream: Vec::new(),
            // A thousand busy pods ask some thousand. The costliest answer over UDP takes 30 microseconds, with its sockets
            // about 40: a fifth of a core.
            max_questions_per_second_per_tenant: 5_000,
            max_forwarded_per_second_per_tenant: 500,
        }
    }
}

impl DnsConfig {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::client(Kind::Invalid, message));
        for upstream in &self.upstream {
            if upstream.parse::<SocketAddr>().is_err() {
                return refuse(format!("dns.upstream: {upstream:?} is not ip:port"));
            }
        }
        let rates = [self.max_questions_per_second_per_tenant, self.max_forwarded_per_second_per_tenant];
        if rates.iter().any(|rate| !(1..=HIGHEST_RATE).contains(rate)) {
            return refuse(format!("what dns.max…PerSecondPerTenant allows must be 1 to {HIGHEST_RATE}"));
        }
        Ok(())
    }
}
