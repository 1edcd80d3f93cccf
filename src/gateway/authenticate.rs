//! Who calls: the certificate of the handshake judged by the tenant's CA of now, else a token for the backend to judge,
//! else nobody. The order and the outcomes are kube-apiserver's: what was tried and failed is never anonymous.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use super::jwt::Bearer;
use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};
use crate::gateway::identity::{self, Cleaned, Credentials, Identity};
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::tenant::{Assertion, Tenant};
use crate::tls::ClientTrust;

/// How long a verdict holds within one generation, and never beyond the end of a certificate: the clock may be set.
const VERDICT_LIFE: Duration = Duration::from_secs(30);

/// For whoever comes with a certificate through an ingress that ends TLS: kubectl shows this text.
const NO_CERTIFICATE_PASSES: &str = "no credentials arrived: this address is behind a proxy that ends TLS, and client \
    certificates do not pass it; use a token (kubectl create token ACCOUNT), or an address with TLS passthrough";

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
    /// By a token of an issuer that the tenant accepts.
    Issued(Arc<Bearer>),
    /// By a token that only the backend can judge: the whole `Authorization` value.
    Token(HeaderValue),
    /// Not at all, and the tenant allows that.
    Anonymous,
}

impl Who {
    /// What was shown that only the backend, or a key, can judge.
    pub(super) fn token(&self) -> Option<&HeaderValue> {
        match self {
            Self::Token(value) => Some(value),
            _ => None,
        }
    }

    /// Who it is, where that is asserted to the backend.
    pub(super) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Certificate(identity) => Some(identity),
            Self::Issued(bearer) => Some(&bearer.identity),
            Self::Token(_) | Self::Anonymous => None,
        }
    }

    /// For logs.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Certificate(identity) => &identity.user,
            Self::Issued(bearer) => &bearer.identity.user,
            Self::Token(_) => "(token)",
            Self::Anonymous => "system:anonymous",
        }
    }
}

impl std::fmt::Debug for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Certificate(identity) => f.debug_tuple("Certificate").field(&identity.user).finish(),
            Self::Issued(bearer) => f.debug_tuple("Issued").field(&bearer.identity.user).finish(),
            Self::Token(_) => f.write_str("Token(…)"),
            Self::Anonymous => f.write_str("Anonymous"),
        }
    }
}

impl Caller {
    /// Not where he is asserted by impersonation himself: our own right to it would judge his, and not the caller's.
    pub(super) fn may_impersonate(&self, tenant: &Tenant) -> Result<()> {
        let by = match self.who {
            Who::Token(_) => return Ok(()),
            Who::Issued(_) => "a token of spec.auth.jwt",
            Who::Certificate(_) | Who::Anonymous => "a client certificate",
        };
        if tenant.backend.assertion == Assertion::Impersonate && !self.impersonate.is_empty() {
            let message = format!("impersonation with {by} is not possible on this cluster; use a token of its own");
            return Err(Error::client(Kind::Forbidden, message));
        }
        Ok(())
    }
}

/// The client certificates of one connection.
#[derive(Debug)]
pub(super) struct Certificates {
    chain: Vec<CertificateDer<'static>>,
    /// When each is no longer valid; read once, by whoever needs it first.
    ends: OnceLock<Vec<Timestamp>>,
    verdict: Mutex<Option<Verdict>>,
}

#[derive(Debug)]
struct Verdict {
    tenant: TenantId,
    generation: u64,
    until: Instant,
    outcome: Outcome,
}

#[derive(Debug, Clone)]
enum Outcome {
    None,
    Known(Identity),
    Aggregator,
    Refused,
}

