//! The configuration file: one YAML document, unknown fields refused, every default with its reason.
//!
//! `docs/config.md` is generated from these types' doc comments; `config/gateway.yaml` is the annotated default.

pub mod docs;
mod span;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

pub use span::Span;

/// No pod is given longer to end.
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);

/// Everything `portico serve` reads at start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen and what to show there.
    pub gateway: GatewayConfig,
    /// The host cluster.
    pub host: HostConfig,
    /// The syncer.
    pub syncer: SyncerConfig,
    /// The operator.
    pub operator: OperatorConfig,
    /// Tenant DNS.
    pub dns: DnsConfig,
    /// Health and metrics.
    pub admin: AdminConfig,
    /// Logging.
    pub log: LogConfig,
}

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
    /// Deadline of a TLS handshake. Both halves together.
    pub handshake_timeout: Span,
    /// Longest time for the answer to an ordinary request; the API server's own limit is 60 s.
    pub request_timeout: Span,
    /// How long a replica that got SIGTERM goes on taking connections, while the host takes it out of its Services. Clients
    /// are sent away meanwhile: `Connection: close`, GOAWAY.
    pub drain_delay: Span,
    /// How long running requests and streams may go on after that. The pod's grace period must be longer than both.
    pub drain_timeout: Span,
    /// Connections that may be open at once, all tenants.
    pub max_connections: usize,
    /// Requests in flight per tenant, watches and streams not counted.
    pub max_requests_per_tenant: usize,
    /// Watches and streams per tenant.
    pub max_long_running_per_tenant: usize,
    /// Requests at once of callers whom nobody knows yet (a token that the virtual cluster has not accepted within the
    /// last seconds), all tenants; one source address has half of it at most. As many again of anonymous callers.
    pub max_unknown: usize,
    /// The same per tenant; one source address has half of it at most.
    pub max_unknown_per_tenant: usize,
    /// Largest request body in bytes; the API server takes 3 MiB.
    pub max_body: usize,
    /// Bytes that bodies may take which are read as a whole (Services at their creation, mostly), all tenants. One tenant
    /// has a quarter of it at most, which must hold a body of `maxBody`.
    pub max_buffered_bytes: usize,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            public_url: String::new(),
            base_domain: "portico.local".to_owned(),
            extra_sans: Vec::new(),
            handshake_timeout: Span(Duration::from_secs(10)),
            request_timeout: Span(Duration::from_secs(65)),
            drain_delay: Span(Duration::from_secs(5)),
            drain_timeout: Span(Duration::from_secs(25)),
            max_connections: 20_000,
            max_requests_per_tenant: 400,
            max_long_running_per_tenant: 4_000,
            max_unknown: 128,
            max_unknown_per_tenant: 32,
            max_body: 3 * 1024 * 1024 + 64 * 1024,
            max_buffered_bytes: 128 * 1024 * 1024,
        }
    }
}

/// Host cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HostConfig {
    /// Path of a kubeconfig; empty means the pod's ServiceAccount.
    pub kubeconfig: String,
    /// Portico's own namespace; empty means the pod's.
    pub system_namespace: String,
    /// Labels of Portico's pods, the selector of the per-tenant Services.
    pub pod_selector: std::collections::BTreeMap<String, String>,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            kubeconfig: String::new(),
            system_namespace: String::new(),
            pod_selector: [("portico.dev/component".to_owned(), "portico".to_owned())].into(),
        }
    }
}

/// Syncer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SyncerConfig {
    /// Objects worked on at once, all tenants.
    pub workers: usize,
    /// Objects worked on at once for one tenant.
    pub workers_per_tenant: usize,
    /// Images replaced on the way to the host: exact match of the tenant's image.
    pub translate_images: std::collections::BTreeMap<String, String>,
    /// Only host nodes with these labels are shown to tenants and used by their pods.
    pub node_selector: std::collections::BTreeMap<String, String>,
    /// How often each object of both sides is compared again.
    pub drift_interval: Span,
    /// So many copies of one kind of one tenant that would be deleted although nobody deleted their originals are no
    /// longer taken for repair: they wait for a second reading of the tenant, and pods and claims for a person.
    pub mass_deletion_number: usize,
    /// And at least so many percent of the tenant's copies of that kind.
    pub mass_deletion_share: u8,
    /// How long claims that were let go with a lost store are kept before they are deleted.
    pub abandoned_claims: Span,
}

