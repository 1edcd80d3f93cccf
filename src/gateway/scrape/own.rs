//! Portico's own series of each virtual cluster, as this process has them.
//!
//! Promises: read once for all who ask within some seconds, and forgotten when nobody asks any more. Must not know who counts
//! what: a series is a tenant's that has its labels.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::catalog::{CLUSTER, Head, NAMESPACE};
use super::counts::Counts;
use super::flights::{Flight, Flights};
use super::lines::FamilyLines;
use super::shown::Shown;
use crate::error::{Error, Kind, Result};
use crate::exposition::{Line, sample};
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::runtime::telemetry::Metrics;
use crate::runtime::yielding;

/// As Portico's own metrics name a virtual cluster.
const OWN_CLUSTER: &str = "cluster";
const LINES_OF_WORK: usize = 64;

/// The series of all tenants at one moment.
#[derive(Debug, Default)]
pub(super) struct OwnSeries {
    pub(super) heads: Arc<[Head]>,
    tenants: HashMap<TenantId, Arc<Shown>>,
}

/// Nothing when they could not be read.
type Read = Flight<Option<Arc<OwnSeries>>>;

/// Where they come from.
#[derive(Debug)]
pub(super) struct Own {
    metrics: Metrics,
    counts: Arc<Counts>,
    fresh: Duration,
    clock: Clock,
    read: Mutex<Option<Read>>,
}

impl OwnSeries {
    pub(super) fn of(&self, id: &TenantId) -> Option<&Arc<Shown>> {
        self.tenants.get(id)
    }
}

impl Own {
    pub(super) fn new(metrics: Metrics, counts: &Arc<Counts>, fresh: Duration, clock: &Clock) -> Self {
        Self { metrics, counts: Arc::clone(counts), fresh, clock: clock.clone(), read: Mutex::default() }
    }

    /// As they are now, or were a moment ago. Whoever comes while they are read waits for that.
    pub(super) async fn series(&self, flights: &Flights) -> Result<Arc<OwnSeries>> {
        let series = self.flight(flights).result().await.flatten();
        series.ok_or_else(|| Error::own(Kind::Internal, "Portico's own series cannot be read"))
    }

    /// Forgets them once they are old. Whether they are still there.
    pub(super) fn forget_old(&self) -> bool {
        let mut read = self.read.lock();
        if read.as_ref().is_some_and(|read| self.is_old(read)) {
            *read = None;
        }
        read.is_some()
    }

    /// Forgets them, old or not, and also while they are being read: whoever comes from now on has them read anew.
    pub(super) fn forget(&self) {
        *self.read.lock() = None;
    }

    fn flight(&self, flights: &Flights) -> Read {
        let mut read = self.read.lock();
        if let Some(read) = &*read
            && !self.is_old(read)
        {
            return read.clone();
        }
        let (metrics, counts) = (self.metrics.clone(), Arc::clone(&self.counts));
        let begun = flights.begin(async move {
            let page = metrics.render().inspect_err(|error| tracing::warn!(%error, "cannot show own series")).ok()?;
            Some(Arc::new(by_tenant(&page, &counts).await))
        });
        *read = Some(begun.clone());
        begun
    }

    fn is_old(&self, read: &Read) -> bool {
        read.is_old(self.fresh, self.clock.instant())
    }
}

/// Parts a page of our own by tenants, as many as there is room for. Families stand together in it, their heads before them.
async fn by_tenant(page: &str, counts: &Arc<Counts>) -> OwnSeries {
    let (mut heads, mut help): (Vec<Head>, String) = (Vec::new(), String::new());
    let mut tenants: HashMap<TenantId, FamilyLines> = HashMap::new();
    for (number, line) in page.lines().enumerate() {
        match Line::parse(line.as_bytes()) {
            Some(Line::About { word: "HELP", text, .. }) => text.clone_into(&mut help),
            Some(Line::Type { family, kind }) => {
                let (name, help) = (family.to_owned(), std::mem::take(&mut help));
                heads.push(Head { name, kind: kind.to_owned(), help });
            }
            Some(Line::Sample(read)) => {
                let value = |name: &str| read.labels.get(name).unwrap_or_default();
                let Ok(id) = TenantId::parse(&value(NAMESPACE), &value(OWN_CLUSTER)) else { continue };
                let labels = [(NAMESPACE, id.namespace().as_str()), (CLUSTER, id.name().as_str())];
                let mut text = Vec::new();
                sample(&mut text, read.name, &read, &labels, |name| name != OWN_CLUSTER);
                let lines = tenants.entry(id).or_default();
                lines.begin(heads.len().saturating_sub(1));
                lines.text.append(&mut text);
            }
            _ => {}
        }
        if number % LINES_OF_WORK == 0 {
            yielding::charge(LINES_OF_WORK / 4).await;
        }
    }
    let whole = |mut lines: FamilyLines| {
        lines.begin(heads.len());
        let room = counts.own_room(lines.text.len())?;
        Some(Arc::new(Shown::new(lines, Some(room))))
    };
    let tenants = tenants.into_iter().filter_map(|(id, lines)| Some((id, whole(lines)?))).collect();
    OwnSeries { heads: heads.into(), tenants }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_page_is_parted_by_tenants() {
        let page = "# HELP portico_a_total A.\n# TYPE portico_a_total counter\n\
                    portico_a_total{namespace=\"n\",cluster=\"x\",verb=\"read\"} 1\n\
                    portico_a_total{namespace=\"n\",cluster=\"y\"} 2\n\
                    # HELP portico_b B.\n# TYPE portico_b gauge\nportico_b 3\n\
                    # HELP portico_c C.\n# TYPE portico_c gauge\nportico_c{namespace=\"n\",cluster=\"y\"} 4\n";
        let counts = Arc::new(Counts::new(180));
        let series = by_tenant(page, &counts).await;
        let names: Vec<&str> = series.heads.iter().map(|head| head.name.as_str()).collect();
        assert_eq!(names, ["portico_a_total", "portico_b", "portico_c"]);
        let of = |name: &str, at: usize| {
            let shown = series.of(&TenantId::parse("n", name).expect("id")).expect("there");
            String::from_utf8(shown.family(at).to_vec()).expect("text")
        };
        assert_eq!(of("x", 0), "portico_a_total{namespace=\"n\",virtualcluster=\"x\",verb=\"read\"} 1\n");
        assert_eq!((of("x", 1), of("x", 2)), (String::new(), String::new()));
        assert_eq!(of("y", 2), "portico_c{namespace=\"n\",virtualcluster=\"y\"} 4\n");
        // As long as these are kept there is no room for as much again.
        let again = by_tenant(page, &counts).await;
        assert!(again.tenants.is_empty() && !again.heads.is_empty());
        drop(series);
        assert_eq!(by_tenant(page, &counts).await.tenants.len(), 2);
    }
}
