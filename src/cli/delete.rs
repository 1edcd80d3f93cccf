//! `portico delete`: the VirtualCluster, and the wait until nothing of it is left in its namespace.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::{Client, ResourceExt as _};
use tokio::time::{Instant, sleep};

use super::access::is_code;
use super::cluster;
use super::failure::{Failure, Outcome};
use super::host::{Host, HostArgs};
use super::output;
use super::progress::{self, POLL, Progress};
use crate::crd::VirtualCluster;
use crate::names::keys;

/// Arguments of `portico delete`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Virtual cluster.
    name: String,
    /// Do not wait until everything is gone.
    #[arg(long)]
    no_wait: bool,
    /// Wait until everything is gone (the default).
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "5m", value_parser = progress::duration, value_name = "DURATION")]
    timeout: Duration,
    /// A cluster that does not exist is no failure.
    #[arg(long)]
    ignore_not_found: bool,
    /// Delete the host namespace too, with everything in it.
    #[arg(long)]
    delete_namespace: bool,
}

/// Kinds of which Portico makes host objects: API group, kind, plural.
const KINDS: [(&str, &str, &str); 14] = [
    ("", "Pod", "pods"),
    ("", "Service", "services"),
    ("", "Endpoints", "endpoints"),
    ("", "ConfigMap", "configmaps"),
    ("", "Secret", "secrets"),
    ("", "ServiceAccount", "serviceaccounts"),
    ("", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("apps", "StatefulSet", "statefulsets"),
    ("apps", "Deployment", "deployments"),
    ("discovery.k8s.io", "EndpointSlice", "endpointslices"),
    ("networking.k8s.io", "Ingress", "ingresses"),
    ("networking.k8s.io", "NetworkPolicy", "networkpolicies"),
    ("rbac.authorization.k8s.io", "Role", "roles"),
    ("rbac.authorization.k8s.io", "RoleBinding", "rolebindings"),
];

pub(super) async fn run(host: &HostArgs, args: Args) -> Outcome<()> {
    let host = host.connect().await?;
    let deadline = Instant::now() + args.timeout;
    let existed = submit(&host, &args).await?;
    if args.no_wait {
        if args.delete_namespace {
            delete_namespace(&host).await?;
        }
        return Ok(());
    }
    if existed {
        wait_gone(&host, &args, deadline).await?;
    }
    if args.delete_namespace {
        delete_namespace(&host).await?;
        wait_namespace_gone(&host, &args, deadline).await?;
        output::line(&format!("namespace {} is gone", host.namespace));
    }
    if existed {
        output::line(&format!("virtual cluster {} is gone", args.name));
    }
    Ok(())
}

async fn submit(host: &Host, args: &Args) -> Outcome<bool> {
    let api: Api<VirtualCluster> = Api::namespaced(host.client.clone(), &host.namespace);
    let action = format!("delete virtual cluster {} in namespace {}", args.name, host.namespace);
    match api.delete(&args.name, &DeleteParams::background()).await {
        Ok(_) => {
            output::note(&format!("deleting virtual cluster {} in namespace {}", args.name, host.namespace));
            Ok(true)
        }
        Err(error) => {
            let failure = Failure::api(&action, &error);
            match (failure.is_not_found(), args.ignore_not_found) {
                (true, true) => Ok(false),
                (true, false) => Err(cluster::missing(&host.namespace, &args.name)),
                (false, _) => Err(failure),
            }
        }
    }
}

async fn wait_gone(host: &Host, args: &Args, deadline: Instant) -> Outcome<()> {
    let api: Api<VirtualCluster> = Api::namespaced(host.client.clone(), &host.namespace);
    let mut progress = Progress::start();
    loop {
        let object = api.get_opt(&args.name).await.map_err(|e| Failure::api("watch the deletion", &e))?;
        let left = match object {
            Some(_) => vec![format!("virtualcluster/{}", args.name)],
            None => leftovers(&host.client, &host.namespace, &args.name).await?,
        };
        let Some(first) = left.first() else { return Ok(()) };
        let message = format!("waiting for {first}{}", others(left.len() - 1));
        if Instant::now() >= deadline {
            return Err(Failure::timeout(
                format!("virtual cluster {} is not gone after {:?}: {message}", args.name, args.timeout),
                format!(
                    "see what holds it: kubectl -n {} get {first} -o yaml (finalizers, ownerReferences)",
                    host.namespace
                ),
            ));
        }
        progress.say(&message);
        sleep(POLL).await;
    }
}

fn others(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => " and one more object".to_owned(),
        n => format!(" and {n} more objects"),
    }
}

/// Host objects that carry this cluster's labels, of the kinds that the user may list.
async fn leftovers(client: &Client, namespace: &str, name: &str) -> Outcome<Vec<String>> {
    let mut left = Vec::new();
    for (group, kind, plural) in KINDS {
        let version = "v1".to_owned();
        let api_version = if group.is_empty() { version.clone() } else { format!("{group}/v1") };
        let resource =
            ApiResource { group: group.into(), version, api_version, kind: kind.into(), plural: plural.into() };
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        for label in [keys::CLUSTER, keys::CONTROL_PLANE] {
            let selector = ListParams::default().labels(&format!("{label}={name}"));
            match api.list_metadata(&selector).await {
                Ok(found) => left.extend(found.items.iter().map(|o| format!("{plural}/{}", o.name_any()))),
                Err(error) if is_code(&error, 403) || is_code(&error, 404) => {}
                Err(error) => return Err(Failure::api(&format!("list {plural}"), &error)),
            }
        }
    }
    Ok(left)
}

async fn delete_namespace(host: &Host) -> Outcome<()> {
    let api: Api<Namespace> = Api::all(host.client.clone());
    match api.delete(&host.namespace, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(error) if is_code(&error, 404) || is_code(&error, 409) => Ok(()),
        Err(error) => Err(Failure::api(&format!("delete namespace {}", host.namespace), &error)),
    }
}

async fn wait_namespace_gone(host: &Host, args: &Args, deadline: Instant) -> Outcome<()> {
    let api: Api<Namespace> = Api::all(host.client.clone());
    let mut progress = Progress::start();
    loop {
        let found = api.get_opt(&host.namespace).await.map_err(|e| Failure::api("watch the deletion", &e))?;
        if found.is_none() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Failure::timeout(
                format!("namespace {} is not gone after {:?}", host.namespace, args.timeout),
                format!("its status says what is left: kubectl get namespace {} -o yaml", host.namespace),
            ));
        }
        progress.say(&format!("waiting for namespace {} to end", host.namespace));
        sleep(POLL).await;
    }
}
