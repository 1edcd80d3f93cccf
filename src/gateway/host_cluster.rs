//! The host cluster as the gateway needs it. Absent where it stands alone.

use std::sync::Arc;

use super::metrics_api::figures::Figures;
use crate::kubernetes::ApiClient;
use crate::usage::Usage;

/// The cluster on which the tenants' pods run.
#[derive(Debug, Clone)]
pub struct HostCluster {
    /// Asked with Portico's own rights.
    pub api: ApiClient,
    /// What pods and nodes use, and the kubelets that tenants see.
    pub usage: Arc<Usage>,
    /// The same figures, as `metrics.k8s.io` is answered by them.
    pub figures: Arc<dyn Figures>,
}
