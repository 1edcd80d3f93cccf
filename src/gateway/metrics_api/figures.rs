//! Who knows what pods and nodes use: a seam, for tests.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::error::Result;
use crate::tenant::Tenant;
use crate::usage::{NodesUsage, PodsUsage, Usage};

/// Of one tenant's pods, by name of the host pod.
pub type PodFigures = Arc<PodsUsage>;
/// By name of the node.
pub type NodeFigures = Arc<NodesUsage>;

/// Who knows what pods and nodes use.
pub trait Figures: std::fmt::Debug + Send + Sync {
    /// Of the pods of one tenant, and of nobody else's.
    fn pods<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<PodFigures>>;

    /// Of the host's nodes.
    fn nodes(&self) -> BoxFuture<'_, Result<NodeFigures>>;
}

impl Figures for Usage {
    fn pods<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<PodFigures>> {
        Box::pin(Self::pods(self, &tenant.id, &tenant.uid))
    }

    fn nodes(&self) -> BoxFuture<'_, Result<NodeFigures>> {
        Box::pin(Self::nodes(self))
    }
}
