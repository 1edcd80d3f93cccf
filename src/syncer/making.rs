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
        // What an earlier call may have made counts on, whatever becomes of this one.
        let lost_until = match unknown.insert(key.clone(), Being::Made) {
            Some(Being::Lost(until)) => Some(until),
            _ => None,
        };
        Ok(Self { unknown: &state.making, key: key.clone(), lost_until })
    }

    /// The host has it, and that is known.
    pub fn done(making: Option<Self>) {
        if let Some(mut making) = making {
            making.lost_until = None;
        }
    }

    /// The call ended so. Whether an answer that was lost said yes, nobody knows.
    pub fn failed(making: &mut Option<Self>, error: &Error, now: Instant) {
        let is_answer = error.api_status().is_some_and(|status| status.code < 500);
        if let Some(making) = making.as_mut().filter(|_| !is_answer && error.kind() != Kind::Refused) {
            making.lost_until = Some(now + KNOWN_BY);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{PolicyBounds, SyncerConfig};
    use crate::crd::policy::{GrantedPolicy, Policy};
    use crate::crd::{Limits, OnLoss};
    use crate::error::Side;
    use crate::error::status::Status;
    use crate::kubernetes::testing::{Faults, Server};
    use crate::syncer::budget::Budget;
    use crate::syncer::catalog::Catalog;
    use crate::syncer::kinds::{self, Switches};
    use crate::translate::testing::view;

    #[test]
    fn what_a_lost_answer_may_have_made_counts_until_it_is_known() {
        let catalog = Catalog::new(kinds::all(&Switches::default()));
        let pods = catalog.index("Pod").expect("known");
        let one = Policy { objects: [("pods".to_owned(), 1)].into(), ..Policy::default() };
        let member = Member {
            view: crate::syncer::kind::TenantView { policy: GrantedPolicy::of(PolicyBounds::default(), one), ..view() },
            api: Arc::new(Server::new("nobody", Side::Backend, Faults::none())),
            fingerprint: String::new(),
            adopts: false,
            on_loss: OnLoss::Hold,
            limits: Limits::default(),
            metrics_at_gateway: false,
        };
        let hosts = catalog.iter().map(|_| None).collect();
        let budget = Budget::new(&SyncerConfig::default()).share(Arc::default());
        let tenant = TenantState::new(1, member, &catalog, hosts, budget);
        let (member, now) = (tenant.bound(), Instant::now());
        let [a, b] = ["a", "b"].map(|name| ObjectKey { namespace: "default".to_owned(), name: name.to_owned() });
        let begin = |key: &ObjectKey, now| Making::begin(&tenant, &member, (pods, key), now).ok();
        let lost = Error::host(Kind::Timeout, "no answer");
        let refused = Error::from_status(Side::Host, Status::failure(429, "TooManyRequests", "later"));

        let mut making = begin(&a, now);
        assert!(making.is_some() && begin(&b, now).is_none(), "it counts while it is made");
        Making::failed(&mut making, &refused, now);
        drop(making);
        let mut making = begin(&b, now);
        assert!(making.is_some(), "a refusal made nothing");
        Making::failed(&mut making, &lost, now);
        drop(making);
        assert!(begin(&a, now).is_none(), "nobody knows");
        let mut again = begin(&b, now);
        Making::failed(&mut again, &refused, now);
        drop(again);
        assert!(begin(&a, now).is_none(), "a refusal says nothing of the call before");
        Making::done(begin(&b, now));
        let mut making = begin(&a, now);
        Making::failed(&mut making, &lost, now);
        drop(making);
        assert!(begin(&b, now).is_none() && begin(&b, now + KNOWN_BY).is_some(), "it is known by then");
    }
}
