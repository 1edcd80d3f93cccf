//! `portico syncer`: the flags of the vcluster syncer of the 0.3 era, for manifests of that time.
//!
//! A flag that still makes sense does what it did; one that does not is accepted with a warning that says what replaced it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::create::pod_security;
use super::failure::{Failure, Outcome};
use super::output;
use crate::app::sidecar::{self, Options};
use crate::config::{LogConfig, PodSecurity, PolicyBounds, SyncerConfig};
use crate::crd::policy::{GrantedPolicy, Policy};
use crate::kubernetes::election::Timing;
use crate::sidecar::{Files, Flags};
use crate::syncer::kinds::{self, Switches};

/// Arguments of `portico syncer`.
#[derive(Debug, clap::Args)]
#[command(max_term_width = 100)]
pub(super) struct Args {
    /// The Service in front of this pod; its cluster IP is the virtual cluster's API and DNS.
    #[arg(long, default_value = "vcluster", value_name = "NAME")]
    service_name: String,
    /// Last part of every host object's name: the name of the virtual cluster.
    #[arg(long, default_value = "suffix", value_name = "NAME")]
    suffix: String,
    /// The StatefulSet that owns everything that is made, so that it goes with it.
    #[arg(long, default_value = "", value_name = "NAME")]
    owning_statefulset: String,
    /// Secret that the kubeconfig is written to; empty: none.
    #[arg(long, default_value = "kubeconfig", value_name = "NAME")]
    out_kube_config_secret: String,
    /// Further names and IPs in the serving certificate; repeatable, or separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    tls_san: Vec<String>,
    /// Namespace of the synced objects; default: that of this pod.
    #[arg(long, default_value = "", value_name = "NAMESPACE")]
    target_namespace: String,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    bind_address: IpAddr,
    /// Port of the API; DNS is served on the next one.
    #[arg(long, default_value_t = 8443, value_parser = clap::value_parser!(u16).range(1..=65534))]
    port: u16,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    sync: SyncArgs,
    #[command(flatten)]
    lock: LockArgs,
    /// Where /livez and /readyz?verbose are served, as plain HTTP.
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "IP:PORT")]
    admin_address: SocketAddr,
    /// Where /metrics is served, as plain HTTP and without authentication.
    #[arg(long, default_value = "127.0.0.1:9091", value_name = "IP:PORT")]
    metrics_address: SocketAddr,
    /// `tracing` filter directives.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    log_filter: String,
    #[command(flatten)]
    obsolete: ObsoleteArgs,
}

/// Where k3s keeps what Portico needs.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Files of k3s")]
struct FileArgs {
    /// Admin kubeconfig of k3s.
    #[arg(long, default_value = "/data/server/cred/admin.kubeconfig", value_name = "FILE")]
    kube_config: PathBuf,
    /// CA of serving certificates.
    #[arg(long, default_value = "/data/server/tls/server-ca.crt", value_name = "FILE")]
    server_ca_cert: PathBuf,
    /// Its key.
    #[arg(long, default_value = "/data/server/tls/server-ca.key", value_name = "FILE")]
    server_ca_key: PathBuf,
    /// CA of client certificates; its key lies beside it.
    #[arg(long, default_value = "/data/server/tls/client-ca.crt", value_name = "FILE")]
    client_ca_cert: PathBuf,
    /// CA of front proxies. Its folder counts: client-auth-proxy.crt and .key lie there.
    #[arg(long, default_value = "/data/server/tls/request-header-ca.crt", value_name = "FILE")]
    request_header_ca_cert: PathBuf,
}

/// What is synced, and how.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sync")]
struct SyncArgs {
    /// Kinds that stay in the virtual cluster, such as `ingresses,secrets`.
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    disable_sync_resources: Vec<String>,
    /// Replaces an image on the way to the host; repeatable.
    #[arg(long, value_delimiter = ',', value_name = "FROM=TO", value_parser = pair)]
    translate_image: Vec<(String, String)>,
    /// Only host nodes with these labels are shown and used: `a=b,c=d`.
    #[arg(long, value_delimiter = ',', value_name = "LABELS", value_parser = pair)]
    node_selector: Vec<(String, String)>,
    /// `false`: as if --node-selector were not given.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enforce_node_selector: bool,
    /// Host ServiceAccount of the synced pods; its token is never mounted.
    #[arg(long, default_value = "", value_name = "NAME")]
    service_account: String,
    /// DNS domain of the virtual cluster.
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    cluster_domain: String,
    /// What pods may be: `baseline`, `restricted` or `privileged` (vcluster: whatever the host allows).
    #[arg(long, default_value = "baseline", value_name = "STANDARD", value_parser = pod_security)]
    pod_security: PodSecurity,
    /// What the virtual cluster's objects may ask of the host: the fields of `policy` in docs/config.md, as
    /// `{ingressDomains: ["*.example.com"]}` or in a YAML file.
    #[arg(long, value_name = "YAML|FILE")]
    policy: Option<String>,
}

