//! The tenants that this process serves right now: an immutable snapshot, swapped whole.
//!
//! Promises: a request that loaded a snapshot sees one generation throughout; a tenant that cannot be built is
//! reported and never blocks another. `source` fills it from VirtualClusters and their Secrets.

pub mod source;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::crd::PodSecurity;
use crate::names::TenantId;
use crate::tls::{ClientTrust, ServerTls};
use crate::translate::{Owner, Placement, View};
use crate::upstream::{ApiClient, Pool};

/// One virtual cluster in one generation: everything a request or the syncer needs, immutable.
#[derive(Debug)]
pub struct Tenant {
    /// Which.
    pub id: TenantId,
    /// Tells it from an earlier one of the same name: uid of the VirtualCluster, or of what stands for it.
    pub uid: String,
    /// Owner of all host objects.
    pub owner: Option<Owner>,
    /// What is particular about where its host objects live.
    pub placement: Placement,
    /// Grows with every rebuild of this tenant; connections of an older generation are drained.
    pub generation: u64,
    /// Exact lower-case SNI names.
    pub hosts: Vec<String>,
    /// Own listener port; DNS is served on `port + 1`.
    pub port: u16,
    /// Serving certificate for its port and hosts.
    pub server_tls: ServerTls,
    /// Who its client certificates must come from.
    pub client_trust: ClientTrust,
    /// PEM of the CA that signs `server_tls`: what the tenant's pods trust.
    pub server_ca_pem: String,
    /// How the gateway speaks to the backend.
    pub backend: Backend,
    /// The syncer's (cluster-admin) client of the backend.
    pub api: ApiClient,
    /// Whether callers without credentials pass as anonymous.
    pub anonymous: bool,
    /// ClusterIP of the tenant's API Service on the host (its `kubernetes` Service).
    pub api_service_ip: IpAddr,
    /// ClusterIP of the tenant's DNS Service on the host.
    pub dns_service_ip: IpAddr,
    /// Such as `cluster.local`.
    pub cluster_domain: String,
    /// What its pods may be on the host.
    pub pod_security: PodSecurity,
    /// Fingerprint of everything this was built from; equal means nothing to swap.
    pub fingerprint: String,
}

impl Tenant {
    /// What translation may know of it. The parts that the syncer's configuration decides are empty.
    pub fn view(&self) -> View {
        View {
            id: self.id.clone(),
            uid: self.uid.clone(),
            owner: self.owner.clone(),
            placement: self.placement.clone(),
            api_service_ip: self.api_service_ip,
            dns_service_ip: self.dns_service_ip,
            cluster_domain: self.cluster_domain.clone(),
            pod_security: self.pod_security,
            translate_images: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            api_ca: self.server_ca_pem.clone(),
        }
    }
}

/// The gateway's way to a backend.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Connections to it.
    pub pool: Arc<Pool>,
    /// How an authenticated identity is asserted there.
    pub assertion: Assertion,
}

/// How the gateway tells the backend who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assertion {
    /// `X-Remote-*` over a connection with the front-proxy certificate.
    FrontProxy,
    /// `Impersonate-*` with the admin credential: external backends whose front-proxy CA is not ours.
    Impersonate,
}

/// All tenants at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    by_id: HashMap<TenantId, Arc<Tenant>>,
    by_host: HashMap<String, TenantId>,
    by_port: HashMap<u16, TenantId>,
}

impl Snapshot {
    /// A tenant by its identity.
    pub fn by_id(&self, id: &TenantId) -> Option<&Arc<Tenant>> {
        self.by_id.get(id)
    }

    /// A tenant by SNI or authority name; compared without case and trailing dot.
    pub fn by_host(&self, host: &str) -> Option<&Arc<Tenant>> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.by_id.get(self.by_host.get(&host)?)
    }

    /// A tenant by its own listener port.
    pub fn by_port(&self, port: u16) -> Option<&Arc<Tenant>> {
        self.by_id.get(self.by_port.get(&port)?)
    }

    /// All of them, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.by_id.values()
    }
}

/// Holder of the current snapshot.
#[derive(Debug)]
pub struct Registry {
    current: ArcSwap<Snapshot>,
    changed: watch::Sender<u64>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { current: ArcSwap::default(), changed: watch::Sender::new(0) }
    }
}

impl Registry {
    /// The snapshot of now; load once per request and keep it.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Wakes after every swap; the value only grows.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Puts in or replaces one tenant. A host name or port that another tenant holds stays with its holder.
    pub fn put(&self, tenant: &Arc<Tenant>) -> Vec<String> {
        let mut refused = Vec::new();
        self.swap(|by_id| {
            by_id.insert(tenant.id.clone(), Arc::clone(tenant));
        });
        let snapshot = self.load();
        for host in &tenant.hosts {
            if snapshot.by_host(host).is_none_or(|t| t.id != tenant.id) {
                refused.push(host.clone());
            }
        }
        refused
    }

    /// Takes one out.
    pub fn remove(&self, id: &TenantId) {
        self.swap(|by_id| {
            by_id.remove(id);
        });
    }

    fn swap(&self, change: impl Fn(&mut HashMap<TenantId, Arc<Tenant>>)) {
        self.current.rcu(|old| {
            let mut by_id = old.by_id.clone();
            change(&mut by_id);
            Snapshot::index(by_id, old)
        });
        self.changed.send_modify(|n| *n += 1);
    }
}

impl Snapshot {
    /// Holders of a name or port keep it; newcomers get what is free, oldest generation first.
    fn index(by_id: HashMap<TenantId, Arc<Tenant>>, old: &Self) -> Self {
        let mut by_host: HashMap<String, TenantId> = HashMap::new();
        let mut by_port: HashMap<u16, TenantId> = HashMap::new();
        let mut order: Vec<&Arc<Tenant>> = by_id.values().collect();
        order.sort_by(|a, b| a.id.cmp(&b.id));
        let claims = |tenant: &Arc<Tenant>, held: Option<&TenantId>, first: bool| (held == Some(&tenant.id)) == first;
        for first in [true, false] {
            for tenant in &order {
                for host in &tenant.hosts {
                    if claims(tenant, old.by_host.get(host), first) {
                        by_host.entry(host.clone()).or_insert_with(|| tenant.id.clone());
                    }
                }
                if claims(tenant, old.by_port.get(&tenant.port), first) {
                    by_port.entry(tenant.port).or_insert_with(|| tenant.id.clone());
                }
            }
        }
        Self { by_id, by_host, by_port }
    }
}

#[cfg(test)]
mod tests;
