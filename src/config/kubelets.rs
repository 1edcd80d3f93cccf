//! What Portico may ask the host's kubelets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::span::Span;
use crate::error::{Error, Kind, Result};

/// Kubelets of the host: figures of pods and nodes where the host has no `metrics.k8s.io`, and what tenants see below
/// `nodes/{name}/proxy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubeletsConfig {
    /// Whether Portico asks them at all. The chart's `kubelets.enabled` sets it, with the rights that it takes.
    pub enabled: bool,
    /// PEM of the CAs that their serving certificates come from; empty: the CA of the host's API server.
    pub ca: String,
    /// Their serving certificates are not verified. Whoever can pose as a kubelet then gets the token that is shown to
    /// them, and tells tenants what it likes.
    #[serde(rename = "insecureSkipTLSVerify")]
    pub insecure_skip_tls_verify: bool,
    /// ServiceAccount in Portico's namespace whose tokens are shown to kubelets, made anew every hour. Empty: Portico's
    /// own credential is shown, and whoever has taken over one node can do with it all that Portico can.
    pub service_account: String,
    /// Longest time for a whole answer.
    pub request_timeout: Span,
    /// Requests at once, to all kubelets.
    pub max_requests: usize,
    /// Requests at once to one of them.
    pub max_requests_per_node: usize,
}

impl Default for KubeletsConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            ca: String::new(),
            insecure_skip_tls_verify: false,
            service_account: "portico-kubelets".to_owned(),
            request_timeout: Span(Duration::from_secs(10)),
            max_requests: 64,
            max_requests_per_node: 2,
        }
    }
}

impl KubeletsConfig {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |message: &str| Err(Error::client(Kind::Invalid, message));
        if self.max_requests == 0 || self.max_requests_per_node == 0 {
            return refuse("host.kubelets.maxRequests and host.kubelets.maxRequestsPerNode must be at least 1");
        }
        if self.request_timeout.0 < Duration::from_secs(1) {
            return refuse("host.kubelets.requestTimeout must be at least 1s");
        }
        if self.insecure_skip_tls_verify && !self.ca.is_empty() {
            return refuse("host.kubelets.ca says whom to trust, insecureSkipTLSVerify that it does not matter");
        }
        Ok(())
    }
}
