//! What is shown of the host's API server: whether it answers, and whether it wants to be asked less.

use std::sync::Arc;

use crate::runtime::telemetry::{Families, Source};
use crate::upstream::Pool;

/// The connections to it.
pub(super) struct Host(Arc<Pool>);

impl Host {
    pub(super) fn new(pool: &Arc<Pool>) -> Self {
        Self(Arc::clone(pool))
    }
}

impl Source for Host {
    fn collect(&self, families: &mut Families) {
        show(families, self.0.is_reachable(), self.0.throttled());
    }
}

/// The families.
pub(super) fn show(families: &mut Families, is_reachable: bool, throttled: u64) {
    families.gauge(
        "portico_host_reachable",
        "1 while the host's API server answered the last request of this replica.",
        &[],
        f64::from(u8::from(is_reachable)),
    );
    families.counter(
        "portico_host_throttled_total",
        "Answers of the host's API server that refused a request for now (429).",
        &[],
        throttled,
    );
}
