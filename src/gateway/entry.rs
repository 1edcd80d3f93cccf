//! How a request gets in: on a seat of its tenant when its caller is known, else on a place among the unknown until the
//! backend has said who he is.
//!
//! Known is whose certificate the tenant's CA signed, and whose token the tenant's backend accepted within the last ten
//! seconds. An anonymous caller never is, and keeps his place. Promises: nothing of the tenant's seats and no buffered
//! byte is had by anybody else, and nobody who is known ever waits for those who are not. Must not know what a request
//! asks for.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode};

use super::authenticate::{Caller, Who};
use super::buffer::Share;
use super::connection::Connection;
use super::flag::Flag;
use super::known::{Standing, TokenDigest};
use super::kubelet::Allowance;
use super::places::Places;
use super::reading::Hold;
use super::record::Record;
use super::tenants::TenantState;
use crate::error::{Error, Kind, Result};
use crate::runtime::clock::Clock;
use crate::tenant::Tenant;
use crate::tenant::memory::Account;

/// One request's way in, and what its answer makes of it.
#[derive(Debug)]
pub struct Entry {
    connection: Arc<Connection>,
    tenant: Arc<Tenant>,
    state: Arc<TenantState>,
    record: Arc<Record>,
    clock: Clock,
    /// Of a certificate.
    user: Option<String>,
    long_running: bool,
    token: Option<TokenDigest>,
    known: AtomicBool,
    /// A proof is worth noting: the last one is ageing, or there is none.
    to_note: AtomicBool,
}

/// Lets a request in, or says 429. What it takes is on `record`, until the answer's last byte.
pub(super) async fn enter(
    connection: &Arc<Connection>,
    tenant: &Arc<Tenant>,
    state: Arc<TenantState>,
    caller: &Caller,
    long_running: bool,
    record: &Arc<Record>,
) -> Result<Entry> {
    let gateway = &connection.gateway;
    let (token, user) = match &caller.who {
        Who::Token(value) => (Some(gateway.token_key.digest(tenant, value)), None),
        Who::Certificate(identity) => (None, Some(identity.user.clone())),
        Who::Anonymous => (None, None),
    };
    let entry = Entry {
        connection: Arc::clone(connection),
        tenant: Arc::clone(tenant),
        state,
        record: Arc::clone(record),
        clock: gateway.clock.clone(),
        user,
        long_running,
        token,
        known: AtomicBool::new(false),
        to_note: AtomicBool::new(true),
    };
    let places = match &caller.who {
        Who::Certificate(_) => return entry.seated(),
        Who::Token(_) if entry.is_accepted() => return entry.seated(),
        Who::Token(_) => &gateway.tenants.unknown,
        Who::Anonymous => &gateway.tenants.anonymous,
    };
    Box::pin(entry.wait(places, tenant, connection.peer.ip())).await
}

/// Whether an answer of this status can only come from behind a Kubernetes API server's authentication. An invented
/// token is 401 there, also where anonymous callers are allowed. Filters before it answer 400, 429, 5xx, and a CORS
/// preflight; redirects come from what stands in front of it. Of what comes behind, these are enough.
fn proves_acceptance(method: &Method, status: StatusCode) -> bool {
    match status {
        StatusCode::SWITCHING_PROTOCOLS => true,
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::GONE => true,
        StatusCode::UNPROCESSABLE_ENTITY => true,
        status => status.is_success() && *method != Method::OPTIONS,
    }
}

impl Entry {
    /// Whether the caller is known.
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// What this tenant may buffer.
    pub fn buffers(&self) -> &Arc<Share> {
        &self.state.buffers
    }

    /// What is kept for this tenant stands on it.
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.state.account
    }

    /// How often this tenant may have kubelets asked.
    pub(super) fn kubelets(&self) -> &Allowance {
        &self.state.kubelets
    }

    /// What the larger buffers of this tenant's streams are drawn on.
    pub fn stream_buffers(&self) -> &Arc<Share> {
        &self.state.stream_buffers
    }

    /// Learns from the backend's answer to a request with the caller's own credentials. When it shows that a token was
    /// accepted, the request moves from its place to a seat. `Err` is 429 when there is none and nothing was done yet.
    pub(super) fn judged(&self, method: &Method, status: StatusCode) -> Result<()> {
        let Some(token) = &self.token else { return Ok(()) };
        if status == StatusCode::UNAUTHORIZED {
            // Or it is a pod behind a proxy that says so: then the next request is judged anew.
            self.state.accepted.forget(token);
            self.to_note.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if !proves_acceptance(method, status) {
            return Ok(());
        }
        if self.to_note.swap(false, Ordering::Relaxed) {
            self.state.accepted.insert(*token, self.clock.instant());
        }
        if self.is_known() {
            return Ok(());
        }
        if let Err(error) = self.take_seat() {
            if method.is_safe() {
                return Err(error);
            }
            // It is done: its answer passes all the same, on the place that it has.
            self.known.store(true, Ordering::Relaxed);
            self.record.known();
        }
        Ok(())
    }

    fn seated(self) -> Result<Self> {
        self.take_seat()?;
        Ok(self)
    }

    async fn wait(self, places: &Places, tenant: &Tenant, peer: IpAddr) -> Result<Self> {
        let Some(place) = places.enter(&tenant.id, peer).await else {
            self.record.flag(Flag::Unknown);
            self.state.metrics.unknown_refused.fetch_add(1, Ordering::Relaxed);
            let message = "too many requests of callers that are not known yet are in flight, please try again later";
            return Err(Error::client(Kind::TooManyRequests, message));
        };
        // Another request of the same token may have been answered meanwhile.
        if self.is_accepted() {
            return self.seated();
        }
        self.record.hold(Hold::Place(place));
        Ok(self)
    }

    fn is_accepted(&self) -> bool {
        let Some(token) = &self.token else { return false };
        let standing = self.state.accepted.standing(token, self.clock.instant());
        self.to_note.store(standing != Standing::Fresh, Ordering::Relaxed);
        standing != Standing::Unknown
    }

    fn take_seat(&self) -> Result<()> {
        let granted = self.tenant.limits.at_gateway(&self.connection.gateway.config);
        if !self.connection.pass.known(&self.tenant.id, granted.connections) {
            self.state.metrics.refused_connection();
            let message = "this cluster has too many connections, please try again later or use those that you have";
            return Err(Error::client(Kind::TooManyRequests, message));
        }
        // One who shows several tokens is several users here.
        let user = match (&self.user, &self.token) {
            (Some(user), _) => user.as_bytes(),
            (None, Some(token)) => token.as_bytes(),
            (None, None) => b"",
        };
        let admitted = self.state.limits.admit(&granted, user, self.long_running, self.clock.instant());
        let seat = admitted.map_err(|why| {
            self.state.metrics.refused(why);
            why.error()
        })?;
        self.record.hold(Hold::Seat(seat));
        self.record.reading().is_of(&self.state.account);
        self.known.store(true, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_from_behind_authentication_are_proofs() {
        let get = Method::GET;
        for code in [101, 200, 201, 204, 403, 404, 409, 410, 422] {
            assert!(proves_acceptance(&get, StatusCode::from_u16(code).expect("code")), "{code}");
        }
        for code in [301, 302, 307, 400, 401, 405, 407, 408, 413, 421, 429, 431, 500, 502, 503, 504] {
            assert!(!proves_acceptance(&get, StatusCode::from_u16(code).expect("code")), "{code}");
        }
        assert!(!proves_acceptance(&Method::OPTIONS, StatusCode::NO_CONTENT));
    }
}
