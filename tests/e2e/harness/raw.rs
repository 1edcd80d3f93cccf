//! Requests that kubectl would not send: own headers, wrong names, foreign credentials.

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};

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
