//! Kubeconfigs as values: reading the tenant's, choosing server and verified name, merging into the user's. Pure.
//!
//! Promises: of what the Secret says only servers, certificates, keys and tokens count, whoever wrote it: nothing that has a client run
//! a command, read a file or trust anybody.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// What counts of a cluster, and of a user.
const OF_CLUSTER: [&str; 3] = ["server", "tls-server-name", "certificate-authority-data"];
const OF_USER: [&str; 3] = ["client-certificate-data", "client-key-data", "token"];

/// The ways to a virtual cluster, out of the kubeconfig in its Secret.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Access {
    cluster: Value,
    /// The cluster entry that chooses the tenant by its SNI name.
    by_name: Option<Value>,
    /// The one that chooses it by the path.
    by_path: Option<Value>,
    user: Value,
    namespace: Option<String>,
    /// Names and IPs in the serving certificate, when the pod beside k3s is the gateway.
    sidecar: Option<Vec<String>>,
}

impl Access {
    /// Reads a kubeconfig with its current context, or says what is missing.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let document: Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        let current = document.get("current-context").and_then(Value::as_str).unwrap_or_default();
        let context = named(&document, "contexts", current, "context").ok_or("no current context")?;
        let part = |key: &str| context.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let cluster = only(named(&document, "clusters", &part("cluster"), "cluster").ok_or("no cluster")?, &OF_CLUSTER);
        let user = only(named(&document, "users", &part("user"), "user").ok_or("no user")?, &OF_USER);
        if server(&cluster).is_empty() {
            return Err("no server".to_owned());
        }
        let others = entries(&document, "clusters").map(|other| only(other, &OF_CLUSTER));
        let clusters: Vec<Value> = std::iter::once(cluster.clone()).chain(others).collect();
        let by_path = clusters.iter().find(|c| has_tenant_path(server(c))).cloned();
        let by_name = clusters.iter().find(|c| sni(c).is_some()).cloned();
        let namespace = context.get("namespace").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { cluster, by_name, by_path, user, namespace, sidecar: None })
    }

    /// With another user: that part of a kubeconfig.
    pub(super) fn with_user(self, user: Value) -> Self {
        Self { user, ..self }
    }

    /// The client certificate in it, PEM.
    pub(super) fn certificate(&self) -> Option<String> {
        let data = self.user.get("client-certificate-data").and_then(Value::as_str)?;
        String::from_utf8(STANDARD.decode(data).ok()?).ok()
    }

    /// Namespace of its context.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Of the sidecar form, whose certificate has these names.
    pub(super) fn of_sidecar(self, names: Vec<String>) -> Self {
        Self { sidecar: Some(names), ..self }
    }

    /// Whether the pod beside k3s is the gateway.
    pub(super) fn is_sidecar(&self) -> bool {
        self.sidecar.is_some()
    }

    /// Whether a sidecar's certificate lacks the host of this URL.
    pub(super) fn is_unnamed(&self, url: &str) -> bool {
        self.sidecar.as_ref().is_some_and(|names| !host(url).is_some_and(|host| names.contains(&host)))
    }

    /// Whether the tenant can be named to the gateway by SNI.
    pub(super) fn has_name(&self) -> bool {
        self.by_name.is_some()
    }

    /// Whether others than this machine can reach the server.
    pub(super) fn has_public_server(&self) -> bool {
        host(server(&self.cluster))
            .is_some_and(|h| h != "localhost" && !h.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()))
    }

    /// Reaches the tenant at `url`: by its path when the URL has one, else by its SNI name. `None` when the Secret does
    /// not tell how to prove that way.
    pub(super) fn at(mut self, url: &str) -> Option<Self> {
        if self.is_sidecar() && !self.is_unnamed(url) {
            self.set_server(url, None);
            return Some(self);
        }
        if has_tenant_path(url) {
            self.cluster = self.by_path.clone()?;
            self.set_server(url, None);
            return Some(self);
        }
        self.cluster = self.by_name.clone()?;
        let name = sni(&self.cluster).filter(|name| host(url).as_ref() != Some(name));
        self.set_server(url, name);
        Some(self)
    }

    /// Reaches the tenant through a forwarded port, at the gateway or at the control plane itself.
    pub(super) fn forwarded(mut self, port: u16, gateway: bool) -> Self {
        if self.is_sidecar() {
            self.set_server(&format!("https://localhost:{port}"), None);
            return self;
        }
        if let Some(by_name) = &self.by_name {
            self.cluster = by_name.clone();
        }
        let verified = if gateway { sni(&self.cluster) } else { Some("kubernetes.default.svc".to_owned()) };
        self.set_server(&format!("https://127.0.0.1:{port}"), verified);
        self
    }

    fn set_server(&mut self, server: &str, verified: Option<String>) {
        self.cluster["server"] = json!(server);
        match verified {
            Some(name) => self.cluster["tls-server-name"] = json!(name),
            None => {
                if let Some(cluster) = self.cluster.as_object_mut() {
                    cluster.remove("tls-server-name");
                }
            }
        }
    }

    /// A kubeconfig with one cluster, user and context, all of this name.
    pub(super) fn kubeconfig(&self, name: &str) -> Value {
        let mut context = json!({"cluster": name, "user": name});
        if let Some(namespace) = &self.namespace {
            context["namespace"] = json!(namespace);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": self.cluster}],
            "users": [{"name": name, "user": self.user}],
            "contexts": [{"name": name, "context": context}],
            "current-context": name,
        })
    }
}

