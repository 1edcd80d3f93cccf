//! Beside the phases: the Secrets of `spec.kubeconfigs`, made, renewed in time and removed.
//!
//! Promises: what Portico has not made for this very virtual cluster is never written or deleted, on the host or inside; what it makes is
//! named in the status before it is made, so that whoever comes after a crash knows what to remove; the status names a bounded number,
//! whatever the inside refuses; a virtual cluster that does not answer takes so much of a round and no more. Nothing here keeps the
//! cluster from being ready.

mod inside;
mod wish;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::crd::kubeconfigs::MOST_KUBECONFIGS;
use crate::crd::{KubeconfigStatus, MachineKubeconfig, VirtualClusterStatus, pki};
use crate::error::{Error, Kind, Result};
use crate::kubernetes::kubeconfig::issue::{self, Way};
use crate::kubernetes::resources::{SECRETS, VIRTUAL_CLUSTERS};
use crate::names::keys;
use crate::operator::apply::Mark;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::condition;
use crate::operator::host::uid_of;
use crate::operator::secret::{self, Data};
use crate::operator::status;
use crate::tls::certificates::Pair;
use crate::tls::issued::{self, Subject};

use inside::Inside;
use wish::{Life, Wish, Wished};

/// What all of a virtual cluster's own answers may take of a round.
const PATIENCE: Duration = Duration::from_secs(5);
/// Annotation: what a Secret was made from, and of what life its credential is; as [`Life`] writes it.
const MADE: &str = "portico.dev/kubeconfig-made";
/// Entries of the status, of whose number no more are begun: those that are gone stay until the inside lets their binding go.
const MOST_REMEMBERED: usize = 64;

/// Removes the Secrets that are not wanted any more: the host's part, for which the cluster need not answer. What is still to be removed
/// inside stays in the status.
pub(crate) async fn forgo(context: &Context, cluster: &Cluster, next: &mut VirtualClusterStatus) {
    let mut left = Vec::new();
    for made in std::mem::take(&mut next.kubeconfigs) {
        if is_wanted(context, cluster, &made.secret_name) {
            left.push(made);
            continue;
        }
        match remove_secret(context, cluster, &made.secret_name).await {
            Ok(()) if made.bound_in.is_none() => {}
            Ok(()) => left.push(KubeconfigStatus { expiration: String::new(), ..made }),
            Err(error) => {
                tracing::debug!(tenant = %cluster.id, secret = made.secret_name, %error, "a Secret is removed later");
                left.push(made);
            }
        }
    }
    next.kubeconfigs = left;
}

/// Makes what is missing or old, removes what is not wanted any more, and says what of it failed.
pub(crate) async fn ensure(
    context: &Context,
    cluster: &Cluster,
    pki: &Data,
    ways: &[Way],
    next: &mut VirtualClusterStatus,
) {
    if cluster.spec.kubeconfigs.is_empty() && next.kubeconfigs.is_empty() {
        if status::says(next, condition::KUBECONFIGS) {
            let says = ("True", "NoneWanted", "");
            status::note(next, condition::KUBECONFIGS, says, cluster.generation, context.clock.now());
        }
        return;
    }
    let mut round = Round {
        context,
        cluster,
        pki,
        ways,
        store: next.store.as_ref().map(|store| store.uid.clone()).unwrap_or_default(),
        made: std::mem::take(&mut next.kubeconfigs),
        inside: Inside::new(context, cluster, PATIENCE),
    };
    let failed = round.all().await;
    next.kubeconfigs = round.made;
    let says = match failed.first() {
        None => ("True", "Made", String::new()),
        Some(first) => {
            let others = if failed.len() > 1 { format!(" (and {} more)", failed.len() - 1) } else { String::new() };
            ("False", first.reason, format!("{}: {}{others}", first.secret, first.message))
        }
    };
    let says = (says.0, says.1, says.2.as_str());
    status::note(next, condition::KUBECONFIGS, says, cluster.generation, context.clock.now());
}

/// What keeps an entry from being made, for the owner of the VirtualCluster.
#[derive(Debug)]
struct Failed {
    secret: String,
    reason: &'static str,
    message: String,
}

struct Round<'a> {
    context: &'a Context,
    cluster: &'a Cluster,
    pki: &'a Data,
    ways: &'a [Way],
    /// Which store the virtual cluster has: another one knows neither account nor token.
    store: String,
    /// What is or may be there, as the status will say it.
    made: Vec<KubeconfigStatus>,
    inside: Inside<'a>,
}

