//! The token that kubelets are shown: of a ServiceAccount that may read their figures and nothing else.
//!
//! A kubelet asks the API server whose token it was shown, so it could use it elsewhere: with Portico's own one, whoever
//! took over a node would have all tenants. Promises: no token is used beyond three quarters of its life.

use std::time::Duration;

use http::HeaderValue;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::kubernetes::ApiClient;
use crate::kubernetes::resources::SERVICE_ACCOUNTS;
use crate::runtime::clock::Clock;

/// What is asked for; the server may give less or more.
const LIFE: Duration = Duration::from_secs(3600);

/// The token of one ServiceAccount.
#[derive(Debug)]
pub(super) struct Token {
    host: ApiClient,
    namespace: String,
    account: String,
    /// Held while one is asked for. With the moment from which on another one is.
    known: tokio::sync::Mutex<Option<(Instant, HeaderValue)>>,
}

impl Token {
    pub(super) fn new(host: ApiClient, namespace: &str, account: &str) -> Self {
        Self {
            host,
            namespace: namespace.to_owned(),
            account: account.to_owned(),
            known: tokio::sync::Mutex::new(None),
        }
    }

    /// The `Authorization` value.
    pub(super) async fn current(&self, clock: &Clock) -> Result<HeaderValue> {
        let mut known = self.known.lock().await;
        if let Some((until, value)) = &*known
            && clock.instant() < *until
        {
            return Ok(value.clone());
        }
        let (value, life) = self.ask(clock).await?;
        *known = Some((clock.instant() + life.mul_f64(0.75), value.clone()));
        Ok(value)
    }

    /// A kubelet does not know it (any more).
    pub(super) fn forget(&self) {
        if let Ok(mut known) = self.known.try_lock() {
            *known = None;
        }
    }

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
