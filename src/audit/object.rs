//! The resource that a request is about.

use serde::Serialize;

use super::text::cut;

/// Of a user's name, of an agent, of names of all kinds: none that Kubernetes has is longer.
pub(super) const NAME: usize = 256;
pub(super) const LABEL: usize = 64;

/// A resource. Cut when it is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(rename = "apiGroup", skip_serializing_if = "String::is_empty")]
    pub(super) group: String,
    #[serde(rename = "apiVersion", skip_serializing_if = "String::is_empty")]
    pub(super) version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) subresource: String,
}

impl Object {
    /// Group, version, resource and subresource, namespace and name.
    pub fn new(
        (group, version): (&str, &str),
        (resource, subresource): (&str, &str),
        (namespace, name): (&str, &str),
    ) -> Self {
        Self {
            group: cut(group, NAME).to_owned(),
            version: cut(version, LABEL).to_owned(),
            resource: cut(resource, NAME).to_owned(),
            subresource: cut(subresource, LABEL).to_owned(),
            namespace: cut(namespace, LABEL).to_owned(),
            name: cut(name, NAME).to_owned(),
        }
    }
}
