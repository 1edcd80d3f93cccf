//! Measures the memory of the process once a second, so that who takes most of it is refused before the kernel ends all.

use std::sync::Arc;
use std::time::Duration;

use crate::config::MemoryConfig;
use crate::runtime::drain::Drain;
use crate::runtime::memory::Measure;
use crate::runtime::task::Task;
use crate::runtime::telemetry::Metrics;
use crate::runtime::watched::{IfDown, Watched};
use crate::tenant::Registry;

const PERIOD: Duration = Duration::from_secs(1);

/// Starts it; nothing where no limit is known.
pub(super) fn follow(
    config: &MemoryConfig,
    registry: &Arc<Registry>,
    metrics: &Metrics,
    watched: &Watched,
    drain: &Drain,
) -> Option<Task> {
    let measure = Measure::of_process();
    let Some(watermark) = config.watermark(measure.limit()) else {
        tracing::info!("no watermark of memory: the container has no limit, or it is switched off");
        return None;
    };
    tracing::info!(watermark, "memory is watched");
    metrics.register(Arc::new(registry.memory().clone()));
    let (registry, during) = (Arc::clone(registry), drain.clone());
    Some(watched.keep("memory", IfDown::Noted, drain, move || {
        let (measure, registry, mut drain) = (measure.clone(), Arc::clone(&registry), during.clone());
        async move {
            while !drain.is_draining() {
                // Files of the kernel: nothing waits for a disk.
                if let Some(used) = measure.used() {
                    registry.memory().measured(used, watermark);
                }
                tokio::select! {
                    () = tokio::time::sleep(PERIOD) => {}
                    _ = drain.signaled() => {}
                }
            }
            Ok(())
        }
    }))
}
