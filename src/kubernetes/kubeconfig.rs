//! A kubeconfig as the address of one API server.
//!
//! Must not run anything or follow a proxy: `exec` and auth providers are refused. A kubeconfig that came from a
//! tenant (a Secret) must not name files either: they would be Portico's own. Where it leads is judged when it is dialed.

pub mod issue;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Kind, Result, Side};
use crate::tls;
use crate::upstream::{Credential, Reach, Target};

/// Certificates are shorter by far; what is behind it makes them unreadable.
const LONGEST_FILE: u64 = 1 << 20;

/// Whether a kubeconfig may name files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// No: it came from outside.
    Refused,
    /// Yes; relative paths start at this folder.
    Below(PathBuf),
}

/// The current context of an external backend's kubeconfig. Names no files, runs nothing, leads nowhere beyond `reach`.
pub fn target_from_kubeconfig(yaml: &str, side: Side, reach: Reach) -> Result<Target> {
    Ok(Target { reach, ..target(yaml, side, &Files::Refused)? })
}

/// The current context of a kubeconfig.
pub fn target(yaml: &str, side: Side, files: &Files) -> Result<Target> {
    let config: Kubeconfig = serde_saphyr::from_str(yaml).map_err(|error| unreadable(&error))?;
    let (cluster, user) = config.current()?;
    let Server { host, port, path_prefix } = Server::parse(&cluster.server)?;
    let name = cluster.tls_server_name.as_deref().filter(|n| !n.is_empty()).unwrap_or(&host);
    let server_name = server_name(name)?;
    if cluster.insecure_skip_tls_verify {
        return Err(invalid("insecure-skip-tls-verify is not supported; name the server's CA"));
    }
    if cluster.proxy_url.as_deref().is_some_and(|p| !p.is_empty()) {
        return Err(invalid("proxy-url is not supported"));
    }
    let roots = cluster.roots(files)?;
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Err(invalid("exec and auth-provider are not supported; use a certificate or a token"));
    }
    let certificate = files.material(user.client_certificate_data.as_deref(), user.client_certificate.as_deref())?;
    let key = files.material(user.client_key_data.as_deref(), user.client_key.as_deref())?;
    let identity = match (&certificate, &key) {
        (Some(certificate), Some(key)) => Some((certificate.as_slice(), key.as_slice())),
        (None, None) => None,
        _ => return Err(invalid("client certificate and key must come together")),
    };
    let credential = match (&user.token, &user.token_file) {
        (Some(token), _) if !token.is_empty() => Credential::Token(token.as_str().into()),
        (_, Some(file)) if !file.is_empty() => Credential::TokenFile(files.path(file)?),
        _ => Credential::Certificate,
    };
    if identity.is_none() && matches!(credential, Credential::Certificate) {
        return Err(invalid("the user has neither a client certificate nor a token"));
    }
    let bare = tls::client_config(&roots, None)?;
    let with_identity = match identity {
        Some(_) => tls::client_config(&roots, identity)?,
        None => Arc::clone(&bare),
    };
    Ok(Target {
        side,
        host,
        port,
        server_name,
        tls: with_identity,
        tls_without_identity: bare,
        credential,
        path_prefix,
        reach: Reach::default(),
    })
}

/// The files that the current context names and that are read with it; a file of a token is read again by itself.
pub fn named_files(yaml: &str) -> Result<Vec<String>> {
    let config: Kubeconfig = serde_saphyr::from_str(yaml).map_err(|error| unreadable(&error))?;
    let (cluster, user) = config.current()?;
    let named = [cluster.certificate_authority, user.client_certificate, user.client_key];
    Ok(named.into_iter().flatten().filter(|name| !name.is_empty()).collect())
}

/// The CAs of the server's certificate, PEM.
pub fn roots(yaml: &str, files: &Files) -> Result<Vec<u8>> {
    let config: Kubeconfig = serde_saphyr::from_str(yaml).map_err(|error| unreadable(&error))?;
    config.current()?.0.roots(files)
}

/// A name or IP address to verify a certificate against.
pub fn server_name(host: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(|e| invalid("the server's name is not valid").because(e))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    clusters: Vec<Named>,
    #[serde(default)]
    users: Vec<Named>,
    #[serde(default)]
    contexts: Vec<Named>,
    #[serde(default)]
    current_context: String,
}

/// `{name, cluster|user|context}`.
#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    cluster: Option<Cluster>,
    #[serde(default)]
    user: Option<User>,
    #[serde(default)]
    context: Option<Context>,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
    insecure_skip_tls_verify: bool,
    proxy_url: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    exec: Option<Value>,
    auth_provider: Option<Value>,
}

impl Kubeconfig {
    fn current(self) -> Result<(Cluster, User)> {
        let context = match self.contexts.into_iter().find(|c| c.name == self.current_context) {
            Some(Named { context: Some(context), .. }) => context,
            _ => return Err(invalid(&format!("the current context {:?} is missing", self.current_context))),
        };
        let cluster = self.clusters.into_iter().find(|c| c.name == context.cluster).and_then(|c| c.cluster);
        let user = self.users.into_iter().find(|u| u.name == context.user).and_then(|u| u.user);
        Ok((
            cluster.ok_or_else(|| invalid(&format!("the cluster {:?} is missing", context.cluster)))?,
            user.unwrap_or_default(),
        ))
    }
}

