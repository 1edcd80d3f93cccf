//! What the operator makes known as metrics: which replica operates, what became of requests for credentials, and the conditions of virtual clusters as they were
//! last decided or read.
//!
//! Promises: only of those that live, and only while this replica operates; the series of a cluster are as many as there are
//! conditions in this file, whatever stands in its status. Must not know how conditions come about.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::crd::VirtualClusterStatus;
use crate::names::TenantId;
use crate::operator::cluster::Cluster;
use crate::operator::halt::condition;
use crate::runtime::telemetry::{Families, Source};

const CONDITIONS: [&str; 16] = [
    condition::READY,
    condition::SERVICES,
    condition::CERTIFICATES,
    condition::CONTROL_PLANE,
    condition::STORE_REPLACED,
    condition::MASS_DELETION,
    condition::DURABLE,
    condition::STORE_FULL,
    condition::OBJECTS_SYNCED,
    condition::UP_TO_DATE,
    condition::NETWORK_POLICIES,
    condition::POLICIES_ENFORCED,
    condition::HOSTS,
    condition::AUTH,
    condition::KUBECONFIGS,
    condition::AUDIT,
];

/// Each of [`CONDITIONS`], where it says yes or no.
type Said = [Option<bool>; CONDITIONS.len()];

/// All that the operator shows.
#[derive(Debug, Default)]
pub struct Shown {
    /// All virtual clusters; none while another replica operates.
    clusters: Mutex<Option<HashMap<TenantId, Said>>>,
    pub(crate) credentials: CredentialsShown,
}

/// What became of CredentialRequests, since this process began.
#[derive(Debug, Default)]
pub(crate) struct CredentialsShown {
    pub(crate) issued: AtomicU64,
    pub(crate) denied: AtomicU64,
    /// Answered later.
    pub(crate) failed: AtomicU64,
}

/// While it lives, this replica operates.
pub(crate) struct Operating(Arc<Shown>);

impl Shown {
    /// This replica operates from now on.
    pub(crate) fn begin(self: &Arc<Self>) -> Operating {
        *self.clusters.lock() = Some(HashMap::new());
        Operating(Arc::clone(self))
    }

    /// A virtual cluster has this status.
    pub(crate) fn set(&self, cluster: &Cluster) {
        self.note(&cluster.id, &cluster.status);
    }

    /// It is gone, or about to go.
    pub(crate) fn forget(&self, id: &TenantId) {
        if let Some(clusters) = &mut *self.clusters.lock() {
            clusters.remove(id);
        }
    }

    fn note(&self, id: &TenantId, status: &VirtualClusterStatus) {
        if let Some(clusters) = &mut *self.clusters.lock() {
            clusters.insert(id.clone(), CONDITIONS.map(|kind| said(status, kind)));
        }
    }
}

impl Drop for Operating {
    fn drop(&mut self) {
        *self.0.clusters.lock() = None;
    }
}

/// Whoever has no word of it yet is not ready.
fn said(status: &VirtualClusterStatus, kind: &str) -> Option<bool> {
    let found = status.conditions.iter().find(|condition| condition.r#type == kind);
    match found.map(|condition| condition.status.as_str()) {
        Some("True") => Some(true),
        Some("False") => Some(false),
        _ => (kind == condition::READY).then_some(false),
    }
}

impl Source for Shown {
    fn collect(&self, families: &mut Families) {
        let clusters = self.clusters.lock();
        let is_running = f64::from(u8::from(clusters.is_some()));
        families.gauge("portico_operator_running", "1 on the replica that operates.", &[], is_running);
        let CredentialsShown { issued, denied, failed } = &self.credentials;
        for (outcome, number) in [("issued", issued), ("denied", denied), ("failed", failed)] {
            families.counter(
                "portico_operator_credential_requests_total",
                "CredentialRequests that were answered, and attempts that failed and are made again.",
                &[("outcome", outcome)],
                number.load(Ordering::Relaxed),
            );
        }
        for (id, all) in clusters.iter().flatten() {
            let tenant = [("namespace", id.namespace().as_str()), ("cluster", id.name().as_str())];
            for (kind, is_true) in
                CONDITIONS.into_iter().zip(all).filter_map(|(kind, said)| said.map(|yes| (kind, yes)))
            {
                families.gauge(
                    "portico_operator_condition",
                    "Whether a condition of a virtual cluster is true; shown by the replica that operates.",
                    &[tenant.as_slice(), &[("condition", kind)]].concat(),
                    f64::from(u8::from(is_true)),
                );
            }
        }
    }
}

/// All families, for the page about them.
#[cfg(test)]
pub(crate) fn example(id: &TenantId) -> Arc<dyn Source> {
    let shown = Shown::default();
    *shown.clusters.lock() = Some(HashMap::from([(id.clone(), [Some(true); CONDITIONS.len()])]));
    Arc::new(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::Condition;
    use crate::runtime::telemetry::Metrics;

    fn status(conditions: &[(&str, &str)]) -> VirtualClusterStatus {
        let condition = |(kind, status): &(&str, &str)| Condition {
            r#type: (*kind).to_owned(),
            status: (*status).to_owned(),
            ..Condition::default()
        };
        VirtualClusterStatus { conditions: conditions.iter().map(condition).collect(), ..Default::default() }
    }

    #[test]
    fn conditions_are_shown_by_who_operates_as_long_as_the_cluster_lives() {
        let (shown, metrics) = (Arc::new(Shown::default()), Metrics::default());
        metrics.register(Arc::clone(&shown) as Arc<dyn Source>);
        let page = || metrics.render().expect("renders");
        let [quiet, hostile] = ["quiet", "hostile"].map(|name| TenantId::parse("team", name).expect("valid"));
        shown.note(&quiet, &status(&[("Ready", "True")]));
        assert!(page().contains("portico_operator_running 0") && !page().contains("team"), "{}", page());
        let operating = shown.begin();
        shown.note(&quiet, &status(&[("Ready", "True"), ("StoreFull", "False"), ("UpToDate", "Unknown")]));
        let many: Vec<_> = (0..99).map(|n| (format!("Made{n}"), "True")).collect();
        shown.note(&hostile, &status(&many.iter().map(|(kind, yes)| (kind.as_str(), *yes)).collect::<Vec<_>>()));
        let text = page();
        for line in [
            "portico_operator_running 1",
            "portico_operator_condition{namespace=\"team\",cluster=\"quiet\",condition=\"Ready\"} 1",
            "portico_operator_condition{namespace=\"team\",cluster=\"quiet\",condition=\"StoreFull\"} 0",
            "portico_operator_condition{namespace=\"team\",cluster=\"hostile\",condition=\"Ready\"} 0",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(text.matches("portico_operator_condition{").count(), 3, "{text}");
        shown.forget(&quiet);
        assert!(!page().contains("quiet") && page().contains("hostile"));
        drop(operating);
        assert!(page().contains("portico_operator_running 0") && !page().contains("team"), "{}", page());
    }
}
