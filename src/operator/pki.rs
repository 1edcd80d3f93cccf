//! Phase 5: the tenant's PKI Secret. CAs and the service-account key are made once and never changed silently; leaves
//! are renewed in time and when their names change.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::certificates::{self, Leaf, Pair, Usage};
use crate::crd::{Distro, pki};
use crate::error::{Error, Kind, Result};
use crate::names::TenantId;
use crate::operator::apply::Mark;
use crate::operator::cluster::{Cluster, Context, During, Halt, condition};
use crate::operator::secret::{self, Data};

const RENEW_DAYS: u32 = 30;

/// What the certificates must say.
#[derive(Debug, Clone)]
pub(crate) struct Wishes<'a> {
    pub id: &'a TenantId,
    pub distro: Distro,
    /// Names and IPs under which the gateway serves the tenant.
    pub gateway_names: Vec<String>,
    /// Names and IPs of the backend itself.
    pub backend_names: Vec<String>,
}

/// The Secret's data after it was made or brought up to date.
pub(crate) async fn ensure(context: &Context, cluster: &Cluster, wishes: &Wishes<'_>) -> Result<Data, Halt> {
    let name = cluster.pki_secret();
    let mark = Mark::Owner(&cluster.uid);
    let host = &*context.host;
    let existing = secret::read(host, cluster.namespace(), &name, mark).await.during(condition::CERTIFICATES)?;
    let old = existing.as_ref().map(secret::data);
    let new = plan(old.as_ref(), wishes, context.clock.now())
        .map_err(|error| Halt::blocked(condition::CERTIFICATES, "Damaged", error.message()))?;
    if old.as_ref() != Some(&new) {
        let desired = secret::object(&cluster.metadata(&name), "Opaque", &new);
        secret::write(host, cluster.namespace(), existing.as_ref(), &desired).await.during(condition::CERTIFICATES)?;
    }
    Ok(new)
}

/// The data that should be: `old` with what is missing or stale made anew. An error when a CA of an existing Secret is
/// unusable, since a new one would lock out every kubeconfig and pod.
pub(crate) fn plan(old: Option<&Data>, wishes: &Wishes<'_>, now: Timestamp) -> Result<Data> {
    let mut data = old.cloned().unwrap_or_default();
    let fresh = old.is_none();
    let server_ca = authority(&mut data, fresh, "server", wishes, (pki::SERVER_CA, pki::SERVER_CA_KEY), now)?;
    authority(&mut data, fresh, "client", wishes, (pki::CLIENT_CA, pki::CLIENT_CA_KEY), now)?;
    let gateway = server_leaf("portico-gateway", &wishes.gateway_names);
    refresh(&mut data, (pki::GATEWAY, pki::GATEWAY_KEY), &server_ca, &gateway, now)?;
    match wishes.distro {
        Distro::K8s => {
            control_plane(&mut data, fresh, wishes, pki::FRONT_PROXY_NAME, now)?;
            leaves(&mut data, wishes, &server_ca, now)?;
        }
        // k3s signs its leaves itself.
        Distro::K3s => {
            control_plane(&mut data, fresh, wishes, pki::K3S_FRONT_PROXY_NAME, now)?;
            token(&mut data, fresh)?;
        }
        Distro::External => {}
    }
    Ok(data)
}

/// What every control plane of ours shares with the gateway: the front proxy's CA and identity, the token key.
fn control_plane(
    data: &mut Data,
    fresh: bool,
    wishes: &Wishes<'_>,
    front_proxy_name: &str,
    now: Timestamp,
) -> Result<()> {
    let keys = (pki::FRONT_PROXY_CA, pki::FRONT_PROXY_CA_KEY);
    let front_proxy_ca = authority(data, fresh, "front-proxy", wishes, keys, now)?;
    if fresh {
        let (private, public) = certificates::new_signing_key()?;
        data.insert(pki::SERVICE_ACCOUNT_KEY.to_owned(), private);
        data.insert(pki::SERVICE_ACCOUNT_PUBLIC.to_owned(), public);
    } else if !data.contains_key(pki::SERVICE_ACCOUNT_KEY) || !data.contains_key(pki::SERVICE_ACCOUNT_PUBLIC) {
        return Err(damaged("service-account key"));
    }
    let proxy = client_leaf(front_proxy_name);
    refresh(data, (pki::FRONT_PROXY, pki::FRONT_PROXY_KEY), &front_proxy_ca, &proxy, now)
}

/// The leaves of `distro: k8s`, which holds no key of the server CA.
fn leaves(data: &mut Data, wishes: &Wishes<'_>, server_ca: &Pair, now: Timestamp) -> Result<()> {
    let client_ca = Pair {
        certificate: data.get(pki::CLIENT_CA).cloned().unwrap_or_default(),
        key: data.get(pki::CLIENT_CA_KEY).cloned().unwrap_or_default(),
    };
    let backend = server_leaf("kube-apiserver", &wishes.backend_names);
    refresh(data, (pki::API_SERVER, pki::API_SERVER_KEY), server_ca, &backend, now)?;
    let controllers = client_leaf("system:kube-controller-manager");
    refresh(data, (pki::CONTROLLER_MANAGER, pki::CONTROLLER_MANAGER_KEY), &client_ca, &controllers, now)
}