/// The lock between replicas.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Lock between replicas, in seconds")]
struct LockArgs {
    /// A lock that stood unchanged for this long may be taken.
    #[arg(long, default_value_t = 60, value_parser = seconds())]
    lease_duration: u64,
    /// A leader that could not renew for this long gives up.
    #[arg(long, default_value_t = 40, value_parser = seconds())]
    renew_deadline: u64,
    /// Pause between tries.
    #[arg(long, default_value_t = 15, value_parser = seconds())]
    retry_period: u64,
}

/// Flags of vcluster that say nothing to Portico.
#[derive(Debug, Default, clap::Args)]
struct ObsoleteArgs {
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sync_all_nodes: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sync_node_changes: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    fake_nodes: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    fake_kubelets: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    fake_persistent_volumes: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_storage_classes: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_priority_classes: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    override_hosts: Option<String>,
    #[arg(long, hide = true)]
    override_hosts_container_image: Option<String>,
}

impl ObsoleteArgs {
    /// Name, and what replaced it, of each that was given.
    fn warnings(&self) -> Vec<String> {
        let shown = "real nodes are shown as soon as the ServiceAccount may list and watch nodes; without that right they are made up from the pods";
        let classes = "classes are shown as soon as the ServiceAccount may list and watch them";
        let hosts = "hostname.subdomain is answered by Portico's DNS, without an init container";
        [
            ("sync-all-nodes", &self.sync_all_nodes, shown),
            ("sync-node-changes", &self.sync_node_changes, "changes of a node in the virtual cluster stay there"),
            ("fake-nodes", &self.fake_nodes, shown),
            (
                "fake-kubelets",
                &self.fake_kubelets,
                "exec, logs and port-forward go to the host's API server, no kubelet is needed",
            ),
            (
                "fake-persistent-volumes",
                &self.fake_persistent_volumes,
                "volumes are shown with size and class, real ones where the ServiceAccount may read them",
            ),
            ("enable-storage-classes", &self.enable_storage_classes, classes),
            ("enable-priority-classes", &self.enable_priority_classes, classes),
            ("override-hosts", &self.override_hosts, hosts),
            ("override-hosts-container-image", &self.override_hosts_container_image, hosts),
        ]
        .into_iter()
        .filter(|(_, given, _)| given.is_some())
        .map(|(name, _, instead)| format!("warning: --{name} has no effect any more: {instead}"))
        .collect()
    }
}

/// Runs until it is stopped.
pub(super) fn run(host_kubeconfig: Option<&Path>, args: Args) -> Outcome<()> {
    for warning in args.obsolete.warnings() {
        output::note(&warning);
    }
    let mut options = options(args)?;
    options.host_kubeconfig = host_kubeconfig.map(|path| path.display().to_string()).unwrap_or_default();
    sidecar::run(options).map_err(|e| Failure::new(format!("{e:#}"), "compare the flags with `portico syncer --help`"))
}

fn options(args: Args) -> Outcome<Options> {
    let seconds = Duration::from_secs;
    let timing = Timing {
        duration: seconds(args.lock.lease_duration),
        renew_deadline: seconds(args.lock.renew_deadline),
        retry: seconds(args.lock.retry_period),
    };
    if timing.renew_deadline + seconds(3) > timing.duration || timing.retry >= timing.renew_deadline {
        return Err(Failure::new(
            "--lease-duration, --renew-deadline and --retry-period do not fit together",
            "the duration must be more than 3 s above the deadline, and the deadline above the retry period: 60, 40, 15",
        ));
    }
    let selector = if args.sync.enforce_node_selector { args.sync.node_selector } else { Vec::new() };
    Ok(Options {
        host_kubeconfig: String::new(),
        target_namespace: args.target_namespace,
        suffix: args.suffix,
        flags: Flags {
            service: args.service_name,
            owning_stateful_set: args.owning_statefulset,
            kubeconfig_secret: args.out_kube_config_secret,
            tls_sans: args.tls_san,
            files: Files {
                kubeconfig: args.files.kube_config,
                server_ca: args.files.server_ca_cert,
                server_ca_key: args.files.server_ca_key,
                client_ca: args.files.client_ca_cert,
                request_header_ca: args.files.request_header_ca_cert,
            },
            cluster_domain: args.sync.cluster_domain,
            service_account: args.sync.service_account,
            policy: policy(args.sync.policy.as_deref().unwrap_or("{}"), args.sync.pod_security)?,
        },
        listen: (args.bind_address, args.port),
        admin: args.admin_address,
        metrics: args.metrics_address,
        disabled: disabled(&args.sync.disable_sync_resources)?,
        syncer: SyncerConfig {
            translate_images: args.sync.translate_image.into_iter().collect(),
            node_selector: selector.into_iter().collect(),
            ..SyncerConfig::default()
        },
        timing,
        log: LogConfig { filter: args.log_filter, ..LogConfig::default() },
    })
}

