//! Connections to API servers: where they are, as whom we speak, pools by class.
//!
//! Promises: every wait has a deadline, a body is never buffered on the way, a request that was not sent can be sent
//! again, watches and unary calls never share a connection. Must not know tenants, paths' meaning or objects' kinds.

pub mod body;
pub mod pool;
pub mod reach;
pub mod target;

pub use body::{Body, Meter};
pub use pool::{Class, LONG_STREAM_WINDOW, Pool, ResponseBody, STREAM_WINDOW, UpgradeConnection};
pub use reach::Reach;
pub use target::{Credential, Target};
