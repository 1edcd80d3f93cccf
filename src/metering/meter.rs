//! Reads what pods use and claims hold, and adds it to the tenants' tabs.
//!
//! What is read stands for the time since the last reading: pods that came and went between two are not seen, and one that came
//! just now counts for all of it. A tenant without pods and claims costs nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::claims;
use super::network::Network;
use super::parts::{Metered, Parts, Sources, goes_on};
use crate::consumption::{Amounts, Consumption, Tab};
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::usage::{HostPod, Placed, PodsUsage};

/// Tenants that are read at once.
const AT_ONCE: usize = 2;
/// A reading stands for so many intervals at most: what was between, nobody knows.
const MOST_INTERVALS: u32 = 2;
const MEBIBYTE: u128 = 1 << 20;

/// What is known of one since the last reading.
struct Known {
    tab: Arc<Tab>,
    placed: Arc<Placed>,
    has_figures: bool,
    pods: Option<Instant>,
    claims: Option<Claims>,
}

struct Claims {
    counted: Instant,
    held: BTreeMap<String, u64>,
}

/// The pods of all that were read, and whose they are.
type Seen = Mutex<Vec<(Arc<Tab>, Arc<Placed>)>>;

pub(super) async fn run(parts: Parts, sources: Sources, drain: Drain) {
    let seen = Seen::default();
    tokio::join!(follow(&parts, &sources, &seen, drain.clone()), network(&parts, &sources, &seen, drain));
}

/// What passes their network is read beside: nodes that do not answer hold up nothing else.
async fn network(parts: &Parts, sources: &Sources, seen: &Seen, mut drain: Drain) {
    let (interval, mut network) = (parts.config.interval.0, Network::default());
    while sources.usage.kubelets().is_enabled() && goes_on(&mut drain, parts.clock.jitter(interval)).await {
        let placed = seen.lock().clone();
        tokio::select! {
            () = network.read(sources.usage.kubelets(), &placed) => {}
            _ = drain.leaving() => return,
        }
    }
}

async fn follow(parts: &Parts, sources: &Sources, seen: &Seen, mut drain: Drain) {
    let interval = parts.config.interval.0;
    let mut known: HashMap<(TenantId, String), Known> = HashMap::new();
    // Of the last round: those who had nothing then may have had it ever since.
    let (mut last, mut longest) = (None, interval * MOST_INTERVALS);
    while goes_on(&mut drain, parts.clock.jitter(interval)).await {
        let began = parts.clock.instant();
        let tenants: Vec<_> = (sources.tenants)().into_iter().filter(|t| t.has_pods || t.has_claims).collect();
        let round = tenants.into_iter().map(|tenant| {
            let key = (tenant.id.clone(), tenant.uid.clone());
            (known.remove(&key).unwrap_or_else(|| Known::new(&parts.consumption, &tenant, last)), key, tenant)
        });
        let round: Vec<_> = round.collect();
        let readings = round.into_iter().map(|(known, key, tenant)| {
            let clock = &parts.clock;
            async move { (key, known.read(sources, &tenant, clock, longest).await) }.boxed()
        });
        let mut readings = stream::iter(readings).buffer_unordered(AT_ONCE);
        let mut after = HashMap::new();
        loop {
            tokio::select! {
                next = readings.next() => match next {
                    Some((key, read)) => drop(after.insert(key, read)),
                    None => break,
                },
                _ = drain.leaving() => return,
            }
        }
        drop(readings);
        known = after;
        *seen.lock() = known.values().map(|known| (Arc::clone(&known.tab), Arc::clone(&known.placed))).collect();
        // A round that takes long is followed late by the next one, and no failure of anybody.
        (last, longest) = (Some(began), interval * MOST_INTERVALS + began.elapsed());
    }
}

impl Known {
    fn new(consumption: &Consumption, tenant: &Metered, since: Option<Instant>) -> Self {
        let tab = consumption.tab(&tenant.id, &tenant.uid);
        Self { tab, placed: Arc::default(), has_figures: false, pods: since, claims: None }
    }

    async fn read(mut self, sources: &Sources, tenant: &Metered, clock: &Clock, longest: Duration) -> Self {
        if tenant.has_pods {
            self.read_pods(sources, tenant, clock, longest).await;
        } else {
            (self.pods, self.placed) = (Some(clock.instant()), Arc::default());
        }
        if tenant.has_claims {
            self.read_claims(sources, tenant, clock, longest).await;
        } else {
            self.claims = None;
        }
        self
    }

    async fn read_pods(&mut self, sources: &Sources, tenant: &Metered, clock: &Clock, longest: Duration) {
        let placed = match sources.usage.placed(&tenant.id, &tenant.uid).await {
            Ok(placed) => placed,
            Err(error) => {
                tracing::debug!(tenant = %tenant.id, %error, "pods could not be metered");
                self.tab.missed();
                return;
            }
        };
        let figures = sources.usage.pods(&tenant.id, &tenant.uid).await;
        let now = clock.instant();
        let since = self.pods.replace(now).map(|since| (now - since).min(longest)).unwrap_or_default();
        match &figures {
            Ok(_) => self.has_figures = true,
            Err(error) => {
                tracing::debug!(tenant = %tenant.id, %error, "what pods use could not be metered");
                // Where there never are any, nothing is missed.
                if self.has_figures {
                    self.tab.missed();
                }
            }
        }
        let figures = figures.ok();
        for (within, used) in pods(&placed, figures.as_deref(), since) {
            self.tab.add(within, &used);
        }
        self.placed = placed;
    }

