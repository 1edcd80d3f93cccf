//! A request as the audit log sees it: whether it leaves events, and what they say.
//!
//! Begun when it has been read, so that those who are refused leave theirs; judged anew whenever more is known of who asks. Must
//! not know where events go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, header};

use super::api::RequestInfo;
use super::authenticate::Who;
use super::connection::Connection;
use super::flag::Flag;
use super::identity::{Bearer, Identity};
use super::tenants::TenantState;
use crate::audit::{Asked, Asks, Draft, Object, Outcome, Stage, Stages, User};
use crate::error::Result;
use crate::tenant::Tenant;
use crate::trail::{Loss, Place, Tab, Trail};

/// Every caller who is known has it; API servers add it.
const AUTHENTICATED: &str = "system:authenticated";
/// Of a ServiceAccount's groups.
const ACCOUNTS: &str = "system:serviceaccounts";
const ACCOUNT: &str = "system:serviceaccount:";

/// One request's.
#[derive(Debug)]
pub(super) struct Audited {
    trail: Arc<Trail>,
    tab: Arc<Tab>,
    asks: Option<Arc<Asks>>,
    draft: Draft,
    wanted: Stages,
    place: Option<Place>,
    /// A stream of it was begun.
    is_begun: bool,
}

/// How it ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) code: u16,
    pub(super) flag: Option<Flag>,
    pub(super) is_upstream: bool,
    /// A watch or a stream.
    pub(super) is_long: bool,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) took: Duration,
    pub(super) is_known: bool,
}

/// What a request says of itself.
pub(super) struct Read<'a> {
    pub(super) connection: &'a Connection,
    pub(super) tenant: &'a Tenant,
    pub(super) state: &'a TenantState,
    pub(super) info: &'a RequestInfo,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) audit_id: &'a str,
    pub(super) impersonate: &'a HeaderMap,
}

/// None where there is no audit log.
pub(super) fn begin(read: &Read<'_>) -> Option<Box<Audited>> {
    let gateway = &read.connection.gateway;
    let trail = Arc::clone(gateway.audit.as_ref()?);
    let asks = trail.asks(read.tenant.audit.as_ref()).cloned();
    let info = read.info;
    let object = info.is_resource.then(|| {
        let (what, of) =
            ((info.group.as_str(), info.version.as_str()), (info.resource.as_str(), info.subresource.as_str()));
        Object::new(what, of, (&info.namespace, &info.name))
    });
    let draft = Draft::new(Asked {
        received: gateway.clock.now(),
        cluster: read.tenant.id.to_string(),
        audit_id: read.audit_id,
        verb: info.verb,
        path: read.path,
        query: read.query,
        object,
        with_command: asks.as_ref().is_some_and(|asks| asks.command),
        source: read.connection.peer.ip(),
        agent: read.headers.get(header::USER_AGENT).map(|value| value.as_bytes()).unwrap_or_default(),
        impersonated: impersonated(read.impersonate),
    });
    let tab = Arc::clone(&read.state.audit);
    let mut audited = Audited { trail, tab, asks, draft, wanted: Stages::default(), place: None, is_begun: false };
    audited.judge(Some(""), &[]);
    Some(Box::new(audited))
}

impl Audited {
    /// Who asks, as far as it is known by now.
    pub(super) fn is_of(&mut self, who: &Who, bearer: Option<&Bearer>) {
        let (user, credential, is_told) = caller(who, bearer);
        self.judge(is_told.then_some(user.username.as_str()), &user.groups);
        self.draft.is_of(user, credential);
    }

    /// Before it is done: the place of its event, where requests wait for one.
    pub(super) fn promise(&mut self, is_known: bool, connection: &Connection) -> Result<()> {
        if self.wanted.is_none() {
            return Ok(());
        }
        let promised = self.trail.promise(&self.tab, is_known, connection.gateway.clock.instant());
        self.place = promised.map_err(|full| {
            // It leaves no other event: there is no room for it.
            self.wanted = Stages::default();
            full.error()
        })?;
        Ok(())
    }

    /// Where the pod of a stream is.
    pub(super) fn is_on(&mut self, pod: &str, node: &str) {
        self.draft.is_on(pod, node);
    }

    /// A stream or a watch begins: nobody should have to wait for its end to know of it. False: nothing will be written of its
    /// end, and nothing need be kept of it for so long.
    pub(super) fn started(&mut self, end: End, may_be_written: bool, connection: &Connection) -> bool {
        self.is_begun = true;
        // In any case: a place that a stream kept for its life would be nobody else's, and its end has room of its own.
        let place = self.place.take();
        if self.wanted.started && (place.is_some() || may_be_written) {
            self.leave(Stage::ResponseStarted, &end, place, connection);
        } else if self.wanted.started {
            self.tab.lost(Loss::Unknown);
        }
        self.is_written_at_its_end(end.code)
    }

