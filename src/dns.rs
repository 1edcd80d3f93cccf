//! Tenant DNS: one resolver for each tenant on the port after its API port, answering from that tenant's own objects
//! and forwarding the rest.
//!
//! Promises: a tenant's zone is only ever read by that tenant's sockets; nothing below a cluster domain and no private
//! reverse name leaves; listeners come and go with the registry without touching each other. Must not know the
//! syncer, the gateway, or how tenants are made.

mod forward;
#[cfg(test)]
mod fuzzed;
mod limits;
mod message;
mod project;
mod resolve;
mod server;
mod source;
#[cfg(test)]
mod testing;
mod zone;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::Name;
use tokio::sync::Mutex;

use crate::config::DnsConfig;
use crate::dns::forward::{Forwarder, ResolvConf};
#[cfg(test)]
pub(crate) use crate::dns::limits::example;
use crate::dns::limits::{Limits, Shown};
use crate::dns::server::{Server, Sockets};
use crate::dns::zone::{Bounds, Origin, Zone};
use crate::error::{Error, Kind, Result};
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::runtime::task::{self, Task};
use crate::runtime::telemetry::{Metrics, Source};
use crate::runtime::watched::{IfDown, Watched};
use crate::tenant::{Registry, Tenant};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// A port that its former holder is just leaving is free again after a moment.
const BIND_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BIND_BACKOFF: Duration = Duration::from_secs(10);

/// What the DNS plane is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its configuration.
    pub config: DnsConfig,
    /// The tenants.
    pub registry: Arc<Registry>,
    /// Where to show counts.
    pub metrics: Metrics,
    /// Time and randomness.
    pub clock: Clock,
    /// Where to listen; the port is the tenant's.
    pub address: IpAddr,
    /// Who keeps the tasks running.
    pub watched: Watched,
}

/// Serves every tenant of the registry until the drain is over. Fails if the configuration cannot be used.
pub async fn run(parts: Parts, drain: &Drain) -> Result<Task> {
    let forwarder = Arc::new(forwarder(&parts.config, &parts.clock).await?);
    let watched = parts.watched.clone();
    let shown = Arc::new(Shown::default());
    parts.metrics.register(Arc::clone(&shown) as Arc<dyn Source>);
    let plane = Arc::new(Plane { parts, forwarder, shown, running: Mutex::default() });
    let during = drain.clone();
    Ok(watched.keep("tenant DNS", IfDown::NotReady, drain, move || {
        let (plane, drain) = (Arc::clone(&plane), during.clone());
        async move {
            plane.follow(drain).await;
            Ok(())
        }
    }))
}

/// What outlives a failure of the task that follows the registry.
struct Plane {
    parts: Parts,
    forwarder: Arc<Forwarder>,
    shown: Arc<Shown>,
    running: Mutex<HashMap<TenantId, Running>>,
}

impl Plane {
    async fn follow(&self, mut drain: Drain) {
        let mut changes = self.parts.registry.subscribe();
        let mut running = self.running.lock().await;
        loop {
            changes.borrow_and_update();
            reconcile(&self.parts, &self.forwarder, &mut running, &drain);
            self.shown.set(running.iter().map(|(id, one)| (id.clone(), Arc::clone(&one.limits))).collect());
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { break },
                _ = drain.signaled() => break,
            }
        }
        // The listeners linger on their own; see `Server::run`.
        for (_, tenant) in running.drain() {
            tenant.listener.join().await;
        }
    }
}

/// One tenant's tasks; dropped means stopped.
struct Running {
    generation: u64,
    /// A successor of the same name knows nothing of what its predecessor's names led to.
    uid: String,
    port: u16,
    zone: Arc<Zone>,
    limits: Arc<Limits>,
    listener: Task,
    _source: Task,
}

async fn forwarder(config: &DnsConfig, clock: &Clock) -> Result<Forwarder> {
    let text = tokio::fs::read_to_string(RESOLV_CONF).await.unwrap_or_default();
    let conf = ResolvConf::parse(&text);
    let servers =
        if config.upstream.is_empty() {
            conf.servers
        } else {
            let parse = |s: &String| s.parse::<SocketAddr>();
            config.upstream.iter().map(parse).collect::<Result<_, _>>().map_err(|e| {
                Error::client(Kind::Invalid, "dns.upstream holds something that is not ip:port").because(e)
            })?
        };
    if servers.is_empty() {
        tracing::warn!("no DNS resolver is known: tenants cannot resolve names outside their cluster");
    }
    Ok(Forwarder::new(servers, conf.cluster_domains, clock.clone()))
}

