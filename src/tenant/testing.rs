//! The host as far as tenants come from it, simulated: for tests of whoever follows VirtualClusters. And a tenant whose API
//! server does not answer.

#[path = "../../tests/support/tenant.rs"]
mod support;

use std::sync::Arc;

use serde_json::Value;

use super::Tenant;
use crate::error::Side;
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::testing::{Faults, Server};
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::tls::{ClientTrust, ServerTls};
use crate::upstream::{Credential, Pool, Reach, Target};

const CLUSTERS: &str = "virtualclusters";

/// VirtualClusters, each with the same PKI in a Secret of its own. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FakeHost {
    pub(crate) server: Server,
    faults: Arc<Faults>,
    secret: Value,
}

impl FakeHost {
    /// `secret` is every tenant's PKI. All goes well until there is trouble.
    pub(crate) fn new(seed: u64, secret: Value) -> Self {
        let faults = Faults::new(seed);
        faults.stop();
        Self { server: Server::new("host", Side::Host, Arc::clone(&faults)), faults, secret }
    }

    pub(crate) fn cluster(&self) -> SharedCluster {
        Arc::new(self.server.clone())
    }

    pub(crate) fn apply(&self, object: Value) {
        let id = TenantId::of(&object).expect("id");
        let mut secret = self.secret.clone();
        if !secret.is_null() {
            let name = format!("{}-pki", id.name());
            secret["metadata"] = serde_json::json!({"namespace": id.namespace().as_str(), "name": name});
            self.server.put("secrets", secret);
        }
        self.server.put(CLUSTERS, object);
    }

    pub(crate) fn edit(&self, id: &TenantId, change: impl FnOnce(&mut Value)) {
        self.server.change(CLUSTERS, id.namespace().as_str(), id.name().as_str(), change);
    }

    pub(crate) fn delete(&self, id: &TenantId) {
        self.server.delete_gracefully(CLUSTERS, id.namespace().as_str(), id.name().as_str(), None);
    }

    pub(crate) fn all(&self) -> Vec<Value> {
        self.server.objects(CLUSTERS)
    }

    /// Whether calls fail, hang, panic or come late, and events get lost or come twice, by chance.
    pub(crate) fn trouble(&self, on: bool) {
        self.faults.go_on(on);
        self.faults.panics(on);
    }
}

/// One of namespace `team`.
pub(crate) fn tenant(name: &str, generation: u64, host: &str, port: u16) -> Arc<Tenant> {
    let issued = rcgen::generate_simple_self_signed(vec![host.to_owned()]).expect("certificate");
    let (cert, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    let tls = crate::tls::client_config(cert.as_bytes(), None).expect("client configuration");
    let target = Target {
        side: Side::Backend,
        host: "127.0.0.1".to_owned(),
        port: 1,
        server_name: "backend".try_into().expect("name"),
        tls: Arc::clone(&tls),
        tls_without_identity: tls,
        credential: Credential::Certificate,
        path_prefix: String::new(),
        reach: Reach::default(),
    };
    let pool = Arc::new(Pool::new(target, Clock::system()));
    Arc::new(Tenant {
        generation,
        hosts: vec![host.to_owned()],
        port,
        server_ca_pem: cert.clone(),
        ..support::tenant(
            TenantId::parse("team", name).expect("id"),
            pool,
            ServerTls::from_pem(cert.as_bytes(), key.as_bytes()).expect("server tls"),
            ClientTrust::from_pem(cert.as_bytes()).expect("trust"),
        )
    })
}
