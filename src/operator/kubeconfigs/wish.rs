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

impl<'a> Wish<'a> {
    /// The schema has judged an entry, of today: what is here is judged again.
    pub(super) fn new(
        entry: &'a MachineKubeconfig,
        bounds: &CredentialsConfig,
        (pki, ways, store): (&Data, &[Way], &str),
    ) -> Result<Self> {
        let refused = |message: String| Error::own(Kind::Invalid, message);
        if entry.secret_name.starts_with("vc-") || entry.secret_name.ends_with("-pki") {
            return Err(refused("Portico has Secrets of its own at such names".to_owned()));
        }
        if !entry.cluster_role.is_empty() && entry.role.is_some() {
            return Err(refused("it names a clusterRole and a role".to_owned()));
        }
        let wished = match &entry.service_account {
            Some(account) if entry.user.is_empty() && entry.groups.is_empty() => Wished::Account(account),
            Some(_) => return Err(refused("it names a user and a serviceAccount".to_owned())),
            None => {
                credentials::check(&entry.user, &entry.groups, bounds.allow_system_names)
                    .map_err(|why| refused(why.message().to_owned()))?;
                Wished::User
            }
        };
        let longest = i64::try_from(bounds.longest_for_machines.0.as_secs()).unwrap_or(i64::MAX);
        let seconds = entry.expiration_seconds.clamp(600, longest);
        let signer = match wished {
            Wished::User => pki::CLIENT_CA,
            Wished::Account(_) => pki::SERVICE_ACCOUNT_PUBLIC,
        };
        let ways: Vec<Value> =
            ways.iter().map(|way| json!([way.context, way.server, way.tls_server_name, way.authority])).collect();
        // A certificate knows nothing of a store, a binding does.
        let is_inside = wished != Wished::User || !entry.cluster_role.is_empty() || entry.role.is_some();
        let store = if is_inside { store } else { "" };
        let print = digest(&json!([entry, seconds, pki.get(signer), ways, store]).to_string());
        Ok(Self { entry, wished, seconds, print })
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
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let whole = self.ends.duration_since(self.began).as_secs().max(0);
        let spread = self.print_of_life().bytes().fold(0_i64, |sum, byte| (sum * 31 + i64::from(byte)) % 1000);
        let kept = whole.saturating_mul(2) / 3 - whole.saturating_mul(spread) / 10_000;
        // Clocks that went back do not make it older than it is.
        now.duration_since(self.began).as_secs() >= kept || now >= self.ends
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
