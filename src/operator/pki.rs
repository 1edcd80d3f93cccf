//! Phase 5: the tenant's PKI Secret. CAs and the service-account key are made once and never changed silently; leaves
//! are renewed in time and when their names change.

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::crd::{Distro, pki};
use crate::error::{Error, Kind, Result};
use crate::names::TenantId;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::{During, Halt, condition};
use crate::operator::restored::Whose;
use crate::operator::secret::{self, Data};
use crate::tls::certificates::{self, Leaf, Pair, Usage};
use crate::translate::service;

const RENEW_DAYS: u32 = 30;
/// Annotation of the Secret: see [`origin`].
const ORIGIN: &str = "portico.dev/pki-of";
/// Its value when a person says that what is in the Secret shall be used.
const TAKE_THIS: &str = "this";

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

/// The Secret's data after it was made or brought up to date, or taken over from a backup.
/// `running` is the digest of the PKI with which a control plane that is there was made.
pub(crate) async fn ensure(
    context: &Context,
    cluster: &Cluster,
    wishes: &Wishes<'_>,
    running: Option<&str>,
) -> Result<Data, Halt> {
    let name = cluster.pki_secret();
    let host = &context.host;
    let existing = secret::read(host, cluster, &name).await.during(condition::CERTIFICATES)?;
    let old = existing.as_ref().map(|(secret, _)| secret::data(secret));
    let new = plan(old.as_ref(), wishes, context.clock.now());
    let new = match (&existing, &old) {
        (Some((secret, whose)), Some(old)) => {
            let new = usable(cluster, old, new, *whose)?;
            check_origin(cluster, secret, *whose, &digest(&new), running)?;
            new
        }
        _ => new.map_err(|error| damaged_halt(&error))?,
    };
    let origin = origin(cluster, &digest(&new));
    let is_told =
        existing.as_ref().is_some_and(|(secret, _)| secret["metadata"]["annotations"][ORIGIN] == origin.as_str());
    let is_ours = existing.as_ref().is_some_and(|(_, whose)| *whose == Whose::Ours);
    if !is_ours || !is_told || old.as_ref() != Some(&new) {
        let mut metadata = cluster.metadata(&name);
        metadata["annotations"] = json!({ORIGIN: origin});
        let desired = secret::object(&metadata, "Opaque", &new);
        let existing = existing.as_ref().map(|(secret, _)| secret);
        secret::write(host, cluster.namespace(), existing, &desired).await.during(condition::CERTIFICATES)?;
    }
    Ok(new)
}

/// What becomes of the data of a Secret that is there. One from a backup must be whole before it is taken over.
fn usable(cluster: &Cluster, old: &Data, new: Result<Data>, whose: Whose) -> Result<Data, Halt> {
    let text = |key: &str| old.get(key).map(String::as_str).unwrap_or_default();
    let signs = || certificates::is_signing_pair(text(pki::SERVICE_ACCOUNT_KEY), text(pki::SERVICE_ACCOUNT_PUBLIC));
    let lacks = match &new {
        Err(error) => Some(error.message().to_owned()),
        Ok(_) if whose == Whose::Restored && cluster.spec.distro.is_ours() && !signs() => {
            Some("its service-account keys do not belong together".to_owned())
        }
        Ok(_) => None,
    };
    match (lacks, new) {
        (None, Ok(new)) => Ok(new),
        (Some(lacks), _) if whose == Whose::Restored => {
            let (name, namespace) = (cluster.pki_secret(), cluster.namespace());
            let message = format!(
                "Secret {name:?} has no owner, as one that was restored, but cannot be taken over: {lacks}. Restore the \
                 whole Secret, or give the cluster a new PKI: kubectl -n {namespace} delete secret {name}"
            );
            Err(Halt::blocked(condition::CERTIFICATES, "PkiIncomplete", message))
        }
        (_, Err(error)) => Err(damaged_halt(&error)),
        (Some(lacks), Ok(_)) => Err(Halt::blocked(condition::CERTIFICATES, "Damaged", lacks)),
    }
}

fn damaged_halt(error: &Error) -> Halt {
    Halt::blocked(condition::CERTIFICATES, "Damaged", error.message())
}

