//! Phase 7: the tenant's admin kubeconfig, Secret `vc-{name}` with the keys that its users know.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::config::GatewayConfig;
use crate::crd::pki;
use crate::error::{Error, Kind, Result};
use crate::operator::apply::Mark;
use crate::operator::certificates::{self, Leaf, Pair, Usage};
use crate::operator::cluster::{Cluster, Context, During, Halt, condition};
use crate::operator::secret::{self, Data};

const CONFIG: &str = "config";
const CA: &str = "certificate-authority";
const CERTIFICATE: &str = "client-certificate";
const KEY: &str = "client-key";
/// Where `portico connect` forwards a port to when the gateway has no public URL.
const LOCAL: &str = "https://localhost:8443";

/// One way to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    pub context: String,
    pub server: String,
    /// SNI and verified name, when it is not the server's own.
    pub tls_server_name: Option<String>,
    /// PEM; empty means the system's roots.
    pub authority: String,
}

/// The ways to a tenant, best first.
pub(crate) fn ways(cluster: &Cluster, gateway: &GatewayConfig, shared_ca: &str, tenant_ca: &str) -> Vec<Way> {
    let name = cluster.name();
    let mut ways = Vec::new();
    let public = gateway.public_url.trim_end_matches('/');
    let port = public.parse::<http::Uri>().ok().and_then(|uri| uri.port_u16());
    if !public.is_empty() {
        ways.push(Way {
            context: name.to_owned(),
            server: format!("{public}{}", cluster.id.path_prefix()),
            tls_server_name: None,
            authority: shared_ca.to_owned(),
        });
    }
    if let Some(host) = cluster.spec.expose.hosts.first().filter(|_| !public.is_empty()) {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        ways.push(Way {
            context: format!("{name}-host"),
            server: format!("https://{host}{port}"),
            tls_server_name: None,
            authority: tenant_ca.to_owned(),
        });
    }
    if !public.is_empty() {
        // For clients that reach the gateway at another address: `portico connect --server`.
        ways.push(Way {
            context: format!("{name}-sni"),
            server: public.to_owned(),
            tls_server_name: Some(cluster.id.default_host(&gateway.base_domain)),
            authority: tenant_ca.to_owned(),
        });
    }
    if ways.is_empty() {
        ways.push(Way {
            context: name.to_owned(),
            server: LOCAL.to_owned(),
            tls_server_name: Some(cluster.id.default_host(&gateway.base_domain)),
            authority: tenant_ca.to_owned(),
        });
    }
    ways
}

/// Makes or renews the Secret.
pub(crate) async fn ensure(context: &Context, cluster: &Cluster, pki: &Data, ways: &[Way]) -> Result<(), Halt> {
    let name = cluster.kubeconfig_secret();
    let host = &*context.host;
    let existing = secret::read(host, cluster.namespace(), &name, Mark::Owner(&cluster.uid))
        .await
        .during(condition::CERTIFICATES)?;
    let old = existing.as_ref().map(secret::data);
    let new = plan(old.as_ref(), pki, ways, context.clock.now()).during(condition::CERTIFICATES)?;
    if old.as_ref() != Some(&new) {
        let mut metadata = cluster.metadata(&name);
        metadata["labels"]["app"] = Value::String("portico".to_owned());
        metadata["labels"]["vcluster-name"] = Value::String(cluster.name().to_owned());
        let desired = secret::object(&metadata, "Opaque", &new);
        secret::write(host, cluster.namespace(), existing.as_ref(), &desired).await.during(condition::CERTIFICATES)?;
    }
    Ok(())
}

fn plan(old: Option<&Data>, pki: &Data, ways: &[Way], now: Timestamp) -> Result<Data> {
    let text = |data: Option<&Data>, key: &str| data.and_then(|d| d.get(key)).cloned().unwrap_or_default();
    let ca = Pair { certificate: text(Some(pki), pki::CLIENT_CA), key: text(Some(pki), pki::CLIENT_CA_KEY) };
    let leaf = Leaf {
        common_name: "kubernetes-admin".to_owned(),
        organization: Some("system:masters"),
        names: Vec::new(),
        usage: Usage::Client,
        renew_days: 60,
    };
    let mut pair = Pair { certificate: text(old, CERTIFICATE), key: text(old, KEY) };
    if !certificates::is_current(&pair, &ca, &leaf, now) {
        pair = certificates::new_leaf(&ca, &leaf, now)?;
    }
    let authority = ways.first().map(|way| way.authority.clone()).unwrap_or_default();
    let config = render(ways, &pair)?;
    Ok([(CONFIG, config), (CA, authority), (CERTIFICATE, pair.certificate), (KEY, pair.key)]
        .map(|(key, value)| (key.to_owned(), value))
        .into())
}