/// k3s' server token: all replicas need the same, and it is never changed, since k3s' copy of the CAs in the datastore
/// is encrypted with it.
fn token(data: &mut Data, fresh: bool) -> Result<()> {
    if !fresh {
        return if data.contains_key(pki::K3S_TOKEN) { Ok(()) } else { Err(damaged("k3s token")) };
    }
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|e| Error::own(Kind::Internal, "no randomness").because(e))?;
    data.insert(pki::K3S_TOKEN.to_owned(), bytes.iter().map(|b| format!("{b:02x}")).collect());
    Ok(())
}

/// Names under which the gateway serves a tenant.
pub(crate) fn gateway_names(
    cluster: &Cluster,
    base_domain: &str,
    public_url: &str,
    api_service_ip: &str,
) -> Vec<String> {
    let domain = &cluster.spec.network.cluster_domain;
    let mut names = vec![cluster.id.default_host(base_domain)];
    names.extend(cluster.spec.expose.hosts.iter().cloned());
    names.extend(cluster.spec.expose.extra_sans.iter().cloned());
    names.extend(kubernetes_names(domain));
    names.extend([api_service_ip.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()]);
    names.extend(host_of(public_url));
    names
}

/// Names of the backend.
pub(crate) fn backend_names(cluster: &Cluster, service_ip: &str) -> Vec<String> {
    let (name, namespace) = (cluster.name(), cluster.namespace());
    let mut names = vec![name.to_owned(), format!("{name}.{namespace}"), cluster.server_name()];
    names.extend(kubernetes_names(&cluster.spec.network.cluster_domain));
    names.extend(["127.0.0.1".to_owned(), "localhost".to_owned(), service_ip.to_owned()]);
    names
}

/// The host part of a URL, without brackets around an IPv6 address.
pub(crate) fn host_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    uri.host().map(|host| host.trim_matches(['[', ']']).to_owned())
}

/// Digest of what a running control plane does not read again by itself: CAs and the service-account key.
pub(crate) fn digest(data: &Data) -> String {
    let mut sha = Sha256::new();
    for key in [pki::SERVER_CA, pki::CLIENT_CA, pki::FRONT_PROXY_CA, pki::SERVICE_ACCOUNT_PUBLIC] {
        let value = data.get(key).map(String::as_str).unwrap_or_default();
        sha.update((value.len() as u64).to_be_bytes());
        sha.update(value);
    }
    sha.finalize().iter().take(10).map(|b| format!("{b:02x}")).collect()
}

fn kubernetes_names(domain: &str) -> Vec<String> {
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names
}

fn authority(
    data: &mut Data,
    fresh: bool,
    purpose: &str,
    wishes: &Wishes<'_>,
    keys: (&str, &str),
    now: Timestamp,
) -> Result<Pair> {
    if fresh {
        let pair = certificates::new_ca(&format!("{purpose}-ca@{}", wishes.id), now)?;
        data.insert(keys.0.to_owned(), pair.certificate.clone());
        data.insert(keys.1.to_owned(), pair.key.clone());
        return Ok(pair);
    }
    let damaged = || damaged(&format!("{purpose} CA or key"));
    let pair = pair(data, keys).ok_or_else(damaged)?;
    if certificates::is_usable_ca(&pair, now) { Ok(pair) } else { Err(damaged()) }
}

fn refresh(data: &mut Data, keys: (&str, &str), ca: &Pair, leaf: &Leaf, now: Timestamp) -> Result<()> {
    if pair(data, keys).is_some_and(|pair| certificates::is_current(&pair, ca, leaf, now)) {
        return Ok(());
    }
    let pair = certificates::new_leaf(ca, leaf, now)?;
    data.insert(keys.0.to_owned(), pair.certificate);
    data.insert(keys.1.to_owned(), pair.key);
    Ok(())
}

fn pair(data: &Data, keys: (&str, &str)) -> Option<Pair> {
    Some(Pair { certificate: data.get(keys.0)?.clone(), key: data.get(keys.1)?.clone() })
}

fn server_leaf(common_name: &str, names: &[String]) -> Leaf {
    Leaf {
        common_name: common_name.to_owned(),
        organization: None,
        names: names.to_vec(),
        usage: Usage::Server,
        renew_days: RENEW_DAYS,
    }
}

fn client_leaf(common_name: &str) -> Leaf {
    Leaf {
        common_name: common_name.to_owned(),
        organization: None,
        names: Vec::new(),
        usage: Usage::Client,
        renew_days: RENEW_DAYS,
    }
}

