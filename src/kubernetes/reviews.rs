//! Whose a token is and whether he may read a page, as the host cluster judges: TokenReview, then SubjectAccessReview for
//! `get` on its nonresource URL. What kube-rbac-proxy and controller-runtime ask.
//!
//! Promises: only accepted tokens are remembered, by their digest and for one page, few, and believed for seconds; so a
//! revoked one is refused soon, and a flood of invented ones forgets nobody. Must not know what is on a page.

use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::client::ApiClient;
use super::resources::{SUBJECT_REVIEWS, TOKEN_REVIEWS};
use crate::error::{Error, Kind, Result};

/// How long an accepted token is not asked about again.
const BELIEVED: Duration = Duration::from_secs(10);
/// How long it is told from one that nobody ever accepted. Scrapers come once in a minute or two.
const REMEMBERED: Duration = Duration::from_secs(600);
const MAX_REMEMBERED: usize = 64;
/// For both questions together.
const DEADLINE: Duration = Duration::from_secs(5);

/// The host's judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its user may.
    Allowed,
    /// The token is nobody's.
    Unknown,
    /// Its user may not.
    Forbidden,
}

/// Asks the host, and remembers whom it accepted.
#[derive(Debug)]
pub struct Reviews {
    host: ApiClient,
    /// Digests of accepted tokens, oldest first.
    accepted: Mutex<Vec<([u8; 32], Instant)>>,
}

impl Reviews {
    /// Nobody is known yet.
    pub fn new(host: ApiClient) -> Self {
        Self { host, accepted: Mutex::default() }
    }

    /// Whether the bearer of this token may `get` this path. `Err`: the host could not be asked.
    pub async fn judge(&self, token: &str, path: &str) -> Result<Verdict> {
        let digest = digest(token, path);
        if self.since(&digest).is_some_and(|since| since < BELIEVED) {
            return Ok(Verdict::Allowed);
        }
        let asked = Instant::now();
        let verdict = tokio::time::timeout(DEADLINE, self.ask(token, path))
            .await
            .map_err(|_| Error::host(Kind::Timeout, "the host's API server does not judge a token in time"))??;
        let mut accepted = self.accepted.lock();
        accepted.retain(|(known, _)| *known != digest);
        if verdict == Verdict::Allowed {
            if accepted.len() >= MAX_REMEMBERED {
                accepted.remove(0);
            }
            accepted.push((digest, asked));
        }
        Ok(verdict)
    }

    /// Whether this token was accepted for this path not long ago. It says nothing of now.
    pub fn was_accepted(&self, token: &str, path: &str) -> bool {
        self.since(&digest(token, path)).is_some()
    }

    fn since(&self, digest: &[u8; 32]) -> Option<Duration> {
        let mut accepted = self.accepted.lock();
        accepted.retain(|(_, at)| at.elapsed() < REMEMBERED);
        accepted.iter().find(|(known, _)| known == digest).map(|(_, at)| at.elapsed())
    }

    async fn ask(&self, token: &str, path: &str) -> Result<Verdict> {
        let review = json!({
            "apiVersion": TOKEN_REVIEWS.api_version(), "kind": TOKEN_REVIEWS.kind, "spec": {"token": token},
        });
        let answer = self.host.create(&TOKEN_REVIEWS, None, &review).await?;
        if answer["status"]["authenticated"] != true {
            return Ok(Verdict::Unknown);
        }
        let user = &answer["status"]["user"];
        let name = user["username"].as_str().unwrap_or_default();
        if name.is_empty() {
            return Ok(Verdict::Unknown);
        }
        let mut spec = json!({"user": name, "nonResourceAttributes": {"path": path, "verb": "get"}});
        for key in ["uid", "groups", "extra"] {
            if !user[key].is_null() {
                spec[key] = user[key].clone();
            }
        }
        let review = json!({"apiVersion": SUBJECT_REVIEWS.api_version(), "kind": SUBJECT_REVIEWS.kind, "spec": spec});
        let answer = self.host.create(&SUBJECT_REVIEWS, None, &review).await?;
        let status = &answer["status"];
        let is_allowed = status["allowed"] == true && status["denied"] != true;
        Ok(if is_allowed { Verdict::Allowed } else { Verdict::Forbidden })
    }
}

/// No path has a zero byte.
fn digest(token: &str, path: &str) -> [u8; 32] {
    Sha256::new_with_prefix(path).chain_update([0]).chain_update(token).finalize().into()
}