impl Cluster {
    fn roots(&self, files: &Files) -> Result<Vec<u8>> {
        files
            .material(self.certificate_authority_data.as_deref(), self.certificate_authority.as_deref())?
            .ok_or_else(|| invalid("the cluster has no certificate-authority-data"))
    }
}

struct Server {
    host: String,
    port: u16,
    path_prefix: String,
}

impl Server {
    fn parse(url: &str) -> Result<Self> {
        let uri: http::Uri = url.parse().map_err(|e| invalid("the server's URL is not readable").because(e))?;
        if uri.scheme_str() != Some("https") {
            return Err(invalid("the server's URL must begin with https://"));
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(invalid("the server's URL has no host"));
        }
        let port = uri.port_u16().unwrap_or(443);
        Ok(Self { host, port, path_prefix: uri.path().trim_end_matches('/').to_owned() })
    }
}

impl Files {
    /// PEM from inline base64, or from a file.
    fn material(&self, data: Option<&str>, file: Option<&str>) -> Result<Option<Vec<u8>>> {
        if let Some(data) = data.filter(|d| !d.is_empty()) {
            let data: String = data.split_whitespace().collect();
            return base64::engine::general_purpose::STANDARD
                .decode(data)
                .map(Some)
                .map_err(|e| invalid("a data field is not base64").because(e));
        }
        let Some(file) = file.filter(|f| !f.is_empty()) else { return Ok(None) };
        let path = self.path(file)?;
        let read = File::open(&path).and_then(|file| {
            let mut bytes = Vec::new();
            file.take(LONGEST_FILE).read_to_end(&mut bytes).map(|_| bytes)
        });
        read.map(Some).map_err(|e| invalid(&format!("{} cannot be read", path.display())).because(e))
    }

    fn path(&self, file: &str) -> Result<PathBuf> {
        match self {
            Self::Refused => Err(invalid("it names a file; put the data into it")),
            Self::Below(folder) => Ok(folder.join(Path::new(file))),
        }
    }
}

/// Where, and not what: the error itself shows the lines around it, and a token may be one of them.
fn unreadable(error: &serde_saphyr::Error) -> Error {
    let line = error.location().map(|location| format!(": see line {}", location.line()));
    invalid(&format!("it is not readable{}", line.unwrap_or_default()))
}

fn invalid(why: &str) -> Error {
    Error::own(Kind::Invalid, format!("the kubeconfig cannot be used: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(cluster: &str, user: &str) -> String {
        let key = rcgen::KeyPair::generate().expect("key");
        let ca = rcgen::CertificateParams::new(Vec::new()).expect("params").self_signed(&key).expect("certificate");
        let ca = base64::engine::general_purpose::STANDARD.encode(ca.pem());
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts:\n- name: a\n  context: {{cluster: c, user: u}}\n\
             clusters:\n- name: c\n  cluster:\n    certificate-authority-data: {ca}\n{cluster}\nusers:\n- name: u\n  user:\n{user}\n"
        )
    }

    fn foreign(yaml: &str) -> Result<Target> {
        target_from_kubeconfig(yaml, Side::Backend, Reach::default())
    }

    const SERVER: &str = "    server: https://[fd00::1]:6443/clusters/a/b/";

    #[test]
    fn address_prefix_and_token() {
        let target = foreign(&yaml(SERVER, "    token: abc")).expect("usable");
        assert_eq!((target.host.as_str(), target.port), ("fd00::1", 6443));
        assert_eq!(target.path_prefix, "/clusters/a/b");
        assert!(matches!(target.credential, Credential::Token(t) if &*t == "abc"));
    }

    #[test]
    fn a_foreign_kubeconfig_reads_no_files_and_runs_nothing() {
        for user in [
            "    tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token",
            "    token: x\n    client-certificate: /etc/passwd",
            "    exec: {command: sh}",
        ] {
            let refused = foreign(&yaml(SERVER, user));
            assert_eq!(refused.expect_err("refused").kind(), Kind::Invalid, "{user}");
        }
        assert!(foreign(&yaml("    server: http://x", "    token: x")).is_err());
        for line in
            ["insecure-skip-tls-verify: true", "proxy-url: http://127.0.0.1:3128", "proxy-url: socks5://proxy:1080"]
        {
            let cluster = format!("{SERVER}\n    {line}");
            assert!(foreign(&yaml(&cluster, "    token: x")).is_err(), "{line}");
        }
    }

    #[test]
    fn what_is_not_readable_is_not_shown() {
        for user in
            ["    token: [planted", "    token: {planted: planted}", "    token: a\n   : planted", "    exec: *planted"]
        {
            let error = foreign(&yaml(SERVER, user)).expect_err("refused").to_string();
            assert!(error.contains("not readable: see line ") && !error.contains("planted"), "{error}");
        }
    }

    #[test]
    fn our_own_kubeconfig_may_name_a_token_file() {
        let files = Files::Below("/etc/portico".into());
        let target = target(&yaml(SERVER, "    tokenFile: token"), Side::Host, &files).expect("usable");
        assert!(matches!(target.credential, Credential::TokenFile(p) if p == Path::new("/etc/portico/token")));
    }
}
