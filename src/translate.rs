//! How a tenant's object becomes a host object, and a host object's status the tenant's: pure functions on JSON.
//!
//! Promises: deterministic, total (hostile input never panics), nothing of the tenant survives under Portico's reserved
//! keys. Must not know clients, caches or planes; what a function needs beside the object is passed in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::crd::PodSecurity;
use crate::names::{ClusterName, HostNamespace, TenantId};

pub mod diff;
pub mod endpoints;
pub mod event;
pub mod identity;
pub mod ingress;
pub mod json;
pub mod pod;
pub mod policy;
pub mod selector;
pub mod service;

/// What the pure functions may know of a tenant.
#[derive(Debug, Clone)]
pub struct View {
    /// Which.
    pub id: TenantId,
    /// uid of the VirtualCluster: controller owner of every host object. Empty: no owner (clusters from a static list).
    pub uid: String,
    /// ClusterIP that the tenant's `kubernetes` Service has.
    pub api_service_ip: IpAddr,
    /// ClusterIP of its DNS.
    pub dns_service_ip: IpAddr,
    /// Such as `cluster.local`.
    pub cluster_domain: String,
    /// What pods may be.
    pub pod_security: PodSecurity,
    /// Exact-match image replacements.
    pub translate_images: BTreeMap<String, String>,
    /// Node labels that host nodes shown to the tenant must have.
    pub node_selector: BTreeMap<String, String>,
    /// CA (PEM) under which pods find the API at `api_service_ip`. Empty: what the tenant publishes is enough.
    pub api_ca: String,
}

impl View {
    /// Host namespace of all its objects.
    pub fn namespace(&self) -> &HostNamespace {
        self.id.namespace()
    }

    /// Cluster name, part of every host name.
    pub fn cluster(&self) -> &ClusterName {
        self.id.name()
    }
}

#[cfg(test)]
pub(crate) mod testing;
