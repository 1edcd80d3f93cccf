//! Which kinds of objects make admission, and what of an object decides whether it judges a stream. Pure.
//!
//! Promises: selectors and conditions are not evaluated, so every rule that could match counts.

use serde::Deserialize;

use crate::kubernetes::Resource;

const GROUP: &str = "admissionregistration.k8s.io";
/// Subresources of pods that are streams, and that of nodes behind which their kubelets are.
const STREAMS: [&str; 4] = ["exec", "attach", "portforward", NODES_PROXY];
const NODES_PROXY: &str = "proxy";

const fn resource(version: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource { group: GROUP, version, plural, kind, namespaced: false }
}

pub(super) const VALIDATING: Resource =
    resource("v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration");
pub(super) const MUTATING: Resource = resource("v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration");

/// A kind of policies that are bound by others. An API server serves the same objects in every version that it has, so the
/// first that it has tells all; older ones, and those with a feature switched on, have only a later one of these.
pub(super) struct PolicyKind {
    pub(super) kind: &'static str,
    pub(super) policies: [Resource; 3],
    pub(super) bindings: [Resource; 3],
}

const fn versions(plural: &'static str, kind: &'static str) -> [Resource; 3] {
    [resource("v1", plural, kind), resource("v1beta1", plural, kind), resource("v1alpha1", plural, kind)]
}

