//! What the gateway serves from the host (exec, attach, port-forward, log, kubelets, the making of Services): fake backends of two tenants, one of them hostile, and a
//! fake host.
#![allow(unreachable_pub, clippy::needless_pass_by_value, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/support.rs"]
mod support;

#[path = "../support/collector.rs"]
mod collector;

mod admission;
mod attacks;
mod audited;
mod jwt;
mod kubelets;
mod logs;
mod rights;
mod rules;
mod services;
mod streams;
mod traces;
mod usage;
mod world;
