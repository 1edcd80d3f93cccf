//! One copy on its way back: what is known around it, and what the way collects.

use serde_json::Value;

use super::super::{View, identity, legacy};
use super::kinds::known;
use crate::names::Limit;

/// Virtual namespace and name.
pub type Key = (String, String);

/// Something that an object cannot be made without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A ServiceAccount in the object's namespace.
    ServiceAccount(String),
    /// A PriorityClass, which the host has.
    PriorityClass(String),
    /// A RuntimeClass, which the host has.
    RuntimeClass(String),
}

/// What all copies of a tenant together tell.
pub trait Names {
    /// The virtual object that a copy of this kind (value of [`OBJECT_KIND`](crate::names::keys::OBJECT_KIND)) and host
    /// name stands for.
    fn virtual_of(&self, kind: &str, host_name: &str) -> Option<Key>;
    /// Annotation [`TOKEN_SPEC`](super::super::pod::TOKEN_SPEC) of a token Secret, by its host name.
    fn token_spec(&self, secret: &str) -> Option<String>;
}

/// One copy on its way back.
pub(super) struct Back<'a> {
    pub(super) view: &'a View,
    pub(super) names: &'a dyn Names,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) needs: Vec<Need>,
    pub(super) lost: Vec<String>,
}

impl Back<'_> {
    /// Virtual name of what a copy refers to by this host name. Only names of its own virtual namespace come back.
    pub(super) fn reference(&self, kind: &str, on_host: &str) -> Option<String> {
        let (kind, limit) = known(kind)?;
        match self.names.virtual_of(kind, on_host) {
            Some((namespace, name)) => (namespace == self.namespace).then_some(name),
            None => self.readable(kind, on_host, limit),
        }
    }

    /// Of what has no copy (any more), the name by which it would get this host name.
    fn readable(&self, kind: &str, on_host: &str, limit: Limit) -> Option<String> {
        let name = on_host.strip_suffix(&format!("-x-{}-x-{}", self.namespace, self.view.cluster()))?;
        let again = identity::host_name(kind, &self.namespace, name, self.view, limit)?;
        (again.as_str() == on_host).then(|| name.to_owned())
    }

    /// Notes what the copy does not tell.
    pub(super) fn lose(&mut self, what: impl Into<String>) {
        self.lost.push(what.into());
    }
}

/// Whether vcluster made the copy.
pub(super) fn is_adopted(host: &Value) -> bool {
    !identity::annotation(host, legacy::ADOPTED).is_empty()
}
