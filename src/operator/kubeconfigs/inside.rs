//! What `spec.kubeconfigs` needs inside a virtual cluster: ServiceAccounts, bindings, tokens; made as Portico itself.
//!
//! Promises: the first call that fails for want of an answer is the last one of the round; all of them together take no longer than they may;
//! a binding that does not bear our label is left as it is.

use std::time::Duration;

use data_encoding::HEXLOWER;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::wish::{EVERYWHERE, Wish, Wished};
use crate::crd::AccountOfTenant;
use crate::error::{Error, Kind, Result};
use crate::kubernetes::Resource;
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::resources::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS};
use crate::names::keys;
use crate::operator::apply::Mark;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::host::uid_of;

const RBAC: &str = "rbac.authorization.k8s.io";
/// Bytes of a token that is worth keeping.
const LONGEST_TOKEN: usize = 16 << 10;

/// The virtual cluster's API server, for one round.
pub(super) struct Inside<'a> {
    context: &'a Context,
    cluster: &'a Cluster,
    until: Instant,
    /// It did not answer.
    is_away: bool,
    /// Tells this VirtualCluster's bindings from those of another one at the same external API server, of the same name perhaps.
    mark: String,
}

impl<'a> Inside<'a> {
    pub(super) fn new(context: &'a Context, cluster: &'a Cluster, patience: Duration) -> Self {
        let mark = HEXLOWER.encode(&Sha256::digest(&cluster.uid)[..8]);
        Self { context, cluster, until: context.clock.instant() + patience, is_away: false, mark }
    }

    /// Makes a ServiceAccount if it is missing.
    pub(super) async fn ensure_account(&mut self, account: &AccountOfTenant) -> Result<()> {
        let AccountOfTenant { namespace, name } = account;
        let object =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": name}});
        let api = self.api()?;
        if self.asked(api.get(&SERVICE_ACCOUNTS, Some(namespace), name)).await?.is_some() {
            return Ok(());
        }
        match self.asked(api.create(&SERVICE_ACCOUNTS, Some(namespace), ("", ""), &object)).await {
            Err(error) if error.kind() == Kind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == Kind::NotFound => {
                Err(Error::own(Kind::NotFound, format!("the virtual cluster has no namespace {namespace:?}"))
                    .because(error))
            }
            outcome => outcome.map(|_| ()),
        }
    }

    /// A token of an account, and its end.
    pub(super) async fn token(&mut self, account: &AccountOfTenant, seconds: i64) -> Result<(String, Timestamp)> {
        let AccountOfTenant { namespace, name } = account;
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds}});
        let api = self.api()?;
        let answer = self.asked(api.create(&SERVICE_ACCOUNTS, Some(namespace), (name, "token"), &request)).await?;
        let token =
            answer["status"]["token"].as_str().filter(|token| !token.is_empty() && token.len() <= LONGEST_TOKEN);
        let ends = answer["status"]["expirationTimestamp"].as_str().and_then(|text| text.parse().ok());
        match (token, ends) {
            (Some(token), Some(ends)) => Ok((token.to_owned(), ends)),
            _ => Err(Error::own(Kind::Protocol, "the virtual cluster's API server answered no token")),
        }
    }

    /// Binds whom the wish is for to its role.
    pub(super) async fn bind(&mut self, wish: &Wish<'_>) -> Result<()> {
        let name = self.binding_name(&wish.entry.secret_name);
        let (namespace, role, roles, bindings) = match &wish.entry.role {
            Some(role) => (Some(role.namespace.as_str()), role.name.as_str(), &ROLES, &ROLE_BINDINGS),
            None => (None, wish.entry.cluster_role.as_str(), &CLUSTER_ROLES, &CLUSTER_ROLE_BINDINGS),
        };
        let subject = match wish.wished {
            Wished::User => json!({"apiGroup": RBAC, "kind": "User", "name": wish.entry.user}),
            Wished::Account(account) => {
                json!({"kind": "ServiceAccount", "namespace": account.namespace, "name": account.name})
            }
        };
        let desired = json!({
            "apiVersion": format!("{RBAC}/v1"),
            "kind": bindings.kind,
            "metadata": {"name": name, "labels": {keys::KUBECONFIG: self.mark}},
            "roleRef": {"apiGroup": RBAC, "kind": roles.kind, "name": role},
            "subjects": [subject],
        });
        let api = self.api()?;
        // A binding to a role that is not there would wait for whoever makes one of that name.
        let has_role = self.asked(api.get(roles, namespace, role)).await?.is_some();
        if !has_role {
            return Err(Error::own(Kind::NotFound, format!("the virtual cluster has no {} {role:?}", roles.kind)));
        }
        if let Some(existing) = self.asked(api.get(bindings, namespace, &name)).await? {
            self.check_ours(bindings, &existing)?;
            if is_same(&existing, &desired) {
                return Ok(());
            }
            // What a binding binds to cannot be changed.
            self.asked(api.delete(bindings, namespace, &name, uid_of(&existing), None)).await?;
        }
        self.asked(api.create(bindings, namespace, ("", ""), &desired)).await?;
        Ok(())
    }

    /// Removes the binding that a Secret had at this place, if it is ours.
    pub(super) async fn unbind(&mut self, secret: &str, place: &str) -> Result<()> {
        let name = self.binding_name(secret);
        let (namespace, bindings) =
            if place == EVERYWHERE { (None, &CLUSTER_ROLE_BINDINGS) } else { (Some(place), &ROLE_BINDINGS) };
        let api = self.api()?;
        let found = self.asked(api.get(bindings, namespace, &name)).await?;
        let Some(found) = found.filter(|found| self.check_ours(bindings, found).is_ok()) else { return Ok(()) };
        self.asked(api.delete(bindings, namespace, &name, uid_of(&found), None)).await?;
        Ok(())
    }

    fn binding_name(&self, secret: &str) -> String {
        format!("portico:kubeconfig:{secret}:{}", self.mark)
    }

    fn check_ours(&self, kind: &Resource, found: &Value) -> Result<()> {
        if Mark::Label(keys::KUBECONFIG, &self.mark).is_on(found) {
            return Ok(());
        }
        let name = found["metadata"]["name"].as_str().unwrap_or_default();
        let message = format!("{} {name:?} of the virtual cluster was not made by Portico: delete it there", kind.kind);
        Err(Error::own(Kind::Conflict, message))
    }

    fn api(&self) -> Result<SharedCluster> {
        if self.is_away {
            return Err(Error::own(Kind::Unavailable, "the virtual cluster does not answer"));
        }
        self.context.backends.inside(&self.cluster.id, &self.cluster.uid)
    }

    async fn asked<T>(&mut self, call: BoxFuture<'_, Result<T>>) -> Result<T> {
        let late = |_| Err(Error::own(Kind::Timeout, "the virtual cluster does not answer"));
        let outcome = tokio::time::timeout_at(self.until, call).await.unwrap_or_else(late);
        self.is_away = outcome.as_ref().is_err_and(|error| error.api_status().is_none());
        outcome
    }
}

fn is_same(existing: &Value, desired: &Value) -> bool {
    let subject = |object: &Value| {
        let subjects = object["subjects"].as_array().map(Vec::as_slice).unwrap_or_default();
        match subjects {
            [one] => Some([one["kind"].clone(), one["namespace"].clone(), one["name"].clone()]),
            _ => None,
        }
    };
    existing["roleRef"] == desired["roleRef"] && subject(existing).is_some() && subject(existing) == subject(desired)
}
