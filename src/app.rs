//! Wiring: reads the configuration, builds the planes for the chosen roles, and owns start and shutdown.
//!
//! Every replica that has these roles serves as gateway and DNS; Leases choose which one runs the syncer and which the
//! operator. Shutdown
//! (docs/operations/upgrade.md): unready, Leases given back, all served → take nothing new, end watches, let requests and
//! streams finish → stop.

mod alone;
mod audit;
mod ending;
mod host;
mod leader;
mod memory;
mod metering;
#[cfg(test)]
mod metrics_page;
mod planes;
mod process;
mod role;
mod shared_certificate;
pub mod sidecar;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt;

use self::ending::{end, stopped};
use self::leader::Standing;
use self::planes::Planes;
pub use self::role::Role;
use crate::admin;
use crate::archive::Archive;
use crate::config::{Config, MetricsAccess};
use crate::gateway;
use crate::kubernetes::election::{self, Candidate, Lock};
use crate::kubernetes::{ApiClient, Reaches};
use crate::metering::{Journal, Parts};
use crate::names::reserved::Reserved;
use crate::runtime::drain::{self, Drain};
use crate::runtime::task::Task;
use crate::runtime::telemetry::Source;
use crate::runtime::watched::IfDown;
use crate::syncer::kinds::Switches;
use crate::trail::Trail;
use crate::usage::Usage;
use crate::{operator, syncer, tenant};

/// What `portico serve` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Configuration file; absent means all defaults.
    pub config: Option<PathBuf>,
    /// Roles to run; absent means all that there can be.
    pub roles: Option<Vec<Role>>,
}

/// Runs until SIGTERM or SIGINT; returns after leaving and the drain.
pub fn run(options: Options) -> anyhow::Result<()> {
    let config = read(&options)?;
    match (config.host.enabled, options.config) {
        (false, Some(file)) => to_its_end(alone::serve(config, file, options.roles)),
        _ => to_its_end(serve(config, options.roles.unwrap_or_else(|| Role::ALL.to_vec()))),
    }
}

/// Runs a process, of whatever form. A thread that waits for a disk or a resolver does not hold up its end.
fn to_its_end(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.thread_name("portico").enable_all().build().context("the async runtime cannot start")?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(LAST);
    outcome
}

/// For threads that wait for something when all else has ended.
const LAST: Duration = Duration::from_secs(1);

/// What this form adds to the planes.
struct Common {
    planes: Planes,
    /// The host cluster, with Portico's own rights.
    host: ApiClient,
    reaches: Arc<Reaches>,
    config: Arc<Config>,
    identity: String,
    /// None where nothing is metered.
    metering: Option<Parts>,
}

async fn serve(config: Config, roles: Vec<Role>) -> anyhow::Result<()> {
    let mut planes = Planes::new(&config.log)?;
    let host = planes.host(&config.host)?;
    let traces = planes.trace(&config.tracing)?;
    let identity = process::identity(&planes.clock);
    let reaches = Arc::new(Reaches::new(&config, &host.pool().target().host));
    let metering = metering::parts((&planes, &host), &config, &identity);
    let common = Common { planes, host, reaches, config: Arc::new(config), identity, metering };
    let (delay, grace) = (common.config.gateway.drain_delay.0, common.config.gateway.drain_timeout.0);
    let (trigger, drain) = drain::channel();
    let admin = admin::run(health_and_metrics(&common), &drain).await?;
    let is_audited = common.config.audit.enabled && roles.contains(&Role::Gateway);
    let archive = is_audited.then(|| audit::start(&common.planes, &common.config.audit)).transpose()?;
    let journal = common.metering.clone().map(|parts| Arc::new(Journal::new(parts)));
    let audit = archive.as_ref().map(Archive::trail);
    let tasks = start(&common, &roles, (journal.as_ref(), audit), drain).await?;
    tracing::info!(health = %admin.probes, metrics = %admin.metrics, ?roles, "serving");
    stopped().await?;
    end(trigger, delay, grace).await?;
    let last = async {
        if let Some(journal) = journal {
            journal.close().await;
        }
        if let Some(traces) = traces {
            traces.close().await;
        }
    };
    tokio::join!(last, audit::close(archive));
    drop(tasks);
    Ok(())
}

/// Starts every plane that the roles name; all of them hold the drain.
async fn start(
    common: &Common,
    roles: &[Role],
    (journal, audit): (Option<&Arc<Journal>>, Option<&Arc<Trail>>),
    drain: Drain,
) -> anyhow::Result<Vec<Task>> {
    let mut tasks = vec![tenants(common, &drain), certificate(common, &drain)];
    let planes = &common.planes;
    let (registry, metrics, watched) = (&planes.registry, &planes.metrics, &planes.watched);
    tasks.extend(memory::follow(&common.config.memory, registry, metrics, watched, &drain));
    tasks.extend(journal.map(|journal| metering::follow(&common.planes, journal, &drain)));
    let measures = roles.contains(&Role::Gateway) || roles.contains(&Role::Syncer);
    let usage = || common.planes.usage((&common.host, &common.config.host), &common.config.syncer.node_selector);
    let usage = measures.then(usage).transpose()?;
    if let Some(usage) = usage.as_ref().filter(|_| roles.contains(&Role::Gateway)) {
        tasks.extend(gateway(common, usage, audit, &drain).await?);
    }
    if roles.contains(&Role::Dns) {
        let address = common.config.gateway.listen.ip();
        tasks.push(common.planes.dns(common.config.dns.clone(), address, &drain).await?);
    }
    if let Some(usage) = usage.as_ref().filter(|_| roles.contains(&Role::Syncer)) {
        tasks.push(syncer(common, usage, &drain));
    }
    if roles.contains(&Role::Operator) {
        tasks.push(operator(common, &drain));
    }
    Ok(tasks)
}

