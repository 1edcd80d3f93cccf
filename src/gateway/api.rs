//! What a request means to a Kubernetes API server: the path grammar, verbs, and which paths exist for tenants.
//!
//! Owns the same reading of a request that the backend will make (`k8s.io/apiserver/pkg/endpoints/request`), so that
//! router, limits and interception agree with its authorizer. Pure; paths are percent-decoded exactly once. Must not
//! know tenants, identities or connections.

mod path;
mod query;
#[cfg(test)]
mod tests;

use http::Method;

pub use path::{BadRequest, OWN_METRICS, PathPrefix, is_served_root};
pub use query::{is_truthy, parameter};

/// What a request asks for; the fields of `RequestInfo` in the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether it names a resource; discovery, health and OpenAPI do not.
    pub is_resource: bool,
    /// `get`, `list`, `watch`, `create`, …; for other paths the lower-case method; `""` for OPTIONS on a resource.
    pub verb: &'static str,
    /// API group, `""` for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Virtual namespace, `""` when there is none.
    pub namespace: String,
    /// Lower-case plural.
    pub resource: String,
    /// Such as `status`, `exec`; `""` when there is none.
    pub subresource: String,
    /// Object name, `""` for collections.
    pub name: String,
    /// Whether nothing follows the subresource (or what stands last): only such shapes are intercepted.
    pub is_exact: bool,
    /// Whether it uses the old `/watch/` or `/proxy/` prefix form.
    pub has_verb_prefix: bool,
}

impl RequestInfo {
    /// Reads method, raw path (without a tenant's prefix) and raw query.
    pub fn parse(method: &Method, raw_path: &str, query: Option<&str>) -> Result<Self, BadRequest> {
        let decoded = path::decode(raw_path)?;
        let mut info = Self { verb: method_verb(method), is_exact: true, ..Self::default() };
        let trimmed = decoded.trim_matches('/');
        let parts: Vec<&str> = trimmed.split('/').collect();
        let mut rest: &[&str] = match parts.as_slice() {
            ["api", rest @ ..] if rest.len() >= 2 => rest,
            ["apis", group, rest @ ..] if rest.len() >= 2 => {
                info.group = (*group).to_owned();
                rest
            }
            _ => return Ok(info),
        };
        if let [version, tail @ ..] = rest {
            info.version = (*version).to_owned();
            rest = tail;
        }
        info.is_resource = true;
        info.verb = resource_verb(method);
        if let [prefix @ ("watch" | "proxy"), tail @ ..] = rest {
            if tail.is_empty() {
                return Err(BadRequest::Incomplete);
            }
            info.verb = if *prefix == "watch" { "watch" } else { "proxy" };
            info.has_verb_prefix = true;
            rest = tail;
        }
        if let ["namespaces", namespace, tail @ ..] = rest {
            info.namespace = (*namespace).to_owned();
            // `namespaces/a/status` stays the resource `namespaces`
            if let [third, ..] = tail
                && !matches!(*third, "status" | "finalize")
            {
                rest = tail;
            }
        }
        info.take_object(rest);
        info.refine_verb(query.unwrap_or_default());
        Ok(info)
    }

    /// Whether the answer may take as long as it likes: no deadline, and no place among the short requests.
    pub fn is_long_running(&self) -> bool {
        self.is_resource
            && (matches!(self.verb, "watch" | "proxy")
                || matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward"))
    }

    /// `pods/exec`, `deployments`, … for logs.
    pub fn resource_path(&self) -> String {
        match (self.resource.as_str(), self.subresource.as_str()) {
            (resource, "") => resource.to_owned(),
            (resource, subresource) => format!("{resource}/{subresource}"),
        }
    }

    /// Whether this is exactly `/api/v1/namespaces/{ns}/pods/{name}/{subresource}`, nothing empty.
    pub fn is_pod_subresource(&self, subresource: &str) -> bool {
        self.is_core_v1("pods")
            && self.is_exact
            && !self.namespace.is_empty()
            && !self.name.is_empty()
            && self.subresource == subresource
    }

    /// Whether it is about this resource of the core group in v1, in the form that is routed today.
    pub fn is_core_v1(&self, resource: &str) -> bool {
        self.is_resource
            && !self.has_verb_prefix
            && self.group.is_empty()
            && self.version == "v1"
            && self.resource == resource
    }

    fn take_object(&mut self, parts: &[&str]) {
        if let Some(resource) = parts.first() {
            self.resource = (*resource).to_owned();
        }
        if let Some(name) = parts.get(1) {
            self.name = (*name).to_owned();
        }
        if let Some(subresource) = parts.get(2)
            && self.verb != "proxy"
        {
            self.subresource = (*subresource).to_owned();
        }
        self.is_exact = parts.len() <= 3;
    }

    fn refine_verb(&mut self, raw_query: &str) {
        if !self.name.is_empty() {
            return;
        }
        match self.verb {
            "get" => {
                self.verb = if is_truthy(raw_query, "watch") { "watch" } else { "list" };
                self.take_selected_name(raw_query);
            }
            "watch" => self.take_selected_name(raw_query),
            "delete" => self.verb = "deletecollection",
            _ => {}
        }
    }

    /// `fieldSelector=metadata.name=x` names one object, so that RBAC's resourceNames works for lists.
    fn take_selected_name(&mut self, raw_query: &str) {
        let Some(selector) = parameter(raw_query, "fieldSelector") else { return };
        for term in selector.split(',') {
            let Some(value) = term.strip_prefix("metadata.name=") else { continue };
            let value = value.strip_prefix('=').unwrap_or(value);
            if !value.is_empty() && value != "." && value != ".." && !value.contains(['/', '%', '\\']) {
                value.clone_into(&mut self.name);
            }
        }
    }
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

fn resource_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}
