//! Whether the backend's admission would judge this stream. Portico cannot offer a CONNECT to it, so it refuses what it
//! would otherwise let pass unjudged.
//!
//! Asked anew every time (a few small reads at once): a rule made a moment ago holds. Selectors and conditions of a
//! webhook or policy are not evaluated; any rule that could match counts. Of the objects, which a tenant makes as large
//! and as many as it likes, only one page is held at a time, drawn on the tenant's budget, and only rules are kept of it.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::stream::Stream;
use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};
use crate::gateway::buffer::{self, Failure};
use crate::gateway::context::Context;
use crate::kubernetes::Resource;

const DEADLINE: Duration = Duration::from_secs(10);
const GROUP: &str = "admissionregistration.k8s.io";
/// Objects on a page: nearly always all of them, and one that is as large as etcd takes it when it must be.
const PAGES: [usize; 3] = [100, 10, 1];
const LONGEST_PAGE: usize = 2 << 20;
/// Policies that cover one stream: more are refused like one that is bound.
const MOST_POLICIES: usize = 1000;

const fn resource(version: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource { group: GROUP, version, plural, kind, namespaced: false }
}

const VALIDATING: Resource = resource("v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration");
const MUTATING: Resource = resource("v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration");

/// A kind of policies that are bound by others. An API server serves the same objects in every version that it has, so the
/// first that it has tells all; older ones, and those with a feature switched on, have only a later one of these.
struct PolicyKind {
    kind: &'static str,
    policies: [Resource; 3],
    bindings: [Resource; 3],
}

const fn versions(plural: &'static str, kind: &'static str) -> [Resource; 3] {
    [resource("v1", plural, kind), resource("v1beta1", plural, kind), resource("v1alpha1", plural, kind)]
}

