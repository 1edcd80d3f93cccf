//! Portico's own series of each virtual cluster, as this process has them.
//!
//! Promises: read once for all who ask within some seconds, and forgotten when nobody asks any more. Must not know who counts
//! what: a series is a tenant's that has its labels.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::catalog::{CLUSTER, Head, NAMESPACE};
use super::lines::FamilyLines;
use super::shown::Shown;
use crate::error::Result;
use crate::exposition::{Line, sample};
use crate::names::TenantId;
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

/// Where they come from.
#[derive(Debug)]
pub(super) struct Own {
    metrics: Metrics,
    fresh: Duration,
    read: Mutex<Option<(Instant, Arc<OwnSeries>)>>,
}

impl OwnSeries {
    pub(super) fn of(&self, id: &TenantId) -> Option<&Arc<Shown>> {
        self.tenants.get(id)
    }
}

impl Own {
    pub(super) fn new(metrics: Metrics, fresh: Duration) -> Self {
        Self { metrics, fresh, read: Mutex::default() }
    }

    /// As they are now, or were a moment ago. Whoever comes while they are read waits for that.
    pub(super) async fn series(&self) -> Result<Arc<OwnSeries>> {
        let mut read = self.read.lock().await;
        if let Some((at, series)) = &*read
            && at.elapsed() < self.fresh
        {
            return Ok(Arc::clone(series));
        }
        let series = Arc::new(by_tenant(&self.metrics.render()?).await);
        *read = Some((Instant::now(), Arc::clone(&series)));
        Ok(series)
    }

    /// Forgets them once they are old.
    pub(super) async fn forget_old(&self) {
        let mut read = self.read.lock().await;
        if read.as_ref().is_some_and(|(at, _)| at.elapsed() >= self.fresh) {
            *read = None;
        }
    }
}

/// Parts a page of our own by tenants. Families stand together in it, their heads before them.
async fn by_tenant(page: &str) -> OwnSeries {
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
        Arc::new(Shown::new(lines, None))
    };
    let tenants = tenants.into_iter().map(|(id, lines)| (id, whole(lines))).collect();
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
        let series = by_tenant(page).await;
        let names: Vec<&str> = series.heads.iter().map(|head| head.name.as_str()).collect();
        assert_eq!(names, ["portico_a_total", "portico_b", "portico_c"]);
        let of = |name: &str, at: usize| {
            let shown = series.of(&TenantId::parse("n", name).expect("id")).expect("there");
            String::from_utf8(shown.family(at).to_vec()).expect("text")
        };
        assert_eq!(of("x", 0), "portico_a_total{namespace=\"n\",virtualcluster=\"x\",verb=\"read\"} 1\n");
        assert_eq!((of("x", 1), of("x", 2)), (String::new(), String::new()));
        assert_eq!(of("y", 2), "portico_c{namespace=\"n\",virtualcluster=\"y\"} 4\n");
    }
}
