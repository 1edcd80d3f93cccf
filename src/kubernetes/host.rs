//! The host cluster's API server: a kubeconfig file, or the pod's own ServiceAccount.

use std::path::{Path, PathBuf};

use crate::config::HostConfig;
use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::kubeconfig::{self, Files};
use crate::tls;
use crate::upstream::{Credential, Reach, Target};

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where the host's API server is and as whom we speak to it.
pub fn target(config: &HostConfig) -> Result<Target> {
    if config.kubeconfig.is_empty() {
        return in_cluster(Path::new(SERVICE_ACCOUNT), |name| std::env::var(name).ok());
    }
    let path = Path::new(&config.kubeconfig);
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::own(Kind::Invalid, format!("{} cannot be read", path.display())).because(e))?;
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    kubeconfig::target(&text, Side::Host, &Files::Below(folder))
}

fn in_cluster(folder: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Target> {
    let outside = || Error::own(Kind::Invalid, "no host cluster: not in a pod, and host.kubeconfig is not set");
    let host = variable("KUBERNETES_SERVICE_HOST").filter(|h| !h.is_empty()).ok_or_else(outside)?;
    let port = variable("KUBERNETES_SERVICE_PORT").and_then(|p| p.parse().ok()).ok_or_else(outside)?;
    let ca = std::fs::read(folder.join("ca.crt"))
        .map_err(|e| Error::own(Kind::Invalid, "the ServiceAccount's ca.crt cannot be read").because(e))?;
    let config = tls::client_config(&ca, None)?;
    Ok(Target {
        side: Side::Host,
        server_name: kubeconfig::server_name(&host)?,
        host,
        port,
        tls_without_identity: config.clone(),
        tls: config,
        credential: Credential::TokenFile(folder.join("token")),
        path_prefix: String::new(),
        reach: Reach::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_a_pod_the_error_says_what_to_do() {
        let error = in_cluster(Path::new("/nowhere"), |_| None).expect_err("no variables");
        assert!(error.to_string().contains("host.kubeconfig"));
    }
}
