//! One entry of `spec.kubeconfigs` as it is to be made, and how long what was made for it is good. Pure.

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::CredentialsConfig;
use crate::crd::{AccountOfTenant, MachineKubeconfig, pki};
use crate::error::{Error, Kind, Result};
use crate::kubernetes::kubeconfig::issue::Way;
use crate::names::credentials;
use crate::operator::secret::Data;

/// Nothing unchanged is made anew sooner: an API server's tokens may be over when they come, by its clock or by ours.
const SOONEST: i64 = 600;
/// How long before it was made a certificate is good.
const EARLY: i64 = 300;
/// Place of a ClusterRoleBinding.
pub(super) const EVERYWHERE: &str = "*";

/// An entry that may be made.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) entry: &'a MachineKubeconfig,
    pub(super) wished: Wished<'a>,
    /// Its credential's life, within the admin's bounds.
    pub(super) seconds: i64,
    /// Of everything that makes another credential or kubeconfig necessary when it changes.
    print: String,
}

/// For whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wished<'a> {
    User,
    Account(&'a AccountOfTenant),
}

impl<'a> Wished<'a> {
    /// The schema has judged an entry, of today: what is here is judged again.
    pub(super) fn of(entry: &'a MachineKubeconfig, bounds: &CredentialsConfig) -> Result<Self> {
        let refused = |message: &str| Error::own(Kind::Invalid, message.to_owned());
        if entry.secret_name.starts_with("vc-") || entry.secret_name.ends_with("-pki") {
            return Err(refused("Portico has Secrets of its own at such names"));
        }
        if !entry.cluster_role.is_empty() && entry.role.is_some() {
            return Err(refused("it names a clusterRole and a role"));
        }
        let role = entry.role.as_ref().map_or(entry.cluster_role.as_str(), |role| role.name.as_str());
        if matches!(role, "." | "..") || role.contains(['/', '%']) {
            return Err(refused("no role can have that name"));
        }
        match &entry.service_account {
            Some(account) if entry.user.is_empty() && entry.groups.is_empty() => Ok(Self::Account(account)),
            Some(_) => Err(refused("it names a user and a serviceAccount")),
            None => {
                credentials::check(&entry.user, &entry.groups, bounds.allow_system_names)
                    .map_err(|why| refused(why.message()))?;
                Ok(Self::User)
            }
        }
    }
}

impl<'a> Wish<'a> {
    /// An entry that may be made, with what its credential and kubeconfig hang on beside.
    pub(super) fn new(
        entry: &'a MachineKubeconfig,
        bounds: &CredentialsConfig,
        (pki, ways, store): (&Data, &[Way], &str),
    ) -> Result<Self> {
        let wished = Wished::of(entry, bounds)?;
        let longest = i64::try_from(bounds.longest_for_machines.0.as_secs()).unwrap_or(i64::MAX);
        let seconds = entry.expiration_seconds.clamp(600, longest);
        let signer = match wished {
            Wished::User => pki::CLIENT_CA,
            Wished::Account(_) => pki::SERVICE_ACCOUNT_PUBLIC,
        };
        let ways: Vec<Value> =
            ways.iter().map(|way| json!([way.context, way.server, way.tls_server_name, way.authority])).collect();
        let mut wish = Self { entry, wished, seconds, print: String::new() };
        // A certificate knows nothing of a store, a binding does.
        let store = if wish.is_inside() { store } else { "" };
        // By name, or a field that a later version adds would make all of them anew.
        let MachineKubeconfig { secret_name, user, groups, service_account, cluster_role, role, .. } = entry;
        let account = service_account.as_ref().map(|account| [&account.namespace, &account.name]);
        let role = role.as_ref().map(|role| [&role.namespace, &role.name]);
        let entry = json!([secret_name, user, groups, account, cluster_role, role]);
        wish.print = digest(&json!([entry, seconds, pki.get(signer), ways, store]).to_string());
        Ok(wish)
    }

    /// Whether something of it is in the virtual cluster.
    pub(super) fn is_inside(&self) -> bool {
        self.wished != Wished::User || self.bound_in().is_some()
    }

    /// Where in the virtual cluster a binding is to be.
    pub(super) fn bound_in(&self) -> Option<String> {
        match &self.entry.role {
            Some(role) => Some(role.namespace.clone()),
            None => (!self.entry.cluster_role.is_empty()).then(|| EVERYWHERE.to_owned()),
        }
    }
}

/// When a credential was made, and the last moment at which it is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) began: Timestamp,
    pub(super) ends: Timestamp,
}

impl Life {
    /// Out of the annotation; `None` where the Secret is not what was made for this wish.
    pub(super) fn read(annotation: &Value, wish: &Wish<'_>, data: &Data) -> Option<Self> {
        let mut parts = annotation.as_str()?.split(' ');
        let (began, ends, print) = (parts.next()?, parts.next()?, parts.next()?);
        let life = Self { began: began.parse().ok()?, ends: ends.parse().ok()? };
        (print == life.print(wish, data)).then_some(life)
    }

    /// The annotation.
    pub(super) fn write(&self, wish: &Wish<'_>, data: &Data) -> String {
        format!("{} {} {}", self.began, self.ends, self.print(wish, data))
    }

    /// Whether it is to be made anew: at two thirds of its life, or up to a tenth of it before, as its own beginning has it: many that were
    /// made at once are not made at once again.
    pub(super) fn is_due(&self, now: Timestamp, wish: &Wish<'_>) -> bool {
        // The end of a token is by another clock than its beginning.
        let whole = self.ends.duration_since(self.began).as_secs().clamp(0, wish.seconds);
        let spread = self.print_of_life().bytes().fold(0_i64, |sum, byte| (sum * 31 + i64::from(byte)) % 1000);
        let kept = whole.saturating_mul(2) / 3 - whole.saturating_mul(spread) / 10_000;
        let age = now.duration_since(self.began).as_secs();
        if age < 0 {
            // Clocks that went back do not make it older than it is; but what was made while one was ahead is not good yet.
            return age < -EARLY;
        }
        let soonest = if wish.wished == Wished::User { 0 } else { SOONEST };
        age >= soonest && (age >= kept || now >= self.ends)
    }

    /// Whoever changes the data or the times has it made anew.
    fn print(&self, wish: &Wish<'_>, data: &Data) -> String {
        digest(&json!([wish.print, self.print_of_life(), data]).to_string())
    }

    fn print_of_life(&self) -> String {
        digest(&format!("{} {}", self.began.as_nanosecond(), self.ends.as_nanosecond()))
    }
}

fn digest(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text)[..16])
}

#[cfg(test)]
mod tests;
