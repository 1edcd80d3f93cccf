//! One generation of a tenant, out of its VirtualCluster and its Secrets.
//!
//! Promises: inputs that did not change make no new generation; connections whose own inputs did not change are used on.

use std::net::IpAddr;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::parts::Parts;
use crate::audit::Asks;
use crate::crd::policy::GrantedPolicy;
use crate::crd::{Distro, VirtualCluster, pki};
use crate::error::{Error, Kind, Result, Side};
use crate::issuers::Issuers;
use crate::kubernetes;
use crate::kubernetes::{ApiClient, Secret};
use crate::names::TenantId;
use crate::tenant::life::Life;
use crate::tenant::{Aggregator, Assertion, Backend, Nodes, Tenant};
use crate::tls::{self, ClientTrust, ServerTls};
use crate::translate::{Owner, Placement};
use crate::upstream::{Credential, Reach, Target};

/// Reads what it needs and builds; `None` when the tenant in force was made of the same.
pub(super) async fn tenant(parts: &Parts, id: &TenantId, cluster: &VirtualCluster) -> Result<Option<Arc<Tenant>>> {
    let status = cluster.status.as_ref().ok_or_else(|| waiting("the operator has not seen it yet"))?;
    if status.pki_secret.is_empty() || status.port.is_none() || status.backend.is_none() {
        return Err(waiting(if status.message.is_empty() { "being prepared" } else { &status.message }));
    }
    let namespace = id.namespace().as_str();
    let secret = Secret::read(&*parts.host, namespace, &status.pki_secret).await?;
    let external = match (&cluster.spec.backend, cluster.spec.distro) {
        (Some(backend), Distro::External) => {
            let key = &backend.kubeconfig_secret;
            let kubeconfig = Secret::read(&*parts.host, namespace, &key.name).await?.text(&key.key)?;
            // Asked for each time: connections that are used on learn what is closed meanwhile.
            let reach = parts.reaches.of(&parts.host, namespace, parts.clock.instant()).await?;
            Some(External { kubeconfig, reach })
        }
        _ => None,
    };
    let kubeconfig = external.as_ref().map(|external| external.kubeconfig.as_str());
    let fingerprint = Fingerprint::of(cluster, &secret, kubeconfig)?;
    let snapshot = parts.registry.load();
    let old = snapshot.by_id(id);
    if old.is_some_and(|tenant| tenant.fingerprint == fingerprint.whole()) {
        return Ok(None);
    }
    let same = old.filter(|tenant| fingerprint.has_connections_of(&tenant.fingerprint)).map(Arc::as_ref);
    let issuers = issuers(parts, cluster, old.map(Arc::as_ref));
    let inputs = Inputs { id, cluster, secret: &secret, external, issuers, fingerprint };
    Ok(Some(Arc::new(inputs.build(parts, same)?)))
}

/// Whose tokens count from now on. A successor of the same name has nothing of what its predecessor had.
fn issuers(parts: &Parts, cluster: &VirtualCluster, old: Option<&Tenant>) -> Issuers {
    let before = old.filter(|old| Some(old.uid.as_str()) == cluster.metadata.uid.as_deref());
    let none = Issuers::default();
    Issuers::new(&cluster.spec.auth.jwt, &parts.jwt, before.map_or(&none, |old| &*old.issuers))
}

/// An API server that a user named, and which addresses it may have.
struct External {
    kubeconfig: String,
    reach: Reach,
}

/// Digests of all that a tenant is built from: of what its connections are made of, and of everything.
struct Fingerprint {
    connections: String,
    everything: String,
}

impl Fingerprint {
    fn of(cluster: &VirtualCluster, secret: &Secret, kubeconfig: Option<&str>) -> Result<Self> {
        let (status, data) = (cluster.status.as_ref(), secret.data());
        let backend = status.and_then(|s| s.backend.as_ref());
        let connections = match kubeconfig {
            Some(_) => json!([cluster.metadata.uid, kubeconfig]),
            None => {
                let identity = [pki::SERVER_CA, pki::FRONT_PROXY, pki::FRONT_PROXY_KEY].map(|key| &data[key]);
                json!([cluster.metadata.uid, backend, identity])
            }
        };
        let everything = json!({
            "uid": cluster.metadata.uid,
            "spec": cluster.spec,
            "port": status.and_then(|s| s.port),
            "api": status.map(|s| &s.api_service_ip),
            "dns": status.map(|s| &s.dns_service_ip),
            "backend": backend,
            "store": status.and_then(|s| s.store.as_ref()).map(|store| &store.uid),
            "data": data,
            "kubeconfig": kubeconfig,
        });
        Ok(Self { connections: digest(&connections)?, everything: digest(&everything)? })
    }

    fn whole(&self) -> String {
        format!("{}-{}", self.connections, self.everything)
    }

    fn has_connections_of(&self, whole: &str) -> bool {
        whole.split_once('-').is_some_and(|(connections, _)| connections == self.connections)
    }
}

fn digest(value: &Value) -> Result<String> {
    let bytes = serde_json::to_vec(value)
        .map_err(|e| Error::own(Kind::Internal, "a VirtualCluster cannot be serialized").because(e))?;
    Ok(HEXLOWER.encode(&Sha256::digest(&bytes)))
}

/// Everything one generation of a tenant is made of.
struct Inputs<'a> {
    id: &'a TenantId,
    cluster: &'a VirtualCluster,
    secret: &'a Secret,
    external: Option<External>,
    issuers: Issuers,
    fingerprint: Fingerprint,
}

