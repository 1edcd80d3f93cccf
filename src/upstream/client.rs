//! A small JSON client of one API server: what the syncer, operator, gateway and DNS need, and nothing typed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::upstream::{Pool, WatchStream};

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
}

impl Resource {
    /// `/api/v1/namespaces/{ns}/pods/{name}/{sub}`; every segment percent-encoded. `namespace` None on a namespaced
    /// resource means all namespaces (list and watch only).
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>, subresource: Option<&str>) -> String {
        let _ = (namespace, name, subresource);
        String::new()
    }

    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

impl ApiClient {
    /// A client that adds `headers` (identity assertion) to every request.
    pub fn new(pool: Arc<Pool>, headers: HeaderMap) -> Self {
        Self { pool, headers: Arc::new(headers) }
    }

    /// The connections below.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// One object as raw JSON; `Ok(None)` when it does not exist.
    pub async fn get_raw(&self, _resource: &Resource, _namespace: Option<&str>, _name: &str) -> Result<Option<Bytes>> {
        Err(Error::own(Kind::Internal, format!("not built yet {:?}", self.headers.len())))
    }

    /// One object; `Ok(None)` when it does not exist.
    pub async fn get(&self, _resource: &Resource, _namespace: Option<&str>, _name: &str) -> Result<Option<Value>> {
        Err(Error::own(Kind::Internal, "not built yet"))
    }

    /// A whole list, page by page (500 each), as raw items (each complete with apiVersion and kind) and the list's resourceVersion.
    pub async fn list(
        &self,
        _resource: &Resource,
        _namespace: Option<&str>,
        _options: &ListOptions,
    ) -> Result<(Vec<Value>, String)> {
        Err(Error::own(Kind::Internal, "not built yet"))
    }

    /// A watch from `resource_version`, bookmarks on, server-side timeout ~ 5 to 10 minutes (jittered).
    pub async fn watch(
        &self,
        _resource: &Resource,
        _namespace: Option<&str>,
        _options: &ListOptions,
        _resource_version: &str,
    ) -> Result<WatchStream> {
        Err(Error::own(Kind::Internal, "not built yet"))
    }

    /// A watch that begins with the whole list (`sendInitialEvents`): Applied events, then a Bookmark with
    /// `initial_events_end`. `Err` of kind Invalid (422) when the server does not know it: then list and watch.
    pub async fn watch_list(
        &self,
        _resource: &Resource,
        _namespace: Option<&str>,
        _options: &ListOptions,
    ) -> Result<WatchStream> {
        Err(Error::own(Kind::Internal, "not built yet"))
    }

    /// POST.
    pub async fn create(&self, _resource: &Resource, _namespace: Option<&str>, _object: &Value) -> Result<Value> {
        Err(Error::own(Kind::Internal, "not built yet"))
    }

    /// POST on a subresource: `binding`, `token`, `eviction`; and reviews (name "" and subresource "" mean the collection).
    pub async fn create_sub(
        &self,
        _resource: &Resource,
        _namespace: Option<&str>,
        _name: &str,
        _subresource: &str,
        _object: &Value,
    ) -> Result<Value> {
        Err(Error::own(Kind::Internal, "not built yet"))
    }

    /// Server-side apply with field manager `portico`, forced; `subresource` such as `status` or "".
    pub async fn apply(
        &self,
        _resource: &Resource,
        _namespace: Option<&str>,
        _name: &str,
        _subresource: &str,
        _object: &Value,
    ) -> Result<Value> {
        Err(Error::own(Kind::Internal, "not built yet"))
    }

    /// PATCH; `subresource` such as `status`, `ephemeralcontainers` or "".
    pub async fn patch(
        &self,
        _resource: &Resource,
        _namespace: Option<&str>,
        _name: &str,
        _subresource: &str,
        _kind: PatchKind,
        _patch: &Value,
    ) -> Result<Value> {
        Err(Error::own(Kind::Internal, "not built yet"))
    }

    /// PUT (optimistic: the object carries its resourceVersion).
    pub async fn replace(
        &self,
        _resource: &Resource,
        _namespace: Option<&str>,
        _name: &str,
        _subresource: &str,
        _object: &Value,
    ) -> Result<Value> {
        Err(Error::own(Kind::Internal, "not built yet"))
    }

    /// DELETE with a uid precondition and optional grace period; `Ok(false)` when it was gone already (404) or is another object (409).
    pub async fn delete(
        &self,
        _resource: &Resource,
        _namespace: Option<&str>,
        _name: &str,
        _uid: Option<&str>,
        _grace_seconds: Option<u64>,
    ) -> Result<bool> {
        Err(Error::own(Kind::Internal, "not built yet"))
    }

    /// GET of any path, for `/version`, `/readyz`, discovery.
    pub async fn get_path(&self, _path: &str, _deadline: Duration) -> Result<Bytes> {
        Err(Error::own(Kind::Internal, "not built yet"))
    }
}