impl Default for SyncerConfig {
    fn default() -> Self {
        Self {
            workers: 32,
            workers_per_tenant: 16,
            translate_images: std::collections::BTreeMap::new(),
            node_selector: std::collections::BTreeMap::new(),
            drift_interval: Span(Duration::from_secs(300)),
            mass_deletion_number: 10,
            mass_deletion_share: 30,
            abandoned_claims: Span(Duration::from_secs(7 * 24 * 3600)),
        }
    }
}

/// Operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OperatorConfig {
    /// Control-plane image of `distro: k8s` when a VirtualCluster names none.
    pub control_plane_image: String,
    /// k3s' image without a tag, for `distro: k3s`: the tag is the VirtualCluster's `version`.
    pub k3s_image: String,
    /// First port of the range from which tenants get two each (API, DNS).
    pub first_port: u16,
    /// Last port of that range.
    pub last_port: u16,
    /// Service CIDR of the host; empty means: asked of the host API server.
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: String,
    /// How a new image or flag reaches the control planes that run.
    pub rollout: RolloutConfig,
}

/// Waves of updates. They hold only what Portico itself renders anew for an unchanged VirtualCluster, after an upgrade or
/// a changed `controlPlaneImage`; what a cluster's owner changes comes at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RolloutConfig {
    /// No control plane is given a new image or flag. A single one is by the annotation `portico.dev/rollout: now` on
    /// its VirtualCluster.
    pub paused: bool,
    /// Share of all control planes, in percent, that may be away for it at once; rounded down, but at least one.
    pub max_unavailable_percent: u8,
    /// The most at once, however many there are.
    pub max_unavailable: usize,
    /// One that is not ready again after this stops the rollout for all others.
    pub timeout: Span,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self { paused: false, max_unavailable_percent: 10, max_unavailable: 5, timeout: Span(Duration::from_secs(600)) }
    }
}

impl Default for OperatorConfig {
    fn default() -> Self {
        Self {
            control_plane_image: "docker.io/portico/control-plane:dev".to_owned(),
            k3s_image: "docker.io/rancher/k3s".to_owned(),
            first_port: 20_000,
            last_port: 23_999,
            service_cidr: String::new(),
            rollout: RolloutConfig::default(),
        }
    }
}

/// Tenant DNS.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DnsConfig {
    /// `ip:port` of the resolvers for names outside the tenant; empty means those of /etc/resolv.conf.
    pub upstream: Vec<String>,
}

/// Health and metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Plain HTTP for probes: `/livez`, `/readyz`, `/healthz`. Only kubelets need it.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Where Prometheus finds `/metrics`.
    #[schemars(with = "String")]
    pub metrics_listen: SocketAddr,
    /// Who may read the metrics. `tokenReview`: over TLS with the shared listener's certificate, bearers of a token whose
    /// user may `get` the nonresource URL `/metrics` in the host cluster. `open`: over plain HTTP, whoever reaches the port.
    pub metrics_access: MetricsAccess,
}

/// Who may read metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MetricsAccess {
    /// Whom the host's API server lets, by TokenReview and SubjectAccessReview.
    TokenReview,
    /// Anybody.
    Open,
}

impl Default for AdminConfig {
    fn default() -> Self {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Self { listen: any(9090), metrics_listen: any(9091), metrics_access: MetricsAccess::TokenReview }
    }
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LogConfig {
    /// `tracing` filter directives.
    pub filter: String,
    /// `json` or `text`.
    pub format: LogFormat,
    /// One line for each request.
    pub access: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Json, access: true }
    }
}

