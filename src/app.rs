//! Wiring: reads the configuration, builds the planes for the chosen roles, and owns start and shutdown.
//!
//! Every replica serves as gateway and DNS; Leases choose which one runs the syncer and which the operator. Shutdown
//! (docs/operations/upgrade.md): unready, Leases given back, all served → take nothing new, end watches, let requests and
//! streams finish → stop.

mod leader;
mod process;
mod shared_certificate;
pub mod sidecar;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt;
use http::HeaderMap;
use tokio::signal::unix::{SignalKind, signal};

use self::leader::Standing;
use crate::admin::{self, Readiness};
use crate::config::{Config, MetricsAccess};
use crate::gateway;
use crate::kubernetes;
use crate::kubernetes::ApiClient;
use crate::kubernetes::election::{self, Candidate, Lock};
use crate::kubernetes::rights::Access;
use crate::names::reserved::Reserved;
use crate::runtime::clock::Clock;
use crate::runtime::drain::{self, Drain, DrainTrigger};
use crate::runtime::task::Task;
use crate::runtime::telemetry::{self, Metrics, Source};
use crate::runtime::watched::{IfDown, Watched};
use crate::syncer::catalog::Catalog;
use crate::syncer::kinds::{self, Switches};
use crate::syncer::{OwnPlace, Stats};
use crate::tenant::{self, Registry};
use crate::tls::SharedCertificate;
use crate::upstream::Pool;
use crate::{dns, operator, syncer};

/// A part of Portico that a process can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// TLS gateway and tenant DNS.
    Gateway,
    /// Syncer, under a Lease.
    Syncer,
    /// Operator, under a Lease.
    Operator,
}

/// What `portico serve` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Configuration file; absent means all defaults.
    pub config: Option<PathBuf>,
    /// Roles to run.
    pub roles: Vec<Role>,
}

/// Runs until SIGTERM or SIGINT; returns after leaving and the drain.
pub fn run(options: Options) -> anyhow::Result<()> {
    let config = read(&options)?;
    runtime()?.block_on(serve(config, options.roles))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name("portico")
        .enable_all()
        .build()
        .context("the async runtime cannot start")
}

/// What all planes share.
struct Common {
    config: Arc<Config>,
    clock: Clock,
    host: ApiClient,
    registry: Arc<Registry>,
    metrics: Metrics,
    readiness: Readiness,
    shared: SharedCertificate,
    identity: String,
    watched: Watched,
}

async fn serve(config: Config, roles: Vec<Role>) -> anyhow::Result<()> {
    telemetry::init(&config.log)?;
    let clock = Clock::system();
    let pool = Arc::new(Pool::new(kubernetes::host::target(&config.host)?, clock.clone()));
    let common = Common {
        host: ApiClient::new(pool, HeaderMap::new()),
        registry: Arc::new(Registry::default()),
        metrics: Metrics::default(),
        readiness: Readiness::default(),
        shared: SharedCertificate::default(),
        identity: process::identity(&clock),
        watched: Watched::new(clock.clone()),
        config: Arc::new(config),
        clock,
    };
    show(&common.watched, &common.readiness, &common.metrics);
    let (delay, grace) = (common.config.gateway.drain_delay.0, common.config.gateway.drain_timeout.0);
    let (trigger, drain) = drain::channel();
    let admin = admin::run(health_and_metrics(&common), &drain).await?;
    let tasks = start(&common, &roles, drain).await?;
    tracing::info!(health = %admin.probes, metrics = %admin.metrics, ?roles, "serving");
    stopped().await?;
    end(trigger, delay, grace).await?;
    drop(tasks);
    Ok(())
}

/// What is watched is told to probes and to Prometheus.
fn show(watched: &Watched, readiness: &Readiness, metrics: &Metrics) {
    metrics.register(Arc::new(watched.clone()));
    let (needed, others) = (watched.clone(), watched.clone());
    readiness.check("tasks", move || needed.problem());
    readiness.note(move || others.notes());
}

/// Leaves, then drains. A second signal cuts the delay short.
async fn end(trigger: DrainTrigger, delay: Duration, grace: Duration) -> anyhow::Result<()> {
    tracing::info!(?delay, "leaving: not ready, and serving what still comes");
    let leaving = trigger.leave(delay);
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        again = stopped() => again?,
    }
    tracing::info!(?grace, "draining");
    if !leaving.drain(grace).await {
        tracing::warn!("some streams did not end in time");
    }
    Ok(())
}

/// Starts every plane that the roles name; all of them hold the drain.
async fn start(common: &Common, roles: &[Role], drain: Drain) -> anyhow::Result<Vec<Task>> {
    let mut tasks = vec![tenants(common, &drain), certificate(common, &drain)];
    if roles.contains(&Role::Gateway) {
        tasks.extend(gateway(common, &drain).await?);
    }
    if roles.contains(&Role::Syncer) {
        tasks.push(syncer(common, &drain));
    }
    if roles.contains(&Role::Operator) {
        tasks.push(operator(common, &drain));
    }
    Ok(tasks)
}

