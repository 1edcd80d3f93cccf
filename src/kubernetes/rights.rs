//! What the host lets Portico do in one namespace, found by asking instead of by failing, and asked again now and then: a
//! right that appears later is used, one that went is not tried.
//!
//! Must not know what happens instead where a right is missing: that is each plane's business.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::error::{Error, Kind, Result};
use crate::kubernetes::resources::{SELF_SUBJECT_REVIEWS, SELF_SUBJECT_RULES};
use crate::kubernetes::{ApiClient, Resource};
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;

/// How often the host is asked again.
const REFRESH: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(5);

/// Rights at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    namespaced: Vec<Rule>,
    /// Cluster-scoped resources that may be listed and watched, `plural.group`.
    readable: BTreeSet<String>,
}

/// One rule of a SelfSubjectRulesReview.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// Rights as they are now, for many readers.
#[derive(Debug, Clone)]
pub struct Access(Option<watch::Receiver<Arc<Rules>>>);

/// Where rights are asked for.
#[derive(Debug, Clone)]
pub struct Question {
    /// The host.
    pub host: ApiClient,
    /// In which namespace.
    pub namespace: String,
    /// Cluster-scoped resources of interest.
    pub cluster: Vec<Resource>,
}

impl Rules {
    /// Everything in the namespace, nothing in the cluster's own scope.
    pub fn whole_namespace() -> Self {
        let any = || vec!["*".to_owned()];
        let rule = Rule { verbs: any(), api_groups: any(), resources: any(), resource_names: Vec::new() };
        Self { namespaced: vec![rule], readable: BTreeSet::new() }
    }

    /// Whether a verb may be used on a namespaced resource, or on one of its subresources.
    pub fn allow(&self, verb: &str, resource: &Resource, subresource: &str) -> bool {
        let name = match subresource {
            "" => resource.plural.to_owned(),
            sub => format!("{}/{sub}", resource.plural),
        };
        let has = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        let has_resource = |list: &[String]| {
            has(list, &name) || (!subresource.is_empty() && list.iter().any(|item| *item == format!("*/{subresource}")))
        };
        self.namespaced.iter().any(|rule| {
            rule.resource_names.is_empty()
                && has(&rule.verbs, verb)
                && has(&rule.api_groups, resource.group)
                && has_resource(&rule.resources)
        })
    }

    /// Whether a resource may be listed and watched.
    pub fn read(&self, resource: &Resource) -> bool {
        if resource.namespaced {
            return self.allow("list", resource, "") && self.allow("watch", resource, "");
        }
        self.readable.contains(&qualified(resource))
    }
}

impl Access {
    /// Rights that are taken for granted: they were given by the installation.
    pub fn granted() -> Self {
        Self(None)
    }

    /// Rights that are followed.
    pub fn followed(rules: watch::Receiver<Arc<Rules>>) -> Self {
        Self(Some(rules))
    }

    /// Whether rights may be missing.
    pub fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// As [`Rules::allow`].
    pub fn allow(&self, verb: &str, resource: &Resource, subresource: &str) -> bool {
        self.0.as_ref().is_none_or(|rules| rules.borrow().allow(verb, resource, subresource))
    }

    /// As [`Rules::read`].
    pub fn read(&self, resource: &Resource) -> bool {
        self.0.as_ref().is_none_or(|rules| rules.borrow().read(resource))
    }

