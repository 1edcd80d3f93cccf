//! Portico: one process that serves many virtual Kubernetes clusters.
//!
//! Layers, arrows only downward (enforced by `tests/architecture.rs`):
//! base (`error` `status` `clock` `task` `drain` `telemetry` `tls` `certificates` `kubeconfig` `config`)
//! ← domain, pure (`names` `api` `identity` `stream` `crd` `translate`)
//! ← state (`upstream`, then `registry` `election` `rights`)
//! ← planes (`gateway` `syncer` `operator` `sidecar` `dns` `admin`)
//! ← wiring (`app` `cli`).

pub mod certificates;
pub mod clock;
pub mod config;
pub mod drain;
pub mod error;
pub mod kubeconfig;
pub mod status;
pub mod task;
pub mod telemetry;
pub mod tls;

pub mod api;
pub mod crd;
pub mod identity;
pub mod names;
pub mod stream;
pub mod translate;

pub mod election;
pub mod registry;
pub mod rights;
pub mod upstream;

pub mod admin;
pub mod dns;
pub mod gateway;
pub mod operator;
pub mod sidecar;
pub mod syncer;

pub mod app;
pub mod cli;