pub(super) const VALIDATING_POLICIES: PolicyKind = PolicyKind {
    kind: "ValidatingAdmissionPolicy",
    policies: versions("validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
    bindings: versions("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
};
pub(super) const MUTATING_POLICIES: PolicyKind = PolicyKind {
    kind: "MutatingAdmissionPolicy",
    policies: versions("mutatingadmissionpolicies", "MutatingAdmissionPolicy"),
    bindings: versions("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding"),
};

/// What an object is in all this.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Webhooks,
    Policies,
    Bindings,
}

/// Which streams something covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Covers(u8);

/// Whom an object makes a judge: a webhook, or a policy; or which policy it binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judge {
    pub(super) name: Box<str>,
    pub(super) covers: Covers,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Configuration {
    metadata: Named,
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
pub(super) struct Policy {
    pub(super) metadata: Named,
    spec: PolicySpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Named {
    pub(super) name: String,
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
pub(super) struct Binding {
    metadata: Named,
    pub(super) spec: BindingSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct BindingSpec {
    pub(super) policy_name: String,
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

/// An object's name, and of whom it makes judges: at most one for each stream.
pub(super) fn project(part: Part, json: &[u8]) -> serde_json::Result<(String, Vec<Judge>)> {
    match part {
        Part::Webhooks => {
            let configuration: Configuration = serde_json::from_slice(json)?;
            let judges = configuration.judges();
            Ok((configuration.metadata.name, judges))
        }
        Part::Policies => {
            let policy: Policy = serde_json::from_slice(json)?;
            let covers = Covers::by(&|stream| policy.covers(stream));
            let judge = Judge { name: policy.metadata.name.as_str().into(), covers };
            let judges = if covers == Covers::NOTHING { Vec::new() } else { vec![judge] };
            Ok((policy.metadata.name, judges))
        }
        Part::Bindings => {
            let Binding { metadata, spec } = serde_json::from_slice(json)?;
            Ok((metadata.name, vec![Judge { name: spec.policy_name.into(), covers: Covers::ALL }]))
        }
    }
}

/// An object's name, whatever else is in it.
pub(super) fn name(json: &[u8]) -> serde_json::Result<String> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Named,
    }
    Ok(serde_json::from_slice::<Object>(json)?.metadata.name)
}

impl Covers {
    const NOTHING: Self = Self(0);
    pub(super) const ALL: Self = Self((1 << STREAMS.len()) - 1);

    fn by(covers: &dyn Fn(&str) -> bool) -> Self {
        let bits = STREAMS.iter().enumerate().map(|(at, stream)| u8::from(covers(stream)) << at);
        Self(bits.fold(0, |all, bit| all | bit))
    }

    pub(super) fn has(self, subresource: &str) -> bool {
        STREAMS.iter().enumerate().any(|(at, stream)| *stream == subresource && self.0 & (1 << at) != 0)
    }
}

impl Configuration {
    /// The first webhook that judges this stream.
    pub(super) fn covering(&self, subresource: &str) -> Option<&str> {
        let covers = |webhook: &&Webhook| webhook.rules.iter().flatten().any(|rule| rule.covers(subresource));
        Some(self.webhooks.iter().flatten().find(covers)?.name.as_str())
    }

    fn judges(&self) -> Vec<Judge> {
        let of = |stream: &&'static str| {
            let name = self.covering(stream)?;
            Some(Judge { name: name.into(), covers: Covers::by(&|other| other == *stream) })
        };
        STREAMS.iter().filter_map(of).collect()
    }
}

impl Policy {
    pub(super) fn covers(&self, subresource: &str) -> bool {
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
        let is_of_nodes = subresource == NODES_PROXY;
        let (resource, other_scope) = if is_of_nodes { ("nodes", "Namespaced") } else { ("pods", "Cluster") };
        let (exact, any_resource) = (format!("{resource}/{subresource}"), format!("*/{subresource}"));
        has(&self.operations, &["CONNECT", "*"])
            && has(&self.api_groups, &["", "*"])
            && has(&self.api_versions, &["v1", "*"])
            && has(&self.resources, &[&exact, &any_resource, &format!("{resource}/*"), "*/*"])
            && self.scope.as_deref() != Some(other_scope)
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

    fn projected(part: Part, object: &Value) -> (String, Vec<(String, Covers)>) {
        let (name, judges) = project(part, object.to_string().as_bytes()).expect("an object");
        (name, judges.into_iter().map(|judge| (judge.name.into(), judge.covers)).collect())
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
    fn the_proxy_is_that_of_nodes() {
        let covers = |rule: &Value| serde_json::from_value::<Rule>(rule.clone()).expect("a rule").covers(NODES_PROXY);
        for resource in ["nodes/proxy", "nodes/*", "*/proxy", "*/*"] {
            assert!(covers(&rule("CONNECT", "", resource)), "{resource}");
        }
        for resource in ["pods/proxy", "services/proxy", "pods/*", "nodes", "nodes/status"] {
            assert!(!covers(&rule("CONNECT", "", resource)), "{resource}");
        }
        let mut scoped = rule("CONNECT", "", "*/*");
        scoped["scope"] = json!("Namespaced");
        assert!(!covers(&scoped));
        scoped["scope"] = json!("Cluster");
        assert!(covers(&scoped));
    }

    #[test]
    fn nothing_is_kept_but_who_judges_which_stream() {
        let exec = Covers::by(&|stream| stream == "exec");
        assert!(exec.has("exec") && !exec.has("attach") && !exec.has("log") && Covers::ALL.has("portforward"));
        let configuration = json!({"metadata": {"name": "c", "labels": {}}, "webhooks": [
            {"name": "w", "rules": null},
            {"name": "v", "rules": [rule("CONNECT", "", "pods/exec")], "clientConfig": {"url": "https://example.com"}},
            {"name": "u", "rules": [rule("*", "*", "*/*")]}]});
        let (name, judges) = projected(Part::Webhooks, &configuration);
        let judging =
            |stream| judges.iter().filter(move |(_, covers)| covers.has(stream)).map(|(name, _)| name.as_str());
        assert_eq!(name, "c");
        for (stream, judge) in [("exec", "v"), ("attach", "u"), ("portforward", "u")] {
            assert_eq!(judging(stream).collect::<Vec<_>>(), [judge], "{stream}");
        }
        for nobody in [json!({"metadata": {"name": "c"}}), json!({"metadata": {"name": "c"}, "webhooks": null})] {
            assert_eq!(projected(Part::Webhooks, &nobody), ("c".to_owned(), Vec::new()));
            assert_eq!(projected(Part::Policies, &nobody), ("c".to_owned(), Vec::new()));
        }
        let policy = json!({"metadata": {"name": "p"},
            "spec": {"matchConstraints": {"resourceRules": [rule("CONNECT", "", "pods/exec")]}}});
        assert_eq!(projected(Part::Policies, &policy), ("p".to_owned(), vec![("p".to_owned(), exec)]));
        let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p"}});
        assert_eq!(projected(Part::Bindings, &binding), ("b".to_owned(), vec![("p".to_owned(), Covers::ALL)]));
        assert_eq!(super::name(br#"{"metadata": {"name": "n"}, "webhooks": 7}"#).expect("a name"), "n");
        assert!(super::name(b"{}").is_err());
    }
}
