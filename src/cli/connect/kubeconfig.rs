//! Kubeconfigs as values: reading the tenant's, choosing server and verified name, merging into the user's. Pure.

use serde_json::{Value, json};

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
        let cluster = named(&document, "clusters", &part("cluster"), "cluster").ok_or("no cluster")?.clone();
        let user = named(&document, "users", &part("user"), "user").ok_or("no user")?.clone();
        if server(&cluster).is_empty() {
            return Err("no server".to_owned());
        }
        let clusters: Vec<&Value> = std::iter::once(&cluster).chain(entries(&document, "clusters")).collect();
        let by_path = clusters.iter().find(|c| has_tenant_path(server(c))).map(|c| (*c).clone());
        let by_name = clusters.iter().find(|c| sni(c).is_some()).map(|c| (*c).clone());
        let namespace = context.get("namespace").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { cluster, by_name, by_path, user, namespace, sidecar: None })
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
mod tests {
    use super::*;

    const SECRET: &str = "
apiVersion: v1
kind: Config
current-context: vc1
clusters:
- {name: vc1, cluster: {server: 'https://localhost:8443', certificate-authority-data: Q0E=, tls-server-name: vc1.team-a.portico.local}}
users: [{name: admin, user: {client-certificate-data: Qw==, client-key-data: Sw==}}]
contexts: [{name: vc1, context: {cluster: vc1, user: admin}}]
";
    const PUBLIC: &str = "
kind: Config
current-context: vc1
clusters:
- {name: vc1, cluster: {server: 'https://10.88.0.1:30443/clusters/team-a/vc1', certificate-authority-data: U0hBUkVE}}
- {name: vc1-sni, cluster: {server: 'https://10.88.0.1:30443', certificate-authority-data: VEVOQU5U, tls-server-name: vc1.team-a.portico.local}}
users: [{name: admin, user: {client-certificate-data: Qw==, client-key-data: Sw==}}]
contexts: [{name: vc1, context: {cluster: vc1, user: admin}}]
";

    fn access(text: &str) -> Access {
        Access::parse(text).expect("valid")
    }

    fn cluster(access: &Access) -> Value {
        access.kubeconfig("c")["clusters"][0]["cluster"].clone()
    }

    #[test]
    fn a_server_by_address_keeps_the_name_that_selects_and_proves_the_tenant() {
        for (secret, authority) in [(SECRET, "Q0E="), (PUBLIC, "VEVOQU5U")] {
            let found = cluster(&access(secret).at("https://203.0.113.7:443").expect("known"));
            assert_eq!(found["server"], "https://203.0.113.7:443");
            assert_eq!(found["tls-server-name"], "vc1.team-a.portico.local");
            assert_eq!(found["certificate-authority-data"], authority);
        }
    }

    #[test]
    fn a_server_by_path_is_verified_by_its_own_name_and_the_shared_authority() {
        let url = "https://portico.example.com/clusters/team-a/vc1";
        let found = cluster(&access(PUBLIC).at(url).expect("known"));
        assert_eq!(found.get("tls-server-name"), None);
        assert_eq!(found["certificate-authority-data"], "U0hBUkVE");
        assert!(access(SECRET).at(url).is_none(), "the tenant's own authority does not sign the shared name");
    }

    #[test]
    fn a_sidecar_is_verified_by_the_address_itself_where_its_certificate_has_it() {
        let text = "
kind: Config
current-context: dev
clusters:
- {name: dev, cluster: {server: 'https://localhost:8443', certificate-authority-data: Q0E=}}
- {name: dev-verified-by-name, cluster: {server: 'https://localhost:8443', certificate-authority-data: Q0E=, tls-server-name: dev.ns.svc}}
users: [{name: admin, user: {client-certificate-data: Qw==, client-key-data: Sw==}}]
contexts: [{name: dev, context: {cluster: dev, user: admin}}]
";
        let sidecar = || access(text).of_sidecar(vec!["localhost".to_owned(), "192.168.199.77".to_owned()]);
        let known = cluster(&sidecar().at("https://192.168.199.77:31234").expect("known"));
        assert_eq!(
            (known["server"].as_str(), known.get("tls-server-name")),
            (Some("https://192.168.199.77:31234"), None)
        );
        assert!(sidecar().is_unnamed("https://10.88.0.1:31234"));
        let other = cluster(&sidecar().at("https://10.88.0.1:31234").expect("known"));
        assert_eq!(other["tls-server-name"], "dev.ns.svc");
        let forwarded = cluster(&sidecar().forwarded(5000, true));
        assert_eq!(
            (forwarded["server"].as_str(), forwarded.get("tls-server-name")),
            (Some("https://localhost:5000"), None)
        );
        assert!(!sidecar().has_public_server());
    }

    #[test]
    fn localhost_is_no_public_server() {
        assert!(!access(SECRET).has_public_server());
        assert!(access(PUBLIC).has_public_server());
    }

    #[test]
    fn a_forwarded_port_leads_to_the_gateway_by_name_or_to_the_control_plane() {
        let gateway = cluster(&access(PUBLIC).forwarded(5000, true));
        assert_eq!(gateway["server"], "https://127.0.0.1:5000");
        assert_eq!(gateway["tls-server-name"], "vc1.team-a.portico.local");
        let own = cluster(&access(PUBLIC).forwarded(5000, false));
        assert_eq!(own["tls-server-name"], "kubernetes.default.svc");
        assert_eq!(own["certificate-authority-data"], "VEVOQU5U");
    }

    #[test]
    fn merging_replaces_only_entries_of_the_same_name() {
        let mine = json!({"kind": "Config", "preferences": {"colors": true}, "current-context": "work",
            "clusters": [{"name": "work", "cluster": {"server": "https://w"}}, {"name": "p", "cluster": {"server": "https://old"}}],
            "contexts": [{"name": "work", "context": {"cluster": "work"}}], "users": null});
        let merged = merge(mine, &access(SECRET).kubeconfig("p"));
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
