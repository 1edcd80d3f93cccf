//! One round over one VirtualCluster: the phases in their order, then the status.

use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::json;

use crate::crd::{BackendStatus, VirtualClusterStatus, pki as keys};
use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes;
use crate::kubernetes::kubeconfig::issue::Way;
use crate::kubernetes::resources::{SECRETS, VIRTUAL_CLUSTERS};
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::{During, Halt, condition};
use crate::operator::secret::{self, Data};
use crate::operator::{
    assign_port, audited, cidr, control_plane, kubeconfig, kubeconfigs, listener, networks, pki, rights, rollout,
    status, storage, store_fill, system_services,
};
use crate::tenant::Assertion;
use crate::tls;
use crate::upstream::{Credential, Reach, Target};

/// How often what is ready is compared again.
const DRIFT: Duration = Duration::from_secs(60);

/// How a round ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// When to look again.
    pub pause: Duration,
    /// The status as it was written; absent when it could not be.
    pub status: Option<VirtualClusterStatus>,
}

/// Works on one cluster. `attempt` counts the rounds since the last news of it.
pub(crate) async fn reconcile(context: &Context, cluster: &Cluster, attempt: u32) -> Outcome {
    let mut next = cluster.status.clone();
    next.pod_security = Some(context.policy(cluster).pod_security());
    next.limits = Some(cluster.spec.limits.granted(&context.config));
    rollout::begin_round(context, cluster);
    let verdict = context.judge(cluster);
    let halt = phases(context, cluster, &verdict.accepted, &mut next).await.err();
    rollout::conclude(context, cluster, halt.as_ref(), &mut next);
    let now = context.clock.now();
    status::conclude(&mut next, halt.as_ref(), cluster.generation, now);
    status::hosts(&mut next, &verdict, cluster.generation, now);
    status::auth(&mut next, &context.config.auth.jwt, cluster, now);
    audited::note(context, cluster, &mut next);
    let pause = match &halt {
        None => context.clock.jitter(DRIFT),
        Some(halt) => {
            tracing::debug!(tenant = %cluster.id, condition = halt.condition, reason = halt.reason, message = %halt.message, "not ready");
            halt.retry.pause(attempt)
        }
    };
    if let Some(patch) = status::patch(&cluster.status, &next) {
        if next.phase != cluster.status.phase {
            tracing::info!(tenant = %cluster.id, phase = %next.phase, message = %next.message, "phase");
        }
        // The uid keeps the status of a deleted namesake out of its successor.
        let patch = json!({"metadata": {"uid": cluster.uid}, "status": patch});
        let written = context.host.patch_status(&VIRTUAL_CLUSTERS, cluster.namespace(), cluster.name(), &patch).await;
        if let Err(error) = written
            && !matches!(error.kind(), Kind::NotFound | Kind::Conflict)
        {
            tracing::warn!(tenant = %cluster.id, %error, "the status cannot be written");
            return Outcome { pause: pause.min(Duration::from_secs(5)), status: None };
        }
    }
    Outcome { pause, status: Some(next) }
}

async fn phases(
    context: &Context,
    cluster: &Cluster,
    hosts: &[String],
    next: &mut VirtualClusterStatus,
) -> Result<(), Halt> {
    rights::check(context, cluster).await?;
    networks::ensure(context, cluster, next).await;
    let is_ours = cluster.spec.distro.is_ours();
    if is_ours && cluster.status.backend.is_none() {
        control_plane::outlive_predecessor(context, cluster).await?;
    }
    let port = assign_port::ensure(context, cluster).await?;
    next.port = Some(port);
    let addresses = system_services::ensure(context, cluster, port).await?;
    next.api_service_ip.clone_from(&addresses.api);
    next.dns_service_ip.clone_from(&addresses.dns);
    next.service_cidr = cidr::find(context, cluster).await?;

    let service_ip = if is_ours { control_plane::ensure_services(context, cluster).await? } else { String::new() };
    let set = if is_ours { control_plane::find(context, cluster).await.during(condition::SERVICES)? } else { None };
    let running = set.as_ref().and_then(control_plane::pki_of);
    let (data, ways) = certificates(context, cluster, hosts, (&addresses.api, &service_ip), running, next).await?;
    kubeconfigs::forgo(context, cluster, next).await;
    let target = if is_ours {
        // The address, not a name: Portico does not depend on the host's cluster DNS.
        let address = control_plane::authority(&service_ip);
        next.backend = Some(BackendStatus { address, server_name: cluster.server_name() });
        let storage = storage::ensure(context, cluster, set.as_ref(), next).await?;
        let with = control_plane::Ingredients {
            service_cidr: next.service_cidr.clone(),
            service_ip: &service_ip,
            gateway_ip: &addresses.api,
            pki: &data,
            storage: &storage,
        };
        control_plane::ensure(context, cluster, with, set, next).await?;
        own_target(cluster, &service_ip, &data).during(condition::CONTROL_PLANE)?
    } else {
        storage::ensure(context, cluster, None, next).await?;
        let target = external_target(context, cluster).await?;
        let address = format!("{}:{}", target.host, target.port);
        next.backend = Some(BackendStatus { address, server_name: target.server_name.to_str().into_owned() });
        target
    };
    version(context, cluster, target, next).await?;
    store_fill::note(context, cluster, next).await;
    kubeconfigs::ensure(context, cluster, &data, &ways, next).await;
    networks::judge(context, cluster, next).await;
    Ok(())
}

