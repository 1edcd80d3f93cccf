//! What every task stands on: injected time and randomness, supervised tasks, shutdown as a type, rates, shared answers, logs.
//!
//! Must not know requests, tenants or Kubernetes.

pub mod answers;
pub mod clock;
pub mod drain;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod memory;
pub mod pace;
pub mod query;
pub mod source;
pub mod task;
pub mod telemetry;
pub mod traces;
pub mod watched;
pub mod yielding;
