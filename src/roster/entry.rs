//! An entry of `virtualClusters` as it is written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::crd::audit::Audit;
use crate::crd::{Auth, Limits};

/// One API server, and how it is served. Files are named from the folder of the configuration file on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// Name: with the namespace, of its path `/clusters/NAMESPACE/NAME` and its name in TLS, `NAME.NAMESPACE.{gateway.baseDomain}`.
    pub name: String,
    /// Namespace: no more than a first part of its name here. `default` when it is left out.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// The API server.
    pub backend: Server,
    /// Under what it is served.
    #[serde(default)]
    pub expose: Expose,
    /// CA of its users' client certificates, which the gateway judges. Left out: none is accepted, tokens only.
    #[serde(rename = "clientCAFile", default)]
    pub client_ca_file: String,
    /// Who may call beside: as `spec.auth` of a VirtualCluster.
    #[serde(default)]
    pub auth: Auth,
    /// As `spec.limits` of a VirtualCluster.
    #[serde(default)]
    pub limits: Limits,
    /// As `spec.audit` of a VirtualCluster.
    #[serde(default)]
    pub audit: Option<Audit>,
}

/// An API server that already runs: by a kubeconfig, or as its front proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Server {
    /// A kubeconfig whose user may impersonate anybody (k3s: `k3s.yaml`): callers are told by impersonation. Instead of all others
    /// here.
    pub kubeconfig_file: String,
    /// `https://HOST[:PORT]`.
    pub server: String,
    /// The name in its certificate, if not the host of `server`.
    pub server_name: String,
    /// CA of its certificate.
    pub certificate_authority_file: String,
    /// Certificate by the CA of its `--requestheader-client-ca-file`: callers are told by `X-Remote-User` and the like.
    pub front_proxy_certificate_file: String,
    /// Its key.
    pub front_proxy_key_file: String,
}

/// Under what an API server is served, beside its path on the shared listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Expose {
    /// Names in TLS (SNI) that lead to it without a path.
    pub hosts: Vec<String>,
    /// A port that leads to it alone, whatever name is called.
    pub port: Option<u16>,
    /// Further names and addresses in the certificate that is made for it.
    #[serde(rename = "extraSANs")]
    pub extra_sans: Vec<String>,
    /// A certificate (PEM, with its chain) for these names and this port, instead of one that is made.
    pub certificate_file: String,
    /// Its key.
    pub key_file: String,
}

/// How the API server is reached, and how it is told who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// By this kubeconfig, with impersonation.
    Kubeconfig(String),
    /// As its front proxy.
    FrontProxy {
        /// Without brackets around an IPv6 address.
        host: String,
        /// Of it.
        port: u16,
        /// To verify its certificate by.
        server_name: String,
        /// PEM file.
        ca: String,
        /// PEM files of certificate and key.
        identity: (String, String),
    },
}

fn default_namespace() -> String {
    "default".to_owned()
}

impl Server {
    /// One way or the other.
    pub(super) fn route(&self) -> Result<Route, String> {
        let Self {
            kubeconfig_file,
            server,
            server_name,
            certificate_authority_file: ca,
            front_proxy_certificate_file: certificate,
            front_proxy_key_file: key,
        } = self;
        let others = [server, server_name, ca, certificate, key];
        if !kubeconfig_file.is_empty() {
            let is_alone = others.iter().all(|field| field.is_empty());
            let alone =
                || "backend.kubeconfigFile has all that the other fields of backend say: leave them out".to_owned();
            return is_alone.then(|| Route::Kubeconfig(kubeconfig_file.clone())).ok_or_else(alone);
        }
        if [server, ca, certificate, key].iter().any(|field| field.is_empty()) {
            return Err("backend must have a kubeconfigFile, or server, certificateAuthorityFile, \
                        frontProxyCertificateFile and frontProxyKeyFile"
                .to_owned());
        }
        let (host, port) = address(server)?;
        Ok(Route::FrontProxy {
            server_name: if server_name.is_empty() { host.clone() } else { server_name.clone() },
            host,
            port,
            ca: ca.clone(),
            identity: (certificate.clone(), key.clone()),
        })
    }
}

fn address(server: &str) -> Result<(String, u16), String> {
    let bad = || "backend.server is not https://HOST[:PORT]".to_owned();
    let uri: http::Uri = server.parse().map_err(|_| bad())?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let is_plain = uri.scheme_str() == Some("https") && matches!(uri.path(), "" | "/") && uri.query().is_none();
    if !is_plain || host.is_empty() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(bad());
    }
    Ok((host, uri.port_u16().unwrap_or(443)))
}
