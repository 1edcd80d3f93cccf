//! What is followed, how, and how much of it is read. Pure.

use std::time::Duration;

use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::{ListOptions, Resource};

/// What is followed, and how.
#[derive(Debug, Clone)]
pub struct Followed {
    /// For logs: whose objects these are.
    pub owner: String,
    /// The kind.
    pub resource: Resource,
    /// Where; None for cluster-scoped kinds or all namespaces.
    pub namespace: Option<String>,
    /// Selector.
    pub options: ListOptions,
    /// Lists are asked for as the beginning of a watch, where the server knows that.
    pub streams: bool,
    /// A watch that ended goes on where it was; otherwise a list comes between. Only a list notices that the server came
    /// back with an older store.
    pub resumes: bool,
    /// A list older than this, give or take, is made again, in case an event was lost.
    pub relist_after: Duration,
    /// A server that does not answer for so long is worth a warning.
    pub patience: Duration,
    /// How much of a list is read.
    pub bounds: Bounds,
}

impl Followed {
    /// All of a kind in the whole host, whose store may be restored from a backup.
    pub fn in_host(resource: Resource, relist_after: Duration, bounds: Bounds) -> Self {
        Self {
            owner: "host".to_owned(),
            resource,
            namespace: None,
            options: ListOptions::default(),
            streams: false,
            resumes: false,
            relist_after,
            patience: Duration::ZERO,
            bounds,
        }
    }
}

/// How much of a list is read.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Objects of a page.
    pub page: usize,
    /// Bytes of a page.
    pub page_bytes: usize,
    /// Objects of a list. A list may have no end.
    pub objects: usize,
}

impl Default for Bounds {
    /// client-go's page of ordinary objects (a page that is larger is asked for in small ones, which hold the largest that etcd
    /// takes); far more objects than any API server keeps.
    fn default() -> Self {
        Self { page: 500, page_bytes: 32 << 20, objects: 5_000_000 }
    }
}

impl Bounds {
    /// Whether a list may show so many objects.
    pub(super) fn check(&self, shown: usize) -> Result<()> {
        if shown > self.objects {
            let text = format!("a list has more than {} objects", self.objects);
            return Err(Error::new(Side::Own, Kind::TooLarge, text));
        }
        Ok(())
    }
}