impl Certificates {
    pub(super) fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        Self { chain, ends: OnceLock::new(), verdict: Mutex::new(None) }
    }

    /// Whether they still stand for an identity in this generation of the tenant.
    pub(super) fn still_hold(&self, tenant: &Tenant, clock: &Clock) -> bool {
        self.judge(tenant, clock, |outcome| matches!(outcome, Outcome::Known(_)))
    }

    /// Whether they are those of the tenant's own API server, as the aggregator that asks for what is answered here.
    pub(super) fn are_the_aggregators(&self, tenant: &Tenant, clock: &Clock) -> bool {
        self.judge(tenant, clock, |outcome| matches!(outcome, Outcome::Aggregator))
    }

    /// How long until one of them that is valid now is no longer; `None` when that never happens.
    pub(super) fn until_next_end(&self, clock: &Clock) -> Option<Duration> {
        let read = || self.chain.iter().filter_map(|certificate| identity::end_of_validity(certificate)).collect();
        let now = clock.now();
        let next = self.ends.get_or_init(read).iter().filter(|end| **end > now).min()?;
        Duration::try_from(next.duration_since(now)).ok()
    }

    /// Shows the verdict of now to `look`: each request is looked at more than once.
    fn judge<T>(&self, tenant: &Tenant, clock: &Clock, look: impl FnOnce(&Outcome) -> T) -> T {
        if self.chain.is_empty() {
            return look(&Outcome::None);
        }
        let now = clock.instant();
        if let Some(verdict) = &*self.verdict.lock()
            && verdict.tenant == tenant.id
            && verdict.generation == tenant.generation
            && now < verdict.until
        {
            return look(&verdict.outcome);
        }
        let outcome = self.verify(tenant, clock);
        let (tenant, generation) = (tenant.id.clone(), tenant.generation);
        let until = now + self.until_next_end(clock).unwrap_or(VERDICT_LIFE).min(VERDICT_LIFE);
        let told = look(&outcome);
        *self.verdict.lock() = Some(Verdict { tenant, generation, until, outcome });
        told
    }

    fn verify(&self, tenant: &Tenant, clock: &Clock) -> Outcome {
        let vouched_for = |trust: &ClientTrust| {
            trust
                .verify(&self.chain, clock.now())
                .and_then(|()| self.chain.first().map_or(Ok(None), |leaf| Identity::from_certificate(leaf)))
        };
        let is_named =
            |name: &str, who: Result<Option<Identity>>| who.is_ok_and(|who| who.is_some_and(|who| who.user == name));
        match vouched_for(&tenant.client_trust) {
            Ok(Some(identity)) => Outcome::Known(identity),
            Ok(None) => Outcome::None,
            Err(_) if tenant.aggregator.as_ref().is_some_and(|a| is_named(a.name, vouched_for(&a.trust))) => {
                Outcome::Aggregator
            }
            Err(error) => {
                tracing::debug!(tenant = %tenant.id, %error, "client certificate refused");
                Outcome::Refused
            }
        }
    }
}

/// Takes the credentials out of `headers` and says who calls.
pub(super) fn authenticate(
    tenant: &Tenant,
    certificates: &Certificates,
    headers: &mut HeaderMap,
    cleaned: Cleaned,
    clock: &Clock,
) -> Result<Caller> {
    let credentials = identity::credentials(headers, cleaned.upgrade.is_some())?;
    let who = match (certificates.judge(tenant, clock, Outcome::clone), credentials) {
        (Outcome::Known(identity), _) => Who::Certificate(identity),
        (_, Credentials::Bearer(value)) => Who::Token(value),
        (Outcome::None, Credentials::None) if tenant.anonymous => Who::Anonymous,
        // An aggregator is answered before anybody comes here, and is no caller of the backend's.
        (Outcome::Refused | Outcome::Aggregator, Credentials::None) => {
            return Err(Error::client(Kind::Unauthorized, "the client certificate is not valid for this cluster"));
        }
        (Outcome::None, Credentials::None) if cleaned.forwarded => {
            let status = Status::failure(401, "Unauthorized", NO_CERTIFICATE_PASSES);
            return Err(Error::from_status(Side::Client, status));
        }
        (Outcome::None, Credentials::None) => return Err(Error::client(Kind::Unauthorized, "no credentials")),
    };
    let caller = Caller { who, impersonate: cleaned.impersonate };
    caller.may_impersonate(tenant)?;
    Ok(caller)
}
