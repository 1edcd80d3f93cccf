//! `portico create`: the namespace, Portico's rights in it, the VirtualCluster, and the wait until it is ready.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::api::{Api, PostParams};
use kube::core::ObjectMeta;
use tokio::time::{Instant, sleep};

use super::access::{self, PorticoArgs};
use super::cluster;
use super::failure::{Failure, Outcome};
use super::host::HostArgs;
use super::output;
use super::progress::{self, POLL, Progress};
use crate::crd::{
    DatastoreSecret, Distro, ExternalBackend, MAX_REPLICAS, PodSecurity, SecretKey, VirtualCluster, VirtualClusterSpec,
    VolumeClaim,
};
use crate::names::ClusterName;

/// Arguments of `portico create`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name: lower-case letters, digits and '-', beginning with a letter, at most 40 characters.
    name: String,
    /// Do not wait until it is ready.
    #[arg(long)]
    no_wait: bool,
    /// Wait until it is ready (the default).
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "5m", value_parser = progress::duration, value_name = "DURATION")]
    timeout: Duration,
    /// Create the host namespace if it is missing.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    create_namespace: bool,
    /// Print what would be created and stop.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    portico: PorticoArgs,
}

/// What becomes the spec; flags win over the file.
#[derive(Debug, Default, clap::Args)]
struct SpecArgs {
    /// VirtualCluster manifest, or its spec alone, as YAML; '-' reads stdin.
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// SNI name of the API server beside the one every cluster has; may be given again.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Keep the control plane's data in a volume of this size; without it in one of 5Gi, where the host has a default
    /// StorageClass.
    #[arg(long, value_name = "SIZE")]
    storage: Option<String>,
    /// StorageClass of that volume.
    #[arg(long, value_name = "NAME", requires = "storage")]
    storage_class: Option<String>,
    /// Keep the control plane's data in its pod alone: all that is in the cluster is lost with that pod.
    #[arg(long, conflicts_with_all = ["storage", "datastore_secret", "backend_secret"])]
    ephemeral: bool,
    /// Cluster IP of the API: for a cluster that moves here with pods that know its address.
    #[arg(long, value_name = "IP")]
    service_ip: Option<std::net::IpAddr>,
    /// Pod Security Standard that pods must meet.
    #[arg(long, value_name = "LEVEL", value_parser = pod_security)]
    pod_security: Option<PodSecurity>,
    /// Secret with the database of the control plane: its address under the key `endpoint`; for TLS `ca.crt`, and
    /// `tls.crt` with `tls.key`.
    #[arg(long, value_name = "SECRET", conflicts_with = "storage")]
    datastore_secret: Option<String>,
    /// Control planes that run at once; more than one need a database.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=i64::from(MAX_REPLICAS)))]
    replicas: Option<i32>,
    /// Control plane: k8s (made by Portico), k3s or external (an API server that already runs).
    #[arg(long, value_name = "DISTRO", value_parser = distro)]
    distro: Option<Distro>,
    /// Version of k3s: its image's tag, for instance v1.34.4-k3s1.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Secret with a kubeconfig of the external API server (key `config`).
    #[arg(long, value_name = "SECRET")]
    backend_secret: Option<String>,
    /// Image of the control plane.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
}

pub(super) async fn run(host: &HostArgs, args: Args) -> Outcome<()> {
    if let Err(error) = ClusterName::parse(&args.name) {
        return Err(Failure::new(error.to_string(), "choose another name, for instance: portico create dev"));
    }
    let spec = args.spec.build(read_document)?;
    if args.dry_run {
        let namespace = match host.named_namespace() {
            Some(namespace) => namespace.to_owned(),
            None => host.connect().await?.namespace,
        };
        return print_plan(&namespace, &args, spec);
    }
    let host = host.connect().await?;
    let api: Api<VirtualCluster> = Api::namespaced(host.client.clone(), &host.namespace);
    access::ensure_namespace(&host.client, &host.namespace, args.create_namespace).await?;
    access::ensure_binding(&host.client, &host.namespace, &args.portico).await?;
    submit(&api, &object(&host.namespace, &args.name, spec)).await?;
    if args.no_wait {
        // What becomes of a spec without a word about it, the operator decides: describe says it.
        if args.spec.ephemeral {
            output::note("WARNING: the data is lost with the control plane's pod, as --ephemeral asks");
        }
        output::note(&format!("portico describe {} -n {} shows how far it is", args.name, host.namespace));
        return Ok(());
    }
    let started = Instant::now();
    let made = wait_ready(&api, &host.namespace, &args).await?;
    output::line(&format!("virtual cluster {} is ready ({:.0?})", args.name, started.elapsed()));
    if let Some(durability) = cluster::durability(&made) {
        output::note(&durability);
    }
    output::note(&format!("next: portico connect {} -n {} -- kubectl get namespaces", args.name, host.namespace));
    Ok(())
}