/// Log line form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Config {
    /// Parses and checks a whole document.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = if text.trim().is_empty() {
            Self::default()
        } else {
            serde_saphyr::from_str(text)
                .map_err(|e| Error::client(Kind::Invalid, "the configuration cannot be read").because(e))?
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::client(Kind::Invalid, message));
        if self.operator.first_port < 1024 || self.operator.last_port <= self.operator.first_port {
            return refuse("operator.firstPort must be at least 1024 and below operator.lastPort".to_owned());
        }
        let k3s = self.operator.k3s_image.rsplit('/').next().unwrap_or_default();
        if k3s.is_empty() || k3s.contains([':', '@']) {
            return refuse("operator.k3sImage must be an image without tag or digest".to_owned());
        }
        let rollout = &self.operator.rollout;
        if !(1..=100).contains(&rollout.max_unavailable_percent) || rollout.max_unavailable == 0 {
            return refuse(
                "operator.rollout.maxUnavailablePercent must be 1 to 100, and maxUnavailable at least 1; paused: true stops \
                 a rollout"
                    .to_owned(),
            );
        }
        if rollout.timeout.0 < Duration::from_secs(10) {
            return refuse(
                "operator.rollout.timeout must be at least 10s: a control plane needs that to start".to_owned(),
            );
        }
        if self.syncer.workers == 0 || self.syncer.workers_per_tenant == 0 {
            return refuse("syncer.workers and syncer.workersPerTenant must be at least 1".to_owned());
        }
        if self.syncer.mass_deletion_number == 0 || !(1..=100).contains(&self.syncer.mass_deletion_share) {
            return refuse("syncer.massDeletionNumber must be at least 1, massDeletionShare 1 to 100".to_owned());
        }
        for upstream in &self.dns.upstream {
            if upstream.parse::<SocketAddr>().is_err() {
                return refuse(format!("dns.upstream: {upstream:?} is not ip:port"));
            }
        }
        if self.gateway.drain_delay.0 > LONGEST_DRAIN || self.gateway.drain_timeout.0 > LONGEST_DRAIN {
            return refuse("gateway.drainDelay and gateway.drainTimeout must be at most 1h".to_owned());
        }
        if self.gateway.drain_timeout.0 < Duration::from_secs(1) {
            return refuse("gateway.drainTimeout must be at least 1s, or every request is cut at SIGTERM".to_owned());
        }
        if !self.gateway.public_url.is_empty() && !self.gateway.public_url.starts_with("https://") {
            return refuse("gateway.publicURL must begin with https://".to_owned());
        }
        let gateway = &self.gateway;
        if gateway.max_unknown < 2 || gateway.max_unknown_per_tenant < 2 {
            return refuse("gateway.maxUnknown and gateway.maxUnknownPerTenant must be at least 2".to_owned());
        }
        if gateway.max_buffered_bytes / 4 < gateway.max_body {
            return refuse("gateway.maxBufferedBytes must be at least four times gateway.maxBody".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_and_bad_durations_are_refused() {
        assert!(Config::parse("gateway: {lissten: 1}").is_err());
        assert!(Config::parse("gateway: {requestTimeout: 5 parsecs}").is_err());
        assert!(Config::parse("dns: {upstream: [example]}").is_err());
        assert!(Config::parse("gateway: {drainDelay: 2h}").is_err());
        assert!(Config::parse("gateway: {drainTimeout: 0s}").is_err());
        assert!(Config::parse("gateway: {drainDelay: 0s}").is_ok());
        assert!(Config::parse("operator: {k3sImage: 'registry:5000/rancher/k3s:v1'}").is_err());
        assert!(Config::parse("operator: {k3sImage: 'registry:5000/rancher/k3s'}").is_ok());
        assert!(Config::parse("gateway: {maxUnknownPerTenant: 1}").is_err());
        assert!(Config::parse("gateway: {maxBufferedBytes: 8000000}").is_err());
        for rollout in ["maxUnavailablePercent: 0", "maxUnavailablePercent: 101", "maxUnavailable: 0", "timeout: 1s"] {
            assert!(Config::parse(&format!("operator: {{rollout: {{{rollout}}}}}")).is_err(), "{rollout}");
        }
        assert!(Config::parse("operator: {rollout: {paused: true, maxUnavailable: 1}}").is_ok());
    }

    #[test]
    fn durations_and_defaults() {
        let config = Config::parse("gateway: {requestTimeout: 2m}").expect("valid");
        assert_eq!(config.gateway.request_timeout.0, Duration::from_secs(120));
        assert_eq!(Config::parse("").expect("valid"), Config::default());
    }
}
