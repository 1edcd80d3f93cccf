//! A tenant as it mostly is in tests and benches: whoever wants it otherwise says only in what.
#![allow(dead_code, unreachable_pub)]

use std::net::IpAddr;
use std::sync::Arc;

use portico::kubernetes::ApiClient;
use portico::names::TenantId;
use portico::tenant::{Assertion, Backend, Nodes, Tenant};
use portico::tls::{ClientTrust, ServerTls};
use portico::upstream::Pool;

/// With a backend that is asked as front proxy, and without names or a port.
pub fn tenant(id: TenantId, pool: Arc<Pool>, server_tls: ServerTls, client_trust: ClientTrust) -> Tenant {
    Tenant {
        id,
        uid: "u".to_owned(),
        owner: None,
        nodes: Nodes::Host,
        placement: portico::translate::Placement::default(),
        generation: 1,
        life: portico::tenant::life::Life::default(),
        hosts: Vec::new(),
        port: 0,
        server_tls,
        client_trust,
        aggregator: None,
        server_ca_pem: String::new(),
        api: ApiClient::new(Arc::clone(&pool), http::HeaderMap::new()),
        backend: Backend { pool, assertion: Assertion::FrontProxy },
        audiences: Some(&[]),
        issuers: Arc::default(),
        anonymous: false,
        api_service_ip: IpAddr::from([10, 96, 0, 2]),
        dns_service_ip: IpAddr::from([10, 96, 0, 3]),
        cluster_domain: "cluster.local".to_owned(),
        policy: portico::crd::policy::GrantedPolicy::default(),
        limits: portico::crd::Limits::default(),
        audit: None,
        store: None,
        on_loss: portico::crd::OnLoss::default(),
        fingerprint: String::new(),
    }
}