impl Round<'_> {
    async fn all(&mut self) -> Vec<Failed> {
        let (cluster, mut failed) = (self.cluster, Vec::new());
        let note = |secret: &str, error: &Error, failed: &mut Vec<Failed>| {
            tracing::debug!(tenant = %cluster.id, secret, %error, "a kubeconfig cannot be made or removed");
            failed.push(Failed {
                secret: secret.to_owned(),
                reason: reason(error),
                message: error.message().to_owned(),
            });
        };
        for made in self.unwanted() {
            if let Err(error) = remove_secret(self.context, cluster, &made.secret_name).await {
                note(&made.secret_name, &error, &mut failed);
                continue;
            }
            if let Some(place) = &made.bound_in
                && let Err(error) = self.inside.unbind(&made.secret_name, place).await
            {
                // Whoever refuses one would be asked for each of many.
                note(&made.secret_name, &error, &mut failed);
                break;
            }
            self.made.retain(|other| other.secret_name != made.secret_name);
        }
        for entry in entries(cluster) {
            if let Err(error) = self.one(entry).await {
                note(&entry.secret_name, &error, &mut failed);
            }
        }
        if let Some(beyond) = cluster.spec.kubeconfigs.get(MOST_KUBECONFIGS) {
            let message = format!("only the first {MOST_KUBECONFIGS} of spec.kubeconfigs are made");
            note(&beyond.secret_name, &Error::own(Kind::Invalid, message), &mut failed);
        }
        failed
    }

    /// What is to go, in each minute another one first: one that is refused holds up no other for long.
    fn unwanted(&self) -> Vec<KubeconfigStatus> {
        let is_unwanted = |made: &&KubeconfigStatus| !is_wanted(self.context, self.cluster, &made.secret_name);
        let mut unwanted: Vec<KubeconfigStatus> = self.made.iter().filter(is_unwanted).cloned().collect();
        let minute = usize::try_from(self.context.clock.now().as_second() / 60).unwrap_or_default();
        let first = minute.checked_rem(unwanted.len()).unwrap_or_default();
        unwanted.rotate_left(first);
        unwanted
    }

    async fn one(&mut self, entry: &MachineKubeconfig) -> Result<()> {
        let bounds = &self.context.config.operator.credentials;
        let wish = Wish::new(entry, bounds, (self.pki, self.ways, &self.store))?;
        if wish.is_inside() && self.store.is_empty() {
            // What is made now would be made again when it is known.
            return Err(Error::own(Kind::Unavailable, "Portico does not know the virtual cluster's store yet"));
        }
        let now = self.context.clock.now();
        let existing = self.existing(&entry.secret_name).await?;
        if let Some(secret) = &existing
            && let Some(life) = Life::read(&secret["metadata"]["annotations"][MADE], &wish, &secret::data(secret))
            && !life.is_due(now, &wish)
        {
            self.said(&entry.secret_name).expiration = text(life.ends);
            return Ok(());
        }
        self.announce(&wish).await?;
        let (data, life) = self.credential(&wish, now).await?;
        let mut metadata = self.cluster.metadata(&entry.secret_name);
        metadata["labels"][keys::KUBECONFIG] = self.cluster.name().into();
        metadata["annotations"] = json!({MADE: life.write(&wish, &data)});
        let desired = secret::object(&metadata, "Opaque", &data);
        secret::write(&self.context.host, self.cluster.namespace(), existing.as_ref(), &desired).await?;
        self.said(&entry.secret_name).expiration = text(life.ends);
        Ok(())
    }

    /// Our Secret of this name, if there is one.
    async fn existing(&self, name: &str) -> Result<Option<Value>> {
        let Some(found) = self.context.host.get(&SECRETS, self.cluster.namespace(), name).await? else {
            return Ok(None);
        };
        if !found["metadata"]["deletionTimestamp"].is_null() {
            return Err(Error::own(Kind::Unavailable, "a Secret of this name is still being deleted"));
        }
        if is_ours(&found, self.cluster) {
            return Ok(Some(found));
        }
        let message = "a Secret of this name exists and was not made for this: delete it, or choose another secretName";
        Err(Error::own(Kind::Conflict, message))
    }

    /// Writes down what is about to be made.
    async fn announce(&mut self, wish: &Wish<'_>) -> Result<()> {
        let (secret, wanted) = (&wish.entry.secret_name, wish.bound_in());
        let known = self.made.iter().find(|made| made.secret_name == *secret).cloned();
        if known.is_none() && self.made.len() >= MOST_REMEMBERED {
            let message = "the virtual cluster refuses to have the bindings of too many earlier entries removed";
            return Err(Error::own(Kind::Unavailable, message));
        }
        // A binding elsewhere first: the status has one place for it.
        if let Some(place) =
            known.as_ref().and_then(|made| made.bound_in.clone()).filter(|p| Some(p) != wanted.as_ref())
        {
            self.inside.unbind(secret, &place).await?;
            self.said(secret).bound_in = None;
        }
        if known.is_some_and(|made| made.bound_in == wanted) {
            return Ok(());
        }
        self.said(secret).bound_in = wanted;
        let patch = json!({"metadata": {"uid": self.cluster.uid}, "status": {"kubeconfigs": self.made}});
        let (namespace, name) = (self.cluster.namespace(), self.cluster.name());
        self.context.host.patch_status(&VIRTUAL_CLUSTERS, namespace, name, &patch).await?;
        Ok(())
    }

    async fn credential(&mut self, wish: &Wish<'_>, now: Timestamp) -> Result<(Data, Life)> {
        let secret = &wish.entry.secret_name;
        match &wish.wished {
            Wished::User => {
                if wish.bound_in().is_some() {
                    self.inside.bind(wish).await?;
                }
                let text = |key: &str| self.pki.get(key).cloned().unwrap_or_default();
                let ca = Pair { certificate: text(pki::CLIENT_CA), key: text(pki::CLIENT_CA_KEY) };
                let subject = Subject { user: &wish.entry.user, groups: &wish.entry.groups };
                let (pair, ends) = issued::issue_pair(&ca, subject, (now, wish.seconds), issued::serial()?)?;
                Ok((issue::with_pair(self.ways, secret, pair)?, Life { began: now, ends }))
            }
            Wished::Account(account) => {
                self.inside.ensure_account(account).await?;
                if wish.bound_in().is_some() {
                    self.inside.bind(wish).await?;
                }
                let (token, ends) = self.inside.token(account, wish.seconds).await?;
                Ok((issue::with_token(self.ways, secret, token)?, Life { began: now, ends }))
            }
        }
    }

    fn said(&mut self, secret: &str) -> &mut KubeconfigStatus {
        let at = self.made.iter().position(|made| made.secret_name == secret).unwrap_or_else(|| {
            self.made.push(KubeconfigStatus { secret_name: secret.to_owned(), ..KubeconfigStatus::default() });
            self.made.len() - 1
        });
        &mut self.made[at]
    }
}

