//! What a request is answered with. Pure but for the certificate's serial number.

use jiff::Timestamp;

use crate::config::CredentialsConfig;
use crate::crd::credentials::CredentialRequestSpec;
use crate::names::credentials::{self, Refused};
use crate::tls::certificates::{self, Pair};
use crate::tls::issued::{self, Issued, Subject};
use crate::tls::requests::PublicKey;

/// The answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// With the ways to the cluster.
    Issued(Issued, String),
    Denied(Denial),
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denial {
    /// One word.
    pub(super) reason: &'static str,
    /// One sentence, for whoever asked.
    pub(super) message: String,
}

impl Denial {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What signs for one virtual cluster.
pub(super) struct Authority {
    uid: String,
    created: Option<Timestamp>,
    client_ca: Pair,
    /// A kubeconfig without a credential.
    ways: String,
}

impl Authority {
    /// Of the cluster with this uid and age, and the ways to it; refused where no usable key is at hand.
    pub(super) fn new(
        uid: String,
        created: Option<Timestamp>,
        (client_ca, ways): (Pair, String),
        now: Timestamp,
    ) -> Result<Self, Denial> {
        if certificates::is_usable_ca(&client_ca, now) {
            return Ok(Self { uid, created, client_ca, ways });
        }
        let message = "Portico has no usable key of this virtual cluster's client CA (its PKI Secret says no more): take a \
                       ServiceAccount instead (portico connect --service-account)";
        Err(Denial::new("NoAuthority", message))
    }
}

/// What of a request needs no look at its cluster: its names, its key.
pub(super) fn check(spec: &CredentialRequestSpec, bounds: &CredentialsConfig) -> Result<PublicKey, Denial> {
    credentials::check(&spec.user, &spec.groups, bounds.allow_system_names).map_err(|refused| {
        let reason = match refused {
            Refused::Invalid(_) => "InvalidName",
            Refused::Reserved(_) => "ReservedName",
        };
        Denial::new(reason, refused.message())
    })?;
    PublicKey::requested(&spec.request).map_err(|error| Denial::new("InvalidRequest", error.message()))
}

/// Signs, unless the request meant another cluster of this name.
pub(super) fn sign(
    authority: &Authority,
    spec: &CredentialRequestSpec,
    created: Option<Timestamp>,
    key: &PublicKey,
    bounds: &CredentialsConfig,
    now: Timestamp,
) -> Result<Answer, Denial> {
    let is_other = !spec.virtual_cluster_uid.is_empty() && spec.virtual_cluster_uid != authority.uid;
    let is_older = created.zip(authority.created).is_some_and(|(request, cluster)| request < cluster);
    if is_other || is_older {
        let message = format!("the virtual cluster {:?} is another one than was meant", spec.virtual_cluster);
        return Err(Denial::new("Replaced", message));
    }
    let longest = i64::try_from(bounds.longest.0.as_secs()).unwrap_or(i64::MAX);
    let seconds = spec.expiration_seconds.clamp(1, longest);
    let subject = Subject { user: &spec.user, groups: &spec.groups };
    let issued = issued::serial()
        .and_then(|serial| issued::issue(&authority.client_ca, subject, key, (now, seconds), serial))
        .map_err(|error| Denial::new("NoAuthority", error.message()))?;
    Ok(Answer::Issued(issued, authority.ways.clone()))
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("uid", &self.uid).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
