//! What of a request is in its trace.
//!
//! Promises: never a query, a header or a body; names are few.

use tokio::time::Instant;

use super::flag::Flag;
use crate::runtime::traces::{Outcome, Trace};

/// What of a request's account is in its trace.
pub(super) struct Account<'a> {
    pub(super) cluster: &'a str,
    pub(super) user: &'a str,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) verb: &'a str,
    pub(super) resource: &'a str,
    pub(super) code: u16,
    pub(super) flag: Option<Flag>,
    pub(super) audit_id: &'a str,
    pub(super) bytes: (u64, u64),
}

/// The end of it, with the request's.
pub(super) fn finish(trace: &Trace, began: Instant, account: &Account<'_>) {
    let Account { cluster, user, method, path, verb, resource, code, flag, audit_id, bytes } = account;
    let mut attributes = vec![
        ("http.request.method", (*method).to_owned()),
        ("url.path", (*path).to_owned()),
        ("http.response.status_code", code.to_string()),
        ("enduser.id", (*user).to_owned()),
        ("portico.cluster", (*cluster).to_owned()),
        ("portico.verb", (*verb).to_owned()),
        ("portico.audit_id", (*audit_id).to_owned()),
        ("http.request.body.size", bytes.0.to_string()),
        ("http.response.body.size", bytes.1.to_string()),
    ];
    attributes.extend(flag.map(|flag| ("portico.flag", flag.word().to_owned())));
    let name = if resource.is_empty() { (*verb).to_owned() } else { format!("{verb} {resource}") };
    trace.finish(began, &Outcome { name, attributes, has_failed: *code >= 500 });
}
