//! The simulated API server, for unit tests.
#![allow(unreachable_pub, reason = "shared with tests/sim, and each uses a part")]

#[path = "../../tests/support/api_server.rs"]
mod api_server;

pub(crate) use api_server::{Faults, Link, Server};
