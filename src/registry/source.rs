//! Fills the registry from VirtualClusters and their PKI Secrets on the host.
//!
//! Promises: a tenant that cannot be built is reported and tried again, and blocks no other; a tenant whose inputs
//! did not change is not swapped; a VirtualCluster that is gone or being deleted leaves the registry at once.
//! PKI Secrets are read again every [`REFRESH`], so a rotated certificate is in force without a watch per namespace.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use rustls::pki_types::ServerName;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::crd::{Distro, VirtualCluster, pki};
use crate::drain::Drain;
use crate::error::{Error, Kind, Result, Side};
use crate::names::TenantId;
use crate::registry::{Assertion, Backend, Registry, Tenant};
use crate::tls::{self, ClientTrust, ServerTls};
use crate::translate::{Owner, Placement};
use crate::upstream::resources::VIRTUAL_CLUSTERS;
use crate::upstream::{self, ApiClient, Credential, ListOptions, Pool, Secret, Target, WatchEvent, WatchStream};

/// How often Secrets of known tenants are read again.
const REFRESH: Duration = Duration::from_secs(60);
/// How soon a tenant that could not be built is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How often due work is looked for.
const TICK: Duration = Duration::from_millis(500);

/// What the source needs.
#[derive(Clone)]
pub struct Parts {
    /// The host API server.
    pub host: ApiClient,
    /// What is filled.
    pub registry: Arc<Registry>,
    /// Domain of the default SNI names.
    pub base_domain: String,
    /// Time.
    pub clock: Clock,
}

/// Follows the VirtualClusters until the drain begins. `listed` is called after the first whole list was worked on.
pub async fn run(parts: &Parts, mut drain: Drain, listed: impl Fn() + Send) -> Result<()> {
    let mut source = Source { parts: parts.clone(), known: HashMap::new(), generation: 0 };
    loop {
        tokio::select! {
            outcome = source.follow(&listed) => outcome?,
            _ = drain.signaled() => return Ok(()),
        }
    }
}

struct Source {
    parts: Parts,
    known: HashMap<TenantId, Known>,
    generation: u64,
}

struct Known {
    cluster: Arc<VirtualCluster>,
    due: Instant,
    complaint: Option<String>,
}

impl Source {
    /// One list and the watch that follows it.
    async fn follow(&mut self, listed: &(impl Fn() + Send)) -> Result<()> {
        let host = self.parts.host.clone();
        let (items, version) = host.list(&VIRTUAL_CLUSTERS, None, &ListOptions::default()).await?;
        let mut seen = Vec::with_capacity(items.len());
        for item in items {
            seen.extend(self.applied(item));
        }
        let gone: Vec<TenantId> = self.known.keys().filter(|id| !seen.contains(id)).cloned().collect();
        for id in gone {
            self.deleted(&id);
        }
        self.build_due().await;
        listed();
        let mut watch = host.watch(&VIRTUAL_CLUSTERS, None, &ListOptions::default(), &version).await?;
        loop {
            tokio::select! {
                event = next(&mut watch) => match event? {
                    Some(event) => self.event(event),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(TICK) => {}
            }
            self.build_due().await;
        }
    }

    fn event(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Applied(bytes) => {
                if let Ok(object) = serde_json::from_slice(&bytes) {
                    self.applied(object);
                }
            }
            WatchEvent::Deleted(bytes) => {
                let object: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                if let Some(id) = TenantId::of(&object) {
                    self.deleted(&id);
                }
            }
            WatchEvent::Bookmark { .. } => {}
        }
    }

    /// Takes in a VirtualCluster; it is built when due. A malformed one is reported and skipped.
    fn applied(&mut self, object: Value) -> Option<TenantId> {
        let id = TenantId::of(&object)?;
        let cluster: VirtualCluster = match serde_json::from_value(object) {
            Ok(cluster) => cluster,
            Err(error) => {
                tracing::warn!(tenant = %id, %error, "a VirtualCluster cannot be read");
                return Some(id);
            }
        };
        if cluster.metadata.deletion_timestamp.is_some() {
            self.deleted(&id);
            return Some(id);
        }
        let due = self.parts.clock.instant();
        let complaint = self.known.remove(&id).and_then(|k| k.complaint);
        self.known.insert(id.clone(), Known { cluster: Arc::new(cluster), due, complaint });
        Some(id)
    }

    fn deleted(&mut self, id: &TenantId) {
        self.known.remove(id);
        if let Some(tenant) = self.parts.registry.load().by_id(id) {
            tenant.backend.pool.close();
            self.parts.registry.remove(id);
            tracing::info!(tenant = %id, "tenant left");
        }
    }

    async fn build_due(&mut self) {
        let now = self.parts.clock.instant();
        let due: Vec<(TenantId, Arc<VirtualCluster>)> = self
            .known
            .iter()
            .filter(|(_, known)| known.due <= now)
            .map(|(id, known)| (id.clone(), Arc::clone(&known.cluster)))
            .collect();
        for (id, cluster) in due {
            let outcome = self.build(&id, &cluster).await;
            let Some(known) = self.known.get_mut(&id) else { continue };
            match outcome {
                Ok(()) => {
                    known.due = now + self.parts.clock.jitter(REFRESH);
                    known.complaint = None;
                }
                Err(error) => {
                    known.due = now + RETRY;
                    let complaint = error.to_string();
                    if known.complaint.as_ref() != Some(&complaint) {
                        tracing::info!(tenant = %id, %error, "tenant not served yet");
                        known.complaint = Some(complaint);
                    }
                }
            }
        }
    }

