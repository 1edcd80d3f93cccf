//! How a tenant's object becomes a host object, and a host object's status the tenant's: pure functions on JSON.
//!
//! Promises: deterministic, total (hostile input never panics), nothing of the tenant survives under Portico's reserved
//! keys. Must not know clients, caches or planes; what a function needs beside the object is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::crd::policy::GrantedPolicy;
use crate::names::{ClusterName, HostNamespace, TenantId};

pub mod aliases;
pub mod bounds;
pub mod diff;
pub mod endpoints;
pub mod event;
pub mod identity;
pub mod ingress;
pub mod json;
pub mod labels;
pub mod legacy;
pub mod pod;
pub mod policy;
pub mod restore;
pub mod selector;
pub mod service;
pub mod summary;

pub use aliases::Aliases;

/// What the pure functions may know of a tenant.
#[derive(Debug, Clone)]
pub struct View {
    /// Host namespace and name of the virtual cluster.
    pub id: TenantId,
    /// Tells this cluster from an earlier one of the same name.
    pub uid: String,
    /// Owner of every host object, so that they go with it. None: they are not collected by the host.
    pub owner: Option<Owner>,
    /// What is particular about where its host objects live.
    pub placement: Placement,
    /// ClusterIP that the tenant's `kubernetes` Service has.
    pub api_service_ip: IpAddr,
    /// ClusterIP of its DNS.
    pub dns_service_ip: IpAddr,
    /// Such as `cluster.local`.
    pub cluster_domain: String,
    /// What its objects may ask of the host.
    pub policy: GrantedPolicy,
    /// Exact-match image replacements.
    pub translate_images: BTreeMap<String, String>,
    /// Node labels that host nodes shown to the tenant must have.
    pub node_selector: BTreeMap<String, String>,
    /// CA (PEM) under which pods find the API at `api_service_ip`. Empty: what the tenant publishes is enough.
    pub api_ca: String,
}

/// The host object that a tenant's host objects go with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// `group/version`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// uid.
    pub uid: String,
    /// Whether it is their controller, which keeps every other controller away. A StatefulSet must not be: its
    /// controller gives up pods that its selector does not match, and takes the reference from them.
    pub controller: bool,
}

impl Owner {
    /// A VirtualCluster.
    pub fn virtual_cluster(name: &str, uid: &str) -> Self {
        Self {
            api_version: "portico.dev/v1alpha1".to_owned(),
            kind: "VirtualCluster".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            controller: true,
        }
    }
}

/// What is particular about the host namespace of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Host names that differ from today's formula.
    pub aliases: Arc<Aliases>,
    /// Label values that must not reach the host as they are, since something of the host's own selects by them: the
    /// control plane's Services, for one.
    pub guarded_labels: Arc<BTreeSet<(String, String)>>,
    /// Host ServiceAccount of the tenant's pods; empty: the namespace's default. Its token is never mounted.
    pub service_account: String,
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
pub(crate) mod samples;
#[cfg(test)]
pub(crate) mod testing;
