//! How a request gets in: on a seat of its tenant when its caller is known, else on a place among the unknown until the
//! backend has said who he is.
//!
//! Known is whose certificate the tenant's CA signed, whose token the tenant's keys verify, and whose token the tenant's
//! backend accepted within the last ten seconds. A connection becomes the tenant's, and a body is kept, only for the first and the
//! last of them: what an API server took back is signed as well. An anonymous caller never is, and keeps his place. Whose token is false by
//! those keys is sent away, with neither. Promises: nothing of the tenant's seats and no buffered byte is had by anybody
//! else, and nobody who is known ever waits for those who are not. Must not know what a request asks for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use http::{HeaderValue, Method, StatusCode};

use super::authenticate::{Caller, Who};
use super::buffer::Share;
use super::connection::Connection;
use super::flag::Flag;
use super::identity::{Bearer, Fault};
use super::known::TokenDigest;
use super::kubelet::Allowance;
use super::places::Places;
use super::reading::Hold;
use super::record::Record;
use super::tenants::TenantState;
use super::tokens::{Asked, Shown, Verdict};
use crate::error::{Error, Kind, Result};
use crate::runtime::answers::Answers;
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
    /// Whose the token is, as its signature says.
    bearer: OnceLock<Arc<Bearer>>,
    /// The token is nobody's to judge but the backend's.
    is_foreign: AtomicBool,
    known: AtomicBool,
    /// A proof is worth noting: the last one is ageing, or there is none.
    to_note: AtomicBool,
}

/// What became of a token at the door.
enum Judged {
    /// Its bearer is known by it.
    Known,
    /// It can be judged when this is answered.
    Awaits(Asked),
    /// The backend will say.
    Unknown,
}

