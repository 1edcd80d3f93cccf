//! The host cluster, reached as `kubectl` would: the user's kubeconfig, context and namespace.

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::failure::{Failure, Outcome, chain};

/// Options that every command of the host API has.
#[derive(Debug, clap::Args)]
pub(super) struct HostArgs {
    /// Context of the host cluster in your kubeconfig; default: the current one.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Kubeconfig of the host cluster; default: KUBECONFIG, else ~/.kube/config, else the pod's ServiceAccount.
    #[arg(long, global = true, value_name = "FILE")]
    host_kubeconfig: Option<std::path::PathBuf>,
    /// Host namespace; default: that of the context.
    #[arg(long, short = 'n', global = true, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// A client and the namespace that is meant when none is named.
pub(super) struct Host {
    pub(super) client: Client,
    pub(super) namespace: String,
}

impl HostArgs {
    pub(super) async fn connect(&self) -> Outcome<Host> {
        let config = self.config().await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|e| Failure::api("use your kubeconfig", &e))?;
        Ok(Host { client, namespace })
    }

    /// The kubeconfig file that was named.
    pub(super) fn named_kubeconfig(&self) -> Option<&std::path::Path> {
        self.host_kubeconfig.as_deref()
    }

    /// The namespace as far as it is known without a kubeconfig.
    pub(super) fn named_namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    async fn config(&self) -> Outcome<Config> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let unusable = |e: &dyn std::error::Error| {
            Failure::new(
                format!("the kubeconfig of the host cluster cannot be used: {}", chain(e)),
                "set KUBECONFIG or --host-kubeconfig; `kubectl config get-contexts` lists the contexts",
            )
        };
        if let Some(path) = &self.host_kubeconfig {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|e| unusable(&e))?;
            return Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| unusable(&e));
        }
        if self.context.is_some() {
            return Config::from_kubeconfig(&options).await.map_err(|e| unusable(&e));
        }
        match Config::from_kubeconfig(&options).await {
            Ok(config) => Ok(config),
            Err(error) => Config::incluster().map_err(|_| unusable(&error)),
        }
    }
}
