//! An issuer's keys, from its own server: its configuration (OpenID Connect Discovery 1.0) and the set that this names (RFC 7517).
//!
//! Promises: https by the CA that the entry names, or the web's; only at servers that the admin allows, and addresses that are open to it,
//! judged where they are dialed; no redirect is followed; lengths and time are bounded, and whose turn it is others say.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use serde::Deserialize;

use crate::error::{Error, Kind, Result, Side};
use crate::gateway::identity::{Keys, LONGEST_DOCUMENT};
use crate::gateway::published::{Asked, DEADLINE, Published};
use crate::gateway::turns::Turns;
use crate::issuers::{Issuer, Place};
use crate::kubernetes::ApiClient;
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::tls;
use crate::upstream::reach::Closed;
use crate::upstream::{Credential, Pool, Reach, Target};

/// How often an issuer is asked at most.
const PAUSE: Duration = Duration::from_secs(2);
/// Networks in which clusters are, and nobody's issuer unless the admin says so.
const PRIVATE: [&str; 6] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "198.18.0.0/15"];

/// Kubernetes' API servers, which may be issuers too, have their keys in the first form only.
const ACCEPT: &str = "application/jwk-set+json, application/json, */*;q=0.5";

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
    (turns, closed): (&Turns, &Closed),
    clock: &Clock,
) -> Option<Asked> {
    published.ask(PAUSE, clock, || {
        let turn = turns.of(tenant, (&issuer.discovery.host, issuer.discovery.port));
        let (issuer, of) = (Arc::clone(issuer), tenant.clone());
        let (closed, clock) = (closed.clone(), clock.clone());
        let read = async move {
            let _turn = turn.await;
            let told =
                |error| Error::backend(Kind::Protocol, format!("the issuer {} of {of}", issuer.url)).because(error);
            read(&issuer, &closed, &clock).await.map_err(told)
        };
        (0, read)
    })
}

async fn read(issuer: &Issuer, closed: &Closed, clock: &Clock) -> Result<Keys> {
    let discovery = get(issuer, &issuer.discovery, closed, clock).await?;
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
    let set = get(issuer, &place, closed, clock).await?;
    Keys::of_issuer(&issuer.url, &set)
}

async fn get(issuer: &Issuer, place: &Place, closed: &Closed, clock: &Clock) -> Result<bytes::Bytes> {
    let pool = Arc::new(Pool::new(target(issuer, place, closed)?, clock.clone()));
    let path = if place.path.is_empty() { "/" } else { &place.path };
    let client = ApiClient::new(Arc::clone(&pool), HeaderMap::new());
    let answer = client.get_as(path, ACCEPT, DEADLINE, LONGEST_DOCUMENT).await;
    pool.close();
    answer
}

fn target(issuer: &Issuer, place: &Place, closed: &Closed) -> Result<Target> {
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
        reach: Reach::judged(&issuer.bounds.allowed_addresses, &private, closed),
    })
}

fn refuse(what: &str) -> Error {
    Error::backend(Kind::Protocol, format!("an issuer's keys: {what}"))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde_json::json;

    use super::*;
    use crate::config::JwtBounds;
    use crate::issuers::Issuers;

    /// What is private, and what the host has closed although it is not.
    #[test]
    fn no_issuer_is_asked_at_a_closed_address() {
        let bounds = JwtBounds {
            allowed_issuers: vec!["*".to_owned()],
            allowed_addresses: vec!["10.1.2.3/32".parse().expect("a network")],
            ..JwtBounds::default()
        };
        let entry = json!({"issuer": {"url": "https://sso.example.com", "audiences": ["a"]},
            "claimMappings": {"username": {"claim": "sub"}}});
        let entry = serde_json::from_value(entry).expect("an entry");
        let issuers = Issuers::new(&[entry], &bounds, &Issuers::default());
        let issuer = issuers.iter().next().expect("one");
        let closed = Closed::default();
        closed.set(vec!["198.51.100.0/24".parse().expect("a network")]);
        let target = target(issuer, &issuer.discovery, &closed).expect("a target");
        let refuses = |ip: &str| target.reach.refusal(SocketAddr::new(ip.parse().expect("an address"), 443)).is_some();
        for address in [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "fd00::1",
            "198.18.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "198.51.100.7",
        ] {
            assert!(refuses(address), "{address}");
        }
        for address in ["10.1.2.3", "203.0.113.1", "2001:db8::1"] {
            assert!(!refuses(address), "{address}");
        }
    }
}