/// Lets a request in, or says 401 or 429. `token` is the digest of the one that was shown. What it takes is on `record`, until the answer's last byte.
pub(super) async fn enter(
    connection: &Arc<Connection>,
    tenant: &Arc<Tenant>,
    state: Arc<TenantState>,
    (caller, token): (&Caller, Option<TokenDigest>),
    long_running: bool,
    record: &Arc<Record>,
) -> Result<Entry> {
    let gateway = &connection.gateway;
    let user = caller.who.identity().map(|identity| identity.user.clone());
    let token = token.filter(|_| matches!(caller.who, Who::Token(_)));
    let entry = Entry {
        connection: Arc::clone(connection),
        tenant: Arc::clone(tenant),
        state,
        record: Arc::clone(record),
        clock: gateway.clock.clone(),
        user,
        long_running,
        token,
        bearer: OnceLock::new(),
        is_foreign: AtomicBool::new(false),
        known: AtomicBool::new(false),
        to_note: AtomicBool::new(true),
    };
    match &caller.who {
        Who::Certificate(_) | Who::Issued(_) => entry.seated(true),
        Who::Token(value) => entry.shown(value).await,
        Who::Anonymous => {
            Box::pin(entry.placed(&gateway.tenants.anonymous)).await?;
            Ok(entry)
        }
    }
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

    /// Whose the token is that was shown, where the tenant's keys say so.
    pub(super) fn bearer(&self) -> Option<&Bearer> {
        self.bearer.get().map(Arc::as_ref)
    }

    /// The token that was shown, and what the backend says of such while something is open by them.
    pub(super) fn taken_back(&self) -> Option<(&TokenDigest, &Answers<TokenDigest, bool>)> {
        self.token.as_ref().map(|token| (token, &self.state.tokens.taken_back))
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
            self.state.tokens.refuse(*token, self.bearer.get().is_some(), &self.clock);
            self.to_note.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if !proves_acceptance(method, status) {
            return Ok(());
        }
        if self.to_note.swap(false, Ordering::Relaxed) {
            self.state.tokens.accept(*token, self.is_foreign.load(Ordering::Relaxed), &self.clock);
        }
        if self.is_known() {
            // Where the tenant has too many, this one goes on as a stranger's.
            self.connect();
            return Ok(());
        }
        if let Err(error) = self.take_seat(true) {
            if method.is_safe() {
                return Err(error);
            }
            // It is done: its answer passes all the same, on the place that it has.
            self.known.store(true, Ordering::Relaxed);
            self.record.known();
        }
        Ok(())
    }

    fn seated(self, is_proven: bool) -> Result<Self> {
        self.take_seat(is_proven)?;
        Ok(self)
    }

    /// The way of a token.
    async fn shown(self, value: &HeaderValue) -> Result<Self> {
        let judged = self.judge(value)?;
        let is_accepted = self.is_accepted();
        if is_accepted || matches!(judged, Judged::Known) {
            return self.seated(is_accepted);
        }
        Box::pin(self.wait(value, judged)).await
    }

    /// 401 when it is false.
    fn judge(&self, value: &HeaderValue) -> Result<Judged> {
        let Some(digest) = &self.token else { return Ok(Judged::Unknown) };
        let (tenant, buffers, clock) = (&self.tenant, &self.state.buffers, &self.clock);
        let of_all = &self.connection.gateway.token_pace;
        let verdict = self.state.tokens.judge(&Shown { tenant, digest, value, buffers, of_all, clock });
        if let Verdict::Known(bearer) | Verdict::Refused(bearer) = &verdict {
            self.record.user(&bearer.user);
            self.bearer.get_or_init(|| Arc::clone(bearer));
        }
        Ok(match verdict {
            Verdict::Known(_) => Judged::Known,
            Verdict::False(fault) => return Err(self.refuse(fault)),
            Verdict::Awaits(asked) => Judged::Awaits(asked),
            Verdict::Foreign => {
                self.is_foreign.store(true, Ordering::Relaxed);
                Judged::Unknown
            }
            Verdict::Refused(_) | Verdict::Unjudged => Judged::Unknown,
        })
    }

    /// As the API server itself says it: why is in the log.
    fn refuse(&self, fault: Fault) -> Error {
        self.record.flag(Flag::Token(fault));
        Error::client(Kind::Unauthorized, "Unauthorized")
    }

    async fn wait(self, value: &HeaderValue, judged: Judged) -> Result<Self> {
        self.placed(&self.connection.gateway.tenants.unknown).await?;
        if let Judged::Awaits(asked) = judged {
            asked.answered().await;
            if matches!(self.judge(value)?, Judged::Known) {
                let is_accepted = self.is_accepted();
                return self.seated(is_accepted);
            }
        }
        // Another request of the same token may have been answered meanwhile.
        if self.is_accepted() {
            return self.seated(true);
        }
        Ok(self)
    }

    /// Takes a place.
    async fn placed(&self, places: &Places) -> Result<()> {
        let Some(place) = places.enter(&self.tenant.id, self.connection.peer.ip()).await else {
            self.record.flag(Flag::Unknown);
            self.state.metrics.unknown_refused.fetch_add(1, Ordering::Relaxed);
            let message = "too many requests of callers that are not known yet are in flight, please try again later";
            return Err(Error::client(Kind::TooManyRequests, message));
        };
        self.record.hold(Hold::Place(place));
        Ok(())
    }

    /// Makes the connection the tenant's, unless it has too many.
    fn connect(&self) -> bool {
        if self.connection.pass.is_known() {
            return true;
        }
        let granted = self.tenant.limits.at_gateway(&self.connection.gateway.config);
        self.connection.pass.known(&self.tenant.id, granted.connections)
    }

    /// Whether the backend has just accepted the token.
    pub(super) fn is_accepted(&self) -> bool {
        let Some(token) = &self.token else { return false };
        let accepted = self.state.tokens.accepted(token, &self.clock);
        self.to_note.store(accepted != Some(true), Ordering::Relaxed);
        accepted.is_some()
    }

    fn take_seat(&self, is_proven: bool) -> Result<()> {
        let granted = self.tenant.limits.at_gateway(&self.connection.gateway.config);
        if is_proven && !self.connect() {
            self.state.metrics.refused_connection();
            let message = "this cluster has too many connections, please try again later or use those that you have";
            return Err(Error::client(Kind::TooManyRequests, message));
        }
        // One who shows several tokens that only the backend can judge is several users here.
        let user = match (&self.user, self.bearer(), &self.token) {
            (Some(user), ..) => user.as_bytes(),
            (None, Some(bearer), _) => bearer.user.as_bytes(),
            (None, None, Some(token)) => token.as_bytes(),
            (None, None, None) => b"",
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
