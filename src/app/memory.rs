//! Measures the memory of the process once a second, and ten times where it is scarce, so that who takes most of it is refused
//! before the kernel ends all.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

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

/// When the memory is looked at, and when it is judged.
#[derive(Debug, Default)]
struct Pace {
    judged: Option<Instant>,
    was_above: bool,
}

impl Pace {
    /// Once a second; the first time above the watermark is not waited for.
    fn judges(&mut self, used: u64, watermark: u64, now: Instant) -> bool {
        let is_above = used > watermark;
        let is_due = self.judged.is_none_or(|at| now.duration_since(at) >= PERIOD);
        if !is_due && (self.was_above || !is_above) {
            return false;
        }
        (self.judged, self.was_above) = (Some(now), is_above);
        true
    }
}

/// Until the next look: near the watermark is above three quarters of it.
fn pause(used: Option<u64>, watermark: u64) -> Duration {
    if used.is_some_and(|used| used > watermark / 4 * 3) { LOOK } else { PERIOD }
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
            let mut pace = Pace::default();
            while !drain.is_draining() {
                // Files of the kernel: nothing waits for a disk.
                let used = measure.used();
                if let Some(used) = used.filter(|used| pace.judges(*used, watermark, Instant::now())) {
                    registry.memory().measured(used, watermark);
                }
                tokio::select! {
                    () = tokio::time::sleep(pause(used, watermark)) => {}
                    _ = drain.signaled() => {}
                }
            }
            Ok(())
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_judged_once_a_second_and_at_once_when_it_is_too_much() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut judged = |millis, used| pace.judges(used, 100, start + Duration::from_millis(millis));
        assert!(judged(0, 10), "the first");
        assert!(!judged(900, 100) && judged(950, 101), "the first above");
        assert!(!judged(1000, 300) && !judged(1100, 90) && !judged(1200, 101), "its effect is waited for");
        assert!(judged(1950, 101) && !judged(2000, 101));
        assert!(judged(2950, 99) && judged(3000, 101), "above again");
    }

    #[test]
    fn near_the_watermark_it_is_looked_at_more_often() {
        assert_eq!([None, Some(0), Some(300)].map(|used| pause(used, 400)), [PERIOD; 3]);
        assert_eq!([Some(301), Some(500)].map(|used| pause(used, 400)), [LOOK; 2]);
    }
}
