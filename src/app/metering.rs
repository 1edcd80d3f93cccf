//! Metering in the process: its journal, and on the replica that syncs the meter and the books.

use std::sync::Arc;
use std::time::Duration;

use super::planes::Planes;
use crate::config::Config;
use crate::kubernetes::ApiClient;
use crate::metering::{self, Journal, Metered, Parts, Sources, Tenants};
use crate::runtime::drain::Drain;
use crate::runtime::task::{self, Task};
use crate::runtime::watched::IfDown;
use crate::syncer::Stats;
use crate::tenant::Registry;
use crate::usage::Usage;

/// Before metering is begun anew, at first.
const BACKOFF: Duration = Duration::from_secs(1);

/// What metering needs; none where nothing is metered.
pub(super) fn parts((planes, host): (&Planes, &ApiClient), config: &Config, process: &str) -> Option<Parts> {
    config.metering.enabled.then(|| Parts {
        config: config.metering.clone(),
        host: Arc::new(host.layered()),
        namespace: config.host.system_namespace.clone(),
        // It is a part of names.
        process: process.to_lowercase(),
        consumption: Arc::clone(&planes.consumption),
        clock: planes.clock.clone(),
    })
}

/// Keeps the journal of this process.
pub(super) fn follow(planes: &Planes, journal: &Arc<Journal>, drain: &Drain) -> Task {
    let (journal, during) = (Arc::clone(journal), drain.clone());
    planes.watched.keep("metering journal", IfDown::Noted, drain, move || {
        let (journal, drain) = (Arc::clone(&journal), during.clone());
        async move {
            journal.run(drain).await;
            Ok(())
        }
    })
}

/// What the meter reads.
pub(super) fn sources((planes, host): (&Planes, &ApiClient), usage: &Arc<Usage>, stats: &Arc<Stats>) -> Sources {
    let tenants = tenants(Arc::clone(stats), Arc::clone(&planes.registry));
    Sources { usage: Arc::clone(usage), host: host.clone(), tenants }
}

/// On the leading replica.
pub(super) async fn lead(meter: Option<(Parts, Sources)>, drain: Drain) {
    let Some((parts, sources)) = meter else { return };
    let clock = parts.clock.clone();
    let work = || {
        let led = metering::lead(parts.clone(), sources.clone(), drain.clone());
        async move {
            led.await;
            Ok(())
        }
    };
    // A fault of it is none of the syncer's, which shares the Lease.
    task::repeat("metering", &clock, BACKOFF, work).await;
}

/// Those that the syncer knows, with what it knows of their pods and claims.
fn tenants(stats: Arc<Stats>, registry: Arc<Registry>) -> Tenants {
    Arc::new(move || {
        let (kept, snapshot) = (stats.snapshot().kept, registry.load());
        let metered = kept.into_iter().filter_map(|kept| {
            let uid = snapshot.by_id(&kept.id)?.uid.clone();
            let has = |plural: &str| kept.objects.iter().any(|(of, _, count)| *of == plural && *count > 0);
            let (has_pods, has_claims) = (has("pods"), has("persistentvolumeclaims"));
            Some(Metered { id: kept.id, uid, has_pods, has_claims })
        });
        metered.collect()
    })
}
