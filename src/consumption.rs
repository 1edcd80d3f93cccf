//! What each tenant used, by its own namespaces: counted in this process, and not told yet.
//!
//! Promises: whoever counts takes a tenant's tab once and adds to it, without IO; what was added is taken once; namespaces of one
//! tenant are bounded, what is beyond stands together; forgotten with its holders. Must not know where it is kept, nor who asks.

mod amounts;
mod rows;
mod tab;

pub use amounts::Amounts;
pub use rows::{Hour, Rows, Within};
pub use tab::{Consumption, Tab};

/// Namespaces of one tenant that are told apart in an hour: a tenant may have as many as it likes, and each is a row.
pub const MOST_NAMESPACES: usize = 256;
