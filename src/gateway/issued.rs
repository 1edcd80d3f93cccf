//! Who shows a token of an issuer that his tenant accepts becomes known by it, on one of the strangers' places.
//!
//! Promises: whoever is judged false here is 401 in an API server's words, with the reason in the log alone; whose token is nobody's
//! here goes on as he came. Must not know how tokens are judged.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::authenticate::{Caller, Who};
use super::connection::Connection;
use super::flag::Flag;
use super::jwt::{Read, Shown, Verdict};
use super::known::TokenDigest;
use super::record::Record;
use super::tenants::TenantState;
use crate::error::{Error, Kind, Result};
use crate::tenant::Tenant;

/// The caller, as he is known from here on. `token` is the digest of the one that he shows.
pub(super) async fn identify(
    connection: &Connection,
    tenant: &Tenant,
    state: &TenantState,
    (caller, token): (Caller, Option<&TokenDigest>),
    record: &Record,
) -> Result<Caller> {
    let (Who::Token(value), Some(digest)) = (&caller.who, token) else { return Ok(caller) };
    if tenant.issuers.is_empty() {
        return Ok(caller);
    }
    let gateway = &connection.gateway;
    let clock = &gateway.clock;
    let shown = Shown {
        tenant: &tenant.id,
        issuers: &tenant.issuers,
        digest,
        of_all: &gateway.token_pace,
        turns: &gateway.issuer_turns,
        closed: &gateway.closed,
        clock,
    };
    let bearer = match state.jwts.known(&shown) {
        Some(bearer) => bearer,
        // One of a ServiceAccount in use is not read for this each time.
        None if state.tokens.knows(digest, clock) => return Ok(caller),
        None => {
            let Some(read) = Read::of(value, &tenant.issuers) else { return Ok(caller) };
            let places = &gateway.tenants.unknown;
            let Some(_place) = places.enter(&tenant.id, connection.peer.ip()).await else {
                record.flag(Flag::Unknown);
                state.metrics.unknown_refused.fetch_add(1, Ordering::Relaxed);
                return Err(later());
            };
            match Box::pin(state.jwts.judge(&read, &shown)).await {
                Verdict::Known(bearer) => bearer,
                Verdict::TooMany => return Err(later()),
                Verdict::False(fault) => {
                    record.flag(Flag::Issuer(fault.flag()));
                    return Err(Error::client(Kind::Unauthorized, "Unauthorized"));
                }
            }
        }
    };
    let caller = Caller { who: Who::Issued(Arc::clone(&bearer)), ..caller };
    record.user(caller.who.name());
    record.audit(|audited| audited.is_of(&caller.who, None));
    caller.may_impersonate(tenant)?;
    Ok(caller)
}

fn later() -> Error {
    Error::client(Kind::TooManyRequests, "too many tokens that nobody knows yet are shown, please try again later")
}
