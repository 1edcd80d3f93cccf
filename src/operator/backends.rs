//! What control planes answer: a seam, since they are asked over connections that exist for one question only.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::HeaderMap;
use serde_json::Value;

use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::ApiClient;
use crate::runtime::clock::Clock;
use crate::upstream::{Pool, Target};

const DEADLINE: Duration = Duration::from_secs(5);

/// How backends are asked for their version.
pub trait Backends: Send + Sync {
    /// `gitVersion` of an API server, asked with `identity` headers.
    fn version<'a>(&'a self, target: Target, identity: HeaderMap) -> BoxFuture<'a, Result<String>>;
}

/// Asks real ones.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The clock of the process; tests bring their own.
    pub clock: Clock,
}

impl Backends for Asked {
    fn version<'a>(&'a self, target: Target, identity: HeaderMap) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let pool = Arc::new(Pool::new(target, self.clock.clone()));
            let client = ApiClient::new(Arc::clone(&pool), identity);
            let answer = client.get_path("/version", DEADLINE).await;
            pool.close();
            read(&answer?)
        })
    }
}

fn read(answer: &[u8]) -> Result<String> {
    let broken = |what: &str| Error::new(Side::Backend, Kind::Protocol, what.to_owned());
    let answer: Value = serde_json::from_slice(answer).map_err(|e| broken("its version is no JSON").because(e))?;
    answer["gitVersion"].as_str().map(str::to_owned).ok_or_else(|| broken("it names no version"))
}
