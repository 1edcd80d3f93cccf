//! Our own bearer token towards an API server, fresh enough for rotating token files.

use std::path::Path;
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result, Side};
use crate::runtime::clock::Clock;
use crate::upstream::Credential;

/// Below the minute that kubelet's token rotation asks for.
const REREAD: Duration = Duration::from_secs(50);

pub(super) struct TokenCache {
    credential: Credential,
    side: Side,
    cached: Mutex<Option<(Instant, HeaderValue)>>,
}

impl TokenCache {
    pub(super) fn new(credential: Credential, side: Side) -> Self {
        Self { credential, side, cached: Mutex::new(None) }
    }

    /// The `Authorization` value, if our credential is a token.
    pub(super) async fn current(&self, clock: &Clock) -> Result<Option<HeaderValue>> {
        let path = match &self.credential {
            Credential::Certificate => return Ok(None),
            Credential::Token(token) => {
                if let Some((_, value)) = &*self.cached.lock() {
                    return Ok(Some(value.clone()));
                }
                let value = self.bearer(token)?;
                *self.cached.lock() = Some((clock.instant(), value.clone()));
                return Ok(Some(value));
            }
            Credential::TokenFile(path) => path,
        };
        let old = match &*self.cached.lock() {
            Some((read, value)) if read.elapsed() < REREAD => return Ok(Some(value.clone())),
            Some((_, value)) => Some(value.clone()),
            None => None,
        };
        let value = match (self.read(path).await, old) {
            (Ok(value), _) => value,
            (Err(error), Some(old)) => {
                tracing::warn!(%error, "the token file cannot be read; the last token is used on");
                old
            }
            (Err(error), None) => return Err(error),
        };
        *self.cached.lock() = Some((clock.instant(), value.clone()));
        Ok(Some(value))
    }

    async fn read(&self, path: &Path) -> Result<HeaderValue> {
        let text = tokio::fs::read_to_string(path).await.map_err(|e| {
            Error::own(Kind::Internal, format!("token file {} cannot be read", path.display())).because(e)
        })?;
        self.bearer(text.trim())
    }

    fn bearer(&self, token: &str) -> Result<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Error::own(Kind::Internal, format!("the token for {:?} is not a valid header", self.side)))?;
        value.set_sensitive(true);
        Ok(value)
    }
}
