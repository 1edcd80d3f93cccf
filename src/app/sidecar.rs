//! Wiring of `portico syncer`: one virtual cluster beside its k3s, from the same planes as `portico serve`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt;
use serde_json::Value;
use tokio::sync::watch;

use super::ending::{end, stopped};
use super::leader::{self, Standing};
use super::planes::Planes;
use super::{process, to_its_end};
use crate::admin;
use crate::config::{DnsConfig, GatewayConfig, HostConfig, LogConfig, Span, SyncerConfig};
use crate::gateway;
use crate::kubernetes::ApiClient;
use crate::kubernetes::election::{Candidate, Lock, Owners, Timing};
use crate::kubernetes::rights::{Access, Question, Rules};
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::runtime::drain::{self, Drain};
use crate::runtime::task::Task;
use crate::runtime::watched::IfDown;
use crate::sidecar::{self, OwnPod, Settings, State};
use crate::syncer::kinds::Switches;
use crate::syncer::{self, OwnPlace};
use crate::tenant::Registry;
use crate::translate::identity;
use crate::upstream::reach::Closed;

/// With the drain less than the ten seconds that the original manifest gives a pod to end.
const DELAY: Duration = Duration::from_secs(2);
const DRAIN: Duration = Duration::from_secs(6);
/// As vcluster's manifests set it.
const NAMESPACE_VARIABLE: &str = "NAMESPACE";
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What the flags say, parsed.
#[derive(Debug, Clone)]
pub struct Options {
    /// Kubeconfig of the host; empty: the pod's ServiceAccount.
    pub host_kubeconfig: String,
    /// Namespace of the synced objects; empty: this pod's.
    pub target_namespace: String,
    /// Last part of every host name.
    pub suffix: String,
    /// Passed on as they are.
    pub flags: sidecar::Flags,
    /// Address and port of the API.
    pub listen: (IpAddr, u16),
    /// Health.
    pub admin: SocketAddr,
    /// Metrics, open to whoever reaches it: a namespaced Role cannot ask the host about tokens.
    pub metrics: SocketAddr,
    /// Kinds that are not synced.
    pub disabled: BTreeSet<String>,
    /// See [`SyncerConfig`].
    pub syncer: SyncerConfig,
    /// Of the lock.
    pub timing: Timing,
    /// Logging.
    pub log: LogConfig,
}

/// Runs until SIGTERM or SIGINT; returns after the drain.
pub fn run(options: Options) -> anyhow::Result<()> {
    to_its_end(serve(options))
}

/// What this form adds to the planes.
struct Common {
    planes: Planes,
    /// The host cluster, with the rights of the pod.
    host: ApiClient,
    options: Options,
    settings: Settings,
    own_pod: Option<OwnPod>,
    access: Access,
    state: State,
}

async fn serve(options: Options) -> anyhow::Result<()> {
    let planes = Planes::new(&options.log)?;
    let host = planes.host(&HostConfig { kubeconfig: options.host_kubeconfig.clone(), ..HostConfig::default() })?;
    let settings = settings(&options)?;
    let (trigger, drain) = drain::channel();
    let admin = admin::run(planes.admin(options.admin, options.metrics, admin::Access::Open), &drain).await?;
    if !admin.metrics.ip().is_loopback() {
        tracing::warn!(address = %admin.metrics, "whoever reaches this address may read the metrics");
    }
    let awaited = planes.readiness.await_for("host", "the host API server did not answer yet");
    let question = Question {
        host: host.layered(),
        namespace: settings.id.namespace().to_string(),
        cluster: sidecar::cluster_resources(),
    };
    let asked = tokio::select! {
        asked = ask_host(&question, &settings, &planes.clock) => asked,
        stopped = stopped() => return stopped,
    };
    let (rules, own_pod, version) = asked;
    drop(awaited);
    let (sender, rules) = watch::channel(Arc::new(rules));
    let access = Access::followed(rules);
    let common = Common { planes, host, options, settings, own_pod, access, state: State::default() };
    tell(&common);
    let mut tasks = rights(&common, question, sender, &drain);
    tasks.push(tenant(&common, &drain));
    tasks.extend(gateway(&common, &drain).await?);
    tasks.push(syncer(&common, version, &drain));
    drop(drain);
    tracing::info!(health = %admin.probes, metrics = %admin.metrics, id = %common.settings.id, "serving");
    stopped().await?;
    end(trigger, DELAY, DRAIN).await?;
    drop(tasks);
    Ok(())
}

fn settings(options: &Options) -> anyhow::Result<Settings> {
    let namespace = process::namespace(&["POD_NAMESPACE", NAMESPACE_VARIABLE]).context(
        "the namespace of this pod is not known: set the variable NAMESPACE, or run in a pod with a ServiceAccount",
    )?;
    let target = if options.target_namespace.is_empty() { &namespace } else { &options.target_namespace };
    let id = TenantId::parse(target, &options.suffix).context("--suffix or --target-namespace cannot be used")?;
    Ok(Settings { id, namespace: namespace.clone(), port: options.listen.1, flags: options.flags.clone() })
}

/// What must be known before anything begins: rights, the own pod, the host's version.
async fn ask_host(question: &Question, settings: &Settings, clock: &Clock) -> (Rules, Option<OwnPod>, String) {
    loop {
        let asked = async {
            let rules = question.ask().await?;
            let own = match process::pod_name() {
                Some(name) => sidecar::own_pod(&question.host, &settings.namespace, &name).await?,
                None => None,
            };
            let version = question.host.get_path("/version", Duration::from_secs(10)).await?;
            let version: Value = serde_json::from_slice(&version).unwrap_or_default();
            Ok::<_, crate::error::Error>((rules, own, version["gitVersion"].as_str().unwrap_or_default().to_owned()))
        };
        match asked.await {
            Ok(answer) => return answer,
            Err(error) => {
                tracing::warn!(%error, "the host API server does not answer yet");
                tokio::time::sleep(clock.jitter(ASK_AGAIN)).await;
            }
        }
    }
}

