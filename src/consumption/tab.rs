//! Tabs: what a tenant used since it was looked at last.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::MOST_NAMESPACES;
use super::amounts::Amounts;
use super::rows::{Hour, Rows, Within};
use crate::names::{TenantId, VirtualNamespace};
use crate::runtime::telemetry::{Families, Source};

/// Of one tenant, in this process.
#[derive(Debug, Default)]
pub struct Tab(Mutex<Open>);

/// All of this process.
#[derive(Debug, Default)]
pub struct Consumption(RwLock<HashMap<(TenantId, String), Arc<Tab>>>);

#[derive(Debug, Default)]
struct Open {
    named: BTreeMap<String, Amounts>,
    none: Amounts,
    others: Amounts,
    /// Since the tab was opened.
    total: Amounts,
    /// Readings that failed, since then.
    missed: u64,
}

impl Tab {
    /// Something could not be read: what was used is more than is counted.
    pub fn missed(&self) {
        self.0.lock().missed += 1;
    }

    /// Adds what was used in a namespace; in none if it is empty. What is no name of a namespace stands with the others.
    pub fn add(&self, namespace: &str, amounts: &Amounts) {
        let mut open = self.0.lock();
        open.total.add(amounts);
        let row = if namespace.is_empty() { &mut open.none } else { open.row(namespace) };
        row.add(amounts);
    }

    fn take(&self) -> Open {
        let mut open = self.0.lock();
        let (total, missed) = (open.total, open.missed);
        std::mem::replace(&mut *open, Open { total, missed, ..Open::default() })
    }
}

impl Open {
    fn row(&mut self, namespace: &str) -> &mut Amounts {
        if !self.named.contains_key(namespace) {
            if self.named.len() >= MOST_NAMESPACES || VirtualNamespace::parse(namespace).is_err() {
                return &mut self.others;
            }
            self.named.insert(namespace.to_owned(), Amounts::default());
        }
        self.named.get_mut(namespace).unwrap_or(&mut self.others)
    }
}

impl Consumption {
    /// The tab of one tenant: there as long as somebody holds it.
    pub fn tab(&self, tenant: &TenantId, uid: &str) -> Arc<Tab> {
        let key = (tenant.clone(), uid.to_owned());
        Arc::clone(self.0.write().entry(key).or_default())
    }

    /// Takes what was added since the last time into rows of this hour.
    pub fn take(&self, hour: Hour, rows: &mut Rows) {
        let tabs: Vec<_> = self.0.read().iter().map(|((id, _), tab)| (id.clone(), Arc::clone(tab))).collect();
        for (id, tab) in tabs {
            let open = tab.take();
            for (name, amounts) in &open.named {
                let within = VirtualNamespace::parse(name).map_or(Within::Others, Within::Namespace);
                rows.add(&id, hour, within, amounts);
            }
            rows.add(&id, hour, Within::None, &open.none);
            rows.add(&id, hour, Within::Others, &open.others);
        }
        // Nobody adds to these any more, and what was added last is taken now or the next time.
        self.0.write().retain(|_, tab| Arc::strong_count(tab) > 1 || !tab.0.lock().is_taken());
    }
}

impl Open {
    fn is_taken(&self) -> bool {
        self.named.is_empty() && self.none.is_nothing() && self.others.is_nothing()
    }
}

impl Source for Consumption {
    fn collect(&self, families: &mut Families) {
        let mut totals: BTreeMap<TenantId, (Amounts, u64)> = BTreeMap::new();
        for ((id, _), tab) in self.0.read().iter() {
            let (open, (total, missed)) = (tab.0.lock(), totals.entry(id.clone()).or_default());
            total.add(&open.total);
            *missed += open.missed;
        }
        for (id, (total, missed)) in totals.iter().filter(|(_, (total, missed))| *missed > 0 || !total.is_nothing()) {
            show(families, id, total, *missed);
        }
    }
}

const MEBIBYTE: u64 = 1 << 20;

