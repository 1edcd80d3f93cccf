//! The gateway with real TLS: two tenants, A (hostile, admin of its own cluster) and B (the victim), on fake backends.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/support.rs"]
mod support;

#[path = "../support/collector.rs"]
mod collector;

#[path = "../support/api_server.rs"]
mod api_server;

#[path = "../support/load.rs"]
mod load;

mod alone;
mod audited;
mod browsers;
mod chains;
mod churn;
mod consumption;
mod differential;
mod external;
mod floods;
mod framing;
mod h2spec;
mod heads;
mod hello;
mod identity;
mod jwt;
mod leaving;
mod life;
mod limits;
mod memory;
mod metrics_api;
mod routing;
mod scrape;
mod silence;
mod slow;
mod swap;
mod tokens;
mod traces;
mod trailers;
mod unknown;
mod upgrades;
mod webhook;
mod wire;
mod world;