fn tell(common: &Common) {
    let readiness = &common.planes.readiness;
    let state = common.state.clone();
    readiness.check("tenant", move || state.problem());
    let access = common.access.clone();
    readiness.check("rights", move || sidecar::lacks_essentials(&access));
    let (access, state) = (common.access.clone(), common.state.clone());
    let lock = lock_name(&common.settings);
    readiness.note(move || {
        let mut lines = sidecar::missing_rights(&access);
        lines.push(format!("lock: ConfigMap {lock}"));
        lines.extend(state.notes());
        lines
    });
}

/// What may be done on the host, asked again and again.
fn rights(common: &Common, question: Question, known: watch::Sender<Arc<Rules>>, drain: &Drain) -> Vec<Task> {
    let (clock, during) = (common.planes.clock.clone(), drain.clone());
    let follow = move || question.clone().follow(known.clone(), clock.clone(), during.clone()).map(Ok);
    let (access, during) = (common.access.clone(), drain.clone());
    let log = move || log_rights(access.clone(), during.clone()).map(Ok);
    vec![
        common.planes.watched.keep("rights", IfDown::Noted, drain, follow),
        common.planes.watched.keep("rights log", IfDown::Noted, drain, log),
    ]
}

/// Each missing right once, and again when that changed.
async fn log_rights(access: Access, mut drain: Drain) {
    let mut known: Option<Vec<String>> = None;
    loop {
        let now = sidecar::missing_rights(&access);
        let before = known.unwrap_or_default();
        for line in now.iter().filter(|line| !before.contains(line)) {
            tracing::info!("{line}");
        }
        for line in before.iter().filter(|line| !now.contains(line)) {
            tracing::info!("no longer: {line}");
        }
        known = Some(now);
        tokio::select! {
            () = tokio::time::sleep(ASK_AGAIN * 5) => {}
            _ = drain.signaled() => return,
        }
    }
}

/// Begun anew after a failure: the tenant in force is in the registry and stays.
fn tenant(common: &Common, drain: &Drain) -> Task {
    let parts = sidecar::Parts {
        settings: common.settings.clone(),
        host: common.host.layered(),
        registry: Arc::clone(&common.planes.registry),
        access: common.access.clone(),
        pod: process::pod_name(),
        state: common.state.clone(),
        clock: common.planes.clock.clone(),
    };
    let during = drain.clone();
    common
        .planes
        .watched
        .keep("sidecar", IfDown::NotReady, drain, move || sidecar::run(parts.clone(), during.clone()).map(Ok))
}

/// The tenant's own port only: whatever address or name leads here means this tenant.
async fn gateway(common: &Common, drain: &Drain) -> anyhow::Result<Vec<Task>> {
    let (address, port) = common.options.listen;
    let config = GatewayConfig {
        listen: SocketAddr::new(address, port),
        drain_delay: Span(DELAY),
        drain_timeout: Span(DRAIN),
        ..GatewayConfig::default()
    };
    let host = &common.host;
    let usage = common.planes.usage((host, &HostConfig::default()), &common.options.syncer.node_selector)?;
    let bound =
        gateway::run_tenant_ports(common.planes.gateway(config, Some((host, &usage)), None, Closed::default()), drain);
    let mut tasks = bound.listeners();
    tasks.push(common.planes.dns(DnsConfig::default(), address, drain).await?);
    Ok(tasks)
}

/// The lock of vcluster's own syncer, so that the two never write at the same time. It is a ConfigMap whatever the rights
/// are: replicas that saw a right at different moments must not hold different locks.
fn lock_name(settings: &Settings) -> String {
    format!("vcluster-{}-controller", settings.id.name())
}

fn syncer(common: &Common, version: String, drain: &Drain) -> Task {
    let own = common.own_pod.clone().unwrap_or_default();
    let switches = Switches { disabled: common.options.disabled.clone() };
    let parts = syncer::Parts {
        access: common.access.clone(),
        own_place: OwnPlace { node: own.node, node_ip: own.node_ip, version },
        adopts: true,
        ..common.planes.syncer(&common.host, common.options.syncer.clone(), &switches)
    };
    let candidate = Candidate {
        lease: lock_name(&common.settings),
        namespace: common.settings.namespace.clone(),
        identity: process::identity(&common.planes.clock),
        once: process::pod_name().unwrap_or_default(),
        timing: common.options.timing,
    };
    let lock = Lock::config_map(Arc::new(common.host.layered()), owners(Arc::clone(&common.planes.registry)));
    let registry = Arc::clone(&common.planes.registry);
    let before = move || served(Arc::clone(&registry));
    let standing = Standing { lock, candidate, clock: common.planes.clock.clone(), before };
    leader::stand(&common.planes.watched, "syncer", standing, drain, move |drain| {
        syncer::run(parts.clone(), drain).map(Ok)
    })
}

/// Waits for the tenant.
async fn served(registry: Arc<Registry>) {
    let mut changes = registry.subscribe();
    while registry.load().tenants().next().is_none() && changes.changed().await.is_ok() {}
}

/// Who owns the lock: known with the tenant, and asked at each write, for an owner that was made again has another uid.
fn owners(registry: Arc<Registry>) -> Owners {
    Arc::new(move || {
        let snapshot = registry.load();
        let tenant = snapshot.tenants().next()?;
        Some(tenant.owner.iter().map(identity::owner_reference).collect())
    })
}
