//! Measures the memory of the process once a second, and ten times where it is scarce, so that who takes most of it is refused
//! before the kernel ends all.

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
/// Near the watermark: a thousand answers that nobody reads begin in a second, and take a hundred megabytes.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS: u32 = 10;

/// Whether so much is near the watermark: three quarters of it.
fn is_near(used: u64, watermark: u64) -> bool {
    used > watermark / 4 * 3
}

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
            // The judgement is each second's; its first is not waited for.
            let (mut looks, mut was_above) = (0, false);
            while !drain.is_draining() {
                // Files of the kernel: nothing waits for a disk.
                let used = measure.used();
                if let Some(used) = used
                    && (looks == 0 || (used > watermark && !was_above))
                {
                    registry.memory().measured(used, watermark);
                    (looks, was_above) = (LOOKS, used > watermark);
                }
                let is_near = used.is_some_and(|used| is_near(used, watermark));
                let (pause, passed) = if is_near { (LOOK, 1) } else { (PERIOD, looks) };
                looks -= passed.min(looks);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = drain.signaled() => {}
                }
            }
            Ok(())
        }
    }))
}
