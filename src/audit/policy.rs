//! Whether a request leaves events: rules as `k8s.io/apiserver/pkg/audit/policy` reads them.

use std::cell::OnceCell;
use std::collections::HashSet;

use super::object::Object;
use crate::config::audit::rule::{self, AuditLevel, AuditResources, AuditRule, Stage};
use crate::crd::audit::Audit;
use crate::error::{Error, Kind, Result};

/// Rules that were found fit.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Vec<AuditRule>,
    omitted: Vec<Stage>,
}

/// What a virtual cluster asks for of itself.
#[derive(Debug, Clone, Default)]
pub struct Asks {
    /// Its rules.
    pub policy: Policy,
    /// Whether an exec's command is written.
    pub command: bool,
}

/// The stages of which something is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// When the answer to a watch or a stream begins.
    pub started: bool,
    /// When the answer is complete.
    pub complete: bool,
}

/// What a policy asks about a request.
pub struct Matter<'a> {
    /// None: it is not known here, since only the API server can say it. Such a caller is met by every rule that writes, and by
    /// no rule that does not.
    pub user: Option<&'a str>,
    /// All of the user's.
    pub groups: &'a [String],
    /// Verb.
    pub verb: &'a str,
    /// The path, of what is no resource.
    pub path: &'a str,
    /// The resource, where it is one.
    pub object: Option<&'a Object>,
}

impl Policy {
    /// Of rules that are fit.
    pub fn new(rules: &[AuditRule], omitted: &[Stage]) -> Result<Self> {
        match rule::fault(rules) {
            Some(fault) => Err(Error::client(Kind::Invalid, fault)),
            None => Ok(Self { rules: rules.to_vec(), omitted: omitted.to_vec() }),
        }
    }

    /// By the first rule that matches.
    pub fn stages(&self, matter: &Matter<'_>) -> Stages {
        let groups = OnceCell::new();
        let Some(rule) = self.rules.iter().find(|rule| matches(rule, matter, &groups)) else {
            return Stages::default();
        };
        if rule.level == AuditLevel::None {
            return Stages::default();
        }
        let is_written = |stage| !self.omitted.contains(&stage) && !rule.omit_stages.contains(&stage);
        Stages { started: is_written(Stage::ResponseStarted), complete: is_written(Stage::ResponseComplete) }
    }
}

impl Asks {
    /// What a VirtualCluster says, when it is fit.
    pub fn new(audit: &Audit) -> Result<Self> {
        let rules: Vec<AuditRule> = audit.rules.iter().map(Into::into).collect();
        Ok(Self { policy: Policy::new(&rules, &[])?, command: audit.command })
    }
}

impl Stages {
    /// What either wants.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { started: self.started || other.started, complete: self.complete || other.complete }
    }

    /// Whether nothing is written.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

fn matches<'a>(rule: &AuditRule, matter: &Matter<'a>, groups: &OnceCell<HashSet<&'a str>>) -> bool {
    let has = |list: &[String], text: &str| list.iter().any(|entry| entry == text);
    let whoever = matter.user.is_none() && rule.level != AuditLevel::None;
    if !rule.users.is_empty() && !whoever && !matter.user.is_some_and(|user| has(&rule.users, user)) {
        return false;
    }
    if !rule.user_groups.is_empty() && !whoever {
        let groups = groups.get_or_init(|| matter.groups.iter().map(String::as_str).collect());
        if !rule.user_groups.iter().any(|group| groups.contains(group.as_str())) {
            return false;
        }
    }
    if !rule.verbs.is_empty() && !has(&rule.verbs, matter.verb) {
        return false;
    }
    if !rule.namespaces.is_empty() || !rule.resources.is_empty() {
        return matter.object.is_some_and(|object| {
            let is_there = rule.namespaces.is_empty() || has(&rule.namespaces, &object.namespace);
            is_there && (rule.resources.is_empty() || rule.resources.iter().any(|of| is_of(of, object)))
        });
    }
    rule.non_resource_urls.is_empty()
        || matter.object.is_none() && rule.non_resource_urls.iter().any(|url| is_path(url, matter.path))
}

fn is_of(of: &AuditResources, object: &Object) -> bool {
    if of.group != object.group {
        return false;
    }
    if of.resources.is_empty() {
        return true;
    }
    if !of.resource_names.is_empty() && !of.resource_names.contains(&object.name) {
        return false;
    }
    of.resources.iter().any(|wanted| {
        let is_it = match wanted.split_once('/') {
            None => object.subresource.is_empty() && *wanted == object.resource,
            Some((resource, sub)) => {
                !object.subresource.is_empty() && resource == object.resource && sub == object.subresource
            }
        };
        is_it
            || wanted == "*"
            || wanted.strip_prefix("*/").is_some_and(|sub| !sub.is_empty() && sub == object.subresource)
            || wanted.strip_suffix("/*").is_some_and(|resource| resource == object.resource)
    })
}

fn is_path(wanted: &str, path: &str) -> bool {
    wanted == "*" || wanted == path || wanted.strip_suffix('*').is_some_and(|begin| path.starts_with(begin))
}

#[cfg(test)]
mod tests;
