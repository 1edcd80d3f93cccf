//! What control planes are made of and what they may take, and how updates reach them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quantity::Quantity;
use super::span::Span;
use crate::error::{Error, Kind, Result};

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
    /// What a control plane may take of its node, by resource, when its VirtualCluster names no limit of its own.
    pub control_plane_limits: BTreeMap<String, Quantity>,
    /// The most that a VirtualCluster can name in `spec.resources.limits`.
    pub max_control_plane_limits: BTreeMap<String, Quantity>,
    /// How a new image or flag reaches the control planes that run.
    pub rollout: RolloutConfig,
    /// What credentials of virtual clusters may be, beside the admin's kubeconfig.
    pub credentials: CredentialsConfig,
}

/// Bounds of the client certificates that Portico signs for whoever may ask in a host namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CredentialsConfig {
    /// The longest life of a certificate that a CredentialRequest asks for (`portico connect --user`).
    pub longest: Span,
    /// The longest life of a credential in a Secret of `spec.kubeconfigs`.
    pub longest_for_machines: Span,
    /// Whether certificates may name users and groups that begin with `system:` (or are reserved likewise: `k3s:`, `eks:` and others). With it whoever
    /// may make a CredentialRequest is admin of the namespace's virtual clusters.
    pub allow_system_names: bool,
}

impl Default for CredentialsConfig {
    fn default() -> Self {
        Self {
            longest: Span(Duration::from_secs(24 * 3600)),
            longest_for_machines: Span(Duration::from_secs(90 * 24 * 3600)),
            allow_system_names: false,
        }
    }
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
            control_plane_limits: quantities([("cpu", "2"), ("memory", "2Gi"), ("ephemeral-storage", "4Gi")]),
            max_control_plane_limits: quantities([("cpu", "8"), ("memory", "16Gi"), ("ephemeral-storage", "64Gi")]),
            rollout: RolloutConfig::default(),
            credentials: CredentialsConfig::default(),
        }
    }
}

fn quantities<const N: usize>(of: [(&str, &str); N]) -> BTreeMap<String, Quantity> {
    of.into_iter().filter_map(|(resource, text)| Some((resource.to_owned(), Quantity::parse(text).ok()?))).collect()
}

impl OperatorConfig {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::client(Kind::Invalid, message));
        if self.first_port < 1024 || self.last_port <= self.first_port {
            return refuse("operator.firstPort must be at least 1024 and below operator.lastPort".to_owned());
        }
        let k3s = self.k3s_image.rsplit('/').next().unwrap_or_default();
        if k3s.is_empty() || k3s.contains([':', '@']) {
            return refuse("operator.k3sImage must be an image without tag or digest".to_owned());
        }
        for (resource, limit) in &self.control_plane_limits {
            if self.max_control_plane_limits.get(resource).is_some_and(|most| most < limit) {
                return refuse(format!("operator.controlPlaneLimits: {resource} must be within maxControlPlaneLimits"));
            }
        }
        let rollout = &self.rollout;
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
        let credentials = &self.credentials;
        for (key, span) in [("longest", credentials.longest), ("longestForMachines", credentials.longest_for_machines)]
        {
            if !(Duration::from_secs(600)..=Duration::from_secs(10 * 365 * 24 * 3600)).contains(&span.0) {
                return refuse(format!("operator.credentials.{key} must be 10m to 87600h"));
            }
        }
        Ok(())
    }
}
