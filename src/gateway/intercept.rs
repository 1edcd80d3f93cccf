//! What the gateway does not forward as it is: streams of pods, which are the host's, and the creation of Services, which
//! need an address of the host.
//!
//! A stream's way: access → admission → locate → log, or upgrade → onward; what the host says against it is a refusal.

pub(super) mod pods;
pub(super) mod service;
pub(super) mod stream;

mod access;
mod admission;
mod locate;
mod log;
mod onward;
mod refusal;
mod upgrade;
