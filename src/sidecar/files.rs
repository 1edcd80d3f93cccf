//! What k3s leaves below its data folder. Read anew in every round, since k3s renews its leaves when it starts.

use std::path::{Path, PathBuf};

use super::settings::{Files, missing};
use crate::error::{Result, Side};
use crate::kubernetes::kubeconfig::{self, Files as Named};
use crate::tls;
use crate::tls::certificates::Pair;
use crate::upstream::{Credential, Target};

/// All of it, parsed as far as it can be wrong.
pub(super) struct Material {
    pub(super) server_ca: Pair,
    pub(super) client_ca: Pair,
    /// Where the API server is, and the connections' identity.
    pub(super) target: Target,
    /// Whether that identity is a front proxy's; else it is the admin's.
    pub(super) is_front_proxy: bool,
    /// Everything that was read, in one text.
    pub(super) digest: String,
}

/// Reads them, or says which is missing.
pub(super) async fn read(files: &Files) -> Result<Material> {
    let server_ca = pair(&files.server_ca, &files.server_ca_key).await?;
    let client_ca = pair(&files.client_ca, &files.client_ca.with_extension("key")).await?;
    let kubeconfig = text(&files.kubeconfig).await?;
    let folder = files.kubeconfig.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let mut target = kubeconfig::target(&kubeconfig, Side::Backend, &Named::Below(folder.clone()))?;
    let proxy = front_proxy(files).await?;
    if let Some(proxy) = &proxy {
        let identity = (proxy.certificate.as_bytes(), proxy.key.as_bytes());
        target.tls = tls::client_config(server_ca.certificate.as_bytes(), Some(identity))?;
        target.tls_without_identity = tls::client_config(server_ca.certificate.as_bytes(), None)?;
        target.credential = Credential::Certificate;
    }
    // Without a front proxy the identity is in files that the kubeconfig names: they may be renewed under the same names.
    let identity = match &proxy {
        Some(proxy) => proxy.certificate.clone(),
        None => named_files(&kubeconfig, &folder).await,
    };
    let parts = [&server_ca.certificate, &server_ca.key, &client_ca.certificate, &kubeconfig, &identity];
    let digest = parts.map(String::as_str).join("\n");
    Ok(Material { server_ca, client_ca, target, is_front_proxy: proxy.is_some(), digest })
}

/// k3s keeps it beside the CA that signed it. An API server without one is reached as its admin, by impersonation.
async fn front_proxy(files: &Files) -> Result<Option<Pair>> {
    let certificate = files.request_header_ca.with_file_name("client-auth-proxy.crt");
    let key = files.request_header_ca.with_file_name("client-auth-proxy.key");
    if !exists(&certificate).await && !exists(&key).await {
        return Ok(None);
    }
    pair(&certificate, &key).await.map(Some)
}

/// The text of every file that a kubeconfig names.
async fn named_files(kubeconfig: &str, folder: &Path) -> String {
    const KEYS: [&str; 4] = ["client-certificate:", "client-key:", "certificate-authority:", "tokenFile:"];
    let mut all = String::new();
    for line in kubeconfig.lines() {
        let named = KEYS.iter().find_map(|key| line.split_once(key)).map(|(_, rest)| rest);
        for word in named
            .into_iter()
            .flat_map(|rest| rest.split(|c: char| c.is_whitespace() || matches!(c, ',' | '}' | '"' | '\'')))
        {
            if !word.is_empty() {
                all.push_str(&tokio::fs::read_to_string(folder.join(word)).await.unwrap_or_default());
            }
        }
    }
    all
}

async fn pair(certificate: &Path, key: &Path) -> Result<Pair> {
    Ok(Pair { certificate: text(certificate).await?, key: text(key).await? })
}

