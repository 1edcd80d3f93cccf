//! Issuers whose tokens a virtual cluster accepts beside its own: `spec.auth.jwt`, judged by the admin's bounds, and what a token of
//! theirs says of its bearer.
//!
//! Pure. Promises: nothing is in force that was not understood as a whole, entry by entry: one that is unfit is as it was before, while
//! its issuer is still listed and allowed, and off otherwise; an issuer that is no longer listed is off. Nobody becomes one of Kubernetes'
//! own names unless the admin allows it. As `k8s.io/apiserver/plugin/pkg/authenticator/token/oidc` reads tokens, but for CEL, which is refused.
//! Must not know keys, signatures, or how anybody is asked.

mod check;
mod claims;
mod issuer;
mod user;

use std::sync::Arc;

use crate::config::JwtBounds;
use crate::crd::auth::{JwtAuthenticator, MOST_ISSUERS};

pub use claims::Claims;
pub use issuer::{Issuer, Place};
pub use user::{LONGEST_NAME, Refusal, User};

/// All that one virtual cluster accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Issuers {
    all: Vec<Arc<Issuer>>,
    faults: Vec<String>,
}

impl Issuers {
    /// What is in force of what is written. `before` is what was in force of the same virtual cluster.
    pub fn new(written: &[JwtAuthenticator], bounds: &JwtBounds, before: &Self) -> Self {
        let mut issuers = Self::default();
        if written.len() > MOST_ISSUERS {
            issuers.faults.push(format!("only the first {MOST_ISSUERS} issuers count"));
        }
        for (at, entry) in written.iter().take(MOST_ISSUERS).enumerate() {
            let url = &entry.issuer.url;
            let issuer = match check::issuer(entry, bounds) {
                // The same one as long as it is listed without a change: what is known of it hangs on that.
                Ok(issuer) => {
                    Some(before.of(url).filter(|old| ***old == issuer).cloned().unwrap_or_else(|| Arc::new(issuer)))
                }
                Err(fault) => {
                    issuers.faults.push(format!("jwt[{at}].{fault}"));
                    before.of(url).filter(|old| old.is_allowed(bounds)).cloned()
                }
            };
            if issuers.of(url).is_some() {
                issuers.faults.push(format!("jwt[{at}].issuer.url: {url} is listed twice: the first one counts"));
                continue;
            }
            issuers.all.extend(issuer);
        }
        issuers
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.all.iter()
    }

    /// The one of this `iss`.
    pub fn of(&self, url: &str) -> Option<&Arc<Issuer>> {
        self.all.iter().find(|issuer| issuer.url == url)
    }

    /// What is not in force as it is written, each in a sentence.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

#[cfg(test)]
mod tests;
