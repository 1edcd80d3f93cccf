//! One rule of an audit policy, with the fields of `audit.k8s.io/v1`, and what cannot stand in one.

use serde::{Deserialize, Serialize};

/// Of one policy.
const MOST_RULES: usize = 64;
/// Of all lists of one policy together: each request may be compared with all of them.
const MOST_ENTRIES: usize = 512;
const LONGEST: usize = 256;
pub(super) const MOST_STAGES: usize = 4;

/// How much is written of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum AuditLevel {
    /// Nothing.
    #[default]
    None,
    /// Who asked for what, when and with which outcome.
    Metadata,
    /// Kubernetes' level for the request's body. Refused: bodies are never kept.
    Request,
    /// Kubernetes' level for both bodies. Refused: bodies are never kept.
    RequestResponse,
}

/// A moment of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Stage {
    /// It has come. Never written: one event of an ordinary request says all.
    RequestReceived,
    /// The answer to a watch or a stream begins.
    ResponseStarted,
    /// The answer's last byte was sent.
    ResponseComplete,
    /// Never written: a request that panics is answered with 500, and complete.
    Panic,
}

/// One rule. A list that is empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditRule {
    /// `None` or `Metadata`.
    pub level: AuditLevel,
    /// Users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Groups, of which one suffices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_groups: Vec<String>,
    /// Verbs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<String>,
    /// Resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<AuditResources>,
    /// Namespaces; `""` stands for what is in none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Paths that are no resource's, with a `*` at the end for all that begin so.
    #[serde(default, rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
    /// Stages of which nothing is written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omit_stages: Vec<Stage>,
}

/// Resources of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuditResources {
    /// The group; `""` for the core one.
    pub group: String,
    /// `pods`, `pods/log`, `pods/*`, `*/scale` or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Objects' names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
}

/// What is wrong with these rules.
pub fn fault(rules: &[AuditRule]) -> Option<String> {
    if rules.len() > MOST_RULES {
        return Some(format!("rules: at most {MOST_RULES}"));
    }
    let of_resources =
        |all: &[AuditResources]| all.iter().map(|r| 1 + r.resources.len() + r.resource_names.len()).sum::<usize>();
    let entries = |rule: &AuditRule| -> usize {
        let lists = [&rule.users, &rule.user_groups, &rule.verbs, &rule.namespaces, &rule.non_resource_urls];
        lists.iter().map(|list| list.len()).sum::<usize>() + of_resources(&rule.resources)
    };
    if rules.iter().map(entries).sum::<usize>() > MOST_ENTRIES {
        return Some(format!("rules: at most {MOST_ENTRIES} entries in all their lists together"));
    }
    rules.iter().enumerate().find_map(|(at, rule)| rule.fault().map(|fault| format!("rules[{at}].{fault}")))
}

/// What changes something, streams and Secrets; not what is noise, nor what only asks.
pub(super) fn defaults() -> Vec<AuditRule> {
    let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let of = |group: &str, all: &[&str]| AuditResources {
        group: group.to_owned(),
        resources: texts(all),
        resource_names: Vec::new(),
    };
    let rule = |level, resources| AuditRule { level, resources, ..AuditRule::default() };
    let streams = ["pods/exec", "pods/attach", "pods/portforward", "pods/log", "*/proxy", "secrets"];
    let noise = vec![
        of("coordination.k8s.io", &["leases"]),
        of("", &["events"]),
        of("events.k8s.io", &["events"]),
        of("authentication.k8s.io", &["*"]),
        of("authorization.k8s.io", &["*"]),
    ];
    vec![
        AuditRule { non_resource_urls: texts(&["*"]), ..rule(AuditLevel::None, Vec::new()) },
        rule(AuditLevel::Metadata, vec![of("", &streams)]),
        rule(AuditLevel::None, noise),
        AuditRule { verbs: texts(&["get", "list", "watch"]), ..rule(AuditLevel::None, Vec::new()) },
        rule(AuditLevel::Metadata, Vec::new()),
    ]
}

impl AuditRule {
    fn fault(&self) -> Option<String> {
        if !matches!(self.level, AuditLevel::None | AuditLevel::Metadata) {
            return Some("level: only None and Metadata, bodies are never kept".to_owned());
        }
        let is_of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if is_of_resources && !self.non_resource_urls.is_empty() {
            return Some("nonResourceURLs exclude resources and namespaces".to_owned());
        }
        for url in &self.non_resource_urls {
            if url != "*" && !url.starts_with('/') {
                return Some(format!("nonResourceURLs: {url:?} begins with no \"/\""));
            }
            if url.trim_end_matches('*').contains('*') || url.ends_with("**") {
                return Some(format!("nonResourceURLs: {url:?} has a \"*\" that is not at its end"));
            }
        }
        if self.resources.iter().any(|r| !r.resource_names.is_empty() && r.resources.is_empty()) {
            return Some("resources: resourceNames need resources".to_owned());
        }
        if self.omit_stages.len() > MOST_STAGES {
            return Some("omitStages: each stage once".to_owned());
        }
        let of_resources =
            self.resources.iter().flat_map(|r| std::iter::once(&r.group).chain(&r.resources).chain(&r.resource_names));
        let lists = [&self.users, &self.user_groups, &self.verbs, &self.namespaces, &self.non_resource_urls];
        let longest = lists.into_iter().flatten().chain(of_resources).map(String::len).max();
        (longest > Some(LONGEST)).then(|| format!("an entry is longer than {LONGEST} bytes"))
    }
}
