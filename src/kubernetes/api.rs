//! The one seam: an API server as whatever works on objects sees it, so that a simulation can stand in for one.
//!
//! Promises: every unary call ends within [`DEADLINE`]. Must not know tenants or kinds.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::{ApiClient, ListOptions, Page, PageOf, PatchKind, Resource, WatchEvent, WatchStream};

/// Longest wait for one unary answer: shorter than a person waits, longer than a loaded API server needs.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Longest wait for a whole list.
const LIST_DEADLINE: Duration = Duration::from_secs(120);

/// A list: its items and its resourceVersion.
pub type Listing = (Vec<Value>, String);

/// A running watch.
pub trait Events: Send {
    /// As [`WatchStream::next`].
    fn next(&mut self) -> BoxFuture<'_, Result<Option<WatchEvent>>>;
}

/// One API server under one identity. Meaning of each call: as on [`ApiClient`].
pub trait Cluster: Send + Sync + 'static {
    /// One object.
    fn get<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Value>>>;

    /// What it says at a path that is no object's, in so many bytes at most.
    fn read_path<'a>(&'a self, path: &'a str, most: usize) -> BoxFuture<'a, Result<Bytes>>;

    /// All objects.
    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        options: &'a ListOptions,
    ) -> BoxFuture<'a, Result<Listing>>;

    /// One page of all objects, as they came.
    fn page<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        options: &'a ListOptions,
        page: PageOf<'a>,
    ) -> BoxFuture<'a, Result<Page>>;

    /// Changes since a resourceVersion; without one, the whole list first (`sendInitialEvents`).
    fn watch<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        options: &'a ListOptions,
        from: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Events>>>;

    /// POST on the collection, or on a subresource of `name` when both are not empty.
    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        on: (&'a str, &'a str),
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>>;

    /// POST with `dryRun=All`: what the server would say.
    fn try_create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>>;

    /// PUT with the resourceVersion that the object carries.
    fn replace<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>>;

    /// Server-side apply.
    fn apply<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>>;

    /// PATCH of `name` or of a subresource of it.
    fn patch<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        on: (&'a str, &'a str),
        kind: PatchKind,
        patch: &'a Value,
    ) -> BoxFuture<'a, Result<Value>>;

    /// DELETE; false when it was gone or is another object.
    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
        uid: &'a str,
        grace: Option<u64>,
    ) -> BoxFuture<'a, Result<bool>>;
}

impl Events for WatchStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<WatchEvent>>> {
        Box::pin(Self::next(self))
    }
}

impl Cluster for ApiClient {
    fn get<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Value>>> {
        Box::pin(within(DEADLINE, self.pool().target().side, Self::get(self, resource, namespace, name)))
    }

    fn read_path<'a>(&'a self, path: &'a str, most: usize) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(self.get_bounded(path, DEADLINE, most))
    }

    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        options: &'a ListOptions,
    ) -> BoxFuture<'a, Result<Listing>> {
        Box::pin(within(LIST_DEADLINE, self.pool().target().side, Self::list(self, resource, namespace, options)))
    }

    fn page<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        options: &'a ListOptions,
        page: PageOf<'a>,
    ) -> BoxFuture<'a, Result<Page>> {
        Box::pin(Self::page(self, resource, namespace, options, page))
    }

    fn watch<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        options: &'a ListOptions,
        from: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Events>>> {
        Box::pin(async move {
            let side = self.pool().target().side;
            let stream = match from {
                Some(version) => {
                    Box::pin(within(DEADLINE, side, Self::watch(self, resource, namespace, options, version))).await?
                }
                None => Box::pin(within(LIST_DEADLINE, side, self.watch_list(resource, namespace, options))).await?,
            };
            Ok(Box::new(stream) as Box<dyn Events>)
        })
    }

    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        (name, subresource): (&'a str, &'a str),
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        let side = self.pool().target().side;
        if name.is_empty() {
            return Box::pin(within(DEADLINE, side, Self::create(self, resource, namespace, object)));
        }
        Box::pin(within(DEADLINE, side, self.create_sub(resource, namespace, name, subresource, object)))
    }

    fn try_create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        let side = self.pool().target().side;
        Box::pin(within(DEADLINE, side, Self::try_create(self, resource, namespace, object)))
    }

    fn replace<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        let side = self.pool().target().side;
        Box::pin(within(DEADLINE, side, Self::replace(self, resource, namespace, name, "", object)))
    }

    fn apply<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        let side = self.pool().target().side;
        Box::pin(within(DEADLINE, side, Self::apply(self, resource, namespace, name, "", object)))
    }

    fn patch<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        (name, subresource): (&'a str, &'a str),
        kind: PatchKind,
        patch: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        let side = self.pool().target().side;
        Box::pin(within(DEADLINE, side, Self::patch(self, resource, namespace, name, subresource, kind, patch)))
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
        uid: &'a str,
        grace: Option<u64>,
    ) -> BoxFuture<'a, Result<bool>> {
        let uid = (!uid.is_empty()).then_some(uid);
        let side = self.pool().target().side;
        Box::pin(within(DEADLINE, side, Self::delete(self, resource, namespace, name, uid, grace)))
    }
}

/// An `Arc` of any cluster, as the engine keeps it.
pub type SharedCluster = Arc<dyn Cluster>;

async fn within<T>(deadline: Duration, side: Side, call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(deadline, call)
        .await
        .unwrap_or_else(|_| Err(Error::new(side, Kind::Timeout, "the API server did not answer in time")))
}
