//! What all connections of the process share.

use std::collections::HashSet;
use std::sync::Arc;

use super::connections::Connections;
use super::host_cluster::HostCluster;
use super::known::TokenKey;
use super::metrics::GatewayMetrics;
use super::scrape::door::Door;
use super::scrape::kept::Scrapes;
use super::tenants::Tenants;
use super::turns::Turns;
use crate::config::GatewayConfig;
use crate::error::{Error, Kind, Result};
use crate::names::reserved;
use crate::runtime::clock::Clock;
use crate::runtime::pace::Pace;
use crate::runtime::traces::Traces;
use crate::tenant::Registry;
use crate::tls::SharedCertificate;
use crate::trail::Trail;
use crate::upstream::reach::Closed;

/// The gateway, as each of its connections sees it.
#[derive(Debug)]
pub(super) struct Gateway {
    /// Limits and deadlines.
    pub(super) config: GatewayConfig,
    pub(super) names: SharedNames,
    pub(super) registry: Arc<Registry>,
    /// The shared listener's certificate.
    pub(super) shared: SharedCertificate,
    /// Where tenants' pods run; none where all tenants have nodes of their own.
    pub(super) host: Option<HostCluster>,
    pub(super) clock: Clock,
    pub(super) token_key: TokenKey,
    /// How often tokens of all tenants are judged.
    pub(super) token_pace: Pace,
    /// Addresses to which no tenant's word leads.
    pub(super) closed: Closed,
    /// How often issuers of tokens are asked for their keys.
    pub(super) issuer_turns: Turns,
    pub(super) metrics: Arc<GatewayMetrics>,
    pub(super) tenants: Arc<Tenants>,
    pub(super) connections: Connections,
    /// What API servers show of themselves.
    pub(super) scrapes: Arc<Scrapes>,
    /// Of the whole fleet; where there is a shared listener, and a host cluster that judges.
    pub(super) door: Option<Door>,
    pub(super) traces: Traces,
    /// Where there is an audit log.
    pub(super) audit: Option<Arc<Trail>>,
    /// Of log lines about callers who are not known.
    pub(super) unknown_lines: Pace,
}

impl Gateway {
    /// Where tenants' pods run. Nobody asks for it who serves a tenant with nodes of its own.
    pub(super) fn host(&self) -> Result<&HostCluster> {
        self.host.as_ref().ok_or_else(|| Error::own(Kind::Internal, "there is no host cluster"))
    }
}

/// Names of the shared listener: no tenant's, and reachable under any binding.
#[derive(Debug)]
pub(super) struct SharedNames(HashSet<String>);

impl SharedNames {
    pub(super) fn new(config: &GatewayConfig) -> Self {
        Self(reserved::shared_names(config).into_iter().collect())
    }

    /// The name as [`reserved::normal`] spells it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}
