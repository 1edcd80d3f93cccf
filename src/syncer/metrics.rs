//! The syncer's counters as Prometheus families.

use crate::runtime::telemetry::{Families, HistogramSample, Source};
use crate::syncer::stats::{Kept, LAG_BOUNDS_MS, Stats};

impl Source for Stats {
    fn collect(&self, families: &mut Families) {
        let now = self.snapshot();
        families.gauge("portico_syncer_running", "1 on the replica that syncs", &[], f64::from(u8::from(now.running)));
        families.gauge("portico_syncer_tenants", "Tenants that are synced here", &[], now.tenants as f64);
        let (ready, delayed, working) = now.queue;
        for (state, count) in [("ready", ready), ("delayed", delayed), ("working", working)] {
            let labels = [("state", state)];
            families.gauge(
                "portico_syncer_queue",
                "Objects waiting for a look or being looked at",
                &labels,
                count as f64,
            );
        }
        for Kept { id, bytes, cut, unsaid, objects } in &now.kept {
            let tenant = [("namespace", id.namespace().as_str()), ("cluster", id.name().as_str())];
            families.gauge("portico_syncer_cached_bytes", "Bytes kept of a tenant's objects", &tenant, *bytes as f64);
            let help = "Objects that are not synced, since there is no room to keep more of that tenant";
            families.gauge("portico_syncer_cut_objects", help, &tenant, *cut as f64);
            let help = "Events that were not written in a tenant, since it had too many";
            families.counter("portico_syncer_unsaid_events_total", help, &tenant, *unsaid);
            let help = "Pods and claims of a tenant by phase, and its Services";
            for (resource, phase, count) in objects {
                let labels = [tenant.as_slice(), &[("resource", resource), ("phase", phase)]].concat();
                families.gauge("portico_syncer_objects", help, &labels, *count as f64);
            }
        }
        for kind in &now.kinds {
            let labels = [("kind", kind.kind)];
            families.counter("portico_syncer_done_total", "Objects looked at to the end", &labels, kind.done);
            families.counter("portico_syncer_writes_total", "Writes to either side", &labels, kind.writes);
            families.counter("portico_syncer_errors_total", "Failed tries", &labels, kind.errors);
        }
        let mut count = 0;
        let mut buckets = Vec::with_capacity(LAG_BOUNDS_MS.len());
        for (bound, seen) in LAG_BOUNDS_MS.iter().zip(&now.lag) {
            count += seen;
            buckets.push((*bound as f64 / 1000.0, count));
        }
        count += now.lag.last().copied().unwrap_or_default();
        let sample = HistogramSample { buckets, sum: now.lag_sum_ms as f64 / 1000.0, count };
        families.histogram("portico_syncer_lag_seconds", "From a change to its end on the other side", &[], &sample);
    }
}
