//! What the gateway shows of every virtual cluster that it serves, whether anybody asks for it or not: whether its API
//! server answers, and until when its certificate is good.
//!
//! Promises: read at each scrape from what is in force. Must not know requests.

use std::sync::Arc;

use jiff::Timestamp;

use crate::names::TenantId;
use crate::runtime::telemetry::{Families, Source};
use crate::tenant::Registry;
use crate::tls::SharedCertificate;

/// All of them.
pub(super) struct Served {
    registry: Arc<Registry>,
    shared: SharedCertificate,
}

impl Served {
    pub(super) fn new(registry: &Arc<Registry>, shared: &SharedCertificate) -> Self {
        Self { registry: Arc::clone(registry), shared: shared.clone() }
    }
}

impl Source for Served {
    fn collect(&self, families: &mut Families) {
        show_shared(families, self.shared.load().and_then(|certificate| certificate.not_after()));
        for tenant in self.registry.load().tenants() {
            show(families, &tenant.id, tenant.backend.pool.is_away(), tenant.server_tls.not_after());
        }
    }
}

/// Of one virtual cluster.
pub(super) fn show(families: &mut Families, id: &TenantId, is_away: bool, not_after: Option<Timestamp>) {
    let tenant = [("namespace", id.namespace().as_str()), ("cluster", id.name().as_str())];
    families.gauge(
        "portico_gateway_backend_away",
        "1 while the API server of a virtual cluster does not answer this replica, so that requests are refused (503).",
        &tenant,
        f64::from(u8::from(is_away)),
    );
    if let Some(end) = not_after {
        families.gauge(
            "portico_gateway_certificate_not_after_timestamp_seconds",
            "End of the certificate that a virtual cluster is served with under its own port and names.",
            &tenant,
            end.as_second() as f64,
        );
    }
}

/// Of what they share.
pub(super) fn show_shared(families: &mut Families, not_after: Option<Timestamp>) {
    if let Some(end) = not_after {
        families.gauge(
            "portico_gateway_shared_certificate_not_after_timestamp_seconds",
            "End of the certificate of the shared listener and of the metrics.",
            &[],
            end.as_second() as f64,
        );
    }
}