async fn text(path: &Path) -> Result<String> {
    let text = tokio::fs::read_to_string(path).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "does not exist yet: k3s writes it when it has started (is /data shared?)",
            std::io::ErrorKind::PermissionDenied => "may not be read: run this container as the user of k3s' container",
            _ => "cannot be read",
        };
        missing(format!("{} {why}", path.display())).because(error)
    })?;
    if text.trim().is_empty() {
        return Err(missing(format!("{} is empty: k3s is just writing it", path.display())));
    }
    Ok(text)
}

async fn exists(path: &Path) -> bool {
    tokio::fs::try_exists(path).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certificates::{self, Leaf, Usage};

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn leaf(name: &str) -> Leaf {
        let (names, usage) = (Vec::new(), Usage::Client);
        Leaf { common_name: name.to_owned(), organization: None, names, usage, renew_days: 30 }
    }

    /// k3s' layout, as far as it is read.
    fn layout(folder: &Path) -> Files {
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        let (server, client, proxy) = (
            certificates::new_ca("k3s-server-ca", now).expect("ca"),
            certificates::new_ca("k3s-client-ca", now).expect("ca"),
            certificates::new_ca("k3s-request-header-ca", now).expect("ca"),
        );
        let admin = certificates::new_leaf(&client, &leaf("system:admin"), now).expect("leaf");
        let auth = certificates::new_leaf(&proxy, &leaf("system:auth-proxy"), now).expect("leaf");
        for (name, text) in [
            ("server-ca.key", &server.key),
            ("client-ca.key", &client.key),
            ("client-admin.crt", &admin.certificate),
            ("client-admin.key", &admin.key),
            ("client-auth-proxy.crt", &auth.certificate),
            ("client-auth-proxy.key", &auth.key),
        ] {
            write(folder, name, text);
        }
        let kubeconfig = "apiVersion: v1\nkind: Config\ncurrent-context: d\n\
            contexts: [{name: d, context: {cluster: c, user: u}}]\n\
            clusters: [{name: c, cluster: {server: 'https://127.0.0.1:6444', certificate-authority: server-ca.crt}}]\n\
            users: [{name: u, user: {client-certificate: client-admin.crt, client-key: client-admin.key}}]\n";
        Files {
            server_ca: write(folder, "server-ca.crt", &server.certificate),
            server_ca_key: folder.join("server-ca.key"),
            client_ca: write(folder, "client-ca.crt", &client.certificate),
            request_header_ca: write(folder, "request-header-ca.crt", &proxy.certificate),
            kubeconfig: write(folder, "admin.kubeconfig", kubeconfig),
        }
    }

    #[tokio::test]
    async fn a_front_proxy_is_used_where_k3s_has_one() {
        let folder = tempfile::tempdir().expect("folder");
        let files = layout(folder.path());
        let material = read(&files).await.expect("complete");
        assert!(material.is_front_proxy);
        assert_eq!((material.target.host.as_str(), material.target.port), ("127.0.0.1", 6444));
        std::fs::remove_file(folder.path().join("client-auth-proxy.crt")).expect("removed");
        let error = read(&files).await.err().expect("half a pair");
        assert!(error.to_string().contains("client-auth-proxy.crt"), "{error}");
        std::fs::remove_file(folder.path().join("client-auth-proxy.key")).expect("removed");
        let admin = read(&files).await.expect("complete");
        assert!(!admin.is_front_proxy);
        let renewed = std::fs::read_to_string(folder.path().join("client-admin.crt")).expect("there") + "\n";
        write(folder.path(), "client-admin.crt", &renewed);
        assert_ne!(read(&files).await.expect("complete").digest, admin.digest, "a renewed certificate is noticed");
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let files = layout(folder.path());
        write(folder.path(), "client-ca.crt", "");
        assert!(read(&files).await.err().expect("empty").to_string().contains("client-ca.crt is empty"));
        std::fs::remove_file(&files.server_ca_key).expect("removed");
        let error = read(&files).await.err().expect("missing").to_string();
        assert!(error.contains("server-ca.key does not exist yet"), "{error}");
    }
}
