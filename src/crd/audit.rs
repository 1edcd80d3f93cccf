//! What a virtual cluster asks to have written of the requests to it.
//!
//! The same rules as in the configuration, in a form that a later version may add to: what this one does not know of a
//! VirtualCluster makes it unreadable to nobody.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::audit::{AuditLevel, AuditResources, AuditRule, Stage};

/// So many, that the API server can check what stands in them.
const MOST: u32 = 32;

/// What is written to the audit log of the gateway of this virtual cluster's requests, beside what the configuration says. It adds
/// and never takes away, and only where the configuration has `audit.tenants`. Rules that do not fit (condition `AuditAccepted`)
/// add nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Audit {
    /// As in Kubernetes' audit policy, the first that matches decides: levels `None` and `Metadata`.
    #[schemars(length(max = MOST))]
    pub rules: Vec<Rule>,
    /// Whether the command of an exec is written. There may be secrets in it.
    pub command: bool,
}

/// One rule. A list that is absent means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// `None` or `Metadata`: bodies are never kept.
    pub level: AuditLevel,
    /// Users.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST), inner(length(max = 256)))]
    pub users: Vec<String>,
    /// Groups, of which one suffices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST), inner(length(max = 256)))]
    pub user_groups: Vec<String>,
    /// Verbs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST), inner(length(max = 64)))]
    pub verbs: Vec<String>,
    /// Resources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST))]
    pub resources: Vec<Resources>,
    /// Namespaces; `""` stands for what is in none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST), inner(length(max = 63)))]
    pub namespaces: Vec<String>,
    /// Paths that are no resource's, with a `*` at the end for all that begin so.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST), inner(length(max = 256)))]
    pub non_resource_urls: Vec<String>,
    /// Stages of which nothing is written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub omit_stages: Vec<Stage>,
}

/// Resources of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// The group; `""` for the core one.
    #[schemars(length(max = 253))]
    pub group: String,
    /// `pods`, `pods/log`, `pods/*`, `*/scale` or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST), inner(length(max = 128)))]
    pub resources: Vec<String>,
    /// Objects' names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST), inner(length(max = 253)))]
    pub resource_names: Vec<String>,
}

impl From<&Rule> for AuditRule {
    fn from(rule: &Rule) -> Self {
        let resources = rule.resources.iter().map(|of| AuditResources {
            group: of.group.clone(),
            resources: of.resources.clone(),
            resource_names: of.resource_names.clone(),
        });
        Self {
            level: rule.level,
            users: rule.users.clone(),
            user_groups: rule.user_groups.clone(),
            verbs: rule.verbs.clone(),
            resources: resources.collect(),
            namespaces: rule.namespaces.clone(),
            non_resource_urls: rule.non_resource_urls.clone(),
            omit_stages: rule.omit_stages.clone(),
        }
    }
}
