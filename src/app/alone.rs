//! Wiring of `portico serve` without a host cluster: the gateway alone, in front of the API servers that the file lists.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::ending::{end, stopped};
use super::planes::Planes;
use super::role::Role;
use super::{audit, memory};
use crate::admin;
use crate::archive::Archive;
use crate::config::Config;
use crate::gateway;
use crate::runtime::drain::{self, Drain};
use crate::runtime::task::Task;
use crate::runtime::watched::IfDown;
use crate::tenant::file::{self, FileTenants};
use crate::upstream::reach::Closed;

/// Runs until SIGTERM or SIGINT; returns after leaving and the drain.
pub(super) async fn serve(config: Config, file: PathBuf, roles: Option<Vec<Role>>) -> anyhow::Result<()> {
    check(&roles.unwrap_or_else(|| vec![Role::Gateway]))?;
    let mut planes = Planes::new(&config.log)?;
    let traces = planes.trace(&config.tracing)?;
    let tenants = load(&planes, &config, file)?;
    let awaited = planes.readiness.await_for("gateway", "it does not listen yet");
    let (trigger, drain) = drain::channel();
    let admin = &config.admin;
    let admin = admin::run(planes.admin(admin.listen, admin.metrics_listen, admin::Access::Open), &drain).await?;
    if !admin.metrics.ip().is_loopback() {
        tracing::warn!(address = %admin.metrics, "whoever reaches this address may read the metrics");
    }
    let archive = config.audit.enabled.then(|| audit::start(&planes, &config.audit)).transpose()?;
    let mut tasks = vec![follow(&planes, &tenants, &drain)?];
    tasks.extend(memory::follow(&config.memory, &planes.registry, &planes.metrics, &planes.watched, &drain));
    let trail = archive.as_ref().map(Archive::trail).cloned();
    let closed = Closed::default();
    closed.set(config.networks.closed.clone());
    let bound = gateway::run(planes.gateway(config.gateway.clone(), None, trail, closed), &drain).await?;
    tracing::info!(gateway = %bound.address, health = %admin.probes, metrics = %admin.metrics, "serving without a host cluster");
    tasks.extend(bound.listeners());
    drop(awaited);
    drop(drain);
    stopped().await?;
    end(trigger, config.gateway.drain_delay.0, config.gateway.drain_timeout.0).await?;
    if let Some(traces) = traces {
        traces.close().await;
    }
    audit::close(archive).await;
    drop(tasks);
    Ok(())
}

fn check(roles: &[Role]) -> anyhow::Result<()> {
    let is_alone = !roles.is_empty() && roles.iter().all(|role| *role == Role::Gateway);
    anyhow::ensure!(
        is_alone,
        "without a host cluster (host.enabled: false) only the role gateway can run: leave out --roles"
    );
    Ok(())
}

/// All that the file lists is served before anybody is let in.
fn load(planes: &Planes, config: &Config, file: PathBuf) -> anyhow::Result<Arc<FileTenants>> {
    let parts = file::Parts {
        file,
        registry: Arc::clone(&planes.registry),
        shared: planes.shared.clone(),
        clock: planes.clock.clone(),
    };
    let tenants = FileTenants::load(parts, config.clone())?;
    planes.metrics.register(Arc::clone(&tenants) as Arc<_>);
    let noted = Arc::clone(&tenants);
    planes.readiness.note(move || noted.notes());
    Ok(tenants)
}

/// Looks at the files every few seconds, and at once after SIGHUP.
fn follow(planes: &Planes, tenants: &Arc<FileTenants>, drain: &Drain) -> anyhow::Result<Task> {
    let mut hangups = signal(SignalKind::hangup()).context("SIGHUP cannot be listened for")?;
    let (wake, tenants, during) = (Arc::new(Notify::new()), Arc::clone(tenants), drain.clone());
    let woken = Arc::clone(&wake);
    let looking = planes.watched.keep("virtual clusters", IfDown::NotReady, drain, move || {
        Arc::clone(&tenants).follow(Arc::clone(&woken), during.clone())
    });
    Ok(crate::runtime::task::spawn("hangups", async move {
        let hear = async {
            while hangups.recv().await.is_some() {
                wake.notify_one();
            }
        };
        tokio::select! {
            _ = looking.join() => {}
            () = hear => {}
        }
    }))
}