    /// Waits until any right changed.
    pub async fn changed(&mut self) {
        let Some(rules) = &mut self.0 else { return std::future::pending().await };
        if rules.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until a resource may be read, or (`wanted` false) may no longer be.
    pub async fn until_read(&mut self, resource: &Resource, wanted: bool) {
        let Some(rules) = &mut self.0 else {
            if !wanted {
                std::future::pending::<()>().await;
            }
            return;
        };
        if rules.wait_for(|rules| rules.read(resource) == wanted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Question {
    /// Asks once.
    pub async fn ask(&self) -> Result<Rules> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": self.namespace},
        });
        let answer = self.host.create(&SELF_SUBJECT_RULES, None, &review).await?;
        let namespaced = serde_json::from_value(answer["status"]["resourceRules"].clone())
            .map_err(|e| Error::host(Kind::Protocol, "a SelfSubjectRulesReview cannot be read").because(e))?;
        let mut readable = BTreeSet::new();
        for resource in &self.cluster {
            if self.may(resource, "list").await? && self.may(resource, "watch").await? {
                readable.insert(qualified(resource));
            }
        }
        Ok(Rules { namespaced, readable })
    }

    /// A rules review of a namespace says nothing of the cluster's own scope: a Role may name `nodes` in vain.
    async fn may(&self, resource: &Resource, verb: &str) -> Result<bool> {
        let attributes = json!({"verb": verb, "group": resource.group, "resource": resource.plural});
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        });
        let answer = self.host.create(&SELF_SUBJECT_REVIEWS, None, &review).await?;
        Ok(answer["status"]["allowed"] == Value::Bool(true))
    }

    /// Asks again and again until the drain begins; readers wake when something changed.
    pub async fn follow(self, rules: watch::Sender<Arc<Rules>>, clock: Clock, mut drain: Drain) {
        let mut wait = REFRESH;
        loop {
            tokio::select! {
                () = tokio::time::sleep(clock.jitter(wait)) => {}
                _ = drain.signaled() => return,
            }
            wait = match self.ask().await {
                Ok(now) => {
                    rules.send_if_modified(|known| {
                        let differs = **known != now;
                        if differs {
                            *known = Arc::new(now);
                        }
                        differs
                    });
                    REFRESH
                }
                Err(error) => {
                    tracing::debug!(%error, "the host did not say which rights there are");
                    RETRY
                }
            };
        }
    }
}

fn qualified(resource: &Resource) -> String {
    format!("{}.{}", resource.plural, resource.group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::resources::{ENDPOINT_SLICES, INGRESSES, LEASES, NAMESPACES, NODES, PODS, SECRETS};

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        let list = |items: &[&str]| items.iter().map(|i| (*i).to_owned()).collect();
        Rule { verbs: list(verbs), api_groups: list(groups), resources: list(resources), resource_names: list(names) }
    }

    fn original() -> Rules {
        Rules {
            namespaced: vec![
                rule(&["*"], &[""], &["configmaps", "secrets", "pods", "pods/exec"], &[]),
                rule(&["*"], &["networking.k8s.io"], &["ingresses"], &[]),
                rule(&["get", "list", "watch"], &[""], &["namespaces", "nodes"], &[]),
                rule(&["get"], &["coordination.k8s.io"], &["leases"], &["one"]),
            ],
            readable: BTreeSet::new(),
        }
    }

    #[test]
    fn what_the_original_role_gives_and_what_it_does_not() {
        let rules = original();
        assert!(rules.allow("patch", &PODS, "") && rules.allow("create", &PODS, "exec") && rules.read(&INGRESSES));
        assert!(!rules.allow("patch", &PODS, "status"), "a right on pods is none on their subresources");
        assert!(!rules.read(&ENDPOINT_SLICES));
        assert!(!rules.allow("get", &LEASES, ""), "a right on one name is no right on the kind");
        assert!(!rules.read(&NODES) && !rules.read(&NAMESPACES), "a Role gives nothing in the cluster's own scope");
    }

    #[test]
    fn wildcards() {
        let all = Rules { namespaced: vec![rule(&["*"], &["*"], &["*"], &[])], ..Rules::default() };
        assert!(all.allow("delete", &SECRETS, "") && all.allow("patch", &PODS, "status"));
        let sub = Rules { namespaced: vec![rule(&["patch"], &[""], &["*/status"], &[])], ..Rules::default() };
        assert!(sub.allow("patch", &PODS, "status") && !sub.allow("patch", &PODS, ""));
    }

    #[tokio::test]
    async fn readers_wake_when_a_right_comes_and_goes() {
        let (sender, receiver) = watch::channel(Arc::new(original()));
        let mut access = Access::followed(receiver);
        access.until_read(&NODES, false).await;
        let nodes = Rules { readable: BTreeSet::from(["nodes.".to_owned()]), ..original() };
        sender.send_replace(Arc::new(nodes));
        access.until_read(&NODES, true).await;
        assert!(access.read(&NODES));
        sender.send_replace(Arc::new(original()));
        access.until_read(&NODES, false).await;
        assert!(Access::granted().read(&NODES));
    }
}
