//! One look at an object: what it begins with, what is in its plan, and why it may end early.

use std::time::Duration;

use serde_json::Value;

use crate::error::Error;
use crate::syncer::kind::Action;

/// Both sides of one object as a plan sees them.
pub struct Pair {
    /// Virtual object.
    pub virtual_object: Option<Value>,
    /// Host object, ours.
    pub host: Option<Value>,
}

/// Why a plan was not carried out to its end.
#[derive(Debug)]
pub enum Stop {
    /// A call failed.
    Failed(Error),
    /// Something else is not ready; no failure.
    Later(Duration),
    /// The tenant has as many as it may; what to tell its users.
    Limited(String),
    /// The host name is taken by an object that is not ours.
    Foreign,
    /// We are shutting down.
    Closed,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Takes something from the host.
pub fn deletes_on_host(action: &Action) -> bool {
    match action {
        Action::DeleteHost { .. } => true,
        Action::OrElse { first, otherwise } => deletes_on_host(first) || deletes_on_host(otherwise),
        _ => false,
    }
}

/// Says something about a copy: without one, that it is gone.
pub fn reports(action: &Action) -> bool {
    matches!(action, Action::PatchVirtual { subresource: "status", .. })
}
