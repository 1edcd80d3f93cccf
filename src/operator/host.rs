//! The host API server as the operator sees it: a seam, so that reconciling is tested against objects in memory.

use std::future::Future;
use std::pin::Pin;

use serde_json::Value;

use crate::error::Result;
use crate::kubernetes::{ApiClient, ListOptions, Resource};

/// A boxed answer: one allocation per API call is nothing beside the call.
pub(crate) type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// What reconciling needs of the host.
pub(crate) trait Host: Send + Sync {
    /// One object.
    fn get<'a>(&'a self, resource: &'a Resource, namespace: &'a str, name: &'a str) -> Pending<'a, Option<Value>>;
    /// All objects with a label selector; `namespace` empty means all namespaces.
    fn list<'a>(&'a self, resource: &'a Resource, namespace: &'a str, labels: &'a str) -> Pending<'a, Vec<Value>>;
    /// POST.
    fn create<'a>(&'a self, resource: &'a Resource, namespace: &'a str, object: &'a Value) -> Pending<'a, Value>;
    /// PUT with the resourceVersion that the object carries.
    fn replace<'a>(&'a self, resource: &'a Resource, namespace: &'a str, object: &'a Value) -> Pending<'a, Value>;
    /// Server-side apply.
    fn apply<'a>(&'a self, resource: &'a Resource, namespace: &'a str, object: &'a Value) -> Pending<'a, Value>;
    /// Merge patch of the status subresource.
    fn patch_status<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        patch: &'a Value,
    ) -> Pending<'a, Value>;
    /// DELETE of exactly this object.
    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
    ) -> Pending<'a, bool>;
    /// POST with `dryRun=All`: what the server would say.
    fn try_create<'a>(&'a self, resource: &'a Resource, namespace: &'a str, object: &'a Value) -> Pending<'a, Value>;
}

impl Host for ApiClient {
    fn get<'a>(&'a self, resource: &'a Resource, namespace: &'a str, name: &'a str) -> Pending<'a, Option<Value>> {
        Box::pin(Self::get(self, resource, within(namespace), name))
    }

    fn list<'a>(&'a self, resource: &'a Resource, namespace: &'a str, labels: &'a str) -> Pending<'a, Vec<Value>> {
        Box::pin(async move {
            let options = ListOptions { label_selector: labels.to_owned(), field_selector: String::new() };
            Ok(Self::list(self, resource, within(namespace), &options).await?.0)
        })
    }

    fn create<'a>(&'a self, resource: &'a Resource, namespace: &'a str, object: &'a Value) -> Pending<'a, Value> {
        Box::pin(Self::create(self, resource, within(namespace), object))
    }

    fn replace<'a>(&'a self, resource: &'a Resource, namespace: &'a str, object: &'a Value) -> Pending<'a, Value> {
        Box::pin(async move { Self::replace(self, resource, within(namespace), name_of(object), "", object).await })
    }

    fn apply<'a>(&'a self, resource: &'a Resource, namespace: &'a str, object: &'a Value) -> Pending<'a, Value> {
        Box::pin(async move { Self::apply(self, resource, within(namespace), name_of(object), "", object).await })
    }

    fn patch_status<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        patch: &'a Value,
    ) -> Pending<'a, Value> {
        let kind = crate::kubernetes::PatchKind::Merge;
        Box::pin(Self::patch(self, resource, within(namespace), name, "status", kind, patch))
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
    ) -> Pending<'a, bool> {
        Box::pin(Self::delete(self, resource, within(namespace), name, Some(uid), None))
    }

    fn try_create<'a>(&'a self, resource: &'a Resource, namespace: &'a str, object: &'a Value) -> Pending<'a, Value> {
        Box::pin(Self::try_create(self, resource, within(namespace), object))
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
