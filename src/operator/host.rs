//! The host API server as the operator sees it: a seam, so that reconciling is tested against objects in memory.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use crate::crd;
use crate::error::{Error, Kind, Result, Side};
use crate::status::Status;
use crate::upstream::{ApiClient, Body, Class, ListOptions, Resource};

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

const WRITE_DEADLINE: Duration = Duration::from_secs(15);
const LARGEST_ANSWER: usize = 1 << 20;

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
        let kind = crate::upstream::PatchKind::Merge;
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
        Box::pin(async move {
            let path = format!("{}?dryRun=All", resource.path(within(namespace), None, None));
            let body = serde_json::to_vec(object)
                .map_err(|e| Error::own(Kind::Internal, "an object cannot be serialized").because(e))?;
            let request = Request::builder()
                .method(Method::POST)
                .uri(path)
                .header(http::header::CONTENT_TYPE, "application/json")
                .header(http::header::ACCEPT, "application/json")
                .body(Body::full(body))
                .map_err(|e| Error::own(Kind::Internal, "a request cannot be built").because(e))?;
            let response = self.pool().send(Class::Unary, request, WRITE_DEADLINE).await?;
            let code = response.status();
            let collected = tokio::time::timeout(WRITE_DEADLINE, Limited::new(response, LARGEST_ANSWER).collect())
                .await
                .map_err(|e| Error::host(Kind::Timeout, "the host's answer did not end").because(e))?
                .map_err(|e| Error::host(Kind::Protocol, "the host's answer broke off").because(e))?;
            answer(code, &collected.to_bytes())
        })
    }
}

fn answer(code: StatusCode, body: &[u8]) -> Result<Value> {
    if code.is_success() {
        return serde_json::from_slice(body)
            .map_err(|e| Error::host(Kind::Protocol, "the host's answer is no JSON").because(e));
    }
    let status = serde_json::from_slice(body)
        .unwrap_or_else(|_| Status::failure(code.as_u16(), "", String::from_utf8_lossy(body)));
    Err(Error::from_status(Side::Host, status))
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

macro_rules! resources {
    ($($name:ident: $group:expr, $version:literal, $plural:literal, $kind:literal, $namespaced:literal;)*) => {$(
        pub(crate) const $name: Resource =
            Resource { group: $group, version: $version, plural: $plural, kind: $kind, namespaced: $namespaced };
    )*};
}

resources! {
    VIRTUAL_CLUSTERS: crd::GROUP, "v1alpha1", "virtualclusters", "VirtualCluster", true;
    SERVICES: "", "v1", "services", "Service", true;
    SECRETS: "", "v1", "secrets", "Secret", true;
    SERVICE_ACCOUNTS: "", "v1", "serviceaccounts", "ServiceAccount", true;
    PODS: "", "v1", "pods", "Pod", true;
    STATEFUL_SETS: "apps", "v1", "statefulsets", "StatefulSet", true;
    SERVICE_CIDRS: "networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", false;
    ACCESS_REVIEWS: "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", false;
}
