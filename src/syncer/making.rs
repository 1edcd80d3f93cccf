//! Host objects that are being made, so that a tenant has no more of them than it may, however many are made at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::syncer::attempt::Stop;
use crate::syncer::tenant::{Member, TenantState};
use crate::translate::policy;

/// One that is being made: counted from before the call until it is known by its answer.
#[derive(Debug)]
pub struct Making<'a>(&'a AtomicUsize);

impl<'a> Making<'a> {
    /// One more of this kind, unless the tenant has as many as it may.
    pub fn begin(tenant: &'a TenantState, member: &Member, kind: u16) -> Result<Self, Stop> {
        let state = tenant.kind(kind);
        let number = state.making.fetch_add(1, Ordering::AcqRel) + 1;
        let making = Self(&state.making);
        let most = member.view.policy.most(state.plural);
        if tenant.copy_count(kind) + number <= most {
            return Ok(making);
        }
        Err(Stop::Limited(format!(
            "not made on the host: this virtual cluster has {most} {} there, as many as it may have ({})",
            state.plural,
            policy::decides("objects")
        )))
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
