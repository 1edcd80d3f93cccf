//! A batch of spans to the collector: one POST of OTLP's protobuf, and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::config::TracingConfig;
use crate::error::{Error, Kind, Result};
use crate::tls;

/// Of one POST, to the end of its answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Of an answer, which says nothing that is needed.
const LONGEST_ANSWER: usize = 64 << 10;
/// Of files that the configuration names.
const LONGEST_FILE: u64 = 1 << 20;
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Where batches go.
pub(super) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    endpoint: Uri,
    headers: HeaderMap,
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Yes,
    /// It will not be, ever.
    No,
    /// Perhaps the next time.
    Later,
}

impl Collector {
    pub(super) fn new(config: &TracingConfig) -> Result<Self> {
        let invalid = |what: &str| Error::client(Kind::Invalid, format!("tracing.{what}"));
        let endpoint: Uri = config.endpoint.parse().map_err(|e| invalid("endpoint: no URL").because(e))?;
        // For an endpoint without TLS it is there and not used.
        let roots = match config.certificate_authority.as_str() {
            "" => None,
            path => Some(read(path, "certificateAuthority")?),
        };
        let tls = match &roots {
            Some(pem) => tls::client_config(pem, None)?,
            None => tls::client_config_without_roots()?,
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(rustls::ClientConfig::clone(&tls))
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        let headers = match config.headers_file.as_str() {
            "" => HeaderMap::new(),
            path => parse(&read(path, "headersFile")?)
                .ok_or_else(|| invalid("headersFile: one `Name: value` a line is needed"))?,
        };
        Ok(Self { client, endpoint, headers })
    }

    /// Within the deadline.
    pub(super) async fn post(&self, batch: Bytes) -> Taken {
        let asked = async {
            let response = self.client.request(self.request(batch)).await.map_err(|e| {
                tracing::debug!(error = %e, "the collector of traces is not reached");
            })?;
            let status = response.status();
            // Read to its end, so that the connection can be used again.
            drop(Limited::new(response.into_body(), LONGEST_ANSWER).collect().await);
            Ok::<_, ()>(status)
        };
        match tokio::time::timeout(DEADLINE, asked).await {
            Ok(Ok(status)) => taken(status),
            Ok(Err(())) | Err(_) => Taken::Later,
        }
    }

    fn request(&self, batch: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(batch));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(CONTENT_TYPE, PROTOBUF);
        request
    }
}

/// As OTLP has it: what may be sent again, and what not.
fn taken(status: StatusCode) -> Taken {
    match status {
        status if status.is_success() => Taken::Yes,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Taken::Later,
        _ => Taken::No,
    }
}

fn read(path: &str, field: &str) -> Result<Vec<u8>> {
    let fault = |what: &str| Error::client(Kind::Invalid, format!("tracing.{field}: {path} {what}"));
    let size = std::fs::metadata(path).map_err(|e| fault("cannot be read").because(e))?.len();
    if size > LONGEST_FILE {
        return Err(fault("is longer than 1 MiB"));
    }
    std::fs::read(path).map_err(|e| fault("cannot be read").because(e))
}

/// Values never reach a log.
fn parse(text: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in std::str::from_utf8(text).ok()?.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let mut value = HeaderValue::try_from(value.trim()).ok()?;
        value.set_sensitive(true);
        headers.append(HeaderName::try_from(name.trim()).ok()?, value);
    }
    Some(headers)
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_nonsense_is_none() {
        let headers = parse(b"Authorization: Bearer abc:d\n\n x-team :a \n").expect("reads");
        assert_eq!(headers["authorization"], "Bearer abc:d");
        assert!(headers["authorization"].is_sensitive() && headers["x-team"] == "a");
        for bad in [&b"nothing"[..], b"a b: c", b"\xff: a", b"a: \x00"] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn only_what_may_be_sent_again_is() {
        for (code, expected) in [(200, Taken::Yes), (202, Taken::Yes), (400, Taken::No), (401, Taken::No)] {
            assert_eq!(taken(StatusCode::from_u16(code).expect("a code")), expected, "{code}");
        }
        for code in [429, 502, 503, 504] {
            assert_eq!(taken(StatusCode::from_u16(code).expect("a code")), Taken::Later, "{code}");
        }
    }
}
