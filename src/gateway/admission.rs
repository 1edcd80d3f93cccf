//! Who in a tenant's admission judges CONNECT, so that no stream passes a judge whom the gateway cannot ask.
//!
//! The rules of tenants that use streams are followed by list and watch, of so many tenants at once and only while they use
//! them (`seats.rs`, `followed.rs`). What is followed answers while it is known to be new (`known.rs`); else, and for
//! tenants beyond, the rules are listed for this one call (`listed.rs`). Promises: what cannot be read, or is more than is
//! read here, is an error, never a no. Must not know requests.

mod followed;
mod known;
mod listed;
mod rules;
mod seats;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use self::followed::Following;
use self::known::{Known, Verdict};
use self::seats::{Seats, Used, Who};
use super::buffer::Share;
use crate::error::{Error, Kind, Result};
use crate::kubernetes::api::SharedCluster;
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::tenant::Tenant;
use crate::tenant::memory::Account;

/// Longest wait for rules, followed or listed.
const DEADLINE: Duration = Duration::from_secs(10);

/// The admission of all tenants.
#[derive(Debug, Default)]
pub(super) struct Admission(Arc<Seats>);

/// For whom it is asked, and what that may cost.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) account: &'a Arc<Account>,
    pub(super) buffers: &'a Arc<Share>,
    pub(super) clock: &'a Clock,
    pub(super) drain: &'a Drain,
}

impl Admission {
    /// Who judges CONNECT on this subresource of pods, or on `proxy` of nodes, in words.
    pub(super) async fn judge(&self, asked: Asked<'_>, subresource: &str) -> Result<Option<String>> {
        let judged = async {
            match self.as_followed(asked, subresource).await {
                Some(judge) => judge,
                None => Box::pin(listed::judge(&asked.tenant.api, asked.buffers, subresource)).await,
            }
        };
        let late = |_| Error::backend(Kind::Timeout, "the cluster's admission rules could not be read in time");
        tokio::time::timeout(DEADLINE, judged).await.map_err(late)?
    }

    /// Tenants whose rules are followed now.
    pub(super) fn followed(&self) -> usize {
        self.0.taken()
    }

    /// `None`: nothing is known that is new enough.
    async fn as_followed(&self, asked: Asked<'_>, subresource: &str) -> Option<Result<Option<String>>> {
        let mut known = self.follow(asked)?;
        loop {
            // One that has just ended says nothing, whatever it knew.
            known.has_changed().ok()?;
            let verdict = known.borrow_and_update().verdict(subresource, asked.clock.instant());
            match verdict {
                Verdict::Later => known.changed().await.ok()?,
                Verdict::Unknown => return None,
                Verdict::Nobody => return Some(Ok(None)),
                Verdict::Judge(judge) => return Some(Ok(Some(judge))),
                Verdict::TooMuch => {
                    let message = "this cluster has more admission rules for streams than are kept here; streams are \
                                   refused rather than let past one";
                    return Some(Err(Error::client(Kind::Forbidden, message)));
                }
            }
        }
    }

    /// What is known of this tenant's rules, which are followed from now on if they were not. `None`: no seat is free.
    fn follow(&self, asked: Asked<'_>) -> Option<watch::Receiver<Known>> {
        let Asked { tenant, clock, .. } = asked;
        let who = Who { id: &tenant.id, uid: &tenant.uid, generation: tenant.generation };
        self.0.take(who, clock.instant(), |used| {
            let cluster: SharedCluster = Arc::new(tenant.api.clone());
            let (following, known) = Following::new(
                cluster,
                tenant.id.to_string(),
                Arc::clone(asked.account),
                Arc::clone(asked.buffers),
                clock.clone(),
            );
            (known, while_used(following, used, asked))
        })
    }
}

/// Ends when the tenant is gone, has another generation (which may be elsewhere) or uses no streams, and with the drain.
fn while_used(following: Following, used: Used, asked: Asked<'_>) -> impl Future<Output = ()> + Send + use<> {
    let mut life = asked.tenant.life.follow(asked.tenant.generation);
    let (mut drain, clock) = (asked.drain.clone(), asked.clock.clone());
    async move {
        tokio::select! {
            _ = life.next_generation() => {}
            _ = drain.signaled() => {}
            () = used.is_over(&clock) => {}
            () = following.run() => {}
        }
    }
}

#[cfg(test)]
mod tests;
