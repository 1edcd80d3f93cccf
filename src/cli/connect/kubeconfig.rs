//! Kubeconfigs as values: reading the tenant's, choosing server and verified name, merging into the user's. Pure.

use serde_json::{Value, json};

/// How a virtual cluster is reached, out of the kubeconfig in its Secret.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Access {
    cluster: Value,
    user: Value,
    namespace: Option<String>,
    /// SNI name that selects the tenant.
    sni: Option<String>,
}

impl Access {
    /// Reads a kubeconfig with its current context, or says what is missing.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let document: Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        let current = document.get("current-context").and_then(Value::as_str).unwrap_or_default();
        let context = named(&document, "contexts", current, "context").ok_or("no current context")?;
        let part = |key: &str| context.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let cluster = named(&document, "clusters", &part("cluster"), "cluster").ok_or("no cluster")?.clone();
        let user = named(&document, "users", &part("user"), "user").ok_or("no user")?.clone();
        if cluster.get("server").and_then(Value::as_str).is_none() {
            return Err("no server".to_owned());
        }
        let namespace = context.get("namespace").and_then(Value::as_str).map(str::to_owned);
        let sni = cluster.get("tls-server-name").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { cluster, user, namespace, sni })
    }

    /// Learns the tenant's SNI name from its endpoint URLs: the first without the path of a tenant.
    pub(super) fn with_hosts_of(mut self, endpoints: &[String]) -> Self {
        if self.sni.is_none() {
            let own = self.server().to_owned();
            self.sni = std::iter::once(&own)
                .chain(endpoints)
                .filter(|url| !has_tenant_path(url))
                .filter_map(|url| host(url))
                .find(|host| host.contains('.') && host.parse::<std::net::IpAddr>().is_err());
        }
        self
    }

    /// The server URL.
    pub(super) fn server(&self) -> &str {
        self.cluster.get("server").and_then(Value::as_str).unwrap_or_default()
    }

    /// The SNI name that selects the tenant on the shared listener.
    pub(super) fn sni(&self) -> Option<&str> {
        self.sni.as_deref()
    }

    /// Whether others than this machine can reach the server.
    pub(super) fn has_public_server(&self) -> bool {
        host(self.server())
            .is_some_and(|h| h != "localhost" && !h.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()))
    }

    /// Reaches the tenant at `server`: by its path when the URL has one, else by its SNI name.
    pub(super) fn at(mut self, server: &str) -> Self {
        let by_name = !has_tenant_path(server);
        let verified = match (&self.sni, host(server)) {
            (Some(sni), Some(host)) if by_name && *sni != host => Some(sni.clone()),
            _ => None,
        };
        self.set_server(server, verified);
        self
    }

    /// Reaches the tenant through a forwarded port, at the gateway or at the control plane itself.
    pub(super) fn forwarded(mut self, port: u16, gateway: bool) -> Self {
        let verified = if gateway { self.sni.clone() } else { Some("kubernetes.default.svc".to_owned()) };
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
    let entries = document.get(list)?.as_array()?;
    entries.iter().find(|e| e.get("name").and_then(Value::as_str) == Some(name))?.get(part)
}

fn has_tenant_path(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|u| u.path().starts_with("/clusters/"))
}

fn host(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    Some(uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "
apiVersion: v1
kind: Config
current-context: vc1
clusters: [{name: vc1, cluster: {server: 'https://localhost:8443', certificate-authority-data: Q0E=, tls-server-name: vc1.team-a.portico.local}}]
users: [{name: admin, user: {client-certificate-data: Qw==, client-key-data: Sw==}}]
contexts: [{name: vc1, context: {cluster: vc1, user: admin}}]
";

    fn cluster(access: &Access) -> Value {
        access.kubeconfig("c")["clusters"][0]["cluster"].clone()
    }

    #[test]
    fn a_server_by_address_keeps_the_name_that_selects_and_proves_the_tenant() {
        let access = Access::parse(SECRET).expect("valid").at("https://203.0.113.7:443");
        assert_eq!(cluster(&access)["tls-server-name"], "vc1.team-a.portico.local");
        assert_eq!(cluster(&access)["certificate-authority-data"], "Q0E=");
    }

    #[test]
    fn a_server_by_path_is_verified_by_its_own_name() {
        let access = Access::parse(SECRET).expect("valid").at("https://portico.example.com/clusters/team-a/vc1");
        assert_eq!(cluster(&access).get("tls-server-name"), None);
    }

    #[test]
    fn localhost_is_no_public_server() {
        assert!(!Access::parse(SECRET).expect("valid").has_public_server());
        let public = SECRET.replace("localhost:8443", "10.88.0.1:30443/clusters/team-a/vc1");
        assert!(Access::parse(&public).expect("valid").has_public_server());
    }

    #[test]
    fn the_sni_name_comes_from_the_endpoints_when_the_secret_names_none() {
        let bare = SECRET.replace(", tls-server-name: vc1.team-a.portico.local", "");
        let endpoints = [
            "https://10.88.0.1:30443/clusters/team-a/vc1",
            "https://10.88.0.1:30443",
            "https://vc1.team-a.example:30443",
        ];
        let access = Access::parse(&bare).expect("valid").with_hosts_of(&endpoints.map(str::to_owned));
        assert_eq!(access.sni(), Some("vc1.team-a.example"));
        assert_eq!(cluster(&access.forwarded(5000, true))["tls-server-name"], "vc1.team-a.example");
    }

    #[test]
    fn merging_replaces_only_entries_of_the_same_name() {
        let mine = json!({"kind": "Config", "preferences": {"colors": true}, "current-context": "work",
            "clusters": [{"name": "work", "cluster": {"server": "https://w"}}, {"name": "p", "cluster": {"server": "https://old"}}],
            "contexts": [{"name": "work", "context": {"cluster": "work"}}], "users": null});
        let merged = merge(mine, &Access::parse(SECRET).expect("valid").kubeconfig("p"));
        assert_eq!(merged["preferences"]["colors"], true);
        assert_eq!(merged["clusters"].as_array().map(Vec::len), Some(2));
        assert_eq!(merged["clusters"][0]["cluster"]["server"], "https://w");
        assert_eq!(merged["users"].as_array().map(Vec::len), Some(1));
        assert_eq!(merged["current-context"], "p");
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(Access::parse("kind: Config").unwrap_err(), "no current context");
        assert!(Access::parse("kind: [").is_err());
        assert!(!is_kubeconfig("kind: Pod") && is_kubeconfig(SECRET));
    }
}