/// Refuses a PKI that came into the Secret from elsewhere while a control plane runs with another one: its files would
/// be exchanged under it, its data may belong to the other's keys, and k3s does not start with them.
fn check_origin(
    cluster: &Cluster,
    secret: &Value,
    whose: Whose,
    digest: &str,
    running: Option<&str>,
) -> Result<(), Halt> {
    let said = secret["metadata"]["annotations"][ORIGIN].as_str().unwrap_or_default();
    let is_settled =
        said == TAKE_THIS || (whose == Whose::Ours && (said.is_empty() || said == origin(cluster, digest)));
    if is_settled || running.is_none_or(|running| running == digest) {
        return Ok(());
    }
    let (name, namespace) = (cluster.pki_secret(), cluster.namespace());
    let message = format!(
        "Secret {name:?} holds another PKI than the one that this control plane was made with: it was restored too late, or \
         changed by hand. To restore in order, delete the VirtualCluster, put back its data and this Secret, then create it \
         (docs/operations/backup.md). To go on with the keys that the Secret holds now: kubectl -n {namespace} annotate \
         secret {name} {ORIGIN}={TAKE_THIS} --overwrite"
    );
    Err(Halt::blocked(condition::CERTIFICATES, "PkiReplaced", message))
}

/// For which VirtualCluster Portico made a PKI, or took it over, and which one it was.
fn origin(cluster: &Cluster, digest: &str) -> String {
    format!("{}/{digest}", cluster.uid)
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
            let front_proxy_ca = control_plane(&mut data, fresh, wishes, pki::FRONT_PROXY_NAME, now)?;
            leaves(&mut data, wishes, &server_ca, &front_proxy_ca, now)?;
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

/// What every control plane of ours shares with the gateway: the front proxy's CA, which is returned, and identity, and the
/// token key.
fn control_plane(
    data: &mut Data,
    fresh: bool,
    wishes: &Wishes<'_>,
    front_proxy_name: &str,
    now: Timestamp,
) -> Result<Pair> {
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
    refresh(data, (pki::FRONT_PROXY, pki::FRONT_PROXY_KEY), &front_proxy_ca, &proxy, now)?;
    Ok(front_proxy_ca)
}

/// The leaves of `distro: k8s`, which holds no key of the server's and the front proxy's CA.
fn leaves(data: &mut Data, wishes: &Wishes<'_>, server_ca: &Pair, front_proxy_ca: &Pair, now: Timestamp) -> Result<()> {
    let client_ca = Pair {
        certificate: data.get(pki::CLIENT_CA).cloned().unwrap_or_default(),
        key: data.get(pki::CLIENT_CA_KEY).cloned().unwrap_or_default(),
    };
    let backend = server_leaf("kube-apiserver", &wishes.backend_names);
    refresh(data, (pki::API_SERVER, pki::API_SERVER_KEY), server_ca, &backend, now)?;
    let aggregator = client_leaf(pki::AGGREGATOR_NAME);
    refresh(data, (pki::AGGREGATOR, pki::AGGREGATOR_KEY), front_proxy_ca, &aggregator, now)?;
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
    data.insert(pki::K3S_TOKEN.to_owned(), HEXLOWER.encode(&bytes));
    Ok(())
}

/// Names under which the gateway serves a tenant: of those that it asks for, `hosts`, which it has. `extraSANs` pass as
/// they are: they lead nowhere, and only who trusts this tenant's own CA believes them (docs/security.md).
pub(crate) fn gateway_names(
    cluster: &Cluster,
    base_domain: &str,
    hosts: &[String],
    api_service_ip: &str,
) -> Vec<String> {
    let domain = &cluster.spec.network.cluster_domain;
    let mut names = vec![cluster.id.default_host(base_domain)];
    names.extend(hosts.iter().cloned());
    names.extend(cluster.spec.expose.extra_sans.iter().cloned());
    names.extend(kubernetes_names(domain));
    if cluster.spec.distro == Distro::K3s {
        names.push(metrics_name());
    }
    names.extend([api_service_ip.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()]);
    names
}

/// Names of the backend.
pub(crate) fn backend_names(cluster: &Cluster, service_ip: &str) -> Vec<String> {
    let (name, namespace) = (cluster.name(), cluster.namespace());
    let mut names = vec![name.to_owned(), format!("{name}.{namespace}"), cluster.server_name()];
    names.extend(kubernetes_names(&cluster.spec.network.cluster_domain));
    // By this name its own aggregator knows the relay of its metrics, which shows the same certificate.
    names.push(metrics_name());
    names.extend(["127.0.0.1".to_owned(), "localhost".to_owned(), service_ip.to_owned()]);
    names
}

/// Digest of what a running control plane does not read again by itself: CAs and the service-account key.
pub(crate) fn digest(data: &Data) -> String {
    let mut sha = Sha256::new();
    for key in [pki::SERVER_CA, pki::CLIENT_CA, pki::FRONT_PROXY_CA, pki::SERVICE_ACCOUNT_PUBLIC] {
        let value = data.get(key).map(String::as_str).unwrap_or_default();
        sha.update((value.len() as u64).to_be_bytes());
        sha.update(value);
    }
    HEXLOWER.encode(&sha.finalize()[..10])
}

fn metrics_name() -> String {
    format!("{}.{}.svc", service::METRICS_NAME, service::METRICS_NAMESPACE)
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
mod tests;
