//! Host objects that are being made, so that a tenant has no more of them than it may, however many are made at once.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::syncer::attempt::Stop;
use crate::syncer::kind::ObjectKey;
use crate::syncer::kind_state::{Being, Unknown};
use crate::syncer::tenant::{Member, TenantState};
use crate::translate::policy;

/// What the host made is known by then from its watch, or a list.
const KNOWN_BY: Duration = Duration::from_secs(120);

/// One that is being made: counted from before the call until it is known by its answer.
#[derive(Debug)]
pub struct Making<'a> {
    unknown: &'a Unknown,
    key: ObjectKey,
    lost_until: Option<Instant>,
}

impl<'a> Making<'a> {
    /// One more of this kind, unless the tenant has as many as it may.
    pub fn begin(
        tenant: &'a TenantState,
        member: &Member,
        (kind, key): (u16, &ObjectKey),
        now: Instant,
    ) -> Result<Self, Stop> {
        let state = tenant.kind(kind);
        let most = member.view.policy.most(state.plural);
        let mut unknown = state.making.0.lock();
        let index = state.index.read();
        unknown.retain(|key, being| match being {
            Being::Made => true,
            Being::Lost(until) => *until > now && index.name_of(key).is_none(),
        });
        // Whoever is tried again counts once.
        let others = unknown.keys().filter(|other| *other != key && index.name_of(other).is_none()).count();
        if index.count() + others >= most {
            return Err(Stop::Limited(format!(
                "not made on the host: this virtual cluster has {most} {} there, as many as it may have ({})",
                state.plural,
                policy::decides("objects")
            )));
        }
        unknown.insert(key.clone(), Being::Made);
        Ok(Self { unknown: &state.making, key: key.clone(), lost_until: None })
    }

    /// The call ended so. Whether an answer that was lost said yes, nobody knows.
    pub fn failed(&mut self, error: &Error, now: Instant) {
        let is_answer = error.api_status().is_some_and(|status| status.code < 500);
        if !is_answer && error.kind() != Kind::Refused {
            self.lost_until = Some(now + KNOWN_BY);
        }
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut unknown = self.unknown.0.lock();
        match self.lost_until {
            Some(until) => unknown.insert(self.key.clone(), Being::Lost(until)),
            None => unknown.remove(&self.key),
        };
    }
}
