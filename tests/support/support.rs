//! What component tests share: a PKI and a fake API server with real TLS.
//!
//! Use: `#[path = "../support/support.rs"] mod support;` in a test binary's `main.rs`.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod fake;
pub mod figures;
pub mod logged;
pub mod pki;
pub mod port;
pub mod process;
pub mod tenant;
pub mod tokens;