fn reconcile(parts: &Parts, forwarder: &Arc<Forwarder>, running: &mut HashMap<TenantId, Running>, drain: &Drain) {
    let snapshot = parts.registry.load();
    // A tenant whose port another one holds is not served: its queries would be answered from the wrong zone.
    let holds_port = |t: &Tenant| snapshot.by_port(t.port).is_some_and(|holder| holder.id == t.id);
    running.retain(|id, _| snapshot.by_id(id).is_some_and(|t| holds_port(t)));
    for tenant in snapshot.tenants() {
        if !holds_port(tenant) {
            continue;
        }
        let Some((port, origin)) = place(tenant) else { continue };
        let granted = tenant.limits.in_dns(&parts.config);
        match running.remove(&tenant.id) {
            Some(same) if same.generation == tenant.generation => {
                running.insert(tenant.id.clone(), same);
            }
            // New credentials or connections: the sockets and what is known stay.
            Some(old) if old.port == port && old.uid == tenant.uid && *old.zone.origin() == origin => {
                old.limits.grant(granted);
                let source = follow(parts, tenant, &old.zone, drain);
                let renewed = Running { generation: tenant.generation, _source: source, ..old };
                running.insert(tenant.id.clone(), renewed);
            }
            old => {
                // What the same cluster asked at its former port counts.
                let limits = old.filter(|old| old.uid == tenant.uid).map(|old| old.limits).unwrap_or_default();
                limits.grant(granted);
                let zone = Arc::new(Zone::new(&tenant.id.to_string(), origin, Bounds::default()));
                let server =
                    Server::new(Arc::clone(&zone), Arc::clone(forwarder), Arc::clone(&limits), parts.clock.clone());
                let listener = listen(parts, server, port, drain);
                let _source = follow(parts, tenant, &zone, drain);
                let (generation, uid) = (tenant.generation, tenant.uid.clone());
                let started = Running { generation, uid, port, zone, limits, listener, _source };
                running.insert(tenant.id.clone(), started);
            }
        }
    }
}

/// Port and origin of a tenant's DNS, unless its settings make no sense (reported).
fn place(tenant: &Tenant) -> Option<(u16, Origin)> {
    let refuse = |what: &str| {
        tracing::warn!(tenant = %tenant.id, "tenant DNS is not served: {what}");
        None
    };
    let Some(port) = tenant.port.checked_add(1) else { return refuse("its port has no successor") };
    let Ok(mut domain) = Name::from_ascii(&tenant.cluster_domain) else {
        return refuse("its cluster domain is not a DNS name");
    };
    if domain.is_root() {
        return refuse("its cluster domain is empty");
    }
    domain.set_fqdn(true);
    let domain = domain.to_lowercase();
    Some((port, Origin { domain, api: tenant.api_service_ip, dns: tenant.dns_service_ip }))
}

fn follow(parts: &Parts, tenant: &Tenant, zone: &Arc<Zone>, drain: &Drain) -> Task {
    let (api, zone, clock) = (tenant.api.clone(), Arc::clone(zone), parts.clock.clone());
    task::spawn("dns-source", source::follow(api, zone, expected_store(tenant), clock, drain.clone()))
}

/// uid of the namespace `kube-system` of the store that this tenant's names come from, where that is known.
fn expected_store(tenant: &Tenant) -> Option<String> {
    tenant.store.clone()
}

fn listen(parts: &Parts, server: Server, port: u16, drain: &Drain) -> Task {
    let (address, clock, during, server) = (parts.address, parts.clock.clone(), drain.clone(), Arc::new(server));
    parts.watched.keep("tenant DNS listener", IfDown::Noted, drain, move || {
        let (server, clock, drain) = (Arc::clone(&server), clock.clone(), during.clone());
        async move {
            serve(&server, (address, port), &clock, drain).await;
            Ok(())
        }
    })
}

async fn serve(server: &Server, (address, port): (IpAddr, u16), clock: &Clock, mut drain: Drain) {
    let mut wait = BIND_BACKOFF;
    while !drain.is_draining() {
        let outcome = match Sockets::bind(address, port).await {
            Ok(sockets) => {
                wait = BIND_BACKOFF;
                tracing::debug!(at = ?sockets.address(), "tenant DNS listens");
                server.run(&sockets, drain.clone()).await
            }
            Err(error) => Err(error),
        };
        let Err(error) = outcome else { return };
        tracing::warn!(port, %error, retry_in = ?wait, "tenant DNS does not listen");
        tokio::select! {
            () = tokio::time::sleep(clock.jitter(wait)) => {}
            _ = drain.signaled() => return,
        }
        wait = (wait * 2).min(LONGEST_BIND_BACKOFF);
    }
}