    /// It is over. Callers who are not known may have been too many.
    pub(super) fn ended(mut self: Box<Self>, end: End, may_be_written: bool, connection: &Connection) {
        if !self.is_written_at_its_end(end.code) {
            return;
        }
        let place = self.place.take();
        // What was promised is kept, whoever asked.
        if place.is_none() && !may_be_written {
            return self.tab.lost(Loss::Unknown);
        }
        self.leave(Stage::ResponseComplete, &end, place, connection);
    }

    fn is_written_at_its_end(&self, code: u16) -> bool {
        self.wanted.complete || self.trail.is_refusal(code)
    }

    fn leave(&self, stage: Stage, end: &End, place: Option<Place>, connection: &Connection) {
        let clock = &connection.gateway.clock;
        let outcome = Outcome {
            code: end.code,
            decision: decision(end),
            flag: end.flag.map_or("", Flag::word),
            received: end.received,
            sent: end.sent,
            took: end.took,
        };
        let line = self.draft.line(stage, clock.now(), &outcome);
        let is_last = stage == Stage::ResponseComplete && self.is_begun;
        self.trail.add(&self.tab, line, place, (end.is_known, is_last), clock.instant());
    }

    fn judge(&mut self, user: Option<&str>, groups: &[String]) {
        self.wanted = self.trail.stages(self.asks.as_deref(), &self.draft.matter(user, groups));
    }
}

/// Who has answered, or why nobody did.
fn decision(end: &End) -> &'static str {
    match end.flag {
        Some(Flag::Unknown | Flag::Token(_) | Flag::Issuer(_)) => "refused",
        Some(Flag::Failed(kind)) if kind.is_of_the_server() && end.code != 401 => "failed",
        Some(Flag::Failed(_)) => "refused",
        Some(Flag::Cut | Flag::Ended | Flag::Unread) | None if end.is_upstream => "forwarded",
        Some(Flag::Cut | Flag::Ended | Flag::Unread) | None => "answered",
    }
}

/// The user, how he is known, and whether his name is: an API server alone knows it of some tokens.
fn caller(who: &Who, bearer: Option<&Bearer>) -> (User, &'static str, bool) {
    let named = |name: &str| User { username: name.to_owned(), ..User::default() };
    match (who, bearer) {
        (Who::Certificate(identity), _) => (user(identity, Some(AUTHENTICATED)), "certificate", true),
        (Who::Issued(bearer), _) => (user(&bearer.identity, Some(AUTHENTICATED)), "jwt", true),
        (Who::Token(_), Some(bearer)) => {
            let of = bearer.user.strip_prefix(ACCOUNT).and_then(|account| account.split_once(':'));
            let namespace = of.map(|(namespace, _)| format!("{ACCOUNTS}:{namespace}"));
            let groups = std::iter::once(ACCOUNTS.to_owned()).chain(namespace).chain([AUTHENTICATED.to_owned()]);
            (User { groups: groups.collect(), ..named(&bearer.user) }, "serviceaccount", true)
        }
        (Who::Token(_), None) => (named(who.name()), "token", false),
        (Who::Anonymous, _) => (user(&Identity::anonymous(), None), "anonymous", true),
    }
}

fn user(identity: &Identity, group: Option<&str>) -> User {
    let groups = identity.groups.iter().map(String::as_str).chain(group);
    User {
        username: identity.user.clone(),
        uid: identity.uid.clone().unwrap_or_default(),
        groups: groups.map(str::to_owned).collect(),
        extra: identity.extra.iter().cloned().collect::<BTreeMap<_, _>>(),
    }
}

/// As it is asked for. Whether it is granted is the API server's to say.
fn impersonated(headers: &HeaderMap) -> Option<User> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Some(User {
        username: text(headers.get("impersonate-user")?),
        uid: headers.get("impersonate-uid").map(text).unwrap_or_default(),
        groups: headers.get_all("impersonate-group").iter().take(16).map(text).collect(),
        extra: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_no_ones_is_refused_and_not_answered() {
        let of = |flag| {
            let (received, sent, took) = (0, 0, Duration::ZERO);
            decision(&End {
                code: 401,
                flag,
                is_upstream: false,
                is_long: false,
                is_known: false,
                received,
                sent,
                took,
            })
        };
        assert_eq!(of(Some(Flag::Issuer("JEXP"))), "refused");
        assert_eq!((of(Some(Flag::Unknown)), of(None)), ("refused", "answered"));
    }
}
