//! So many calls at once to an API server that all tenants share.
//!
//! Promises: who waits for a seat waits no longer than for an answer; lists and watches take none. Must not know for whom
//! the calls are: fair between tenants is the queue that they come from.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, Kind, Result};
use crate::kubernetes::api::{Cluster, Events, Listing, SharedCluster};
use crate::kubernetes::{ListOptions, Page, PageOf, PatchKind, Resource};

/// As long as one call may take.
const PATIENCE: Duration = crate::kubernetes::api::DEADLINE;

/// A server with so many seats.
pub struct Seats {
    server: SharedCluster,
    free: Semaphore,
}

impl Seats {
    /// At least one.
    pub fn new(server: SharedCluster, seats: usize) -> Self {
        Self { server, free: Semaphore::new(seats.clamp(1, Semaphore::MAX_PERMITS)) }
    }

    async fn seat(&self) -> Result<SemaphorePermit<'_>> {
        let seat = tokio::time::timeout(PATIENCE, self.free.acquire()).await;
        let seat = seat.map_err(|_| Error::host(Kind::Timeout, "too many calls to it are open"))?;
        seat.map_err(|e| Error::own(Kind::Internal, "the seats of a server were closed").because(e))
    }
}

impl Cluster for Seats {
    fn get<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Value>>> {
        Box::pin(async move {
            let _seat = self.seat().await?;
            self.server.get(resource, namespace, name).await
        })
    }

    fn read_path<'a>(&'a self, path: &'a str, most: usize) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let _seat = self.seat().await?;
            self.server.read_path(path, most).await
        })
    }

    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        options: &'a ListOptions,
    ) -> BoxFuture<'a, Result<Listing>> {
        self.server.list(resource, namespace, options)
    }

    fn page<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        options: &'a ListOptions,
        page: PageOf<'a>,
    ) -> BoxFuture<'a, Result<Page>> {
        self.server.page(resource, namespace, options, page)
    }

    fn watch<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        options: &'a ListOptions,
        from: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Events>>> {
        self.server.watch(resource, namespace, options, from)
    }

    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        on: (&'a str, &'a str),
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(async move {
            let _seat = self.seat().await?;
            self.server.create(resource, namespace, on, object).await
        })
    }

    fn try_create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(async move {
            let _seat = self.seat().await?;
            self.server.try_create(resource, namespace, object).await
        })
    }

    fn replace<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(async move {
            let _seat = self.seat().await?;
            self.server.replace(resource, namespace, name, object).await
        })
    }

    fn apply<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(async move {
            let _seat = self.seat().await?;
            self.server.apply(resource, namespace, name, object).await
        })
    }

    fn patch<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        on: (&'a str, &'a str),
        kind: PatchKind,
        patch: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(async move {
            let _seat = self.seat().await?;
            self.server.patch(resource, namespace, on, kind, patch).await
        })
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
        uid: &'a str,
        grace: Option<u64>,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let _seat = self.seat().await?;
            self.server.delete(resource, namespace, name, uid, grace).await
        })
    }
}
