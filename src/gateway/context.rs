//! What one request knows of itself once it is bound, cleaned and authenticated. Everything behind that works on this.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use super::audit_id::{self, AUDIT_ID};
use super::authenticate::{Caller, Who};
use super::connection::Connection;
use super::entry::Entry;
use super::record::Record;
use crate::config::GatewayConfig;
use crate::error::Result;
use crate::gateway::api::RequestInfo;
use crate::gateway::identity::Identity;
use crate::kubernetes::ApiClient;
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::runtime::traces::{Part, Trace};
use crate::tenant::{Assertion, Tenant};
use crate::upstream::{self, Class, ResponseBody};
use crate::usage::Usage;

/// One request's context. A stream that outlives the answer's head keeps it, and with it the account
/// ([`Context::record`]: counts, limits, access log) and the drain (so that shutdown waits for it).
#[derive(Debug)]
pub struct Context {
    /// By which it came.
    pub(super) connection: Arc<Connection>,
    /// The virtual cluster, in the generation that serves this request.
    pub tenant: Arc<Tenant>,
    /// What is asked for.
    pub info: RequestInfo,
    /// Who asks.
    pub caller: Caller,
    /// What names it in audit logs.
    pub(super) audit_id: HeaderValue,
    /// The client's `Upgrade` header, when it wants one. The request's own headers have it no more.
    pub upgrade: Option<HeaderValue>,
    /// The tenant's path prefix, when the request came by path; `""` otherwise.
    pub prefix: String,
    /// The request's account.
    pub record: Arc<Record>,
    /// How it came in: known or not.
    pub entry: Entry,
    /// Where it is traced.
    pub(super) trace: Option<Arc<Trace>>,
}

impl Context {
    /// Limits and deadlines.
    pub fn config(&self) -> &GatewayConfig {
        &self.connection.gateway.config
    }

    /// The host cluster, with Portico's own rights. Only of a tenant whose pods run there.
    pub fn host(&self) -> Result<&ApiClient> {
        Ok(&self.connection.gateway.host()?.api)
    }

    /// The same for what is done there for this caller: the host's audit log says whose it was.
    pub(super) fn host_for_caller(&self) -> Result<ApiClient> {
        Ok(self.host()?.with(&self.on_host()))
    }

    /// What the host is told of the caller.
    pub(super) fn on_host(&self) -> HeaderMap {
        let impersonated = self.caller.impersonate.get("impersonate-user").and_then(|value| value.to_str().ok());
        let agent = audit_id::agent(&self.tenant.id, self.user(), impersonated);
        HeaderMap::from_iter([(AUDIT_ID, self.audit_id.clone()), (header::USER_AGENT, agent)])
    }

    /// The caller's name, as far as it is known here.
    pub(super) fn user(&self) -> &str {
        match (&self.caller.who, self.entry.bearer()) {
            (Who::Token(_), Some(bearer)) => &bearer.user,
            (who, _) => who.name(),
        }
    }

    /// What pods and nodes of the host use.
    pub fn usage(&self) -> Result<&Arc<Usage>> {
        Ok(&self.connection.gateway.host()?.usage)
    }

    /// The clock of the process.
    pub fn clock(&self) -> &Clock {
        &self.connection.gateway.clock
    }

    /// Held while anything of this request runs.
    pub fn drain(&self) -> &Drain {
        &self.connection.drain
    }

    /// Connections by which requests of this caller reach the backend.
    pub fn class(&self, long_running: bool) -> Class {
        match (&self.caller.who, self.entry.is_known(), long_running) {
            (Who::Certificate(_) | Who::Issued(_), _, false) => Class::Unary,
            (Who::Certificate(_) | Who::Issued(_), _, true) => Class::Watch,
            (Who::Token(_), true, false) => Class::Token,
            (Who::Token(_), true, true) => Class::TokenWatch,
            (Who::Token(_), false, false) => Class::Unknown,
            (Who::Token(_), false, true) => Class::UnknownWatch,
            (Who::Anonymous, _, false) => Class::Anonymous,
            (Who::Anonymous, _, true) => Class::AnonymousWatch,
        }
    }

    /// Whether our own certificate accompanies this caller (see [`upstream::Pool::dial_upgrade`]).
    pub fn with_identity(&self) -> bool {
        !matches!(self.caller.who, Who::Token(_))
    }

    /// The headers that tell the backend who asks: identity or token, the caller's impersonation, the client's address.
    /// For the backend only; none of them may go to the host.
    pub fn backend_headers(&self) -> Result<HeaderMap> {
        let assert = |identity: &Identity| match self.tenant.backend.assertion {
            Assertion::FrontProxy => identity.front_proxy_headers(),
            Assertion::Impersonate => identity.impersonation_headers(),
        };
        let mut headers = match &self.caller.who {
            Who::Certificate(identity) => assert(identity)?,
            Who::Issued(bearer) => assert(&bearer.identity)?,
            Who::Anonymous => assert(&Identity::anonymous())?,
            Who::Token(value) => HeaderMap::from_iter([(header::AUTHORIZATION, value.clone())]),
        };
        for (name, value) in &self.caller.impersonate {
            headers.append(name.clone(), value.clone());
        }
        headers.insert(AUDIT_ID, self.audit_id.clone());
        if let Ok(value) = HeaderValue::try_from(self.connection.peer.ip().to_canonical().to_string()) {
            headers.insert("x-forwarded-for", value);
        }
        Ok(headers)
    }

    /// Begins a part that is done here, which ends when what is returned is dropped.
    pub(super) fn part(&self, name: &'static str) -> Option<Part> {
        self.trace.as_ref().map(|trace| trace.part(name))
    }

    /// Begins a part that a server does, which learns of it by the headers of what it is asked.
    pub(super) fn asked(&self, server: &'static str, headers: &mut HeaderMap) -> Option<Part> {
        self.trace.as_ref().map(|trace| trace.asked(server, headers))
    }

    /// Sends a short request with the caller's own credentials to the backend and notes what the answer says of them: a
    /// token that is accepted is known from now on. `method` is what is done by it: GET when nothing is done yet.
    pub(super) async fn send(
        &self,
        mut request: Request<upstream::Body>,
        method: &Method,
        deadline: Duration,
    ) -> Result<Response<ResponseBody>> {
        let mut part = self.asked("ask API server", request.headers_mut());
        let response = self.tenant.backend.pool.send(self.class(false), request, deadline).await?;
        if let Some(part) = &mut part {
            part.answered(response.status());
        }
        self.entry.judged(method, response.status())?;
        Ok(response)
    }

    /// Learns from the answer to the request itself. A 401 that may come from behind the API server, of a pod or of whoever serves
    /// an aggregated API, says nothing of the token.
    pub(super) fn judged(&self, method: &Method, status: StatusCode) -> Result<()> {
        let info = &self.info;
        let is_builtin = !info.group.contains('.') || info.group.ends_with(".k8s.io");
        if status == StatusCode::UNAUTHORIZED && (info.subresource == "proxy" || !is_builtin) {
            return Ok(());
        }
        self.entry.judged(method, status)
    }
}
