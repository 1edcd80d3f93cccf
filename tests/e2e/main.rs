//! Portico on a real cluster, used as a person uses it: kubectl, helm and portico as separate programs.
//!
//! Two virtual clusters are shared by all tests: `alpha`, and `beta`, whose users are hostile. `tests/e2e/run` installs
//! Portico and starts this; the cluster is `make up`'s.
#![allow(clippy::expect_used, clippy::panic)]
// Real time, and the environment that tests/e2e/run sets.
#![allow(clippy::disallowed_methods)]

mod adoption;
mod clients;
mod crash;
mod datastores;
mod dns;
mod external;
mod gateway;
mod harness;
mod helm;
mod k3s;
mod lifecycle;
mod moving;
mod outage;
mod recreate;
mod sidecar;
mod streams;
mod sync;
