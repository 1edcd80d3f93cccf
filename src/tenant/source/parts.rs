//! What the source and its builds work with.

use std::sync::Arc;

use crate::config::{JwtBounds, Policies};
use crate::kubernetes::Reaches;
use crate::kubernetes::api::SharedCluster;
use crate::names::reserved::Reserved;
use crate::runtime::clock::Clock;
use crate::tenant::Registry;

/// What the source needs.
#[derive(Clone)]
pub struct Parts {
    /// The host API server.
    pub host: SharedCluster,
    /// What is filled.
    pub registry: Arc<Registry>,
    /// Names and ports that are no tenant's, and the domain of the default names.
    pub reserved: Arc<Reserved>,
    /// What virtual clusters may ask of the host, at most.
    pub policies: Arc<Policies>,
    /// Whose tokens they may accept.
    pub jwt: Arc<JwtBounds>,
    /// Where those of `distro: external` may lead to.
    pub reaches: Arc<Reaches>,
    /// The clock of the process; tests bring their own.
    pub clock: Clock,
}
