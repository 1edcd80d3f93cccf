//! Kubernetes as a client sees it: one JSON client, lists and watches, who of the replicas leads, what the host allows,
//! kubeconfigs that are read and written.
//!
//! Promises: every wait has a deadline; what a broken watch may have missed is listed again. Must not know tenants or what
//! the planes make of objects. Connections are `upstream`'s.

pub mod api;
pub mod client;
pub mod election;
pub mod host;
pub mod kubeconfig;
pub mod resources;
pub mod rights;
pub mod secret;
pub mod service;
pub mod service_range;
pub mod watch;

pub use client::{ApiClient, ListOptions, PatchKind, Resource};
pub use kubeconfig::target_from_kubeconfig;
pub use secret::Secret;
pub use service::KubeService;
pub use watch::{WatchEvent, WatchStream};
