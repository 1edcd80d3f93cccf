//! A virtual cluster in one generation.
//!
//! Promises: immutable but for what its life says, which is told by the registry alone. Must not know where it comes
//! from or who serves it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use super::life::Life;
use crate::audit::Asks;
use crate::crd::policy::GrantedPolicy;
use crate::crd::{Limits, OnLoss};
use crate::issuers::Issuers;
use crate::kubernetes::ApiClient;
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::tls::{ClientTrust, ServerTls};
use crate::translate::{Owner, Placement, View};
use crate::upstream::{Pool, Target};

/// One virtual cluster in one generation: everything a request or the syncer needs, immutable.
#[derive(Debug)]
pub struct Tenant {
    /// Host namespace and name of the virtual cluster.
    pub id: TenantId,
    /// Tells it from an earlier one of the same name: uid of the VirtualCluster, or of what stands for it.
    pub uid: String,
    /// Owner of all host objects.
    pub owner: Option<Owner>,
    /// Where its pods run.
    pub nodes: Nodes,
    /// What is particular about where its host objects live.
    pub placement: Placement,
    /// Grows with every rebuild and never repeats within the process
    /// (see [`Registry::next_generation`](super::Registry::next_generation)).
    pub generation: u64,
    /// What becomes of this cluster, told to all its generations.
    pub life: Life,
    /// SNI names that it asks for, exact, in any spelling. Which of them lead to it is the registry's to say.
    pub hosts: Vec<String>,
    /// Own listener port, asked for likewise; DNS is served on `port + 1`. 0: none.
    pub port: u16,
    /// Serving certificate for its port and hosts.
    pub server_tls: ServerTls,
    /// Who its client certificates must come from.
    pub client_trust: ClientTrust,
    /// By what its own API server is known, when that asks for what Portico answers through its aggregator.
    pub aggregator: Option<Aggregator>,
    /// PEM of the CA that signs `server_tls`: what the tenant's pods trust.
    pub server_ca_pem: String,
    /// How the gateway speaks to the backend.
    pub backend: Backend,
    /// The syncer's (cluster-admin) client of the backend.
    pub api: ApiClient,
    /// What its API server accepts as audience of ServiceAccounts' tokens beside its issuer; `None` where somebody else wrote
    /// its arguments, so that it is not known, nor whether it publishes all of its keys.
    pub audiences: Option<&'static [&'static str]>,
    /// Whose tokens it accepts beside its own.
    pub issuers: Arc<Issuers>,
    /// Whether callers without credentials pass as anonymous.
    pub anonymous: bool,
    /// ClusterIP of the tenant's API Service on the host (its `kubernetes` Service).
    pub api_service_ip: IpAddr,
    /// ClusterIP of the tenant's DNS Service on the host.
    pub dns_service_ip: IpAddr,
    /// Such as `cluster.local`.
    pub cluster_domain: String,
    /// What its objects may ask of the host.
    pub policy: GrantedPolicy,
    /// What it asks to be limited to at the gateway and in DNS.
    pub limits: Limits,
    /// What it asks to have written of the requests to it, where that is fit.
    pub audit: Option<Arc<Asks>>,
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
            policy: self.policy.clone(),
            translate_images: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            api_ca: self.server_ca_pem.clone(),
        }
    }
}

/// Where the pods of a virtual cluster run, and who serves their streams therefore.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Nodes {
    /// On the host's nodes: the gateway takes streams there.
    #[default]
    Host,
    /// On nodes of its own, if anywhere: its API server serves everything itself.
    Own,
}

/// The certificate that an API server shows as aggregator to whoever extends it.
#[derive(Debug, Clone)]
pub struct Aggregator {
    /// The front proxies' CA.
    pub trust: ClientTrust,
    /// Its common name; every other one of that CA is somebody else's. With k3s the gateway's own has it too, whose key nobody
    /// else has.
    pub name: &'static str,
    /// It asks the gateway itself; others have a relay that does.
    pub asks_gateway: bool,
}

/// The gateway's way to a backend.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Connections to it.
    pub pool: Arc<Pool>,
    /// How an authenticated identity is asserted there.
    pub assertion: Assertion,
}

impl Backend {
    /// The way to an API server, with connections that are new, and our own client of it.
    pub fn new(target: Target, assertion: Assertion, clock: &Clock) -> (Self, ApiClient) {
        let pool = Arc::new(Pool::new(target, clock.clone()));
        let api = ApiClient::new(Arc::clone(&pool), assertion.own_identity());
        (Self { pool, assertion }, api)
    }
}

/// How the gateway tells the backend who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assertion {
    /// `X-Remote-*` over a connection with the front-proxy certificate.
    FrontProxy,
    /// `Impersonate-*` with the admin credential: external backends whose front-proxy CA is not ours.
    Impersonate,
}

impl Assertion {
    /// As whom we ask for ourselves: the credential of a kubeconfig says it, a front proxy must.
    pub fn own_identity(self) -> HeaderMap {
        let mut identity = HeaderMap::new();
        if self == Self::FrontProxy {
            identity.insert("x-remote-user", HeaderValue::from_static("system:portico"));
            identity.insert("x-remote-group", HeaderValue::from_static("system:masters"));
        }
        identity
    }
}