/// What is not said is the default; the Pod Security Standard is the other flag's, whatever is said here.
fn policy(given: &str, pod_security: PodSecurity) -> Outcome<GrantedPolicy> {
    let failure =
        |what: String| Failure::new(format!("--policy: {what}"), "write the fields of `policy` in docs/config.md");
    let text = match given.trim_start().starts_with('{') {
        true => given.to_owned(),
        false => std::fs::read_to_string(given).map_err(|e| failure(format!("{given}: {e}")))?,
    };
    let bounds: PolicyBounds = serde_saphyr::from_str(&text).map_err(|e| failure(e.to_string()))?;
    if let Some(fault) = bounds.fault() {
        return Err(failure(fault));
    }
    let asked = Policy { pod_security: Some(pod_security), ..Policy::default() };
    Ok(GrantedPolicy::of(PolicyBounds { pod_security, ..bounds }, asked))
}

/// More than an hour is no time for a lock, and none at all no pause.
fn seconds() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=3600)
}

/// Kinds by the plural names that people write.
fn disabled(names: &[String]) -> Outcome<BTreeSet<String>> {
    let known = kinds::all(&Switches::default());
    names
        .iter()
        .map(|name| {
            let resource = known.iter().map(|kind| kind.resource()).find(|resource| resource.plural == name.as_str());
            resource.filter(|r| r.kind != "Namespace").map(|resource| resource.kind.to_owned()).ok_or_else(|| {
                let plurals: Vec<&str> =
                    known.iter().map(|kind| kind.resource().plural).filter(|p| *p != "namespaces").collect();
                Failure::new(
                    format!("--disable-sync-resources: {name:?} is not synced anyway"),
                    format!("choose of: {}", plurals.join(", ")),
                )
            })
        })
        .collect()
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as A=B".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(flags: &[&str]) -> Args {
        Line::try_parse_from([&["syncer"], flags].concat()).expect("valid").args
    }

    #[test]
    fn the_original_manifests_flags() {
        let args = parsed(&[
            "--service-name=dev-cluster",
            "--suffix=dev-cluster",
            "--owning-statefulset=dev-cluster",
            "--out-kube-config-secret=dev-cluster",
            "--tls-san=192.168.199.77",
        ]);
        let options = options(args).expect("usable");
        assert_eq!(options.listen, ("0.0.0.0".parse().expect("ip"), 8443));
        assert_eq!(options.flags.tls_sans, ["192.168.199.77"]);
        assert_eq!(options.timing.duration, Duration::from_secs(60));
        assert_eq!(options.flags.policy.pod_security(), PodSecurity::Baseline);
    }

    #[test]
    fn an_obsolete_flag_says_what_replaced_it() {
        let args = parsed(&["--fake-nodes=false", "--sync-all-nodes", "--override-hosts-container-image=alpine:3"]);
        let warnings = args.obsolete.warnings();
        assert_eq!(warnings.len(), 3);
        assert!(warnings.iter().any(|w| w.contains("--sync-all-nodes") && w.contains("may list and watch nodes")));
    }

    #[test]
    fn an_unknown_flag_names_the_nearest() {
        let error = Line::try_parse_from(["syncer", "--service-nam=x"]).expect_err("unknown");
        assert!(error.to_string().contains("--service-name"), "{error}");
    }

    #[test]
    fn times_and_ports_that_cannot_be_are_refused() {
        for flag in [
            "--renew-deadline=18446744073709551615",
            "--retry-period=0",
            "--lease-duration=3601",
            "--port=0",
            "--port=65535",
        ] {
            assert!(Line::try_parse_from(["syncer", flag]).is_err(), "{flag}");
        }
    }

    #[test]
    fn flags_that_cannot_work_say_what_to_do() {
        let refused = |flags: &[&str]| options(parsed(flags)).expect_err("refused");
        assert!(refused(&["--lease-duration=10"]).hint().contains("60, 40, 15"));
        assert!(refused(&["--disable-sync-resources=namespaces"]).hint().contains("ingresses"));
        let ok = options(parsed(&["--disable-sync-resources=ingresses,secrets", "--translate-image=a=b,c=d"]));
        let ok = ok.expect("usable");
        assert!(ok.disabled.contains("Ingress") && ok.disabled.contains("Secret"));
        assert_eq!(ok.syncer.translate_images.len(), 2);
        let off = options(parsed(&["--node-selector=a=b", "--enforce-node-selector=false"])).expect("usable");
        assert!(off.syncer.node_selector.is_empty());
    }
}
