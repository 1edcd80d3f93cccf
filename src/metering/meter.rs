//! Reads what pods use and claims hold, and adds it to the tenants' tabs.
//!
//! What is read stands for the time since the last reading: pods that came and went between two are not seen, and one that came
//! just now counts for all of it. A tenant without pods and claims costs nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
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
/// Claims seldom change: they are read again after this.
const CLAIMS_FRESH: Duration = Duration::from_secs(300);
/// A reading stands for so many intervals at most: what was between, nobody knows.
const MOST_INTERVALS: u32 = 2;
const MEBIBYTE: u128 = 1 << 20;

/// What is known of one since the last reading.
struct Known {
    tab: Arc<Tab>,
    placed: Arc<Placed>,
    pods: Option<Instant>,
    claims: Option<Claims>,
}

struct Claims {
    read: Instant,
    counted: Instant,
    held: BTreeMap<String, u64>,
}

pub(super) async fn run(parts: Parts, sources: Sources, mut drain: Drain) {
    let interval = parts.config.interval.0;
    let (mut known, mut network): (HashMap<(TenantId, String), Known>, _) = (HashMap::new(), Network::default());
    while goes_on(&mut drain, parts.clock.jitter(interval)).await {
        let tenants: Vec<_> = (sources.tenants)().into_iter().filter(|t| t.has_pods || t.has_claims).collect();
        let round = tenants.into_iter().map(|tenant| {
            let key = (tenant.id.clone(), tenant.uid.clone());
            (known.remove(&key).unwrap_or_else(|| Known::new(&parts.consumption, &tenant)), key, tenant)
        });
        let round: Vec<_> = round.collect();
        let longest = interval * MOST_INTERVALS;
        let readings = round.into_iter().map(|(known, key, tenant)| {
            let (sources, clock) = (&sources, &parts.clock);
            async move { (key, known.read(sources, &tenant, clock, longest).await) }
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
        let placed: Vec<_> = known.values().map(|known| (Arc::clone(&known.tab), Arc::clone(&known.placed))).collect();
        tokio::select! {
            () = network.read(sources.usage.kubelets(), &placed) => {}
            _ = drain.leaving() => return,
        }
    }
}

impl Known {
    fn new(consumption: &Consumption, tenant: &Metered) -> Self {
        Self { tab: consumption.tab(&tenant.id, &tenant.uid), placed: Arc::default(), pods: None, claims: None }
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
        let placed = match sources.usage.placed(&tenant.id).await {
            Ok(placed) => placed,
            Err(error) => {
                tracing::debug!(tenant = %tenant.id, %error, "pods could not be metered");
                self.tab.missed();
                return;
            }
        };
        let figures = sources.usage.pods(&tenant.id).await.inspect_err(|error| {
            tracing::debug!(tenant = %tenant.id, %error, "what pods use could not be metered");
            self.tab.missed();
        });
        let now = clock.instant();
        let since = self.pods.replace(now).map(|since| (now - since).min(longest));
        let none = PodsUsage::new();
        let figures = figures.as_deref().unwrap_or(&none);
        self.placed = Arc::clone(&placed);
        for (namespace, amounts) in pods(&placed, figures, since.unwrap_or_default()) {
            self.tab.add(namespace, &amounts);
        }
    }

    async fn read_claims(&mut self, sources: &Sources, tenant: &Metered, clock: &Clock, longest: Duration) {
        let now = clock.instant();
        let mut claims =
            self.claims.take().unwrap_or_else(|| Claims { read: now, counted: now, held: BTreeMap::new() });
        let since = (now - claims.counted).min(longest);
        if claims.held.is_empty() || now - claims.read >= CLAIMS_FRESH {
            match claims::capacities(&sources.host, &tenant.id).await {
                Ok(held) => (claims.read, claims.held) = (now, held),
                Err(error) => {
                    tracing::debug!(tenant = %tenant.id, %error, "claims could not be metered");
                    self.tab.missed();
                }
            }
        }
        claims.counted = now;
        for (namespace, bytes) in &claims.held {
            let volumes = over(u128::from(*bytes) / MEBIBYTE, since);
            self.tab.add(namespace, &Amounts { volumes, ..Amounts::default() });
        }
        self.claims = Some(claims);
    }
}

/// By namespace, for this time.
fn pods<'a>(placed: &'a Placed, figures: &PodsUsage, since: Duration) -> BTreeMap<&'a str, Amounts> {
    let mut sums: BTreeMap<&str, (u128, u128, u128)> = BTreeMap::new();
    for (name, HostPod { node, namespace, .. }) in placed {
        if node.is_empty() {
            continue;
        }
        let (pods, cores, bytes) = sums.entry(namespace).or_default();
        *pods += 1;
        for container in figures.get(name).into_iter().flat_map(|pod| &pod.containers) {
            *cores += u128::from(container.cpu_nanocores);
            *bytes += u128::from(container.memory_bytes);
        }
    }
    let millis = since.as_millis();
    let amounts = |(pods, cores, bytes): (u128, u128, u128)| Amounts {
        pods: short(pods * millis),
        cpu: short(cores * millis / 1_000_000_000),
        memory: over(bytes / MEBIBYTE, since),
        ..Amounts::default()
    };
    sums.into_iter().map(|(namespace, sums)| (namespace, amounts(sums))).collect()
}

/// So much over this time, in units and seconds.
fn over(amount: u128, time: Duration) -> u64 {
    short(amount.saturating_mul(time.as_millis()) / 1000)
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
        let found = pods(&placed, &figures, Duration::from_secs(30));
        let expected = Amounts { pods: 60_000, cpu: 15_000, memory: 120, ..Amounts::default() };
        assert_eq!(found["default"], expected);
        assert_eq!((found["other"], found.len()), (Amounts { pods: 30_000, ..Amounts::default() }, 2));
        assert!(pods(&placed, &figures, Duration::ZERO).values().all(Amounts::is_nothing));
    }
}
