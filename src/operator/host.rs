//! The host API server in the operator's words: namespaces as text, empty for none, and objects that know their names.

use serde_json::Value;

use crate::error::Result;
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::{ListOptions, Page, PageOf, PatchKind, Resource};

/// What reconciling needs of the host.
#[derive(Clone)]
pub(crate) struct Host(SharedCluster);

impl Host {
    /// Of any API server.
    pub(crate) fn new(cluster: SharedCluster) -> Self {
        Self(cluster)
    }

    /// The API server itself.
    pub(crate) fn cluster(&self) -> &SharedCluster {
        &self.0
    }

    /// One object.
    pub(crate) async fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Option<Value>> {
        self.0.get(resource, within(namespace), name).await
    }

    /// All objects with a label selector; `namespace` empty means all namespaces.
    pub(crate) async fn list(&self, resource: &Resource, namespace: &str, labels: &str) -> Result<Vec<Value>> {
        let options = ListOptions { label_selector: labels.to_owned(), ..ListOptions::default() };
        Ok(self.0.list(resource, within(namespace), &options).await?.0)
    }

    /// One page of the metadata of objects by label and field selectors.
    pub(crate) async fn metadata(
        &self,
        resource: &Resource,
        namespace: &str,
        (labels, fields): (&str, &str),
        page: PageOf<'_>,
    ) -> Result<Page> {
        let (label_selector, field_selector) = (labels.to_owned(), fields.to_owned());
        let options = ListOptions { label_selector, field_selector, any_state: false, only_metadata: true };
        self.0.page(resource, within(namespace), &options, page).await
    }

    /// POST.
    pub(crate) async fn create(&self, resource: &Resource, namespace: &str, object: &Value) -> Result<Value> {
        self.0.create(resource, within(namespace), ("", ""), object).await
    }

    /// POST with `dryRun=All`: what the server would say.
    pub(crate) async fn try_create(&self, resource: &Resource, namespace: &str, object: &Value) -> Result<Value> {
        self.0.try_create(resource, within(namespace), object).await
    }

    /// PUT with the resourceVersion that the object carries.
    pub(crate) async fn replace(&self, resource: &Resource, namespace: &str, object: &Value) -> Result<Value> {
        self.0.replace(resource, within(namespace), name_of(object), object).await
    }

    /// Server-side apply.
    pub(crate) async fn apply(&self, resource: &Resource, namespace: &str, object: &Value) -> Result<Value> {
        self.0.apply(resource, within(namespace), name_of(object), object).await
    }

    /// Merge patch of the status subresource.
    pub(crate) async fn patch_status(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<Value> {
        self.0.patch(resource, within(namespace), (name, "status"), PatchKind::Merge, patch).await
    }

    /// DELETE of exactly this object.
    pub(crate) async fn delete(&self, resource: &Resource, namespace: &str, name: &str, uid: &str) -> Result<bool> {
        self.0.delete(resource, within(namespace), name, uid, None).await
    }
}

fn within(namespace: &str) -> Option<&str> {
    (!namespace.is_empty()).then_some(namespace)
}

/// `metadata.name`, or empty.
pub(crate) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// `metadata.uid`, or empty.
pub(crate) fn uid_of(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}
