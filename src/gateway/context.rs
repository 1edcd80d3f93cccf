//! What one request knows of itself once it is bound, cleaned and authenticated. Everything behind that works on this.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, header};

use super::record::Record;
use crate::api::RequestInfo;
use crate::clock::Clock;
use crate::config::GatewayConfig;
use crate::drain::Drain;
use crate::error::Result;
use crate::identity::Identity;
use crate::registry::{Assertion, Registry, Tenant};
use crate::upstream::{self, ApiClient, Class, ResponseBody};

/// One request's context. Cheap to clone; a stream that outlives the answer's head keeps a clone of [`Context::record`]
/// (counts, limits, access log) and of [`Context::drain`] (so that shutdown waits for it).
#[derive(Debug, Clone)]
pub struct Context {
    /// The virtual cluster, in the generation that serves this request.
    pub tenant: Arc<Tenant>,
    /// What is asked for.
    pub info: Arc<RequestInfo>,
    /// Who asks.
    pub caller: Arc<Caller>,
    /// The client's `Upgrade` header, when it wants one. The request's own headers have it no more.
    pub upgrade: Option<HeaderValue>,
    /// The tenant's path prefix, when the request came by path; `""` otherwise.
    pub prefix: Arc<str>,
    /// Where the request came from.
    pub peer: SocketAddr,
    /// The host cluster, with Portico's own rights.
    pub host: ApiClient,
    /// Limits and deadlines.
    pub config: Arc<GatewayConfig>,
    /// Time.
    pub clock: Clock,
    /// All tenants: a stream learns from it that its own is gone.
    pub registry: Arc<Registry>,
    /// Held while anything of this request runs.
    pub drain: Drain,
    /// The request's account.
    pub record: Arc<Record>,
}

/// Who asks, and what of it goes to the backend.
#[derive(Debug)]
pub struct Caller {
    /// How it is known.
    pub who: Who,
    /// The caller's own `Impersonate-*` headers; the backend judges them.
    pub impersonate: HeaderMap,
}

/// How a caller is known.
#[derive(Clone, PartialEq, Eq)]
pub enum Who {
    /// By a client certificate that the tenant's CA signed.
    Certificate(Identity),
    /// By a token that only the backend can judge: the whole `Authorization` value.
    Token(HeaderValue),
    /// Not at all, and the tenant allows that.
    Anonymous,
}

impl std::fmt::Debug for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Certificate(identity) => f.debug_tuple("Certificate").field(&identity.user).finish(),
            Self::Token(_) => f.write_str("Token(…)"),
            Self::Anonymous => f.write_str("Anonymous"),
        }
    }
}

impl Context {
    /// Connections by which requests of this caller reach the backend.
    pub fn class(&self, long_running: bool) -> Class {
        match (&self.caller.who, long_running) {
            (Who::Token(_), false) => Class::Token,
            (Who::Token(_), true) => Class::TokenWatch,
            (_, false) => Class::Unary,
            (_, true) => Class::Watch,
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
            Who::Anonymous => assert(&Identity::anonymous())?,
            Who::Token(value) => HeaderMap::from_iter([(header::AUTHORIZATION, value.clone())]),
        };
        for (name, value) in &self.caller.impersonate {
            headers.append(name.clone(), value.clone());
        }
        if let Ok(value) = HeaderValue::try_from(self.peer.ip().to_canonical().to_string()) {
            headers.insert("x-forwarded-for", value);
        }
        Ok(headers)
    }

    /// Asks the backend something of our own as this caller, for instance a SelfSubjectAccessReview: the answer holds
    /// for the caller's certificate, token and impersonation alike. `request` has path, method, content type and body.
    pub async fn ask_backend(
        &self,
        mut request: Request<upstream::Body>,
        deadline: Duration,
    ) -> Result<Response<ResponseBody>> {
        request.headers_mut().extend(self.backend_headers()?);
        self.tenant.backend.pool.send(self.class(false), request, deadline).await
    }
}
