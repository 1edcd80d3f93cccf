//! Kubernetes as a client sees it: one JSON client, lists and watches, who of the replicas leads, what the host allows,
//! kubeconfigs that are read and written, where users may lead it to; and the kubelets behind it.
//!
//! Promises: every wait has a deadline; what a broken watch may have missed is listed again. Must not know tenants or what
//! the planes make of objects. Connections are `upstream`'s.

pub mod api;
pub mod client;
pub mod election;
pub mod follow;
#[cfg(test)]
mod fuzzed;
pub mod host;
pub mod host_network;
pub mod kubeconfig;
pub mod kubelets;
pub mod layered;
pub mod reaches;
pub mod resource;
pub mod resources;
pub mod reviews;
pub mod rights;
pub mod seats;
pub mod secret;
pub mod service_range;
#[cfg(test)]
pub(crate) mod testing;
pub mod watch;

pub use client::{ApiClient, Page, PageOf, PatchKind};
pub use kubeconfig::target_from_kubeconfig;
pub use kubelets::{Kubelets, Place};
pub use layered::KubeService;
pub use reaches::Reaches;
pub use resource::{ListOptions, Resource, listed_path};
pub use reviews::{Reviews, Verdict};
pub use secret::Secret;
pub use watch::{WatchEvent, WatchStream};
