//! Tabs: what a tenant used since it was looked at last.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
pub struct Consumption {
    tabs: RwLock<HashMap<(TenantId, String), Arc<Tab>>>,
    /// Somebody takes what is added.
    is_taken: AtomicBool,
}

#[derive(Debug, Default)]
struct Open {
    named: BTreeMap<String, Amounts>,
    none: Amounts,
    others: Amounts,
    /// Since the tab was opened.
    total: Amounts,
}

impl Tab {
    /// Something could not be read: what was used is more than is counted.
    pub fn missed(&self) {
        self.add("", &Amounts { missed: 1, ..Amounts::default() });
    }

    /// Adds what was used in a namespace; in none if it is empty. What is no name of a namespace stands with the others.
    pub fn add(&self, namespace: &str, amounts: &Amounts) {
        let mut open = self.0.lock();
        open.total.add(amounts);
        let row = if namespace.is_empty() { &mut open.none } else { open.row(namespace, amounts) };
        row.add(amounts);
    }

    fn take(&self) -> Open {
        let mut open = self.0.lock();
        let total = open.total;
        std::mem::replace(&mut *open, Open { total, ..Open::default() })
    }
}

impl Open {
    fn row(&mut self, namespace: &str, amounts: &Amounts) -> &mut Amounts {
        // Half of the names are left to where pods are: callers can invent as many as they like.
        let most = if amounts.is_calls_alone() { MOST_NAMESPACES / 2 } else { MOST_NAMESPACES };
        if !self.named.contains_key(namespace) {
            if self.named.len() >= most || VirtualNamespace::parse(namespace).is_err() {
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
        Arc::clone(self.tabs.write().entry(key).or_default())
    }

    /// Takes what was added since the last time into rows of this hour.
    pub fn take(&self, hour: Hour, rows: &mut Rows) {
        let tabs: Vec<_> = self.tabs.read().iter().map(|((id, _), tab)| (id.clone(), Arc::clone(tab))).collect();
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
        self.tabs.write().retain(|_, tab| Arc::strong_count(tab) > 1 || !tab.0.lock().is_taken());
    }

    /// Tabs stay until they are taken from now on.
    pub fn begin_to_take(&self) {
        self.is_taken.store(true, Ordering::Relaxed);
    }

    /// Forgets the tabs that nobody holds, where nobody takes them.
    pub fn forget(&self) {
        if !self.is_taken.load(Ordering::Relaxed) {
            self.tabs.write().retain(|_, tab| Arc::strong_count(tab) > 1);
        }
    }
}

impl Open {
    fn is_taken(&self) -> bool {
        self.named.is_empty() && self.none.is_nothing() && self.others.is_nothing()
    }
}

impl Source for Consumption {
    fn collect(&self, families: &mut Families) {
        let mut totals: BTreeMap<TenantId, Amounts> = BTreeMap::new();
        for ((id, _), tab) in self.tabs.read().iter() {
            totals.entry(id.clone()).or_default().add(&tab.0.lock().total);
        }
        for (id, total) in totals.iter().filter(|(_, total)| !total.is_nothing()) {
            show(families, id, total);
        }
    }
}

fn show(families: &mut Families, id: &TenantId, total: &Amounts) {
    let tenant = [("namespace", id.namespace().as_str()), ("cluster", id.name().as_str())];
    let mut counter = |name, help, value| families.counter(name, help, &tenant, value);
    counter("portico_usage_pod_seconds_total", "Time of pods on nodes, as this replica metered it.", total.pods / 1000);
    counter("portico_usage_cpu_seconds_total", "Time of processor cores that pods used.", total.cpu / 1000);
    counter("portico_usage_memory_mebibyte_seconds_total", "Working sets of pods over time.", total.memory);
    counter("portico_usage_volume_mebibyte_seconds_total", "Capacity of bound claims over time.", total.volumes);
    counter("portico_usage_network_received_bytes_total", "Bytes that pods received.", total.received);
    counter("portico_usage_network_sent_bytes_total", "Bytes that pods sent.", total.sent);
    counter("portico_usage_api_calls_total", "Calls of callers whom the virtual cluster knows.", total.calls);
    counter("portico_usage_api_bytes_total", "Bytes of these calls, both ways, but for streams.", total.call_bytes);
    counter(
        "portico_usage_stream_bytes_total",
        "Bytes of exec, attach, port-forward, logs and proxies, both ways.",
        total.stream_bytes,
    );
    counter("portico_usage_missed_total", "Readings that failed: more was used than is counted.", total.missed);
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
        assert_eq!(seen(&rows), [("-".to_owned(), 3), ("*".to_owned(), 4), ("default".to_owned(), 7)]);
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
        assert_eq!(consumption.tabs.read().len(), 1);
        for n in 0..1000 {
            second.add(&format!("invented-{n}"), &calls(1));
        }
        let mut rows = Rows::default();
        consumption.take(hour, &mut rows);
        assert_eq!(rows.iter().count(), MOST_NAMESPACES / 2 + 1);
        drop(second);
        consumption.forget();
        assert_eq!(consumption.tabs.read().len(), 0, "where nobody takes them");
    }
}
