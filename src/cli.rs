//! The command line: what a person types, turned into calls of the host API with that person's own rights.
//!
//! Promises: needs rights in one namespace only; every failure says what happened and what to do next, with the exit
//! codes of `docs/cli.md`. Only `output` prints.

mod access;
mod cluster;
mod connect;
mod create;
mod delete;
mod failure;
mod host;
mod list;
mod login;
mod output;
mod progress;
mod recover;
mod serve;
mod syncer;
mod usage;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use failure::{Failure, Outcome};

/// Virtual Kubernetes clusters in namespaces of a host cluster, all behind one gateway.
#[derive(Debug, Parser)]
#[command(name = "portico", version, propagate_version = false, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    host: host::HostArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a virtual cluster and wait until it is ready.
    Create(create::Args),
    /// List virtual clusters.
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Show one virtual cluster with its conditions.
    Describe(list::DescribeArgs),
    /// Write a kubeconfig for a virtual cluster, or run a command in it.
    Connect(connect::Args),
    /// Log in at an OpenID provider, and print the credential for kubectl (an exec plugin).
    Login(login::Args),
    /// Delete a virtual cluster and wait until nothing of it is left.
    #[command(visible_alias = "rm")]
    Delete(delete::Args),
    /// Decide what becomes of a virtual cluster that is held because its control plane lost its store.
    Recover(recover::Args),
    /// Show what virtual clusters used: processor, memory, volumes, network, calls and streams.
    Usage(usage::Args),
    /// Print the version.
    Version,
    /// Print a completion script.
    Completion {
        /// Shell to complete for.
        shell: clap_complete::Shell,
    },
    /// Run the gateway, the syncer and the operator.
    Serve(serve::Args),
    /// Run one virtual cluster beside the k3s in the same pod, in one namespace (flags of vcluster 0.3).
    Syncer(Box<syncer::Args>),
    /// Print the CustomResourceDefinitions: VirtualCluster and CredentialRequest.
    Crd,
    /// Print the configuration with all defaults.
    Config,
    /// Print docs/config.md.
    #[command(hide = true)]
    Docs,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::failure(&failure);
            ExitCode::from(failure.code())
        }
    }
}

fn run(cli: Cli) -> Outcome<u8> {
    let Cli { host, command } = cli;
    match command {
        Command::Serve(args) => serve::run(args)?,
        Command::Syncer(args) => syncer::run(host.named_kubeconfig(), *args)?,
        Command::Crd => output::text(&format!("{}---\n{}", crate::crd::yaml(), crate::crd::credentials::yaml())),
        Command::Docs => output::text(&crate::config::docs::markdown()),
        Command::Config => output::text(&serve::default_config()?),
        Command::Version => output::line(&format!("portico {}", env!("CARGO_PKG_VERSION"))),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "portico", &mut script);
            output::text(&String::from_utf8_lossy(&script));
        }
        Command::Create(args) => block_on(create::run(&host, args))?,
        Command::List(args) => block_on(list::list(&host, args))?,
        Command::Describe(args) => block_on(list::describe(&host, args))?,
        Command::Usage(args) => block_on(usage::run(&host, args))?,
        Command::Delete(args) => block_on(delete::run(&host, args))?,
        Command::Recover(args) => block_on(recover::run(&host, args))?,
        Command::Login(args) => block_on(login::run(args))?,
        Command::Connect(args) => return block_on(connect::run(&host, args)),
    }
    Ok(0)
}

fn block_on<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| {
            Failure::new(format!("the async runtime cannot start: {e}"), "check the limits of this shell: ulimit -a")
        })?
        .block_on(Box::pin(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_original_manifests_syncer_is_a_command_line() {
        let line = ["portico", "syncer", "--service-name=dev-cluster", "--suffix=dev-cluster", "--tls-san=192.0.2.1"];
        let cli = Cli::try_parse_from(line).expect("valid");
        assert!(cli.host.named_kubeconfig().is_none() && matches!(cli.command, Command::Syncer(_)));
    }
}