/// Puts the entries of `added` into `document`, replacing those of the same name, and takes over its current context.
/// Everything else stays as it is.
pub(super) fn merge(mut document: Value, added: &Value) -> Value {
    if !document.is_object() {
        document = json!({"apiVersion": "v1", "kind": "Config"});
    }
    for list in ["clusters", "users", "contexts"] {
        let mut entries = document.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        for entry in added.get(list).and_then(Value::as_array).into_iter().flatten() {
            entries.retain(|old| old.get("name") != entry.get("name"));
            entries.push(entry.clone());
        }
        document[list] = Value::Array(entries);
    }
    document["current-context"] = added["current-context"].clone();
    document
}

/// Whether a file's text is a kubeconfig, the only thing that may be overwritten.
pub(super) fn is_kubeconfig(text: &str) -> bool {
    let parsed: Result<Value, _> = serde_saphyr::from_str(text);
    parsed.is_ok_and(|v| v.get("kind").and_then(Value::as_str) == Some("Config"))
}

fn named<'a>(document: &'a Value, list: &str, name: &str, part: &str) -> Option<&'a Value> {
    let found = document.get(list)?.as_array()?;
    found.iter().find(|e| e.get("name").and_then(Value::as_str) == Some(name))?.get(part)
}

/// These keys of an object, where they are texts.
fn only(object: &Value, keys: &[&str]) -> Value {
    let kept = keys.iter().filter_map(|key| Some(((*key).to_owned(), object.get(key)?.as_str()?.into())));
    Value::Object(kept.collect())
}

fn entries<'a>(document: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    document.get(list).and_then(Value::as_array).into_iter().flatten().filter_map(|e| e.get("cluster"))
}

fn server(cluster: &Value) -> &str {
    cluster.get("server").and_then(Value::as_str).unwrap_or_default()
}

/// The name that selects and proves a tenant: given, or that of the server unless the path selects.
fn sni(cluster: &Value) -> Option<String> {
    if let Some(name) = cluster.get("tls-server-name").and_then(Value::as_str) {
        return Some(name.to_owned());
    }
    let host = host(server(cluster)).filter(|_| !has_tenant_path(server(cluster)))?;
    (host.contains('.') && host.parse::<std::net::IpAddr>().is_err()).then_some(host)
}

fn has_tenant_path(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|u| u.path().starts_with("/clusters/"))
}

fn host(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    Some(uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned())
}

#[cfg(test)]
mod tests;