fn show(families: &mut Families, id: &TenantId, total: &Amounts, missed: u64) {
    let tenant = [("namespace", id.namespace().as_str()), ("cluster", id.name().as_str())];
    let mut counter = |name, help, value| families.counter(name, help, &tenant, value);
    counter("portico_usage_pod_seconds_total", "Time of pods on nodes, as this replica metered it.", total.pods / 1000);
    counter("portico_usage_cpu_seconds_total", "Time of processor cores that pods used.", total.cpu / 1000);
    let bytes = |mebibytes: u64| mebibytes.saturating_mul(MEBIBYTE);
    counter("portico_usage_memory_byte_seconds_total", "Working sets of pods over time.", bytes(total.memory));
    counter("portico_usage_volume_byte_seconds_total", "Capacity of bound claims over time.", bytes(total.volumes));
    counter("portico_usage_network_received_bytes_total", "Bytes that pods received.", total.received);
    counter("portico_usage_network_sent_bytes_total", "Bytes that pods sent.", total.sent);
    counter("portico_usage_api_calls_total", "Calls of callers whom the virtual cluster knows.", total.calls);
    counter("portico_usage_api_bytes_total", "Bytes of these calls, both ways, but for streams.", total.call_bytes);
    counter(
        "portico_usage_stream_bytes_total",
        "Bytes of exec, attach, port-forward, logs and proxies, both ways.",
        total.stream_bytes,
    );
    counter("portico_usage_missed_total", "Readings that failed: more was used than is counted.", missed);
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::runtime::telemetry::Metrics;

    fn calls(calls: u64) -> Amounts {
        Amounts { calls, ..Amounts::default() }
    }

    #[test]
    fn what_was_added_is_taken_once_and_the_total_stays() {
        let (consumption, hour) = (Arc::new(Consumption::default()), Hour::of(Timestamp::UNIX_EPOCH));
        let id = TenantId::parse("team", "dev").expect("id");
        let tab = consumption.tab(&id, "1");
        for (namespace, number) in [("default", 2), ("", 3), ("Not/A Name", 4), ("default", 5)] {
            tab.add(namespace, &calls(number));
        }
        let mut rows = Rows::default();
        consumption.take(hour, &mut rows);
        let seen = |rows: &Rows| rows.iter().map(|(_, _, at, used)| (at.to_string(), used.calls)).collect::<Vec<_>>();
        assert_eq!(seen(&rows), [("default".to_owned(), 7), ("-".to_owned(), 3), ("*".to_owned(), 4)]);
        let mut again = Rows::default();
        consumption.take(hour, &mut again);
        assert!(again.is_empty());
        let metrics = Metrics::default();
        metrics.register(Arc::clone(&consumption) as Arc<dyn Source>);
        let shown = metrics.render().expect("page");
        assert!(shown.contains(r#"portico_usage_api_calls_total{namespace="team",cluster="dev"} 14"#), "{shown}");
    }

    #[test]
    fn a_tab_goes_with_its_holders_and_what_they_added_last_is_not_lost() {
        let (consumption, hour) = (Consumption::default(), Hour::of(Timestamp::UNIX_EPOCH));
        let id = TenantId::parse("team", "dev").expect("id");
        let (first, second) = (consumption.tab(&id, "1"), consumption.tab(&id, "2"));
        assert!(!Arc::ptr_eq(&first, &second), "a cluster that is made again begins at zero");
        first.add("", &calls(1));
        drop(first);
        let mut rows = Rows::default();
        consumption.take(hour, &mut rows);
        assert_eq!(rows.iter().map(|(_, _, _, used)| used.calls).sum::<u64>(), 1);
        assert_eq!(consumption.0.read().len(), 1);
        for n in 0..1000 {
            second.add(&format!("invented-{n}"), &calls(1));
        }
        let mut rows = Rows::default();
        consumption.take(hour, &mut rows);
        assert_eq!(rows.iter().count(), MOST_NAMESPACES + 1);
    }
}
