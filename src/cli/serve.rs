//! Commands that are not for a user of virtual clusters: `serve` and `config`.

use std::path::PathBuf;

use super::failure::{Failure, Outcome};
use super::output;
use crate::app;

/// Arguments of `portico serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file; without it all defaults hold (`portico config` prints them).
    #[arg(long, env = "PORTICO_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// What this process runs, in any mix: the planes share nothing but the host cluster. Without it all of them, or the gateway
    /// alone where the configuration has no host cluster.
    #[arg(long, value_enum, value_delimiter = ',')]
    roles: Option<Vec<app::Role>>,
}

pub(super) fn run(args: Args) -> Outcome<()> {
    app::run(app::Options { config: args.config, roles: args.roles }).map_err(|e| {
        Failure::new(format!("{e:#}"), "compare the configuration with `portico config` and docs/config.md")
    })
}

pub(super) fn default_config() -> Outcome<String> {
    output::yaml(&crate::config::Config::default())
}
