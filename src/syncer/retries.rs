//! How whoever keeps an object in a tenant waits when that does not go.

use std::time::Duration;

use crate::error::{Error, Kind};
use crate::syncer::tenant::TenantState;
use crate::syncer::world::World;

/// What the tenant's API server refuses (an admission policy, an address out of its range) is tried again.
const REFUSED: Duration = Duration::from_secs(300);
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// Failures in a row.
pub(super) struct Retries<'a> {
    world: &'a World,
    tenant: &'a TenantState,
    /// For the log.
    what: &'static str,
    failures: u32,
}

impl<'a> Retries<'a> {
    pub(super) fn new(world: &'a World, tenant: &'a TenantState, what: &'static str) -> Self {
        Self { world, tenant, what, failures: 0 }
    }

    /// It went.
    pub(super) fn over(&mut self) {
        self.failures = 0;
    }

    /// Until it is worth another try. A refusal is told once.
    pub(super) async fn wait(&mut self, error: &Error) {
        let is_refused = matches!(error.kind(), Kind::Invalid | Kind::Forbidden | Kind::BadRequest);
        if is_refused && self.failures == 0 {
            tracing::warn!(tenant = %self.tenant.id, %error, "the tenant's API server refuses {}", self.what);
        }
        let backoff = FIRST.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.failures += 1;
        tokio::time::sleep(self.world.clock.jitter(if is_refused { REFUSED } else { backoff })).await;
    }
}
