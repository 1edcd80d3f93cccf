//! How whoever keeps an object in a tenant waits: until somebody changed it, or when it does not go.

use std::time::Duration;

use tokio::sync::Notify;

use crate::error::{Error, Kind};
use crate::syncer::tenant::TenantState;
use crate::syncer::world::World;

/// For others to put theirs.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at without a reason, and however often somebody changes it.
const LOOK: Duration = Duration::from_secs(300);
/// What the tenant's API server refuses (an admission policy, an address out of its range) is tried again.
const REFUSED: Duration = Duration::from_secs(300);
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// Of one object in one tenant.
pub(super) struct Pauses<'a> {
    world: &'a World,
    tenant: &'a TenantState,
    /// For the log.
    what: &'static str,
    /// In a row.
    failures: u32,
}

impl<'a> Pauses<'a> {
    pub(super) fn new(world: &'a World, tenant: &'a TenantState, what: &'static str) -> Self {
        Self { world, tenant, what, failures: 0 }
    }

    /// It went. Until it is to be looked at again: true when it changed, and whoever changed it had his minute.
    pub(super) async fn settled(&mut self, changed: &Notify) -> bool {
        self.failures = 0;
        let clock = &self.world.clock;
        let (last, mut is_changed) = (clock.instant() + clock.jitter(LOOK), false);
        let mut until = last;
        while tokio::time::timeout_at(until, changed.notified()).await.is_ok() {
            is_changed = true;
            until = last.min(clock.instant() + clock.jitter(PATIENCE));
        }
        is_changed
    }

    /// For whoever took it away.
    pub(super) async fn patience(&self) {
        tokio::time::sleep(self.world.clock.jitter(PATIENCE)).await;
    }

    /// Until it is worth another try. A refusal is told once.
    pub(super) async fn failed(&mut self, error: &Error) {
        let is_refused = matches!(error.kind(), Kind::Invalid | Kind::Forbidden | Kind::BadRequest);
        if is_refused && self.failures == 0 {
            tracing::warn!(tenant = %self.tenant.id, %error, "the tenant's API server refuses {}", self.what);
        }
        let backoff = FIRST.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.failures += 1;
        tokio::time::sleep(self.world.clock.jitter(if is_refused { REFUSED } else { backoff })).await;
    }
}