fn tenants(common: &Common, drain: &Drain) -> Task {
    let parts = tenant::source::Parts {
        host: Arc::new(common.host.layered()),
        registry: Arc::clone(&common.registry),
        reserved: Arc::new(Reserved::new(&common.config)),
        clock: common.clock.clone(),
    };
    let awaited = common.readiness.await_for("tenants", "the VirtualClusters are not listed yet");
    let awaited = Arc::new(parking_lot::Mutex::new(Some(awaited)));
    let during = drain.clone();
    common.watched.keep("tenants", IfDown::NotReady, drain, move || {
        let (parts, drain, awaited) = (parts.clone(), during.clone(), Arc::clone(&awaited));
        async move { tenant::source::run(&parts, drain, || drop(awaited.lock().take())).await }
    })
}

fn health_and_metrics(common: &Common) -> admin::Parts {
    let config = &common.config.admin;
    let access = match config.metrics_access {
        MetricsAccess::Open => admin::Access::Open,
        MetricsAccess::TokenReview => {
            admin::Access::Reviewed { host: common.host.layered(), certificate: common.shared.clone() }
        }
    };
    admin::Parts {
        probes: config.listen,
        metrics_listen: config.metrics_listen,
        access,
        readiness: common.readiness.clone(),
        metrics: common.metrics.clone(),
        watched: common.watched.clone(),
    }
}

/// The gateway and the metrics serve with it.
fn certificate(common: &Common, drain: &Drain) -> Task {
    let (host, shared, clock) = (common.host.layered(), common.shared.clone(), common.clock.clone());
    let (namespace, during) = (common.config.host.system_namespace.clone(), drain.clone());
    common.watched.keep("shared certificate", IfDown::Noted, drain, move || {
        let drain = during.clone();
        shared_certificate::follow(host.clone(), namespace.clone(), shared.clone(), clock.clone(), drain).map(Ok)
    })
}

async fn gateway(common: &Common, drain: &Drain) -> anyhow::Result<Vec<Task>> {
    let known = common.shared.clone();
    common.readiness.check("shared certificate", move || {
        known.load().is_none().then(|| "the operator has not made it yet".to_owned())
    });
    let parts = gateway::Parts {
        config: common.config.gateway.clone(),
        registry: Arc::clone(&common.registry),
        shared: common.shared.clone(),
        host: common.host.clone(),
        metrics: common.metrics.clone(),
        clock: common.clock.clone(),
        watched: common.watched.clone(),
    };
    let bound = gateway::run(parts, drain).await?;
    tracing::info!(address = %bound.address, "gateway listens");
    let dns = dns::Parts {
        config: common.config.dns.clone(),
        registry: Arc::clone(&common.registry),
        clock: common.clock.clone(),
        address: bound.address.ip(),
        watched: common.watched.clone(),
    };
    let mut tasks = bound.listeners();
    tasks.push(dns::run(dns, drain).await?);
    Ok(tasks)
}

fn syncer(common: &Common, drain: &Drain) -> Task {
    let catalog = Catalog::new(kinds::all(&Switches::default()));
    let stats = Arc::new(Stats::new(&catalog));
    common.metrics.register(Arc::clone(&stats) as Arc<dyn Source>);
    let parts = syncer::Parts {
        config: common.config.syncer.clone(),
        catalog,
        registry: Arc::clone(&common.registry),
        host: Arc::new(common.host.clone()),
        backends: syncer::connected(),
        clock: common.clock.clone(),
        stats,
        access: Access::granted(),
        own_place: OwnPlace::default(),
        adopts: false,
    };
    elected(common, "syncer", drain, move |drain| syncer::run(parts.clone(), drain).map(Ok))
}

fn operator(common: &Common, drain: &Drain) -> Task {
    let (config, host, clock) = (Arc::clone(&common.config), common.host.layered(), common.clock.clone());
    elected(common, "operator", drain, move |drain| {
        let parts = operator::Parts {
            config: Arc::clone(&config),
            host: Arc::new(host.clone()),
            backends: Arc::new(operator::Asked { clock: clock.clone() }),
            clock: clock.clone(),
        };
        operator::run(parts, drain)
    })
}

/// Runs work on the one replica that holds a Lease.
fn elected<F, Fut>(common: &Common, name: &'static str, drain: &Drain, work: F) -> Task
where
    F: Fn(Drain) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = crate::error::Result<()>> + Send + 'static,
{
    let candidate = Candidate {
        lease: format!("portico-{name}"),
        namespace: common.config.host.system_namespace.clone(),
        identity: common.identity.clone(),
        once: String::new(),
        timing: election::Timing::default(),
    };
    let lock = Lock::lease(Arc::new(common.host.layered()));
    let standing = Standing { lock, candidate, clock: common.clock.clone(), before: || std::future::ready(()) };
    leader::stand(&common.watched, name, standing, drain, work)
}

fn read(options: &Options) -> anyhow::Result<Config> {
    let mut config = match &options.config {
        None => Config::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
            Config::parse(&text)?
        }
    };
    if config.host.system_namespace.is_empty() {
        config.host.system_namespace = process::namespace(&["POD_NAMESPACE"])
            .context("host.systemNamespace is not set, and there is no ServiceAccount to take it from")?;
    }
    Ok(config)
}

async fn stopped() -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
