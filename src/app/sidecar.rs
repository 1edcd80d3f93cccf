//! Wiring of `portico syncer`: one virtual cluster beside its k3s, from the same planes as `portico serve`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt;
use http::HeaderMap;
use serde_json::Value;
use tokio::sync::watch;

use super::leader::{self, Standing};
use super::{end, process, runtime, show, stopped};
use crate::admin::{self, Readiness};
use crate::config::{DnsConfig, GatewayConfig, HostConfig, LogConfig, Span, SyncerConfig};
use crate::dns;
use crate::gateway;
use crate::kubernetes;
use crate::kubernetes::ApiClient;
use crate::kubernetes::election::{Candidate, Lock, Owners, Timing};
use crate::kubernetes::rights::{Access, Question, Rules};
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::runtime::drain::{self, Drain};
use crate::runtime::task::Task;
use crate::runtime::telemetry::{self, Metrics, Source};
use crate::runtime::watched::{IfDown, Watched};
use crate::sidecar::{self, OwnPod, Settings, State};
use crate::syncer::catalog::Catalog;
use crate::syncer::kinds::{self, Switches};
use crate::syncer::stats::Stats;
use crate::syncer::{self, OwnPlace};
use crate::tenant::Registry;
use crate::tls::SharedCertificate;
use crate::translate::identity;
use crate::upstream::Pool;

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
    runtime()?.block_on(serve(options))
}

struct Common {
    options: Options,
    settings: Settings,
    clock: Clock,
    host: ApiClient,
    registry: Arc<Registry>,
    metrics: Metrics,
    own_pod: Option<OwnPod>,
    access: Access,
    state: State,
    watched: Watched,
}

async fn serve(options: Options) -> anyhow::Result<()> {
    telemetry::init(&options.log)?;
    let clock = Clock::system();
    let settings = settings(&options)?;
    let host_config = HostConfig { kubeconfig: options.host_kubeconfig.clone(), ..HostConfig::default() };
    let pool = Arc::new(Pool::new(kubernetes::host::target(&host_config)?, clock.clone()));
    let host = ApiClient::new(pool, HeaderMap::new());
    let (readiness, metrics, watched) = (Readiness::default(), Metrics::default(), Watched::new(clock.clone()));
    show(&watched, &readiness, &metrics);
    let (trigger, drain) = drain::channel();
    let admin_parts = admin::Parts {
        probes: options.admin,
        metrics_listen: options.metrics,
        access: admin::Access::Open,
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        watched: watched.clone(),
    };
    let admin = admin::run(admin_parts, &drain).await?;
    if !admin.metrics.ip().is_loopback() {
        tracing::warn!(address = %admin.metrics, "whoever reaches this address may read the metrics");
    }
    let awaited = readiness.await_for("host", "the host API server did not answer yet");
    let question = Question {
        host: host.layered(),
        namespace: settings.id.namespace().to_string(),
        cluster: sidecar::cluster_resources(),
    };
    let asked = tokio::select! {
        asked = ask_host(&question, &settings, &clock) => asked,
        stopped = stopped() => return stopped,
    };
    let (rules, own_pod, version) = asked;
    drop(awaited);
    let (sender, rules) = watch::channel(Arc::new(rules));
    let access = Access::followed(rules);
    let state = State::default();
    let common = Common {
        options,
        settings,
        clock,
        host,
        registry: Arc::new(Registry::default()),
        metrics,
        own_pod,
        access,
        state,
        watched,
    };
    tell(&readiness, &common);
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

fn tell(readiness: &Readiness, common: &Common) {
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
    let (clock, during) = (common.clock.clone(), drain.clone());
    let follow = move || question.clone().follow(known.clone(), clock.clone(), during.clone()).map(Ok);
    let (access, during) = (common.access.clone(), drain.clone());
    let log = move || log_rights(access.clone(), during.clone()).map(Ok);
    vec![
        common.watched.keep("rights", IfDown::Noted, drain, follow),
        common.watched.keep("rights log", IfDown::Noted, drain, log),
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
        registry: Arc::clone(&common.registry),
        access: common.access.clone(),
        pod: process::pod_name(),
        state: common.state.clone(),
        clock: common.clock.clone(),
    };
    let during = drain.clone();
    common.watched.keep("sidecar", IfDown::NotReady, drain, move || sidecar::run(parts.clone(), during.clone()).map(Ok))
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
    let parts = gateway::Parts {
        config,
        registry: Arc::clone(&common.registry),
        shared: SharedCertificate::default(),
        host: common.host.clone(),
        metrics: common.metrics.clone(),
        clock: common.clock.clone(),
        watched: common.watched.clone(),
    };
    let bound = gateway::run_tenant_ports(parts, drain);
    let dns = dns::Parts {
        config: DnsConfig::default(),
        registry: Arc::clone(&common.registry),
        clock: common.clock.clone(),
        address,
        watched: common.watched.clone(),
    };
    let mut tasks = bound.listeners();
    tasks.push(dns::run(dns, drain).await?);
    Ok(tasks)
}

/// The lock of vcluster's own syncer, so that the two never write at the same time. It is a ConfigMap whatever the rights
/// are: replicas that saw a right at different moments must not hold different locks.
fn lock_name(settings: &Settings) -> String {
    format!("vcluster-{}-controller", settings.id.name())
}

fn syncer(common: &Common, version: String, drain: &Drain) -> Task {
    let catalog = Catalog::new(kinds::all(&Switches { disabled: common.options.disabled.clone() }));
    let stats = Arc::new(Stats::new(&catalog));
    common.metrics.register(Arc::clone(&stats) as Arc<dyn Source>);
    let own = common.own_pod.clone().unwrap_or_default();
    let parts = syncer::Parts {
        config: common.options.syncer.clone(),
        catalog,
        registry: Arc::clone(&common.registry),
        host: Arc::new(common.host.clone()),
        backends: syncer::connected(),
        clock: common.clock.clone(),
        stats,
        access: common.access.clone(),
        own_place: OwnPlace { node: own.node, node_ip: own.node_ip, version },
        adopts: true,
    };
    let candidate = Candidate {
        lease: lock_name(&common.settings),
        namespace: common.settings.namespace.clone(),
        identity: process::identity(&common.clock),
        once: process::pod_name().unwrap_or_default(),
        timing: common.options.timing,
    };
    let lock = Lock::config_map(Arc::new(common.host.layered()), owners(Arc::clone(&common.registry)));
    let registry = Arc::clone(&common.registry);
    let before = move || served(Arc::clone(&registry));
    let standing = Standing { lock, candidate, clock: common.clock.clone(), before };
    leader::stand(&common.watched, "syncer", standing, drain, move |drain| syncer::run(parts.clone(), drain).map(Ok))
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
