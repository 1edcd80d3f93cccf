//! Connections to API servers: where they are, as whom we speak, pools by class, and a small JSON client on top.
//!
//! Promises: every wait has a deadline, a body is never buffered on the way, a request that was not sent can be sent
//! again, watches and unary calls never share a connection. Must not know tenants, paths' meaning or objects' kinds.

pub mod body;
pub mod client;
pub mod host;
pub mod kubeconfig;
pub mod pool;
pub mod resources;
pub mod secret;
pub mod service;
pub mod service_range;
pub mod target;
pub mod watch;

pub use body::{Body, Meter};
pub use client::{ApiClient, ListOptions, PatchKind, Resource};
pub use kubeconfig::target_from_kubeconfig;
pub use pool::{Class, Pool, ResponseBody, UpgradeConnection};
pub use secret::Secret;
pub use service::KubeService;
pub use target::{Credential, Target};
pub use watch::{WatchEvent, WatchStream};