    async fn build(&mut self, id: &TenantId, cluster: &VirtualCluster) -> Result<()> {
        let status = cluster.status.as_ref().ok_or_else(|| waiting("the operator has not seen it yet"))?;
        if status.pki_secret.is_empty() || status.port.is_none() || status.backend.is_none() {
            return Err(waiting(if status.message.is_empty() { "being prepared" } else { &status.message }));
        }
        let secret = self.secret(id, &status.pki_secret).await?;
        let kubeconfig = match (&cluster.spec.backend, cluster.spec.distro) {
            (Some(backend), Distro::External) => {
                let key = &backend.kubeconfig_secret;
                let secret = self.secret(id, &key.name).await?;
                Some(secret.text(&key.key)?)
            }
            _ => None,
        };
        let fingerprint = fingerprint(cluster, &secret, kubeconfig.as_deref())?;
        let registry = Arc::clone(&self.parts.registry);
        let snapshot = registry.load();
        let old = snapshot.by_id(id);
        if old.is_some_and(|tenant| tenant.fingerprint == fingerprint) {
            return Ok(());
        }
        self.generation += 1;
        let inputs = Inputs { id, cluster, secret: &secret, kubeconfig, fingerprint, generation: self.generation };
        let tenant = Arc::new(inputs.build(&self.parts)?);
        let refused = registry.put(&tenant);
        if !refused.is_empty() {
            tracing::warn!(tenant = %id, hosts = ?refused, "these hosts belong to another tenant");
        }
        if let Some(old) = old {
            old.backend.pool.close();
        }
        tracing::info!(tenant = %id, generation = self.generation, "tenant served");
        Ok(())
    }

    async fn secret(&self, id: &TenantId, name: &str) -> Result<Secret> {
        Secret::read(&self.parts.host, id.namespace().as_str(), name).await
    }
}

/// Everything one generation of a tenant is made of.
struct Inputs<'a> {
    id: &'a TenantId,
    cluster: &'a VirtualCluster,
    secret: &'a Secret,
    kubeconfig: Option<String>,
    fingerprint: String,
    generation: u64,
}

impl Inputs<'_> {
    fn build(self, parts: &Parts) -> Result<Tenant> {
        let status = self.cluster.status.as_ref().ok_or_else(|| waiting("the operator has not seen it yet"))?;
        let server_ca = self.secret.bytes(pki::SERVER_CA)?;
        let (backend, api) = self.backend(parts, &server_ca)?;
        let mut hosts = vec![self.id.default_host(&parts.base_domain)];
        hosts.extend(self.cluster.spec.expose.hosts.iter().map(|h| h.trim_end_matches('.').to_ascii_lowercase()));
        let uid = self.cluster.metadata.uid.clone().unwrap_or_default();
        Ok(Tenant {
            id: self.id.clone(),
            owner: Some(Owner::virtual_cluster(self.id.name().as_str(), &uid)),
            uid,
            placement: Placement::default(),
            generation: self.generation,
            hosts,
            port: status.port.ok_or_else(|| waiting("no port yet"))?,
            server_tls: ServerTls::from_pem(&self.secret.bytes(pki::GATEWAY)?, &self.secret.bytes(pki::GATEWAY_KEY)?)?,
            client_trust: ClientTrust::from_pem(&self.secret.bytes(pki::CLIENT_CA)?)?,
            server_ca_pem: self.secret.text(pki::SERVER_CA)?,
            backend,
            api,
            anonymous: self.cluster.spec.auth.anonymous,
            api_service_ip: address(&status.api_service_ip)?,
            dns_service_ip: address(&status.dns_service_ip)?,
            cluster_domain: self.cluster.spec.network.cluster_domain.clone(),
            pod_security: self.cluster.spec.policy.pod_security,
            fingerprint: self.fingerprint,
        })
    }

    fn backend(&self, parts: &Parts, server_ca: &[u8]) -> Result<(Backend, ApiClient)> {
        if let Some(kubeconfig) = &self.kubeconfig {
            let target = upstream::target_from_kubeconfig(kubeconfig, Side::Backend)?;
            let pool = Arc::new(Pool::new(target, parts.clock.clone()));
            let api = ApiClient::new(Arc::clone(&pool), HeaderMap::new());
            return Ok((Backend { pool, assertion: Assertion::Impersonate }, api));
        }
        let target = self.front_proxy_target(server_ca)?;
        let pool = Arc::new(Pool::new(target, parts.clock.clone()));
        let mut identity = HeaderMap::new();
        identity.insert("x-remote-user", HeaderValue::from_static("system:portico"));
        identity.insert("x-remote-group", HeaderValue::from_static("system:masters"));
        let api = ApiClient::new(Arc::clone(&pool), identity);
        Ok((Backend { pool, assertion: Assertion::FrontProxy }, api))
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
        })
    }
}

fn address(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| waiting("its Services have no addresses yet"))
}

fn waiting(for_what: &str) -> Error {
    Error::own(Kind::Unavailable, for_what)
}

async fn next(watch: &mut WatchStream) -> Result<Option<WatchEvent>> {
    watch.next().await
}

/// Digest of all that a tenant is built from: spec, the status fields that matter, and the Secrets' data.
fn fingerprint(cluster: &VirtualCluster, secret: &Secret, kubeconfig: Option<&str>) -> Result<String> {
    let status = cluster.status.as_ref();
    let parts = serde_json::json!({
        "uid": cluster.metadata.uid,
        "spec": cluster.spec,
        "port": status.and_then(|s| s.port),
        "api": status.map(|s| &s.api_service_ip),
        "dns": status.map(|s| &s.dns_service_ip),
        "backend": status.map(|s| &s.backend),
        "data": secret.data(),
        "kubeconfig": kubeconfig,
    });
    let bytes = serde_json::to_vec(&parts)
        .map_err(|e| Error::own(Kind::Internal, "a VirtualCluster cannot be serialized").because(e))?;
    Ok(Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect())
}
