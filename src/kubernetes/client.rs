//! A small JSON client of one API server: what the syncer, operator, gateway and DNS need, and nothing typed.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::WatchStream;
use crate::names::keys::FIELD_MANAGER;
use crate::runtime::clock::Clock;
use crate::upstream::{Body, Class, Pool, ResponseBody};

/// What the API server itself grants an ordinary request.
const DEADLINE: Duration = Duration::from_secs(60);
/// client-go's page size.
const PAGE: usize = 500;
/// A page of 500 objects at etcd's limit is larger; nothing that Portico lists comes near.
const MAX_BODY: usize = 256 << 20;
const MAX_STATUS: usize = 1 << 20;
/// Long enough to be cheap, short enough that a lost end of a watch is found.
const WATCH_SECONDS: u64 = 450;
const WATCH_GRACE: Duration = Duration::from_secs(30);
const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json";
/// RFC 3986 unreserved, and `:` which RBAC names use.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// A kind of object as the API server's paths name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resource {
    /// `""` for the core group.
    pub group: &'static str,
    /// Such as `v1`.
    pub version: &'static str,
    /// Lower-case plural.
    pub plural: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

/// The body form of a PATCH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/json-patch+json`.
    Json,
}

/// Selectors of a list or watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// `labelSelector`, empty for all.
    pub label_selector: String,
    /// `fieldSelector`, empty for all.
    pub field_selector: String,
}

/// Client of one API server under one identity. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiClient {
    pool: Arc<Pool>,
    headers: Arc<HeaderMap>,
    clock: Clock,
}

impl Resource {
    /// `/api/v1/namespaces/{ns}/pods/{name}/{sub}`; every segment percent-encoded. `namespace` None on a namespaced
    /// resource means all namespaces (list and watch only).
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>, subresource: Option<&str>) -> String {
        let mut path = String::with_capacity(96);
        if self.group.is_empty() {
            path.push_str("/api");
        } else {
            path.push_str("/apis");
            push_segment(&mut path, self.group);
        }
        push_segment(&mut path, self.version);
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            path.push_str("/namespaces");
            push_segment(&mut path, namespace);
        }
        push_segment(&mut path, self.plural);
        for segment in [name, subresource].into_iter().flatten().filter(|s| !s.is_empty()) {
            push_segment(&mut path, segment);
        }
        path
    }

    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