fn object(namespace: &str, name: &str, spec: VirtualClusterSpec) -> VirtualCluster {
    let mut cluster = VirtualCluster::new(name, spec);
    cluster.metadata =
        ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() };
    cluster
}

fn print_plan(namespace: &str, args: &Args, spec: VirtualClusterSpec) -> Outcome<()> {
    let mut documents = Vec::new();
    if args.create_namespace {
        documents.push(output::yaml(&access::namespace(namespace))?);
    }
    documents.push(output::yaml(&access::role_binding(namespace, &args.portico))?);
    documents.push(output::yaml(&object(namespace, &args.name, spec))?);
    output::text(&documents.join("---\n"));
    Ok(())
}

async fn submit(api: &Api<VirtualCluster>, wanted: &VirtualCluster) -> Outcome<()> {
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    let namespace = wanted.metadata.namespace.as_deref().unwrap_or_default();
    match api.create(&PostParams::default(), wanted).await {
        Ok(_) => {
            output::note(&format!("virtual cluster {name} created in namespace {namespace}"));
            Ok(())
        }
        Err(error) if access::is_code(&error, 409) => {
            let found = cluster::get(api, namespace, name).await?;
            if found.metadata.deletion_timestamp.is_some() {
                return Err(Failure::new(
                    format!("virtual cluster {name} in namespace {namespace} is being deleted"),
                    format!("wait until it is gone and run again: portico delete {name} -n {namespace}"),
                ));
            }
            let kept = if found.spec == wanted.spec {
                ""
            } else {
                "; its spec differs from your flags and was left as it is (kubectl edit virtualcluster changes it)"
            };
            output::note(&format!("virtual cluster {name} already exists in namespace {namespace}{kept}"));
            Ok(())
        }
        Err(error) => Err(Failure::api(&format!("create virtual cluster {name} in namespace {namespace}"), &error)),
    }
}

async fn wait_ready(api: &Api<VirtualCluster>, namespace: &str, args: &Args) -> Outcome<VirtualCluster> {
    let deadline = Instant::now() + args.timeout;
    let mut progress = Progress::start();
    loop {
        let found = cluster::get(api, namespace, &args.name).await?;
        if cluster::is_ready(&found) {
            return Ok(found);
        }
        let message = cluster::message(&found);
        if cluster::has_failed(&found) {
            return Err(Failure::new(
                format!("virtual cluster {} cannot be made: {message}", args.name),
                format!("mend what is named above, or look closer: portico describe {} -n {namespace}", args.name),
            ));
        }
        if Instant::now() >= deadline {
            return Err(not_in_time(namespace, args, &found, &message));
        }
        progress.say(&message);
        sleep(POLL).await;
    }
}

fn not_in_time(namespace: &str, args: &Args, found: &VirtualCluster, message: &str) -> Failure {
    let what = format!("virtual cluster {} is not ready after {:?}: {message}", args.name, args.timeout);
    let unseen = found.status.as_ref().is_none_or(|s| s.observed_generation == 0);
    if unseen {
        let system = &args.portico.portico_namespace;
        return Failure::timeout(
            what,
            format!(
                "no operator has looked at it: kubectl -n {system} get pods; and has Portico its rights here? kubectl -n {namespace} get rolebinding portico"
            ),
        );
    }
    Failure::timeout(
        what,
        format!(
            "it goes on without this command: portico describe {} -n {namespace}; kubectl -n {namespace} get pods,events",
            args.name
        ),
    )
}