/// PKI and kubeconfig, the ways that it names, and what the status says of them.
async fn certificates(
    context: &Context,
    cluster: &Cluster,
    hosts: &[String],
    (api_ip, service_ip): (&str, &str),
    running: Option<&str>,
    next: &mut VirtualClusterStatus,
) -> Result<(Data, Vec<Way>), Halt> {
    let gateway = &context.config.gateway;
    let wishes = pki::Wishes {
        id: &cluster.id,
        distro: cluster.spec.distro,
        gateway_names: pki::gateway_names(cluster, &gateway.base_domain, hosts, api_ip),
        backend_names: pki::backend_names(cluster, service_ip),
    };
    let data = pki::ensure(context, cluster, &wishes, running).await?;
    next.pki_secret = cluster.pki_secret();
    let shared_ca = listener::ensure(context).await.during(condition::CERTIFICATES)?;
    let tenant_ca = data.get(keys::SERVER_CA).map(String::as_str).unwrap_or_default();
    let ways = kubeconfig::ways(cluster, gateway, hosts, &shared_ca, tenant_ca);
    kubeconfig::ensure(context, cluster, &data, &ways).await?;
    next.kubeconfig_secret = cluster.kubeconfig_secret();
    let default_host = cluster.id.default_host(&gateway.base_domain);
    next.endpoints = ways.iter().filter(|w| w.tls_server_name.is_none()).map(|w| w.server.clone()).collect();
    if next.endpoints.is_empty() {
        next.endpoints.push(format!("https://{default_host}"));
    }
    Ok((data, ways))
}

/// Asks the backend for its version when it is unknown, was unready until now, or the spec changed.
async fn version(
    context: &Context,
    cluster: &Cluster,
    target: Target,
    next: &mut VirtualClusterStatus,
) -> Result<(), Halt> {
    let old = &cluster.status;
    let is_known = !old.version.is_empty()
        && status::is_true(old, condition::CONTROL_PLANE)
        && old.observed_generation == cluster.generation;
    if is_known && cluster.spec.distro.is_ours() {
        return Ok(());
    }
    // Without an identity our control planes answer only probes; external ones take the kubeconfig's credential.
    let assertion = if cluster.spec.distro.is_ours() { Assertion::FrontProxy } else { Assertion::Impersonate };
    match context.backends.version(target, assertion.own_identity()).await {
        Ok(version) => {
            next.version = version;
            Ok(())
        }
        Err(error) if error.kind() == Kind::Refused => Err(address_refused(&error)),
        Err(error) => {
            let message = format!("the API server does not answer: {}", error.message());
            Err(Halt::waiting(condition::CONTROL_PLANE, "NoAnswer", message))
        }
    }
}

/// The address is the cause of the refusal; whoever named the server may read what its name means to Portico.
fn address_refused(error: &Error) -> Halt {
    let address = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let message = format!(
        "the API server's address {address} is not allowed for distro external: `allowedBackends` and `deniedBackends` in \
         `policy` of Portico's configuration decide"
    );
    Halt::blocked(condition::CONTROL_PLANE, "AddressRefused", message)
}

fn own_target(cluster: &Cluster, service_ip: &str, data: &Data) -> Result<Target> {
    let text = |key: &str| data.get(key).map(String::as_bytes).unwrap_or_default();
    let (ca, chain, key) = (text(keys::SERVER_CA), text(keys::FRONT_PROXY), text(keys::FRONT_PROXY_KEY));
    let server_name = ServerName::try_from(cluster.server_name())
        .map_err(|e| Error::own(Kind::Internal, "the backend's name is not valid").because(e))?;
    Ok(Target {
        side: Side::Backend,
        host: service_ip.to_owned(),
        port: 443,
        server_name,
        tls: tls::client_config(ca, Some((chain, key)))?,
        tls_without_identity: tls::client_config(ca, None)?,
        credential: Credential::Certificate,
        path_prefix: String::new(),
        reach: Reach::default(),
    })
}

async fn external_target(context: &Context, cluster: &Cluster) -> Result<Target, Halt> {
    let blocked = |reason, message: String| Halt::blocked(condition::CONTROL_PLANE, reason, message);
    let reference = cluster.spec.backend.as_ref().map(|backend| &backend.kubeconfig_secret);
    let Some(reference) = reference.filter(|reference| !reference.name.is_empty()) else {
        return Err(blocked("NoKubeconfig", "distro external needs spec.backend.kubeconfigSecret.name".to_owned()));
    };
    let secret = context
        .host
        .get(&SECRETS, cluster.namespace(), &reference.name)
        .await
        .during(condition::CONTROL_PLANE)?
        .map(|secret| secret::data(&secret));
    let Some(text) = secret.as_ref().and_then(|data| data.get(&reference.key)) else {
        let message = format!("Secret {:?} with key {:?} does not exist", reference.name, reference.key);
        return Err(blocked("NoKubeconfig", message));
    };
    let reach = context.reaches.of(context.host.cluster(), cluster.namespace(), context.clock.instant()).await;
    let reach = reach.during(condition::CONTROL_PLANE)?;
    kubernetes::target_from_kubeconfig(text, Side::Backend, reach)
        .map_err(|error| blocked("BadKubeconfig", format!("the kubeconfig cannot be used: {}", error.message())))
}
