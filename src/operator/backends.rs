//! What control planes answer: a seam, for tests. Before one is served it is asked over a connection that exists for one
//! question only, then over those of the gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::ApiClient;
use crate::kubernetes::api::SharedCluster;
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::tenant::{Registry, Tenant};
use crate::upstream::{Pool, Target};

const DEADLINE: Duration = Duration::from_secs(5);
/// How long a connection may take that a policy drops.
const PATIENCE: Duration = Duration::from_secs(3);
/// As in `deploy/control-plane/policy_probe.go`.
const GREETING: &[u8; 8] = b"portico\n";
/// Bytes of an answer: a few lines of JSON.
const MOST: usize = 64 << 10;
/// Of an object: as large as etcd takes one, and its managed fields.
const LARGEST_OBJECT: usize = 2 << 20;

/// How full a control plane's store is, as Portico's own image says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Fill {
    /// What it has.
    pub bytes: u64,
    /// What it may have.
    pub bound: u64,
    /// Whether what adds to it is refused.
    pub full: bool,
}

/// What backends are asked.
pub trait Backends: Send + Sync {
    /// `gitVersion` of an API server, asked with `identity` headers.
    fn version<'a>(&'a self, target: Target, identity: HeaderMap) -> BoxFuture<'a, Result<String>>;

    /// How full the store of a cluster (by name and uid) is that is served here; `None` where it does not say, as an image
    /// from before the bound.
    fn fill<'a>(&'a self, id: &'a TenantId, uid: &'a str) -> BoxFuture<'a, Result<Option<Fill>>>;

    /// The API server of a cluster (by name and uid) that is served here, as Portico itself; an error when it is not. What
    /// it answers is bounded.
    fn inside(&self, id: &TenantId, uid: &str) -> Result<SharedCluster>;

    /// Whether a control plane greets whoever connects there. Nothing else is said on the connection.
    fn greets(&self, address: SocketAddr) -> BoxFuture<'_, bool>;
}

/// Asks real ones.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The clock of the process; tests bring their own.
    pub clock: Clock,
    /// Who is served, by which connections.
    pub registry: Arc<Registry>,
}

impl Asked {
    fn served(&self, id: &TenantId, uid: &str) -> Result<Arc<Tenant>> {
        let served = self.registry.load().by_id(id).filter(|tenant| tenant.uid == uid).cloned();
        served.ok_or_else(|| Error::own(Kind::Unavailable, "it is not served yet"))
    }
}

impl Backends for Asked {
    fn version<'a>(&'a self, target: Target, identity: HeaderMap) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let pool = Arc::new(Pool::new(target, self.clock.clone()));
            let client = ApiClient::new(Arc::clone(&pool), identity);
            let answer = client.get_bounded("/version", DEADLINE, MOST).await;
            pool.close();
            read(&answer?)
        })
    }

    fn inside(&self, id: &TenantId, uid: &str) -> Result<SharedCluster> {
        Ok(Arc::new(self.served(id, uid)?.api.bounded(LARGEST_OBJECT)))
    }

    fn fill<'a>(&'a self, id: &'a TenantId, uid: &'a str) -> BoxFuture<'a, Result<Option<Fill>>> {
        Box::pin(async move {
            let served = self.served(id, uid)?;
            match served.api.get_bounded("/portico/store", DEADLINE, MOST).await {
                Ok(answer) => read_fill(&answer).map(Some),
                Err(error) if error.kind() == Kind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn greets(&self, address: SocketAddr) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let mut said = [0; GREETING.len()];
            let heard = async { TcpStream::connect(address).await?.read_exact(&mut said).await };
            matches!(tokio::time::timeout(PATIENCE, heard).await, Ok(Ok(_))) && said == *GREETING
        })
    }
}

fn read(answer: &[u8]) -> Result<String> {
    let answer: Value = serde_json::from_slice(answer).map_err(|e| broken("its version is no JSON").because(e))?;
    answer["gitVersion"].as_str().map(str::to_owned).ok_or_else(|| broken("it names no version"))
}

fn read_fill(answer: &[u8]) -> Result<Fill> {
    serde_json::from_slice(answer).map_err(|e| broken("it does not say how full its store is").because(e))
}

fn broken(what: &str) -> Error {
    Error::new(Side::Backend, Kind::Protocol, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fill_is_read_whatever_a_later_image_adds() {
        let answer = br#"{"bytes": 5, "bound": 4, "full": true, "more": 1}"#;
        assert_eq!(read_fill(answer).expect("reads"), Fill { bytes: 5, bound: 4, full: true });
        for broken in ["", "{}", r#"{"bytes": -1, "bound": 4, "full": true}"#, "ok"] {
            assert_eq!(read_fill(broken.as_bytes()).expect_err("broken").kind(), Kind::Protocol, "{broken}");
        }
    }
}