impl SpecArgs {
    fn build(&self, read: impl Fn(&Path) -> Outcome<String>) -> Outcome<VirtualClusterSpec> {
        let mut spec = match &self.file {
            Some(path) => parse_document(path, &read(path)?)?,
            None => VirtualClusterSpec::default(),
        };
        spec.expose.hosts.extend(self.hosts.iter().cloned());
        if let Some(size) = &self.storage {
            let class = self.storage_class.clone().unwrap_or_default();
            spec.storage.volume_claim = Some(VolumeClaim { size: size.clone(), class });
            spec.storage.ephemeral = false;
        }
        if self.ephemeral {
            spec.storage.ephemeral = true;
            spec.storage.volume_claim = None;
        }
        if let Some(name) = &self.datastore_secret {
            let secret = DatastoreSecret { secret_name: name.clone(), ..DatastoreSecret::default() };
            spec.storage.datastore_endpoint = Some(secret);
        }
        spec.replicas = self.replicas.unwrap_or(spec.replicas);
        if let Some(address) = self.service_ip {
            spec.network.service_ip = address.to_string();
        }
        if let Some(level) = self.pod_security {
            spec.policy.pod_security = Some(level);
        }
        if let Some(distro) = self.distro {
            spec.distro = distro;
        }
        if let Some(image) = &self.image {
            spec.image.clone_from(image);
        }
        if let Some(version) = &self.version {
            spec.version.clone_from(version);
        }
        if let Some(name) = &self.backend_secret {
            spec.distro = self.distro.unwrap_or(Distro::External);
            spec.backend =
                Some(ExternalBackend { kubeconfig_secret: SecretKey { name: name.clone(), ..SecretKey::default() } });
        }
        check(&spec)?;
        Ok(spec)
    }
}

/// What the API server would refuse anyway, before anything is made.
fn check(spec: &VirtualClusterSpec) -> Outcome<()> {
    let refuse = |what: &str, hint: &str| Err(Failure::new(what, hint));
    let has_database = spec.storage.datastore_endpoint.is_some();
    match (spec.distro, spec.backend.is_some()) {
        (Distro::External, false) => {
            return refuse(
                "an external virtual cluster needs the kubeconfig of its API server",
                "put it in a Secret (kubectl create secret generic NAME --from-file=config=FILE) and give --backend-secret NAME",
            );
        }
        (Distro::K8s | Distro::K3s, true) => {
            return refuse("--backend-secret is for --distro external only", "leave one of them out");
        }
        _ => {}
    }
    if spec.distro == Distro::External && has_database {
        return refuse("an external virtual cluster keeps its own data", "leave --datastore-secret out");
    }
    if spec.storage.ephemeral && (has_database || spec.storage.volume_claim.is_some()) {
        return refuse(
            "storage.ephemeral keeps the data in the pod alone, and the same spec names a volume or a database",
            "leave one of them out; without both the data is on a volume of the default StorageClass",
        );
    }
    if spec.storage.ephemeral && spec.distro == Distro::External {
        return refuse("an external virtual cluster keeps its own data", "leave --ephemeral out");
    }
    if spec.replicas > 1 && !has_database {
        return refuse(
            "more than one replica need a database that they share",
            "put its address in a Secret (kubectl create secret generic NAME --from-literal=endpoint=ADDRESS) and give --datastore-secret NAME",
        );
    }
    if spec.distro != Distro::K3s && !spec.version.is_empty() {
        return refuse("--version is for --distro k3s only", "choose the control plane of --distro k8s by --image");
    }
    Ok(())
}

fn read_document(path: &Path) -> Outcome<String> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|e| Failure::new(format!("{} cannot be read: {e}", path.display()), "check the path of -f"))
}

fn parse_document(path: &Path, text: &str) -> Outcome<VirtualClusterSpec> {
    let unreadable = |e: &dyn std::fmt::Display| {
        Failure::new(
            format!("{} is no VirtualCluster: {e}", path.display()),
            "write a manifest of kind VirtualCluster or its spec alone; `portico create NAME --dry-run` shows one",
        )
    };
    let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|e| unreadable(&e))?;
    let spec = match value.get("kind").and_then(serde_json::Value::as_str) {
        Some("VirtualCluster") => value.get("spec").cloned().unwrap_or_else(|| serde_json::json!({})),
        Some(other) => return Err(unreadable(&format!("it is of kind {other}"))),
        None => value,
    };
    serde_json::from_value(spec).map_err(|e| unreadable(&e))
}

pub(super) fn pod_security(text: &str) -> Result<PodSecurity, String> {
    parse_lowercase(text, "baseline, restricted or privileged")
}

fn distro(text: &str) -> Result<Distro, String> {
    parse_lowercase(text, "k8s, k3s or external")
}

fn parse_lowercase<T: serde::de::DeserializeOwned>(text: &str, choices: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|_| format!("choose {choices}"))
}

#[cfg(test)]
mod tests;
