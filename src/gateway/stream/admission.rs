//! Whether the backend's admission would judge this stream. Portico cannot offer a CONNECT to it, so it refuses what it
//! would otherwise let pass unjudged.
//!
//! Asked anew every time (a few small reads at once): a rule made a moment ago holds. Selectors and conditions of a
//! webhook or policy are not evaluated; any rule that could match counts.

use std::time::Duration;

use serde_json::Value;

use super::Stream;
use crate::error::{Error, Kind, Result};
use crate::gateway::context::Context;
use crate::status::Status;
use crate::upstream::{ListOptions, Resource};

const DEADLINE: Duration = Duration::from_secs(10);
const GROUP: &str = "admissionregistration.k8s.io";

const fn resource(version: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource { group: GROUP, version, plural, kind, namespaced: false }
}

const VALIDATING: Resource = resource("v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration");
const MUTATING: Resource = resource("v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration");
const POLICIES: Resource = resource("v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy");
const BINDINGS: Resource = resource("v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding");

/// Refuses with 403 when some admission rule covers this CONNECT.
pub(super) async fn check(context: &Context, stream: Stream) -> Result<()> {
    let list = |resource: &'static Resource| Box::pin(items(context, resource));
    let reads = futures::future::try_join4(list(&VALIDATING), list(&MUTATING), list(&POLICIES), list(&BINDINGS));
    let (validating, mutating, policies, bindings) = tokio::time::timeout(DEADLINE, reads)
        .await
        .map_err(|_| Error::backend(Kind::Timeout, "the cluster's admission rules could not be read in time"))??;
    let judge = webhook(&validating, stream.subresource())
        .or_else(|| webhook(&mutating, stream.subresource()))
        .or_else(|| policy(&policies, &bindings, stream.subresource()));
    let Some(judge) = judge else { return Ok(()) };
    let (name, subresource) = (&context.info.name, stream.subresource());
    let message = format!(
        "pods \"{name}\" is forbidden: {judge} of this cluster judges CONNECT on pods/{subresource}, and the gateway \
         cannot ask it; streams are refused rather than let past it"
    );
    let status = Status::failure(403, "Forbidden", message).about("", "pods", name);
    Err(Error::from_status(crate::error::Side::Client, status))
}

async fn items(context: &Context, resource: &Resource) -> Result<Vec<Value>> {
    match context.tenant.api.list(resource, None, &ListOptions::default()).await {
        Ok((items, _)) => Ok(items),
        // An API server that does not serve the kind has none of it.
        Err(error) if error.kind() == Kind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn webhook(configurations: &[Value], subresource: &str) -> Option<String> {
    let array = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_array).cloned();
    configurations.iter().find_map(|configuration| {
        array(configuration, "/webhooks").unwrap_or_default().iter().find_map(|webhook| {
            let rules = array(webhook, "/rules").unwrap_or_default();
            let name = webhook.get("name").and_then(Value::as_str).unwrap_or_default();
            rules.iter().any(|rule| covers(rule, subresource)).then(|| format!("the admission webhook \"{name}\""))
        })
    })
}

/// A policy acts only where it is bound.
fn policy(policies: &[Value], bindings: &[Value], subresource: &str) -> Option<String> {
    policies.iter().find_map(|policy| {
        let name = policy.pointer("/metadata/name").and_then(Value::as_str)?;
        let bound = bindings.iter().any(|b| b.pointer("/spec/policyName").and_then(Value::as_str) == Some(name));
        let rules = policy.pointer("/spec/matchConstraints/resourceRules").and_then(Value::as_array)?;
        (bound && rules.iter().any(|rule| covers(rule, subresource)))
            .then(|| format!("the ValidatingAdmissionPolicy \"{name}\""))
    })
}

/// `k8s.io/apiserver/pkg/admission/plugin/webhook/predicates/rules`.
fn covers(rule: &Value, subresource: &str) -> bool {
    let has = |key: &str, wanted: &[&str]| {
        let listed = rule.get(key).and_then(Value::as_array);
        listed.is_some_and(|all| all.iter().filter_map(Value::as_str).any(|value| wanted.contains(&value)))
    };
    let (exact, any_resource) = (format!("pods/{subresource}"), format!("*/{subresource}"));
    has("operations", &["CONNECT", "*"])
        && has("apiGroups", &["", "*"])
        && has("apiVersions", &["v1", "*"])
        && has("resources", &[&exact, &any_resource, "pods/*", "*/*"])
        && rule.get("scope").and_then(Value::as_str) != Some("Cluster")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(operation: &str, group: &str, resource: &str) -> Value {
        json!({"operations": [operation], "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]})
    }

    #[test]
    fn every_form_that_covers_exec_is_seen() {
        for resource in ["pods/exec", "pods/*", "*/exec", "*/*"] {
            for operation in ["CONNECT", "*"] {
                for group in ["", "*"] {
                    assert!(covers(&rule(operation, group, resource), "exec"), "{operation} {group} {resource}");
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
            assert!(!covers(&rule(operation, group, resource), "exec"), "{operation} {group} {resource}");
        }
        let mut cluster = rule("CONNECT", "", "*/*");
        cluster["scope"] = json!("Cluster");
        assert!(!covers(&cluster, "exec"));
    }

    #[test]
    fn a_policy_counts_only_when_bound() {
        let policies = [json!({"metadata": {"name": "no-exec"},
            "spec": {"matchConstraints": {"resourceRules": [rule("CONNECT", "", "pods/exec")]}}})];
        assert!(policy(&policies, &[], "exec").is_none());
        let bindings = [json!({"spec": {"policyName": "no-exec"}})];
        assert!(policy(&policies, &bindings, "exec").expect("judged").contains("no-exec"));
    }
}
