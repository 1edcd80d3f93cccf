//! An issuer's keys, from its own server: its configuration (OpenID Connect Discovery 1.0) and the set that this names (RFC 7517).
//!
//! Promises: https by the CA that the entry names, or the web's; only at servers that the admin allows, and addresses that are open to it,
//! judged where they are dialed; no redirect is followed; lengths, time and the number that are asked at once are bounded, of one tenant and of one
//! server, so that one that is slow or hostile delays only those who use it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use ipnet::IpNet;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Kind, Result, Side};
use crate::gateway::identity::{Keys, LONGEST_DOCUMENT};
use crate::gateway::published::{Asked, DEADLINE, Published};
use crate::issuers::{Issuer, Place};
use crate::kubernetes::ApiClient;
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::tls;
use crate::upstream::reach::Closed;
use crate::upstream::{Credential, Pool, Reach, Target};

/// Issuers that are asked at once; by one tenant, and at one server.
const AT_ONCE: usize = 16;
const OF_TENANT: usize = 2;
const OF_SERVER: usize = 4;
/// Networks in which clusters are, and nobody's issuer unless the admin says so.
const PRIVATE: [&str; 6] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "198.18.0.0/15"];

/// Who may ask now.
#[derive(Debug)]
pub(in crate::gateway) struct Turns {
    all: Arc<Semaphore>,
    /// Of tenants and of servers, as long as somebody asks.
    of_one: Arc<Mutex<HashMap<Key, usize>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Tenant(TenantId),
    Server(String, u16),
}

/// A turn; over when it is dropped.
struct Turn {
    of_one: Arc<Mutex<HashMap<Key, usize>>>,
    keys: [Key; 2],
    of_all: Option<OwnedSemaphorePermit>,
}

#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

/// Begins to ask for an issuer's keys, or joins who does.
pub(super) fn ask(
    published: &Published,
    issuer: &Arc<Issuer>,
    tenant: &TenantId,
    turns: &Turns,
    clock: &Clock,
) -> Option<Asked> {
    published.ask(super::PAUSE, clock, || (0, read(Arc::clone(issuer), turns.of(tenant, issuer), clock.clone())))
}

async fn read(issuer: Arc<Issuer>, turn: impl Future<Output = Result<Turn>>, clock: Clock) -> Result<Keys> {
    let _turn = turn.await?;
    let discovery = get(&issuer, &issuer.discovery, &clock).await?;
    let Configuration { issuer: said, jwks_uri } =
        serde_json::from_slice(&discovery).map_err(|e| refuse("its configuration cannot be read").because(e))?;
    if said != issuer.url {
        return Err(refuse("its configuration is another issuer's"));
    }
    let place = Place::with_query(&jwks_uri).ok_or_else(|| refuse("its keys are not at an https URL"))?;
    let is_own = (&place.host, place.port) == (&issuer.discovery.host, issuer.discovery.port);
    if !is_own && !issuer.bounds.allows(&place.host, place.port) {
        return Err(refuse("its keys are at a server that is not among those of auth.jwt.allowedIssuers"));
    }
    let set = get(&issuer, &place, &clock).await?;
    Keys::of_issuer(&issuer.url, &set)
}

async fn get(issuer: &Issuer, place: &Place, clock: &Clock) -> Result<bytes::Bytes> {
    let pool = Arc::new(Pool::new(target(issuer, place)?, clock.clone()));
    let accept = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("application/json"))]);
    let path = if place.path.is_empty() { "/" } else { &place.path };
    let client = ApiClient::new(Arc::clone(&pool), accept);
    let answer = client.get_bounded(path, DEADLINE, LONGEST_DOCUMENT).await;
    pool.close();
    answer
}

fn target(issuer: &Issuer, place: &Place) -> Result<Target> {
    let tls = match &issuer.authority {
        Some(pem) => tls::client_config(pem.as_bytes(), None)?,
        None => tls::client_config_of_the_web()?,
    };
    let private: Vec<IpNet> = PRIVATE.iter().filter_map(|network| network.parse().ok()).collect();
    Ok(Target {
        side: Side::Backend,
        host: place.host.clone(),
        port: place.port,
        server_name: ServerName::try_from(place.host.clone()).map_err(|e| refuse("its name is none").because(e))?,
        tls: Arc::clone(&tls),
        tls_without_identity: tls,
        credential: Credential::Certificate,
        path_prefix: String::new(),
        reach: Reach::judged(&issuer.bounds.allowed_addresses, &private, &Closed::default()),
    })
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(AT_ONCE)), of_one: Arc::default() }
    }
}

impl Turns {
    /// Waits for a turn: the tenant's and the server's own first, so that nobody who waits for those holds one of all. The
    /// caller's deadline ends it.
    fn of(&self, tenant: &TenantId, issuer: &Issuer) -> impl Future<Output = Result<Turn>> + Send + 'static {
        let keys = [Key::Tenant(tenant.clone()), Key::Server(issuer.discovery.host.clone(), issuer.discovery.port)];
        let (all, of_one) = (Arc::clone(&self.all), Arc::clone(&self.of_one));
        async move {
            let mut pause = Duration::from_millis(10);
            while !take(&of_one, &keys) {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(200));
            }
            let mut turn = Turn { of_one, keys, of_all: None };
            turn.of_all = all.acquire_owned().await.ok();
            Ok(turn)
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut of_one = self.of_one.lock();
        for key in &self.keys {
            if let Some(count) = of_one.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    of_one.remove(key);
                }
            }
        }
    }
}

/// Whether there is one for both.
fn take(of_one: &Mutex<HashMap<Key, usize>>, keys: &[Key; 2]) -> bool {
    let mut of_one = of_one.lock();
    let is_free = |key: &Key| {
        let most = match key {
            Key::Tenant(_) => OF_TENANT,
            Key::Server(..) => OF_SERVER,
        };
        of_one.get(key).is_none_or(|count| *count < most)
    };
    if !keys.iter().all(is_free) {
        return false;
    }
    keys.iter().for_each(|key| *of_one.entry(key.clone()).or_default() += 1);
    true
}

fn refuse(what: &str) -> Error {
    Error::backend(Kind::Protocol, format!("an issuer's keys: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_and_one_server_have_their_part_of_the_turns() {
        let (all, id) = (Mutex::default(), |name: &str| TenantId::parse("team", name).expect("a name"));
        let keys = |tenant: &str, server: &str| [Key::Tenant(id(tenant)), Key::Server(server.to_owned(), 443)];
        assert!(take(&all, &keys("a", "slow")) && take(&all, &keys("a", "other")));
        assert!(!take(&all, &keys("a", "third")), "a tenant has two");
        assert!(take(&all, &keys("b", "slow")) && take(&all, &keys("c", "slow")) && take(&all, &keys("d", "slow")));
        assert!(!take(&all, &keys("e", "slow")), "a server has four");
        assert!(take(&all, &keys("e", "fast")));
    }
}
