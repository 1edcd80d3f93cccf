//! Who a scraper is and whether it may read metrics, as the host cluster judges: TokenReview, then SubjectAccessReview
//! for `get` on the nonresource URL `/metrics`. What kube-rbac-proxy and controller-runtime ask.
//!
//! Promises: only accepted tokens are remembered, by their digest, few, and for seconds; so a revoked one is refused
//! soon, and a flood of invented ones forgets nobody.

use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::kubernetes::ApiClient;
use crate::kubernetes::resources::{SUBJECT_REVIEWS, TOKEN_REVIEWS};

/// How long an accepted token is not asked about again.
const REMEMBERED: Duration = Duration::from_secs(10);
const MAX_REMEMBERED: usize = 64;
/// For both questions together.
const DEADLINE: Duration = Duration::from_secs(5);

/// The host's judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    /// The token is nobody's.
    Unknown,
    /// Its user may not.
    Forbidden,
}

#[derive(Debug)]
pub(super) struct Reviews {
    host: ApiClient,
    /// Digests of accepted tokens, oldest first.
    accepted: Mutex<Vec<([u8; 32], Instant)>>,
}

impl Reviews {
    pub(super) fn new(host: ApiClient) -> Self {
        Self { host, accepted: Mutex::default() }
    }

    /// `Err`: the host could not be asked.
    pub(super) async fn judge(&self, token: &str) -> Result<Verdict> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        {
            let mut accepted = self.accepted.lock();
            accepted.retain(|(_, since)| since.elapsed() < REMEMBERED);
            if accepted.iter().any(|(known, _)| *known == digest) {
                return Ok(Verdict::Allowed);
            }
        }
        let asked = Instant::now();
        let verdict = tokio::time::timeout(DEADLINE, self.ask(token))
            .await
            .map_err(|_| Error::host(Kind::Timeout, "the host's API server does not judge a token in time"))??;
        if verdict == Verdict::Allowed {
            let mut accepted = self.accepted.lock();
            if accepted.len() >= MAX_REMEMBERED {
                accepted.remove(0);
            }
            accepted.push((digest, asked));
        }
        Ok(verdict)
    }

    async fn ask(&self, token: &str) -> Result<Verdict> {
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
        let mut spec = json!({"user": name, "nonResourceAttributes": {"path": "/metrics", "verb": "get"}});
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
