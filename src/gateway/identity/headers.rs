//! Headers on their way through: hop-by-hop ones end here, identities of others end here, credentials are taken out.
//!
//! The order matters (CVE-2022-23652 and its kin): first what `Connection` names, then reserved names; whoever adds an
//! identity does it afterwards.

use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::error::{Error, Kind, Result};

/// Subprotocol by which browsers hand over a bearer token, unpadded base64url behind it.
const WEBSOCKET_BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// What cleaning took out of a request and what is needed further on.
#[derive(Debug, Default)]
pub struct Cleaned {
    /// Protocol of a wanted upgrade.
    pub upgrade: Option<HeaderValue>,
    /// The client's `Impersonate-*` headers; for the backend to judge, never for the host.
    pub impersonate: HeaderMap,
    /// Whether something before us says that it forwarded the request: it may have ended the client's TLS.
    pub forwarded: bool,
}

/// What a caller shows besides its certificate.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    None,
    /// `Authorization: Bearer …` (or the WebSocket form of it), as the backend wants it.
    Bearer(HeaderValue),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::None) { "None" } else { "Bearer(…)" })
    }
}

/// Removes hop-by-hop and reserved headers from a request.
pub fn clean(headers: &mut HeaderMap) -> Result<Cleaned> {
    let forwarded = ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-real-ip", "via"];
    let forwarded = forwarded.iter().any(|name| headers.contains_key(*name));
    let mut cleaned = Cleaned { upgrade: wanted_upgrade(headers), forwarded, ..Cleaned::default() };
    remove_hop_by_hop(headers);
    let mut doomed: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        match classify(name.as_str()) {
            Reserved::No => {}
            Reserved::Remove | Reserved::Impersonate => doomed.push(name.clone()),
            Reserved::Refuse => {
                return Err(Error::client(Kind::BadRequest, format!("the header {name:?} is not accepted here")));
            }
        }
    }
    for name in doomed {
        if classify(name.as_str()) == Reserved::Impersonate {
            for value in headers.get_all(&name) {
                cleaned.impersonate.append(name.clone(), value.clone());
            }
        }
        headers.remove(&name);
    }
    if !cleaned.impersonate.is_empty() && !cleaned.impersonate.contains_key("impersonate-user") {
        return Err(Error::client(Kind::BadRequest, "impersonation needs the header Impersonate-User"));
    }
    Ok(cleaned)
}

/// Removes hop-by-hop headers from a response, keeping what an upgrade needs when `keep_upgrade`.
pub fn clean_response(headers: &mut HeaderMap, keep_upgrade: bool) {
    let kept = [header::CONNECTION, header::UPGRADE].map(|name| headers.get(&name).cloned().map(|value| (name, value)));
    remove_hop_by_hop(headers);
    if keep_upgrade {
        headers.extend(
            kept.into_iter().flatten().map(|(name, value)| (Some(name), value)).filter_map(|(n, v)| Some((n?, v))),
        );
    }
}

/// Takes the credentials out of the headers. Anything that looks like a credential and is none is an error: a caller
/// who tried and failed is never anonymous.
pub fn credentials(headers: &mut HeaderMap, is_upgrade: bool) -> Result<Credentials> {
    let refuse = |why: &str| Err(Error::client(Kind::Unauthorized, why));
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let first = lines.next().cloned();
    if lines.next().is_some() {
        return refuse("there are several Authorization headers");
    }
    headers.remove(header::AUTHORIZATION);
    let by_protocol = if is_upgrade { websocket_bearer(headers)? } else { None };
    let Some(value) = first else {
        return Ok(by_protocol.map_or(Credentials::None, Credentials::Bearer));
    };
    let Ok(text) = value.to_str() else { return refuse("the Authorization header has characters that no token has") };
    let mut words = text.trim().split(' ');
    let (scheme, token) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !scheme.eq_ignore_ascii_case("bearer") {
        return refuse("only bearer tokens and client certificates are accepted");
    }
    if token.is_empty() {
        return refuse("the bearer token is empty");
    }
    Ok(Credentials::Bearer(bearer(token)?))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reserved {
    No,
    Remove,
    Impersonate,
    Refuse,
}

/// Header names arrive in lower case. Underscores count as hyphens, since some servers read them so.
fn classify(name: &str) -> Reserved {
    let (dashed, underscored) = (name.replace('_', "-"), name.contains('_'));
    let identity = ["x-remote-", "x-remote", "impersonate", "x-forwarded-client-cert", "x-portico-"];
    if underscored && (dashed == "authorization" || identity.iter().any(|prefix| dashed.starts_with(prefix))) {
        return Reserved::Refuse;
    }
    match name {
        "impersonate-user" | "impersonate-group" | "impersonate-uid" => return Reserved::Impersonate,
        "forwarded" | "x-real-ip" | "front-end-https" | "x-original-url" | "x-rewrite-url" => return Reserved::Remove,
        _ => {}
    }
    if name.strip_prefix("impersonate-extra-").is_some_and(|key| !key.is_empty()) {
        return Reserved::Impersonate;
    }
    // whatever a later API server adds must not pass unread
    if name.starts_with("impersonate") {
        return Reserved::Refuse;
    }
    if name.starts_with("x-remote-") || name.starts_with("x-forwarded-") || name.starts_with("x-portico-") {
        return Reserved::Remove;
    }
    Reserved::No
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    for name in named {
        // framing and credentials are not a peer's to switch off
        if !matches!(name, header::HOST | header::CONTENT_LENGTH | header::AUTHORIZATION) {
            headers.remove(name);
        }
    }
    for name in ["connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te"] {
        headers.remove(name);
    }
    for name in [header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    headers.remove("http2-settings");
}

fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asks).cloned()
}

/// Takes the token out of `Sec-WebSocket-Protocol`; it must never be echoed or reach a pod.
fn websocket_bearer(headers: &mut HeaderMap) -> Result<Option<HeaderValue>> {
    let refuse = |why: &str| Error::client(Kind::Unauthorized, why);
    let (mut tokens, mut others) = (Vec::new(), Vec::new());
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        let text = value.to_str().map_err(|e| refuse("the subprotocols cannot be read").because(e))?;
        for protocol in text.split(',').map(str::trim) {
            match protocol.strip_prefix(WEBSOCKET_BEARER) {
                Some(token) => tokens.push(token.to_owned()),
                None => others.push(protocol.to_owned()),
            }
        }
    }
    let [token] = tokens.as_slice() else {
        return if tokens.is_empty() { Ok(None) } else { Err(refuse("there are several bearer subprotocols")) };
    };
    if others.is_empty() {
        return Err(refuse("a bearer subprotocol needs another subprotocol beside it"));
    }
    let kept =
        HeaderValue::try_from(others.join(", ")).map_err(|e| refuse("the subprotocols cannot be read").because(e))?;
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, kept);
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(token)
        .map_err(|e| refuse("the bearer subprotocol is not base64url").because(e))?;
    let text = String::from_utf8(decoded).map_err(|e| refuse("the bearer subprotocol is no text").because(e))?;
    if text.is_empty() || text.contains(' ') {
        return Err(refuse("the bearer subprotocol holds no token"));
    }
    bearer(&text).map(Some)
}

fn bearer(token: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|e| {
        Error::client(Kind::Unauthorized, "the bearer token has characters that no token has").because(e)
    })?;
    value.set_sensitive(true);
    Ok(value)
}
