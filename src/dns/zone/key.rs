//! Names of objects in a zone.

use std::borrow::Borrow;
use std::sync::Arc;

/// `namespace/name` of an object. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(Arc<str>);

impl Key {
    /// The key of a name. Neither part holds a slash in Kubernetes; what does is its tenant's own confusion.
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// Namespace and name.
    pub(crate) fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or((&self.0, ""))
    }

    /// How long it is.
    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Before all others.
    pub(super) fn first() -> Self {
        Self("".into())
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}
