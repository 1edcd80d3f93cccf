//! Keys of the PKI Secret (`{name}-pki` in the host namespace): PEM, but for [`K3S_TOKEN`].

/// CA of the tenant's serving certificates; pods and kubeconfigs trust it.
pub const SERVER_CA: &str = "server-ca.crt";
/// Its key.
pub const SERVER_CA_KEY: &str = "server-ca.key";
/// CA of the tenant's client certificates.
pub const CLIENT_CA: &str = "client-ca.crt";
/// Its key (the controller manager signs CSRs with it).
pub const CLIENT_CA_KEY: &str = "client-ca.key";
/// CA of front proxies.
pub const FRONT_PROXY_CA: &str = "front-proxy-ca.crt";
/// Its key.
pub const FRONT_PROXY_CA_KEY: &str = "front-proxy-ca.key";
/// Service-account signing key (ECDSA P-256).
pub const SERVICE_ACCOUNT_KEY: &str = "sa.key";
/// Its public half.
pub const SERVICE_ACCOUNT_PUBLIC: &str = "sa.pub";
/// Backend's serving certificate.
pub const API_SERVER: &str = "apiserver.crt";
/// Its key.
pub const API_SERVER_KEY: &str = "apiserver.key";
/// Controller manager's client certificate.
pub const CONTROLLER_MANAGER: &str = "kcm.crt";
/// Its key.
pub const CONTROLLER_MANAGER_KEY: &str = "kcm.key";
/// The gateway's serving certificate for this tenant (all SNI names, `kubernetes.default.svc…`, the API Service IP).
pub const GATEWAY: &str = "gateway.crt";
/// Its key.
pub const GATEWAY_KEY: &str = "gateway.key";
/// The gateway's client certificate towards the backend, CN [`FRONT_PROXY_NAME`].
pub const FRONT_PROXY: &str = "front-proxy.crt";
/// Its key.
pub const FRONT_PROXY_KEY: &str = "front-proxy.key";
/// Common name that backends allow as front proxy.
pub const FRONT_PROXY_NAME: &str = "portico-gateway";
/// The only common name that k3s allows as front proxy.
pub const K3S_FRONT_PROXY_NAME: &str = "system:auth-proxy";
/// The client certificate that the API server of `k8s` shows to extension API servers, CN [`AGGREGATOR_NAME`]. k3s makes its
/// own.
pub const AGGREGATOR: &str = "aggregator.crt";
/// Its key.
pub const AGGREGATOR_KEY: &str = "aggregator.key";
/// Common name that extension API servers allow: kubeadm's, which those that do not read it from the cluster expect. Not the
/// gateway's, so that nothing that an extension server sees is an identity of Portico.
pub const AGGREGATOR_NAME: &str = "front-proxy-client";
/// k3s' server token. It also encrypts k3s' copy of its CAs in the datastore: without it that datastore is lost.
pub const K3S_TOKEN: &str = "k3s-token";
