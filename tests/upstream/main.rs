//! The upstream pool and client against a real TLS server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/support.rs"]
mod support;

mod bound;
mod client;
mod pool;
mod reach;
