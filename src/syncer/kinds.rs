//! The kinds that are synced, one file each; what they share is in files of its own below them.
//!
//! All of it is pure: the engine hands in both sides and does what the plan says. Translation itself is in
//! [`crate::translate`]; here is which side wins, when a write is due and in which order.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::kind::ResourceSyncer;

pub mod claim;
pub mod cluster;
pub mod config;
pub mod endpoints;
pub mod event;
mod identity;
pub mod ingress;
pub mod namespace;
pub mod pod;
mod projection;
pub mod service;
mod writes;

#[cfg(test)]
mod adoption_tests;
#[cfg(test)]
mod fuzzed;
#[cfg(test)]
mod restore_tests;
#[cfg(test)]
mod testing;

/// Which kinds are synced; all by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switches {
    /// Kinds (`Ingress`, `PersistentVolume`, …) that are not synced. `Namespace` cannot be switched off: selectors need it.
    pub disabled: BTreeSet<String>,
}

/// Every kind that is switched on, in the order in which a new tenant's caches are best filled.
pub fn all(switches: &Switches) -> Vec<Arc<dyn ResourceSyncer>> {
    let kinds: Vec<Arc<dyn ResourceSyncer>> = vec![
        Arc::new(namespace::NamespaceKind),
        Arc::new(service::ServiceKind),
        Arc::new(pod::PodKind),
        Arc::new(config::ConfigKind::config_maps()),
        Arc::new(config::ConfigKind::secrets()),
        Arc::new(endpoints::EndpointsKind::endpoints()),
        Arc::new(endpoints::EndpointsKind::slices()),
        Arc::new(claim::ClaimKind),
        Arc::new(claim::VolumeKind),
        Arc::new(cluster::NodeKind),
        Arc::new(cluster::ClassKind::storage()),
        Arc::new(cluster::ClassKind::priority()),
        Arc::new(cluster::ClassKind::runtime()),
        Arc::new(cluster::ClassKind::ingress()),
        Arc::new(ingress::IngressKind),
        Arc::new(event::EventKind),
    ];
    kinds
        .into_iter()
        .filter(|kind| {
            let name = kind.resource().kind;
            name == "Namespace" || !switches.disabled.contains(name)
        })
        .collect()
}