impl Inputs<'_> {
    /// `same` is a tenant whose connections go on being used.
    fn build(self, parts: &Parts, same: Option<&Tenant>) -> Result<Tenant> {
        let status = self.cluster.status.as_ref().ok_or_else(|| waiting("the operator has not seen it yet"))?;
        let server_ca = self.secret.bytes(pki::SERVER_CA)?;
        let (backend, api) = match same {
            Some(tenant) => (tenant.backend.clone(), tenant.api.clone()),
            None => self.backend(parts, &server_ca)?,
        };
        let mut hosts: Vec<String> = parts.reserved.default_host(self.id).into_iter().collect();
        let place = (self.id.namespace().as_str(), self.id.name().as_str());
        let policy = GrantedPolicy::new(&parts.policies, place, &self.cluster.spec.policy);
        hosts.extend(self.cluster.spec.expose.hosts.iter().cloned());
        let uid = self.cluster.metadata.uid.clone().unwrap_or_default();
        Ok(Tenant {
            id: self.id.clone(),
            owner: Some(Owner::virtual_cluster(self.id.name().as_str(), &uid)),
            uid,
            nodes: Nodes::Host,
            placement: Placement::default(),
            generation: parts.registry.next_generation(),
            life: Life::default(),
            hosts,
            port: status.port.ok_or_else(|| waiting("no port yet"))?,
            server_tls: ServerTls::from_pem(&self.secret.bytes(pki::GATEWAY)?, &self.secret.bytes(pki::GATEWAY_KEY)?)?,
            client_trust: ClientTrust::from_pem(&self.secret.bytes(pki::CLIENT_CA)?)?,
            aggregator: self.aggregator(),
            server_ca_pem: self.secret.text(pki::SERVER_CA)?,
            backend,
            api,
            audiences: self.audiences(),
            issuers: Arc::new(self.issuers),
            anonymous: self.cluster.spec.auth.anonymous,
            api_service_ip: address(&status.api_service_ip)?,
            dns_service_ip: address(&status.dns_service_ip)?,
            cluster_domain: self.cluster.spec.network.cluster_domain.clone(),
            policy,
            limits: self.cluster.spec.limits,
            // Whose rules are not fit has none of his own; the operator tells him (`operator/audited.rs`).
            audit: self.cluster.spec.audit.as_ref().and_then(|audit| Asks::new(audit).ok()).map(Arc::new),
            store: status.store.as_ref().map(|store| store.uid.clone()).filter(|uid| !uid.is_empty()),
            on_loss: self.cluster.spec.storage.on_loss,
            fingerprint: self.fingerprint.whole(),
        })
    }

    /// Whoever cannot be known by it is none, and everything else of the tenant is served.
    fn aggregator(&self) -> Option<Aggregator> {
        let (name, asks_gateway) = match self.cluster.spec.distro {
            Distro::K8s => (pki::AGGREGATOR_NAME, false),
            Distro::K3s => (pki::K3S_FRONT_PROXY_NAME, true),
            // Its aggregator's CA is its own affair.
            Distro::External => return None,
        };
        let ca = self.secret.bytes(pki::FRONT_PROXY_CA).ok()?;
        Some(Aggregator { trust: ClientTrust::from_pem(&ca).ok()?, name, asks_gateway })
    }

    /// As `deploy/control-plane` starts them.
    fn audiences(&self) -> Option<&'static [&'static str]> {
        match self.cluster.spec.distro {
            Distro::K8s => Some(&[]),
            Distro::K3s => Some(&["k3s"]),
            Distro::External => None,
        }
    }

    fn backend(&self, parts: &Parts, server_ca: &[u8]) -> Result<(Backend, ApiClient)> {
        if let Some(External { kubeconfig, reach }) = &self.external {
            let target = kubernetes::target_from_kubeconfig(kubeconfig, Side::Backend, reach.clone())?;
            return Ok(Backend::new(target, Assertion::Impersonate, &parts.clock));
        }
        Ok(Backend::new(self.front_proxy_target(server_ca)?, Assertion::FrontProxy, &parts.clock))
    }

    fn front_proxy_target(&self, server_ca: &[u8]) -> Result<Target> {
        let status = self.cluster.status.as_ref().and_then(|s| s.backend.as_ref());
        let status = status.ok_or_else(|| waiting("no backend address yet"))?;
        let (host, port) = status
            .address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?)))
            .ok_or_else(|| Error::own(Kind::Internal, format!("{:?} is no host:port", status.address)))?;
        let server_name = ServerName::try_from(status.server_name.clone())
            .map_err(|e| Error::own(Kind::Internal, "the backend's name is not valid").because(e))?;
        let (chain, key) = (self.secret.bytes(pki::FRONT_PROXY)?, self.secret.bytes(pki::FRONT_PROXY_KEY)?);
        Ok(Target {
            side: Side::Backend,
            host,
            port,
            server_name,
            tls: tls::client_config(server_ca, Some((&chain, &key)))?,
            tls_without_identity: tls::client_config(server_ca, None)?,
            credential: Credential::Certificate,
            path_prefix: String::new(),
            reach: Reach::default(),
        })
    }
}

fn address(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| waiting("its Services have no addresses yet"))
}

fn waiting(for_what: &str) -> Error {
    Error::own(Kind::Unavailable, for_what)
}
