//! The tenants that this process serves right now: an immutable snapshot, swapped whole.
//!
//! Promises: a request that loaded a snapshot sees one generation throughout; a tenant that cannot be built is
//! reported and never blocks another; who is reached by a name or port is decided by what all VirtualClusters ask for
//! (`names::claims`), not by who came up first; generations never repeat within the process. `source` fills it from
//! VirtualClusters and their Secrets.

pub mod follow;
pub mod origin;
pub mod source;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::crd::{OnLoss, PodSecurity};
use crate::kubernetes::ApiClient;
use crate::names::TenantId;
use crate::names::claims::Owners;
use crate::names::reserved::normal;
use crate::tls::{ClientTrust, ServerTls};
use crate::translate::{Owner, Placement, View};
use crate::upstream::Pool;

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
    /// Grows with every rebuild and never repeats within the process (see [`Registry::next_generation`]).
    pub generation: u64,
    /// SNI names that it asks for, exact, in any spelling. Which of them lead to it is the registry's to say.
    pub hosts: Vec<String>,
    /// Own listener port, asked for likewise; DNS is served on `port + 1`.
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
    /// uid of the store that this tenant is known to have; absent until it is recorded.
    pub store: Option<String>,
    /// What becomes of its host objects when its API server comes back with another store.
    pub on_loss: OnLoss,
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
    /// `None` where no VirtualClusters are: the sidecar form.
    owners: Option<Arc<Owners>>,
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
        self.by_id.get(self.by_host.get(&normal(host)?)?)
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
    generations: AtomicU64,
}

impl Default for Registry {
    fn default() -> Self {
        Self { current: ArcSwap::default(), changed: watch::Sender::new(0), generations: AtomicU64::new(0) }
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

    /// A generation that no tenant of this process ever had, whoever fills the registry and however often it began anew.
    pub fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Says who has which names and ports from now on. Where this was never called, tenants have what they ask for; what
    /// several ask for is the first one's by id.
    pub fn own(&self, owners: Owners) {
        let owners = Arc::new(owners);
        self.swap(|old| (old.by_id.clone(), Some(Arc::clone(&owners))));
    }

    /// Puts in or replaces one tenant. Yields the names among its own that do not lead to it.
    pub fn put(&self, tenant: &Arc<Tenant>) -> Vec<String> {
        self.swap(|old| {
            let mut by_id = old.by_id.clone();
            by_id.insert(tenant.id.clone(), Arc::clone(tenant));
            (by_id, old.owners.clone())
        });
        let snapshot = self.load();
        let leads_here = |host: &&String| snapshot.by_host(host).is_some_and(|holder| holder.id == tenant.id);
        tenant.hosts.iter().filter(|host| !leads_here(host)).cloned().collect()
    }

    /// Takes one out.
    pub fn remove(&self, id: &TenantId) {
        self.swap(|old| {
            let mut by_id = old.by_id.clone();
            by_id.remove(id);
            (by_id, old.owners.clone())
        });
    }

    fn swap(&self, change: impl Fn(&Snapshot) -> (HashMap<TenantId, Arc<Tenant>>, Option<Arc<Owners>>)) {
        self.current.rcu(|old| {
            let (by_id, owners) = change(old);
            Snapshot::index(by_id, owners)
        });
        self.changed.send_modify(|n| *n += 1);
    }
}

impl Snapshot {
    /// A name or port leads to the tenant that has it, if it asks for it, or nowhere: never to somebody else because its
    /// holder is not built yet.
    fn index(by_id: HashMap<TenantId, Arc<Tenant>>, owners: Option<Arc<Owners>>) -> Self {
        let mut by_host: HashMap<String, TenantId> = HashMap::new();
        let mut by_port: HashMap<u16, TenantId> = HashMap::new();
        let mut order: Vec<&Arc<Tenant>> = by_id.values().collect();
        order.sort_by(|a, b| a.id.cmp(&b.id));
        for tenant in order {
            for host in tenant.hosts.iter().filter_map(|host| normal(host)) {
                if owners.as_ref().is_none_or(|owners| owners.host(&host) == Some(&tenant.id)) {
                    by_host.entry(host).or_insert_with(|| tenant.id.clone());
                }
            }
            if owners.as_ref().is_none_or(|owners| owners.port(tenant.port) == Some(&tenant.id)) {
                by_port.entry(tenant.port).or_insert_with(|| tenant.id.clone());
            }
        }
        Self { by_id, owners, by_host, by_port }
    }
}

#[cfg(test)]
mod tests;
