//! Portico: one process that serves many virtual Kubernetes clusters.
//!
//! Layers, arrows only downward (enforced by `tests/architecture`):
//! base (`error` `config` `runtime` `tls`)
//! ← domain, pure (`exposition` `names` `crd` `audit` `issuers` `roster` `translate`)
//! ← connections (`upstream`, then `kubernetes`)
//! ← state (`tenant` `usage` `consumption` `trail`)
//! ← planes (`gateway` `syncer` `operator` `sidecar` `dns` `metering` `archive` `admin`)
//! ← wiring (`app` `cli`).

/// Tests share what stands outside of the package and names it as such.
#[cfg(test)]
extern crate self as portico;

pub mod config;
pub mod error;
pub mod runtime;
pub mod tls;

pub mod audit;
pub mod crd;
pub mod exposition;
pub mod issuers;
pub mod names;
pub mod roster;
pub mod translate;

pub mod kubernetes;
pub mod upstream;

pub mod consumption;
pub mod tenant;
pub mod trail;
pub mod usage;

pub mod admin;
pub mod archive;
pub mod dns;
pub mod gateway;
pub mod metering;
pub mod operator;
pub mod sidecar;
pub mod syncer;

pub mod app;
pub mod cli;
