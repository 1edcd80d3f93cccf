//! The configuration file: one YAML document, unknown fields refused, every default with its reason.
//!
//! `docs/config.md` is generated from these types' doc comments; `config/gateway.yaml` is the annotated default.

pub mod audit;
mod auth;
mod certificates;
mod dns;
pub mod docs;
mod gateway;
mod kubelets;
mod memory;
mod metering;
mod networks;
mod operator;
pub mod policy;
mod quantity;
mod scrape;
mod span;
mod tracing;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Kind, Result};

pub use audit::AuditConfig;
pub use auth::{AuthConfig, JwtBounds};
pub use certificates::CertificatesConfig;
pub use dns::DnsConfig;
pub use gateway::GatewayConfig;
pub use kubelets::KubeletsConfig;
pub use memory::MemoryConfig;
pub use metering::MeteringConfig;
pub use networks::{IpBlock, LabelSelector, NetworkEgress, NetworkPeer, NetworkPort, NetworksConfig, Protocol};
pub use operator::{CredentialsConfig, OperatorConfig, RolloutConfig};
pub use policy::{NodeUsage, PodSecurity, Policies, PolicyBounds};
pub use quantity::Quantity;
pub use scrape::{Family, FamilyKind, ScrapeConfig};
pub use span::Span;
pub use tracing::TracingConfig;

/// The most clusters of one file.
const MOST_LISTED: usize = 1000;

/// Everything `portico serve` reads at start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen and what to show there.
    pub gateway: GatewayConfig,
    /// How callers may be known beside.
    pub auth: AuthConfig,
    /// The host cluster.
    pub host: HostConfig,
    /// Serving certificates where there is no host cluster, whose Secrets hold them otherwise.
    pub certificates: CertificatesConfig,
    /// API servers in front of which the gateway stands alone, without a host cluster (`host.enabled: false`): a list, whose
    /// entries docs/operations/gateway-alone.md explains. A change is in force without a restart, whole or not at all.
    pub virtual_clusters: Vec<Value>,
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
    /// Traces of requests.
    pub tracing: TracingConfig,
    /// What happens before the memory runs out.
    pub memory: MemoryConfig,
    /// What virtual clusters use, measured and kept.
    pub metering: MeteringConfig,
    /// What is written of the requests to virtual clusters.
    pub audit: AuditConfig,
    /// What the objects of virtual clusters may ask of the host.
    pub policy: PolicyBounds,
    /// The same by host namespace, instead of `policy`: each entry is a whole of its own.
    pub policies: BTreeMap<String, PolicyBounds>,
    /// Who reaches the pods of virtual clusters, and whom they reach.
    pub networks: NetworksConfig,
}

/// Host cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HostConfig {
    /// Whether there is one. Without, only the gateway runs, for what `virtualClusters` lists.
    pub enabled: bool,
    /// Path of a kubeconfig; empty means the pod's ServiceAccount.
    pub kubeconfig: String,
    /// Portico's own namespace; empty means the pod's.
    pub system_namespace: String,
    /// Labels of Portico's pods, the selector of the per-tenant Services.
    pub pod_selector: BTreeMap<String, String>,
    /// The kubelets: figures of pods and nodes where the host has no `metrics.k8s.io`, and what tenants see below
    /// `nodes/{name}/proxy`.
    pub kubelets: KubeletsConfig,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            kubeconfig: String::new(),
            system_namespace: String::new(),
            pod_selector: [("portico.dev/component".to_owned(), "portico".to_owned())].into(),
            kubelets: KubeletsConfig::default(),
        }
    }
}

