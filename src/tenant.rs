//! The tenants that this process serves right now: an immutable snapshot, swapped whole.
//!
//! Promises: a request that loaded a snapshot sees one generation throughout; a tenant that cannot be built is
//! reported and never blocks another; who is reached by a name or port is decided by what all VirtualClusters ask for
//! (`names::claims`), not by who came up first; generations never repeat within the process; each identity (uid) has one life,
//! whose end and generations are told to whoever serves it. `source` fills the registry from VirtualClusters and their Secrets.

pub mod file;
pub mod follow;
pub mod life;
pub mod memory;
pub mod source;

mod generation;
mod registry;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use self::generation::{Aggregator, Assertion, Backend, Nodes, Tenant};
pub use self::registry::{Registry, Snapshot};
