//! The gateway: one TLS endpoint for every virtual cluster.
//!
//! A request's way, each step a plain function in its own file: accept → handshake → bind → clean → authenticate →
//! admit → forward or intercept. Promises: the tenant is computed anew for every request; no identity passes that was
//! not verified here or is not judged by the backend; no body is buffered; every failure is a `metav1.Status`; every
//! request leaves one log line. Must not know how objects are synced.

pub mod context;
pub mod metrics;
pub mod record;
pub mod respond;
pub mod service_create;
pub mod stream;

mod limits;