/// Syncer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SyncerConfig {
    /// Calls to the host's API server at once, all tenants; lists and watches not counted.
    pub workers: usize,
    /// Objects worked on at once for one tenant. Tenants do not take these from each other: who waits for his own API
    /// server delays nobody, and one whose server does not answer has one at a time until it does.
    pub workers_per_tenant: usize,
    /// Bytes that are kept of one tenant's objects. Of what is beyond, nothing is kept but that it is there: it is not
    /// synced, an event says so, and what is on the host already stays as it is.
    pub max_cached_bytes_per_tenant: usize,
    /// The same of all tenants. When it is reached, those that keep less than their even part go on all the same.
    pub max_cached_bytes: usize,
    /// Events written in one tenant in a second in the long run, those of the host and Portico's own; at one moment twenty
    /// times as many. What is beyond is not said. A VirtualCluster can tighten it in `spec.limits`.
    pub max_events_per_second_per_tenant: u32,
    /// Images replaced on the way to the host: exact match of the tenant's image.
    pub translate_images: BTreeMap<String, String>,
    /// Only host nodes with these labels are shown to tenants and used by their pods.
    pub node_selector: BTreeMap<String, String>,
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
            max_cached_bytes_per_tenant: 128 << 20,
            max_cached_bytes: 512 << 20,
            max_events_per_second_per_tenant: 100,
            translate_images: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            drift_interval: Span(Duration::from_secs(300)),
            mass_deletion_number: 10,
            mass_deletion_share: 30,
            abandoned_claims: Span(Duration::from_secs(7 * 24 * 3600)),
        }
    }
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
            serde_saphyr::from_str(text).map_err(|error: serde_saphyr::Error| {
                let line = error.location().map(|location| format!(": see line {}", location.line()));
                let message = format!("the configuration cannot be read{}", line.unwrap_or_default());
                Error::client(Kind::Invalid, message).because(error)
            })?
        };
        config.check()?;
        Ok(config)
    }

    /// The bounds of all host namespaces.
    pub fn policies(&self) -> Policies {
        let namespaces = self.policies.iter().map(|(name, bounds)| (name.clone(), Arc::new(bounds.clone())));
        Policies { general: Arc::new(self.policy.clone()), namespaces: namespaces.collect() }
    }

    fn check(&self) -> Result<()> {
        let refuse = |message: &str| Err(Error::client(Kind::Invalid, message));
        self.gateway.check()?;
        self.auth.check()?;
        self.operator.check()?;
        self.dns.check()?;
        self.networks.check()?;
        self.memory.check()?;
        self.tracing.check()?;
        self.metering.check()?;
        self.audit.check()?;
        self.host.kubelets.check()?;
        self.certificates.check()?;
        self.check_form()?;
        if self.syncer.workers == 0 || self.syncer.workers_per_tenant == 0 {
            return refuse("syncer.workers and syncer.workersPerTenant must be at least 1");
        }
        if self.syncer.max_events_per_second_per_tenant == 0 {
            return refuse("syncer.maxEventsPerSecondPerTenant must be at least 1");
        }
        if self.syncer.mass_deletion_number == 0 || !(1..=100).contains(&self.syncer.mass_deletion_share) {
            return refuse("syncer.massDeletionNumber must be at least 1, massDeletionShare 1 to 100");
        }
        let named = self.policies.iter().map(|(name, bounds)| (format!("policies.{name}"), bounds));
        for (place, bounds) in std::iter::once(("policy".to_owned(), &self.policy)).chain(named) {
            if let Some(fault) = bounds.fault() {
                return refuse(&format!("{place}.{fault}"));
            }
        }
        Ok(())
    }
}

