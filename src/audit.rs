//! Audit: which requests leave an event, and what an event says, in the form of `audit.k8s.io/v1`.
//!
//! Pure. Promises: a policy decides as Kubernetes' own does; an event is one line of JSON of at most [`MOST_BYTES`], whatever a
//! client chose; it holds no credential, no body, and of the query only what is known to be harmless. Must not know where events
//! go.

mod event;
mod object;
mod policy;
mod text;
mod uri;

pub use self::event::{Asked, Draft, MOST_BYTES, Outcome, User, moment};
pub use self::object::Object;
pub use self::policy::{Asks, Matter, Policy, Stages};
pub use self::text::cut;
pub use crate::config::audit::Stage;