impl ApiClient {
    /// A client that adds `headers` (identity assertion) to every request.
    pub fn new(pool: Arc<Pool>, mut headers: HeaderMap) -> Self {
        let agent = concat!("portico/", env!("CARGO_PKG_VERSION"));
        headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(agent));
        let clock = pool.clock().clone();
        Self { pool, headers: Arc::new(headers), clock }
    }

    /// The connections below.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Who is to blame for this server's failures.
    pub fn side(&self) -> Side {
        self.pool.target().side
    }

    /// One object as raw JSON; `Ok(None)` when it does not exist.
    pub async fn get_raw(&self, resource: &Resource, namespace: Option<&str>, name: &str) -> Result<Option<Bytes>> {
        absent(self.get_path(&resource.path(namespace, Some(name), None), DEADLINE).await)
    }

    /// One object; `Ok(None)` when it does not exist.
    pub async fn get(&self, resource: &Resource, namespace: Option<&str>, name: &str) -> Result<Option<Value>> {
        let bytes = self.get_raw(resource, namespace, name).await?;
        bytes.map(|b| self.parse(&b)).transpose()
    }

    /// A whole list, page by page (500 each), as raw items (each complete with apiVersion and kind) and the list's resourceVersion.
    pub async fn list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<(Vec<Value>, String)> {
        let path = resource.path(namespace, None, None);
        let mut items = Vec::new();
        let mut token = String::new();
        let mut paged = true;
        loop {
            let mut query = Query::of(options);
            if paged {
                query.add("limit", &PAGE.to_string());
                query.add("continue", &token);
            }
            let page = match self.get_path(&query.on(&path), DEADLINE).await {
                Ok(bytes) => self.parse::<Page>(&bytes)?,
                // The continue token expired under a slow reader: begin again, whole, as client-go does.
                Err(error) if error.kind() == Kind::Gone && !token.is_empty() => {
                    items.clear();
                    paged = false;
                    token.clear();
                    continue;
                }
                Err(error) => return Err(error),
            };
            items.extend(page.items.into_iter().flatten().map(|item| complete(item, resource)));
            token = page.metadata.continue_token;
            if token.is_empty() {
                return Ok((items, page.metadata.resource_version));
            }
        }
    }

    /// A watch from `resource_version`, bookmarks on, server-side timeout ~ 5 to 10 minutes (jittered).
    pub async fn watch(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
        resource_version: &str,
    ) -> Result<WatchStream> {
        let mut query = Query::of(options);
        query.add("resourceVersion", resource_version);
        self.start_watch(&resource.path(namespace, None, None), query).await
    }

    /// A watch that begins with the whole list (`sendInitialEvents`): Applied events, then a Bookmark with
    /// `initial_events_end`. `Err` of kind Invalid (422) when the server does not know it: then list and watch.
    pub async fn watch_list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<WatchStream> {
        let mut query = Query::of(options);
        query.add("sendInitialEvents", "true");
        query.add("resourceVersionMatch", "NotOlderThan");
        self.start_watch(&resource.path(namespace, None, None), query).await
    }

    /// POST.
    pub async fn create(&self, resource: &Resource, namespace: Option<&str>, object: &Value) -> Result<Value> {
        self.create_sub(resource, namespace, "", "", object).await
    }

    /// POST with `dryRun=All`: what the server would say.
    pub async fn try_create(&self, resource: &Resource, namespace: Option<&str>, object: &Value) -> Result<Value> {
        let path = resource.path(namespace, None, None);
        self.write(Method::POST, &managed(&path, "&dryRun=All"), JSON, object).await
    }

    /// POST on a subresource: `binding`, `token`, `eviction`; and reviews (name "" and subresource "" mean the collection).
    pub async fn create_sub(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        object: &Value,
    ) -> Result<Value> {
        let path = resource.path(namespace, Some(name), Some(subresource));
        self.write(Method::POST, &managed(&path, ""), JSON, object).await
    }

    /// Server-side apply with field manager `portico`, forced; `subresource` such as `status` or "".
    pub async fn apply(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        object: &Value,
    ) -> Result<Value> {
        let path = resource.path(namespace, Some(name), Some(subresource));
        self.write(Method::PATCH, &managed(&path, "&force=true"), APPLY, object).await
    }

    /// PATCH; `subresource` such as `status`, `ephemeralcontainers` or "".
    pub async fn patch(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        kind: PatchKind,
        patch: &Value,
    ) -> Result<Value> {
        let path = resource.path(namespace, Some(name), Some(subresource));
        self.write(Method::PATCH, &managed(&path, ""), kind.content_type(), patch).await
    }

    /// PUT (optimistic: the object carries its resourceVersion).
    pub async fn replace(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        object: &Value,
    ) -> Result<Value> {
        let path = resource.path(namespace, Some(name), Some(subresource));
        self.write(Method::PUT, &managed(&path, ""), JSON, object).await
    }

    /// DELETE with a uid precondition and optional grace period; `Ok(false)` when it was gone already (404) or is another object (409).
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        uid: Option<&str>,
        grace_seconds: Option<u64>,
    ) -> Result<bool> {
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        if let Some(uid) = uid {
            options["preconditions"] = json!({"uid": uid});
        }
        if let Some(grace) = grace_seconds {
            options["gracePeriodSeconds"] = grace.into();
        }
        let path = resource.path(namespace, Some(name), None);
        match self.exchange(Method::DELETE, &path, JSON, body_of(&options)?, DEADLINE).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) if error.kind() == Kind::Conflict && uid.is_some() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// GET of any path, for `/version`, `/readyz`, discovery.
    pub async fn get_path(&self, path: &str, deadline: Duration) -> Result<Bytes> {
        self.exchange(Method::GET, path, "", Body::Empty, deadline).await
    }

    /// GET of any path whose answer the caller reads, under bounds of its own.
    pub async fn open(&self, path: &str, deadline: Duration) -> Result<ResponseBody> {
        let request = self.request(Method::GET, path, "", Body::Empty)?;
        let response = self.pool.send(Class::Unary, request, deadline).await?;
        if !response.status().is_success() {
            return Err(self.within(deadline, self.refusal(response)).await?);
        }
        Ok(response.into_body())
    }

    /// GET of any path, with an answer of at most `limit` bytes: one that is larger is [`Kind::TooLarge`].
    pub async fn get_bounded(&self, path: &str, deadline: Duration, limit: usize) -> Result<Bytes> {
        self.exchange_bounded(Method::GET, path, "", Body::Empty, deadline, limit).await
    }

    async fn write(&self, method: Method, path: &str, content_type: &'static str, object: &Value) -> Result<Value> {
        let bytes = self.exchange(method, path, content_type, body_of(object)?, DEADLINE).await?;
        self.parse(&bytes)
    }

    async fn start_watch(&self, path: &str, mut query: Query) -> Result<WatchStream> {
        let jittered = self.clock.jitter(Duration::from_secs(WATCH_SECONDS)).as_secs();
        query.add("watch", "true");
        query.add("allowWatchBookmarks", "true");
        query.add("timeoutSeconds", &jittered.to_string());
        let request = self.request(Method::GET, &query.on(path), "", Body::Empty)?;
        let response = self.pool.send(Class::Watch, request, DEADLINE).await?;
        if !response.status().is_success() {
            return Err(self.within(DEADLINE, self.refusal(response)).await?);
        }
        let idle = Duration::from_secs(jittered) + WATCH_GRACE;
        Ok(WatchStream::new(response.into_body(), self.side(), idle))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Body,
        deadline: Duration,
    ) -> Result<Bytes> {
        self.exchange_bounded(method, path, content_type, body, deadline, MAX_BODY).await
    }

    async fn exchange_bounded(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Body,
        deadline: Duration,
        limit: usize,
    ) -> Result<Bytes> {
        let request = self.request(method, path, content_type, body)?;
        let whole = async {
            let response = self.pool.send(Class::Unary, request, deadline).await?;
            if !response.status().is_success() {
                return Err(self.refusal(response).await?);
            }
            read(response.into_body(), limit, self.side()).await
        };
        self.within(deadline, whole).await
    }

    async fn within<T>(&self, deadline: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(deadline, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(self.side(), Kind::Timeout, "the API server did not answer in time")),
        }
    }

    fn request(&self, method: Method, path: &str, content_type: &'static str, body: Body) -> Result<Request<Body>> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() =
            path.parse().map_err(|e| Error::own(Kind::Internal, "a path cannot be built").because(e))?;
        *request.headers_mut() = HeaderMap::clone(&self.headers);
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(JSON));
        if !content_type.is_empty() {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        Ok(request)
    }

    /// The error that a non-2xx answer means.
    async fn refusal(&self, response: Response<ResponseBody>) -> Result<Error> {
        let code = response.status().as_u16();
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let bytes = read(response.into_body(), MAX_STATUS, self.side()).await.unwrap_or_default();
        let mut status = Status::of_answer(code, &bytes);
        if let Some(seconds) = retry_after {
            status = status.retry_after(seconds);
        }
        Ok(Error::from_status(self.side(), status))
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, bytes: &Bytes) -> Result<T> {
        serde_json::from_slice(bytes)
            .map_err(|e| Error::new(self.side(), Kind::Protocol, "the API server's answer is not readable").because(e))
    }
}

