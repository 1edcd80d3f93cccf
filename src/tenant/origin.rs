//! Where VirtualClusters and their Secrets come from: a seam, so that what follows them runs in a simulation.
//!
//! Promises: every call ends within a deadline. Must not know what the objects mean.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::kubernetes::resources::VIRTUAL_CLUSTERS;
use crate::kubernetes::{ApiClient, ListOptions, Secret, WatchEvent, WatchStream};

const LIST_DEADLINE: Duration = Duration::from_secs(60);
const HEAD_DEADLINE: Duration = Duration::from_secs(15);
const SECRET_DEADLINE: Duration = Duration::from_secs(10);

/// A running watch.
pub trait Events: Send {
    /// As [`WatchStream::next`]; dropped and called again, it loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<WatchEvent>>>;
}

/// The host API server, as far as tenants come from it.
pub trait Origin: Send + Sync + 'static {
    /// All VirtualClusters, and the version of the list.
    fn list(&self) -> BoxFuture<'_, Result<(Vec<Value>, String)>>;
    /// Changes of them since a version.
    fn watch<'a>(&'a self, version: &'a str) -> BoxFuture<'a, Result<Box<dyn Events>>>;
    /// One Secret; one that does not exist is of kind Unavailable.
    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Secret>>;
}

/// Any of them.
pub type SharedOrigin = Arc<dyn Origin>;

impl Events for WatchStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<WatchEvent>>> {
        Box::pin(Self::next(self))
    }
}

impl Origin for ApiClient {
    fn list(&self) -> BoxFuture<'_, Result<(Vec<Value>, String)>> {
        Box::pin(async move {
            let options = ListOptions::default();
            within(LIST_DEADLINE, Self::list(self, &VIRTUAL_CLUSTERS, None, &options)).await
        })
    }

    fn watch<'a>(&'a self, version: &'a str) -> BoxFuture<'a, Result<Box<dyn Events>>> {
        Box::pin(async move {
            let options = ListOptions::default();
            let watch = within(HEAD_DEADLINE, Self::watch(self, &VIRTUAL_CLUSTERS, None, &options, version)).await?;
            Ok(Box::new(watch) as Box<dyn Events>)
        })
    }

    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Secret>> {
        Box::pin(within(SECRET_DEADLINE, Secret::read(self, namespace, name)))
    }
}

async fn within<T>(deadline: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Err(Error::host(Kind::Timeout, "the host's API server did not answer in time"));
    tokio::time::timeout(deadline, call).await.unwrap_or_else(late)
}