/// The schema has a bound; one of an earlier version in the host may have none.
fn entries(cluster: &Cluster) -> &[MachineKubeconfig] {
    let all = &cluster.spec.kubeconfigs;
    all.get(..MOST_KUBECONFIGS).unwrap_or(all)
}

/// Whether the spec has an entry of this Secret that may be made: one that is refused by now loses what was made for it.
fn is_wanted(context: &Context, cluster: &Cluster, secret: &str) -> bool {
    let bounds = &context.config.operator.credentials;
    entries(cluster).iter().any(|entry| entry.secret_name == secret && Wished::of(entry, bounds).is_ok())
}

/// First what opens something goes, then what would name it.
async fn remove_secret(context: &Context, cluster: &Cluster, name: &str) -> Result<()> {
    let namespace = cluster.namespace();
    if let Some(found) = context.host.get(&SECRETS, namespace, name).await?
        && is_ours(&found, cluster)
    {
        context.host.delete(&SECRETS, namespace, name, uid_of(&found)).await?;
    }
    Ok(())
}

/// The PKI's and the admin's Secrets are this cluster's, too: the label tells that this one is for a machine.
fn is_ours(found: &Value, cluster: &Cluster) -> bool {
    Mark::Owner(&cluster.uid).is_on(found) && Mark::Label(keys::KUBECONFIG, cluster.name()).is_on(found)
}

fn reason(error: &Error) -> &'static str {
    match error.kind() {
        Kind::Conflict if error.api_status().is_none() => "NameTaken",
        Kind::Invalid | Kind::BadRequest => "Refused",
        Kind::NotFound => "NotFound",
        Kind::Forbidden => "Forbidden",
        Kind::Conflict | Kind::AlreadyExists => "Conflict",
        _ => "Waiting",
    }
}

fn text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
