//! What the flags say, and an error for what is not there yet.

use std::path::PathBuf;

use crate::crd::policy::GrantedPolicy;
use crate::error::{Error, Kind};
use crate::names::TenantId;

/// What is served, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Host namespace of the synced objects, and the suffix of their names.
    pub id: TenantId,
    /// Namespace of this pod, its Service and its Secret; usually that of the synced objects.
    pub namespace: String,
    /// Port of the API; DNS is served on the next one.
    pub port: u16,
    /// What holds as it was given.
    pub flags: Flags,
}

/// Flags of `portico syncer` that need nothing else to be understood.
#[derive(Debug, Clone)]
pub struct Flags {
    /// The Service in front of this pod.
    pub service: String,
    /// The StatefulSet that owns everything; empty: nobody does.
    pub owning_stateful_set: String,
    /// Secret for the kubeconfig; empty: none is written.
    pub kubeconfig_secret: String,
    /// Further names and IPs in the serving certificate.
    pub tls_sans: Vec<String>,
    /// Files of k3s.
    pub files: Files,
    /// Such as `cluster.local`.
    pub cluster_domain: String,
    /// Host ServiceAccount of the tenant's pods; empty: the namespace's default.
    pub service_account: String,
    /// What the tenant's objects may ask of the host.
    pub policy: GrantedPolicy,
}

/// Files of k3s, by path.
#[derive(Debug, Clone)]
pub struct Files {
    /// Admin kubeconfig.
    pub kubeconfig: PathBuf,
    /// CA of serving certificates.
    pub server_ca: PathBuf,
    /// Its key.
    pub server_ca_key: PathBuf,
    /// CA of client certificates; its key beside it, with the ending `.key`.
    pub client_ca: PathBuf,
    /// CA of front proxies; `client-auth-proxy.{crt,key}` beside it.
    pub request_header_ca: PathBuf,
}

/// Something is not there yet that others are about to make.
pub(super) fn missing(what: impl Into<String>) -> Error {
    Error::own(Kind::Unavailable, what)
}
