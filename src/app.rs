//! Wiring: reads the configuration, builds the planes for the chosen roles, and owns start and shutdown.
//!
//! Every replica serves as gateway and DNS; Leases choose which one runs the syncer and which the operator. Shutdown
//! order (docs/operations/upgrade.md): unready → stop accepting, end watches, let requests and streams finish → stop.

mod shared_certificate;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::HeaderMap;

use crate::clock::Clock;
use crate::config::Config;
use crate::drain::{self, Drain};
use crate::registry::{self, Registry};
use crate::upstream::{self, ApiClient, Pool};
use crate::{admin, dns, election, gateway, operator, syncer, task, telemetry};

/// A part of Portico that a process can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// TLS gateway and tenant DNS.
    Gateway,
    /// Syncer, under a Lease.
    Syncer,
    /// Operator, under a Lease.
    Operator,
}

/// What `portico serve` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Configuration file; absent means all defaults.
    pub config: Option<PathBuf>,
    /// Roles to run.
    pub roles: Vec<Role>,
}

/// Runs until SIGTERM or SIGINT; returns after the drain.
pub fn run(options: Options) -> anyhow::Result<()> {
    let config = read(&options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("portico")
        .enable_all()
        .build()
        .context("the async runtime cannot start")?;
    runtime.block_on(serve(config, options.roles))
}

fn read(options: &Options) -> anyhow::Result<Config> {
    let Some(path) = &options.config else { return Ok(Config::default()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(Config::parse(&text)?)
}

/// What all planes share.
struct Common {
    config: Config,
    clock: Clock,
    host: ApiClient,
    registry: Arc<Registry>,
    metrics: telemetry::Metrics,
    system_namespace: String,
    identity: String,
}

async fn serve(config: Config, roles: Vec<Role>) -> anyhow::Result<()> {
    telemetry::init(&config.log)?;
    let clock = Clock::system();
    let host = Arc::new(Pool::new(upstream::host::target(&config.host)?, clock.clone()));
    let common = Common {
        system_namespace: system_namespace(&config)?,
        identity: identity(&clock),
        host: ApiClient::new(host, HeaderMap::new()),
        registry: Arc::new(Registry::default()),
        metrics: telemetry::Metrics::default(),
        clock,
        config,
    };
    let drain_timeout = common.config.gateway.drain_timeout.0;
    let (trigger, drain) = drain::channel();
    let tasks = start(common, &roles, &drain).await?;
    drop(drain);
    stop_signal().await;
    tracing::info!(?drain_timeout, "draining");
    if !trigger.drain(drain_timeout).await {
        tracing::warn!("some streams did not end in time");
    }
    drop(tasks);
    Ok(())
}