fn render(ways: &[Way], pair: &Pair) -> Result<String> {
    let user = ways.first().map(|way| format!("{}-admin", way.context)).unwrap_or_default();
    let clusters: Vec<Value> = ways
        .iter()
        .map(|way| {
            let mut cluster = json!({"server": way.server});
            if !way.authority.is_empty() {
                cluster["certificate-authority-data"] = STANDARD.encode(&way.authority).into();
            }
            if let Some(name) = &way.tls_server_name {
                cluster["tls-server-name"] = name.as_str().into();
            }
            json!({"name": way.context, "cluster": cluster})
        })
        .collect();
    let contexts: Vec<Value> = ways
        .iter()
        .map(|way| json!({"name": way.context, "context": {"cluster": way.context, "user": user}}))
        .collect();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": clusters,
        "users": [{"name": user, "user": {
            "client-certificate-data": STANDARD.encode(&pair.certificate),
            "client-key-data": STANDARD.encode(&pair.key),
        }}],
        "contexts": contexts,
        "current-context": ways.first().map(|way| way.context.as_str()).unwrap_or_default(),
    });
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(&config, options)
        .map_err(|e| Error::own(Kind::Internal, "a kubeconfig cannot be written").because(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{Distro, VirtualClusterSpec, VirtualClusterStatus};
    use crate::names::TenantId;
    use crate::operator::pki::Wishes;

    fn cluster(hosts: &[&str]) -> Cluster {
        let mut spec = VirtualClusterSpec::default();
        spec.expose.hosts = hosts.iter().map(|h| (*h).to_owned()).collect();
        let id = TenantId::parse("team-a", "dev").expect("id");
        Cluster { id, uid: "u".to_owned(), generation: 1, spec, status: VirtualClusterStatus::default() }
    }

    #[test]
    fn ways_with_and_without_a_public_address() {
        let mut gateway = GatewayConfig::default();
        let local = ways(&cluster(&[]), &gateway, "SHARED", "TENANT");
        assert_eq!(local.len(), 1);
        assert_eq!(local[0].server, LOCAL);
        assert_eq!(local[0].tls_server_name.as_deref(), Some("dev.team-a.portico.local"));
        assert_eq!(local[0].authority, "TENANT");
        gateway.public_url = "https://p.example.com:30443/".to_owned();
        let public = ways(&cluster(&["dev.example.com"]), &gateway, "SHARED", "TENANT");
        assert_eq!(public[0].server, "https://p.example.com:30443/clusters/team-a/dev");
        assert_eq!(public[0].authority, "SHARED");
        assert_eq!(public[1].server, "https://dev.example.com:30443");
        assert_eq!(public[1].authority, "TENANT");
        assert_eq!(public[2].server, "https://p.example.com:30443");
        assert_eq!(public[2].tls_server_name.as_deref(), Some("dev.team-a.portico.local"));
        assert_eq!(public[2].authority, "TENANT");
    }

    #[test]
    fn kept_until_the_last_sixty_days_and_readable_by_clients() {
        let cluster = cluster(&[]);
        let wishes = Wishes { id: &cluster.id, distro: Distro::K8s, gateway_names: vec![], backend_names: vec![] };
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        let pki = crate::operator::pki::plan(None, &wishes, now).expect("pki");
        let ways = ways(&cluster, &GatewayConfig::default(), "", pki.get(pki::SERVER_CA).expect("ca"));
        let first = plan(None, &pki, &ways, now).expect("plan");
        let later: Timestamp = "2026-10-01T00:00:00Z".parse().expect("time");
        assert_eq!(plan(Some(&first), &pki, &ways, later).expect("plan"), first);
        let last: Timestamp = "2026-11-15T00:00:00Z".parse().expect("time");
        assert_ne!(plan(Some(&first), &pki, &ways, last).expect("plan"), first);
        let parsed = kube::config::Kubeconfig::from_yaml(first.get(CONFIG).expect("config")).expect("parses");
        assert_eq!(parsed.current_context.as_deref(), Some("dev"));
        assert_eq!(parsed.clusters.len(), 1);
    }
}
