//! Phase 7: the tenant's admin kubeconfig, Secret `vc-{name}` with the keys that its users know.

use serde_json::Value;

use crate::config::GatewayConfig;
use crate::crd::pki;
use crate::kubernetes::kubeconfig::issue::{self, Way};
use crate::kubernetes::resources::SECRETS;
use crate::names::keys;
use crate::operator::apply::{self, Mark};
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::{During, Halt, condition};
use crate::operator::restored::Whose;
use crate::operator::secret::{self, Data};
use crate::tls::certificates::Pair;

/// User of the kubeconfig.
const ADMIN: &str = "kubernetes-admin";
/// Where `portico connect` forwards a port to when the gateway has no public URL.
const LOCAL: &str = "https://localhost:8443";

/// The ways to a tenant, best first. `hosts` are those of its own names that lead to it.
pub(crate) fn ways(
    cluster: &Cluster,
    gateway: &GatewayConfig,
    hosts: &[String],
    shared_ca: &str,
    tenant_ca: &str,
) -> Vec<Way> {
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
    if let Some(host) = hosts.first().filter(|_| !public.is_empty()) {
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
    let host = &context.host;
    let existing = secret::read(host, cluster, &name).await.during(condition::CERTIFICATES)?;
    let is_restored = existing.as_ref().is_some_and(|(_, whose)| *whose == Whose::Restored);
    if let Some((secret, _)) = existing.as_ref().filter(|_| is_restored) {
        // Others make Secrets of this name, vcluster for one.
        let mark = Mark::Label(keys::CONTROL_PLANE, cluster.name());
        apply::check_ours(&SECRETS, secret, mark).during(condition::CERTIFICATES)?;
    }
    let old = existing.as_ref().map(|(secret, _)| secret::data(secret));
    let new =
        issue::plan(old.as_ref(), &client_ca(pki), ADMIN, ways, context.clock.now()).during(condition::CERTIFICATES)?;
    if is_restored || old.as_ref() != Some(&new) {
        let mut metadata = cluster.metadata(&name);
        metadata["labels"]["app"] = Value::String("portico".to_owned());
        metadata["labels"]["vcluster-name"] = Value::String(cluster.name().to_owned());
        let desired = secret::object(&metadata, "Opaque", &new);
        let existing = existing.as_ref().map(|(secret, _)| secret);
        secret::write(host, cluster.namespace(), existing, &desired).await.during(condition::CERTIFICATES)?;
    }
    Ok(())
}

fn client_ca(pki: &Data) -> Pair {
    let text = |key: &str| pki.get(key).cloned().unwrap_or_default();
    Pair { certificate: text(pki::CLIENT_CA), key: text(pki::CLIENT_CA_KEY) }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::crd::{Distro, VirtualClusterSpec, VirtualClusterStatus};
    use crate::names::TenantId;
    use crate::operator::pki::Wishes;

    fn cluster() -> Cluster {
        let (spec, status) = (VirtualClusterSpec::default(), VirtualClusterStatus::default());
        let id = TenantId::parse("team-a", "dev").expect("id");
        Cluster { id, uid: "u".to_owned(), generation: 1, is_leaving: false, is_pushed: false, spec, status }
    }

    #[test]
    fn ways_with_and_without_a_public_address() {
        let mut gateway = GatewayConfig::default();
        let local = ways(&cluster(), &gateway, &[], "SHARED", "TENANT");
        assert_eq!(local.len(), 1);
        assert_eq!(local[0].server, LOCAL);
        assert_eq!(local[0].tls_server_name.as_deref(), Some("dev.team-a.portico.local"));
        assert_eq!(local[0].authority, "TENANT");
        gateway.public_url = "https://p.example.com:30443/".to_owned();
        let public = ways(&cluster(), &gateway, &["dev.example.com".to_owned()], "SHARED", "TENANT");
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
        let cluster = cluster();
        let wishes = Wishes { id: &cluster.id, distro: Distro::K8s, gateway_names: vec![], backend_names: vec![] };
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        let pki = crate::operator::pki::plan(None, &wishes, now).expect("pki");
        let ways = ways(&cluster, &GatewayConfig::default(), &[], "", pki.get(pki::SERVER_CA).expect("ca"));
        let plan = |old, now| issue::plan(old, &client_ca(&pki), ADMIN, &ways, now);
        let first = plan(None, now).expect("plan");
        let later: Timestamp = "2026-10-01T00:00:00Z".parse().expect("time");
        assert_eq!(plan(Some(&first), later).expect("plan"), first);
        let last: Timestamp = "2026-11-15T00:00:00Z".parse().expect("time");
        assert_ne!(plan(Some(&first), last).expect("plan"), first);
        let parsed = kube::config::Kubeconfig::from_yaml(first.get(issue::CONFIG).expect("config")).expect("parses");
        assert_eq!(parsed.current_context.as_deref(), Some("dev"));
        assert_eq!(parsed.clusters.len(), 1);
    }
}