/// With a host cluster or without: what is of no use in one form is refused rather than ignored.
impl Config {
    fn check_form(&self) -> Result<()> {
        let refuse = |message: &str| Err(Error::client(Kind::Invalid, message));
        let listed = self.virtual_clusters.len();
        if self.host.enabled {
            if listed > 0 {
                return refuse(
                    "virtualClusters are for a gateway without a host cluster (host.enabled: false); on a host cluster make \
                     VirtualClusters, with spec.distro: external for API servers that already run",
                );
            }
            if self.certificates != CertificatesConfig::default() {
                return refuse(
                    "certificates are for a gateway without a host cluster (host.enabled: false); on a host cluster it is the \
                     Secret portico-gateway-tls",
                );
            }
            return Ok(());
        }
        if listed == 0 || listed > MOST_LISTED {
            return refuse(&format!(
                "without a host cluster (host.enabled: false) virtualClusters must list 1 to {MOST_LISTED} clusters"
            ));
        }
        if self.admin.metrics_access == MetricsAccess::TokenReview {
            return refuse(
                "without a host cluster (host.enabled: false) nobody judges who may read metrics: set admin.metricsAccess to \
                 open, and admin.metricsListen to an address that nobody else reaches, such as 127.0.0.1:9091",
            );
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
        assert!(Config::parse("gateway: {standstillTimeout: 0s}").is_err());
        assert!(Config::parse("memory: {watermarkPercent: 101}").is_err());
        assert!(Config::parse("memory: {watermarkPercent: 0}").is_ok(), "off");
        for nonsense in ["interval: 1s", "interval: 2m", "keepDays: 0", "keepHoursForDays: 0", "keepDays: 2"] {
            assert!(Config::parse(&format!("metering: {{{nonsense}}}")).is_err(), "{nonsense}");
        }
        assert!(Config::parse("gateway: {drainTimeout: 0s}").is_err());
        for nonsense in
            ["maxRequests: 0", "maxRequestsPerNode: 0", "requestTimeout: 0s", "insecureSkipTLSVerify: true, ca: x"]
        {
            assert!(Config::parse(&format!("host: {{kubelets: {{{nonsense}}}}}")).is_err(), "{nonsense}");
        }
        assert!(Config::parse("gateway: {drainDelay: 0s}").is_ok());
        assert!(Config::parse("operator: {k3sImage: 'registry:5000/rancher/k3s:v1'}").is_err());
        assert!(Config::parse("operator: {k3sImage: 'registry:5000/rancher/k3s'}").is_ok());
        for zero in
            ["maxUnknownPerTenant: 1", "maxRequestsPerTenant: 0", "maxHandshakes: 1", "maxUnknownConnections: 0"]
        {
            assert!(Config::parse(&format!("gateway: {{{zero}}}")).is_err(), "{zero}");
        }
        assert!(Config::parse("gateway: {maxBufferedBytes: 8000000}").is_err());
        for key in ["maxQuestionsPerSecondPerTenant", "maxForwardedPerSecondPerTenant"] {
            for nonsense in ["0", "-1", "1000001", "many"] {
                assert!(Config::parse(&format!("dns: {{{key}: {nonsense}}}")).is_err(), "{key}: {nonsense}");
            }
            assert!(Config::parse(&format!("dns: {{{key}: 1}}")).is_ok(), "{key}");
        }
        let refusal = Config::parse("dns: {maxForwardedPerSecondPerTenant: 0}").expect_err("nobody could ask");
        assert!(refusal.to_string().contains("must be 1 to 1000000"), "{refusal}");
        for rollout in ["maxUnavailablePercent: 0", "maxUnavailablePercent: 101", "maxUnavailable: 0", "timeout: 1s"] {
            assert!(Config::parse(&format!("operator: {{rollout: {{{rollout}}}}}")).is_err(), "{rollout}");
        }
        assert!(Config::parse("operator: {rollout: {paused: true, maxUnavailable: 1}}").is_ok());
    }

    #[test]
    fn what_is_of_no_use_in_a_form_is_refused() {
        let alone = "host: {enabled: false}\nadmin: {metricsAccess: open}\n";
        let one = "virtualClusters: [{name: a}]\n";
        for (refused, word) in [
            (one.to_owned(), "spec.distro: external"),
            ("certificates: {folder: x}".to_owned(), "portico-gateway-tls"),
            (alone.to_owned(), "must list"),
            (format!("host: {{enabled: false}}\n{one}"), "admin.metricsAccess"),
            (format!("{alone}{one}certificates: {{certificateFile: x}}"), "must come together"),
            (format!("{alone}{one}certificates: {{folder: ''}}"), "must be named"),
            (format!("{alone}virtualClusters:\n{}", "- {name: a}\n".repeat(MOST_LISTED + 1)), "must list"),
        ] {
            let error = Config::parse(&refused).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
        let config = Config::parse(&format!("{alone}{one}")).expect("fit");
        assert_eq!(config.virtual_clusters[0]["name"], "a");
    }

    #[test]
    fn durations_and_defaults() {
        let config = Config::parse("gateway: {requestTimeout: 2m}").expect("valid");
        assert_eq!(config.gateway.request_timeout.0, Duration::from_secs(120));
        assert_eq!(Config::parse("").expect("valid"), Config::default());
    }
}
