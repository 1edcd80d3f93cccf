//! Every family that the gateway can show, for the page about them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::metrics::{GatewayMetrics, VerbClass};
use super::scrape::counts::Counts;
use super::scrape::listed;
use super::served;
use super::tenants::Tenants;
use crate::config::GatewayConfig;
use crate::names::TenantId;
use crate::runtime::telemetry::{Families, Source};
use crate::tenant::memory::Memory;

struct Example {
    id: TenantId,
    gateway: GatewayMetrics,
    tenants: Arc<Tenants>,
    scrapes: Counts,
}

/// With a request of every kind and end.
pub(crate) fn example(id: TenantId) -> Arc<dyn Source> {
    let tenants = Tenants::new(&GatewayConfig::default(), &Memory::default(), &Arc::default(), true);
    let state = tenants.state(&id, "uid", 1);
    for verb in [VerbClass::Read, VerbClass::Write, VerbClass::Watch, VerbClass::Stream, VerbClass::Other] {
        for code in [0, 101, 200, 304, 404, 503] {
            state.metrics.finished(verb, code, Duration::from_millis(1), 0, 0);
        }
    }
    state.tokens.count_all();
    state.jwts.count_all();
    Arc::new(Example { id, gateway: GatewayMetrics::default(), tenants, scrapes: Counts::new(1) })
}

/// What the page of the fleet has beside these: name, type, help and labels.
pub(crate) fn of_the_fleet() -> Vec<[String; 4]> {
    listed::families()
}

impl Source for Example {
    fn collect(&self, families: &mut Families) {
        self.gateway.collect(families);
        self.tenants.collect(families);
        self.scrapes.collect(families);
        served::show(families, &self.id, true, Some(Timestamp::UNIX_EPOCH));
        served::show_shared(families, Some(Timestamp::UNIX_EPOCH));
    }
}
