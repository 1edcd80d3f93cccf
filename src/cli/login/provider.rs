//! An issuer's server, as a client of it (OpenID Connect Discovery 1.0, RFC 6749).
//!
//! Promises: https only, each answer within its time and length; no token, code or secret is in a failure.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::tokens::{Expected, Refusal, Tokens};
use crate::cli::failure::{Failure, Outcome, chain};
use crate::tls;

const DEADLINE: Duration = Duration::from_secs(30);
const LONGEST: usize = 1 << 20;

/// As whom it is asked.
pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: Option<String>,
}

/// The server.
pub(super) struct Provider {
    http: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    issuer: String,
    client: Client,
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: String,
    device_authorization_endpoint: Option<String>,
}

impl Endpoints {
    fn are_urls(&self) -> bool {
        let others = self.authorization_endpoint.iter().chain(&self.device_authorization_endpoint);
        let mut all = std::iter::once(&self.token_endpoint).chain(others);
        all.all(|url| url.starts_with("https://") && url.bytes().all(|byte| byte.is_ascii_graphic()))
    }
}

/// What a form's endpoint says.
pub(super) enum Said {
    Yes(Bytes),
    No(Refusal),
}

impl Provider {
    /// Reads its configuration. `authority` is PEM, or empty for the web's.
    pub(super) async fn discover(issuer: &str, authority: &[u8], client: Client) -> Outcome<Self> {
        let tls = match authority {
            [] => tls::client_config_of_the_web(),
            pem => tls::client_config(pem, None),
        };
        let tls = tls.map_err(|e| Failure::new(format!("the issuer's CA cannot be used: {e}"), "is it PEM?"))?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(rustls::ClientConfig::clone(&tls))
            .https_only()
            .enable_http1()
            .build();
        let http = HttpClient::builder(TokioExecutor::new()).build(connector);
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let request = Request::get(&url).body(Full::default());
        let (status, body) = exchange(&http, request, &url).await?;
        let wrong =
            |what: &str| Failure::new(format!("{url} {what}"), "is this the issuer, as its tokens have it (iss)?");
        if status != StatusCode::OK {
            return Err(wrong(&format!("says {status}")));
        }
        let endpoints: Endpoints = serde_json::from_slice(&body).map_err(|_| wrong("is no issuer's configuration"))?;
        // They are shown in a terminal, and given to a browser.
        if !endpoints.are_urls() {
            return Err(wrong("names endpoints that are no https URLs"));
        }
        if endpoints.issuer != issuer {
            return Err(wrong("is another issuer's configuration"));
        }
        Ok(Self { http, issuer: issuer.to_owned(), client, endpoints })
    }

    /// What a token of it must say.
    pub(super) fn expected<'a>(&'a self, nonce: Option<&'a str>) -> Expected<'a> {
        Expected { issuer: &self.issuer, client: &self.client.id, nonce }
    }

    /// Its name, and the client's.
    pub(super) fn names(&self) -> (&str, &str) {
        (&self.issuer, &self.client.id)
    }

    /// Where a browser goes, with these parameters.
    pub(super) fn authorization(&self, parameters: &[(&str, &str)]) -> Outcome<String> {
        let endpoint = self.endpoints.authorization_endpoint.as_deref().filter(|url| url.starts_with("https://"));
        let endpoint = endpoint.ok_or_else(|| {
            Failure::new("the issuer has no endpoint for browsers (https)", "try: portico login --device")
        })?;
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        Ok(format!("{endpoint}{separator}{}", form(parameters)))
    }

    /// New tokens for a refresh token; `None`: it is not taken any more, or brings no id token (OpenID Connect Core 12.2).
    pub(super) async fn renewed(&self, refresh: &str) -> Outcome<Option<Tokens>> {
        let parameters = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
        match self.token(&parameters).await? {
            Said::Yes(answer) => {
                // One that rotates none keeps the old one.
                let Ok(mut tokens) = Tokens::read(&answer, self.expected(None)) else { return Ok(None) };
                tokens.refresh_token.get_or_insert_with(|| refresh.to_owned());
                Ok(Some(tokens))
            }
            Said::No(_) => Ok(None),
        }
    }

    /// Asks for tokens.
    pub(super) async fn token(&self, parameters: &[(&str, &str)]) -> Outcome<Said> {
        self.post(&self.endpoints.token_endpoint, parameters).await
    }

    /// Asks for a login on another device.
    pub(super) async fn device(&self, parameters: &[(&str, &str)]) -> Outcome<Said> {
        let Some(endpoint) = &self.endpoints.device_authorization_endpoint else {
            let hint = "leave --device out; without a browser here, forward a port: ssh -L and --listen";
            return Err(Failure::new("the issuer does not let people log in on another device", hint));
        };
        self.post(endpoint, parameters).await
    }

    async fn post(&self, url: &str, parameters: &[(&str, &str)]) -> Outcome<Said> {
        let mut all = parameters.to_vec();
        all.push(("client_id", &self.client.id));
        all.extend(self.client.secret.as_deref().map(|secret| ("client_secret", secret)));
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(form(&all))));
        let (status, body) = exchange(&self.http, request, url).await?;
        match status {
            StatusCode::OK => Ok(Said::Yes(body)),
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Ok(Said::No(Refusal::read(&body)))
            }
            status => Err(Failure::new(format!("{url} says {status}"), "try again later, or ask who runs the issuer")),
        }
    }
}

async fn exchange(
    http: &HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    request: http::Result<Request<Full<Bytes>>>,
    url: &str,
) -> Outcome<(StatusCode, Bytes)> {
    let not = |why: String| {
        Failure::new(
            format!("{url} is not reached: {why}"),
            "look at the URL, the CA (--certificate-authority) and the network",
        )
    };
    let request = request.map_err(|e| not(e.to_string()))?;
    let answered = async {
        let response = http.request(request).await.map_err(|e| not(chain(&e)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        Ok((status, body.map_err(|_| not("its answer breaks off, or is too long".to_owned()))?.to_bytes()))
    };
    tokio::time::timeout(DEADLINE, answered).await.unwrap_or_else(|_| Err(not("it does not answer in time".to_owned())))
}

fn form(parameters: &[(&str, &str)]) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    parameters.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect::<Vec<_>>().join("&")
}
