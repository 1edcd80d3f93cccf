//! Kinds of objects, and the paths and queries by which an API server knows them.
//!
//! Promises: a name never leaves its segment of the path. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

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

/// Selectors of a list or watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// `labelSelector`, empty for all.
    pub label_selector: String,
    /// `fieldSelector`, empty for all.
    pub field_selector: String,
    /// Whether any state will do that the server has at hand (`resourceVersion=0`): it then asks no store, and sends all at once.
    pub any_state: bool,
    /// Whether objects come as their metadata alone, which is all that is sent. Of [pages](crate::kubernetes::ApiClient::page) only.
    pub only_metadata: bool,
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

    /// An object of this kind as it stands in a list, where it may carry neither apiVersion nor kind.
    pub fn complete(&self, mut item: Value) -> Value {
        if let Value::Object(fields) = &mut item
            && !(fields.contains_key("kind") && fields.contains_key("apiVersion"))
        {
            fields.entry("apiVersion").or_insert_with(|| self.api_version().into());
            fields.entry("kind").or_insert_with(|| self.kind.into());
        }
        item
    }

    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// Of a list by these selectors.
pub fn listed_path(resource: &Resource, namespace: Option<&str>, options: &ListOptions) -> String {
    Query::of(options).on(&resource.path(namespace, None, None))
}

/// A query string under construction.
pub(super) struct Query(String);

impl Query {
    pub(super) fn of(options: &ListOptions) -> Self {
        let mut query = Self(String::new());
        query.add("labelSelector", &options.label_selector);
        query.add("fieldSelector", &options.field_selector);
        query.add("resourceVersion", if options.any_state { "0" } else { "" });
        query
    }

    /// Empty values are left out.
    pub(super) fn add(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, SEGMENT));
    }

    pub(super) fn on(&self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

fn push_segment(path: &mut String, segment: &str) {
    path.push('/');
    path.extend(utf8_percent_encode(segment, SEGMENT));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let options = ListOptions { label_selector: "a in (b,c),d=e".to_owned(), ..ListOptions::default() };
        assert_eq!(Query::of(&options).on("/p"), "/p?labelSelector=a%20in%20%28b%2Cc%29%2Cd%3De");
    }

    #[test]
    fn items_gain_their_type() {
        let item = ROLES.complete(json!({"metadata": {"name": "x"}}));
        assert_eq!(item["apiVersion"], "rbac.authorization.k8s.io/v1");
        assert_eq!(item["kind"], "ClusterRole");
    }
}
