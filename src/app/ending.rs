//! How a process ends: told by a signal, it leaves, and drains what it still serves.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::runtime::drain::DrainTrigger;

/// Leaves, then drains. A second signal cuts the delay short.
pub(super) async fn end(trigger: DrainTrigger, delay: Duration, grace: Duration) -> anyhow::Result<()> {
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

/// SIGTERM or SIGINT.
pub(super) async fn stopped() -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
