//! A small JSON client of one API server: what the syncer, operator, gateway and DNS need, and nothing typed.

mod answer;
mod lists;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::layered;
use crate::kubernetes::resource::Resource;
use crate::names::keys::FIELD_MANAGER;
use crate::runtime::clock::Clock;
use crate::upstream::{Body, Class, Pool};

pub use answer::AnswerBody;
pub use lists::{Page, PageOf};

/// What the API server itself grants an ordinary request.
const DEADLINE: Duration = Duration::from_secs(60);
/// A page of 500 objects at etcd's limit is larger; nothing that Portico lists comes near.
const MAX_BODY: usize = 256 << 20;
const MAX_STATUS: usize = 1 << 20;
const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json";

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

/// Client of one API server under one identity. Cheap to clone.
#[derive(Clone)]
pub struct ApiClient {
    pool: Arc<Pool>,
    /// The way to the pool, unless it is asked itself.
    layers: Option<kube::Client>,
    headers: Arc<HeaderMap>,
    clock: Clock,
    /// Bytes of an answer that names no bound of its own.
    most: usize,
}

impl ApiClient {
    /// A client that adds `headers` (identity assertion) to every request.
    pub fn new(pool: Arc<Pool>, mut headers: HeaderMap) -> Self {
        headers.entry(header::USER_AGENT).or_insert_with(user_agent);
        let clock = pool.clock().clone();
        Self { pool, layers: None, headers: Arc::new(headers), clock, most: MAX_BODY }
    }

    /// The same server under the same identity, for a plane of low rate: see [`layered`]. Each has bounds of its own.
    pub fn layered(&self) -> Self {
        Self { layers: Some(layered::client(Arc::clone(&self.pool))), ..self.clone() }
    }

    /// The same server under the same identity, whose answers are small: one that is larger is [`Kind::TooLarge`].
    pub fn bounded(&self, most: usize) -> Self {
        Self { most, ..self.clone() }
    }

    /// The same with other headers beside.
    pub fn with(&self, more: &HeaderMap) -> Self {
        let mut headers = HeaderMap::clone(&self.headers);
        for (name, value) in more {
            headers.insert(name, value.clone());
        }
        Self { headers: Arc::new(headers), ..self.clone() }
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
        match self.exchange(Method::DELETE, &path, JSON, bytes_of(&options)?, DEADLINE).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) if error.kind() == Kind::Conflict && uid.is_some() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// GET of any path, for `/version`, `/readyz`, discovery.
    pub async fn get_path(&self, path: &str, deadline: Duration) -> Result<Bytes> {
        self.exchange(Method::GET, path, "", Bytes::new(), deadline).await
    }

    /// GET of any path whose answer the caller reads, under bounds of its own.
    pub async fn open(&self, path: &str, deadline: Duration) -> Result<AnswerBody> {
        let request = self.request(Method::GET, path, "", Bytes::new())?;
        let response = self.send(Class::Unary, request, deadline).await?;
        if !response.status().is_success() {
            return Err(self.within(deadline, self.refusal(response)).await?);
        }
        Ok(response.into_body())
    }

    /// GET of any path, with an answer of at most `limit` bytes: one that is larger is [`Kind::TooLarge`].
    pub async fn get_bounded(&self, path: &str, deadline: Duration, limit: usize) -> Result<Bytes> {
        self.exchange_bounded(Method::GET, path, "", Bytes::new(), deadline, limit).await
    }

    /// The same in another form than that of the objects: a table, or metadata alone.
    pub async fn get_as(&self, path: &str, accept: &'static str, deadline: Duration, limit: usize) -> Result<Bytes> {
        let mut request = self.request(Method::GET, path, "", Bytes::new())?;
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
        self.within(deadline, self.answered(request, deadline, limit)).await
    }

    async fn write(&self, method: Method, path: &str, content_type: &'static str, object: &Value) -> Result<Value> {
        let bytes = self.exchange(method, path, content_type, bytes_of(object)?, DEADLINE).await?;
        self.parse(&bytes)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes> {
        self.exchange_bounded(method, path, content_type, body, deadline, self.most).await
    }

    async fn exchange_bounded(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
        deadline: Duration,
        limit: usize,
    ) -> Result<Bytes> {
        let request = self.request(method, path, content_type, body)?;
        self.within(deadline, self.answered(request, deadline, limit)).await
    }

    async fn answered(&self, request: Request<Bytes>, deadline: Duration, limit: usize) -> Result<Bytes> {
        let response = self.send(Class::Unary, request, deadline).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await?);
        }
        read(response.into_body(), limit, self.side()).await
    }

    async fn send(&self, class: Class, request: Request<Bytes>, deadline: Duration) -> Result<Response<AnswerBody>> {
        let Some(layers) = &self.layers else {
            let request = request.map(|bytes| if bytes.is_empty() { Body::Empty } else { Body::full(bytes) });
            return Ok(self.pool.send(class, request, deadline).await?.map(AnswerBody::Pool));
        };
        let answer = layers.send(request.map(Into::into)).await;
        answer.map(|answer| answer.map(AnswerBody::Layered)).map_err(|error| layered::failure(self.side(), error))
    }

    async fn within<T>(&self, deadline: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(deadline, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(self.side(), Kind::Timeout, "the API server did not answer in time")),
        }
    }

    fn request(&self, method: Method, path: &str, content_type: &'static str, body: Bytes) -> Result<Request<Bytes>> {
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
    async fn refusal(&self, response: Response<AnswerBody>) -> Result<Error> {
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

impl std::fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_layered = self.layers.is_some();
        f.debug_struct("ApiClient").field("pool", &self.pool).field("is_layered", &is_layered).finish_non_exhaustive()
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

/// As Portico calls itself.
pub(super) fn user_agent() -> HeaderValue {
    HeaderValue::from_static(concat!("portico/", env!("CARGO_PKG_VERSION")))
}

fn managed(path: &str, more: &str) -> String {
    format!("{path}?fieldManager={FIELD_MANAGER}{more}")
}

fn bytes_of(object: &Value) -> Result<Bytes> {
    serde_json::to_vec(object)
        .map(Bytes::from)
        .map_err(|e| Error::own(Kind::Internal, "an object cannot be written as JSON").because(e))
}

fn absent<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn read(mut body: AnswerBody, limit: usize, side: Side) -> Result<Bytes> {
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