const VALIDATING_POLICIES: PolicyKind = PolicyKind {
    kind: "ValidatingAdmissionPolicy",
    policies: versions("validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
    bindings: versions("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
};
const MUTATING_POLICIES: PolicyKind = PolicyKind {
    kind: "MutatingAdmissionPolicy",
    policies: versions("mutatingadmissionpolicies", "MutatingAdmissionPolicy"),
    bindings: versions("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding"),
};

#[derive(Debug, Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMeta,
    items: Option<Vec<T>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PageMeta {
    #[serde(rename = "continue")]
    token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Configuration {
    webhooks: Option<Vec<Webhook>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Webhook {
    name: String,
    rules: Option<Vec<Rule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Policy {
    metadata: Named,
    spec: PolicySpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PolicySpec {
    match_constraints: Option<Constraints>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Constraints {
    resource_rules: Option<Vec<Rule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Binding {
    spec: BindingSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BindingSpec {
    policy_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    operations: Option<Vec<String>>,
    api_groups: Option<Vec<String>>,
    api_versions: Option<Vec<String>>,
    resources: Option<Vec<String>>,
    scope: Option<String>,
}

/// Refuses with 403 when some admission rule covers this CONNECT.
pub(super) async fn check(context: &Context, stream: Stream) -> Result<()> {
    let subresource = stream.subresource();
    let reads = futures::future::try_join4(
        Box::pin(webhook(context, &VALIDATING, subresource)),
        Box::pin(webhook(context, &MUTATING, subresource)),
        Box::pin(policy(context, &VALIDATING_POLICIES, subresource)),
        Box::pin(policy(context, &MUTATING_POLICIES, subresource)),
    );
    let (validating, mutating, validating_policy, mutating_policy) = tokio::time::timeout(DEADLINE, reads)
        .await
        .map_err(|_| Error::backend(Kind::Timeout, "the cluster's admission rules could not be read in time"))??;
    let policy = validating_policy.or(mutating_policy);
    let Some(judge) = validating.or(mutating).or(policy) else { return Ok(()) };
    let name = &context.info.name;
    let message = format!(
        "pods \"{name}\" is forbidden: {judge} of this cluster judges CONNECT on pods/{subresource}, and the gateway \
         cannot ask it; streams are refused rather than let past it"
    );
    let status = Status::failure(403, "Forbidden", message).about("", "pods", name);
    Err(Error::from_status(Side::Client, status))
}

async fn webhook(context: &Context, resource: &Resource, subresource: &str) -> Result<Option<String>> {
    let mut found = None;
    each_page(context, resource, |configurations: Vec<Configuration>| {
        found = configurations.iter().find_map(|configuration| covering_webhook(configuration, subresource));
        found.is_none()
    })
    .await?;
    Ok(found)
}

/// A policy acts only where it is bound.
async fn policy(context: &Context, of: &PolicyKind, subresource: &str) -> Result<Option<String>> {
    let mut covering = HashSet::new();
    each_page_as_served(context, &of.policies, |policies: Vec<Policy>| {
        covering.extend(policies.into_iter().filter(|p| p.covers(subresource)).map(|p| p.metadata.name));
        covering.len() <= MOST_POLICIES
    })
    .await?;
    if covering.len() > MOST_POLICIES {
        return Ok(Some(format!("one of more than {MOST_POLICIES} objects of kind {}", of.kind)));
    }
    if covering.is_empty() {
        return Ok(None);
    }
    let mut found = None;
    each_page_as_served(context, &of.bindings, |bindings: Vec<Binding>| {
        found = bindings.into_iter().map(|binding| binding.spec.policy_name).find(|name| covering.contains(name));
        found.is_none()
    })
    .await?;
    Ok(found.map(|name| format!("the {} \"{name}\"", of.kind)))
}

/// The same in the first of these versions that is served.
async fn each_page_as_served<T>(
    context: &Context,
    versions: &[Resource],
    mut look: impl FnMut(Vec<T>) -> bool,
) -> Result<()>
where
    T: DeserializeOwned,
{
    for resource in versions {
        if each_page(context, resource, &mut look).await? {
            break;
        }
    }
    Ok(())
}

/// Shows every page of a list to `look` until that says false. A page that is too long is asked for anew, shorter. Whether
/// the kind is served in this version.
async fn each_page<T>(context: &Context, resource: &Resource, mut look: impl FnMut(Vec<T>) -> bool) -> Result<bool>
where
    T: DeserializeOwned,
{
    let (mut token, mut limits) = (String::new(), PAGES.iter());
    let mut limit = limits.next();
    while let Some(count) = limit {
        let bytes = match read_page(context, resource, *count, &token).await {
            Ok(Some(bytes)) => bytes,
            // An API server that does not serve the kind has none of it.
            Ok(None) => return Ok(false),
            Err(Failure::TooLong(_)) => {
                limit = limits.next();
                continue;
            }
            Err(failure) => return Err(failure.of(Side::Backend)),
        };
        let _drawn = context.entry.buffers().draw(buffer::weight(&bytes))?;
        let page: Page<T> = serde_json::from_slice(&bytes)
            .map_err(|e| Error::backend(Kind::Protocol, "the cluster's admission rules cannot be read").because(e))?;
        token = page.metadata.token;
        if !look(page.items.unwrap_or_default()) || token.is_empty() {
            return Ok(true);
        }
    }
    let message = "an admission rule of this cluster is too large to be read here; streams are refused rather than let \
                   past it";
    Err(Error::client(Kind::Forbidden, message))
}

/// `None`: there is no such kind.
async fn read_page(
    context: &Context,
    resource: &Resource,
    limit: usize,
    token: &str,
) -> Result<Option<Bytes>, Failure> {
    let mut path = format!("{}?limit={limit}", resource.path(None, None, None));
    if !token.is_empty() {
        path.push_str("&continue=");
        path.extend(percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC));
    }
    match context.tenant.api.open(&path, DEADLINE).await {
        Ok(body) => buffer::read(body, LONGEST_PAGE, DEADLINE, context.entry.buffers()).await.map(Some),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(Failure::Full(error)),
    }
}

fn covering_webhook(configuration: &Configuration, subresource: &str) -> Option<String> {
    let covers = |webhook: &&Webhook| webhook.rules.iter().flatten().any(|rule| rule.covers(subresource));
    let webhook = configuration.webhooks.iter().flatten().find(covers)?;
    Some(format!("the admission webhook \"{}\"", webhook.name))
}

impl Policy {
    fn covers(&self, subresource: &str) -> bool {
        let rules = self.spec.match_constraints.iter().flat_map(|constraints| &constraints.resource_rules);
        rules.flatten().any(|rule| rule.covers(subresource))
    }
}

impl Rule {
    /// `k8s.io/apiserver/pkg/admission/plugin/webhook/predicates/rules`.
    fn covers(&self, subresource: &str) -> bool {
        let has = |listed: &Option<Vec<String>>, wanted: &[&str]| {
            listed.iter().flatten().any(|value| wanted.contains(&value.as_str()))
        };
        let (exact, any_resource) = (format!("pods/{subresource}"), format!("*/{subresource}"));
        has(&self.operations, &["CONNECT", "*"])
            && has(&self.api_groups, &["", "*"])
            && has(&self.api_versions, &["v1", "*"])
            && has(&self.resources, &[&exact, &any_resource, "pods/*", "*/*"])
            && self.scope.as_deref() != Some("Cluster")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rule(operation: &str, group: &str, resource: &str) -> Value {
        json!({"operations": [operation], "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]})
    }

    fn covers(rule: &Value) -> bool {
        serde_json::from_value::<Rule>(rule.clone()).expect("a rule").covers("exec")
    }

    #[test]
    fn every_form_that_covers_exec_is_seen() {
        for resource in ["pods/exec", "pods/*", "*/exec", "*/*"] {
            for operation in ["CONNECT", "*"] {
                for group in ["", "*"] {
                    assert!(covers(&rule(operation, group, resource)), "{operation} {group} {resource}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_cover_exec_lets_it_pass() {
        for (operation, group, resource) in [
            ("CREATE", "", "pods/exec"),
            ("CONNECT", "apps", "pods/exec"),
            ("CONNECT", "", "pods/attach"),
            ("CONNECT", "", "pods"),
            ("CONNECT", "", "*"),
        ] {
            assert!(!covers(&rule(operation, group, resource)), "{operation} {group} {resource}");
        }
        let mut cluster = rule("CONNECT", "", "*/*");
        cluster["scope"] = json!("Cluster");
        assert!(!covers(&cluster));
    }

    #[test]
    fn nothing_is_needed_but_what_covers() {
        let page: Page<Configuration> = serde_json::from_value(json!({"items": [
            {"webhooks": null}, {}, {"webhooks": [{"name": "w", "rules": null}, {"name": "v",
                "rules": [rule("CONNECT", "", "pods/exec")], "clientConfig": {"url": "https://example.com"}}]}]}))
        .expect("a page");
        let found = page.items.expect("items").iter().find_map(|c| covering_webhook(c, "exec"));
        assert_eq!(found.as_deref(), Some("the admission webhook \"v\""));
        let policy: Policy = serde_json::from_value(json!({"metadata": {"name": "p", "labels": {}},
            "spec": {"matchConstraints": {"resourceRules": [rule("CONNECT", "", "pods/exec")]}}}))
        .expect("a policy");
        assert!(policy.covers("exec") && !policy.covers("attach") && !Policy::default().covers("exec"));
    }
}