fn tenants(common: &Common, drain: &Drain) -> Task {
    let parts = tenant::source::Parts {
        host: Arc::new(common.host.layered()),
        registry: Arc::clone(&common.planes.registry),
        policies: Arc::new(common.config.policies()),
        reserved: Arc::new(Reserved::new(&common.config)),
        reaches: Arc::clone(&common.reaches),
        jwt: Arc::new(common.config.auth.jwt.clone()),
        clock: common.planes.clock.clone(),
    };
    let awaited = common.planes.readiness.await_for("tenants", "the VirtualClusters are not listed yet");
    let awaited = Arc::new(parking_lot::Mutex::new(Some(awaited)));
    let during = drain.clone();
    common.planes.watched.keep("tenants", IfDown::NotReady, drain, move || {
        let (parts, drain, awaited) = (parts.clone(), during.clone(), Arc::clone(&awaited));
        async move { tenant::source::run(&parts, drain, || drop(awaited.lock().take())).await }
    })
}

fn health_and_metrics(common: &Common) -> admin::Parts {
    let config = &common.config.admin;
    let access = match config.metrics_access {
        MetricsAccess::Open => admin::Access::Open,
        MetricsAccess::TokenReview => {
            admin::Access::Reviewed { host: common.host.layered(), certificate: common.planes.shared.clone() }
        }
    };
    common.planes.admin(config.listen, config.metrics_listen, access)
}

/// The gateway and the metrics serve with it.
fn certificate(common: &Common, drain: &Drain) -> Task {
    let (host, shared, clock) = (common.host.layered(), common.planes.shared.clone(), common.planes.clock.clone());
    let (namespace, during) = (common.config.host.system_namespace.clone(), drain.clone());
    common.planes.watched.keep("shared certificate", IfDown::Noted, drain, move || {
        let drain = during.clone();
        shared_certificate::follow(host.clone(), namespace.clone(), shared.clone(), clock.clone(), drain).map(Ok)
    })
}

async fn gateway(
    common: &Common,
    usage: &Arc<Usage>,
    audit: Option<&Arc<Trail>>,
    drain: &Drain,
) -> anyhow::Result<Vec<Task>> {
    let known = common.planes.shared.clone();
    common.planes.readiness.check("shared certificate", move || {
        known.load().is_none().then(|| "the operator has not made it yet".to_owned())
    });
    let (host, closed) = (Some((&common.host, usage)), common.reaches.closed().clone());
    let parts = common.planes.gateway(common.config.gateway.clone(), host, audit.cloned(), closed);
    let bound = gateway::run(parts, drain).await?;
    tracing::info!(address = %bound.address, "gateway listens");
    Ok(bound.listeners())
}

/// And what it measures of the tenants that it syncs.
fn syncer(common: &Common, usage: &Arc<Usage>, drain: &Drain) -> Task {
    let parts = common.planes.syncer(&common.host, common.config.syncer.clone(), &Switches::default());
    let sources = metering::sources((&common.planes, &common.host), usage, &parts.stats);
    let meter = common.metering.clone().map(|parts| (parts, sources));
    elected(common, "syncer", drain, move |drain| {
        let (synced, metered) = (syncer::run(parts.clone(), drain.clone()), metering::lead(meter.clone(), drain));
        async move {
            tokio::join!(synced, metered);
            Ok(())
        }
    })
}

fn operator(common: &Common, drain: &Drain) -> Task {
    let (config, host, clock) = (Arc::clone(&common.config), common.host.layered(), common.planes.clock.clone());
    let (registry, reaches) = (Arc::clone(&common.planes.registry), Arc::clone(&common.reaches));
    let shown = Arc::new(operator::Shown::default());
    common.planes.metrics.register(Arc::clone(&shown) as Arc<dyn Source>);
    elected(common, "operator", drain, move |drain| {
        let parts = operator::Parts {
            config: Arc::clone(&config),
            host: Arc::new(host.clone()),
            backends: Arc::new(operator::Asked { clock: clock.clone(), registry: Arc::clone(&registry) }),
            reaches: Arc::clone(&reaches),
            clock: clock.clone(),
            shown: Arc::clone(&shown),
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
    let standing = Standing { lock, candidate, clock: common.planes.clock.clone(), before: || std::future::ready(()) };
    leader::stand(&common.planes.watched, name, standing, drain, work)
}

fn read(options: &Options) -> anyhow::Result<Config> {
    let mut config = match &options.config {
        None => Config::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
            Config::parse(&text)?
        }
    };
    if config.host.enabled && config.host.system_namespace.is_empty() {
        config.host.system_namespace = process::namespace(&["POD_NAMESPACE"])
            .context("host.systemNamespace is not set, and there is no ServiceAccount to take it from")?;
    }
    Ok(config)
}
