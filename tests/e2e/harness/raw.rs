//! Requests that kubectl would not send: own headers, wrong names, foreign credentials.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) code: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Raw {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// It must be a `metav1.Status` of this code.
    #[track_caller]
    pub(crate) fn is_status(&self, code: u16) {
        assert_eq!(self.code, code, "{}", self.text());
        let status: serde_json::Value =
            serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {}", self.text()));
        assert_eq!(status["kind"], "Status", "{status}");
        assert_eq!(status["code"], code, "{status}");
    }
}

/// Sends a GET with the credentials of a kubeconfig after `change`; `Err` when no TLS connection comes about.
pub(crate) fn raw(
    kubeconfig: &Path,
    path: &str,
    headers: &[(&str, &str)],
    change: impl FnOnce(&mut kube::Config),
) -> Result<Raw, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("usable");
        config.default_retry = false;
        change(&mut config);
        let client = kube::Client::try_from(config).expect("a client");
        let mut request = http::Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(kube::client::Body::empty()).expect("a request");
        let answer = client.send(request).await.map_err(|e| format!("{e:?}"))?;
        let (code, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.into_body().collect_bytes().await.map_err(|e| format!("{e:?}"))?.to_vec();
        Ok(Raw { code, headers, bytes })
    })
}

/// POSTs of which most has been sent and the rest never comes, each on a connection of its own that stays open.
pub(crate) struct SlowPosts {
    answers: Arc<Mutex<Vec<u16>>>,
    count: usize,
    _runtime: Runtime,
}

impl SlowPosts {
    const LENGTH: usize = 3_000_000;
    const PIECE: usize = 64 << 10;

    /// Sent to a path of the kubeconfig's server with nothing but this token.
    pub(crate) fn start(kubeconfig: &Path, path: &str, token: &str, count: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let answers: Arc<Mutex<Vec<u16>>> = Arc::default();
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        let config = runtime.block_on(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()));
        let mut config = config.expect("usable");
        config.auth_info = kube::config::AuthInfo::default();
        let host = config.cluster_url.host().expect("a host").trim_matches(['[', ']']).to_owned();
        let port = config.cluster_url.port_u16().unwrap_or(443);
        let mut tls = config.rustls_client_config().expect("TLS");
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            Self::LENGTH + 1
        );
        for _ in 0..count {
            let (tls, host, head, answers) = (tls.clone(), host.clone(), head.clone(), Arc::clone(&answers));
            runtime.spawn(async move {
                let name = rustls::pki_types::ServerName::try_from(host.clone()).expect("a name");
                let stream = TcpStream::connect((host.as_str(), port)).await.expect("the gateway listens");
                let stream = tls.connect(name, stream).await.expect("a handshake");
                let (mut read, mut write) = tokio::io::split(stream);
                let sending = async {
                    let _ = write.write_all(head.as_bytes()).await;
                    for _ in 0..Self::LENGTH / Self::PIECE {
                        if write.write_all(&[b' '; Self::PIECE]).await.and(write.flush().await).is_err() {
                            break;
                        }
                    }
                    std::future::pending::<()>().await;
                };
                let mut first = [0; 12];
                let code = tokio::select! {
                    answer = read.read_exact(&mut first) => match answer {
                        Ok(_) => std::str::from_utf8(&first[9..]).ok().and_then(|code| code.parse().ok()).unwrap_or(0),
                        Err(_) => 0,
                    },
                    () = sending => 0,
                };
                answers.lock().push(code);
                // Both halves are held on.
                tokio::time::sleep(Duration::from_secs(3600)).await;
                drop((read, write));
            });
        }
        Self { answers, count, _runtime: runtime }
    }

    /// Whether each has had an answer.
    pub(crate) fn are_answered(&self) -> bool {
        self.answers().len() == self.count
    }

    /// The codes so far; 0 where the gateway closed and the answer was lost with it.
    pub(crate) fn answers(&self) -> Vec<u16> {
        self.answers.lock().clone()
    }
}
