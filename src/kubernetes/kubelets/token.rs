//! The token that kubelets are shown: of a ServiceAccount that may read their figures and nothing else.
//!
//! A kubelet asks the API server whose token it was shown, so it could use it elsewhere: with Portico's own one, whoever
//! took over a node would have all tenants. Promises: no token is used beyond three quarters of its life; a kubelet that says it
//! does not know the token has at most one a minute made anew; where none can be had it is asked for once in some seconds.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::kubernetes::ApiClient;
use crate::kubernetes::resources::SERVICE_ACCOUNTS;
use crate::runtime::answers::{Answers, Terms};
use crate::runtime::clock::Clock;

/// What is asked for; the server may give less or more.
const LIFE: Duration = Duration::from_secs(3600);

/// For one.
const DEADLINE: Duration = Duration::from_secs(10);
/// One that could not be had is not asked for again for so long.
const FAILED: Duration = Duration::from_secs(5);
/// A younger one is known to whoever knows tokens: a kubelet that does not is at fault itself.
const YOUNG: Duration = Duration::from_secs(60);

/// The token of one ServiceAccount.
#[derive(Debug)]
pub(super) struct Token {
    source: Arc<Source>,
    clock: Clock,
    known: Answers<(), Shown>,
}

/// One that is shown to kubelets.
#[derive(Debug)]
pub(super) struct Shown {
    /// The `Authorization` value.
    pub(super) value: HeaderValue,
    since: Instant,
    /// From then on another one is.
    until: Instant,
}

#[derive(Debug)]
struct Source {
    host: ApiClient,
    namespace: String,
    account: String,
}

impl Token {
    pub(super) fn new(host: ApiClient, namespace: &str, account: &str, clock: Clock) -> Self {
        let source = Source { host, namespace: namespace.to_owned(), account: account.to_owned() };
        let terms = Terms { failed: FAILED, late: FAILED, ..Terms::new("token for kubelets", LIFE, 1) };
        Self { source: Arc::new(source), clock, known: Answers::new(terms) }
    }

    pub(super) async fn current(&self) -> Result<Arc<Shown>> {
        let shown = self.known().await?;
        if self.clock.instant() < shown.until {
            return Ok(shown);
        }
        self.known.forget(&(), &shown);
        self.known().await
    }

    /// A kubelet does not know this one (any more).
    pub(super) fn refused(&self, shown: &Arc<Shown>) {
        if self.clock.instant().saturating_duration_since(shown.since) >= YOUNG {
            self.known.forget(&(), shown);
        }
    }

    async fn known(&self) -> Result<Arc<Shown>> {
        let ask = || {
            let (source, clock) = (Arc::clone(&self.source), self.clock.clone());
            async move {
                let late = |_| Error::host(Kind::Timeout, "a token for kubelets was not made in time");
                let (value, life) = tokio::time::timeout(DEADLINE, source.ask(&clock)).await.map_err(late)??;
                let since = clock.instant();
                Ok(Shown { value, since, until: since + life.mul_f64(0.75) })
            }
        };
        self.known.get(&(), &self.clock, ask).await
    }
}

impl Source {
    async fn ask(&self, clock: &Clock) -> Result<(HeaderValue, Duration)> {
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": LIFE.as_secs()},
        });
        let made = self.host.create_sub(&SERVICE_ACCOUNTS, Some(&self.namespace), &self.account, "token", &request);
        let made = made.await.map_err(|error| match error.kind() {
            Kind::NotFound | Kind::Forbidden => Error::own(
                Kind::Unavailable,
                "Portico may make no tokens for the kubelets: the ServiceAccount or the right of the chart's \
                 kubelets.enabled is missing",
            )
            .because(error),
            _ => error,
        })?;
        let unusable = || Error::host(Kind::Protocol, "a TokenRequest was answered without a token");
        let text = made.pointer("/status/token").and_then(Value::as_str).ok_or_else(unusable)?;
        let mut value = HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| unusable())?;
        value.set_sensitive(true);
        let end = made.pointer("/status/expirationTimestamp").and_then(Value::as_str);
        let end: Option<Timestamp> = end.and_then(|text| text.parse().ok());
        let left = end.and_then(|end| Duration::try_from(end.duration_since(clock.now())).ok());
        Ok((value, left.unwrap_or_default().min(LIFE)))
    }
}
