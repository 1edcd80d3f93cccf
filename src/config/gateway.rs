//! What the gateway listens on, and the limits and deadlines of those who call.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::scrape::ScrapeConfig;
use super::span::Span;
use crate::error::{Error, Kind, Result};

/// No pod is given longer to end.
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);
/// Nothing would be bounded by more.
const LONGEST_STANDSTILL: Duration = Duration::from_secs(3600);

/// Gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// The shared TLS listener: tenant by SNI or path.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Base URL under which users reach the shared listener, for instance `https://portico.example.com`. Kubeconfigs
    /// use it with the path of the tenant. Empty: `portico connect` forwards a port by itself.
    #[serde(rename = "publicURL")]
    pub public_url: String,
    /// Domain below which every tenant has the SNI name `{name}.{namespace}.{baseDomain}`, and no tenant another one.
    pub base_domain: String,
    /// Further names and IPs in the shared listener's certificate. No tenant can have these names.
    #[serde(rename = "extraSANs")]
    pub extra_sans: Vec<String>,
    /// Address ranges, such as `192.0.2.0/24`, of load balancers that begin each connection with a header of the PROXY
    /// protocol, version 2. Their clients are counted by the address in it; from these ranges nothing is taken without one.
    #[schemars(with = "Vec<String>")]
    pub proxy_protocol_from: Vec<IpNet>,
    /// Deadline of a TLS handshake. Both halves together.
    pub handshake_timeout: Span,
    /// Longest time for the answer to an ordinary request; the API server's own limit is 60 s.
    pub request_timeout: Span,
    /// How long bytes of an answer may wait while its reader takes none. Then it ends, by a reset of its stream or the end of
    /// its connection; after twice this time at the latest. Watches and logs have ten times as long.
    pub standstill_timeout: Span,
    /// How long a replica that got SIGTERM goes on taking connections, while the host takes it out of its Services. Clients
    /// are sent away meanwhile: `Connection: close`, GOAWAY.
    pub drain_delay: Span,
    /// How long running requests and streams may go on after that. The pod's grace period must be longer than both.
    pub drain_timeout: Span,
    /// Connections that may be open at once, all tenants.
    pub max_connections: usize,
    /// Those of them on which nobody who is known has asked for anything yet. One source address has half of it at most
    /// (behind a load balancer all clients may have one), those that name one tenant have half of it, those of one source
    /// that name one tenant a quarter.
    pub max_unknown_connections: usize,
    /// TLS handshakes at once, each of which costs a signature; one source address has half of it at most.
    pub max_handshakes: usize,
    /// Connections of one tenant on which somebody who is known asks. This and the next four are what a VirtualCluster can
    /// tighten in `spec.limits`.
    pub max_connections_per_tenant: usize,
    /// Requests a second of one tenant's known callers, in the long run.
    pub max_requests_per_second_per_tenant: usize,
    /// Requests that may come at one moment when few came before.
    pub max_request_burst_per_tenant: usize,
    /// Requests in flight per tenant, watches and streams not counted. One user has three quarters of it at most, of two
    /// each has three sevenths, and so on: whoever comes next finds something left.
    pub max_requests_per_tenant: usize,
    /// Watches and streams per tenant, shared among its users likewise.
    pub max_long_running_per_tenant: usize,
    /// Requests at once of callers whom nobody knows yet (a token that the virtual cluster has not accepted within the
    /// last seconds), all tenants; one source address has half of it at most. As many again of anonymous callers.
    pub max_unknown: usize,
    /// The same per tenant; one source address has half of it at most.
    pub max_unknown_per_tenant: usize,
    /// Access-log lines a second, in the long run, about requests of callers who are not known; five times as many at one
    /// moment. The others are counted (`portico_gateway_unlogged_requests_total`).
    pub max_unknown_log_lines_per_second: usize,
    /// Largest request body in bytes; the API server takes 3 MiB.
    pub max_body: usize,
    /// Bytes that bodies may take which are read as a whole (Services at their creation, mostly), all tenants. One tenant
    /// has a quarter of it at most, which must hold a body of `maxBody`.
    pub max_buffered_bytes: usize,
    /// Scraping of virtual clusters.
    pub scrape: ScrapeConfig,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            public_url: String::new(),
            base_domain: "portico.local".to_owned(),
            extra_sans: Vec::new(),
            proxy_protocol_from: Vec::new(),
            handshake_timeout: Span(Duration::from_secs(10)),
            request_timeout: Span(Duration::from_secs(65)),
            standstill_timeout: Span(Duration::from_secs(60)),
            drain_delay: Span(Duration::from_secs(5)),
            drain_timeout: Span(Duration::from_secs(25)),
            max_connections: 20_000,
            max_unknown_connections: 4_000,
            max_handshakes: 512,
            max_connections_per_tenant: 5_000,
            max_requests_per_second_per_tenant: 5_000,
            max_request_burst_per_tenant: 10_000,
            max_requests_per_tenant: 400,
            max_long_running_per_tenant: 4_000,
            max_unknown: 128,
            max_unknown_per_tenant: 32,
            max_unknown_log_lines_per_second: 200,
            max_body: 3 * 1024 * 1024 + 64 * 1024,
            max_buffered_bytes: 128 * 1024 * 1024,
            scrape: ScrapeConfig::default(),
        }
    }
}

impl GatewayConfig {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |message: &str| Err(Error::client(Kind::Invalid, message));
        if self.drain_delay.0 > LONGEST_DRAIN || self.drain_timeout.0 > LONGEST_DRAIN {
            return refuse("gateway.drainDelay and gateway.drainTimeout must be at most 1h");
        }
        if self.drain_timeout.0 < Duration::from_secs(1) {
            return refuse("gateway.drainTimeout must be at least 1s, or every request is cut at SIGTERM");
        }
        if self.standstill_timeout.0 < Duration::from_secs(1) || self.standstill_timeout.0 > LONGEST_STANDSTILL {
            return refuse("gateway.standstillTimeout must be 1s to 1h");
        }
        if !self.public_url.is_empty() && !self.public_url.starts_with("https://") {
            return refuse("gateway.publicURL must begin with https://");
        }
        if self.max_unknown < 2 || self.max_unknown_per_tenant < 2 {
            return refuse("gateway.maxUnknown and gateway.maxUnknownPerTenant must be at least 2");
        }
        let per_tenant = [
            self.max_connections_per_tenant,
            self.max_requests_per_second_per_tenant,
            self.max_request_burst_per_tenant,
            self.max_requests_per_tenant,
            self.max_long_running_per_tenant,
        ];
        if per_tenant.contains(&0) {
            return refuse("what gateway.max…PerTenant allows must be at least 1");
        }
        if self.max_unknown_log_lines_per_second == 0 {
            return refuse("gateway.maxUnknownLogLinesPerSecond must be at least 1");
        }
        if self.max_unknown_connections < 2 || self.max_handshakes < 2 {
            return refuse("gateway.maxUnknownConnections and gateway.maxHandshakes must be at least 2");
        }
        if self.max_buffered_bytes / 4 < self.max_body {
            return refuse("gateway.maxBufferedBytes must be at least four times gateway.maxBody");
        }
        self.scrape.check()
    }
}