    async fn read_claims(&mut self, sources: &Sources, tenant: &Metered, clock: &Clock, longest: Duration) {
        let now = clock.instant();
        let mut claims = self.claims.take().unwrap_or_else(|| Claims { counted: now, held: BTreeMap::new() });
        let since = (now - claims.counted).min(longest);
        match claims::capacities(&sources.host, &tenant.id).await {
            Ok(held) => claims.held = held,
            // They are taken for as they were.
            Err(error) => {
                tracing::debug!(tenant = %tenant.id, %error, "claims could not be metered");
                self.tab.missed();
            }
        }
        claims.counted = now;
        for (namespace, bytes) in &claims.held {
            let volumes = over(u128::from(*bytes), since);
            self.tab.add(namespace, &Amounts { volumes, ..Amounts::default() });
        }
        self.claims = Some(claims);
    }
}

/// By namespace, for this time. Pods that have ended stand on their node without figures; where there are none of any pod, all
/// that stand on a node count.
fn pods<'a>(placed: &'a Placed, figures: Option<&PodsUsage>, since: Duration) -> BTreeMap<&'a str, Amounts> {
    let mut sums: BTreeMap<&str, (u128, u128, u128)> = BTreeMap::new();
    for (name, HostPod { node, namespace, .. }) in placed {
        let used = figures.and_then(|figures| figures.get(name));
        if node.is_empty() || (figures.is_some() && used.is_none()) {
            continue;
        }
        let (pods, cores, bytes) = sums.entry(namespace).or_default();
        *pods += 1;
        for container in used.into_iter().flat_map(|pod| &pod.containers) {
            *cores += u128::from(container.cpu_nanocores);
            *bytes += u128::from(container.memory_bytes);
        }
    }
    let millis = since.as_millis();
    let amounts = |(pods, cores, bytes): (u128, u128, u128)| Amounts {
        pods: short(pods * millis),
        cpu: short(cores * millis / 1_000_000_000),
        memory: over(bytes, since),
        ..Amounts::default()
    };
    sums.into_iter().map(|(namespace, sums)| (namespace, amounts(sums))).collect()
}

/// So many bytes over this time, in mebibyte seconds. Many a pod has less than one mebibyte.
fn over(bytes: u128, time: Duration) -> u64 {
    short(bytes.saturating_mul(time.as_millis()) / 1000 / MEBIBYTE)
}

fn short(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::HostName;
    use crate::usage::{ContainerUsage, PodUsage};

    #[test]
    fn what_is_read_stands_for_the_time_since_the_last_reading() {
        let pod = |node: &str, namespace: &str| HostPod {
            node: node.to_owned(),
            uid: "u".to_owned(),
            namespace: namespace.to_owned(),
            name: "web".to_owned(),
            virtual_uid: "v".to_owned(),
        };
        let name = |name: &str| HostName::parse(name).expect("name");
        let placed = Placed::from([
            (name("a"), pod("node-1", "default")),
            (name("b"), pod("node-1", "default")),
            (name("waits"), pod("", "default")),
            (name("c"), pod("node-2", "other")),
        ]);
        let container =
            |cpu_nanocores, memory_bytes| ContainerUsage { name: "c".to_owned(), cpu_nanocores, memory_bytes };
        let used = |containers| PodUsage {
            node: "node-1".to_owned(),
            at: jiff::Timestamp::UNIX_EPOCH,
            window: Duration::from_secs(15),
            containers,
        };
        let figures = PodsUsage::from([
            (name("a"), used(vec![container(250_000_000, 3 << 20), container(250_000_000, 1 << 20)])),
            (name("waits"), used(vec![container(1_000_000_000, 1 << 30)])),
            (name("foreign"), used(vec![container(1_000_000_000, 1 << 30)])),
        ]);
        let found = pods(&placed, Some(&figures), Duration::from_secs(30));
        let expected = Amounts { pods: 30_000, cpu: 15_000, memory: 120, ..Amounts::default() };
        assert_eq!(found, BTreeMap::from([("default", expected)]), "those without figures have ended");
        let found = pods(&placed, None, Duration::from_secs(30));
        let stood = |millis| Amounts { pods: millis, ..Amounts::default() };
        assert_eq!(found, BTreeMap::from([("default", stood(60_000)), ("other", stood(30_000))]));
        let small = PodsUsage::from([(name("a"), used(vec![container(0, 900 << 10)]))]);
        assert_eq!(pods(&placed, Some(&small), Duration::from_secs(30))["default"].memory, 26, "less than a mebibyte");
        assert!(pods(&placed, Some(&figures), Duration::ZERO).values().all(Amounts::is_nothing));
    }
}
