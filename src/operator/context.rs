//! What all phases share.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::{Config, Policies};
use crate::crd::policy::GrantedPolicy;
use crate::kubernetes::Reaches;
use crate::names::claims::{Owners, Verdict};
use crate::names::reserved::Reserved;
use crate::operator::backends::Backends;
use crate::operator::cluster::Cluster;
use crate::operator::enforcement::Verdicts;
use crate::operator::exposed::Exposed;
use crate::operator::exposure::Exposure;
use crate::operator::host::Host;
use crate::operator::ports::Ports;
use crate::operator::shown::Shown;
use crate::operator::waves::Waves;
use crate::runtime::clock::Clock;

/// What all phases share.
pub(crate) struct Context {
    pub config: Arc<Config>,
    pub host: Host,
    pub backends: Arc<dyn Backends>,
    pub clock: Clock,
    pub ports: Ports,
    pub waves: Waves,
    /// Names and ports that are no tenant's.
    pub reserved: Arc<Reserved>,
    /// Who has which name, out of all VirtualClusters that are there.
    pub owners: Mutex<Arc<Owners>>,
    pub service_cidr: Mutex<Option<String>>,
    /// Where backends of `distro: external` may be, and where the host's pods and API server are.
    pub reaches: Arc<Reaches>,
    /// Whether policies are enforced there.
    pub enforcement: Verdicts,
    /// Which pods are to be reached from outside.
    pub exposure: Exposure,
    /// What became of the policies that open them.
    pub exposed: Exposed,
    /// What virtual clusters may ask of the host, at most.
    pub policies: Policies,
    /// For metrics.
    pub shown: Arc<Shown>,
}

impl Context {
    /// Portico's own namespace.
    pub(crate) fn system_namespace(&self) -> &str {
        &self.config.host.system_namespace
    }

    /// What a cluster's objects may ask of the host.
    pub(crate) fn policy(&self, cluster: &Cluster) -> GrantedPolicy {
        GrantedPolicy::new(&self.policies, (cluster.namespace(), cluster.name()), &cluster.spec.policy)
    }

    /// What becomes of the names that a cluster asks for.
    pub(crate) fn judge(&self, cluster: &Cluster) -> Verdict {
        let owners = Arc::clone(&self.owners.lock());
        owners.judge(&cluster.id, &cluster.spec.expose.hosts)
    }
}