fn damaged(what: &str) -> Error {
    let message = format!(
        "the {what} in the PKI Secret is missing, damaged or expired; restore the Secret, or delete it to get a new PKI \
         (all kubeconfigs and pods of the tenant must then be renewed, and k3s does not start on its old data)"
    );
    Error::own(Kind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("time")
    }

    fn wishes<'a>(id: &'a TenantId, ip: &str) -> Wishes<'a> {
        Wishes {
            id,
            distro: Distro::K8s,
            gateway_names: vec!["a.ns.portico.local".to_owned(), ip.to_owned()],
            backend_names: vec!["a.ns.svc".to_owned()],
        }
    }

    #[test]
    fn made_once_then_stable_and_only_the_stale_leaf_is_renewed() {
        let id = TenantId::parse("ns", "a").expect("id");
        let now = at("2026-01-01T00:00:00Z");
        let first = plan(None, &wishes(&id, "10.0.0.1"), now).expect("plan");
        assert_eq!(first.len(), 16);
        assert_eq!(plan(Some(&first), &wishes(&id, "10.0.0.1"), now).expect("plan"), first);
        let moved = plan(Some(&first), &wishes(&id, "10.0.0.2"), now).expect("plan");
        let changed: Vec<&String> = first.keys().filter(|k| first.get(*k) != moved.get(*k)).collect();
        assert_eq!(changed, [pki::GATEWAY, pki::GATEWAY_KEY]);
        assert_eq!(digest(&first), digest(&moved));
        let later = plan(Some(&first), &wishes(&id, "10.0.0.1"), at("2026-12-15T00:00:00Z")).expect("plan");
        let changed = first.keys().filter(|k| first.get(*k) != later.get(*k)).count();
        assert_eq!(changed, 8, "four leaves with their keys");
    }

    #[test]
    fn a_ca_is_never_replaced_silently() {
        let id = TenantId::parse("ns", "a").expect("id");
        let now = at("2026-01-01T00:00:00Z");
        let mut data = plan(None, &wishes(&id, "10.0.0.1"), now).expect("plan");
        let key = data.remove(pki::CLIENT_CA_KEY).expect("there");
        assert!(plan(Some(&data), &wishes(&id, "10.0.0.1"), now).is_err());
        data.insert(pki::CLIENT_CA_KEY.to_owned(), key);
        data.remove(pki::SERVICE_ACCOUNT_KEY);
        assert!(plan(Some(&data), &wishes(&id, "10.0.0.1"), now).is_err());
    }

    #[test]
    fn external_backends_get_no_control_plane_keys() {
        let id = TenantId::parse("ns", "a").expect("id");
        let wishes = Wishes { distro: Distro::External, ..wishes(&id, "10.0.0.1") };
        let data = plan(None, &wishes, at("2026-01-01T00:00:00Z")).expect("plan");
        assert!(!data.contains_key(pki::API_SERVER_KEY) && !data.contains_key(pki::SERVICE_ACCOUNT_KEY));
        assert!(data.contains_key(pki::GATEWAY) && data.contains_key(pki::CLIENT_CA));
    }

    #[test]
    fn k3s_gets_a_token_and_its_front_proxy_name_and_signs_its_own_leaves() {
        let id = TenantId::parse("ns", "a").expect("id");
        let now = at("2026-01-01T00:00:00Z");
        let wishes = Wishes { distro: Distro::K3s, ..wishes(&id, "10.0.0.1") };
        let first = plan(None, &wishes, now).expect("plan");
        assert!(!first.contains_key(pki::API_SERVER_KEY) && !first.contains_key(pki::CONTROLLER_MANAGER_KEY));
        let text = |key: &str| first.get(key).cloned().unwrap_or_default();
        let ca = Pair { certificate: text(pki::FRONT_PROXY_CA), key: text(pki::FRONT_PROXY_CA_KEY) };
        let proxy = Pair { certificate: text(pki::FRONT_PROXY), key: text(pki::FRONT_PROXY_KEY) };
        assert!(certificates::is_current(&proxy, &ca, &client_leaf("system:auth-proxy"), now));
        assert_eq!(text(pki::K3S_TOKEN).len(), 64);
        assert_ne!(plan(None, &wishes, now).expect("another").get(pki::K3S_TOKEN), first.get(pki::K3S_TOKEN));
        assert_eq!(plan(Some(&first), &wishes, at("2026-06-01T00:00:00Z")).expect("plan"), first);
        let mut damaged = first;
        damaged.remove(pki::K3S_TOKEN);
        let refusal = plan(Some(&damaged), &wishes, now).expect_err("never a new one");
        assert!(refusal.message().contains("k3s token"), "{refusal}");
    }

    #[test]
    fn hosts_of_urls() {
        assert_eq!(host_of("https://p.example.com:8443/x").as_deref(), Some("p.example.com"));
        assert_eq!(host_of("https://[fd00::1]:8443").as_deref(), Some("fd00::1"));
        assert_eq!(host_of(""), None);
    }
}
