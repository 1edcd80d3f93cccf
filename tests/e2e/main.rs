//! Portico on a real cluster, used as a person uses it: kubectl, helm and portico as separate programs.
//!
//! Two virtual clusters are shared by all tests: `alpha`, and `beta`, whose users are hostile. `tests/e2e/run` installs
//! Portico and starts this; the cluster is `make up`'s.
#![allow(clippy::expect_used, clippy::panic)]
// Real time, and the environment that tests/e2e/run sets.
#![allow(clippy::disallowed_methods)]

#[path = "../support/boards.rs"]
mod boards;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/percentile.rs"]
mod percentile;
#[path = "../support/port.rs"]
mod port;

mod adoption;
mod alone;
mod audit;
mod budgets;
mod chaos;
mod clients;
mod crash;
mod credentials;
mod datastores;
mod dns;
mod editors;
mod external;
mod faults;
mod gateway;
mod harness;
mod health;
mod helm;
mod isolation;
mod isolation_sync;
mod k3s;
mod kubelets;
mod lifecycle;
mod metrics_api;
mod monitoring;
mod moving;
mod names;
mod networks;
mod oidc;
mod outage;
mod policy;
mod recovery;
mod recreate;
mod rollout;
mod scrape;
mod sidecar;
mod store;
mod streams;
mod sync;
mod tokens;
mod traces;
mod usage;