impl PatchKind {
    fn content_type(self) -> &'static str {
        match self {
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Json => "application/json-patch+json",
        }
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default)]
    items: Option<Vec<Value>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: String,
}

/// A query string under construction.
struct Query(String);

impl Query {
    fn of(options: &ListOptions) -> Self {
        let mut query = Self(String::new());
        query.add("labelSelector", &options.label_selector);
        query.add("fieldSelector", &options.field_selector);
        query
    }

    /// Empty values are left out.
    fn add(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, SEGMENT));
    }

    fn on(&self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

fn push_segment(path: &mut String, segment: &str) {
    path.push('/');
    path.extend(utf8_percent_encode(segment, SEGMENT));
}

fn managed(path: &str, more: &str) -> String {
    format!("{path}?fieldManager={FIELD_MANAGER}{more}")
}

fn body_of(object: &Value) -> Result<Body> {
    serde_json::to_vec(object)
        .map(Body::full)
        .map_err(|e| Error::own(Kind::Internal, "an object cannot be written as JSON").because(e))
}

fn absent<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// List items carry neither apiVersion nor kind.
fn complete(mut item: Value, resource: &Resource) -> Value {
    if let Value::Object(fields) = &mut item {
        fields.entry("apiVersion").or_insert_with(|| resource.api_version().into());
        fields.entry("kind").or_insert_with(|| resource.kind.into());
    }
    item
}

async fn read(mut body: ResponseBody, limit: usize, side: Side) -> Result<Bytes> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|e| Error::new(side, Kind::Closed, "the API server's answer broke off").because(e))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Err(Error::new(side, Kind::TooLarge, "the API server's answer is too large"));
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: Resource = Resource { group: "", version: "v1", plural: "pods", kind: "Pod", namespaced: true };
    const ROLES: Resource = Resource {
        group: "rbac.authorization.k8s.io",
        version: "v1",
        plural: "clusterroles",
        kind: "ClusterRole",
        namespaced: false,
    };

    #[test]
    fn paths() {
        assert_eq!(PODS.path(Some("a"), Some("b"), Some("status")), "/api/v1/namespaces/a/pods/b/status");
        assert_eq!(PODS.path(None, None, None), "/api/v1/pods");
        assert_eq!(PODS.path(Some("a"), Some(""), Some("")), "/api/v1/namespaces/a/pods");
        assert_eq!(
            ROLES.path(None, Some("system:node"), None),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node"
        );
    }

    #[test]
    fn a_name_cannot_leave_its_segment() {
        assert_eq!(
            PODS.path(Some("a"), Some("../../secrets/x?y#z"), None),
            "/api/v1/namespaces/a/pods/..%2F..%2Fsecrets%2Fx%3Fy%23z"
        );
    }

    #[test]
    fn selectors_are_escaped() {
        let options = ListOptions { label_selector: "a in (b,c),d=e".to_owned(), field_selector: String::new() };
        assert_eq!(Query::of(&options).on("/p"), "/p?labelSelector=a%20in%20%28b%2Cc%29%2Cd%3De");
    }

    #[test]
    fn items_gain_their_type() {
        let item = complete(json!({"metadata": {"name": "x"}}), &ROLES);
        assert_eq!(item["apiVersion"], "rbac.authorization.k8s.io/v1");
        assert_eq!(item["kind"], "ClusterRole");
    }
}
