//! Wiring: reads the configuration and starts the planes of the chosen roles.

use std::path::PathBuf;

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
pub fn run(_options: Options) -> anyhow::Result<()> {
    anyhow::bail!("serving is not wired up yet")
}
